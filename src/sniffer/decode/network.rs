//! ARP, IPv4, IPv6 and its extension headers.
use std::net::IpAddr;

use arrayvec::ArrayVec;
use pnet_packet::{
    arp::{ArpHardwareTypes, ArpPacket},
    ethernet::EtherTypes,
    ip::IpNextHeaderProtocols,
    ipv4::{Ipv4Flags, Ipv4Packet},
    ipv6::{ExtensionPacket, FragmentPacket, Ipv6Packet},
};

use super::{Arp, Decoder, Fragment, Ip, Network, Problem, Transport, cursor::Cursor};
use crate::net::MacAddr;

const IPV4: u16 = EtherTypes::Ipv4.0;
const IPV6: u16 = EtherTypes::Ipv6.0;
const ARP: u16 = EtherTypes::Arp.0;

const HOP_BY_HOP: u8 = IpNextHeaderProtocols::Hopopt.0;
const ROUTING: u8 = IpNextHeaderProtocols::Ipv6Route.0;
const FRAGMENT: u8 = IpNextHeaderProtocols::Ipv6Frag.0;
const AUTHENTICATION: u8 = IpNextHeaderProtocols::Ah.0;
const DESTINATION: u8 = IpNextHeaderProtocols::Ipv6Opts.0;
const MOBILITY: u8 = IpNextHeaderProtocols::MobilityHeader.0;

/// An IP header with its extension headers. The addresses are worth showing whatever is wrong behind them.
pub(super) struct Header {
    pub(super) ip: Ip,
    pub(super) problem: Option<Problem>,
    /// Whether a transport header can be looked for.
    pub(super) whole: bool,
}

impl Decoder<'_> {
    pub(super) fn network(&mut self, ethertype: u16) -> Result<(), Problem> {
        self.decoded.network = match ethertype {
            ARP => Network::Arp(arp(&mut self.cursor)?),
            IPV4 | IPV6 => Network::Ip(self.ip(ethertype)?),
            _ => Network::Unknown,
        };
        Ok(())
    }

    fn ip(&mut self, ethertype: u16) -> Result<Ip, Problem> {
        let Header { mut ip, problem, whole } = header(&mut self.cursor, ethertype)?;
        self.decoded.problem = problem;
        if whole {
            let (transport, problem) = self.transport(&ip);
            ip.transport = transport;
            self.decoded.problem = self.decoded.problem.or(problem);
        }
        Ok(ip)
    }
}

/// Reads an IPv4 or IPv6 header, as the EtherType says.
pub(super) fn header(cursor: &mut Cursor<'_>, ethertype: u16) -> Result<Header, Problem> {
    if ethertype == IPV6 { ipv6(cursor) } else { ipv4(cursor) }
}

fn arp(cursor: &mut Cursor<'_>) -> Result<Arp, Problem> {
    let need = ArpPacket::minimum_packet_size();
    let arp = cursor.packet("arp packet", need, ArpPacket::new)?;
    // What follows is Ethernet's padding.
    cursor.narrow(need);
    cursor.skip(need);
    Ok(Arp {
        operation: arp.get_operation().0,
        sender: arp.get_sender_proto_addr(),
        sender_mac: MacAddr(arp.get_sender_hw_addr().octets()),
        target: arp.get_target_proto_addr(),
        target_mac: MacAddr(arp.get_target_hw_addr().octets()),
        valid: arp.get_hardware_type() == ArpHardwareTypes::Ethernet
            && arp.get_protocol_type() == EtherTypes::Ipv4
            && arp.get_hw_addr_len() == 6
            && arp.get_proto_addr_len() == 4,
    })
}

