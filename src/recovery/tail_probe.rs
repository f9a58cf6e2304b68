//! Tail loss probes (TLP, RFC 8985 section 7): the end of a flight has nothing behind it that could report its
//! loss, so after two round trips of silence something is sent that will.
//!
//! A probe may be lost, too, or its ACK. RFC 8985 then waits for the retransmission timer, which on a short path is a
//! thousand round trips; here a second probe goes after twice the time, if that is sooner (RFC 9002, section 6.2.1, has
//! as many as are needed).
use std::time::Duration;

/// RFC 8985's TLP.max_ack_delay, as in Linux: a peer may delay the ACK of a lone segment.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// For timers that come late, ours and the peer's: RFC 9002's kGranularity (section 6.1.2). Linux's TCP_TIMEOUT_MIN is
/// two ticks of its clock, on a short path the most of the wait.
const MARGIN: Duration = Duration::from_millis(1);

/// Maximum tail loss probes per flight.
pub(super) const MAX_PROBES: u32 = 2;

/// A probe that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailProbe {
    /// The flight's first is 1.
    pub number: u32,
    /// SND.NXT when it was.
    pub end: u64,
    /// It carried what had been sent before.
    pub retransmission: bool,
}

/// What an ACK says of a probe (section 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Pending,
    /// The probe was not needed.
    Needless,
    /// The probe repaired a loss.
    Repaired,
}

impl TailProbe {
    pub fn judge(&self, una: u64, dsack: bool, duplicate: bool) -> Verdict {
        if una < self.end {
            Verdict::Pending
        } else if !self.retransmission || dsack {
            Verdict::Needless
        } else if una > self.end {
            Verdict::Repaired
        } else if duplicate {
            Verdict::Needless
        } else {
            Verdict::Pending
        }
    }
}

/// Section 7.2: how long after the last news, or the last of so many `probes`, to probe. `lone` if a single segment is
/// in flight.
pub(super) fn timeout(smoothed: Option<Duration>, lone: bool, rto: Duration, probes: u32) -> Duration {
    let base = smoothed.map_or(Duration::from_secs(1), |smoothed| smoothed * 2);
    (base + if lone { MAX_ACK_DELAY } else { MARGIN }).min(rto) * (probes + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_judged_by_what_follows() {
        let probe = TailProbe { number: 1, end: 100, retransmission: true };
        assert_eq!(probe.judge(99, false, false), Verdict::Pending);
        assert_eq!(probe.judge(100, false, false), Verdict::Pending, "either copy may have caused it");
        assert_eq!(probe.judge(100, true, false), Verdict::Needless, "case 1");
        assert_eq!(probe.judge(101, false, false), Verdict::Repaired, "case 2");
        assert_eq!(probe.judge(100, false, true), Verdict::Needless, "case 3");
        let new_data = TailProbe { number: 1, end: 100, retransmission: false };
        assert_eq!(new_data.judge(101, false, false), Verdict::Needless);
    }
}
