//! ARP (RFC 826, RFC 5227) and NDP (RFC 4861) messages, parsed and written.
//!
//! The kernel answers requests for this host's own addresses. The stack answers for an assumed
//! address only, and solicits neighbours from either.
use super::ip::{self, Fragmentation, ICMPV6, Template};
use crate::{
    link::{ETHERTYPE_ARP, ETHERTYPE_IPV6, Link, LinkError, LinkHeader, NextHop, Outgoing},
    net::MacAddr,
};
use pnet_base::MacAddr as PnetMac;
use pnet_packet::{
    arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket},
    ethernet::EtherTypes,
    icmpv6::{
        Icmpv6Types,
        ndp::{
            MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NdpOption, NdpOptionTypes,
            NeighborAdvertFlags, NeighborAdvertPacket, NeighborSolicitPacket,
        },
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an ARP packet for IPv4 over Ethernet, in bytes.
const ARP_LEN: usize = 28;
/// Length of a solicitation or advertisement with one link-layer address option, in bytes.
const NDP_LEN: usize = 32;
/// Hop limit of NDP messages (RFC 4861, section 7.1). A message with another one has crossed a
/// router and is forged.
const NDP_HOP_LIMIT: u8 = 255;

/// An address that this host does not own and answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssumedAddress {
    /// The IP address.
    pub address: IpAddr,
    /// The link address to announce for it.
    pub mac: MacAddr,
    /// The interface's index.
    pub interface: u32,
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The link-layer destination.
    pub next_hop: NextHop,
    /// The frame's EtherType.
    pub ethertype: u16,
    /// The network-layer bytes.
    pub packet: Vec<u8>,
}

/// A received message about our address or a neighbour's link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// A request or probe for our address by the host at `by`. It has to be answered.
    Request { by: IpAddr, at: MacAddr },
    /// A claim that `address` has this link address.
    Claim { address: IpAddr, mac: MacAddr },
}

/// A neighbour's link address, as its ARP or NDP message gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The neighbour's IP address.
    pub address: IpAddr,
    /// The neighbour's link address.
    pub mac: MacAddr,
    /// Whether the announcement overrides what is known. In NDP, those of proxies and anycast
    /// addresses do not (RFC 4861, section 4.4); in ARP, all do.
    pub overrides: bool,
}

/// Parses a frame's network-layer bytes for a neighbour's link address: of the sender of an ARP
/// packet, the target of an advertisement, or the source of a solicitation.
pub fn overhear(ethertype: u16, packet: &[u8]) -> Option<Announcement> {
    match ethertype {
        ETHERTYPE_ARP => {
            let arp = arp(packet)?;
            let address = arp.get_sender_proto_addr();
            let mac = mac(arp.get_sender_hw_addr());
            // A probe has no sender address (RFC 5227, section 1.1).
            let names_a_host = !address.is_unspecified() && mac.0[0] & 1 == 0;
            names_a_host.then_some(Announcement { address: address.into(), mac, overrides: true })
        }
        // The protocol is checked before the checksum, because most packets are a flow's. NDP has
        // no extension headers.
        ETHERTYPE_IPV6 if packet.get(6) == Some(&ICMPV6) => {
            let (source, message) = ndp(packet)?;
            let kind = *message.first()?;
            let (address, option, overrides) = if kind == Icmpv6Types::NeighborAdvert.0 {
                let advertisement = NeighborAdvertPacket::new(message)?;
                let overrides = advertisement.get_flags() & NeighborAdvertFlags::Override != 0;
                (advertisement.get_target_addr().into(), NdpOptionTypes::TargetLLAddr, overrides)
            } else if kind == Icmpv6Types::NeighborSolicit.0 {
                (source, NdpOptionTypes::SourceLLAddr, true)
            } else {
                return None;
            };
            let mac = link_address(message, option.0).filter(|mac| mac.0[0] & 1 == 0)?;
            Some(Announcement { address, mac, overrides })
        }
        _ => None,
    }
}

/// Parses an ARP packet for IPv4 over Ethernet.
fn arp(packet: &[u8]) -> Option<ArpPacket<'_>> {
    ArpPacket::new(packet).filter(|arp| {
        arp.get_hw_addr_len() == 6
            && arp.get_proto_addr_len() == 4
            && arp.get_protocol_type() == EtherTypes::Ipv4
    })
}

