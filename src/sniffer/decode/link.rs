//! Link headers: Ethernet with its tags, Linux cooked, BSD loopback, none.
use pnet_packet::{
    ethernet::{EtherTypes, EthernetPacket},
    sll::SLLPacket,
    sll2::SLL2Packet,
    vlan::VlanPacket,
};

use super::{Decoder, Network, Problem};
use crate::{
    net::MacAddr,
    sniffer::{LinkType, Observed, VlanTag},
};

/// IEEE 802.1Q, 802.1ad, and the QinQ that went before it.
const TAGS: [u16; 3] = [EtherTypes::Vlan.0, EtherTypes::PBridge.0, EtherTypes::QinQ.0];

impl Decoder<'_> {
    pub(super) fn frame(&mut self, frame: &Observed<'_>) -> Result<(), Problem> {
        let link = &mut self.decoded.link;
        link.vlan.extend(frame.vlan);
        let ethertype = match frame.link {
            LinkType::Ethernet => self.ethernet()?,
            LinkType::RawIp => match frame.ethertype {
                Some(ethertype) => ethertype,
                None => self.by_version()?,
            },
            LinkType::LinuxCooked1 => self.cooked1()?,
            LinkType::LinuxCooked2 => self.cooked2()?,
            LinkType::Null => {
                let family = self.family()?;
                // The capturing machine's byte order shows in which half the small number stands.
                self.by_family(if family > u32::from(u16::MAX) { family.swap_bytes() } else { family })?
            }
            LinkType::Loop => {
                let family = self.family()?;
                self.by_family(family)?
            }
            LinkType::Other(_) => {
                self.decoded.network = Network::Unknown;
                return Ok(());
            }
        };
        let ethertype = self.tags(ethertype)?;
        self.decoded.link.ethertype = Some(ethertype);
        self.network(ethertype)
    }

    fn ethernet(&mut self) -> Result<u16, Problem> {
        let need = EthernetPacket::minimum_packet_size();
        let header = self.cursor.packet("ethernet header", need, EthernetPacket::new)?;
        self.cursor.skip(need);
        self.decoded.link.source = Some(MacAddr(header.get_source().octets()));
        self.decoded.link.destination = Some(MacAddr(header.get_destination().octets()));
        Ok(header.get_ethertype().0)
    }

    fn cooked1(&mut self) -> Result<u16, Problem> {
        let header = self.cursor.packet("linux cooked header", 16, SLLPacket::new)?;
        let bytes = self.cursor.take("linux cooked header", 16)?;
        self.decoded.link.source = address(header.get_link_layer_address_len(), bytes.get(6..12));
        Ok(header.get_protocol().0)
    }

    fn cooked2(&mut self) -> Result<u16, Problem> {
        let header = self.cursor.packet("linux cooked header", 20, SLL2Packet::new)?;
        let bytes = self.cursor.take("linux cooked header", 20)?;
        self.decoded.link.source = address(header.get_link_layer_address_length().into(), bytes.get(12..18));
        Ok(header.get_protocol_type().0)
    }

    fn tags(&mut self, mut ethertype: u16) -> Result<u16, Problem> {
        while TAGS.contains(&ethertype) && !self.decoded.link.vlan.is_full() {
            let tag = self.cursor.packet("vlan tag", 4, VlanPacket::new)?;
            self.cursor.skip(4);
            let tci = u16::from(tag.get_priority_code_point().0) << 13
                | u16::from(tag.get_drop_eligible_indicator()) << 12
                | tag.get_vlan_identifier();
            self.decoded.link.vlan.push(VlanTag { tpid: ethertype, tci });
            ethertype = tag.get_ethertype().0;
        }
        Ok(ethertype)
    }

    fn by_version(&self) -> Result<u16, Problem> {
        match self.cursor.peek("ip header", 1)?.first().map_or(0, |byte| byte >> 4) {
            4 => Ok(EtherTypes::Ipv4.0),
            6 => Ok(EtherTypes::Ipv6.0),
            version => Err(Problem::IpVersion(version)),
        }
    }

    fn family(&mut self) -> Result<u32, Problem> {
        let bytes = self.cursor.take("loopback header", 4)?;
        Ok(bytes.iter().fold(0, |family, byte| family << 8 | u32::from(*byte)))
    }

    /// AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on macOS
    /// (tcpdump.org's LINKTYPE_NULL).
    fn by_family(&self, family: u32) -> Result<u16, Problem> {
        match family {
            2 => Ok(EtherTypes::Ipv4.0),
            10 | 24 | 28 | 30 => Ok(EtherTypes::Ipv6.0),
            other => Err(Problem::AddressFamily(other)),
        }
    }
}

fn address(length: u16, bytes: Option<&[u8]>) -> Option<MacAddr> {
    bytes.filter(|_| length == 6)?.try_into().ok().map(MacAddr)
}
