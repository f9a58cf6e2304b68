//! Ethernet frames, built header by header. Checksums are left zero: the matcher does not look at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_VLAN: u16 = 0x8100;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;

/// Returns a frame to the device of test runs: lo, whose link address is zero.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns a frame around an IP packet of either version.
pub fn around(packet: &[u8]) -> Vec<u8> {
    let ipv6 = packet.first().is_some_and(|b| b >> 4 == 6);
    ethernet(if ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }, packet)
}

/// An IPv4 header; `offset` is the fragment's in bytes.
#[derive(Clone, Debug)]
pub struct Ip4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub options: usize,
    pub offset: u16,
    pub more: bool,
}

impl Ip4 {
    pub fn new(source: &str, destination: &str, protocol: u8) -> Ip4 {
        Ip4 {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            options: 0,
            offset: 0,
            more: false,
        }
    }

    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let ihl = 20 + self.options;
        let mut packet = vec![0x40 | (ihl / 4) as u8, 0];
        packet.extend(((ihl + payload.len()) as u16).to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(((self.offset / 8) | (u16::from(self.more) << 13)).to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(vec![1; self.options]);
        packet.extend(payload);
        packet
    }
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Number of the header (0, 43, 60 or 135) and its length in units of eight bytes beyond the first.
    Options(u8, u8),
    /// Length in units of four bytes beyond the first two.
    Authentication(u8),
    /// The fragment's offset in bytes.
    Fragment(u16),
}

impl Extension {
    fn number(&self) -> u8 {
        match self {
            Extension::Options(number, _) => *number,
            Extension::Authentication(_) => 51,
            Extension::Fragment(_) => 44,
        }
    }

    fn bytes(&self, next: u8) -> Vec<u8> {
        match self {
            Extension::Options(_, length) => {
                let mut bytes = vec![0; (usize::from(*length) + 1) * 8];
                bytes[..2].copy_from_slice(&[next, *length]);
                bytes
            }
            Extension::Authentication(length) => {
                let mut bytes = vec![0; (usize::from(*length) + 2) * 4];
                bytes[..2].copy_from_slice(&[next, *length]);
                bytes
            }
            Extension::Fragment(offset) => {
                let [high, low] = (offset & 0xfff8 | 1).to_be_bytes();
                vec![next, 0, high, low, 0, 0, 0, 7]
            }
        }
    }
}

pub fn ip6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    extensions: &[Extension],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = payload.to_vec();
    let mut next = protocol;
    for extension in extensions.iter().rev() {
        let mut bytes = extension.bytes(next);
        bytes.extend(body);
        body = bytes;
        next = extension.number();
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(body);
    packet
}

/// Returns a TCP or UDP header's ports and 16 bytes more.
pub fn transport(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 16]);
    bytes
}

/// Returns an ICMP or ICMPv6 message: its header is eight bytes in all types used here.
pub fn icmp(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(body);
    bytes
}

pub fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
    bytes.extend([2, 0, 0, 0, 0, 2]);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}

/// Returns a plain packet of either family.
pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ip4 { source, destination, protocol, options: 0, offset: 0, more: false }.packet(payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => ip6(source, destination, &[], protocol, payload),
        _ => panic!("two families in one packet"),
    }
}