/// Returns the source and the ICMPv6 message of a packet that may be NDP: intact, and sent from
/// this link.
fn ndp(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let header = ip::parse(packet, false).ok()?;
    let message = packet.get(header.transport..header.end)?;
    let sum = ip::pseudo_header(header.source, header.destination, ICMPV6, message.len());
    let genuine =
        header.protocol == ICMPV6 && header.hop_limit == NDP_HOP_LIMIT && sum.add(message).checksum() == 0;
    genuine.then_some((header.source, message))
}

impl Message {
    /// Sends the message. A transient failure of the link counts as a lost frame.
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub(crate) fn send(&self, link: &mut dyn Link) -> Result<(), LinkError> {
        let packet = Outgoing {
            ethertype: self.ethertype,
            headers: &self.packet,
            payload: [&[], &[]],
            checksum: None,
            segmentation: None,
        };
        match link.transmit(&self.next_hop, &packet) {
            Err(error) if !error.is_transient() => Err(error),
            _ => Ok(()),
        }
    }
}

impl AssumedAddress {
    /// Returns a request for the link address of `target`.
    pub fn solicit(&self, target: IpAddr) -> Message {
        match (self.address, target) {
            (IpAddr::V4(own), IpAddr::V4(target)) => {
                self.arp(ArpOperations::Request, own, target, MacAddr::BROADCAST)
            }
            (own, target) => self.solicitation(v6(own), v6(target)),
        }
    }

    /// Returns a probe for a host that has our address already (RFC 5227, section 2.1; RFC 4862,
    /// section 5.4).
    pub fn probe(&self) -> Message {
        match self.address {
            IpAddr::V4(own) => {
                self.arp(ArpOperations::Request, Ipv4Addr::UNSPECIFIED, own, MacAddr::BROADCAST)
            }
            IpAddr::V6(own) => self.solicitation(Ipv6Addr::UNSPECIFIED, own),
        }
    }

    /// Returns an announcement that the address is ours (RFC 5227, section 2.3; RFC 4861, section
    /// 7.2.6).
    pub fn announce(&self) -> Message {
        match self.address {
            IpAddr::V4(own) => self.arp(ArpOperations::Request, own, own, MacAddr::BROADCAST),
            IpAddr::V6(_) => self.advertise(ALL_NODES.into(), multicast_mac(ALL_NODES)),
        }
    }

    /// Returns the answer to a request for our address.
    pub fn answer(&self, by: IpAddr, at: MacAddr) -> Message {
        match (self.address, by) {
            (IpAddr::V4(own), IpAddr::V4(by)) => self.arp(ArpOperations::Reply, own, by, at),
            // RFC 4861, section 7.2.4: a probe, whose source is unspecified, is answered to all
            // nodes.
            (_, by) if by.is_unspecified() => self.advertise(ALL_NODES.into(), multicast_mac(ALL_NODES)),
            (_, by) => self.advertise(by, at),
        }
    }

    /// Parses an ARP packet or an NDP message out of a frame's network-layer bytes; `from` is the
    /// frame's source. Returns `None` for other packets, malformed ones, those that are not for us,
    /// and those that we sent ourselves.
    pub fn hear(&self, ethertype: u16, packet: &[u8], from: MacAddr) -> Option<Resolution> {
        let heard = match ethertype {
            ETHERTYPE_ARP => self.hear_arp(packet),
            ETHERTYPE_IPV6 => self.hear_ndp(packet, from),
            _ => None,
        };
        heard.filter(|heard| match heard {
            Resolution::Request { at: mac, .. } | Resolution::Claim { mac, .. } => *mac != self.mac,
        })
    }

    fn hear_arp(&self, packet: &[u8]) -> Option<Resolution> {
        let arp = arp(packet)?;
        let mac = mac(arp.get_sender_hw_addr());
        let (sender, target) = (arp.get_sender_proto_addr(), arp.get_target_proto_addr());
        match arp.get_operation() {
            // A conflict over our address matters more than the request.
            _ if IpAddr::from(sender) == self.address => {
                Some(Resolution::Claim { address: self.address, mac })
            }
            ArpOperations::Request if IpAddr::from(target) == self.address => {
                Some(Resolution::Request { by: sender.into(), at: mac })
            }
            ArpOperations::Reply => Some(Resolution::Claim { address: sender.into(), mac }),
            _ => None,
        }
    }

