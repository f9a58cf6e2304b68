//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.
//!
//! Received headers are parsed and checked, options and extension headers included. Every sent
//! packet gets a fresh header. smoltcp's packet types name the fields. Its checks stay out: they
//! refuse a length of 0 (BIG TCP) and the cut packets that ICMP errors quote.
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    net::{
        checksum::Sum,
        ip_protocol::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, MOBILITY, ROUTING},
    },
};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet};
use std::net::{IpAddr, Ipv6Addr};

pub use crate::net::ip_protocol::{ICMP, ICMPV6, TCP, UDP};

/// Length of an IPv4 header without options, in bytes.
pub(crate) const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header without extension headers, in bytes.
pub(crate) const IPV6_HEADER: usize = 40;
/// Length of an IPv6 fragment header, in bytes.
const FRAGMENT_HEADER: usize = 8;

/// Maximum extension headers: the capture program follows no more.
const MAX_EXTENSIONS: usize = 8;

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The datagram's identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Offset of this fragment's payload, in bytes.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
}

/// A parsed IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The transport protocol's number, behind all extension headers. In a fragment, the number of
    /// the first header of the datagram's payload.
    pub protocol: u8,
    /// Offset of the transport header or of the fragment's payload, in bytes from the network
    /// header.
    pub transport: usize,
    /// Offset of the packet's end, in bytes; link padding comes after it.
    pub end: usize,
    /// The packet's place in its datagram, if the packet is a fragment.
    pub fragment: Option<Fragment>,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

/// The reason why bytes are not an acceptable IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The packet ends within its header.
    #[error("truncated IP header")]
    Truncated,
    /// The version is neither 4 nor 6.
    #[error("IP version {0}")]
    Version(u8),
    /// The IPv4 header length is below 20 bytes.
    #[error("IPv4 header length of {0} bytes")]
    HeaderLength(usize),
    /// The IPv4 header checksum is wrong.
    #[error("wrong IPv4 header checksum")]
    Checksum,
    /// The length field exceeds the bytes received, or is shorter than the header.
    #[error("the IP length field promises more than arrived")]
    Length,
    /// There are more IPv6 extension headers than the capture program follows.
    #[error("more than {MAX_EXTENSIONS} IPv6 extension headers")]
    Extensions,
}

/// Parses the IP header at the front of `packet`. `cut` accepts a packet whose end is missing, such
/// as the quote in an ICMP error.
///
/// # Errors
/// The reason why `packet` is not an acceptable IP packet.
pub fn parse(packet: &[u8], cut: bool) -> Result<Header, Malformed> {
    match packet.first().ok_or(Malformed::Truncated)? >> 4 {
        4 => parse_v4(packet, cut),
        6 => parse_v6(packet, cut),
        version => Err(Malformed::Version(version)),
    }
}

fn parse_v4(packet: &[u8], cut: bool) -> Result<Header, Malformed> {
    let fixed: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(Malformed::Truncated)?;
    // The fixed header is whole, so no getter panics.
    let fields = Ipv4Packet::new_unchecked(fixed);
    let header_len = usize::from(fields.header_len());
    if header_len < IPV4_HEADER {
        return Err(Malformed::HeaderLength(header_len));
    }
    let header = packet.get(..header_len).ok_or(Malformed::Truncated)?;
    // A router may have changed the packet that an ICMP error quotes (RFC 1812, section 4.3.2.3).
    if !cut && Sum::default().add(header).checksum() != 0 {
        return Err(Malformed::Checksum);
    }
    let total = usize::from(fields.total_len());
    let end = match total {
        // The field is 0 in coalesced frames that exceed it (BIG TCP).
        0 => packet.len(),
        _ if total < header_len => return Err(Malformed::Length),
        _ if total > packet.len() && !cut => return Err(Malformed::Length),
        _ => total.min(packet.len()),
    };
    let (more, offset) = (fields.more_frags(), fields.frag_offset());
    let fragment = (more || offset != 0).then_some(Fragment { id: fields.ident().into(), offset, more });
    Ok(Header {
        source: fields.src_addr().into(),
        destination: fields.dst_addr().into(),
        protocol: fields.next_header().into(),
        transport: header_len,
        end,
        fragment,
        hop_limit: fields.hop_limit(),
    })
}

