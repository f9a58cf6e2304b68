//! Segments before the connection is established: SYN-SENT and SYN-RECEIVED (RFC 9293, sections
//! 3.10.7.3 and 3.10.7.4).
use super::{Instant, Recovery, SegmentOutcome, egress::Control, negotiation::Negotiated};
use crate::segment::{ACK, FIN, RST, SYN, Segment};

/// The effect of a segment on a connection that is not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The segment is processed.
    Over(SegmentOutcome),
    /// The segment established the connection; its other content counts, too.
    Established,
}

const DIGESTED: Opening = Opening::Over(SegmentOutcome::Processed);
const HANDSHAKE: Opening = Opening::Over(SegmentOutcome::Handshake);
const RESET: Opening = Opening::Over(SegmentOutcome::Reset);

impl Recovery {
    /// Processes a segment of a connection that is not established.
    pub(super) fn open(&mut self, now: Instant, segment: &Segment, payload: &[u8]) -> Opening {
        match (self.negotiation.ours, self.negotiation.theirs) {
            (Some(_), Some(_)) => self.on_syn_received(now, segment),
            (Some(_), None) => self.on_syn_sent(now, segment, payload),
            // LISTEN.
            (None, _) if segment.is(RST) => RESET,
            // An answer to an earlier connection, before our SYN has left (RFC 9293, section 3.10.7.2).
            (None, _) if segment.is(SYN) && segment.is(ACK) => {
                self.refuse(segment);
                DIGESTED
            }
            (None, _) => {
                if segment.is(SYN) {
                    self.take_syn(now, segment);
                }
                HANDSHAKE
            }
        }
    }

    /// Processes a segment in SYN-SENT (RFC 9293, section 3.10.7.3).
    fn on_syn_sent(&mut self, now: Instant, segment: &Segment, payload: &[u8]) -> Opening {
        let acknowledges = segment.is(ACK);
        // First: our SYN is the only thing to acknowledge.
        if acknowledges && !self.acknowledges_our_syn(segment) {
            if !segment.is(RST) {
                self.refuse(segment);
                self.negotiation.repeat_soon(now);
            }
            return DIGESTED;
        }
        match (segment.is(RST), segment.is(SYN)) {
            // Second: a reset without an acknowledgment may be forged.
            (true, _) if acknowledges => RESET,
            (false, true) => {
                self.take_syn(now, segment);
                if acknowledges && self.complete_handshake(now, segment) {
                    // Fourth: "if there are other controls or text in the segment, then continue
                    // processing".
                    let fin = segment.is(FIN);
                    if fin || !payload.is_empty() {
                        self.take_text(now, segment.seq + 1, payload, fin, 0);
                    }
                }
                HANDSHAKE
            }
            // Fifth.
            _ => DIGESTED,
        }
    }

    /// Processes a segment in SYN-RECEIVED (RFC 9293, section 3.10.7.4).
    fn on_syn_received(&mut self, now: Instant, segment: &Segment) -> Opening {
        self.agree();
        if segment.is(RST) {
            // Second; RFC 5961, section 3.2.
            if self.receiver.is_expected(segment.seq) {
                return RESET;
            }
            if self.receiver.admits(segment.seq) {
                self.challenge(now);
            }
            return DIGESTED;
        }
        let acknowledged = segment.is(ACK).then(|| self.acknowledges_our_syn(segment));
        if acknowledged == Some(false) {
            // Fifth, but ahead of the sequence number check: section 3.5.2, group 2, and Linux's
            // tcp_check_req(). The state machine resets it.
            return HANDSHAKE;
        }
        // Section 3.5, figure 8: a peer whose SYN crossed ours repeats its SYN to acknowledge ours.
        let crossed = segment.is(SYN) && self.receiver.is_probe(segment.seq);
        if crossed && acknowledged == Some(true) {
            self.complete_handshake(now, segment);
            return HANDSHAKE;
        }
        // First, and fourth (RFC 5961, section 4.2).
        if segment.is(SYN) || !self.receiver.admits_segment(segment.seq, segment.seq_len().into()) {
            self.challenge(now);
            return DIGESTED;
        }
        match acknowledged.is_some() && self.complete_handshake(now, segment) {
            true => Opening::Established,
            false => DIGESTED,
        }
    }

    /// Returns whether the segment acknowledges our SYN and nothing beyond.
    fn acknowledges_our_syn(&self, segment: &Segment) -> bool {
        let space = &self.sender.space;
        space.offset(segment.ack) == space.una
    }

    /// Accepts the peer's SYN.
    fn take_syn(&mut self, now: Instant, syn: &Segment) {
        self.negotiation.theirs = Some(syn.options);
        self.receiver.synchronize(syn.seq);
        if let Some(stamp) = syn.options.timestamps {
            self.receiver.note_timestamp(now, stamp.value);
        }
    }

    /// Resets a segment that acknowledges something never sent (RFC 9293, section 3.5.2).
    fn refuse(&mut self, segment: &Segment) {
        let (source, destination) = self.ports;
        let reset = Segment { source, destination, seq: segment.ack, flags: RST, ..Segment::default() };
        self.push_control(Control::Foreign(reset));
    }

    /// Applies the negotiated of both SYNs, once both are known.
    fn agree(&mut self) -> Option<Negotiated> {
        let negotiated = self.negotiation.negotiated()?;
        self.sender.agree(negotiated);
        self.receiver.establish(negotiated.our_shift);
        Some(negotiated)
    }

    /// Establishes the connection when the peer acknowledges our SYN. Returns false if the peer's
    /// SYN has not arrived.
    fn complete_handshake(&mut self, now: Instant, segment: &Segment) -> bool {
        let Some(negotiated) = self.agree() else { return false };
        // The window of a SYN is never scaled (RFC 7323, section 2.2).
        let shift = if segment.is(SYN) { 0 } else { negotiated.peer_shift };
        self.established = true;
        let rtt = self.negotiation.round_trip(now);
        self.sender.establish(now, segment, shift, negotiated, rtt);
        true
    }
}