    fn hear_ndp(&self, packet: &[u8], from: MacAddr) -> Option<Resolution> {
        let (source, message) = ndp(packet)?;
        let kind = message.first()?;
        if *kind == Icmpv6Types::NeighborSolicit.0 {
            let solicitation = NeighborSolicitPacket::new(message)?;
            if IpAddr::from(solicitation.get_target_addr()) != self.address {
                return None;
            }
            let at = link_address(message, NdpOptionTypes::SourceLLAddr.0);
            return Some(Resolution::Request { by: source, at: at.unwrap_or(from) });
        }
        if *kind == Icmpv6Types::NeighborAdvert.0 {
            let address = NeighborAdvertPacket::new(message)?.get_target_addr().into();
            let mac = link_address(message, NdpOptionTypes::TargetLLAddr.0)?;
            return Some(Resolution::Claim { address, mac });
        }
        None
    }

    fn arp(&self, operation: ArpOperation, sender: Ipv4Addr, target: Ipv4Addr, to: MacAddr) -> Message {
        let mut bytes = vec![0; ARP_LEN];
        if let Some(mut arp) = MutableArpPacket::new(&mut bytes) {
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(operation);
            arp.set_sender_hw_addr(pnet(self.mac));
            arp.set_sender_proto_addr(sender);
            if operation == ArpOperations::Reply {
                arp.set_target_hw_addr(pnet(to));
            }
            arp.set_target_proto_addr(target);
        }
        self.message(to, ETHERTYPE_ARP, bytes)
    }

    fn solicitation(&self, source: Ipv6Addr, target: Ipv6Addr) -> Message {
        // The solicited-node address ends in the target's last three bytes (RFC 4291,
        // section 2.7.1).
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
        // RFC 4861, section 4.3: no link address with an unspecified source.
        let len = if source.is_unspecified() { NDP_LEN - 8 } else { NDP_LEN };
        let mut bytes = vec![0; len];
        if let Some(mut solicitation) = MutableNeighborSolicitPacket::new(&mut bytes) {
            solicitation.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
            solicitation.set_target_addr(target);
            if len == NDP_LEN {
                solicitation.set_options(&[self.option(NdpOptionTypes::SourceLLAddr)]);
            }
        }
        self.ndp(source, group, multicast_mac(group), bytes)
    }

    fn advertise(&self, to: IpAddr, at: MacAddr) -> Message {
        let mut bytes = vec![0; NDP_LEN];
        let solicited = to != IpAddr::from(ALL_NODES);
        if let Some(mut advertisement) = MutableNeighborAdvertPacket::new(&mut bytes) {
            advertisement.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
            let solicited = if solicited { NeighborAdvertFlags::Solicited } else { 0 };
            advertisement.set_flags(NeighborAdvertFlags::Override | solicited);
            advertisement.set_target_addr(v6(self.address));
            advertisement.set_options(&[self.option(NdpOptionTypes::TargetLLAddr)]);
        }
        self.ndp(v6(self.address), v6(to), at, bytes)
    }

    fn option(&self, kind: pnet_packet::icmpv6::ndp::NdpOptionType) -> NdpOption {
        NdpOption { option_type: kind, length: 1, data: self.mac.0.to_vec() }
    }

