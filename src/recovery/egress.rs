//! From the stack: SYNs, FINs and RSTs, one packet at a time. Data it has none, and what it acknowledges the receiver
//! acknowledges better.
use super::{
    Instant, Recovery, STACK_HEADER_LEN,
    scoreboard::Scoreboard,
    segment::{self, Header, MAX_HEADER_LEN, SackBlocks, flags},
    send_space::SendSpace,
};

/// More than this many bare segments wait only if the caller stopped sending; the oldest ACKs are useless then.
const MAX_QUEUED: usize = 1024;

/// A segment without data that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    Ack {
        ack: u32,
        window: u16,
        sack: SackBlocks,
    },
    /// A keep-alive or a window probe: an ACK with an old sequence number, which must be answered.
    Probe,
    /// A SYN, or a RST outside of a connection, as the stack wrote it.
    Verbatim {
        header: [u8; MAX_HEADER_LEN],
        len: usize,
    },
    /// The stack gave up.
    Reset,
}

impl Recovery {
    /// Lets the stack write one packet of `len` bytes: [`STACK_HEADER_LEN`] bytes of IPv4 header without options,
    /// which are ignored, and a TCP header. A payload can only be a keep-alive's.
    ///
    /// Returns what `write` returns.
    pub fn from_stack<R>(&mut self, now: Instant, len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut packet = std::mem::take(&mut self.scratch);
        packet.clear();
        packet.resize(len, 0);
        let result = write(&mut packet);
        self.accept(now, packet.get(STACK_HEADER_LEN..).unwrap_or_default());
        self.scratch = packet;
        result
    }

    fn accept(&mut self, now: Instant, segment: &[u8]) {
        let Some(header) = Header::parse(segment) else { return };
        self.ports = (header.source, header.destination);
        if header.has(flags::SYN) {
            self.accept_syn(now, segment, &header);
        } else if header.has(flags::RST) {
            self.accept_reset(segment, &header);
        } else if self.established && header.has(flags::FIN) {
            self.accept_fin();
        }
    }

    fn accept_syn(&mut self, now: Instant, segment: &[u8], header: &Header) {
        if self.established {
            return;
        }
        if self.handshake.ours.is_none() || self.space.iss != header.seq {
            self.space = SendSpace::new(header.seq);
            self.board = Scoreboard::new(self.space.una);
            if let Some(timestamps) = header.options.timestamps {
                self.clock.start(now, timestamps.value);
            }
        }
        let (window, shift) = (self.receiver.syn_window(), self.receiver.offered_shift());
        self.handshake.ours = Some(header.options.with_window_scale(shift));
        self.handshake.on_syn_sent(now);
        if header.has(flags::ACK) {
            self.receiver.on_syn_acknowledged();
        }
        let (link_mss, timestamp) = (self.link_mss, self.clock.value(now));
        self.push_verbatim(segment, header, |syn| {
            segment::set_window(syn, window);
            segment::set_window_scale_option(syn, shift);
            segment::set_mss_option(syn, u16::try_from(link_mss).unwrap_or(u16::MAX));
            segment::set_timestamp_value(syn, timestamp);
        });
        if let Some(Control::Verbatim { header, len }) = self.control.back() {
            self.handshake.keep_syn(*header, *len);
        }
    }

    /// A connection's own RST ends it; it goes where the peer accepts it without a challenge (RFC 5961,
    /// section 3.2).
    fn accept_reset(&mut self, segment: &[u8], header: &Header) {
        if !self.established {
            self.handshake.give_up();
            self.push_verbatim(segment, header, |_| {});
            return;
        }
        self.aborted = true;
        self.control.clear();
        self.control.push_back(Control::Reset);
    }

    /// The user has ended the stream. The stack knows nothing of its data, and its FIN follows the SYN at once.
    fn accept_fin(&mut self) {
        let space = &mut self.space;
        match space.fin {
            None => {
                space.fin = Some(space.end);
                space.end += 1;
                self.more = false;
            }
            Some(_) if space.is_fin_acknowledged() => self.tell_stack_again(),
            // Repeating it is the layer's task.
            Some(_) => {}
        }
    }

    pub(super) fn push_control(&mut self, control: Control) {
        if self.control.len() >= MAX_QUEUED {
            self.control.pop_front();
        }
        self.control.push_back(control);
    }

    /// Queues the header of `segment` as `edit` leaves it.
    fn push_verbatim(&mut self, segment: &[u8], header: &Header, edit: impl FnOnce(&mut [u8])) {
        let mut copy = [0; MAX_HEADER_LEN];
        let len = header.len.min(MAX_HEADER_LEN).min(segment.len());
        copy[..len].copy_from_slice(&segment[..len]);
        segment::clear_checksum(&mut copy);
        edit(&mut copy[..len]);
        self.push_control(Control::Verbatim { header: copy, len });
    }
}
