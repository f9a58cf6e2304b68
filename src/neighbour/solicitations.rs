//! Solicitations of neighbours, by ARP or NDP, and their answers.
use super::local_address::{LocalAddress, Message};
use crate::{
    link::{Link, LinkError, LinkHeader, NextHop},
    net::MacAddr,
};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Minimum interval between solicitations of one neighbour (RFC 4861, section 10, RETRANS_TIMER;
/// RFC 1122, section 2.3.2.1).
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum neighbours remembered as solicited, and maximum answers remembered.
const MAX_SOLICITED: usize = 256;
/// Lifetime of the answer to a solicitation (RFC 4861, section 10, REACHABLE_TIME).
const REACHABLE: Duration = Duration::from_secs(30);

/// Solicitations to send, and the answers to recent ones.
#[derive(Debug, Default)]
pub(crate) struct Solicitations {
    solicited: HashMap<(u32, IpAddr), Duration>,
    answers: HashMap<(u32, IpAddr), (MacAddr, Duration)>,
    to_send: Vec<Message>,
}

impl Solicitations {
    /// Solicits the link address of `neighbour` from `local`, unless it was solicited within the
    /// last second.
    pub(crate) fn solicit(&mut self, now: Duration, local: IpAddr, next_hop: &NextHop, neighbour: IpAddr) {
        let LinkHeader::Ethernet { source: mac, .. } = next_hop.header else { return };
        if local.is_ipv4() != neighbour.is_ipv4() {
            return;
        }
        let interface = next_hop.interface;
        self.solicited.retain(|_, at| now < *at + SOLICIT_INTERVAL);
        if self.solicited.contains_key(&(interface, neighbour)) || self.solicited.len() >= MAX_SOLICITED {
            return;
        }
        log::debug!("asking for the link address of {neighbour}");
        self.solicited.insert((interface, neighbour), now);
        self.to_send.push(LocalAddress { address: local, mac, interface }.solicit(neighbour));
    }

    /// Stores a neighbour's announcement, if the neighbour was solicited.
    pub(crate) fn note(&mut self, now: Duration, interface: u32, neighbour: IpAddr, mac: MacAddr) {
        let key = (interface, neighbour);
        let solicited = self.solicited.get(&key).is_some_and(|at| now < *at + SOLICIT_INTERVAL);
        if solicited {
            self.answers.retain(|_, (_, at)| now < *at + REACHABLE);
            if self.answers.len() < MAX_SOLICITED || self.answers.contains_key(&key) {
                self.answers.insert(key, (mac, now));
            }
        }
    }

    /// Takes the neighbour's answer to a solicitation, and makes room for others.
    pub(crate) fn take_answer(&mut self, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        let (mac, _) = self.answers.remove(&(interface, neighbour))?;
        self.solicited.remove(&(interface, neighbour));
        Some(mac)
    }

    /// Returns the neighbour's answer to a recent solicitation.
    pub(crate) fn answer(&self, now: Duration, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        let (mac, at) = self.answers.get(&(interface, neighbour))?;
        (now < *at + REACHABLE).then_some(*mac)
    }

    /// Sends the solicitations that are due. A lost one is repeated by the next
    /// [`Solicitations::solicit`].
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub(crate) fn send(&mut self, link: &mut dyn Link) -> Result<(), LinkError> {
        self.to_send.drain(..).try_for_each(|message| message.send(link))
    }
}
