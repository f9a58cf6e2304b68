//! The reactor: the clock, and the wait for the link, standard streams, signals, child processes and time.
//!
//! It uses poll(2) rather than epoll(7): there are few descriptors, epoll refuses regular files, and
//! ppoll(2) takes nanoseconds, which pacing needs.
use super::children::Children;
use crate::{
    kernel,
    process::signals::{self, Signals},
    stdio::{Interest, stderr},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{prctl, signal::Signal, time::TimeSpec},
};
use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Start of the loop's clock. Zero may mean "never" in the stack's layers.
const START: Duration = Duration::from_secs(1);
/// Maximum busy turns of the loop without a poll of other descriptors and signals.
pub(crate) const BUSY_TURNS: u32 = 16;

/// The clock, the signals, the child processes, and the wait for them and for descriptors.
#[derive(Debug)]
pub(crate) struct Reactor {
    signals: Signals,
    /// The child processes, which the reactor reaps while it waits.
    pub children: Children,
    started: Instant,
}

impl Reactor {
    /// Returns a reactor. From now on [`Reactor::wait`] returns SIGINT, SIGTERM and SIGHUP instead of
    /// letting them end the process; see [`Signals::catch`].
    ///
    /// # Errors
    /// Those of [`Signals::catch`] and prctl(2).
    pub(crate) fn new() -> io::Result<Reactor> {
        let signals = Signals::catch()?;
        // Timers are otherwise up to 50 µs late (prctl(2), PR_SET_TIMERSLACK): too much for pacing.
        prctl::set_timerslack(1)?;
        Ok(Reactor { signals, children: Children::new(kernel::is_init()), started: Instant::now() })
    }

    /// Returns the time since an arbitrary start.
    pub(crate) fn now(&self) -> Duration {
        START + self.started.elapsed()
    }

    /// Waits until one of `interests` is ready, a signal arrives, or `deadline` has passed. Returns the
    /// signal that ends the run, once one has arrived.
    ///
    /// # Errors
    /// Those of ppoll(2) and of reading signals.
    pub(crate) fn wait<'a, 'fd: 'a>(
        &mut self,
        interests: impl Iterator<Item = &'a Interest<'fd>> + Clone,
        deadline: Option<Duration>,
    ) -> io::Result<Option<Signal>> {
        let deadline = deadline.into_iter().chain(self.children.deadline()).min();
        let mut fds: Vec<PollFd<'_>> = interests.clone().map(Interest::poll_fd).collect();
        let lines = stderr::waiting();
        fds.extend(lines.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        let timeout = deadline.map(|at| at.saturating_sub(self.now()));
        match ppoll(&mut fds, timeout.map(TimeSpec::from), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(signals::ending()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        interests.zip(&fds).filter(|(_, fd)| is_ready(fd)).for_each(|(interest, _)| interest.set_ready());
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

    /// Waits until a child process exits or has a signal due, for `time` at most. Reads signals that end
    /// the run without effect.
    ///
    /// # Errors
    /// Those of ppoll(2).
    pub(crate) fn wait_for_children(&mut self, time: Duration) -> io::Result<()> {
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
