//! Tail loss probes (TLP, RFC 8985, section 7): no later segment reports a loss at the end of a
//! flight, so after two round trips of silence a probe elicits an ACK.
//!
//! The probe or its ACK may be lost, too. RFC 8985 then waits for the retransmission timer, which
//! is a thousand round trips on a short path. Here a second probe leaves after twice the time, if
//! that is sooner (RFC 9002, section 6.2.1, has as many as needed).
use std::time::Duration;

/// Allowance for a peer that delays the ACK of a single segment: RFC 8985's TLP.max_ack_delay, as
/// in Linux.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Allowance for late timers, ours and the peer's: RFC 9002's kGranularity (section 6.1.2). Linux's
/// TCP_TIMEOUT_MIN is two ticks of its clock, most of the wait on a short path.
const MARGIN: Duration = Duration::from_millis(1);

/// Maximum tail loss probes per flight.
pub(super) const MAX_PROBES: u32 = 2;

/// A probe in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailProbe {
    /// The probe's number within the flight, from 1.
    pub number: u32,
    /// SND.NXT when the probe was sent.
    pub end: u64,
    /// The probe retransmitted data.
    pub retransmission: bool,
}

/// The outcome of a probe after an ACK (section 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    /// Undecided.
    Pending,
    /// The probe was unnecessary.
    Needless,
    /// The probe repaired a loss.
    Repaired,
}

impl TailProbe {
    /// Returns the outcome of the probe after an ACK up to `una`.
    pub(crate) fn outcome(&self, una: u64, dsack: bool, duplicate: bool) -> ProbeOutcome {
        if una < self.end {
            ProbeOutcome::Pending
        } else if !self.retransmission || dsack {
            ProbeOutcome::Needless
        } else if una > self.end {
            ProbeOutcome::Repaired
        } else if duplicate {
            ProbeOutcome::Needless
        } else {
            ProbeOutcome::Pending
        }
    }
}

/// Returns the time from the last delivery, or from the last of `probes` probes, to the next probe
/// (section 7.2). `lone` means that a single segment is in flight.
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
        assert_eq!(probe.outcome(99, false, false), ProbeOutcome::Pending);
        assert_eq!(probe.outcome(100, false, false), ProbeOutcome::Pending, "either copy may have caused it");
        assert_eq!(probe.outcome(100, true, false), ProbeOutcome::Needless, "case 1");
        assert_eq!(probe.outcome(101, false, false), ProbeOutcome::Repaired, "case 2");
        assert_eq!(probe.outcome(100, false, true), ProbeOutcome::Needless, "case 3");
        let new_data = TailProbe { number: 1, end: 100, retransmission: false };
        assert_eq!(new_data.outcome(101, false, false), ProbeOutcome::Needless);
    }
}
