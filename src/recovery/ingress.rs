//! From the wire: what the peer's segments tell the layer, and what of them the stack gets to see.
//!
//! The stack sees a connection without data: its SYN acknowledged, its FIN once all of ours is, and the peer's FIN once
//! all of the peer's data has come. Blind attacks end here (RFC 5961): a RST must have exactly the expected sequence number, and an
//! acknowledgment must lie in the window of what was sent.
use std::time::Duration;

use super::{
    Disposition, Instant, Recovery,
    egress::Control,
    opening::Opening,
    receiver::Answer,
    segment::{self, Header, MAX_HEADER_LEN, Outgoing, SackBlocks, Timestamps, flags},
};

/// RFC 5961, section 7: challenge ACKs are limited; Linux answers twice a second.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// So many duplicate ACKs leave one by one, for senders that count them (RFC 5681, section 3.2). Of more that wait, the
/// last is enough (Linux's __tcp_ack_snd_check(), net/ipv4/tcp_input.c).
const DUPLICATES: u32 = 3;

/// What the stack is to know of an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StackView {
    /// The peer has all of ours, our FIN included.
    fin_acknowledged: bool,
    /// We have all of the peer's, its FIN included.
    peer_finished: bool,
}

impl Recovery {
    /// Takes one segment of the peer: TCP header and payload, its checksum verified, its ports the
    /// connection's. It may be edited in place, the checksum then no longer holds.
    pub fn from_wire(&mut self, now: Instant, segment: &mut [u8]) -> Disposition {
        let Some(header) = Header::parse(segment) else { return Disposition::Hide };
        if !self.established {
            match self.open(now, segment, &header) {
                Opening::Over(disposition) => return disposition,
                Opening::Established => {}
            }
        } else if header.has(flags::RST) {
            return self.on_reset(now, segment, &header);
        } else if header.has(flags::SYN) {
            // RFC 5961, section 4.2.
            self.challenge(now);
            return Disposition::Hide;
        } else if !header.has(flags::ACK) {
            // The sequence number is looked at first (RFC 9293, section 3.10.7.4), then such a segment is dropped.
            if !self.receiver.admits_segment(header.seq, length(segment, &header)) {
                self.challenge(now);
            }
            return Disposition::Hide;
        }

        let len = segment.len() - header.len;
        let fin = header.has(flags::FIN);
        let stamp = header.options.timestamps.filter(|_| self.use_timestamps);
        // RFC 7323, section 5.3. Bare ACKs are exempt, as reordering is harmless to them.
        if (len > 0 || fin) && stamp.is_some_and(|stamp| self.clock.is_old(now, stamp.value)) {
            // What was sent again may have overtaken it: the sender wants to know (Linux's tcp_send_dupack()).
            let report = self.receiver.refuse(header.seq, length(segment, &header));
            self.push_ack(report);
            return Disposition::Hide;
        }
        let ack = self.space.offset(header.ack);
        if !self.receiver.is_near(header.seq) {
            // Who sends data waits for its acknowledgment: no loop (Linux's tcp_oow_rate_limited()).
            match len > 0 || fin {
                true => self.owe_ack(),
                false => self.challenge(now),
            }
            return Disposition::Hide;
        }
        if !self.space.is_acceptable_ack(ack) {
            self.challenge(now);
            return Disposition::Hide;
        }
        if let Some(stamp) = stamp
            && self.receiver.was_acknowledged(header.seq)
        {
            self.clock.note(now, stamp.value);
        }
        self.user_timeout.on_heard(now);

        let bare = len == 0 && !fin;
        self.on_ack(now, &header, ack, bare);
        self.charge_pool();
        if bare {
            self.on_bare(now, header.seq);
        } else if self.receiver.is_worth_offering(header.seq, len) {
            return Disposition::Offer;
        } else {
            self.take_text(now, header.seq, segment.get(header.len..).unwrap_or_default(), fin, 0);
        }
        Disposition::Hide
    }

    /// Takes the payload of a segment that [`Recovery::from_wire`] wanted to be offered, of which the user has read
    /// the first `taken` bytes, after all that [`Recovery::read`] had. The rest is kept. A segment for which this is
    /// never called is as good as lost: the peer sends it again.
    pub fn keep(&mut self, now: Instant, segment: &[u8], taken: usize) {
        let Some(header) = Header::parse(segment) else { return };
        let payload = segment.get(header.len..).unwrap_or_default();
        self.take_text(now, header.seq, payload, header.has(flags::FIN), taken);
    }

    /// Whether the acknowledgment of an established connection's segment is one that the peer may have sent.
    pub fn is_acceptable_ack(&self, ack: u32) -> bool {
        self.space.is_acceptable_ack(self.space.offset(ack))
    }

