//! Reads ICMP (RFC 792) and ICMPv6 (RFC 4443, RFC 4861) messages.
use std::net::Ipv6Addr;

use pnet_packet::{icmp::IcmpPacket, icmpv6::Icmpv6Packet};

use super::{
    cursor::Cursor,
    headers::{Icmp, QuotedPacket},
    ip,
    problem::Problem,
    tcp,
};
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    net::ip_protocol::{TCP, UDP},
};

/// Bytes of every ICMP message before what it carries or quotes (RFC 792, RFC 4443).
const HEADER: usize = 8;

/// Reads an ICMP message.
///
/// # Errors
/// [`Problem`], if the header is incomplete.
pub(super) fn read_v4(cursor: &mut Cursor<'_>) -> Result<Icmp, Problem> {
    let icmp = cursor.peek_packet("icmp header", HEADER, IcmpPacket::new)?;
    let bytes = cursor.take("icmp header", HEADER)?;
    let (kind, code) = (icmp.get_icmp_type().0, icmp.get_icmp_code().0);
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    let error = matches!(kind, 3 | 4 | 5 | 11 | 12);
    Ok(Icmp {
        kind,
        code,
        checksum: icmp.get_checksum(),
        target: None,
        mtu: second_word(bytes).filter(|_| (kind, code) == (3, 4)).map(|word| word & 0xffff),
        quoted: error.then(|| read_quoted(*cursor, ETHERTYPE_IPV4)).flatten(),
    })
}

/// Reads an ICMPv6 message.
///
/// # Errors
/// [`Problem`], if the header or the target of neighbour discovery is incomplete.
pub(super) fn read_v6(cursor: &mut Cursor<'_>) -> Result<Icmp, Problem> {
    let icmp = cursor.peek_packet("icmp header", HEADER, Icmpv6Packet::new)?;
    let bytes = cursor.take("icmp header", HEADER)?;
    let kind = icmp.get_icmpv6_type().0;
    // Destination unreachable, packet too big, time exceeded, parameter problem.
    let error = matches!(kind, 1..=4);
    let target = match kind {
        // Neighbour solicitation, neighbour advertisement, redirect.
        135..=137 => {
            let bytes: Option<[u8; 16]> = cursor.take("neighbor discovery target", 16)?.try_into().ok();
            bytes.map(Ipv6Addr::from)
        }
        _ => None,
    };
    Ok(Icmp {
        kind,
        code: icmp.get_icmpv6_code().0,
        checksum: icmp.get_checksum(),
        target,
        mtu: second_word(bytes).filter(|_| kind == 2),
        quoted: error.then(|| read_quoted(*cursor, ETHERTYPE_IPV6)).flatten(),
    })
}

fn second_word(header: &[u8]) -> Option<u32> {
    header.last_chunk().map(|word| u32::from_be_bytes(*word))
}

/// Reads the packet that an ICMP error quotes. Routers usually cut the quote, so its problems are
/// ignored.
fn read_quoted(mut cursor: Cursor<'_>, ethertype: u16) -> Option<QuotedPacket> {
    let ip::IpHeader { ip, complete, .. } = ip::read(&mut cursor, ethertype).ok()?;
    let has_ports = complete && !ip.is_later_fragment() && matches!(ip.protocol, TCP | UDP);
    Some(QuotedPacket {
        source: ip.source,
        destination: ip.destination,
        protocol: ip.protocol,
        ports: if has_ports { tcp::peek_ports(&cursor) } else { None },
    })
}
