//! The headers of a packet, as far as they tell one attempt's packets from others'.
use crate::net::{Protocol, ip_protocol};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Flags of a TCP header.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Length of an IPv6 header, in bytes.
const IPV6_HEADER: usize = 40;
/// Length of an ICMP error's header, in bytes.
const ICMP_HEADER: usize = 8;

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum PacketKind {
    Syn,
    SynAck,
    Reset,
    Fin,
    Ack,
    /// Of UDP.
    Datagram,
    Icmp {
        kind: u8,
        code: u8,
    },
    /// ARP or neighbour discovery: a question, or an answer.
    Neighbour {
        answer: bool,
    },
    Other,
}

/// A packet's part in an attempt to connect, or over UDP in a question with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// Our SYN, or our datagram.
    Syn,
    /// The answer to it.
    SynAck,
    /// An ICMP error that quotes it.
    Icmp,
    /// A reset that answers the SYN.
    Reset,
    /// A question for the next hop's link address.
    NeighbourQuestion,
    /// The answer to it.
    NeighbourAnswer,
}

impl Subject {
    /// Returns the packet's identifier in JSON.
    pub(crate) fn identifier(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Subject::Syn, Protocol::Tcp) => "syn",
            (Subject::Syn, Protocol::Udp) => "datagram",
            (Subject::SynAck, Protocol::Tcp) => "syn_ack",
            (Subject::SynAck, Protocol::Udp) => "answer",
            (Subject::Icmp, _) => "icmp_error",
            (Subject::Reset, _) => "reset",
            (Subject::NeighbourQuestion, _) => "neighbour_question",
            (Subject::NeighbourAnswer, _) => "neighbour_answer",
        }
    }

    /// Returns the packet as sentences name it.
    pub(crate) fn words(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Subject::Syn, Protocol::Tcp) => "our SYN",
            (Subject::Syn, Protocol::Udp) => "our datagram",
            (Subject::SynAck, Protocol::Tcp) => "the answer (SYN-ACK)",
            (Subject::SynAck, Protocol::Udp) => "the answer",
            (Subject::Icmp, _) => "the ICMP error",
            (Subject::Reset, _) => "the answer (RST)",
            (Subject::NeighbourQuestion, _) => "the question for the neighbour",
            (Subject::NeighbourAnswer, _) => "the neighbour's answer",
        }
    }

    /// Returns the noun of such packets, to count them.
    pub(crate) fn noun(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Subject::Syn, Protocol::Tcp) => "SYN",
            (Subject::Syn, Protocol::Udp) => "datagram",
            (Subject::SynAck, Protocol::Tcp) => "SYN-ACK",
            (Subject::SynAck, Protocol::Udp) => "answer",
            (Subject::Icmp, _) => "ICMP error",
            (Subject::Reset, _) => "reset",
            (Subject::NeighbourQuestion, _) => "neighbour question",
            (Subject::NeighbourAnswer, _) => "neighbour answer",
        }
    }
}

/// A packet as an ICMP error quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// The headers of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketHeader {
    /// Source address and port; port 0 for ICMP.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// The packet's part in the attempt.
    pub kind: PacketKind,
    /// TCP's sequence number.
    pub sequence: u32,
    /// TCP's acknowledgment number.
    pub acknowledgment: u32,
    /// The packet that an ICMP error quotes.
    pub quoted: Option<Quoted>,
}

impl PacketHeader {
    /// Reads a packet's beginning, from the network header. `None` for what is neither IPv4 nor IPv6, or is
    /// cut short.
    pub(crate) fn parse(bytes: &[u8]) -> Option<PacketHeader> {
        let (addresses, protocol, length) = network(bytes)?;
        transport(addresses, protocol, bytes.get(length..)?)
    }

    /// Reads network and transport header, which a trace reports apart.
    pub(crate) fn of_parts(network_header: &[u8], transport_header: &[u8]) -> Option<PacketHeader> {
        if let Some(arp) = arp(network_header) {
            return Some(arp);
        }
        let (addresses, protocol, _) = network(network_header)?;
        transport(addresses, protocol, transport_header)
    }
}

/// Returns source and destination address, transport protocol, and the network header's length in bytes.
fn network(bytes: &[u8]) -> Option<((IpAddr, IpAddr), u8, usize)> {
    let first = *bytes.first()?;
    match first >> 4 {
        4 => {
            let address = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|b| IpAddr::from(*b));
            Some(((address(12)?, address(16)?), *bytes.get(9)?, usize::from(first & 15) * 4))
        }
        6 => {
            let address = |at: usize| bytes.get(at..)?.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into());
            Some(((address(8)?, address(24)?), *bytes.get(6)?, IPV6_HEADER))
        }
        _ => None,
    }
}

