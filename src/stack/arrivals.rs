//! What the order in which a peer's data arrives tells of the path: whether it loses what the peer sends, and whether
//! what we send gets there.
use crate::segment::SeqNumber;
use std::time::Duration;

/// What comes again sooner than so long and a round trip after something was overtaken was sent again because of that.
/// Where our ACK is lost, no sender notices before two round trips and some milliseconds (RFC 8985, section 7.2).
const HASTE: Duration = Duration::from_millis(1);

/// The arrivals of one flow.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The end of the highest data so far.
    highest: Option<SeqNumber>,
    /// When data came last ahead of what precedes it.
    overtaken_at: Option<Duration>,
    /// Segments in a row with data that we have acknowledged.
    unheard: u32,
    /// Frames whose data came again, or so late that it was sent again, for want of an answer.
    repeated: u64,
}

impl Arrivals {
    /// Data from `start` to `end` came in a frame, where `expected` is RCV.NXT, once there is one. A peer learns of a
    /// hole by our ACK, so what fills it much sooner than in a round trip, of which `min_rtt` is the shortest, was
    /// overtaken: a quarter of that is what RACK allows for (RFC 8985, section 6.2, step 4).
    pub fn note(
        &mut self,
        now: Duration,
        (start, end): (SeqNumber, SeqNumber),
        expected: Option<SeqNumber>,
        min_rtt: Option<Duration>,
    ) {
        let acknowledged = expected.is_some_and(|expected| !end.is_after(expected));
        self.unheard = if acknowledged { self.unheard + 1 } else { 0 };
        match self.highest {
            Some(highest) if !end.is_after(highest) => {
                let harmless = self.overtaken_at.zip(min_rtt).is_some_and(|(overtaken_at, rtt)| {
                    let window = if acknowledged { rtt + HASTE } else { rtt / 4 };
                    now <= overtaken_at + window
                });
                self.repeated += u64::from(!harmless);
            }
            highest => {
                if highest.is_some_and(|highest| start.is_after(highest)) {
                    self.overtaken_at = Some(now);
                }
                self.highest = Some(end);
            }
        }
    }

    /// Whether the peer says again and again what we have acknowledged: our ACKs don't arrive.
    pub fn is_unheard(&self) -> bool {
        self.unheard >= 2
    }

    /// Our ACKs have a new chance.
    pub fn retry(&mut self) {
        self.unheard = 0;
    }

    /// How many frames the peer had to send again, because they were lost or our ACKs were.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Option<Duration> = Some(Duration::from_micros(100));

    /// Segments of 100 bytes at times in microseconds, each with what was expected before: whether the path loses.
    fn lossy(min_rtt: Option<Duration>, segments: &[(u64, u32, u32)]) -> bool {
        let mut arrivals = Arrivals::default();
        for (at, start, expected) in segments {
            let (start, expected) = (SeqNumber(*start) - 150, SeqNumber(*expected) - 150);
            let range = (start, start + 100);
            arrivals.note(Duration::from_micros(1000 + at), range, Some(expected), min_rtt);
        }
        arrivals.repeated() > 0
    }

    #[test]
    fn what_is_overtaken_is_not_lost() {
        assert!(!lossy(ROUND_TRIP, &[(0, 0, 0), (10, 100, 100)]));
        assert!(!lossy(ROUND_TRIP, &[(0, 0, 0), (10, 200, 100), (35, 100, 100)]));
        assert!(lossy(ROUND_TRIP, &[(0, 0, 0), (10, 200, 100), (36, 100, 100)]), "a round trip later");
        assert!(lossy(None, &[(0, 0, 0), (10, 200, 100), (10, 100, 100)]), "who knows");
    }

    #[test]
    fn what_comes_twice_was_sent_twice() {
        assert!(lossy(ROUND_TRIP, &[(0, 0, 0), (1, 0, 100)]));
        assert!(!lossy(ROUND_TRIP, &[(0, 0, 0), (1, 200, 100), (2, 100, 100), (1101, 100, 300)]), "in haste");
        assert!(lossy(ROUND_TRIP, &[(0, 0, 0), (1, 200, 100), (2, 100, 100), (1102, 100, 300)]));
    }

    #[test]
    fn a_peer_that_repeats_itself_does_not_hear() {
        let mut arrivals = Arrivals::default();
        let mut note = |start: u32, expected: u32| {
            let (start, expected) = (SeqNumber(start), SeqNumber(expected));
            arrivals.note(Duration::ZERO, (start, start + 100), Some(expected), ROUND_TRIP);
            arrivals.is_unheard()
        };
        assert!(!note(0, 0));
        assert!(!note(0, 100));
        assert!(note(0, 100));
        assert!(!note(100, 100), "it does now");
    }
}
