//! Reads IPv4 and IPv6 headers with IPv6's extension headers.
use std::net::IpAddr;

use arrayvec::ArrayVec;
use pnet_packet::{
    ipv4::{Ipv4Flags, Ipv4Packet},
    ipv6::{ExtensionPacket, FragmentPacket, Ipv6Packet},
};

use super::{
    cursor::Cursor,
    headers::{FragmentPosition, Ip, Transport},
    problem::Problem,
};
use crate::{
    link::ETHERTYPE_IPV6,
    net::ip_protocol::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, MOBILITY, ROUTING},
};

/// An IP header with its extension headers. Its addresses are worth showing whatever is wrong
/// behind them.
pub(super) struct IpHeader {
    /// The header; its transport is not decoded yet.
    pub(super) ip: Ip,
    /// The first problem of the lengths, the options or the extension headers.
    pub(super) problem: Option<Problem>,
    /// The cursor is at the transport header.
    pub(super) complete: bool,
}

/// Reads an IPv4 or IPv6 header according to the EtherType.
///
/// # Errors
/// [`Problem`], if the fixed header is incomplete or contradicts itself.
pub(super) fn read(cursor: &mut Cursor<'_>, ethertype: u16) -> Result<IpHeader, Problem> {
    if ethertype == ETHERTYPE_IPV6 { read_v6(cursor) } else { read_v4(cursor) }
}

fn read_v4(cursor: &mut Cursor<'_>) -> Result<IpHeader, Problem> {
    let need = Ipv4Packet::minimum_packet_size();
    let ipv4 = cursor.peek_packet("ipv4 header", need, Ipv4Packet::new)?;
    if ipv4.get_version() != 4 {
        return Err(Problem::IpVersion(ipv4.get_version()));
    }
    let words = ipv4.get_header_length();
    if words < 5 {
        return Err(Problem::Ipv4HeaderLength(words));
    }
    let header = usize::from(words) * 4;
    let options = cursor.peek("ipv4 header", header).err();
    let have = cursor.remaining();
    let total = match usize::from(ipv4.get_total_length()) {
        // A super-frame longer than the field can say (BIG TCP).
        0 => have,
        total => total,
    };
    let problem = if total < header {
        Some(Problem::TooSmall { field: "ipv4 total length", value: total })
    } else if total > have && !cursor.is_fragment() {
        Some(Problem::TooLong { field: "ipv4 total length", value: total, length: have })
    } else {
        options
    };
    cursor.narrow(total.max(header));
    cursor.skip(header);
    let offset = u32::from(ipv4.get_fragment_offset()) * 8;
    let more = ipv4.get_flags() & Ipv4Flags::MoreFragments != 0;
    if more {
        cursor.mark_fragment();
    }
    let ip = Ip {
        source: IpAddr::V4(ipv4.get_source()),
        destination: IpAddr::V4(ipv4.get_destination()),
        protocol: ipv4.get_next_level_protocol().0,
        id: ipv4.get_identification().into(),
        ttl: ipv4.get_ttl(),
        length: total.min(have).saturating_sub(header),
        fragment: (offset != 0 || more).then_some(FragmentPosition { offset, more }),
        extensions: ArrayVec::new(),
        transport: Transport::Malformed { ports: None },
    };
    Ok(IpHeader { ip, problem, complete: options.is_none() && total >= header })
}

fn read_v6(cursor: &mut Cursor<'_>) -> Result<IpHeader, Problem> {
    let ipv6 = cursor.take_packet("ipv6 header", Ipv6Packet::minimum_packet_size(), Ipv6Packet::new)?;
    if ipv6.get_version() != 6 {
        return Err(Problem::IpVersion(ipv6.get_version()));
    }
    let (have, tunnelled_fragment) = (cursor.remaining(), cursor.is_fragment());
    let length = match usize::from(ipv6.get_payload_length()) {
        // A jumbogram (RFC 2675), the form of BIG TCP's super-frames on Linux.
        0 if ipv6.get_next_header().0 == HOP_BY_HOP => have,
        length => length,
    };
    cursor.narrow(length);
    let mut ip = Ip {
        source: IpAddr::V6(ipv6.get_source()),
        destination: IpAddr::V6(ipv6.get_destination()),
        protocol: ipv6.get_next_header().0,
        id: 0,
        ttl: ipv6.get_hop_limit(),
        length: length.min(have),
        fragment: None,
        extensions: ArrayVec::new(),
        transport: Transport::Malformed { ports: None },
    };
    let too_long = Problem::TooLong { field: "ipv6 payload length", value: length, length: have };
    let extensions = read_extensions(cursor, &mut ip).err();
    Ok(IpHeader {
        ip,
        problem: (length > have && !tunnelled_fragment).then_some(too_long).or(extensions),
        complete: extensions.is_none(),
    })
}

/// Reads the extension headers (RFC 8200, section 4) up to the transport header, or up to the
/// fragment header of a later fragment.
fn read_extensions(cursor: &mut Cursor<'_>, ip: &mut Ip) -> Result<(), Problem> {
    while let HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY = ip.protocol
    {
        if ip.is_later_fragment() {
            return Ok(());
        }
        let kind = ip.protocol;
        let fixed = cursor.peek("ipv6 extension header", 8)?;
        let size = ExtensionPacket::new(fixed).map_or(0, |header| usize::from(header.get_hdr_ext_len()));
        let size = match kind {
            FRAGMENT => 8,
            // The length counts words of four bytes, minus two (RFC 4302, section 2.2).
            AUTHENTICATION => (size + 2) * 4,
            _ => (size + 1) * 8,
        };
        if let Some(header) = FragmentPacket::new(fixed).filter(|_| kind == FRAGMENT) {
            let field = header.get_fragment_offset_with_flags();
            ip.id = header.get_id();
            let more = field & 1 != 0;
            ip.fragment = Some(FragmentPosition { offset: u32::from(field & 0xfff8), more });
            if more {
                cursor.mark_fragment();
            }
        }
        let bytes = cursor.take("ipv6 extension header", size)?;
        ip.protocol = bytes.first().copied().unwrap_or_default();
        ip.length = ip.length.saturating_sub(size);
        // A full list costs the entry, not the packet.
        let _ = ip.extensions.try_push(kind);
    }
    Ok(())
}
