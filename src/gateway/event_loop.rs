//! The gateway's loop: packets both ways, signals, the host's changes, and the end.
use super::{Error, Flow, Gateway, Outcome, flows};
use crate::{
    host::monitor::Change,
    link::{self, Link, LinkError},
    namespace::Event,
    stdio::stderr,
};
use arrayvec::ArrayVec;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{signal::Signal, time::TimeSpec},
};
use std::{os::fd::AsFd, time::Duration};

/// Maximum packets of each direction in one turn.
const BUDGET: usize = 64;
/// Maximum busy turns without a look at other descriptors.
const BUSY_TURNS: u32 = 16;
/// Interval of the look for packets that got past the guard, and at the fast path, while there are flows.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of the look for flows that have ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the look for what is undelivered after the command's end.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// Interval of the next look at neighbours that have not answered.
const NEIGHBOUR_INTERVAL: Duration = Duration::from_millis(100);
/// Time after a signal in which the command's end counts as its effect, and then for the processes that it has
/// left to end, too.
const SIGNAL_GRACE: Duration = Duration::from_secs(2);
/// Signals that end a run if they end the command.
const TERMINATING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
/// The clock's start: zero would be long ago.
const START: Duration = Duration::from_secs(1);

/// The descriptors that can be read without waiting.
#[derive(Clone, Copy)]
struct Ready {
    device: bool,
    wire: bool,
    changes: bool,
    signals: bool,
    processes: bool,
}

impl Ready {
    const ALL: Ready = Ready { device: true, wire: true, changes: true, signals: true, processes: true };

    /// Returns whether packets may be waiting that can be moved.
    fn has_packets(&self, blocked: bool) -> bool {
        self.wire || self.device && !blocked
    }
}

/// The phase of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// A signal has ended the command, and the processes that it has left are killed at this time.
    Ending(Duration),
    /// All processes have ended at this time; their sockets may still have something to deliver.
    Draining(Duration),
}

impl Gateway {
    /// Relays until all processes of the namespace have ended and what they sent is acknowledged.
    ///
    /// # Errors
    /// [`Error`]; the command is killed then.
    pub(crate) fn run(mut self) -> Result<Outcome, Error> {
        let (mut status, mut phase, mut busy_turns) = (None, Phase::Running, 0);
        let mut ready = Ready::ALL;
        loop {
            let now = self.now();
            self.turn(now, &mut ready)?;
            busy_turns += 1;
            if ready.has_packets(self.relay.is_blocked()) && busy_turns < BUSY_TURNS {
                continue;
            }
            let phase_due = match phase {
                Phase::Running => None,
                Phase::Ending(at) if now >= at => break,
                Phase::Ending(at) => Some(at),
                Phase::Draining(since) => {
                    let pending = ready.device || self.relay.is_blocked() || self.relay.is_waiting();
                    let done = !pending && !self.is_undelivered()?;
                    if done || now >= since + self.user_timeout {
                        break;
                    }
                    Some(now + DRAIN_INTERVAL)
                }
            };
            busy_turns = 0;
            let at_once = ready.has_packets(self.relay.is_blocked()).then_some(now);
            self.wait(at_once.or(phase_due), &mut ready)?;
            let signal = if ready.signals { self.pass_signals_on() } else { None };
            if matches!(phase, Phase::Draining(_)) {
                if signal.is_some() {
                    break;
                }
            } else {
                self.signalled = signal.map(|signal| (signal, self.now())).or(self.signalled);
                if ready.processes {
                    phase = self.follow_processes(phase, &mut status)?;
                }
                if matches!(phase, Phase::Draining(_)) {
                    // The last packets may have come since the look.
                    ready = Ready::ALL;
                }
            }
            if ready.changes {
                self.follow_changes()?;
            }
            self.check();
            self.sweep()?;
        }
        Ok(self.conclude(status))
    }

    fn now(&self) -> Duration {
        START + self.started.elapsed()
    }

