//! A packet of the command's or for it, as far as the gateway has to know it.
use crate::{
    kernel::FlowKey,
    link::{ChecksumOffload, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Outgoing, Received, Segmentation},
    net::ip_protocol::{ICMP, ICMPV6, TCP, UDP},
    segment,
    stack::ip::{self, Header, Malformed},
};
use std::net::SocketAddr;

/// Types of echo requests and replies (RFC 792, RFC 4443).
const ECHO_REPLY: u8 = 0;
const ECHO: u8 = 8;
const ECHO6: u8 = 128;
const ECHO6_REPLY: u8 = 129;
/// Length of an ICMP error's header, before the packet that it quotes.
const ICMP_HEADER: usize = 8;
/// Offset of the flags in a TCP header, and the flags that distinguish an opening SYN (RFC 9293, section 3.1).
const TCP_FLAGS: usize = 13;
const OPENING_MASK: u8 = 0x17;
const SYN: u8 = 0x02;

/// The side of a packet's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Command,
    Peer,
}

/// The part of a flow that a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A segment, a datagram or an echo, with all ports; `opening` marks a SYN that opens a connection.
    Flow { key: FlowKey, remote: SocketAddr, opening: bool },
    /// A later fragment, without ports.
    Fragment,
    /// An ICMP error about a packet of this flow.
    Error { about: FlowKey },
}

/// A packet with a flow of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub header: Header,
    pub content: Content,
    /// The TOS or traffic class, which routing rules look at.
    pub traffic_class: u8,
}

impl Packet {
    /// Parses a packet; `None` for protocols and messages that the gateway does not carry.
    ///
    /// # Errors
    /// The reason why the bytes are no IP packet.
    pub(crate) fn parse(bytes: &[u8], from: From) -> Result<Option<Packet>, Malformed> {
        let header = ip::parse(bytes, false)?;
        let whole = bytes.get(..header.end).unwrap_or_default();
        let traffic_class = traffic_class(whole);
        Ok(content(whole, &header, from).map(|content| Packet { header, content, traffic_class }))
    }

    /// Returns the identification that fragments of one datagram share.
    pub(crate) fn fragment_id(&self) -> Option<u32> {
        self.header.fragment.map(|fragment| fragment.id)
    }
}

fn traffic_class(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [_, tos, ..] => *tos,
        _ => 0,
    }
}

fn content(packet: &[u8], header: &Header, from: From) -> Option<Content> {
    if header.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return matches!(header.protocol, TCP | UDP | ICMP | ICMPV6).then_some(Content::Fragment);
    }
    let transport = packet.get(header.transport..)?;
    match header.protocol {
        TCP | UDP => {
            let (key, remote) = ported(header, transport, from)?;
            let opening = header.protocol == TCP
                && transport.get(TCP_FLAGS).is_some_and(|flags| flags & OPENING_MASK == SYN);
            Some(Content::Flow { key, remote, opening })
        }
        ICMP if header.source.is_ipv4() => icmp(header, transport, from),
        ICMPV6 if header.source.is_ipv6() => icmp(header, transport, from),
        _ => None,
    }
}

fn icmp(header: &Header, message: &[u8], from: From) -> Option<Content> {
    let v4 = header.source.is_ipv4();
    let kind = *message.first()?;
    let echo = match (from, v4) {
        (From::Command, true) => kind == ECHO,
        (From::Command, false) => kind == ECHO6,
        (From::Peer, true) => kind == ECHO_REPLY,
        (From::Peer, false) => kind == ECHO6_REPLY,
    };
    if echo {
        let id: &[u8; 2] = message.get(4..)?.first_chunk()?;
        let (local, remote) = ends(header, from, u16::from_be_bytes(*id), 0);
        let key = FlowKey { protocol: header.protocol, local, remote };
        return Some(Content::Flow { key, remote, opening: true });
    }
    let is_error = if v4 { matches!(kind, 3 | 11 | 12) } else { (1..=4).contains(&kind) };
    if !is_error {
        return None;
    }
    // The quoted packet went the other way.
    let sender = if from == From::Peer { From::Command } else { From::Peer };
    quoted_flow(message.get(ICMP_HEADER..)?, sender).map(|about| Content::Error { about })
}

