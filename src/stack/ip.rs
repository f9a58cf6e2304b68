//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.
//!
//! Received headers are parsed and checked, options and extension headers included. Every sent
//! packet gets a fresh header. smoltcp never sees either: it speaks TCP between two placeholder
//! addresses.
use super::checksum::Sum;
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    net::ip_protocol::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, MOBILITY, ROUTING},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use crate::net::ip_protocol::{ICMP, ICMPV6, TCP, UDP};

/// Length of an IPv4 header without options, in bytes.
pub const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header without extension headers, in bytes.
pub const IPV6_HEADER: usize = 40;
/// Length of an IPv6 fragment header, in bytes.
const FRAGMENT_HEADER: usize = 8;

/// Maximum extension headers: the capture program follows no more.
const MAX_EXTENSIONS: usize = 8;

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let header_len = usize::from(fixed[0] & 15) * 4;
    if header_len < IPV4_HEADER {
        return Err(Malformed::HeaderLength(header_len));
    }
    let header = packet.get(..header_len).ok_or(Malformed::Truncated)?;
    // A router may have changed the packet that an ICMP error quotes (RFC 1812, section 4.3.2.3).
    if !cut && Sum::default().add(header).checksum() != 0 {
        return Err(Malformed::Checksum);
    }
    let field = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
    let total = usize::from(field(2));
    let end = match total {
        // The field is 0 in coalesced frames that exceed it (BIG TCP).
        0 => packet.len(),
        _ if total < header_len => return Err(Malformed::Length),
        _ if total > packet.len() && !cut => return Err(Malformed::Length),
        _ => total.min(packet.len()),
    };
    let flags = field(6);
    let (more, offset) = (flags & 0x2000 != 0, (flags & 0x1fff) * 8);
    let fragment = (more || offset != 0).then_some(Fragment { id: field(4).into(), offset, more });
    Ok(Header {
        source: address(12).into(),
        destination: address(16).into(),
        protocol: fixed[9],
        transport: header_len,
        end,
        fragment,
        hop_limit: fixed[8],
    })
}

fn parse_v6(packet: &[u8], cut: bool) -> Result<Header, Malformed> {
    let fixed: &[u8; IPV6_HEADER] = packet.first_chunk().ok_or(Malformed::Truncated)?;
    let address = |at: usize| -> Result<Ipv6Addr, Malformed> {
        let bytes = fixed.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok());
        bytes.map(Ipv6Addr::from).ok_or(Malformed::Truncated)
    };
    let payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let end = match IPV6_HEADER + payload {
        // Coalesced frames beyond 64 KB are jumbograms (RFC 2675, BIG TCP).
        IPV6_HEADER => packet.len(),
        end if end > packet.len() && !cut => return Err(Malformed::Length),
        end => end.min(packet.len()),
    };
    let header = |protocol, transport, fragment| {
        Ok(Header {
            source: address(8)?.into(),
            destination: address(24)?.into(),
            protocol,
            transport,
            end,
            fragment,
            hop_limit: fixed[7],
        })
    };
    let mut protocol = fixed[6];
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
                let bytes: &[u8; 8] = extension.first_chunk().ok_or(Malformed::Truncated)?;
                let word = u16::from_be_bytes([bytes[2], bytes[3]]);
                let (offset, more) = (word & 0xfff8, word & 1 != 0);
                // An atomic fragment (RFC 6946) is a whole datagram.
                if more || offset != 0 {
                    let id = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                    fragment = Some(Fragment { id, offset, more });
                }
                8
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
        (a, b) => Sum::default().add(&to_v6(a)).add(&to_v6(b)),
    };
    let len = (len as u32).to_be_bytes();
    sum.add(&len).add_word(protocol.into())
}

fn to_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
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
    pub fn fragment_header_len(&self) -> usize {
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
                let (id, flags) = match fragmentation {
                    Fragmentation::Forbidden => (id, 0x4000),
                    Fragmentation::Allowed(id) => (id, 0),
                    Fragmentation::Fragment(f) => {
                        (f.id as u16, (f.offset / 8) | if f.more { 0x2000 } else { 0 })
                    }
                };
                let header = &mut out[..IPV4_HEADER];
                header[0] = 0x45;
                header[1] = self.traffic_class;
                header[2..4].copy_from_slice(&((IPV4_HEADER + payload) as u16).to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[6..8].copy_from_slice(&flags.to_be_bytes());
                header[8] = self.hop_limit;
                header[9] = self.protocol;
                header[10..12].fill(0);
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                let checksum = Sum::default().add(header).checksum();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                IPV4_HEADER
            }
            (source, destination) => {
                let extension = match fragmentation {
                    Fragmentation::Fragment(_) => 8,
                    _ => 0,
                };
                let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0xf_ffff);
                out[..4].copy_from_slice(&first.to_be_bytes());
                out[4..6].copy_from_slice(&((extension + payload) as u16).to_be_bytes());
                out[6] = self.protocol;
                out[7] = self.hop_limit;
                out[8..24].copy_from_slice(&to_v6(source));
                out[24..40].copy_from_slice(&to_v6(destination));
                if let Fragmentation::Fragment(f) = fragmentation {
                    out[6] = FRAGMENT;
                    out[40] = self.protocol;
                    out[41] = 0;
                    out[42..44].copy_from_slice(&(f.offset | u16::from(f.more)).to_be_bytes());
                    out[44..48].copy_from_slice(&f.id.to_be_bytes());
                }
                IPV6_HEADER + extension
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
