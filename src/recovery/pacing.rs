//! Pacing: spreads segments over time.
//!
//! Each frame delays the next by its length at the pacing rate. Where frames are short of a
//! [quantum](quantum), those of a quantum leave together: the sender wakes up once for them. After a
//! pause, the unused time counts for no more than [`BURST`], so that no burst follows. A sender with
//! data that a busy host woke up late may catch up more: it would lose to a sender that is woken up
//! in time.
use std::time::Duration;

use super::time::Instant;

/// Time of the data that leaves at once, at the pacing rate: that of Linux's super-frames
/// (tcp_tso_autosize() in net/ipv4/tcp_output.c).
const QUANTUM: Duration = Duration::from_millis(1);
/// Minimum of a round trip, in quanta: a burst must stay a small part of a window.
const QUANTA: u32 = 16;
/// Maximum unused time that counts after a pause.
const BURST: Duration = Duration::from_micros(500);
/// Maximum time to catch up after a late wake-up: some time slices of other processes, and never
/// half a round trip.
const MAX_LATENESS: Duration = Duration::from_millis(10);

/// Returns the time of the data that may leave at once, for a path with this round trip.
pub(super) fn quantum(round_trip: Option<Duration>) -> Duration {
    round_trip.map_or(Duration::ZERO, |round_trip| (round_trip / QUANTA).min(QUANTUM))
}

/// The schedule of frames.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    next: Instant,
    /// Time of the last frame at the pacing rate.
    frame: Duration,
    /// End of the quantum that began when a frame's time came.
    quantum_end: Instant,
    /// A frame waits for its time.
    waits: bool,
}

impl Pacer {
    /// Returns the time at which the next frame may leave.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Returns whether a frame may leave now, on a path with this round trip: if its time has come,
    /// or if it still fits into the quantum of the frames before it. If not, marks it as waiting.
    pub(crate) fn admits(&mut self, now: Instant, round_trip: Option<Duration>) -> bool {
        let due = now >= self.next;
        if due {
            self.quantum_end = now + quantum(round_trip);
        }
        let admits = due || self.next + self.frame <= self.quantum_end;
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
        self.frame = time;
    }

    /// Resets the schedule, after a timeout.
    pub(crate) fn reset(&mut self, now: Instant) {
        *self = Pacer { next: now, ..Pacer::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    const RATE: u64 = 1_000_000;

    /// Returns how many frames of `bytes` each may leave back to back at `now`.
    fn frames(pacer: &mut Pacer, now: Instant, bytes: u64, round_trip: Duration) -> usize {
        (0..100)
            .take_while(|_| {
                let admits = pacer.admits(now, Some(round_trip));
                if admits {
                    pacer.on_sent(now, bytes, RATE, Some(round_trip));
                }
                admits
            })
            .count()
    }

    /// Returns how many frames of a millisecond each may leave back to back at `now`.
    fn row(pacer: &mut Pacer, now: Instant) -> usize {
        frames(pacer, now, 1000, 40 * MS)
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

    #[test]
    fn the_frames_of_a_quantum_leave_together_and_the_rate_holds() {
        let mut pacer = Pacer::default();
        let mut now = Instant::from_millis(1000);
        let mut sent = Vec::new();
        while now < Instant::from_millis(1100) {
            sent.push(frames(&mut pacer, now, 400, 40 * MS));
            now = pacer.next();
        }
        assert!(sent[1..].iter().all(|count| *count == 2), "0.4 ms each: {sent:?}");
        // The first frame's unused time, and the last quantum.
        let bytes = 400 * sent.iter().sum::<usize>();
        assert!((100_000..=101_500).contains(&bytes), "{bytes} in 100 ms");
    }

    #[test]
    fn a_quantum_is_a_small_part_of_a_short_round_trip() {
        for (round_trip, count) in [(MS / 10, 1), (4 * MS, 2), (16 * MS, 10), (100 * MS, 10)] {
            let mut pacer = Pacer::default();
            frames(&mut pacer, Instant::from_millis(1000), 100, round_trip);
            let next = pacer.next();
            assert_eq!(frames(&mut pacer, next, 100, round_trip), count, "0.1 ms each, {round_trip:?}");
        }
        assert_eq!(quantum(None), Duration::ZERO);
    }
}
