//! The signals of a run: those that end it, and SIGCHLD.
//!
//! Theory of operation: [`Signals::catch`] blocks them, and a descriptor delivers them, which poll(2)
//! watches beside all others. The first that ends the run is recorded for the whole process ([`ending`]):
//! from then on nothing waits for a reader or a peer.
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicI32, Ordering},
};

/// Signals that end a run.
pub(crate) const TERMINATING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The number of the first signal that ended the run; 0 before one has arrived.
static ENDING: AtomicI32 = AtomicI32::new(0);

/// Returns the signal that ends the run, once one has been read.
pub(crate) fn ending() -> Option<Signal> {
    Signal::try_from(ENDING.load(Ordering::Relaxed)).ok()
}

/// Unblocks the signals that end a run, so that they end the process. Call it only while nothing is open
/// that would have to be undone.
pub(crate) fn release() {
    if let Err(error) = SigSet::from_iter(TERMINATING).thread_unblock() {
        log::debug!("cannot unblock signals: {error}");
    }
}

/// A descriptor that is readable while a signal is pending.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals that end a run, and SIGCHLD, and opens a descriptor for them. The run then ends
    /// in order and undoes what it has put into the kernel. A signal that was ignored at the program's
    /// start (nohup(1)) stays ignored.
    ///
    /// # Errors
    /// Those of sigprocmask(2) and signalfd(2).
    pub(crate) fn catch() -> io::Result<Signals> {
        let mut mask = SigSet::from_iter(TERMINATING);
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        Signals::open(&mask)
    }

    /// Opens a descriptor for the signals that end a run. It delivers none before [`Signals::catch`] has
    /// blocked them.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub(crate) fn watch() -> io::Result<Signals> {
        Signals::open(&SigSet::from_iter(TERMINATING))
    }

    fn open(mask: &SigSet) -> io::Result<Signals> {
        Ok(Signals(SignalFd::with_flags(mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Reads all pending signals, and records the first that ends the run. Returns whether SIGCHLD was
    /// among them.
    ///
    /// # Errors
    /// Those of read(2).
    pub(crate) fn take(&self) -> io::Result<bool> {
        let mut child = false;
        while let Some(info) = self.0.read_signal()? {
            let number = info.ssi_signo as i32;
            if number == Signal::SIGCHLD as i32 {
                child = true;
            } else {
                let _ = ENDING.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        Ok(child)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
