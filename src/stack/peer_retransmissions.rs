//! The peer's retransmissions: the path loses its segments, or our ACKs.
use crate::segment::SeqNumber;
use std::time::Duration;

/// Margin over one RTT after a reordering event. Data repeated within that time is blamed on the
/// reordering, not on loss. Where our ACK is lost, no sender notices before two RTTs and some
/// milliseconds (RFC 8985, section 7.2).
const HASTE: Duration = Duration::from_millis(1);

/// A count of the segments that a flow's peer retransmitted.
#[derive(Debug, Default)]
pub(super) struct PeerRetransmissions {
    /// End of the highest data received.
    highest: Option<SeqNumber>,
    /// When data was last reordered.
    overtaken_at: Option<Duration>,
    /// Consecutive segments whose data was acknowledged already.
    acknowledged_already: u32,
    /// Frames whose data was retransmitted.
    frames: u64,
}

impl PeerRetransmissions {
    /// Records a frame with data from `start` to `end`, where `expected` is RCV.NXT, once there is
    /// one.
    ///
    /// A peer learns of a hole by our ACK, so data that fills it much sooner than one RTT was
    /// reordered, not retransmitted. RACK allows a quarter of the minimum RTT, `min_rtt`, for
    /// reordering (RFC 8985, section 6.2, step 4).
    pub(crate) fn note(
        &mut self,
        now: Duration,
        (start, end): (SeqNumber, SeqNumber),
        expected: Option<SeqNumber>,
        min_rtt: Option<Duration>,
    ) {
        let acknowledged = expected.is_some_and(|expected| !end.is_after(expected));
        self.acknowledged_already = if acknowledged { self.acknowledged_already + 1 } else { 0 };
        match self.highest {
            Some(highest) if !end.is_after(highest) => {
                let harmless = self.overtaken_at.zip(min_rtt).is_some_and(|(overtaken_at, rtt)| {
                    let window = if acknowledged { rtt + HASTE } else { rtt / 4 };
                    now <= overtaken_at + window
                });
                self.frames += u64::from(!harmless);
            }
            highest => {
                if highest.is_some_and(|highest| start.is_after(highest)) {
                    self.overtaken_at = Some(now);
                }
                self.highest = Some(end);
            }
        }
    }

    /// Returns whether the peer keeps retransmitting data that was acknowledged, so that our ACKs
    /// seem lost.
    pub(crate) fn suggest_lost_acks(&self) -> bool {
        self.acknowledged_already >= 2
    }

    /// Clears the suspicion of lost ACKs, because the next ones take another path.
    pub(crate) fn forget_lost_acks(&mut self) {
        self.acknowledged_already = 0;
    }

    /// Returns the number of frames that the peer retransmitted because they or our ACKs were lost.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Option<Duration> = Some(Duration::from_micros(100));

    /// Returns whether segments of 100 bytes, at times in microseconds and each with RCV.NXT before
    /// it, count as lost.
    fn lossy(min_rtt: Option<Duration>, segments: &[(u64, u32, u32)]) -> bool {
        let mut peer = PeerRetransmissions::default();
        for (at, start, expected) in segments {
            let (start, expected) = (SeqNumber(*start) - 150, SeqNumber(*expected) - 150);
            let range = (start, start + 100);
            peer.note(Duration::from_micros(1000 + at), range, Some(expected), min_rtt);
        }
        peer.frames() > 0
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
        let mut peer = PeerRetransmissions::default();
        let mut note = |start: u32, expected: u32| {
            let (start, expected) = (SeqNumber(start), SeqNumber(expected));
            peer.note(Duration::ZERO, (start, start + 100), Some(expected), ROUND_TRIP);
            peer.suggest_lost_acks()
        };
        assert!(!note(0, 0));
        assert!(!note(0, 100));
        assert!(note(0, 100));
        assert!(!note(100, 100), "it does now");
    }
}
