//! Waiting for ports (`--until-open`, `--until-closed`, `--retry`): a port that is not as wanted is probed again.
use crate::report::{Error, Verdict, Waited};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Pause between a port's answer and its next probe.
const PAUSE: Duration = Duration::from_millis(500);

/// The state of a port that a scan waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Open,
    /// Refused, rejected, or silent over TCP.
    Closed,
}

impl Wanted {
    /// Returns whether a probe's result shows the wanted state. Silence over UDP and a probe that this host dropped show
    /// neither.
    pub(super) fn is_shown_by(self, result: &Result<(), Error>) -> bool {
        match (self, result) {
            (Wanted::Open, result) => result.is_ok(),
            (Wanted::Closed, Ok(()) | Err(Error::Silent { .. })) => false,
            (Wanted::Closed, Err(error)) => Verdict::from(error) != Verdict::EgressDropped,
        }
    }
}

/// The reason to probe a port again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub wanted: Wanted,
    /// Longest wait from the first probe on; `None` for no limit.
    pub limit: Option<Duration>,
    /// Maximum probes of a port; `None` for no limit.
    pub probes: Option<u64>,
    /// The run succeeds only if all ports are as wanted.
    pub all: bool,
}

/// The ports that a scan waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub patience: Option<Patience>,
    /// The time of the first probe.
    since: Option<Duration>,
    ports: HashMap<u16, Waited>,
    /// Ports to probe again, by the time.
    again: VecDeque<(Duration, u16)>,
}

impl Waiting {
    pub(super) fn new(patience: Option<Patience>) -> Waiting {
        Waiting { patience, since: None, ports: HashMap::new(), again: VecDeque::new() }
    }

    /// Notes the result of a probe. Returns whether the port is probed again.
    pub(super) fn goes_on(&mut self, now: Duration, port: u16, result: &Result<(), Error>) -> bool {
        let Some(patience) = self.patience else { return false };
        let since = *self.since.get_or_insert(now);
        let waited = self.ports.entry(port).or_default();
        waited.time = now.saturating_sub(since);
        waited.probes += 1;
        if patience.wanted.is_shown_by(result) {
            return false;
        }
        let verdict = result.as_ref().err().map_or(Verdict::Done, Verdict::from);
        *waited.before.entry(verdict).or_default() += 1;
        let next = now + PAUSE;
        if patience.limit.is_some_and(|limit| next >= since + limit)
            || patience.probes.is_some_and(|most| waited.probes >= most)
        {
            return false;
        }
        self.again.push_back((next, port));
        true
    }

    /// Starts the clock.
    pub(super) fn begin(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// Returns the time at which the wait ends for probes under way. A probe that is cut short would look like one of a
    /// closed port.
    pub(super) fn end(&self) -> Option<Duration> {
        let patience = self.patience.filter(|patience| patience.wanted == Wanted::Open)?;
        Some(self.since? + patience.limit?)
    }

    /// Returns whether the wait is over.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.end().is_some_and(|end| now >= end)
    }

    /// Takes the ports that are to be probed again now, but those that `busy` holds back.
    pub(super) fn due(&mut self, now: Duration, busy: impl Fn(u16) -> bool) -> Vec<u16> {
        let mut due = Vec::new();
        self.again.retain(|(at, port)| {
            let ready = *at <= now && !busy(*port);
            if ready {
                due.push(*port);
            }
            !ready
        });
        due
    }

    /// Returns the time of the next probe, but of those that `busy` holds back.
    pub(super) fn next(&self, busy: impl Fn(u16) -> bool) -> Option<Duration> {
        self.again.iter().filter(|(_, port)| !busy(*port)).map(|(at, _)| *at).min()
    }

    /// Returns whether no port is to be probed again.
    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty()
    }

    /// Returns what a port was waited through.
    pub(super) fn of(&self, port: u16) -> Option<&Waited> {
        self.ports.get(&port)
    }
}
