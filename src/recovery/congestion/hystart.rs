//! HyStart++ (RFC 9406): slow start ends when the round-trip time rises, before the queue
//! overflows.
//!
//! The RTT reports a queue one round trip late, and the window doubles once more meanwhile. So slow
//! start also ends, as in Linux's HyStart (Ha and Rhee, "Taming the elephants"), when the ACKs of
//! one round follow each other without a gap for half a round trip: the window will fill the path
//! before they have taken effect. Slow start also ends at once when a round is slower by half of
//! the path's round trip, or when a further round is slower still.
use std::time::Duration;

use super::AckSample;
use crate::recovery::time::Instant;

/// Minimum of the delay threshold (RFC 9406, section 4.3).
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
/// Maximum of the delay threshold (RFC 9406, section 4.3).
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
/// Maximum samples that one batch of ACKs counts for: a busy host may have delayed all of them.
const MAX_BATCH: u32 = 2;
/// Divisor of the growth in conservative slow start (RFC 9406, section 4.3).
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;
/// Maximum gap within a train of ACKs: Linux's hystart_ack_delta_us.
const TRAIN_GAP: Duration = Duration::from_millis(2);

/// The effect of an ACK in slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// The window grows by this many bytes.
    By(u64),
    /// Slow start ends.
    Exit,
}

/// Returns the rise over `rtt` from which on a round trip indicates a queue.
pub(super) fn delay_threshold(rtt: Duration) -> Duration {
    (rtt / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH)
}

/// The state of HyStart++.
#[derive(Debug, Default)]
pub(super) struct HyStart {
    /// The value of `delivered` that ends the round: data sent from now on has arrived.
    round_end: u64,
    round_started: Instant,
    /// The time of the last ACK of this round's train.
    train_end: Instant,
    base: Option<Duration>,
    last_min: Option<Duration>,
    current_min: Option<Duration>,
    samples: u32,
    /// Conservative slow start: the RTT that began it, and the rounds spent in it.
    conservative: Option<(Duration, u32)>,
}

impl HyStart {
    /// Processes a batch of ACKs in slow start.
    pub(crate) fn on_ack(&mut self, sample: &AckSample) -> Growth {
        let prior_delivered = sample.rate.map_or(0, |rate| rate.prior_delivered);
        if prior_delivered >= self.round_end {
            self.round_end = sample.total_delivered;
            self.round_started = sample.now;
            self.train_end = sample.now;
            self.last_min = self.current_min.take().or(self.last_min);
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.conservative {
                *rounds += 1;
                if *rounds > CSS_ROUNDS {
                    return Growth::Exit;
                }
            }
        }
        if let Some(rtt) = sample.rtt {
            self.base = Some(self.base.map_or(rtt, |base| base.min(rtt)));
            self.current_min = Some(self.current_min.map_or(rtt, |current| current.min(rtt)));
            self.samples += sample.rtt_samples.min(MAX_BATCH);
        }
        if self.train_is_long(sample.now) {
            return Growth::Exit;
        }
        if self.delay_has_risen() {
            return Growth::Exit;
        }
        let bytes = sample.delivered;
        Growth::By(if self.conservative.is_some() { bytes / CSS_GROWTH_DIVISOR } else { bytes })
    }

    fn train_is_long(&mut self, now: Instant) -> bool {
        if now.since(self.train_end) > TRAIN_GAP {
            return false;
        }
        self.train_end = now;
        let enough = self.samples >= N_RTT_SAMPLE;
        enough && self.base.is_some_and(|base| now.since(self.round_started) > base / 2)
    }

