//! The signals of a run: those that end it, and SIGCHLD.
//!
//! Theory of operation: [`Signals::catch`] blocks them, and they are read from a descriptor that poll(2) watches beside
//! all others. The first one that ends the run is remembered for the whole process ([`ending`]): from then on nothing
//! waits for a reader or a peer any more.
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicI32, Ordering},
};

/// The signals that end a run.
pub const TERMINATING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The number of the first signal that ended the run; 0 while none has come.
static ENDING: AtomicI32 = AtomicI32::new(0);

/// Returns the signal that ends the run, once one has been read.
pub fn ending() -> Option<Signal> {
    Signal::try_from(ENDING.load(Ordering::Relaxed)).ok()
}

/// Gives the signals that end a run their usual effect again, while nothing is open that could be left behind.
pub fn release() {
    if let Err(error) = SigSet::from_iter(TERMINATING).thread_unblock() {
        log::debug!("cannot unblock signals: {error}");
    }
}

/// A descriptor that is readable while a signal waits to be read.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals that end a run, and SIGCHLD, from now on: they are read instead of ending the program on the
    /// spot, so that nothing is left behind. A signal that was ignored when the program started (nohup(1)) stays
    /// ignored.
    ///
    /// # Errors
    /// Those of sigprocmask(2) and signalfd(2).
    pub fn catch() -> io::Result<Signals> {
        let mut mask = SigSet::from_iter(TERMINATING);
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        Signals::open(&mask)
    }

    /// Opens a descriptor for the signals that end a run. It tells of none before [`Signals::catch`]: these end the
    /// program themselves.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn watch() -> io::Result<Signals> {
        Signals::open(&SigSet::from_iter(TERMINATING))
    }

    fn open(mask: &SigSet) -> io::Result<Signals> {
        Ok(Signals(SignalFd::with_flags(mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Reads all signals that wait, and remembers the first that ends the run. Returns whether SIGCHLD was among them.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn take(&self) -> io::Result<bool> {
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
