//! The ARP packets and NDP messages that are sent from an address.
use super::{
    arp,
    ndp::{self, ALL_NODES, multicast_mac},
};
use crate::{
    link::{ETHERTYPE_ARP, ETHERTYPE_IPV6, Link, LinkError, LinkHeader, NextHop, Outgoing},
    net::MacAddr,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address on an interface, and its link address: this host's own, or an assumed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The IP address.
    pub address: IpAddr,
    /// The link address to announce for it.
    pub mac: MacAddr,
    /// The interface's index.
    pub interface: u32,
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The link-layer destination.
    pub next_hop: NextHop,
    /// The frame's EtherType.
    pub ethertype: u16,
    /// The network-layer bytes.
    pub packet: Vec<u8>,
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

impl LocalAddress {
    /// Returns a request for the link address of `target`.
    pub(crate) fn solicit(&self, target: IpAddr) -> Message {
        match (self.address, target) {
            (IpAddr::V4(own), IpAddr::V4(target)) => self.arp_request(own, target),
            (own, target) => self.solicitation(v6(own), v6(target)),
        }
    }

    /// Returns a probe for a host that has our address already (RFC 5227, section 2.1; RFC 4862,
    /// section 5.4).
    pub(super) fn probe(&self) -> Message {
        match self.address {
            IpAddr::V4(own) => self.arp_request(Ipv4Addr::UNSPECIFIED, own),
            IpAddr::V6(own) => self.solicitation(Ipv6Addr::UNSPECIFIED, own),
        }
    }

    /// Returns an announcement that the address is ours (RFC 5227, section 2.3; RFC 4861, section
    /// 7.2.6).
    pub(super) fn announce(&self) -> Message {
        match self.address {
            IpAddr::V4(own) => self.arp_request(own, own),
            IpAddr::V6(own) => self.advertisement(own, ALL_NODES, multicast_mac(ALL_NODES)),
        }
    }

    /// Returns the answer to a request for our address.
    pub(super) fn answer(&self, by: IpAddr, at: MacAddr) -> Message {
        match (self.address, by) {
            (IpAddr::V4(own), IpAddr::V4(by)) => {
                self.message(at, ETHERTYPE_ARP, arp::reply(self.mac, own, (at, by)))
            }
            // RFC 4861, section 7.2.4: a probe, whose source is unspecified, is answered to all
            // nodes.
            (own, by) if by.is_unspecified() => {
                self.advertisement(v6(own), ALL_NODES, multicast_mac(ALL_NODES))
            }
            (own, by) => self.advertisement(v6(own), v6(by), at),
        }
    }

    fn arp_request(&self, sender: Ipv4Addr, target: Ipv4Addr) -> Message {
        self.message(MacAddr::BROADCAST, ETHERTYPE_ARP, arp::request(self.mac, sender, target))
    }

    fn solicitation(&self, source: Ipv6Addr, target: Ipv6Addr) -> Message {
        let (group, packet) = ndp::solicitation(self.mac, source, target);
        self.message(multicast_mac(group), ETHERTYPE_IPV6, packet)
    }

    fn advertisement(&self, own: Ipv6Addr, to: Ipv6Addr, at: MacAddr) -> Message {
        self.message(at, ETHERTYPE_IPV6, ndp::advertisement(self.mac, own, to))
    }

    fn message(&self, to: MacAddr, ethertype: u16, packet: Vec<u8>) -> Message {
        let header = LinkHeader::Ethernet { destination: to, source: self.mac };
        Message { next_hop: NextHop { interface: self.interface, header }, ethertype, packet }
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
