//! The kernel's path beside netkat's (`--both`): connect(2) to the same targets, half an interval later.
use super::{MAX_KERNEL_TARGETS, Ping, pinger::MARK, schedule::Schedule, targets::PingTarget};
use crate::{
    kernel::{DialOptions, DialSocket},
    net::Protocol,
    path::{Pinged, Reached},
    report::Error,
    runtime::reactor::Reactor,
    stdio::Interest,
};
use nix::errno::Errno;
use std::{cell::Cell, io, os::fd::AsFd, time::Duration};

/// The result of an attempt: the target's place, the number, the result, and the round trip.
pub(super) type Attempted = (usize, u64, Pinged, Option<Duration>);

/// The kernel's attempts, at most one of each target at a time.
pub(super) struct KernelPath {
    protocol: Protocol,
    interval: Duration,
    count: Option<u64>,
    wait: Duration,
    sockets: Vec<Socket>,
    schedule: Option<Schedule>,
}

/// A target's socket.
struct Socket {
    socket: DialSocket,
    blocked: Cell<bool>,
    /// The attempt under way: its number, and when it began.
    attempt: Option<(u64, Duration)>,
}

impl KernelPath {
    /// Opens a socket for each target.
    ///
    /// # Errors
    /// [`Error::Ping`].
    pub(super) fn open(
        ping: &Ping,
        options: &DialOptions,
        targets: &[PingTarget],
    ) -> Result<KernelPath, Error> {
        let mut sockets = Vec::new();
        for target in targets.iter().take(MAX_KERNEL_TARGETS) {
            let socket = DialSocket::open(ping.protocol, target.tuple.remote, options)
                .map_err(|error| Error::Ping { operation: "open a socket of the kernel's path", error })?;
            sockets.push(Socket { socket, blocked: Cell::new(true), attempt: None });
        }
        let Ping { protocol, interval, count, wait, .. } = *ping;
        Ok(KernelPath { protocol, interval, count, wait, sockets, schedule: None })
    }

    /// Takes results, and begins the attempts that are due. An attempt whose predecessor is under way is left out.
    pub(super) fn turn(&mut self, reactor: &Reactor, targets: &mut [PingTarget]) -> Vec<Attempted> {
        let now = reactor.now();
        let mut results = Vec::new();
        for (place, socket) in self.sockets.iter_mut().enumerate() {
            if let Some((number, pinged, time)) = socket.result(now, self.protocol, self.wait) {
                results.push((place, number, pinged, time));
            }
        }
        let schedule = self.schedule.get_or_insert_with(|| {
            Schedule::new(now + self.interval / 2, self.interval, self.sockets.len(), self.count)
        });
        while let Some((place, number)) = schedule.take(now) {
            let Some(socket) = self.sockets.get_mut(place).filter(|socket| socket.attempt.is_none()) else {
                continue;
            };
            if let Some(tally) = targets.get_mut(place).and_then(|target| target.kernel.as_mut()) {
                tally.sent += 1;
            }
            if let Some(error) = socket.begin(reactor.now(), number) {
                results.push((place, number, pinged(self.protocol, &error), None));
            }
        }
        results
    }

    /// Adds the sockets to wait for. Returns when the next attempt is due, or one ends.
    pub(super) fn waits_for<'a>(&'a self, interests: &mut Vec<Interest<'a>>) -> Option<Duration> {
        let mut due = self.schedule.and_then(|schedule| schedule.due());
        for socket in &self.sockets {
            let Some((_, since)) = socket.attempt else { continue };
            due = due.into_iter().chain([since + self.wait]).min();
            let fd = socket.socket.as_fd();
            interests.push(match self.protocol {
                Protocol::Tcp => Interest::writable(fd, &socket.blocked),
                Protocol::Udp => Interest::readable(fd, &socket.blocked),
            });
        }
        due
    }

    /// Returns whether all attempts are over.
    pub(super) fn is_over(&self) -> bool {
        self.schedule.is_some_and(|schedule| schedule.due().is_none())
            && self.sockets.iter().all(|socket| socket.attempt.is_none())
    }
}

impl Socket {
    /// Begins an attempt. Returns the error of one that is over at once.
    fn begin(&mut self, now: Duration, number: u64) -> Option<io::Error> {
        self.blocked.set(true);
        let payload = [MARK, format!("{number:08x}\n").as_bytes()].concat();
        match self.socket.begin(&payload) {
            Ok(()) => {
                self.attempt = Some((number, now));
                None
            }
            Err(error) => {
                self.socket.end();
                Some(error)
            }
        }
    }

    /// Returns the result of the attempt once it is over.
    fn result(
        &mut self,
        now: Duration,
        protocol: Protocol,
        wait: Duration,
    ) -> Option<(u64, Pinged, Option<Duration>)> {
        let (number, since) = self.attempt?;
        let elapsed = now.saturating_sub(since);
        let outcome = if self.blocked.get() { Ok(None) } else { self.socket.outcome() };
        let (pinged, time) = match outcome {
            Ok(None) if elapsed < wait => return None,
            Ok(None) => (Pinged::Silent, None),
            Ok(Some(measured)) => {
                let reached = if protocol == Protocol::Tcp { Reached::SynAck } else { Reached::Datagram };
                (Pinged::Reached(reached), Some(measured.unwrap_or(elapsed)))
            }
            Err(error) => (pinged(protocol, &error), Some(elapsed)),
        };
        self.socket.end();
        self.attempt = None;
        Some((number, pinged, time))
    }
}

/// Returns the result that an error of the kernel's means.
fn pinged(protocol: Protocol, error: &io::Error) -> Pinged {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) if protocol == Protocol::Tcp => Pinged::Reached(Reached::Reset),
        Some(Errno::ECONNREFUSED) => Pinged::Reached(Reached::PortUnreachable),
        Some(Errno::ETIMEDOUT) => Pinged::Silent,
        Some(errno) => Pinged::Failed(errno.desc()),
        None => Pinged::Failed("no such error"),
    }
}
