//! The pace of probes (`--rate`).
use std::time::Duration;

/// The time for which probes that were late are made up for: a wake-up may come some milliseconds late.
const CATCH_UP: Duration = Duration::from_millis(10);

/// A limit to the number of probes a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time between two probes; `None` for no limit.
    interval: Option<Duration>,
    /// Time of the next probe.
    next: Duration,
}

impl Pace {
    /// Returns a pace of this many probes a second, at least one; `None` for no limit.
    pub(super) fn new(rate: Option<u32>) -> Pace {
        Pace { interval: rate.map(|rate| Duration::from_secs(1) / rate.max(1)), next: Duration::ZERO }
    }

    /// Returns whether a probe may leave.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.interval.is_none() || now >= self.next
    }

    /// Notes that a probe leaves.
    pub(super) fn note(&mut self, now: Duration) {
        if let Some(interval) = self.interval {
            self.next = self.next.max(now.saturating_sub(CATCH_UP)) + interval;
        }
    }

    /// Returns the time of the next probe, where there is a limit.
    pub(super) fn next(&self) -> Option<Duration> {
        self.interval.map(|_| self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends whenever it may, at wake-ups this far apart. Returns the number of probes within ten seconds.
    fn probes(rate: u32, wake_ups: Duration) -> u32 {
        let (mut pace, mut sent, mut now) = (Pace::new(Some(rate)), 0, SECOND);
        while now < 11 * SECOND {
            while pace.is_due(now) {
                pace.note(now);
                sent += 1;
            }
            now += wake_ups;
        }
        sent
    }

    #[test]
    fn late_wake_ups_are_made_up_for() {
        for (rate, wake_ups) in [(1, 10), (100, 3), (2_000, 7)] {
            let sent = probes(rate, Duration::from_millis(wake_ups));
            let expected = rate * 10;
            assert!((expected..=expected + rate / 50 + 1).contains(&sent), "{rate}: {sent}");
        }
    }

    /// A pause is no store of probes.
    #[test]
    fn a_pause_makes_no_burst() {
        let mut pace = Pace::new(Some(1000));
        pace.note(SECOND);
        let sent = (0..1000).take_while(|_| {
            let due = pace.is_due(100 * SECOND);
            pace.note(100 * SECOND);
            due
        });
        assert!(sent.count() <= 12);
    }

    #[test]
    fn without_a_rate_every_probe_is_due() {
        let mut pace = Pace::new(None);
        pace.note(SECOND);
        assert!(pace.is_due(SECOND) && pace.next().is_none());
    }
}