fn transport((from, to): (IpAddr, IpAddr), protocol: u8, bytes: &[u8]) -> Option<PacketHeader> {
    let half = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b));
    let word = |at: usize| {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    };
    let mut header = PacketHeader {
        source: SocketAddr::new(from, 0),
        destination: SocketAddr::new(to, 0),
        kind: PacketKind::Other,
        sequence: 0,
        acknowledgment: 0,
        quoted: None,
    };
    match protocol {
        ip_protocol::TCP => {
            header.source.set_port(half(0)?);
            header.destination.set_port(half(2)?);
            (header.sequence, header.acknowledgment) = (word(4), word(8));
            header.kind = match *bytes.get(13)? {
                flags if flags & RST != 0 => PacketKind::Reset,
                flags if flags & (SYN | ACK) == SYN | ACK => PacketKind::SynAck,
                flags if flags & SYN != 0 => PacketKind::Syn,
                flags if flags & FIN != 0 => PacketKind::Fin,
                _ => PacketKind::Ack,
            };
        }
        ip_protocol::UDP => {
            header.source.set_port(half(0)?);
            header.destination.set_port(half(2)?);
            header.kind = PacketKind::Datagram;
        }
        ip_protocol::ICMP | ip_protocol::ICMPV6 => {
            let kind = *bytes.first()?;
            header.kind = match kind {
                // Neighbour solicitation and advertisement (RFC 4861, sections 4.3 and 4.4).
                135 | 136 if from.is_ipv6() => PacketKind::Neighbour { answer: kind == 136 },
                _ => PacketKind::Icmp { kind, code: *bytes.get(1)? },
            };
            header.quoted = bytes.get(ICMP_HEADER..).and_then(quoted);
        }
        _ => {}
    }
    Some(header)
}

/// Reads ARP for IPv4 over Ethernet (RFC 826): sender and target are its source and destination.
fn arp(bytes: &[u8]) -> Option<PacketHeader> {
    (bytes.get(..6)? == [0, 1, 8, 0, 6, 4]).then_some(())?;
    let address = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk::<4>()?;
        Some(SocketAddr::new(IpAddr::from(*bytes), 0))
    };
    Some(PacketHeader {
        source: address(14)?,
        destination: address(24)?,
        kind: PacketKind::Neighbour { answer: *bytes.get(7)? == 2 },
        sequence: 0,
        acknowledgment: 0,
        quoted: None,
    })
}

/// Reads a quoted packet of TCP or UDP.
fn quoted(bytes: &[u8]) -> Option<Quoted> {
    let ((from, to), protocol, length) = network(bytes)?;
    let half = |at: usize| bytes.get(length + at..)?.first_chunk().map(|b| u16::from_be_bytes(*b));
    let protocol = match protocol {
        ip_protocol::TCP => Protocol::Tcp,
        ip_protocol::UDP => Protocol::Udp,
        _ => return None,
    };
    let (source, destination) = (SocketAddr::new(from, half(0)?), SocketAddr::new(to, half(2)?));
    Some(Quoted { protocol, source, destination })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns an IPv4 header without options and a TCP header.
    pub(in crate::diagnose) fn tcp(
        source: &str,
        destination: &str,
        flags: u8,
        sequence: u32,
        acknowledgment: u32,
    ) -> (Vec<u8>, Vec<u8>) {
        let at = |text: &str| text.parse::<std::net::SocketAddrV4>().expect("an address");
        let (source, destination) = (at(source), at(destination));
        let mut network = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
        network.extend(source.ip().octets());
        network.extend(destination.ip().octets());
        let mut header = Vec::new();
        header.extend(source.port().to_be_bytes());
        header.extend(destination.port().to_be_bytes());
        header.extend(sequence.to_be_bytes());
        header.extend(acknowledgment.to_be_bytes());
        header.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        (network, header)
    }

    #[test]
    fn headers_are_read_whole_and_in_parts() {
        let (network, transport) = tcp("10.0.0.1:5000", "10.0.0.2:80", 0x12, 7, 8);
        let header = PacketHeader::of_parts(&network, &transport).expect("a packet");
        assert_eq!((header.kind, header.sequence, header.acknowledgment), (PacketKind::SynAck, 7, 8));
        assert_eq!(PacketHeader::parse(&[network, transport].concat()), Some(header));
    }

    #[test]
    fn an_icmp_error_quotes_a_packet() {
        let (network, transport) = tcp("10.0.0.1:5000", "10.0.0.2:80", 0x02, 7, 0);
        let (mut outer, _) = tcp("10.0.0.2:0", "10.0.0.1:0", 0, 0, 0);
        outer[9] = 1;
        outer.extend([3, 13, 0, 0, 0, 0, 0, 0]);
        outer.extend([network, transport].concat());
        let header = PacketHeader::parse(&outer).expect("a packet");
        assert_eq!(header.kind, PacketKind::Icmp { kind: 3, code: 13 });
        let quoted = header.quoted.expect("quoted");
        assert_eq!((quoted.source.port(), quoted.destination.port()), (5000, 80));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_packets_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
            let _ = PacketHeader::parse(&bytes);
            let _ = PacketHeader::of_parts(&bytes, &bytes);
        }
    }
}
