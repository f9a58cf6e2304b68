//! Round-trip time and retransmission timeout (RFC 6298, with Linux's minimum of 200 ms).
use std::time::Duration;

use super::time::Instant;

/// Retransmission timeout before the first measurement (RFC 6298, section 2.1).
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// Default minimum of the variance term: Linux's TCP_RTO_MIN (RFC 6298 has a minimum of 1 s for the whole
/// timeout).
pub const RTO_MIN: Duration = Duration::from_millis(200);
/// Maximum retransmission timeout: Linux's TCP_RTO_MAX.
const MAX_RTO: Duration = Duration::from_secs(120);
/// Lifetime of a minimum, because the path may change.
const MIN_RTT_LIFETIME: Duration = Duration::from_secs(60);

/// The estimator of the round-trip time.
#[derive(Debug, Default)]
pub(super) struct RttEstimator {
    smoothed: Option<Duration>,
    variance: Duration,
    minimum: Option<(Duration, Instant)>,
    backoff: u32,
    /// Minimum of the variance term.
    margin: Duration,
}

impl RttEstimator {
    /// Returns an estimator whose timeout exceeds the smoothed round trip by `margin` at least.
    pub(crate) fn new(margin: Duration) -> RttEstimator {
        RttEstimator { margin, ..RttEstimator::default() }
    }

    /// Adds the longest and the shortest round trip of one batch of ACKs, without those of
    /// retransmissions (Karn's algorithm, RFC 6298, section 3).
    pub(crate) fn sample(&mut self, now: Instant, longest: Duration, shortest: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(longest);
                self.variance = longest / 2;
            }
            Some(smoothed) => {
                let difference = smoothed.abs_diff(longest);
                self.variance = (self.variance * 3 + difference) / 4;
                self.smoothed = Some((smoothed * 7 + longest) / 8);
            }
        }
        let stale =
            |(minimum, at): (Duration, Instant)| shortest <= minimum || now.since(at) > MIN_RTT_LIFETIME;
        if self.minimum.is_none_or(stale) {
            self.minimum = Some((shortest, now));
        }
    }

    /// Returns the smoothed round-trip time, once one was measured.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Returns the shortest recent round trip, once one was measured.
    pub(crate) fn minimum(&self) -> Option<Duration> {
        self.minimum.map(|(minimum, _)| minimum)
    }

    /// Returns the retransmission timeout, with backoff.
    pub(crate) fn rto(&self) -> Duration {
        let base =
            self.smoothed.map_or(INITIAL_RTO, |smoothed| smoothed + (self.variance * 4).max(self.margin));
        base.saturating_mul(1 << self.backoff.min(10)).min(MAX_RTO)
    }

    /// Doubles the timeout (RFC 6298, section 5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff += 1;
    }

    /// Returns the timeouts since new data was last acknowledged.
    pub(crate) fn timeouts(&self) -> u32 {
        self.backoff
    }

    /// Resets the backoff when new data is acknowledged (RFC 6298, section 5.7).
    pub(crate) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_sample_sets_both_estimates() {
        let mut rtt = RttEstimator::new(RTO_MIN);
        assert_eq!(rtt.rto(), Duration::from_secs(1));
        rtt.sample(Instant::ZERO, 100 * MS, 90 * MS);
        assert_eq!((rtt.smoothed(), rtt.minimum()), (Some(100 * MS), Some(90 * MS)));
        assert_eq!(rtt.rto(), 300 * MS, "SRTT + max(200 ms, 4 * RTTVAR)");
        rtt.sample(Instant::ZERO, 180 * MS, 180 * MS);
        assert_eq!(rtt.smoothed(), Some(110 * MS));
        assert_eq!(rtt.rto(), 110 * MS + 230 * MS, "RTTVAR = (3 * 50 + 80) / 4");
    }

    #[test]
    fn a_route_may_set_another_minimum() {
        let mut rtt = RttEstimator::new(50 * MS);
        (0..100).for_each(|_| rtt.sample(Instant::ZERO, 10 * MS, 10 * MS));
        assert_eq!(rtt.rto(), 60 * MS);
    }

    #[test]
    fn the_timeout_doubles_up_to_two_minutes() {
        let mut rtt = RttEstimator::new(RTO_MIN);
        rtt.sample(Instant::ZERO, 10 * MS, 10 * MS);
        for factor in [1u32, 2, 4, 8] {
            assert_eq!(rtt.rto(), 210 * MS * factor);
            rtt.back_off();
        }
        (0..40).for_each(|_| rtt.back_off());
        assert_eq!(rtt.rto(), Duration::from_secs(120));
        rtt.reset_backoff();
        assert_eq!(rtt.rto(), 210 * MS);
    }

    #[test]
    fn an_old_minimum_gives_way() {
        let mut rtt = RttEstimator::new(RTO_MIN);
        rtt.sample(Instant::ZERO, 10 * MS, 10 * MS);
        rtt.sample(Instant::from_millis(59_000), 50 * MS, 50 * MS);
        assert_eq!(rtt.minimum(), Some(10 * MS));
        rtt.sample(Instant::from_millis(61_000), 50 * MS, 50 * MS);
        assert_eq!(rtt.minimum(), Some(50 * MS));
    }
}