fn ipv4(cursor: &mut Cursor<'_>) -> Result<Header, Problem> {
    let need = Ipv4Packet::minimum_packet_size();
    let ipv4 = cursor.packet("ipv4 header", need, Ipv4Packet::new)?;
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
    } else if total > have {
        Some(Problem::TooLong { field: "ipv4 total length", value: total, length: have })
    } else {
        options
    };
    cursor.narrow(total.max(header));
    cursor.skip(header);
    let offset = u32::from(ipv4.get_fragment_offset()) * 8;
    let more = ipv4.get_flags() & Ipv4Flags::MoreFragments != 0;
    let ip = Ip {
        source: IpAddr::V4(ipv4.get_source()),
        destination: IpAddr::V4(ipv4.get_destination()),
        protocol: ipv4.get_next_level_protocol().0,
        id: ipv4.get_identification().into(),
        ttl: ipv4.get_ttl(),
        length: total.min(have).saturating_sub(header),
        fragment: (offset != 0 || more).then_some(Fragment { offset, more }),
        extensions: ArrayVec::new(),
        transport: Transport::Malformed { ports: None },
    };
    Ok(Header { ip, problem, whole: options.is_none() && total >= header })
}

fn ipv6(cursor: &mut Cursor<'_>) -> Result<Header, Problem> {
    let need = Ipv6Packet::minimum_packet_size();
    let ipv6 = cursor.packet("ipv6 header", need, Ipv6Packet::new)?;
    cursor.skip(need);
    if ipv6.get_version() != 6 {
        return Err(Problem::IpVersion(ipv6.get_version()));
    }
    let have = cursor.remaining();
    let length = match usize::from(ipv6.get_payload_length()) {
        // A jumbogram (RFC 2675), of which Linux makes BIG TCP's super-frames.
        0 if ipv6.get_next_header().0 == HOP_BY_HOP => have,
        length => length,
    };
    cursor.narrow(length);
    let mut header = Header {
        ip: Ip {
            source: IpAddr::V6(ipv6.get_source()),
            destination: IpAddr::V6(ipv6.get_destination()),
            protocol: ipv6.get_next_header().0,
            id: 0,
            ttl: ipv6.get_hop_limit(),
            length: length.min(have),
            fragment: None,
            extensions: ArrayVec::new(),
            transport: Transport::Malformed { ports: None },
        },
        problem: (length > have).then_some(Problem::TooLong {
            field: "ipv6 payload length",
            value: length,
            length: have,
        }),
        whole: true,
    };
    if let Err(problem) = extensions(cursor, &mut header.ip) {
        header.problem.get_or_insert(problem);
        header.whole = false;
    }
    Ok(header)
}

/// Walks the extension headers (RFC 8200, section 4) up to the transport's, or to the end of what a later
/// fragment tells.
fn extensions(cursor: &mut Cursor<'_>, ip: &mut Ip) -> Result<(), Problem> {
    while let HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY = ip.protocol {
        let later = ip.fragment.is_some_and(|fragment| fragment.offset != 0);
        if later {
            return Ok(());
        }
        let kind = ip.protocol;
        let fixed = cursor.peek("ipv6 extension header", 8)?;
        let size = ExtensionPacket::new(fixed).map_or(0, |header| usize::from(header.get_hdr_ext_len()));
        let size = match kind {
            FRAGMENT => 8,
            // In words of four bytes, less two (RFC 4302, section 2.2).
            AUTHENTICATION => (size + 2) * 4,
            _ => (size + 1) * 8,
        };
        if let Some(header) = FragmentPacket::new(fixed).filter(|_| kind == FRAGMENT) {
            let field = header.get_fragment_offset_with_flags();
            ip.id = header.get_id();
            ip.fragment = Some(Fragment { offset: u32::from(field & 0xfff8), more: field & 1 != 0 });
        }
        let bytes = cursor.take("ipv6 extension header", size)?;
        ip.protocol = bytes.first().copied().unwrap_or_default();
        ip.length = ip.length.saturating_sub(size);
        // Those beyond the list's room only go unlisted.
        let _ = ip.extensions.try_push(kind);
    }
    Ok(())
}
