//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).
use super::{Announcement, AnnouncementSource, Request, Resolution};
use crate::net::MacAddr;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};
use std::net::Ipv4Addr;

/// Parses an ARP packet.
pub(super) fn parse(packet: &[u8]) -> Option<Resolution> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    let mac = MacAddr(mac);
    let announcement = Announcement { address: sender.into(), mac, source: AnnouncementSource::Neighbour };
    let request = Request { target: target.into(), by: sender.into(), at: mac };
    Some(Resolution {
        // A probe has no sender address (RFC 5227, section 1.1).
        announcement: (!sender.is_unspecified()).then_some(announcement),
        request: (operation == ArpOperation::Request).then_some(request),
    })
}

/// Writes a request for the link address of `target`.
pub(super) fn request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    write(ArpOperation::Request, (mac, sender), (MacAddr([0; 6]), target))
}

/// Writes the reply to a request by `to`.
pub(super) fn reply(mac: MacAddr, sender: Ipv4Addr, to: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    write(ArpOperation::Reply, (mac, sender), to)
}

fn write(operation: ArpOperation, from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.0.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress(to.0.0),
        target_protocol_addr: to.1,
    };
    let mut bytes = vec![0; packet.buffer_len()];
    packet.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    bytes
}