    /// Takes payload and FIN of a segment, at least one of which there is, that begins at `seq`, and of which the user
    /// has read the first `taken` bytes.
    pub(super) fn take_text(&mut self, now: Instant, seq: u32, payload: &[u8], fin: bool, taken: usize) {
        let Answer::AtOnce(sack) = self.receiver.on_segment(now, seq, payload, fin, self.mss, taken) else {
            return;
        };
        self.push_ack(sack);
        while let Some(sack) = self.receiver.further_report() {
            if self.sack {
                self.push_ack(sack);
            }
        }
    }

    /// A segment with nothing but its ACK, which has been digested.
    fn on_bare(&mut self, now: Instant, seq: u32) {
        if self.receiver.is_probe(seq) {
            self.owe_ack();
        } else if !self.receiver.admits(seq) {
            // An ACK that was overtaken by data, most likely, or one of a peer that has filled our window.
            self.challenge(now);
        }
    }

    fn stack_view(&self) -> StackView {
        StackView {
            fin_acknowledged: self.space.is_fin_acknowledged(),
            peer_finished: self.receiver.is_finished(),
        }
    }

    /// A segment that the layer itself has for the stack: show it as if it had come from the wire, and ask again
    /// until there is none.
    pub fn for_stack(&mut self) -> Option<&[u8]> {
        let view = self.stack_view();
        if !self.established || self.stack == Some(view) {
            return None;
        }
        let seq = self.stack_seq();
        let known = self.stack.replace(view).is_some_and(|told| told.peer_finished);
        let fin = if view.peer_finished && !known { flags::FIN } else { 0 };
        let outgoing = Outgoing {
            source: self.ports.1,
            destination: self.ports.0,
            seq,
            ack: self.seq(if view.fin_acknowledged { 2 } else { 1 }),
            flags: flags::ACK | fin,
            window: u16::MAX,
            timestamps: self.use_timestamps.then(|| Timestamps { value: self.clock.recent(), echo: 0 }),
            sack: SackBlocks::default(),
        };
        let len = outgoing.write(&mut self.header);
        self.header.get(..len)
    }

    /// The sequence number that the stack expects of the peer.
    fn stack_seq(&self) -> u32 {
        self.receiver.seq(if self.stack.is_some_and(|told| told.peer_finished) { 2 } else { 1 })
    }

    /// The stack repeats its FIN, which the peer has acknowledged.
    pub(super) fn tell_stack_again(&mut self) {
        if let Some(told) = &mut self.stack {
            told.fin_acknowledged = false;
        }
    }

    fn on_reset(&mut self, now: Instant, segment: &mut [u8], header: &Header) -> Disposition {
        // RFC 5961, section 3.2.
        if self.receiver.is_expected(header.seq) {
            segment::set_seq(segment, self.stack_seq());
            segment::set_flags(segment, header.flags & (flags::RST | flags::ACK));
            segment::blank_malformed_options(segment);
            return Disposition::Show;
        }
        if self.receiver.admits(header.seq) {
            self.challenge(now);
        }
        Disposition::Hide
    }

    /// RFC 5961: answers a segment that may be an attack, so that an honest peer can tell.
    pub(super) fn challenge(&mut self, now: Instant) {
        if self.challenged_at.is_none_or(|at| now.since(at) >= CHALLENGE_INTERVAL) {
            self.challenged_at = Some(now);
            self.owe_ack();
        }
    }

    fn owe_ack(&mut self) {
        self.push_ack(SackBlocks::default());
    }

    fn push_ack(&mut self, sack: SackBlocks) {
        let (ack, window) = self.receiver.advertise(self.mss);
        let sack = if self.sack { sack } else { SackBlocks::default() };
        if let Some(Control::Ack { ack: before, sack: earlier, .. }) = self.control.back()
            && self.receiver.repeats() > DUPLICATES + 1
            && !earlier.is_empty()
            && sack.supersede(ack, (*before, earlier))
        {
            self.control.pop_back();
        }
        self.push_control(Control::Ack { ack, window, sack });
    }

    pub(super) fn write_header(&mut self, outgoing: Outgoing) -> usize {
        let mut header = [0; MAX_HEADER_LEN];
        let len = outgoing.write(&mut header);
        self.header = header;
        len
    }
}

/// The sequence numbers that a segment takes up (RFC 9293, section 3.4, SEG.LEN).
pub(super) fn length(segment: &[u8], header: &Header) -> u64 {
    let controls = u64::from(header.has(flags::SYN)) + u64::from(header.has(flags::FIN));
    segment.len().saturating_sub(header.len) as u64 + controls
}
