//! One loop over everything that happens: the link, standard streams, signals, time.
//!
//! poll(2) rather than epoll(7): there are few descriptors, regular files are always ready in it where epoll
//! refuses them, and ppoll(2) takes nanoseconds, which pacing needs.
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        time::TimeSpec,
    },
};
use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// The loop's clock starts here rather than at zero, which the stack's layers may take for "never".
const START: Duration = Duration::from_secs(1);
/// Busy turns of a loop after which it waits all the same, for no time: other descriptors and signals have their turn.
pub const BUSY_TURNS: u32 = 16;
/// The signals that end a run.
const TERMINATING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The clock, the signals, and the wait for both and for descriptors.
#[derive(Debug)]
pub struct Reactor {
    signals: SignalFd,
    started: Instant,
}

impl Reactor {
    /// From now on SIGINT, SIGTERM and SIGHUP are returned by [`Reactor::wait`] instead of ending the program
    /// on the spot, so that nothing is left behind. A signal that was ignored when we started (nohup(1)) stays
    /// ignored.
    pub fn new() -> io::Result<Reactor> {
        let mask = SigSet::from_iter(TERMINATING);
        mask.thread_block()?;
        // Timers are otherwise up to 50 µs late (prctl(2), PR_SET_TIMERSLACK): too much for pacing.
        prctl::set_timerslack(1)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Reactor { signals, started: Instant::now() })
    }

    /// Time since an arbitrary start.
    pub fn now(&self) -> Duration {
        START + self.started.elapsed()
    }

    /// Waits until one of `interests` is ready, a signal arrives, or `deadline` has passed, whichever is first. Returns
    /// the signal, if there is one.
    ///
    /// # Errors
    /// Those of ppoll(2) and of reading the signal.
    pub fn wait<'a, 'fd: 'a>(
        &self,
        interests: impl Iterator<Item = &'a Interest<'fd>> + Clone,
        deadline: Option<Duration>,
    ) -> io::Result<Option<Signal>> {
        let mut fds: Vec<PollFd<'_>> = interests.clone().map(|i| PollFd::new(i.fd, i.events)).collect();
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        let timeout = deadline.map(|at| at.saturating_sub(self.now()));
        match ppoll(&mut fds, timeout.map(TimeSpec::from), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        interests.zip(&fds).filter(|(_, fd)| is_ready(fd)).for_each(|(interest, _)| interest.tell());
        if !fds.last().is_some_and(is_ready) {
            return Ok(None);
        }
        let info = self.signals.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
    }
}

/// A descriptor to wait for, and the flag that changes once what was waited for has come, or an error has, which the
/// next read or write will tell.
#[derive(Debug)]
pub struct Interest<'fd> {
    fd: BorrowedFd<'fd>,
    events: PollFlags,
    flag: &'fd Cell<bool>,
    becomes: bool,
}

impl<'fd> Interest<'fd> {
    /// Waits for something to read; `blocked` becomes false then.
    pub fn readable(fd: BorrowedFd<'fd>, blocked: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLIN, flag: blocked, becomes: false }
    }

    /// Waits for room to write; `blocked` becomes false then.
    pub fn writable(fd: BorrowedFd<'fd>, blocked: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLOUT, flag: blocked, becomes: false }
    }

    /// Waits for nothing but an error: on the writing side of a pipe, that its reader has gone (poll(2), POLLERR).
    /// `hung_up` becomes true then.
    pub fn hang_up(fd: BorrowedFd<'fd>, hung_up: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::empty(), flag: hung_up, becomes: true }
    }

    fn tell(&self) {
        self.flag.set(self.becomes);
    }
}
