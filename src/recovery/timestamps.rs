//! The timestamps option (RFC 7323): our clock, the peer's, and protection against wrapped sequence
//! numbers.
//!
//! Every segment gets its timestamp on departure. So the values on the wire never decrease,
//! whatever waits before, and no peer's PAWS check drops a retransmission.
use super::time::{Instant, nanos};
use crate::segment::is_older;
use std::time::Duration;

/// Tick of our clock: RFC 7323, section 5.4, asks for 1 ms to 1 s.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Ticks after which the peer's clock may have wrapped: 24 days without a segment (RFC 7323,
/// section 5.5).
const OUTDATED_TICKS: u64 = 24 * 24 * 3600 * 1000;

/// Our timestamp clock.
#[derive(Debug, Default)]
pub(super) struct TimestampClock {
    /// The first value, that of our SYN, and its time: our clock continues from there.
    origin: u32,
    origin_at: Instant,
}

/// TS.Recent: the peer's value to echo, and its arrival time.
#[derive(Debug, Default)]
pub(super) struct RecentTimestamp(Option<(u32, Instant)>);

impl TimestampClock {
    /// Starts the clock with `value` at `now`.
    pub(crate) fn start(&mut self, now: Instant, value: u32) {
        self.origin = value;
        self.origin_at = now;
    }

    /// Returns TSval for a segment that leaves now.
    pub(crate) fn value(&self, now: Instant) -> u32 {
        self.origin.wrapping_add(ticks(self.origin_at, now) as u32)
    }

    /// Returns whether our value `echo` was sent before `at`.
    pub(crate) fn is_before(&self, echo: u32, at: Instant) -> bool {
        is_older(echo, self.value(at))
    }
}

impl RecentTimestamp {
    /// Returns the value to echo.
    pub(crate) fn value(&self) -> u32 {
        self.0.map_or(0, |(value, _)| value)
    }

    /// Records the value of a segment that begins at or before the last ACK sent (RFC 7323, section
    /// 4.3).
    pub(crate) fn note(&mut self, now: Instant, value: u32) {
        if !self.is_old(now, value) {
            self.0 = Some((value, now));
        }
    }

    /// Returns whether a value is older than TS.Recent, and so belongs to an old duplicate (RFC
    /// 7323, section 5.3, R1).
    pub(crate) fn is_old(&self, now: Instant, value: u32) -> bool {
        self.0.is_some_and(|(recent, at)| is_older(value, recent) && ticks(at, now) < OUTDATED_TICKS)
    }
}

fn ticks(from: Instant, to: Instant) -> u64 {
    to.nanos().saturating_sub(from.nanos()) / nanos(TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_clock_continues_from_the_syn_and_wraps() {
        let mut clock = TimestampClock::default();
        clock.start(Instant::from_millis(5), u32::MAX - 1);
        assert_eq!(clock.value(Instant::from_millis(6)), u32::MAX);
        assert_eq!(clock.value(Instant::from_millis(8)), 1);
    }

    #[test]
    fn old_values_are_known_across_the_wrap_until_they_are_outdated() {
        let mut recent = RecentTimestamp::default();
        assert!(!recent.is_old(Instant::ZERO, 7), "nothing to compare with");
        recent.note(Instant::ZERO, 3);
        assert!(recent.is_old(Instant::ZERO, 2));
        assert!(recent.is_old(Instant::ZERO, u32::MAX));
        assert!(!recent.is_old(Instant::ZERO, 3));
        recent.note(Instant::ZERO, u32::MAX);
        assert_eq!(recent.value(), 3, "an old value is not noted");
        let days = |days: u64| Instant::from_millis(days * 24 * 3_600_000);
        assert!(recent.is_old(days(23), 2));
        assert!(!recent.is_old(days(25), 2), "RFC 7323, section 5.5");
    }
}
