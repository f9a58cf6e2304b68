//! One loop over everything that happens: the link, standard streams, signals, processes, time.
//!
//! poll(2) rather than epoll(7): there are few descriptors, regular files are always ready in it where epoll
//! refuses them, and ppoll(2) takes nanoseconds, which pacing needs.
use crate::{
    children::Children,
    signals::{self, Signals},
    stderr,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{prctl, signal::Signal, time::TimeSpec},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

/// The loop's clock starts here rather than at zero, which the stack's layers may take for "never".
const START: Duration = Duration::from_secs(1);
/// Busy turns of a loop after which it waits all the same, for no time: other descriptors and signals have their turn.
pub const BUSY_TURNS: u32 = 16;
/// To ask and to yield takes less, unless somebody else wants the processor for longer than it takes to be woken up.
const OWN_TURN: Duration = Duration::from_micros(50);

/// The clock, the signals, the processes, and the wait for all of them and for descriptors.
#[derive(Debug)]
pub struct Reactor {
    signals: Signals,
    /// Waited for while the reactor waits.
    pub children: Children,
    started: Instant,
    /// Whether there is a processor to stay awake on.
    spare: bool,
}

impl Reactor {
    /// From now on SIGINT, SIGTERM and SIGHUP are returned by [`Reactor::wait`] instead of ending the program
    /// on the spot; see [`Signals::catch`].
    pub fn new() -> io::Result<Reactor> {
        let signals = Signals::catch()?;
        // Timers are otherwise up to 50 µs late (prctl(2), PR_SET_TIMERSLACK): too much for pacing.
        prctl::set_timerslack(1)?;
        // One alone, or a quota of less than two (cgroups(7)), is needed for work.
        let spare = thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Ok(Reactor { signals, children: Children::default(), started: Instant::now(), spare })
    }

    /// Time since an arbitrary start.
    pub fn now(&self) -> Duration {
        START + self.started.elapsed()
    }

    /// Waits until one of `own` or of `interests` is ready, a signal arrives, or `deadline` has passed, whichever is
    /// first. Asks again and again, rather than sleeping, before `awake_until`, if there is a processor to spare. Returns
    /// the signal that ends the run, once it has come.
    pub fn wait(
        &mut self,
        own: &mut [Interest<'_>],
        interests: &mut [Interest<'_>],
        deadline: Option<Duration>,
        awake_until: Option<Duration>,
    ) -> io::Result<Option<Signal>> {
        let deadline = deadline.into_iter().chain(self.children.deadline()).min();
        let mut fds: Vec<PollFd<'_>> = own.iter().map(|i| PollFd::new(i.fd, i.events)).collect();
        fds.extend(interests.iter().map(|i| PollFd::new(i.fd, i.events)));
        let lines = stderr::waiting();
        fds.extend(lines.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        let mut spare = self.spare;
        let mut last = None;
        loop {
            let now = self.now();
            // Whoever ran while we yielded wants the processor.
            spare &= last.replace(now).is_none_or(|last| now <= last + OWN_TURN);
            let awake = spare && awake_until.is_some_and(|until| now < until);
            let timeout =
                if awake { Some(Duration::ZERO) } else { deadline.map(|at| at.saturating_sub(now)) };
            match ppoll(&mut fds, timeout.map(TimeSpec::from), None) {
                Ok(0) if awake && deadline.is_none_or(|at| now < at) => thread::yield_now(),
                Ok(_) => break,
                Err(Errno::EINTR) => return Ok(signals::ending()),
                Err(error) => return Err(error.into()),
            }
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let own = own.iter_mut().map(|interest| &mut interest.ready);
        let all = own.chain(interests.iter_mut().map(|interest| &mut interest.ready));
        for (ready, fd) in all.zip(&fds) {
            *ready = is_ready(fd);
        }
        let signalled = fds.last().is_some_and(is_ready);
        if lines.is_some() {
            stderr::flush();
        }
        let child = signalled && self.signals.take()?;
        if child || self.children.deadline().is_some_and(|at| at <= self.now()) {
            self.children.turn(self.now());
        }
        Ok(signals::ending())
    }

    /// Waits for something to become of the processes, for `time` at most. Signals that end the run are read and change
    /// nothing any more.
    ///
    /// # Errors
    /// Those of ppoll(2).
    pub fn wait_for_children(&mut self, time: Duration) -> io::Result<()> {
        let now = self.now();
        let until = self.children.deadline().into_iter().chain([now + time]).min().unwrap_or(now);
        let lines = stderr::waiting();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(lines.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        match ppoll(&mut fds, Some(until.saturating_sub(now).into()), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if lines.is_some() {
            stderr::flush();
        }
        self.signals.take()?;
        self.children.turn(self.now());
        Ok(())
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