fn parse_v6(packet: &[u8], cut: bool) -> Result<Header, Malformed> {
    let fixed: &[u8; IPV6_HEADER] = packet.first_chunk().ok_or(Malformed::Truncated)?;
    let fields = Ipv6Packet::new_unchecked(fixed);
    let payload = usize::from(fields.payload_len());
    let end = match IPV6_HEADER + payload {
        // Coalesced frames beyond 64 KB are jumbograms (RFC 2675, BIG TCP).
        IPV6_HEADER => packet.len(),
        end if end > packet.len() && !cut => return Err(Malformed::Length),
        end => end.min(packet.len()),
    };
    let header = |protocol, transport, fragment| {
        Ok(Header {
            source: fields.src_addr().into(),
            destination: fields.dst_addr().into(),
            protocol,
            transport,
            end,
            fragment,
            hop_limit: fields.hop_limit(),
        })
    };
    let mut protocol = fields.next_header().into();
    let mut transport = IPV6_HEADER;
    let mut fragment = None;
    for _ in 0..=MAX_EXTENSIONS {
        let extension = packet.get(transport..end).unwrap_or_default();
        let len = |units: usize| -> Result<usize, Malformed> {
            let field = *extension.get(1).ok_or(Malformed::Truncated)?;
            Ok((usize::from(field) + units) * if units == 2 { 4 } else { 8 })
        };
        let step = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => len(1)?,
            // The length counts 4-byte units, minus 2 (RFC 4302, section 2.2).
            AUTHENTICATION => len(2)?,
            FRAGMENT => {
                let [_, _, fields @ ..]: &[u8; FRAGMENT_HEADER] =
                    extension.first_chunk().ok_or(Malformed::Truncated)?;
                let fields = Ipv6FragmentHeader::new_unchecked(fields);
                let (offset, more) = (fields.frag_offset() * 8, fields.more_frags());
                // An atomic fragment (RFC 6946) is a whole datagram.
                if more || offset != 0 {
                    fragment = Some(Fragment { id: fields.ident(), offset, more });
                }
                FRAGMENT_HEADER
            }
            _ => return header(protocol, transport, None),
        };
        protocol = *extension.first().ok_or(Malformed::Truncated)?;
        transport += step;
        if transport > end {
            return Err(Malformed::Truncated);
        }
        // Everything behind a fragment header counts as payload: offsets begin there, and a later
        // fragment has no further header.
        if fragment.is_some() {
            return header(protocol, transport, fragment);
        }
    }
    Err(Malformed::Extensions)
}

/// Returns the sum over the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1) of a
/// transport payload of `len` bytes.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum {
    let sum = match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Sum::default().add(&a.octets()).add(&b.octets()),
        (a, b) => Sum::default().add(&to_v6(a).octets()).add(&to_v6(b).octets()),
    };
    let len = (len as u32).to_be_bytes();
    sum.add(&len).add_word(protocol.into())
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The header fields that all packets of a flow have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TOS or traffic class, all eight bits.
    pub traffic_class: u8,
    /// IPv6 flow label, 20 bits (RFC 6437); unused in IPv4.
    pub flow_label: u32,
}

/// The relation of a packet to fragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// A whole datagram that routers must not fragment (path MTU discovery, RFC 1191).
    Forbidden,
    /// A whole datagram with this identification that routers may fragment.
    Allowed(u16),
    /// One fragment.
    Fragment(Fragment),
}

