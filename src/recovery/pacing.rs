//! Spreading what is sent over time.
//!
//! Each frame moves the time of the next by its length at the pacing rate. A sender that wakes up late may catch
//! up, but by no more than [`BURST`], so that timer slack costs no throughput and a pause no burst.
use std::time::Duration;

use super::time::Instant;

const BURST: Duration = Duration::from_micros(500);

#[derive(Debug, Default)]
pub(super) struct Pacer {
    next: Instant,
}

impl Pacer {
    /// When the next frame may go.
    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn on_sent(&mut self, now: Instant, bytes: u64, rate: u64) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.next = self.next.max(now - BURST) + time;
    }

    /// Forgets the schedule (after a timeout).
    pub fn reset(&mut self, now: Instant) {
        self.next = now;
    }
}
