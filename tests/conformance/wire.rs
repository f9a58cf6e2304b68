//! The whole stack over the in-memory link, with the test as the peer that writes and reads segments by hand.
//!
//! Sequence numbers are the real ones; [`Wire::ours`] and [`Wire::theirs`] are the two initial ones, so that the
//! first byte of a stream lies one above.
use super::common::script::{ACK, SYN, segment};
use netkat::{
    host::metrics::Metrics,
    link::{
        ETHERTYPE_IPV4, Link, LinkHeader, NextHop, Outgoing,
        memory::{Impairment, Medium, MemoryLink},
    },
    neighbour::Neighbour,
    net::{FiveTuple, MacAddr, Protocol},
    stack::{Admission, Flow, FlowRoute, FrameResult, Listener, Path, Phase, Settings, Stack, ip},
};
use std::{collections::HashMap, net::SocketAddr, time::Duration};

const PORTS: (u16, u16) = (40_000, 80);
const HOST: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
const IP_HEADER: usize = 20;
/// Protocol number of TCP.
const TCP: u8 = 6;

/// A SYN's options: MSS 1460, SACK permitted, window scale 7. No timestamps: their clock is the machine's.
pub const OPTIONS: [u8; 12] = [2, 4, 0x05, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];

/// A segment that the stack sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: Duration,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Sent {
    /// Returns the data of the option of this kind.
    pub fn option(&self, kind: u8) -> Option<&[u8]> {
        let mut options = self.options.as_slice();
        loop {
            match *options {
                [] | [0, ..] => return None,
                [1, ref rest @ ..] => options = rest,
                [found, len, ..] if found == kind => return options.get(2..usize::from(len)),
                [_, len, ..] => options = options.get(usize::from(len)..)?,
                _ => return None,
            }
        }
    }

    /// Returns the SACK blocks.
    pub fn sack(&self) -> Vec<(u32, u32)> {
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        let blocks = self.option(5).unwrap_or_default().chunks(8);
        blocks.map(|block| (word(&block[..4]), word(&block[4..]))).collect()
    }
}

pub struct Wire {
    pub medium: Medium,
    stack: Stack,
    link: MemoryLink,
    peer: MemoryLink,
    tuple: FiveTuple,
    /// Initial sequence numbers.
    pub ours: u32,
    pub theirs: u32,
    /// The window that the peer announces, in bytes.
    pub window: u16,
}

pub fn settings() -> Settings {
    super::settings::settings(1 << 16, 1 << 16)
}

impl Wire {
    /// Returns a stack that has begun to connect; its SYN is under way.
    pub fn dialling(settings: Settings, mtu: usize) -> Wire {
        let (medium, link, peer) = Medium::new(Impairment::default(), 1);
        let (local, remote) = (SocketAddr::from((HOST, PORTS.0)), SocketAddr::from((PEER, PORTS.1)));
        let tuple = FiveTuple { protocol: Protocol::Tcp, local, remote };
        let mut stack = Stack::new(settings, || 0x5eed);
        let path = Path { mtu, max_frame: mtu, max_segments: 1, ipv6_hop_limit: 64 };
        let next_hop = NextHop { interface: 1, header: header(2, 1) };
        stack.dial(
            medium.now(),
            tuple,
            FlowRoute { next_hop, neighbour: Neighbour::Fixed, path, metrics: Metrics::default() },
        );
        Wire { medium, stack, link, peer, tuple, ours: 0, theirs: 7_000_000, window: 10_000 }
    }

    /// Returns a stack that listens.
    pub fn listening(settings: Settings) -> Wire {
        let (medium, link, peer) = Medium::new(Impairment::default(), 1);
        let (local, remote) = (SocketAddr::from((HOST, PORTS.0)), SocketAddr::from((PEER, PORTS.1)));
        let tuple = FiveTuple { protocol: Protocol::Tcp, local, remote };
        let mut stack = Stack::new(settings, || 0x5eed);
        let paths =
            HashMap::from([(1, Path { mtu: 1500, max_frame: 1500, max_segments: 1, ipv6_hop_limit: 64 })]);
        let gate = Box::new(|_| Admission::Accept);
        stack.listen(Listener { backlog: 4, half_open: 4, gate, paths });
        Wire { medium, stack, link, peer, tuple, ours: 0, theirs: 7_000_000, window: 10_000 }
    }

    /// Returns an established connection whose peer sent [`OPTIONS`].
    pub fn connected(settings: Settings) -> Wire {
        let mut wire = Wire::dialling(settings, 1500);
        wire.answer(&OPTIONS);
        wire
    }

    /// Answers the SYN as the peer, and takes the stack's ACK.
    pub fn answer(&mut self, options: &[u8]) {
        let syn = self.sent();
        assert_eq!(syn.iter().map(|s| s.flags).collect::<Vec<_>>(), [SYN]);
        self.ours = syn[0].seq;
        self.peer_sends(self.theirs, self.ours.wrapping_add(1), SYN | ACK, options, &[]);
        assert_eq!(self.sent().iter().map(|s| s.flags).collect::<Vec<_>>(), [ACK]);
        assert_eq!(self.flow().phase(), Phase::Open);
    }