    fn ndp(&self, source: Ipv6Addr, destination: Ipv6Addr, at: MacAddr, mut message: Vec<u8>) -> Message {
        let sum = ip::pseudo_header(source.into(), destination.into(), ICMPV6, message.len());
        let checksum = sum.add(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let template = Template {
            source: source.into(),
            destination: destination.into(),
            protocol: ICMPV6,
            hop_limit: NDP_HOP_LIMIT,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut packet = vec![0; ip::IPV6_HEADER];
        template.write(message.len(), 0, Fragmentation::Forbidden, &mut packet);
        packet.extend(message);
        self.message(at, ETHERTYPE_IPV6, packet)
    }

    fn message(&self, to: MacAddr, ethertype: u16, packet: Vec<u8>) -> Message {
        let header = LinkHeader::Ethernet { destination: to, source: self.mac };
        Message { next_hop: NextHop { interface: self.interface, header }, ethertype, packet }
    }
}

/// The link-local all-nodes group (RFC 4291, section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Returns the Ethernet address of an IPv6 group (RFC 2464, section 7).
fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Returns the link address in the options of a solicitation or advertisement (RFC 4861, section
/// 4.6.1).
fn link_address(message: &[u8], kind: u8) -> Option<MacAddr> {
    let mut options = message.get(24..)?;
    while let [option, units, ..] = *options {
        // A length of 0 is forbidden (RFC 4861, section 4.6). Taking it for 1 keeps the loop
        // advancing.
        let len = usize::from(units.max(1)) * 8;
        let body = options.get(2..len)?;
        if option == kind {
            return body.first_chunk().map(|mac| MacAddr(*mac));
        }
        options = &options[len..];
    }
    None
}

fn mac(mac: PnetMac) -> MacAddr {
    MacAddr(mac.octets())
}

fn pnet(MacAddr([a, b, c, d, e, f]): MacAddr) -> PnetMac {
    PnetMac::new(a, b, c, d, e, f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn persona(last: u8, v6: bool) -> AssumedAddress {
        let address = match v6 {
            false => IpAddr::from([10, 0, 0, last]),
            true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]),
        };
        AssumedAddress { address, mac: MacAddr([2, 0, 0, 0, 0, last]), interface: 1 }
    }

    #[test]
    fn two_personas_find_each_other() {
        for v6 in [false, true] {
            let (a, b) = (persona(1, v6), persona(2, v6));
            let question = a.solicit(b.address);
            let heard = b.hear(question.ethertype, &question.packet, FROM);
            assert_eq!(heard, Some(Resolution::Request { by: a.address, at: a.mac }));
            let answer = b.answer(a.address, a.mac);
            let LinkHeader::Ethernet { destination, source } = answer.next_hop.header else { unreachable!() };
            assert_eq!((destination, source), (a.mac, b.mac));
            let heard = a.hear(answer.ethertype, &answer.packet, FROM);
            assert_eq!(heard, Some(Resolution::Claim { address: b.address, mac: b.mac }));
        }
    }

    #[test]
    fn a_probe_finds_the_address_in_use() {
        for v6 in [false, true] {
            let (owner, mut thief) = (persona(1, v6), persona(2, v6));
            thief.address = owner.address;
            let probe = thief.probe();
            let Some(Resolution::Request { by, at }) = owner.hear(probe.ethertype, &probe.packet, FROM)
            else {
                panic!("the owner must answer a probe");
            };
            let answer = owner.answer(by, at);
            let heard = thief.hear(answer.ethertype, &answer.packet, FROM);
            assert_eq!(heard, Some(Resolution::Claim { address: owner.address, mac: owner.mac }));
        }
    }

    #[test]
    fn announcements_claim_and_our_own_are_not_heard() {
        for v6 in [false, true] {
            let (owner, mut other) = (persona(1, v6), persona(2, v6));
            other.address = owner.address;
            let claim = owner.announce();
            let heard = other.hear(claim.ethertype, &claim.packet, FROM);
            assert_eq!(heard, Some(Resolution::Claim { address: owner.address, mac: owner.mac }));
            assert_eq!(owner.hear(claim.ethertype, &claim.packet, FROM), None);
        }
    }

    #[test]
    fn whoever_asks_answers_or_announces_is_overheard() {
        for v6 in [false, true] {
            let (a, b) = (persona(1, v6), persona(2, v6));
            let words = Some(Announcement { address: a.address, mac: a.mac, overrides: true });
            for message in [a.solicit(b.address), a.answer(b.address, b.mac), a.announce()] {
                assert_eq!(overhear(message.ethertype, &message.packet), words);
            }
            let probe = a.probe();
            assert_eq!(overhear(probe.ethertype, &probe.packet), None, "a probe claims nothing");
        }
    }

    #[test]
    fn neighbour_discovery_from_afar_is_forged() {
        let (a, b) = (persona(1, true), persona(2, true));
        let mut question = a.solicit(b.address);
        question.packet[7] = 254;
        assert_eq!(b.hear(question.ethertype, &question.packet, FROM), None);
    }

    proptest! {
        #[test]
        fn hostile_messages_do_not_panic(v6: bool, cut in 0..80usize, flips in proptest::collection::vec((0..80usize, any::<u8>()), 0..5)) {
            let mut question = persona(1, v6).solicit(persona(2, v6).address);
            question.packet.truncate(cut);
            for (at, value) in flips {
                if let Some(byte) = question.packet.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = persona(2, v6).hear(question.ethertype, &question.packet, FROM);
            let _ = overhear(question.ethertype, &question.packet);
        }
    }
}
