//! From the wire: what the peer's segments tell the layer, and what of them the stack gets to see.
//!
//! The stack sees a connection without data: its SYN acknowledged, its FIN once all of ours is, and the peer's FIN once
//! all of the peer's data has come. Blind attacks end here (RFC 5961): a RST must have exactly the expected sequence number, and an
//! acknowledgment must lie in the window of what was sent.
use std::time::Duration;

use super::{
    Disposition, Instant, Recovery,
    egress::Control,
    receiver::{Answer, Outlet},
    scoreboard::Scoreboard,
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
        self.from_wire_to(now, segment, &mut |_| 0)
    }

    /// The same, but `outlet` may take data that comes in order, after what waits to be read.
    pub fn from_wire_to(&mut self, now: Instant, segment: &mut [u8], outlet: &mut Outlet<'_>) -> Disposition {
        let Some(header) = Header::parse(segment) else { return Disposition::Hide };
        if header.has(flags::RST) {
            return self.on_reset(now, segment, &header);
        }
        if header.has(flags::SYN) {
            return self.on_syn(now, &header);
        }
        if !header.has(flags::ACK) || self.handshake.ours.is_none() {
            return Disposition::Show;
        }
        if !self.established && !self.complete_handshake(now, &header) {
            return Disposition::Show;
        }

        let len = segment.len() - header.len;
        let fin = header.has(flags::FIN);
        let stamp = header.options.timestamps.filter(|_| self.use_timestamps);
        // RFC 7323, section 5.3. Bare ACKs are exempt, as reordering is harmless to them.
        if (len > 0 || fin) && stamp.is_some_and(|stamp| self.clock.is_old(now, stamp.value)) {
            self.owe_ack();
            return Disposition::Hide;
        }
        let ack = self.space.offset(header.ack);
        if !self.receiver.is_near(header.seq) || !self.space.is_acceptable_ack(ack) {
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
        } else {
            let payload = segment.get(header.len..).unwrap_or_default();
            match self.receiver.on_segment(now, header.seq, payload, fin, self.mss, outlet) {
                Answer::Cumulative => {}
                Answer::AtOnce(sack) => self.push_ack(sack),
            }
        }
        Disposition::Hide
    }

    /// Whether the acknowledgment of an established connection's segment is one that the peer may have sent.
    pub fn is_acceptable_ack(&self, ack: u32) -> bool {
        self.space.is_acceptable_ack(self.space.offset(ack))
    }

    /// A segment with nothing but its ACK, which has been digested.
    fn on_bare(&mut self, now: Instant, seq: u32) {
        if self.receiver.is_probe(seq) {
            self.owe_ack();
        } else if !self.receiver.admits(seq) {
            // An ACK that was overtaken by data, most likely.
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
        if !self.established {
            return Disposition::Show;
        }
        // RFC 5961, section 3.2.
        if self.receiver.is_expected(header.seq) {
            segment::set_seq(segment, self.stack_seq());
            return Disposition::Show;
        }
        if self.receiver.admits(header.seq) {
            self.challenge(now);
        }
        Disposition::Hide
    }

    fn on_syn(&mut self, now: Instant, header: &Header) -> Disposition {
        if self.established {
            // RFC 5961, section 4.2.
            self.challenge(now);
            return Disposition::Hide;
        }
        self.handshake.theirs = Some(header.options);
        self.receiver.synchronize(header.seq);
        if let Some(stamp) = header.options.timestamps {
            self.clock.note(now, stamp.value);
        }
        if header.has(flags::ACK) {
            self.complete_handshake(now, header);
        }
        Disposition::Show
    }

    /// The peer acknowledges our SYN: the connection is established. False if it does not.
    fn complete_handshake(&mut self, now: Instant, header: &Header) -> bool {
        let Some(agreement) = self.handshake.agreement() else { return false };
        if self.space.offset(header.ack) != self.space.una {
            return false;
        }
        // The window of a SYN is never scaled (RFC 7323, section 2.2).
        let shift = if header.has(flags::SYN) { 0 } else { agreement.peer_shift };
        self.established = true;
        self.sack = agreement.sack;
        self.use_timestamps = agreement.timestamps;
        self.receiver.establish(agreement.our_shift);
        self.mss = agreement.segment_payload(self.link_mss);
        self.space.shift = agreement.peer_shift;
        // As the field of a later segment would be, which is what the stack will compare it with.
        let field = header.window >> (agreement.peer_shift - shift);
        self.space.set_window(header.seq, field, u64::from(header.window) << shift);
        self.congestion = self.config.algorithm.start(self.mss);
        if let Some(rtt) = self.handshake.round_trip(now) {
            self.rtt.sample(now, rtt, rtt);
        }
        self.board = Scoreboard::new(self.space.una);
        self.rate.start(now);
        self.rto_from = now;
        self.probe_from = now;
        self.user_timeout.on_heard(now);
        true
    }

    /// RFC 5961: answers a segment that may be an attack, so that an honest peer can tell.
    fn challenge(&mut self, now: Instant) {
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
