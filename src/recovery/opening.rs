//! From the wire, before the connection is established: what segments mean in SYN-SENT and SYN-RECEIVED (RFC 9293,
//! sections 3.10.7.3 and 3.10.7.4).
//!
//! The stack sees SYNs that it is to take and resets that it is to believe, stripped of what it stumbles over: data, a
//! FIN, malformed options. All else ends here.
use super::{
    Disposition, Instant, Recovery,
    egress::Control,
    handshake::Agreement,
    ingress::length,
    scoreboard::Scoreboard,
    segment::{self, Header, MAX_HEADER_LEN, Outgoing, flags},
};

/// What a segment has done to a connection that was not established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// All that it can.
    Over(Disposition),
    /// Established it. What else it carries counts.
    Established,
}

const HIDE: Opening = Opening::Over(Disposition::Hide);

impl Recovery {
    /// Takes a segment of a connection that is not established.
    pub(super) fn open(&mut self, now: Instant, segment: &mut [u8], header: &Header) -> Opening {
        match (self.handshake.ours, self.handshake.theirs) {
            (Some(_), Some(_)) => self.on_syn_received(now, segment, header),
            (Some(_), None) => self.on_syn_sent(now, segment, header),
            (None, _) => {
                // LISTEN: the caller shows a SYN alone.
                if header.has(flags::SYN) && !header.has(flags::RST) {
                    self.take_syn(now, header);
                }
                show(segment, header)
            }
        }
    }

    /// RFC 9293, section 3.10.7.3.
    fn on_syn_sent(&mut self, now: Instant, segment: &mut [u8], header: &Header) -> Opening {
        let acknowledges = header.has(flags::ACK);
        // First: our SYN is all that can be acknowledged.
        if acknowledges && self.space.offset(header.ack) != self.space.una {
            if !header.has(flags::RST) {
                self.refuse(header);
                self.handshake.repeat_soon(now);
            }
            return HIDE;
        }
        match (header.has(flags::RST), header.has(flags::SYN)) {
            // Second: a reset that acknowledges nothing is anybody's.
            (true, _) if acknowledges => show(segment, header),
            (false, true) => {
                self.take_syn(now, header);
                if acknowledges && self.complete_handshake(now, header) {
                    // Fourth: "if there are other controls or text in the segment, then continue processing".
                    let (fin, payload) =
                        (header.has(flags::FIN), segment.get(header.len..).unwrap_or_default());
                    if fin || !payload.is_empty() {
                        self.take_text(now, header.seq.wrapping_add(1), payload, fin, 0);
                    }
                }
                show(segment, header)
            }
            // Fifth.
            _ => HIDE,
        }
    }

    /// RFC 9293, section 3.10.7.4, for SYN-RECEIVED.
    fn on_syn_received(&mut self, now: Instant, segment: &mut [u8], header: &Header) -> Opening {
        self.agree();
        if header.has(flags::RST) {
            // Second; RFC 5961, section 3.2.
            if self.receiver.is_expected(header.seq) {
                return show(segment, header);
            }
            if self.receiver.admits(header.seq) {
                self.challenge(now);
            }
            return HIDE;
        }
        let acknowledged = header.has(flags::ACK).then(|| self.space.offset(header.ack) == self.space.una);
        if acknowledged == Some(false) {
            // Fifth, but before the sequence number is looked at: section 3.5.2, group 2, and Linux's tcp_check_req(). The
            // stack resets it.
            return show(segment, header);
        }
        // Section 3.5, figure 8: a peer whose SYN has crossed ours repeats it to acknowledge ours.
        let crossed = header.has(flags::SYN) && self.receiver.is_probe(header.seq);
        if crossed && acknowledged == Some(true) {
            self.complete_handshake(now, header);
            return show(segment, header);
        }
        // First, and fourth (RFC 5961, section 4.2).
        if header.has(flags::SYN) || !self.receiver.admits_segment(header.seq, length(segment, header)) {
            self.challenge(now);
            return HIDE;
        }
        match acknowledged.is_some() && self.complete_handshake(now, header) {
            true => Opening::Established,
            false => HIDE,
        }
    }

    /// The peer's SYN is one that we wait for.
    fn take_syn(&mut self, now: Instant, header: &Header) {
        self.handshake.theirs = Some(header.options);
        self.receiver.synchronize(header.seq);
        if let Some(stamp) = header.options.timestamps {
            self.clock.note(now, stamp.value);
        }
    }

    /// Resets what acknowledges something that was never sent (RFC 9293, section 3.5.2).
    fn refuse(&mut self, header: &Header) {
        let (source, destination) = self.ports;
        let reset =
            Outgoing { source, destination, seq: header.ack, flags: flags::RST, ..Outgoing::default() };
        let mut header = [0; MAX_HEADER_LEN];
        let len = reset.write(&mut header);
        self.push_control(Control::Verbatim { header, len });
    }

    /// What both SYNs say holds from now on.
    fn agree(&mut self) -> Option<Agreement> {
        let agreement = self.handshake.agreement()?;
        self.sack = agreement.sack;
        self.use_timestamps = agreement.timestamps;
        self.receiver.establish(agreement.our_shift);
        Some(agreement)
    }

    /// The peer acknowledges our SYN: the connection is established. False if the peer's SYN has not come.
    fn complete_handshake(&mut self, now: Instant, header: &Header) -> bool {
        let Some(agreement) = self.agree() else { return false };
        // The window of a SYN is never scaled (RFC 7323, section 2.2).
        let shift = if header.has(flags::SYN) { 0 } else { agreement.peer_shift };
        self.established = true;
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
}

/// Lets the stack see what it understands of `segment`.
fn show(segment: &mut [u8], header: &Header) -> Opening {
    // A reset is looked for before a SYN is.
    let control = if header.has(flags::RST) { flags::RST } else { flags::SYN };
    segment::set_flags(segment, header.flags & (control | flags::ACK));
    segment::blank_malformed_options(segment);
    Opening::Over(Disposition::Show)
}
