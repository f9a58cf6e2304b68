//! Impersonation of another host on the link: answers requests for its address, and solicits
//! neighbours from that address.
use super::discovery::{AssumedAddress, Message, Resolution};
use crate::{
    link::{ETHERTYPE_ARP, Link, LinkError, LinkHeader, NextHop},
    net::MacAddr,
};
use std::net::IpAddr;

/// An assumed address. Its messages leave with the next [`super::Stack::egress`].
#[derive(Debug)]
pub struct Impersonation {
    assumed: AssumedAddress,
    /// The neighbour being solicited, and its link address once known.
    sought: Option<(IpAddr, Option<MacAddr>)>,
    /// Link address of another host that claims our address.
    rival: Option<MacAddr>,
    announced: bool,
    to_send: Vec<Message>,
}

impl Impersonation {
    /// Returns the impersonation of an address.
    pub(super) fn new(assumed: AssumedAddress) -> Impersonation {
        Impersonation { assumed, sought: None, rival: None, announced: false, to_send: Vec::new() }
    }

    /// Returns the index of the interface at which the address is assumed.
    pub fn interface(&self) -> u32 {
        self.assumed.interface
    }

    /// Probes for a host that has the address; [`Impersonation::rival`] returns the answer.
    pub fn probe(&mut self) {
        self.to_send.push(self.assumed.probe());
    }

    /// Announces that the address is ours.
    pub fn announce(&mut self) {
        self.announced = true;
        self.to_send.push(self.assumed.announce());
    }

    /// Solicits the link address of a neighbour; [`Impersonation::neighbour`] returns the answer.
    pub fn solicit(&mut self, address: IpAddr) {
        self.to_send.push(self.assumed.solicit(address));
        if self.sought.is_none_or(|(sought, _)| sought != address) {
            self.sought = Some((address, None));
        }
    }

    /// Returns the link address of the neighbour that was solicited last.
    pub fn neighbour(&self) -> Option<MacAddr> {
        self.sought?.1
    }

    /// Returns the link address of another host that claims the address.
    pub fn rival(&self) -> Option<MacAddr> {
        self.rival
    }

    /// Returns whether messages are due.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.to_send.is_empty()
    }

    /// Sends the messages that are due. A lost one is not retransmitted here.
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub(super) fn send(&mut self, link: &mut dyn Link) -> Result<(), LinkError> {
        self.to_send.drain(..).try_for_each(|message| message.send(link))
    }

    /// Handles a packet if it is address resolution. Returns whether it was.
    pub(super) fn take(&mut self, ethertype: u16, packet: &[u8], reply: &NextHop) -> bool {
        let LinkHeader::Ethernet { destination: from, .. } = reply.header else { return false };
        match self.assumed.hear(ethertype, packet, from) {
            None => return ethertype == ETHERTYPE_ARP,
            Some(Resolution::Request { by, at }) => self.to_send.push(self.assumed.answer(by, at)),
            Some(Resolution::Claim { address, mac }) if address == self.assumed.address => {
                // The address is defended once after its announcement (RFC 5227, section 2.4, case
                // b).
                if self.rival.replace(mac).is_none() && self.announced {
                    log::warn!("{mac} claims {address}, too");
                    self.to_send.push(self.assumed.announce());
                }
            }
            Some(Resolution::Claim { address, mac }) => {
                if let Some((sought, answer)) = &mut self.sought
                    && *sought == address
                {
                    *answer = Some(mac);
                }
            }
        }
        true
    }
}
