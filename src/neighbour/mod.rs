//! Neighbours and their link addresses: ARP and NDP.
//!
//! The kernel answers requests for this host's own addresses. netkat answers for an assumed address
//! only ([`Impersonation`]), and solicits neighbours from either (`Solicitations`). `parse`
//! reads a received packet once for both; what they have to say waits until their `send`.
mod arp;
mod impersonation;
mod local_address;
mod ndp;
mod next_hop;
mod solicitations;

use crate::{
    link::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
    net::MacAddr,
};
use std::net::IpAddr;

pub(crate) use impersonation::Impersonation;
pub use local_address::LocalAddress;
pub(crate) use local_address::Message;
pub use next_hop::Neighbour;
pub(crate) use solicitations::Solicitations;

/// A received ARP packet or NDP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolution {
    /// The link address that it announces.
    pub announcement: Option<Announcement>,
    /// The link address that it requests.
    pub request: Option<Request>,
}

/// A neighbour's link address: of the sender of an ARP packet, the target of an advertisement, or
/// the source of a solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// The neighbour's IP address.
    pub address: IpAddr,
    /// The neighbour's link address.
    pub mac: MacAddr,
    /// The announcement's weight.
    pub source: AnnouncementSource,
}

/// The origin of an announcement of a link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnnouncementSource {
    /// This host's kernel, whose neighbour table includes the administrator's entries.
    Kernel,
    /// The neighbour itself, which means to override what is known (the override flag of RFC 4861,
    /// section 4.4; ARP always overrides).
    Neighbour,
    /// A proxy, or one of several hosts with the address. It is believed only where the old link
    /// address is silent.
    Proxy,
}

/// A request for a link address: a solicitation, or a probe for another host with the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The IP address whose link address is requested.
    pub target: IpAddr,
    /// The requester's IP address, unspecified in a probe.
    pub by: IpAddr,
    /// The requester's link address.
    pub at: MacAddr,
}

/// Parses a frame's network-layer bytes as an ARP packet or NDP message; `from` is the frame's
/// source. Returns `None` for malformed ones and other packets.
pub(crate) fn parse(ethertype: u16, packet: &[u8], from: MacAddr) -> Option<Resolution> {
    let resolution = match ethertype {
        ETHERTYPE_ARP => arp::parse(packet)?,
        ETHERTYPE_IPV6 => ndp::parse(packet, from)?,
        _ => return None,
    };
    let announcement = resolution.announcement.filter(|announcement| !announcement.mac.is_group());
    Some(Resolution { announcement, ..resolution })
}

#[cfg(test)]
mod tests {
    use super::{local_address::Message, *};
    use proptest::prelude::*;

    const FROM: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn host(last: u8, v6: bool) -> LocalAddress {
        let address = match v6 {
            false => IpAddr::from([10, 0, 0, last]),
            true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]),
        };
        LocalAddress { address, mac: MacAddr([2, 0, 0, 0, 0, last]), interface: 1 }
    }

    fn received(message: &Message) -> Resolution {
        parse(message.ethertype, &message.packet, FROM).expect("our own message")
    }

    fn announced(host: LocalAddress) -> Option<Announcement> {
        let LocalAddress { address, mac, .. } = host;
        Some(Announcement { address, mac, source: AnnouncementSource::Neighbour })
    }

    #[test]
    fn a_solicitation_requests_and_announces_and_an_answer_announces() {
        for v6 in [false, true] {
            let (a, b) = (host(1, v6), host(2, v6));
            let solicitation = received(&a.solicit(b.address));
            assert_eq!(solicitation.announcement, announced(a));
            assert_eq!(solicitation.request, Some(Request { target: b.address, by: a.address, at: a.mac }));
            let answer = b.answer(a.address, a.mac);
            assert_eq!(answer.next_hop.destination(), Some(a.mac));
            assert_eq!(received(&answer), Resolution { announcement: announced(b), request: None });
        }
    }

    #[test]
    fn a_probe_requests_and_announces_nothing() {
        for v6 in [false, true] {
            let owner = host(1, v6);
            let probe = received(&owner.probe());
            assert_eq!(probe.announcement, None);
            let Some(Request { target, by, at }) = probe.request else { panic!("{probe:?}") };
            assert_eq!(target, owner.address);
            assert_eq!(received(&owner.answer(by, at)).announcement, announced(owner));
        }
    }

    #[test]
    fn an_announcement_announces() {
        for v6 in [false, true] {
            assert_eq!(received(&host(1, v6).announce()).announcement, announced(host(1, v6)));
        }
    }

    #[test]
    fn a_group_link_address_is_not_believed() {
        for v6 in [false, true] {
            let group = LocalAddress { mac: MacAddr([3, 0, 0, 0, 0, 1]), ..host(1, v6) };
            assert_eq!(received(&group.solicit(host(2, v6).address)).announcement, None);
        }
    }

    #[test]
    fn neighbour_discovery_from_afar_is_forged() {
        let mut solicitation = host(1, true).solicit(host(2, true).address);
        solicitation.packet[7] = 254;
        assert_eq!(parse(solicitation.ethertype, &solicitation.packet, FROM), None);
    }

    proptest! {
        #[test]
        fn hostile_messages_do_not_panic(
            v6: bool,
            cut in 0..80usize,
            flips in proptest::collection::vec((0..80usize, any::<u8>()), 0..5),
        ) {
            let mut message = host(1, v6).solicit(host(2, v6).address);
            message.packet.truncate(cut);
            for (at, value) in flips {
                if let Some(byte) = message.packet.get_mut(at) {
                    *byte = value;
                }
            }
            // A wrong checksum must not hide what lies behind it.
            if v6 && let Some(packet) = message.packet.get_mut(..).filter(|packet| packet.len() > 48) {
                ndp::fill_checksum(packet);
            }
            let _ = parse(message.ethertype, &message.packet, FROM);
        }
    }
}
