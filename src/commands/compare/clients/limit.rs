//! A model of the trace's limit: which SYNs the kernel has surely marked.
use crate::kernel::{HANDSHAKE_BURST, HANDSHAKE_RATE};
use std::time::Instant;

/// A bucket that fills a little slower than the kernel's and holds a little less.
#[derive(Debug)]
pub(super) struct TraceLimit {
    tokens: f64,
    last: Instant,
}

impl TraceLimit {
    const RATE: f64 = HANDSHAKE_RATE as f64 * 0.8;
    const BURST: f64 = HANDSHAKE_BURST as f64 * 0.8;

    pub(super) fn new(now: Instant) -> TraceLimit {
        TraceLimit { tokens: Self::BURST, last: now }
    }

    /// Counts a SYN. Returns whether the limit has surely left room for it.
    pub(super) fn leaves_room(&mut self, now: Instant) -> bool {
        let filled = now.saturating_duration_since(self.last).as_secs_f64() * Self::RATE;
        self.tokens = (self.tokens + filled).min(Self::BURST);
        self.last = now;
        let room = self.tokens >= 1.0;
        if room {
            self.tokens -= 1.0;
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_has_room_and_a_flood_has_not() {
        let start = Instant::now();
        let mut limit = TraceLimit::new(start);
        assert_eq!((0..100).filter(|_| limit.leaves_room(start)).count(), 16);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| limit.leaves_room(later)).count(), 16);
        let steady = (1..=100).filter(|n| limit.leaves_room(later + Duration::from_millis(n * 30))).count();
        assert_eq!(steady, 100);
    }
}
