//! Neighbour Discovery for IPv6 over Ethernet (RFC 4861).
use super::{Announcement, AnnouncementSource, Request, Resolution};
use crate::net::{MacAddr, ip_protocol::ICMPV6};
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};
use std::net::Ipv6Addr;

/// The link-local all-nodes group (RFC 4291, section 2.7.1).
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Hop limit of NDP messages (RFC 4861, section 7.1). A message with another one has crossed a
/// router and is forged.
const HOP_LIMIT: u8 = 255;

/// Parses the IPv6 packet of a neighbour solicitation or advertisement; `from` is the frame's
/// source. NDP messages have no extension headers.
pub(super) fn parse(packet: &[u8], from: MacAddr) -> Option<Resolution> {
    // Most packets are a flow's, and cost this comparison only.
    if packet.get(6) != Some(&ICMPV6) {
        return None;
    }
    let ip = Ipv6Packet::new_checked(packet).ok().filter(|ip| ip.hop_limit() == HOP_LIMIT)?;
    let source = ip.src_addr();
    let message = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    if !message.verify_checksum(&source, &ip.dst_addr()) {
        return None;
    }
    match NdiscRepr::parse(&message).ok()? {
        NdiscRepr::NeighborSolicit { target_addr: target, lladdr } => {
            let mac = lladdr.and_then(mac);
            let announcement =
                |mac| Announcement { address: source.into(), mac, source: AnnouncementSource::Neighbour };
            let request = Request { target: target.into(), by: source.into(), at: mac.unwrap_or(from) };
            Some(Resolution { announcement: mac.map(announcement), request: Some(request) })
        }
        NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
            let source = match flags.contains(NdiscNeighborFlags::OVERRIDE) {
                true => AnnouncementSource::Neighbour,
                false => AnnouncementSource::Proxy,
            };
            let announcement = Announcement { address: target_addr.into(), mac: mac(lladdr?)?, source };
            Some(Resolution { announcement: Some(announcement), request: None })
        }
        _ => None,
    }
}

fn mac(address: RawHardwareAddress) -> Option<MacAddr> {
    address.as_bytes().try_into().ok().map(MacAddr)
}

/// Writes a solicitation for `target` to its solicited-node group, which is returned, too.
pub(super) fn solicitation(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> (Ipv6Addr, Vec<u8>) {
    // The group ends in the target's last three bytes (RFC 4291, section 2.7.1).
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    // RFC 4861, section 4.3: no link address with an unspecified source.
    let lladdr = (!source.is_unspecified()).then_some(EthernetAddress(mac.0).into());
    let message = NdiscRepr::NeighborSolicit { target_addr: target, lladdr };
    (group, write(source, group, message))
}

/// Writes an advertisement of `source` to `to`.
pub(super) fn advertisement(mac: MacAddr, source: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let solicited = match to {
        ALL_NODES => NdiscNeighborFlags::empty(),
        _ => NdiscNeighborFlags::SOLICITED,
    };
    let message = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE | solicited,
        target_addr: source,
        lladdr: Some(EthernetAddress(mac.0).into()),
    };
    write(source, to, message)
}

fn write(source: Ipv6Addr, destination: Ipv6Addr, message: NdiscRepr<'_>) -> Vec<u8> {
    let header = Ipv6Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let mut bytes = vec![0; header.buffer_len() + message.buffer_len()];
    let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
    header.emit(&mut packet);
    message.emit(&mut Icmpv6Packet::new_unchecked(packet.payload_mut()));
    fill_checksum(&mut bytes);
    bytes
}

/// Writes the checksum of an ICMPv6 message behind its IPv6 header.
pub(super) fn fill_checksum(packet: &mut [u8]) {
    if let Ok(mut ip) = Ipv6Packet::new_checked(packet) {
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        if let Ok(mut message) = Icmpv6Packet::new_checked(ip.payload_mut()) {
            message.fill_checksum(&source, &destination);
        }
    }
}

/// Returns the Ethernet address of an IPv6 group (RFC 2464, section 7).
pub(super) fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}
