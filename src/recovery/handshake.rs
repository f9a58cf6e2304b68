//! What the two SYNs agree on: segment size, window scale, timestamps, SACK (RFC 6691, 7323, 2018).
use std::time::Duration;

use super::time::Instant;
use crate::segment::{Options, Segment, TIMESTAMPS_LEN};

/// RFC 9293, section 3.7.1: without the option.
const DEFAULT_MSS: u16 = 536;
/// Linux's TCP_MIN_MSS and more: a smaller offer is an attack on our packet rate.
const MIN_MSS: u64 = 88;
/// How soon after its reset a half-open connection of the peer's has made room for our SYN: Linux's TCP_TIMEOUT_MIN
/// (tcp_rcv_synsent_state_process(), net/ipv4/tcp_input.c), two ticks of its usual 250 a second.
const REPEAT_DELAY: Duration = Duration::from_millis(8);

#[derive(Debug, Default)]
pub(super) struct Handshake {
    pub ours: Option<Options>,
    pub theirs: Option<Options>,
    /// When our SYN went out first, and whether once only.
    sent: Option<(Instant, bool)>,
    /// Our SYN as it went out.
    syn: Option<Segment>,
    /// When our SYN goes again because the peer's old connection was reset, and whether it ever did.
    repeat_at: Option<Instant>,
    repeated: bool,
}

/// What holds for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    /// What the peer said a segment may carry, options included.
    pub peer_mss: u64,
    pub timestamps: bool,
    pub sack: bool,
    /// The shifts of the peer's window field and of ours.
    pub peer_shift: u8,
    pub our_shift: u8,
}

impl Handshake {
    /// Our SYN goes out.
    pub fn on_syn_sent(&mut self, now: Instant) {
        self.sent = Some(self.sent.map_or((now, true), |(at, _)| (at, false)));
    }

    /// Keeps our SYN in case it has to be sent once more.
    pub fn keep_syn(&mut self, syn: Segment) {
        self.syn = Some(syn);
    }

    /// The peer had a connection of an earlier life, which is reset now (RFC 9293, section 3.5.1, figure 9): our SYN
    /// need not wait for its timer, once.
    pub fn repeat_soon(&mut self, now: Instant) {
        if !self.repeated {
            self.repeated = true;
            self.repeat_at = Some(now + REPEAT_DELAY);
        }
    }

    /// Our SYN does not go again.
    pub fn give_up(&mut self) {
        self.repeat_at = None;
    }

    /// When [`Handshake::repeat`] is due.
    pub fn repeat_at(&self) -> Option<Instant> {
        self.repeat_at.filter(|_| self.theirs.is_none())
    }

    /// Our SYN, if it goes again now.
    pub fn repeat(&mut self, now: Instant) -> Option<Segment> {
        self.repeat_at().filter(|at| *at <= now)?;
        self.repeat_at = None;
        self.on_syn_sent(now);
        self.syn
    }

    /// The round trip that the answer to our SYN measures; none if it was repeated (RFC 6298, section 3).
    pub fn round_trip(&self, now: Instant) -> Option<Duration> {
        self.sent.filter(|(_, once)| *once).map(|(at, _)| now.since(at))
    }

    /// The agreement, once both SYNs are known.
    pub fn agreement(&self) -> Option<Agreement> {
        let (ours, theirs) = (self.ours?, self.theirs?);
        let (our_shift, peer_shift) = match (ours.window_scale, theirs.window_scale) {
            (Some(ours), Some(theirs)) => (ours, theirs),
            _ => (0, 0),
        };
        let peer_mss = theirs.mss.filter(|mss| *mss > 0).unwrap_or(DEFAULT_MSS);
        Some(Agreement {
            peer_mss: u64::from(peer_mss).max(MIN_MSS),
            timestamps: ours.timestamps.is_some() && theirs.timestamps.is_some(),
            sack: ours.sack_permitted && theirs.sack_permitted,
            peer_shift,
            our_shift,
        })
    }
}

impl Agreement {
    /// Payload bytes of a full segment (RFC 6691: the option does not count TCP options).
    pub fn segment_payload(&self, link_mss: u64) -> u64 {
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
        let mut handshake =
            Handshake { ours: Some(offer(Some(1460), Some(7), true)), ..Handshake::default() };
        assert_eq!(handshake.agreement(), None);
        handshake.theirs = Some(offer(Some(1400), None, true));
        let agreement = handshake.agreement().expect("both are known");
        assert_eq!((agreement.peer_shift, agreement.our_shift), (0, 0));
        assert_eq!(agreement.segment_payload(1460), 1388);
        assert_eq!(agreement.segment_payload(1200), 1188);
        handshake.theirs = Some(offer(None, Some(9), false));
        let agreement = handshake.agreement().expect("both are known");
        assert_eq!((agreement.peer_shift, agreement.our_shift), (9, 7));
        assert_eq!(agreement.segment_payload(1460), 536);
    }

    #[test]
    fn a_tiny_segment_size_is_raised() {
        for mss in [0, 1, 40] {
            let handshake = Handshake {
                ours: Some(offer(None, None, true)),
                theirs: Some(offer(Some(mss), None, true)),
                ..Handshake::default()
            };
            assert!(handshake.agreement().is_some_and(|a| a.segment_payload(1460) >= 76), "{mss}");
        }
    }
}