    pub fn flow(&mut self) -> &mut Flow {
        self.stack.flow(&self.tuple).expect("nothing removes it")
    }

    /// Sends a segment as the peer.
    pub fn peer_sends(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], payload: &[u8]) {
        let tcp = segment(seq, ack, flags, self.window, options, payload, (PORTS.1, PORTS.0));
        self.peer_sends_raw(tcp);
    }

    /// Completes the checksum of a segment, and sends the segment as the peer.
    pub fn peer_sends_raw(&mut self, tcp: Vec<u8>) {
        self.queue(tcp);
        self.turn();
    }

    /// Queues a segment at the link. The stack does not receive yet.
    fn queue(&mut self, mut tcp: Vec<u8>) {
        tcp[16..18].fill(0);
        let sum = ip::pseudo_header(PEER.into(), HOST.into(), TCP, tcp.len()).add(&tcp).checksum();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut headers = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0];
        headers[2..4].copy_from_slice(&((IP_HEADER + tcp.len()) as u16).to_be_bytes());
        headers.extend(PEER);
        headers.extend(HOST);
        let sum: u32 = headers.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        headers[10..12].copy_from_slice(&(!((sum >> 16) as u16 + sum as u16)).to_be_bytes());
        let next_hop = NextHop { interface: 1, header: header(1, 2) };
        let payload = [tcp.as_slice(), &[]];
        let packet = Outgoing {
            ethertype: ETHERTYPE_IPV4,
            headers: &headers,
            payload,
            checksum: None,
            segmentation: None,
        };
        self.peer.transmit(&next_hop, &packet).expect("a memory link does not fail");
    }

    /// Sends data as the peer, `offset` bytes after its first, and acknowledges our bytes up to
    /// `acked`.
    pub fn peer_data(&mut self, offset: u32, acked: u32, payload: &[u8]) {
        let (seq, ack) = (self.their_seq(offset), self.our_seq(acked));
        self.peer_sends(seq, ack, ACK, &[], payload);
    }

    /// Sends `len` zeros from each of these offsets as the peer; all have arrived when the stack
    /// looks.
    pub fn peer_burst(&mut self, offsets: &[u32], len: usize) {
        for offset in offsets {
            let (seq, ack) = (self.their_seq(*offset), self.our_seq(0));
            self.queue(segment(seq, ack, ACK, self.window, &[], &vec![0; len], (PORTS.1, PORTS.0)));
        }
        self.turn();
    }

    /// Returns the sequence number of a byte of our stream, and of the peer's.
    pub fn our_seq(&self, offset: u32) -> u32 {
        self.ours.wrapping_add(1).wrapping_add(offset)
    }

    pub fn their_seq(&self, offset: u32) -> u32 {
        self.theirs.wrapping_add(1).wrapping_add(offset)
    }

    fn turn(&mut self) {
        let now = self.medium.now();
        while let Ok(Some(received)) = self.link.receive() {
            assert_eq!(self.stack.ingress(now, received), FrameResult::Done);
        }
        while self.stack.egress(now, &mut self.link).expect("a memory link does not fail") {}
    }

    /// Returns the segments that the stack sends now.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.turn();
        let at = self.medium.now();
        let mut all = Vec::new();
        while let Ok(Some(received)) = self.peer.receive() {
            let tcp = &received.frame[received.network + IP_HEADER..];
            let field = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four bytes"));
            let len = usize::from(tcp[12] >> 4) * 4;
            all.push(Sent {
                at,
                seq: field(4),
                ack: field(8),
                flags: tcp[13],
                window: u16::from_be_bytes([tcp[14], tcp[15]]),
                options: tcp[20..len].to_vec(),
                payload: tcp[len..].to_vec(),
            });
        }
        all
    }

    /// Runs the stack by its own timers for `time`. Returns the segments sent.
    pub fn run(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.medium.now() + time;
        let mut all = self.sent();
        while let Some(at) = self.stack.poll_at().filter(|at| *at <= end) {
            // smoltcp counts microseconds.
            self.medium.advance(at.max(self.medium.now() + Duration::from_micros(1)));
            all.extend(self.sent());
        }
        self.medium.advance(end);
        all
    }

    /// Reads all received data.
    pub fn read(&mut self) -> Vec<u8> {
        self.read_up_to(usize::MAX)
    }

    /// Reads at most `limit` bytes.
    pub fn read_up_to(&mut self, limit: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < limit && self.flow().received() > 0 {
            let left = limit - all.len();
            let read = self.flow().receive(left, |bytes| {
                all.extend_from_slice(bytes);
                Ok(bytes.len())
            });
            assert!(read.is_ok());
        }
        all
    }

    /// Writes all of `bytes` to the send buffer.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // One byte less than there is room: the frame waits for no more.
            let written = self.flow().send(rest.len() + 1, |room| {
                let len = rest.len().min(room.len());
                room[..len].copy_from_slice(&rest[..len]);
                Ok(len)
            });
            let written = written.expect("it is connected");
            assert!(written > 0, "there is room for what the script writes");
            rest = &rest[written..];
        }
    }
}

fn header(destination: u8, source: u8) -> LinkHeader {
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    LinkHeader::Ethernet { destination: mac(destination), source: mac(source) }
}
