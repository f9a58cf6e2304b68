//! HyStart++ (RFC 9406): leaving slow start when the round-trip time rises, before the queue overflows.
use std::time::Duration;

/// RFC 9406, section 4.3.
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

/// What slow start does with an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// The window grows by this many bytes.
    By(u64),
    /// Slow start is over.
    Exit,
}

#[derive(Debug, Default)]
pub(super) struct HyStart {
    /// The round ends when something sent after this much was delivered is delivered itself.
    round_end: u64,
    last_min: Option<Duration>,
    current_min: Option<Duration>,
    samples: u32,
    /// In conservative slow start: the RTT that made us enter, and the rounds spent.
    conservative: Option<(Duration, u32)>,
}

impl HyStart {
    /// An ACK in slow start delivered `bytes`. `prior_delivered` and `delivered` count rounds as
    /// [`crate::recovery::rate`] does.
    pub fn on_ack(
        &mut self,
        bytes: u64,
        rtt: Option<Duration>,
        prior_delivered: u64,
        delivered: u64,
    ) -> Growth {
        if prior_delivered >= self.round_end {
            self.round_end = delivered;
            self.last_min = self.current_min.take().or(self.last_min);
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.conservative {
                *rounds += 1;
                if *rounds > CSS_ROUNDS {
                    return Growth::Exit;
                }
            }
        }
        if let Some(rtt) = rtt {
            self.current_min = Some(self.current_min.map_or(rtt, |current| current.min(rtt)));
            self.samples += 1;
        }
        if let (Some(current), Some(last), true) =
            (self.current_min, self.last_min, self.samples >= N_RTT_SAMPLE)
        {
            match self.conservative {
                Some((baseline, _)) if current < baseline => self.conservative = None,
                Some(_) => {}
                None => {
                    let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                    if current >= last + threshold {
                        self.conservative = Some((current, 0));
                    }
                }
            }
        }
        Growth::By(if self.conservative.is_some() { bytes / CSS_GROWTH_DIVISOR } else { bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One round of ten ACKs of 1000 bytes each.
    fn round(hystart: &mut HyStart, number: u64, rtt: Duration) -> Vec<Growth> {
        (0..10)
            .map(|n| {
                hystart.on_ack(1000, Some(rtt), (number - 1) * 10_000 + n * 1000, number * 10_000 + n * 1000)
            })
            .collect()
    }

    #[test]
    fn a_steady_rtt_keeps_slow_start() {
        let mut hystart = HyStart::default();
        for number in 1..20 {
            assert!(round(&mut hystart, number, 20 * MS).iter().all(|g| *g == Growth::By(1000)));
        }
    }

    #[test]
    fn a_rising_rtt_slows_and_then_ends_it() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 1, 20 * MS);
        let slowed = round(&mut hystart, 2, 24 * MS);
        assert_eq!(slowed[..7], [Growth::By(1000); 7], "eight samples are wanted");
        assert_eq!(slowed[7..], [Growth::By(250); 3]);
        let end = (3..20).position(|number| round(&mut hystart, number, 24 * MS).contains(&Growth::Exit));
        assert_eq!(end, Some(5), "RFC 9406: CSS_ROUNDS");
    }

    #[test]
    fn a_false_alarm_resumes_slow_start() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 1, 20 * MS);
        round(&mut hystart, 2, 26 * MS);
        assert_eq!(round(&mut hystart, 3, 20 * MS).last(), Some(&Growth::By(1000)));
    }
}