    /// Returns whether the delay has risen much, or has risen again since conservative slow start
    /// began (RFC 9406, section 4.2). Then the alarm is not false, and the queue would overflow
    /// within the five rounds of conservative slow start.
    fn delay_has_risen(&mut self) -> bool {
        let (Some(current), Some(last)) = (self.current_min, self.last_min) else { return false };
        if self.samples < N_RTT_SAMPLE {
            return false;
        }
        // The queue already holds half as much as the path: too late to slow down gradually.
        if self.base.is_some_and(|base| current >= base + (base / 2).max(MIN_RTT_THRESH)) {
            return true;
        }
        let rises = |from: Duration| current >= from + delay_threshold(from);
        match self.conservative {
            Some((baseline, rounds)) if rounds > 0 && rises(baseline) => return true,
            Some((baseline, _)) if current < baseline => self.conservative = None,
            None if rises(last) => self.conservative = Some((current, 0)),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::rate::RateSample;

    const MS: Duration = Duration::from_millis(1);

    /// Simulates one round of ten ACKs of 1000 bytes each, `gap` apart; rounds begin a second
    /// apart.
    fn round(hystart: &mut HyStart, number: u64, rtt: Duration, gap: Duration) -> Vec<Growth> {
        let mut now = Instant::from_millis(number * 1000);
        (0..10)
            .map(|n| {
                now += gap;
                hystart.on_ack(&AckSample {
                    now,
                    delivered: 1000,
                    lost: 0,
                    in_flight: 0,
                    prior_in_flight: 0,
                    rtt: Some(rtt),
                    rtt_samples: 1,
                    smoothed_rtt: Some(rtt),
                    rate: Some(RateSample {
                        prior_delivered: (number - 1) * 10_000 + n * 1000,
                        ..RateSample::default()
                    }),
                    total_delivered: number * 10_000 + n * 1000,
                    in_recovery: false,
                    may_grow: true,
                })
            })
            .collect()
    }

    #[test]
    fn a_steady_rtt_keeps_slow_start() {
        let mut hystart = HyStart::default();
        for number in 1..20 {
            assert!(round(&mut hystart, number, 20 * MS, MS).iter().all(|g| *g == Growth::By(1000)));
        }
    }

    #[test]
    fn a_rising_rtt_slows_and_then_ends_it() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 1, 20 * MS, MS);
        let slowed = round(&mut hystart, 2, 24 * MS, MS);
        assert_eq!(slowed[..7], [Growth::By(1000); 7], "eight samples are wanted");
        assert_eq!(slowed[7..], [Growth::By(250); 3]);
        let end = (3..20).position(|number| round(&mut hystart, number, 24 * MS, MS).contains(&Growth::Exit));
        assert_eq!(end, Some(5), "RFC 9406: CSS_ROUNDS");
    }

    #[test]
    fn a_delay_that_goes_on_rising_ends_it_at_once() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 1, 20 * MS, MS);
        assert!(!round(&mut hystart, 2, 24 * MS, MS).contains(&Growth::Exit));
        assert_eq!(round(&mut hystart, 3, 28 * MS, MS).iter().position(|g| *g == Growth::Exit), Some(7));
    }

    #[test]
    fn a_delay_that_has_risen_much_ends_it_at_once() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 1, 20 * MS, MS);
        assert_eq!(round(&mut hystart, 2, 30 * MS, MS).iter().position(|g| *g == Growth::Exit), Some(7));
    }

    #[test]
    fn a_false_alarm_resumes_slow_start() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 1, 20 * MS, MS);
        round(&mut hystart, 2, 26 * MS, MS);
        assert_eq!(round(&mut hystart, 3, 20 * MS, MS).last(), Some(&Growth::By(1000)));
    }

    #[test]
    fn a_train_of_acks_half_as_long_as_the_path_ends_it() {
        let mut hystart = HyStart::default();
        assert!(!round(&mut hystart, 1, 40 * MS, 2 * MS).contains(&Growth::Exit), "18 ms of 40");
        assert!(round(&mut hystart, 2, 34 * MS, 2 * MS).contains(&Growth::Exit));
        let mut hystart = HyStart::default();
        assert!(
            !round(&mut hystart, 1, 34 * MS, 3 * MS).contains(&Growth::Exit),
            "no train: the gaps are long"
        );
    }
}