/// Returns the flow of a packet that an ICMP error quotes.
fn quoted_flow(quote: &[u8], from: From) -> Option<FlowKey> {
    let header = ip::parse(quote, true).ok()?;
    let transport = quote.get(header.transport..)?;
    match header.protocol {
        TCP | UDP => ported(&header, transport, from).map(|(key, _)| key),
        // No error quotes another one (RFC 1122, section 3.2.2).
        ICMP | ICMPV6 if matches!(transport.first(), Some(&(ECHO | ECHO6))) => {
            let id: &[u8; 2] = transport.get(4..)?.first_chunk()?;
            let (local, remote) = ends(&header, from, u16::from_be_bytes(*id), 0);
            Some(FlowKey { protocol: header.protocol, local, remote })
        }
        _ => None,
    }
}

/// Returns a segment's or datagram's flow, and its remote end.
fn ported(header: &Header, transport: &[u8], from: From) -> Option<(FlowKey, SocketAddr)> {
    let (source, destination) = segment::ports(transport)?;
    let (local, remote) = match from {
        From::Command => ends(header, from, source, destination),
        From::Peer => ends(header, from, destination, source),
    };
    // A server may answer a datagram from another port: see bpf/command.h.
    let key_port = if header.protocol == TCP { remote.port() } else { 0 };
    let key = FlowKey { protocol: header.protocol, local, remote: SocketAddr::new(remote.ip(), key_port) };
    Some((key, remote))
}

fn ends(header: &Header, from: From, local: u16, remote: u16) -> (SocketAddr, SocketAddr) {
    let (own, peer) = match from {
        From::Command => (header.source, header.destination),
        From::Peer => (header.destination, header.source),
    };
    (SocketAddr::new(own, local), SocketAddr::new(peer, remote))
}

/// Returns the received packet as one to send: whole, with its offloads, without link header and padding.
pub(super) fn forwarded<'a>(received: &Received<'_>, packet: &'a [u8], header: &Header) -> Outgoing<'a> {
    let v4 = header.source.is_ipv4();
    let offset = if header.protocol == TCP { 16 } else { 6 };
    let segmentation = match (received.segment_size, header.protocol) {
        (0, _) => None,
        (size, TCP) => Some((if v4 { Segmentation::Tcp4 } else { Segmentation::Tcp6 }, size)),
        (size, _) => Some((Segmentation::Udp, size)),
    };
    // The kernel keeps the headers linear, and the rest in pages.
    let (headers, payload) = packet.split_at(headers_end(packet, header).min(packet.len()));
    let partial = segmentation.is_some() || received.checksum == crate::link::ChecksumState::Partial;
    Outgoing {
        ethertype: if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 },
        headers,
        payload: [payload, &[]],
        checksum: partial.then_some(ChecksumOffload { start: header.transport, offset }),
        segmentation,
    }
}

/// Returns the end of a packet's headers, that of TCP or UDP included, in bytes from its start.
fn headers_end(packet: &[u8], header: &Header) -> usize {
    let transport = match header.protocol {
        _ if header.fragment.is_some() => 0,
        TCP => packet.get(header.transport + 12).map_or(0, |offset| usize::from(offset >> 4) * 4),
        _ => 8,
    };
    header.transport + transport
}