impl Template {
    /// Returns the EtherType of the flow's packets.
    pub fn ethertype(&self) -> u16 {
        match self.source {
            IpAddr::V4(_) => ETHERTYPE_IPV4,
            IpAddr::V6(_) => ETHERTYPE_IPV6,
        }
    }

    /// Returns the length of a whole packet's IP header, in bytes.
    pub fn header_len(&self) -> usize {
        match self.source {
            IpAddr::V4(_) => IPV4_HEADER,
            IpAddr::V6(_) => IPV6_HEADER,
        }
    }

    /// Returns the length of a fragment's IP headers, in bytes.
    pub(crate) fn fragment_header_len(&self) -> usize {
        match self.source {
            IpAddr::V4(_) => IPV4_HEADER,
            IpAddr::V6(_) => IPV6_HEADER + FRAGMENT_HEADER,
        }
    }

    /// Writes the IP header of a packet with `payload` bytes behind it to the front of `out`.
    /// Returns the header's length: 20 in IPv4, 40 in IPv6, 48 with a fragment header.
    ///
    /// # Panics
    /// If `out` is shorter than the header.
    pub fn write(&self, payload: usize, id: u16, fragmentation: Fragmentation, out: &mut [u8]) -> usize {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Packet::new_unchecked(&mut out[..IPV4_HEADER]);
                header.set_version(4);
                header.set_header_len(IPV4_HEADER as u8);
                header.set_dscp(self.traffic_class >> 2);
                header.set_ecn(self.traffic_class & 3);
                header.set_total_len((IPV4_HEADER + payload) as u16);
                let (id, place) = match fragmentation {
                    Fragmentation::Forbidden => (id, Fragment::default()),
                    Fragmentation::Allowed(id) => (id, Fragment::default()),
                    Fragmentation::Fragment(fragment) => (fragment.id as u16, fragment),
                };
                header.set_ident(id);
                header.clear_flags();
                header.set_dont_frag(fragmentation == Fragmentation::Forbidden);
                header.set_more_frags(place.more);
                header.set_frag_offset(place.offset);
                header.set_hop_limit(self.hop_limit);
                header.set_next_header(IpProtocol::from(self.protocol));
                header.set_src_addr(source);
                header.set_dst_addr(destination);
                header.fill_checksum();
                IPV4_HEADER
            }
            (source, destination) => {
                let fragment = match fragmentation {
                    Fragmentation::Fragment(fragment) => Some(fragment),
                    _ => None,
                };
                let len = self.header_len() + fragment.map_or(0, |_| FRAGMENT_HEADER);
                let (fixed, extension) = out[..len].split_at_mut(IPV6_HEADER);
                let mut header = Ipv6Packet::new_unchecked(fixed);
                header.set_version(6);
                header.set_traffic_class(self.traffic_class);
                header.set_flow_label(self.flow_label & 0xf_ffff);
                header.set_payload_len((extension.len() + payload) as u16);
                header.set_next_header(IpProtocol::from(if fragment.is_some() {
                    FRAGMENT
                } else {
                    self.protocol
                }));
                header.set_hop_limit(self.hop_limit);
                header.set_src_addr(to_v6(source));
                header.set_dst_addr(to_v6(destination));
                if let (Some(fragment), [next_header, reserved, fields @ ..]) = (fragment, extension) {
                    (*next_header, *reserved) = (self.protocol, 0);
                    fields.fill(0);
                    let mut header = Ipv6FragmentHeader::new_unchecked(fields);
                    header.set_frag_offset(fragment.offset / 8);
                    header.set_more_frags(fragment.more);
                    header.set_ident(fragment.id);
                }
                len
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template(v6: bool) -> Template {
        let (source, destination): (IpAddr, IpAddr) = match v6 {
            false => ([192, 0, 2, 1].into(), [198, 51, 100, 2].into()),
            true => (Ipv6Addr::LOCALHOST.into(), "2001:db8::2".parse::<Ipv6Addr>().expect("literal").into()),
        };
        Template {
            source,
            destination,
            protocol: TCP,
            hop_limit: 64,
            traffic_class: 0xb8,
            flow_label: 0x12345,
        }
    }

    fn packet(v6: bool, payload: usize, fragmentation: Fragmentation) -> Vec<u8> {
        let mut bytes = vec![0xaa; IPV6_HEADER + 8 + payload];
        let len = template(v6).write(payload, 7, fragmentation, &mut bytes);
        bytes.truncate(len + payload);
        bytes
    }

    #[test]
    fn headers_round_trip() {
        for v6 in [false, true] {
            let bytes = packet(v6, 100, Fragmentation::Forbidden);
            let header = parse(&bytes, false).expect("our own header");
            let t = template(v6);
            assert_eq!((header.source, header.destination), (t.source, t.destination));
            assert_eq!((header.protocol, header.hop_limit), (TCP, 64));
            assert_eq!((header.transport, header.end), (t.header_len(), t.header_len() + 100));
            assert_eq!(header.fragment, None);
        }
    }

    #[test]
    fn fragments_round_trip() {
        for v6 in [false, true] {
            for (offset, more) in [(0, true), (1480, true), (2960, false)] {
                let fragment = Fragment { id: 0x1234, offset, more };
                let bytes = packet(v6, 64, Fragmentation::Fragment(fragment));
                let header = parse(&bytes, false).expect("our own fragment");
                assert_eq!(header.fragment, Some(fragment));
                assert_eq!((header.protocol, header.end - header.transport), (TCP, 64));
            }
        }
    }

    #[test]
    fn padding_is_not_payload() {
        for v6 in [false, true] {
            let mut bytes = packet(v6, 2, Fragmentation::Forbidden);
            bytes.resize(60, 0);
            assert_eq!(parse(&bytes, false).map(|h| h.end - h.transport), Ok(2));
        }
    }

    #[test]
    fn extension_headers_are_skipped() {
        let mut bytes = packet(true, 16 + 12 + 20, Fragmentation::Forbidden);
        bytes[6] = HOP_BY_HOP;
        bytes[40..42].copy_from_slice(&[DESTINATION_OPTIONS, 0]);
        bytes[48..50].copy_from_slice(&[AUTHENTICATION, 0]);
        bytes[56..58].copy_from_slice(&[TCP, 1]);
        let header = parse(&bytes, false).expect("well-formed");
        assert_eq!((header.protocol, header.transport), (TCP, 40 + 8 + 8 + 12));
    }

    #[test]
    fn options_are_skipped_and_the_checksum_counts_them() {
        let mut bytes = packet(false, 4 + 20, Fragmentation::Forbidden);
        bytes[0] = 0x46;
        bytes[20..24].copy_from_slice(&[1, 1, 1, 0]);
        bytes[10..12].fill(0);
        assert_eq!(parse(&bytes, false), Err(Malformed::Checksum));
        let checksum = Sum::default().add(&bytes[..24]).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(parse(&bytes, false).map(|h| h.transport), Ok(24));
    }

    #[test]
    fn a_quoted_packet_may_be_cut() {
        for v6 in [false, true] {
            let bytes = packet(v6, 100, Fragmentation::Forbidden);
            let quoted = &bytes[..template(v6).header_len() + 8];
            assert_eq!(parse(quoted, false), Err(Malformed::Length));
            assert_eq!(parse(quoted, true).map(|h| h.end - h.transport), Ok(8));
        }
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_panics(v6: bool, mut tail in proptest::collection::vec(any::<u8>(), 0..120), cut: bool) {
            if let Some(first) = tail.first_mut() {
                *first = if v6 { 0x60 } else { 0x40 } | *first & 15;
            }
            if let Ok(header) = parse(&tail, cut) {
                prop_assert!(header.transport <= header.end && header.end <= tail.len());
            }
        }
    }
}
