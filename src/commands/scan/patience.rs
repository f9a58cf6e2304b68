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
            // A host that is not there counts as closed, any other that could not be probed does not.
            (Wanted::Closed, Err(Error::Unusable { verdict, .. })) => *verdict == Verdict::NoNeighbour,
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

/// The targets that a scan waits for, by their numbers.
#[derive(Debug)]
pub(super) struct Waiting {
    pub patience: Option<Patience>,
    /// The time of the first probe.
    since: Option<Duration>,
    targets: HashMap<usize, Waited>,
    /// Targets to probe again, in the order of their times.
    again: VecDeque<(Duration, usize)>,
    /// Targets that are due and whose last probe is not over.
    held: Vec<usize>,
}

impl Waiting {
    pub(super) fn new(patience: Option<Patience>) -> Waiting {
        let (targets, again) = (HashMap::new(), VecDeque::new());
        Waiting { patience, since: None, targets, again, held: Vec::new() }
    }

    /// Notes the result of a probe. Returns whether the target is probed again.
    pub(super) fn goes_on(&mut self, now: Duration, target: usize, result: &Result<(), Error>) -> bool {
        let Some(probes) = self.note(now, target, result) else { return false };
        let (Some(patience), Some(since)) = (self.patience, self.since) else { return false };
        let next = now + PAUSE;
        if patience.limit.is_some_and(|limit| next >= since + limit)
            || patience.probes.is_some_and(|most| probes >= most)
        {
            return false;
        }
        self.again.push_back((next, target));
        true
    }

    /// Notes the result of a probe. Returns the number of probes so far where the target is not as wanted.
    pub(super) fn note(&mut self, now: Duration, target: usize, result: &Result<(), Error>) -> Option<u64> {
        let patience = self.patience?;
        let since = *self.since.get_or_insert(now);
        let waited = self.targets.entry(target).or_default();
        waited.time = now.saturating_sub(since);
        waited.probes += 1;
        if patience.wanted.is_shown_by(result) {
            return None;
        }
        let verdict = result.as_ref().err().map_or(Verdict::Done, Verdict::from);
        *waited.before.entry(verdict).or_default() += 1;
        Some(waited.probes)
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

    /// Takes the targets that are to be probed again now, but those that `busy` holds back.
    pub(super) fn due(&mut self, now: Duration, busy: impl Fn(usize) -> bool) -> Vec<usize> {
        while let Some((_, target)) = self.again.front().filter(|(at, _)| *at <= now).copied() {
            self.again.pop_front();
            self.held.push(target);
        }
        self.held.extract_if(.., |target| !busy(*target)).collect()
    }

    /// Returns the time of the next probe, but of those that are held back.
    pub(super) fn next(&self) -> Option<Duration> {
        self.again.front().map(|(at, _)| *at)
    }

    /// Returns whether no target is to be probed again.
    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.held.is_empty()
    }

    /// Takes what a target was waited through.
    pub(super) fn take(&mut self, target: usize) -> Option<Waited> {
        self.targets.remove(&target)
    }
}
