//! Decoded headers, one type per protocol, and their form in JSON.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use arrayvec::ArrayVec;
use serde::{Serialize, Serializer, ser::SerializeSeq};

use super::{problem::Problem, tunnel::Tunnel};
use crate::{link::VlanTag, net::MacAddr};

/// The decoded headers of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedFrame {
    /// The link header.
    pub link: LinkLayer,
    /// The network header and everything in it.
    pub network: Network,
    /// The packet that this one carries in a tunnel.
    pub inner: Option<Box<TunnelledPacket>>,
    /// Position of the innermost payload in the captured bytes, for
    /// [`CapturedFrame::bytes`](crate::sniffer::CapturedFrame::bytes).
    pub payload: Range<usize>,
    /// The first problem of the headers outside of a tunnel; the packet in the tunnel has its own.
    pub problem: Option<Problem>,
}

impl DecodedFrame {
    /// Returns a frame of which nothing has been read.
    pub(super) fn unread() -> DecodedFrame {
        DecodedFrame {
            link: LinkLayer::default(),
            network: Network::Malformed,
            inner: None,
            payload: 0..0,
            problem: None,
        }
    }
}

/// A packet in a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelledPacket {
    /// The tunnel's header.
    pub tunnel: Tunnel,
    /// The packet behind it.
    pub packet: DecodedFrame,
}

/// The fields of a link header that the frame has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkLayer {
    /// Source address.
    pub source: Option<MacAddr>,
    /// Destination address.
    pub destination: Option<MacAddr>,
    /// The innermost EtherType; values up to 1500 are an IEEE 802.3 length instead.
    pub ethertype: Option<u16>,
    /// VLAN tags, outermost first. A fifth tag counts as an unknown network protocol.
    pub vlan: ArrayVec<VlanTag, 4>,
    /// The protocol field of PPP (RFC 1661, section 2).
    pub ppp: Option<u16>,
}

/// The network layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// An ARP packet.
    Arp(Arp),
    /// An IPv4 or IPv6 packet.
    Ip(Ip),
    /// A protocol that the decoder does not know.
    Unknown,
    /// Nothing could be read; [`DecodedFrame::problem`] says why.
    Malformed,
}

/// An ARP packet (RFC 826) for IPv4 over Ethernet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arp {
    /// 1 request, 2 reply (RFC 826), others by IANA's "ARP Parameters".
    pub operation: u16,
    /// Sender's protocol address.
    pub sender: Ipv4Addr,
    /// Sender's hardware address.
    #[serde(serialize_with = "display")]
    pub sender_mac: MacAddr,
    /// Target's protocol address.
    pub target: Ipv4Addr,
    /// Target's hardware address.
    #[serde(serialize_with = "display")]
    pub target_mac: MacAddr,
    /// Types and lengths are those of IPv4 over Ethernet; otherwise the addresses mean nothing.
    pub valid: bool,
}

/// An IPv4 or IPv6 packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The transport protocol (IANA, "Assigned Internet Protocol Numbers"), after IPv6 extension
    /// headers.
    pub protocol: u8,
    /// Identification of IPv4 or of an IPv6 fragment header; 0 without one.
    pub id: u32,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Bytes after the IP header and the extension headers.
    pub length: usize,
    /// The packet's place in a fragmented datagram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment: Option<FragmentPosition>,
    /// Protocol numbers of the IPv6 extension headers, in their order; only the first eight are
    /// listed.
    #[serde(skip_serializing_if = "ArrayVec::is_empty")]
    pub extensions: ArrayVec<u8, 8>,
    /// The transport header.
    #[serde(skip)]
    pub transport: Transport,
}

impl Ip {
    /// Returns whether the packet is a fragment other than the first, which has no transport
    /// header.
    pub(super) fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }
}

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FragmentPosition {
    /// Offset in the datagram's payload, in bytes.
    pub offset: u32,
    /// More fragments follow.
    pub more: bool,
}

/// The transport layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp(Udp),
    /// An ICMP or ICMPv6 message.
    Icmp(Icmp),
    /// A later fragment, which has no transport header.
    Fragment,
    /// A protocol that the decoder does not know.
    Unknown,
    /// The header could not be read; [`DecodedFrame::problem`] says why.
    Malformed {
        /// Source and destination port if they could still be read.
        ports: Option<(u16, u16)>,
    },
}

/// A TCP header (RFC 9293, section 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgement: u32,
    /// FIN is bit 0, then SYN, RST, PSH, ACK, URG, ECE, CWR (RFC 3168), AE (RFC 9768).
    #[serde(serialize_with = "flag_names")]
    pub flags: u16,
    /// Window as in the header: not scaled.
    pub window: u16,
    /// Checksum as in the header.
    pub checksum: u16,
    /// The options.
    pub options: TcpOptions,
    /// Payload bytes by the IP header's length.
    pub length: usize,
}

impl Tcp {
    /// The SYN bit of [`Tcp::flags`].
    pub(crate) const SYN: u16 = 0x02;
    /// The ECE bit.
    pub(crate) const ECE: u16 = 0x40;
    /// The CWR bit.
    pub(crate) const CWR: u16 = 0x80;
    /// The AE bit.
    pub(crate) const AE: u16 = 0x100;
}

/// The options of a TCP header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TcpOptions {
    /// Maximum segment size in bytes (RFC 9293).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mss: Option<u16>,
    /// Window scale's shift count as sent (RFC 7323).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_scale: Option<u8>,
    /// Timestamp value and echo reply (RFC 7323).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<(u32, u32)>,
    /// The SACK-permitted option (RFC 2018).
    pub sack_permitted: bool,
    /// SACK blocks: the first sequence number and the one after the last (RFC 2018).
    #[serde(skip_serializing_if = "ArrayVec::is_empty")]
    pub sack: ArrayVec<(u32, u32), 4>,
    /// The kinds of all other options.
    #[serde(skip_serializing_if = "ArrayVec::is_empty")]
    pub others: ArrayVec<u8, 20>,
}

/// A UDP header (RFC 768).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Checksum as in the header.
    pub checksum: u16,
    /// Payload bytes.
    pub length: usize,
}

/// An ICMP (RFC 792) or ICMPv6 (RFC 4443, RFC 4861) message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Icmp {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum as in the header.
    pub checksum: u16,
    /// The target of neighbour solicitation, advertisement and redirect (RFC 4861).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Ipv6Addr>,
    /// The next hop's MTU of "fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443), in
    /// bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The packet that an error message quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quoted: Option<QuotedPacket>,
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotedPacket {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The transport protocol.
    pub protocol: u8,
    /// Source and destination port of TCP and UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
}

/// Serialises a MAC address as text.
fn display<S: Serializer>(mac: &MacAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(mac)
}

/// Serialises TCP flags as a list of their names (RFC 9293, section 3.1).
fn flag_names<S: Serializer>(flags: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for (bit, name) in ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ae"].iter().enumerate() {
        if flags >> bit & 1 == 1 {
            list.serialize_element(name)?;
        }
    }
    list.end()
}
