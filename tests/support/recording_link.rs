//! A link that records the TCP segments that a stack sends, for tests that are the stack's only peer.
#![allow(dead_code, reason = "no test uses all of it")]

use netkat::{
    link::{
        ChecksumState, ETHERTYPE_IPV4, Link, LinkError, LinkHeader, NextHop, Offloads, Outgoing, Received,
    },
    net::MacAddr,
    stack::Path,
};

pub const PATH: Path = Path { mtu: 1500, max_frame: 65_000, max_segments: 64, ipv6_hop_limit: 64 };

/// A TCP segment that the stack sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub next_hop: NextHop,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
    /// Length of the payload, in bytes.
    pub payload: usize,
}

/// A link without offloads that receives nothing and keeps each segment's header.
#[derive(Default)]
pub struct RecordingLink(pub Vec<Sent>);

impl Link for RecordingLink {
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError> {
        Ok(None)
    }

    fn transmit(&mut self, next_hop: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError> {
        let bytes = [packet.headers, packet.payload[0], packet.payload[1]].concat();
        let tcp = &bytes[if packet.ethertype == ETHERTYPE_IPV4 { 20 } else { 40 }..];
        let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        self.0.push(Sent {
            next_hop: *next_hop,
            flags: tcp[13],
            sequence: word(4),
            acknowledgment: word(8),
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            payload: tcp.len() - usize::from(tcp[12] >> 4) * 4,
        });
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        Offloads { checksum: false, segmentation: false }
    }
}

/// Returns the next hop to the neighbour with this number.
pub fn next_hop(interface: u32, neighbour: u8) -> NextHop {
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    NextHop { interface, header: LinkHeader::Ethernet { destination: mac(neighbour), source: mac(1) } }
}

/// Returns a received frame whose packet begins at `network` and whose checksum the kernel has verified.
pub fn received(reply: NextHop, frame: &mut [u8], network: usize, ethertype: u16) -> Received<'_> {
    let wire_len = frame.len();
    Received {
        reply,
        frame,
        network,
        ethertype,
        checksum: ChecksumState::Verified,
        segment_size: 0,
        hardware_type: 1,
        vlan: None,
        outgoing: false,
        wire_len,
        time: None,
    }
}

/// Returns a source of seeds that repeats from run to run.
pub fn seeds() -> impl FnMut() -> u64 {
    let mut seed = 7u64;
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed
    }
}
