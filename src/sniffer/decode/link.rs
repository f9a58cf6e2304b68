//! Reads link headers: Ethernet with its tags, Linux cooked, NFLOG, PPP, BSD loopback, none.
use pnet_packet::{
    ethernet::{EtherTypes, EthernetPacket},
    sll::SLLPacket,
    sll2::SLL2Packet,
    vlan::VlanPacket,
};

use super::{cursor::Cursor, headers::LinkLayer, nflog, ppp, problem::Problem};
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, VlanTag},
    net::MacAddr,
    sniffer::frame::LinkType,
};

/// The EtherTypes of tags: IEEE 802.1Q, 802.1ad, and the QinQ before it.
const TAGS: [u16; 3] = [EtherTypes::Vlan.0, EtherTypes::PBridge.0, EtherTypes::QinQ.0];

/// The first header of a frame, or of a packet in a tunnel.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) link_type: LinkType,
    /// The EtherType of a [`LinkType::RawIp`] packet. Without it, the version in the IP header decides.
    pub(super) ethertype: Option<u16>,
}

/// Reads the link header into `link`. Returns the EtherType of the network layer; `None` if the
/// decoder does not know the link type.
///
/// # Errors
/// [`Problem`], if the header is incomplete, or names an unknown IP version or address family.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    start: Start,
    link: &mut LinkLayer,
) -> Result<Option<u16>, Problem> {
    let ethertype = match start.link_type {
        LinkType::Ethernet => read_ethernet(cursor, link)?,
        LinkType::RawIp => match start.ethertype {
            Some(ethertype) => ethertype,
            None => ethertype_of_version(cursor)?,
        },
        LinkType::LinuxCooked1 => read_cooked1(cursor, link)?,
        LinkType::LinuxCooked2 => read_cooked2(cursor, link)?,
        LinkType::Null => {
            let family = read_address_family(cursor)?;
            // Families are small: one beyond 16 bits is in the other byte order.
            ethertype_of_family(if family > u16::MAX.into() { family.swap_bytes() } else { family })?
        }
        LinkType::Loop => ethertype_of_family(read_address_family(cursor)?)?,
        LinkType::Nflog => nflog::read(cursor)?,
        LinkType::Ppp => match ppp::read(cursor, link)? {
            Some(ethertype) => ethertype,
            None => return Ok(None),
        },
        LinkType::Other(_) => return Ok(None),
    };
    link.ethertype = Some(read_tags(cursor, link, ethertype)?);
    Ok(link.ethertype)
}

fn read_ethernet(cursor: &mut Cursor<'_>, link: &mut LinkLayer) -> Result<u16, Problem> {
    let need = EthernetPacket::minimum_packet_size();
    let header = cursor.take_packet("ethernet header", need, EthernetPacket::new)?;
    link.source = Some(MacAddr(header.get_source().octets()));
    link.destination = Some(MacAddr(header.get_destination().octets()));
    Ok(header.get_ethertype().0)
}

fn read_cooked1(cursor: &mut Cursor<'_>, link: &mut LinkLayer) -> Result<u16, Problem> {
    let header = cursor.peek_packet("linux cooked header", 16, SLLPacket::new)?;
    let bytes = cursor.take("linux cooked header", 16)?;
    link.source = mac(header.get_link_layer_address_len(), bytes.get(6..12));
    Ok(header.get_protocol().0)
}

fn read_cooked2(cursor: &mut Cursor<'_>, link: &mut LinkLayer) -> Result<u16, Problem> {
    let header = cursor.peek_packet("linux cooked header", 20, SLL2Packet::new)?;
    let bytes = cursor.take("linux cooked header", 20)?;
    link.source = mac(header.get_link_layer_address_length().into(), bytes.get(12..18));
    Ok(header.get_protocol_type().0)
}

/// Reads the VLAN tags. Returns the EtherType behind them.
fn read_tags(cursor: &mut Cursor<'_>, link: &mut LinkLayer, mut ethertype: u16) -> Result<u16, Problem> {
    while TAGS.contains(&ethertype) && !link.vlan.is_full() {
        let tag = cursor.take_packet("vlan tag", 4, VlanPacket::new)?;
        let tci = u16::from(tag.get_priority_code_point().0) << 13
            | u16::from(tag.get_drop_eligible_indicator()) << 12
            | tag.get_vlan_identifier();
        link.vlan.push(VlanTag { tpid: ethertype, tci });
        ethertype = tag.get_ethertype().0;
    }
    Ok(ethertype)
}

fn read_address_family(cursor: &mut Cursor<'_>) -> Result<u32, Problem> {
    let bytes = cursor.take("loopback header", 4)?;
    Ok(bytes.iter().fold(0, |family, byte| family << 8 | u32::from(*byte)))
}

fn ethertype_of_version(cursor: &Cursor<'_>) -> Result<u16, Problem> {
    match cursor.peek("ip header", 1)?.first().map_or(0, |byte| byte >> 4) {
        4 => Ok(ETHERTYPE_IPV4),
        6 => Ok(ETHERTYPE_IPV6),
        version => Err(Problem::IpVersion(version)),
    }
}

/// AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on
/// macOS (tcpdump.org, LINKTYPE_NULL).
pub(super) fn ethertype_of_family(family: u32) -> Result<u16, Problem> {
    match family {
        2 => Ok(ETHERTYPE_IPV4),
        10 | 24 | 28 | 30 => Ok(ETHERTYPE_IPV6),
        other => Err(Problem::AddressFamily(other)),
    }
}

/// Returns the address of a cooked header if it has the length of a MAC address.
fn mac(length: u16, bytes: Option<&[u8]>) -> Option<MacAddr> {
    bytes.filter(|_| length == 6)?.try_into().ok().map(MacAddr)
}