    /// Moves packets both ways, up to a budget, where there are any.
    fn turn(&mut self, now: Duration, ready: &mut Ready) -> Result<(), Error> {
        if self.relay.is_blocked() {
            self.relay.go_on(now).or_else(|error| self.lose_wire(error))?;
        }
        for _ in 0..BUDGET {
            if self.relay.is_blocked() || !ready.device {
                break;
            }
            let Some(received) = self.device.receive()? else {
                ready.device = false;
                break;
            };
            let left = self.relay.leave(now, &received, self.programs.table());
            left.or_else(|error| self.lose_wire(error))?;
        }
        self.relay.answer(&mut self.device)?;
        for _ in 0..BUDGET {
            if self.wire_gone || !ready.wire {
                ready.wire = false;
                break;
            }
            match self.relay.arrive(now, &mut self.device, self.programs.table()) {
                Ok(true) => {}
                Ok(false) => ready.wire = false,
                Err(error @ LinkError::Down { .. }) => {
                    log::warn!("{error}; waiting for it to come back");
                }
                Err(error) => self.lose_wire(error)?,
            }
        }
        // Asks for the neighbours that packets wait for, and sends those whose neighbour has just answered.
        self.relay.go_on(now).or_else(|error| self.lose_wire(error))?;
        if self.relay.hops.take_moved() {
            self.relay.flows.leave_fast_path();
        }
        let idle = !self.relay.is_blocked() && !ready.device && !ready.wire;
        self.relay.flows.promote(now, idle);
        Ok(())
    }

    /// Goes on without an interface that is gone: the command decides what its connections are worth.
    fn lose_wire(&mut self, error: LinkError) -> Result<(), Error> {
        match error {
            LinkError::Gone { .. } => {
                if !std::mem::replace(&mut self.wire_gone, true) {
                    log::warn!("{error}");
                }
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    /// Waits until something is ready, or due.
    fn wait(&mut self, due: Option<Duration>, ready: &mut Ready) -> Result<(), Error> {
        let now = self.now();
        self.programs.beat();
        self.relay.wire.flush();
        let busy = !self.relay.flows.is_empty();
        let sweep = busy.then_some(self.checked + CHECK_INTERVAL);
        let neighbours = self.relay.is_waiting().then_some(now + NEIGHBOUR_INTERVAL);
        let beat = self.programs.heartbeat_interval().map(|interval| now + interval);
        let at = [due, sweep, neighbours, beat].into_iter().flatten().min();
        let blocked = self.relay.is_blocked();
        let room = if blocked { PollFlags::POLLOUT } else { PollFlags::empty() };
        let lines = stderr::waiting();
        let watched = [
            (Some(self.device.as_fd()).filter(|_| !blocked), PollFlags::POLLIN),
            (Some(self.relay.wire.as_fd()).filter(|_| !self.wire_gone), PollFlags::POLLIN | room),
            (Some(self.relay.hops.monitor.as_fd()), PollFlags::POLLIN),
            (Some(self.signals.as_fd()), PollFlags::POLLIN),
            (self.namespace.descriptor().filter(|_| !self.deserted), PollFlags::POLLIN),
            (lines, PollFlags::POLLOUT),
        ];
        let mut fds: ArrayVec<_, 6> =
            watched.iter().filter_map(|(fd, flags)| Some(PollFd::new((*fd)?, *flags))).collect();
        let timeout = at.map(|at| TimeSpec::from(at.saturating_sub(now)));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::System { step: "wait for packets", source: errno.into() }),
        }
        let mut polled = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut is_ready = |place: usize| {
            watched.get(place).is_some_and(|(fd, _)| fd.is_some()) && polled.next().unwrap_or(false)
        };
        // In the order of `watched`.
        let [device, wire, changes, signals, processes] = [0, 1, 2, 3, 4].map(&mut is_ready);
        *ready =
            Ready { device: device || ready.device, wire: wire || ready.wire, changes, signals, processes };
        if lines.is_some() {
            stderr::flush();
        }
        Ok(())
    }

    /// Follows the end of the command and of the processes that it leaves.
    fn follow_processes(&mut self, mut phase: Phase, status: &mut Option<u8>) -> Result<Phase, Error> {
        while let Some(event) = self.namespace.event()? {
            let now = self.now();
            match event {
                Event::Ended(ended) => {
                    *status = Some(ended);
                    if let Some((signal, at)) = self.signalled
                        && now < at + SIGNAL_GRACE
                    {
                        self.namespace.signal(signal);
                        phase = Phase::Ending(now + SIGNAL_GRACE);
                    }
                }
                Event::Empty => {
                    self.deserted = true;
                    return Ok(Phase::Draining(now));
                }
            }
        }
        Ok(phase)
    }

    /// Passes signals on to the command. The terminal sends its own to the command as well. Returns the last
    /// that may end a run.
    fn pass_signals_on(&mut self) -> Option<Signal> {
        let mut last = None;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            // SI_KERNEL is positive, and the codes of kill(2), tgkill(2) and sigqueue(3) are not.
            if info.ssi_code <= 0 {
                self.namespace.signal(signal);
            }
            last = Some(signal).filter(|signal| TERMINATING.contains(signal)).or(last);
        }
        last
    }