/// Returns the length of the largest packet that the device cuts a frame into, in bytes.
pub(super) fn wire_length(packet: &Outgoing<'_>) -> usize {
    match packet.segmentation {
        Some((_, size)) => packet.headers.len() + usize::from(size),
        None => packet.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::checksum::Sum,
        stack::ip::{Fragmentation, Template},
    };
    use proptest::prelude::*;
    use std::net::IpAddr;

    const SYN_TO_80: [u8; 20] = [0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0];

    fn packet(v6: bool, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let (source, destination): (IpAddr, IpAddr) = match v6 {
            false => ([192, 0, 2, 1].into(), [198, 51, 100, 2].into()),
            true => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into()),
        };
        let template =
            Template { source, destination, protocol, hop_limit: 64, traffic_class: 0, flow_label: 0 };
        let mut bytes = vec![0; template.header_len()];
        template.write(transport.len(), 0, Fragmentation::Forbidden, &mut bytes);
        bytes.extend(transport);
        bytes
    }

    fn sent(bytes: &[u8]) -> Option<Content> {
        Packet::parse(bytes, From::Command).ok().flatten().map(|packet| packet.content)
    }

    #[test]
    fn flows_have_their_ports() {
        for v6 in [false, true] {
            let Some(Content::Flow { key, remote, opening }) = sent(&packet(v6, TCP, &SYN_TO_80)) else {
                panic!("a SYN is a flow's");
            };
            assert_eq!((key.local.port(), key.remote, remote.port(), opening), (40_000, remote, 80, true));
            let Some(Content::Flow { key, remote, .. }) = sent(&packet(v6, UDP, &SYN_TO_80)) else {
                panic!("a datagram is a flow's");
            };
            assert_eq!((key.local.port(), key.remote.port(), remote.port()), (40_000, 0, 80));
            let (protocol, echo, reply) = if v6 { (ICMPV6, 128, 129) } else { (ICMP, 8, 0) };
            let request = packet(v6, protocol, &[echo, 0, 0, 0, 0x12, 0x34, 0, 1]);
            let Some(Content::Flow { key, .. }) = sent(&request) else { panic!("a ping is a flow's") };
            assert_eq!((key.local.port(), key.remote.port()), (0x1234, 0));
            assert_eq!(sent(&packet(v6, protocol, &[reply, 0, 0, 0, 0x12, 0x34, 0, 1])), None);
        }
    }

    #[test]
    fn what_a_command_may_not_send_is_not_parsed() {
        for v6 in [false, true] {
            // IGMP, GRE, OSPF, SCTP; the other family's ICMP.
            for protocol in [2, 47, 89, 132, if v6 { ICMP } else { ICMPV6 }] {
                assert_eq!(sent(&packet(v6, protocol, &SYN_TO_80)), None, "{protocol}");
            }
        }
        // Redirects, router and neighbour discovery, timestamps.
        for kind in [5, 9, 10, 13, 17] {
            assert_eq!(sent(&packet(false, ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0])), None, "{kind}");
        }
        for kind in [130, 133, 134, 135, 136, 137, 143] {
            assert_eq!(sent(&packet(true, ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0])), None, "{kind}");
        }
    }

    #[test]
    fn errors_are_about_the_flow_that_they_quote() {
        for v6 in [false, true] {
            // A peer's error quotes what the command sent, and the command's error what the peer sent.
            let quoted = packet(v6, TCP, &SYN_TO_80);
            let Some(Content::Flow { key, .. }) = sent(&quoted) else { panic!("a SYN is a flow's") };
            let mut message = vec![if v6 { 1 } else { 3 }, 1, 0, 0, 0, 0, 0, 0];
            message.extend(&quoted);
            let error = packet(v6, if v6 { ICMPV6 } else { ICMP }, &message);
            let heard = Packet::parse(&error, From::Peer).expect("a packet").map(|packet| packet.content);
            assert_eq!(heard, Some(Content::Error { about: key }));
            // An error about an error is none.
            let mut nested = vec![if v6 { 1 } else { 3 }, 1, 0, 0, 0, 0, 0, 0];
            nested.extend(&error);
            let nested = packet(v6, if v6 { ICMPV6 } else { ICMP }, &nested);
            assert_eq!(Packet::parse(&nested, From::Peer).map(|packet| packet.is_some()), Ok(false));
        }
    }

    #[test]
    fn refusals_quote_the_packet_and_have_checksums() {
        use crate::gateway::refusal::Refusal;
        for v6 in [false, true] {
            let bytes = packet(v6, TCP, &SYN_TO_80);
            let header = ip::parse(&bytes, false).expect("a packet");
            for refusal in [Refusal::PortInUse, Refusal::Unreachable, Refusal::TooBig(1280)] {
                let error = refusal.about(&bytes, &header);
                let outer = ip::parse(&error, false).expect("a packet");
                assert_eq!((outer.source, outer.destination), (header.destination, header.source));
                let message = &error[outer.transport..];
                assert!(message.ends_with(&bytes));
                let sum = match v6 {
                    true => ip::pseudo_header(outer.source, outer.destination, ICMPV6, message.len()),
                    false => Sum::default(),
                };
                assert_eq!(sum.add(message).checksum(), 0);
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(v6: bool, protocol: u8, transport in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = packet(v6, protocol, &transport);
            for from in [From::Command, From::Peer] {
                let _ = Packet::parse(&bytes, from);
            }
        }
    }
}
