//! From the wire: what the peer's segments tell the layer, and what of them the stack gets to see.
//!
//! The stack, which has no data to send, sees its SYN acknowledged, and its FIN once all of ours is.
//! Blind attacks end here (RFC 5961): a RST must have exactly the expected sequence number, and an
//! acknowledgment must lie in the window of what was sent.
use std::time::Duration;

use super::{
    Disposition, Instant, Recovery,
    egress::Control,
    scoreboard::Scoreboard,
    segment::{self, Header, MAX_HEADER_LEN, Outgoing, SackBlocks, Timestamps, flags},
};

/// RFC 5961, section 7: challenge ACKs are limited; Linux answers twice a second.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

impl Recovery {
    /// Takes one segment of the peer: TCP header and payload, its checksum verified, its ports the
    /// connection's. It may be edited in place, the checksum then no longer holds.
    pub fn from_wire(&mut self, now: Instant, segment: &mut [u8]) -> Disposition {
        let Some(header) = Header::parse(segment) else { return Disposition::Hide };
        if header.has(flags::RST) {
            return self.on_reset(now, &header);
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
        if !self.space.is_acceptable_ack(ack) {
            self.challenge(now);
            return Disposition::Hide;
        }
        if let Some(stamp) = stamp
            && !after(header.seq, self.stack.acknowledged())
        {
            self.clock.note(now, stamp.value);
        }
        self.user_timeout.on_heard(now);

        let bare = len == 0 && !fin;
        self.on_ack(now, &header, ack, bare);
        self.show(segment, &header, len, bare)
    }

    /// Edits the segment to what the stack should know, and decides whether it must see it.
    fn show(&mut self, segment: &mut [u8], header: &Header, len: usize, bare: bool) -> Disposition {
        let state = self.acknowledged();
        segment::set_ack(segment, self.stack_ack(state));
        if !bare {
            if let Some(expected) = self.stack.expected().filter(|_| len > 0) {
                self.sack_report.on_data(header.seq, header.seq.wrapping_add(len as u32), expected);
            }
            self.stack.show_data(header.seq, len, header.has(flags::FIN), state);
            return Disposition::Show;
        }
        if self.stack.is_old(header.seq) {
            // A keep-alive or window probe: the stack must answer it, and will not look at its ACK.
            return Disposition::Show;
        }
        // While nothing is outstanding, a repeated ACK is no duplicate but a sign of life.
        if !self.stack.lacks(state) && self.space.outstanding() > 0 {
            return Disposition::Hide;
        }
        // The stack takes a bare ACK only inside its window; Linux sends them at its right edge, too.
        if let Some(expected) = self.stack.expected() {
            segment::set_seq(segment, expected);
        }
        self.stack.show_bare(state);
        Disposition::Show
    }

    /// A segment that the layer itself has for the stack: show it as if it had come from the wire, and ask again
    /// until there is none.
    pub fn for_stack(&mut self, _now: Instant) -> Option<&[u8]> {
        let state = self.acknowledged();
        if !self.established || !self.stack.wants_bare(state) {
            return None;
        }
        let outgoing = Outgoing {
            source: self.ports.1,
            destination: self.ports.0,
            seq: self.stack.expected()?,
            ack: self.stack_ack(state),
            flags: flags::ACK,
            window: u16::MAX,
            timestamps: self.use_timestamps.then(|| Timestamps { value: self.clock.recent(), echo: 0 }),
            sack: SackBlocks::default(),
        };
        self.stack.show_bare(state);
        let len = outgoing.write(&mut self.header);
        self.header.get(..len)
    }

    fn on_reset(&mut self, now: Instant, header: &Header) -> Disposition {
        let Some(expected) = self.stack.expected().filter(|_| self.established) else {
            return Disposition::Show;
        };
        // RFC 5961, section 3.2. The stack's last ACK is what a peer without a connection answers to.
        if header.seq == expected || header.seq == self.stack.acknowledged() {
            return Disposition::Show;
        }
        if self.stack.in_window(header.seq) {
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
        self.our_shift = agreement.our_shift;
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
        let (ack, window) = (self.ack, self.window);
        self.push_control(Control::Ack { ack, window, sack: SackBlocks::default() });
    }

    pub(super) fn write_header(&mut self, outgoing: Outgoing) -> usize {
        let mut header = [0; MAX_HEADER_LEN];
        let len = outgoing.write(&mut header);
        self.header = header;
        len
    }
}

fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}