    fn follow_changes(&mut self) -> Result<(), Error> {
        let now = self.now();
        let hops = &mut self.relay.hops;
        let changes = hops.monitor.changes().map_err(crate::runtime::Error::from)?;
        let mut routes = false;
        for change in changes {
            match change {
                Change::Neighbour { interface, address, mac } => hops.learn(now, interface, address, mac),
                Change::Interface(interface) => {
                    if let Some(was) = hops.interfaces.get_mut(&interface.index)
                        && *was != interface
                    {
                        *was = interface;
                        routes = true;
                        hops.forget_neighbours();
                    }
                }
                Change::InterfaceGone(index) => {
                    hops.interfaces.remove(&index);
                    routes = true;
                }
                Change::Routes | Change::Missed => routes = true,
            }
        }
        if routes {
            self.relay.flows.forget_ways();
        }
        Ok(())
    }

    /// Looks for packets that got past the guard, and at the flows on the fast path.
    fn check(&mut self) {
        let now = self.now();
        if now < self.checked + CHECK_INTERVAL {
            return;
        }
        self.checked = now;
        let relay = &mut self.relay;
        relay.flows.follow(now, &mut relay.hops);
        if self.leak.look(&self.programs.counters()) {
            relay.flows.close_fast_path();
        }
    }

    /// Ends the flows that the command has ended.
    fn sweep(&mut self) -> Result<(), Error> {
        let now = self.now();
        if self.relay.flows.is_empty() || now < self.swept + SWEEP_INTERVAL {
            return Ok(());
        }
        self.swept = now;
        self.relay.flows.sweep(now, &mut self.sockets, self.programs.table()).map_err(Error::Sockets)
    }

    fn is_undelivered(&mut self) -> Result<bool, Error> {
        flows::is_undelivered(&mut self.sockets).map_err(Error::Sockets)
    }

    fn conclude(mut self, status: Option<u8>) -> Outcome {
        let flows = &mut self.relay.flows;
        flows.end();
        let fast = flows.carried_fast();
        let ended = &mut flows.ended;
        let lost = [&self.device, self.relay.wire.link()]
            .map(|socket| socket.statistics().map_or(0, |link::Statistics { dropped, .. }| dropped));
        let reported: Vec<Flow> = ended.reported.take().unwrap_or_default();
        Outcome {
            // The supervisor was killed, and the command with it.
            status: status.unwrap_or(128 + Signal::SIGKILL as u8),
            flows: ended.flows,
            ports: ended.ports,
            refused: ended.refused,
            sent: ended.sent,
            received: ended.received,
            fast,
            kept: self.programs.counters().dropped,
            foreign: self.relay.foreign,
            lost,
            reported,
        }
    }
}
