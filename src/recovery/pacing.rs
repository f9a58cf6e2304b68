//! Pacing: spreads segments over time.
//!
//! Each frame delays the next by its length at the pacing rate. After a pause, the unused time
//! counts for no more than [`BURST`], so that no burst follows. A sender with data that a busy host
//! woke up late may catch up more: it would lose to a sender that is woken up in time.
use std::time::Duration;

use super::time::Instant;

/// Maximum unused time that counts after a pause.
const BURST: Duration = Duration::from_micros(500);
/// Maximum time to catch up after a late wake-up: some time slices of other processes, and never
/// half a round trip.
const MAX_LATENESS: Duration = Duration::from_millis(10);

/// The schedule of frames.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    next: Instant,
    /// A frame waits for its time.
    waits: bool,
}

impl Pacer {
    /// Returns the time at which the next frame may leave.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Returns whether a frame may leave now. If not, marks it as waiting.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        let admits = now >= self.next;
        self.waits |= !admits;
        admits
    }

    /// Notes that there is nothing to send, or that something else than pacing prevents sending.
    pub(crate) fn pause(&mut self) {
        self.waits = false;
    }

    /// Delays the next frame by the length of the one sent, at `rate` bytes a second.
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: u64, rate: u64, round_trip: Option<Duration>) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let lateness = round_trip.unwrap_or_default() / 2;
        let unused = if self.waits { lateness.clamp(BURST, MAX_LATENESS) } else { BURST };
        self.next = self.next.max(now - unused) + time;
    }

    /// Resets the schedule, after a timeout.
    pub(crate) fn reset(&mut self, now: Instant) {
        *self = Pacer { next: now, waits: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Returns how many frames of a millisecond each may leave back to back at `now`.
    fn row(pacer: &mut Pacer, now: Instant) -> usize {
        (0..100)
            .take_while(|_| {
                let admits = pacer.admits(now);
                if admits {
                    pacer.on_sent(now, 1000, 1_000_000, Some(40 * MS));
                }
                admits
            })
            .count()
    }

    #[test]
    fn a_pause_is_followed_by_no_burst_and_a_late_wake_up_made_up_for() {
        let start = Instant::from_millis(1000);
        let mut pacer = Pacer::default();
        assert_eq!(row(&mut pacer, start), 1);
        assert_eq!(row(&mut pacer, start + 6 * MS), 6, "it was to go 5 ms ago");
        assert_eq!(row(&mut pacer, start + 60 * MS), 11, "10 ms at most");
        pacer.pause();
        assert_eq!(row(&mut pacer, start + 100 * MS), 1, "nobody waited");
    }
}
