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

    /// Waits until one of `own` or of `interests` is ready, a signal arrives, or `deadline` has passed, whichever is
    /// first. Returns the signal, if there is one.
    pub fn wait(
        &self,
        own: &mut [Interest<'_>],
        interests: &mut [Interest<'_>],
        deadline: Option<Duration>,
    ) -> io::Result<Option<Signal>> {
        let mut fds: Vec<PollFd<'_>> = own.iter().map(|i| PollFd::new(i.fd, i.events)).collect();
        fds.extend(interests.iter().map(|i| PollFd::new(i.fd, i.events)));
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        let timeout = deadline.map(|at| at.saturating_sub(self.now()));
        match ppoll(&mut fds, timeout.map(TimeSpec::from), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let own = own.iter_mut().map(|interest| &mut interest.ready);
        let all = own.chain(interests.iter_mut().map(|interest| &mut interest.ready));
        for (ready, fd) in all.zip(&fds) {
            *ready = is_ready(fd);
        }
        if !fds.last().is_some_and(is_ready) {
            return Ok(None);
        }
        let info = self.signals.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
    }
}

/// A descriptor to wait for.
#[derive(Debug)]
pub struct Interest<'fd> {
    fd: BorrowedFd<'fd>,
    events: PollFlags,
    /// What was waited for has come, or an error has, which the next read or write will tell.
    pub ready: bool,
}

impl<'fd> Interest<'fd> {
    pub fn readable(fd: BorrowedFd<'fd>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLIN, ready: false }
    }

    pub fn writable(fd: BorrowedFd<'fd>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLOUT, ready: false }
    }

    /// Only an error: for the writing side of a pipe, that nobody reads any more (poll(2), POLLERR).
    pub fn hang_up(fd: BorrowedFd<'fd>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::empty(), ready: false }
    }
}
