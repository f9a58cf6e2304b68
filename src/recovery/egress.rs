//! From the stack: one packet at a time, into the ring or the queue of bare segments.
use super::{
    Instant, RING_SLACK, Recovery, STACK_HEADER_LEN,
    scoreboard::Scoreboard,
    segment::{self, Header, MAX_HEADER_LEN, SackBlocks, TIMESTAMPS_LEN, flags},
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
    Reset {
        ack: u32,
    },
}

impl Recovery {
    /// Lets the stack write one packet of `len` bytes: [`STACK_HEADER_LEN`] bytes of IPv4 header without options,
    /// which are ignored, a TCP header, and the payload.
    ///
    /// Returns what `write` returns. Data of the connection is copied nowhere else; it must fit, which it does as
    /// long as the stack holds no more than [`super::Config::send_buffer`] unacknowledged bytes.
    pub fn from_stack<R>(&mut self, now: Instant, len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let options = if self.use_timestamps { TIMESTAMPS_LEN } else { 0 };
        let headers = STACK_HEADER_LEN + segment::HEADER_LEN + options;
        let payload = len.saturating_sub(headers) as u64;
        let free = self.ring.capacity().saturating_sub(self.space.outstanding());
        if self.established && payload > 0 && payload <= free.min(RING_SLACK as u64) {
            let (result, written) = self.ring.write(self.space.end, headers, len, write);
            self.accept(now, written.headers(), Payload::InRing { headers, len });
            return result;
        }
        let mut packet = std::mem::take(&mut self.scratch);
        packet.resize(len, 0);
        let result = write(&mut packet);
        self.accept(now, &packet, Payload::Behind);
        self.scratch = packet;
        result
    }

    fn accept(&mut self, now: Instant, packet: &[u8], payload: Payload) {
        let segment = packet.get(STACK_HEADER_LEN..).unwrap_or_default();
        let Some(header) = Header::parse(segment) else { return };
        self.ports = (header.source, header.destination);
        if header.has(flags::SYN) {
            self.accept_syn(now, segment, &header);
        } else if header.has(flags::RST) {
            self.accept_reset(segment, &header);
        } else if !self.established {
            self.accept_ack(&header);
        } else {
            let start = STACK_HEADER_LEN + header.len;
            match payload {
                Payload::InRing { headers, len } => {
                    // The stack's headers may be longer than expected, then without payload; never shorter.
                    let Some(skip) = start.checked_sub(headers) else { return };
                    self.accept_data(now, &header, len.saturating_sub(start), Some(skip));
                }
                Payload::Behind => self.accept_data(now, &header, packet.len().saturating_sub(start), None),
            }
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
        self.handshake.ours = Some(header.options);
        self.handshake.on_syn_sent(now);
        if header.has(flags::ACK) {
            self.note_ack(header, 0);
        }
        let (link_mss, timestamp) = (self.link_mss, self.clock.value(now));
        self.push_verbatim(segment, header, |syn| {
            segment::set_mss_option(syn, u16::try_from(link_mss).unwrap_or(u16::MAX));
            segment::set_timestamp_value(syn, timestamp);
        });
    }

    /// A connection's own RST ends it; it goes where the peer accepts it without a challenge (RFC 5961,
    /// section 3.2).
    fn accept_reset(&mut self, segment: &[u8], header: &Header) {
        if !self.established {
            self.push_verbatim(segment, header, |_| {});
            return;
        }
        self.aborted = true;
        self.control.clear();
        self.control.push_back(Control::Reset { ack: header.ack });
    }

    /// `skip` bytes lie between SND.NXT's place in the ring and the `len` bytes of payload, if it is there.
    fn accept_data(&mut self, now: Instant, header: &Header, len: usize, skip: Option<usize>) {
        let fin = header.has(flags::FIN);
        if len == 0 && !fin {
            return self.accept_ack(header);
        }
        self.note_ack(header, self.our_shift);
        let space = &mut self.space;
        let start = space.offset(header.seq);
        let end = start + len as u64;
        if end + u64::from(fin) <= space.end || start > space.end || space.fin.is_some() {
            // The stack's own retransmission, window probe or keep-alive: the layer has all of it.
            let keep_alive = len == 1 && start + 1 == space.una && space.end == space.una;
            if keep_alive {
                self.user_timeout.on_keep_alive_sent(now);
                self.push_control(Control::Probe);
            } else if start < space.una {
                self.stack.on_behind();
            }
            return;
        }
        let known = space.end - start;
        let new = (len as u64).saturating_sub(known);
        if new > 0 {
            // Without room in the ring the stack must send it again.
            let Some(skip) = skip else { return };
            self.ring.commit(space.end, skip + known as usize, new as usize);
            space.end += new;
        }
        if fin {
            space.fin = Some(space.end);
            space.end += 1;
        }
    }

    fn accept_ack(&mut self, header: &Header) {
        self.note_ack(header, self.our_shift);
        let sack = match self.sack {
            true => self.sack_report.on_ack(header.ack, &header.options.sack),
            false => SackBlocks::default(),
        };
        self.push_control(Control::Ack { ack: header.ack, window: header.window, sack });
    }

    fn note_ack(&mut self, header: &Header, shift: u8) {
        self.ack = header.ack;
        self.window = header.window;
        self.stack.on_sent(header.ack, u32::from(header.window) << shift);
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

/// Where the payload of the stack's packet is.
enum Payload {
    /// In the ring, after as many bytes as were expected to be headers, of a packet of this length.
    InRing { headers: usize, len: usize },
    /// Behind the headers, and not wanted: it is no data, or the ring has it, or has no room.
    Behind,
}
