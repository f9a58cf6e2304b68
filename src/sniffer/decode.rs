//! From a frame to what its headers say.
//!
//! Theory of operation: a cursor walks the headers from the outside in; each step asks it for the bytes of
//! the next header, which fails as a [`Problem`] when the frame, the capture or an enclosing length field ends
//! before, so pnet_packet's getters (fixed offsets, no checks of their own beyond the minimum size) only ever see
//! whole headers. What was understood up to a problem is kept and shown with it.
//! Everything is owned and of fixed size: decoding allocates nothing.
mod cursor;
mod link;
mod network;
mod problem;
mod transport;

/// The protocols that are decoded (IANA, "Assigned Internet Protocol Numbers").
pub mod protocol {
    use pnet_packet::ip::IpNextHeaderProtocols;

    pub const TCP: u8 = IpNextHeaderProtocols::Tcp.0;
    pub const UDP: u8 = IpNextHeaderProtocols::Udp.0;
    pub const ICMP: u8 = IpNextHeaderProtocols::Icmp.0;
    pub const ICMPV6: u8 = IpNextHeaderProtocols::Icmpv6.0;
}

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use arrayvec::ArrayVec;
use serde::Serialize;

use self::cursor::Cursor;
pub use self::problem::Problem;
use super::{Observed, VlanTag, json};
use crate::net::MacAddr;

/// Enough for every header chain seen in practice: link header, tags, IPv6 extension headers, TCP with options.
/// Only frames in several pieces are subject to it: the pieces' first bytes are joined here.
const JOINED: usize = 1024;

/// What a frame's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub link: Link,
    pub network: Network,
    /// Where the innermost payload lies in the frame, as far as it was captured: byte positions that
    /// [`Observed::data`]'s pieces, one after the other, are counted by.
    pub payload: Range<usize>,
    /// The first thing that is wrong with the frame.
    pub problem: Option<Problem>,
}

/// The link header, as far as there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub source: Option<MacAddr>,
    pub destination: Option<MacAddr>,
    /// The innermost EtherType; values up to 1500 are an IEEE 802.3 length instead.
    pub ethertype: Option<u16>,
    /// Outermost first. Tags beyond the fourth are left to the unknown protocols.
    pub vlan: ArrayVec<VlanTag, 4>,
}

/// The network layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    Arp(Arp),
    Ip(Ip),
    /// An EtherType that is not decoded.
    Unknown,
    /// [`Decoded::problem`] says why nothing could be read.
    Malformed,
}

/// An ARP packet (RFC 826) for IPv4 over Ethernet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arp {
    /// 1 request, 2 reply (RFC 826), others by IANA's "ARP Parameters".
    pub operation: u16,
    pub sender: Ipv4Addr,
    #[serde(serialize_with = "json::text")]
    pub sender_mac: MacAddr,
    pub target: Ipv4Addr,
    #[serde(serialize_with = "json::text")]
    pub target_mac: MacAddr,
    /// Whether types and lengths are those of IPv4 over Ethernet; if not, the addresses mean nothing.
    pub valid: bool,
}

/// An IPv4 or IPv6 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The transport protocol (IANA "Assigned Internet Protocol Numbers"), after IPv6 extension headers.
    pub protocol: u8,
    /// Identification of IPv4, or of an IPv6 fragment header; 0 without one.
    pub id: u32,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Bytes after the IP header and the extension headers.
    pub length: usize,
    pub fragment: Option<Fragment>,
    /// Protocol numbers of the IPv6 extension headers, in their order; those beyond the eighth are skipped.
    pub extensions: ArrayVec<u8, 8>,
    pub transport: Transport,
}

/// A piece of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fragment {
    /// Where in the datagram's payload this piece starts, in bytes.
    pub offset: u32,
    /// Whether more follow.
    pub more: bool,
}

/// The transport layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp(Tcp),
    Udp(Udp),
    Icmp(Icmp),
    /// A later fragment, which has no transport header.
    Fragment,
    /// A protocol number that is not decoded.
    Unknown,
    /// [`Decoded::problem`] says why; the ports where they could still be read.
    Malformed {
        ports: Option<(u16, u16)>,
    },
}

/// A TCP header (RFC 9293, section 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// FIN is bit 0, then SYN, RST, PSH, ACK, URG, ECE, CWR.
    #[serde(serialize_with = "json::flags")]
    pub flags: u8,
    /// As in the header: not scaled.
    pub window: u16,
    pub checksum: u16,
    pub options: TcpOptions,
    /// Payload bytes by the IP header's length.
    pub length: usize,
}

impl Tcp {
    pub const SYN: u8 = 0x02;
}

/// The options of a TCP header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TcpOptions {
    /// Maximum segment size in bytes (RFC 9293).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mss: Option<u16>,
    /// Window scale's shift count (RFC 7323), as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_scale: Option<u8>,
    /// Timestamp value and echo reply (RFC 7323).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<(u32, u32)>,
    pub sack_permitted: bool,
    /// First sequence number and the one after the last (RFC 2018).
    #[serde(skip_serializing_if = "ArrayVec::is_empty")]
    pub sack: ArrayVec<(u32, u32), 4>,
    /// The kinds of all other options.
    #[serde(skip_serializing_if = "ArrayVec::is_empty")]
    pub others: ArrayVec<u8, 20>,
}

/// A UDP header (RFC 768).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Udp {
    pub source: u16,
    pub destination: u16,
    pub checksum: u16,
    /// Payload bytes.
    pub length: usize,
}

/// An ICMP (RFC 792) or ICMPv6 (RFC 4443, RFC 4861) message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Icmp {
    #[serde(rename = "type")]
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    /// The target of neighbour solicitation, advertisement and redirect (RFC 4861).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Ipv6Addr>,
    /// The next hop's MTU of "fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The packet that an error message is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quoted: Option<Quoted>,
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quoted {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Source and destination port, of TCP and UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
}

/// Reads the headers of a frame.
pub fn decode(frame: &Observed<'_>) -> Decoded {
    let [first, rest @ ..] = frame.data;
    let mut joined = ArrayVec::<u8, JOINED>::new();
    let bytes = if rest.iter().all(|piece| piece.is_empty()) {
        first
    } else {
        for piece in frame.data {
            joined.extend(piece.iter().copied().take(joined.remaining_capacity()));
        }
        &joined
    };
    let captured = frame.captured();
    let mut decoder = Decoder {
        cursor: Cursor::new(bytes, captured, frame.length.max(captured)),
        decoded: Decoded {
            link: Link::default(),
            network: Network::Malformed,
            payload: captured..captured,
            problem: None,
        },
    };
    if let Err(problem) = decoder.frame(frame) {
        decoder.decoded.problem.get_or_insert(problem);
    }
    let payload = decoder.cursor.rest();
    Decoded { payload, ..decoder.decoded }
}

/// A frame on its way through the layers: what is left to read and what was understood.
struct Decoder<'a> {
    cursor: Cursor<'a>,
    decoded: Decoded,
}
