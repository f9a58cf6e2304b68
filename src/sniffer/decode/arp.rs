//! Reads ARP packets (RFC 826).
use pnet_packet::{
    arp::{ArpHardwareTypes, ArpPacket},
    ethernet::EtherTypes,
};

use super::{cursor::Cursor, headers::Arp, problem::Problem};
use crate::net::MacAddr;

/// Reads an ARP packet and takes the rest of the frame for padding.
///
/// # Errors
/// [`Problem`], if the packet is incomplete.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Arp, Problem> {
    let arp = cursor.take_packet("arp packet", ArpPacket::minimum_packet_size(), ArpPacket::new)?;
    cursor.narrow(0);
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
