//! The handshake: segment size, window scale, timestamps and SACK, as both SYNs agree on them (RFC
//! 6691, 7323, 2018).
use std::time::Duration;

use super::time::Instant;
use crate::segment::{Options, Segment, TIMESTAMPS_LEN};

/// MSS of a peer whose SYN has no MSS option, in bytes (RFC 9293, section 3.7.1).
const DEFAULT_MSS: u16 = 536;
/// Minimum MSS accepted, in bytes, above Linux's TCP_MIN_MSS: a smaller offer is an attack on our
/// packet rate.
const MIN_MSS: u64 = 88;
/// Delay of our SYN after the reset of the peer's half-open connection, which must be gone by then.
/// Linux's TCP_TIMEOUT_MIN (tcp_rcv_synsent_state_process(), net/ipv4/tcp_input.c): two ticks at
/// the usual 250 Hz.
const REPEAT_DELAY: Duration = Duration::from_millis(8);

/// The options of both SYNs, and the repetition of ours.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    /// The options of our SYN.
    pub ours: Option<Options>,
    /// The options of the peer's SYN.
    pub theirs: Option<Options>,
    /// The time of our first SYN, and whether it was the only one.
    sent: Option<(Instant, bool)>,
    /// Our SYN as sent.
    syn: Option<Segment>,
    /// The time to repeat our SYN because the peer's old connection was reset.
    repeat_at: Option<Instant>,
    /// The repetition was scheduled once.
    repeated: bool,
}

/// The parameters that both SYNs agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Negotiated {
    /// The peer's MSS option, in bytes: maximum TCP options and payload.
    pub peer_mss: u64,
    pub timestamps: bool,
    pub sack: bool,
    /// The shift of the peer's window field.
    pub peer_shift: u8,
    /// The shift of our window field.
    pub our_shift: u8,
}

impl Negotiation {
    /// Records that our SYN leaves.
    pub(crate) fn on_syn_sent(&mut self, now: Instant) {
        self.sent = Some(self.sent.map_or((now, true), |(at, _)| (at, false)));
    }

    /// Keeps our SYN for a repetition.
    pub(crate) fn keep_syn(&mut self, syn: Segment) {
        self.syn = Some(syn);
    }

    /// Schedules one early repetition of our SYN: the peer still had a connection of an earlier
    /// life, which is reset now (RFC 9293, section 3.5.1, figure 9).
    pub(crate) fn repeat_soon(&mut self, now: Instant) {
        if !self.repeated {
            self.repeated = true;
            self.repeat_at = Some(now + REPEAT_DELAY);
        }
    }

    /// Cancels the repetition of our SYN.
    pub(crate) fn give_up(&mut self) {
        self.repeat_at = None;
    }

    /// Returns the time at which [`Negotiation::repeat`] is due.
    pub(crate) fn repeat_at(&self) -> Option<Instant> {
        self.repeat_at.filter(|_| self.theirs.is_none())
    }

    /// Returns our SYN if its repetition is due.
    pub(crate) fn repeat(&mut self, now: Instant) -> Option<Segment> {
        self.repeat_at().filter(|at| *at <= now)?;
        self.repeat_at = None;
        self.on_syn_sent(now);
        self.syn
    }

    /// Returns the round trip that the answer to our SYN measures; `None` if the SYN was repeated
    /// (RFC 6298, section 3).
    pub(crate) fn round_trip(&self, now: Instant) -> Option<Duration> {
        self.sent.filter(|(_, once)| *once).map(|(at, _)| now.since(at))
    }

    /// Returns the negotiated, once both SYNs are known.
    pub(crate) fn negotiated(&self) -> Option<Negotiated> {
        let (ours, theirs) = (self.ours?, self.theirs?);
        let (our_shift, peer_shift) = match (ours.window_scale, theirs.window_scale) {
            (Some(ours), Some(theirs)) => (ours, theirs),
            _ => (0, 0),
        };
        let peer_mss = theirs.mss.filter(|mss| *mss > 0).unwrap_or(DEFAULT_MSS);
        Some(Negotiated {
            peer_mss: u64::from(peer_mss).max(MIN_MSS),
            timestamps: ours.timestamps.is_some() && theirs.timestamps.is_some(),
            sack: ours.sack_permitted && theirs.sack_permitted,
            peer_shift,
            our_shift,
        })
    }
}

impl Negotiated {
    /// Returns the payload of a full segment, in bytes (RFC 6691: the MSS option does not subtract
    /// TCP options).
    pub(crate) fn segment_payload(&self, link_mss: u64) -> u64 {
        let options = if self.timestamps { TIMESTAMPS_LEN as u64 } else { 0 };
        self.peer_mss.min(link_mss).max(MIN_MSS) - options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Timestamps;

    fn offer(mss: Option<u16>, shift: Option<u8>, timestamps: bool) -> Options {
        Options {
            mss,
            window_scale: shift,
            sack_permitted: true,
            timestamps: timestamps.then(Timestamps::default),
            ..Options::default()
        }
    }

    #[test]
    fn both_sides_must_offer() {
        let mut negotiation =
            Negotiation { ours: Some(offer(Some(1460), Some(7), true)), ..Negotiation::default() };
        assert_eq!(negotiation.negotiated(), None);
        negotiation.theirs = Some(offer(Some(1400), None, true));
        let negotiated = negotiation.negotiated().expect("both are known");
        assert_eq!((negotiated.peer_shift, negotiated.our_shift), (0, 0));
        assert_eq!(negotiated.segment_payload(1460), 1388);
        assert_eq!(negotiated.segment_payload(1200), 1188);
        negotiation.theirs = Some(offer(None, Some(9), false));
        let negotiated = negotiation.negotiated().expect("both are known");
        assert_eq!((negotiated.peer_shift, negotiated.our_shift), (9, 7));
        assert_eq!(negotiated.segment_payload(1460), 536);
    }

    #[test]
    fn a_tiny_segment_size_is_raised() {
        for mss in [0, 1, 40] {
            let negotiation = Negotiation {
                ours: Some(offer(None, None, true)),
                theirs: Some(offer(Some(mss), None, true)),
                ..Negotiation::default()
            };
            assert!(negotiation.negotiated().is_some_and(|a| a.segment_payload(1460) >= 76), "{mss}");
        }
    }
}
