//! Impersonation of another host on the link: answers requests for its address, and solicits
//! neighbours from that address.
use super::{
    Announcement, Resolution,
    local_address::{LocalAddress, Message},
};
use crate::{
    link::{Link, LinkError},
    net::MacAddr,
};
use std::net::IpAddr;

/// An assumed address. Its messages leave with the next [`crate::stack::Stack::egress`].
#[derive(Debug)]
pub(crate) struct Impersonation {
    assumed: LocalAddress,
    /// The neighbour being solicited, and its link address once known.
    sought: Option<(IpAddr, Option<MacAddr>)>,
    /// Link address of another host that claims our address.
    conflict: Option<MacAddr>,
    announced: bool,
    to_send: Vec<Message>,
}

impl Impersonation {
    /// Returns the impersonation of an address.
    pub(crate) fn new(assumed: LocalAddress) -> Impersonation {
        Impersonation { assumed, sought: None, conflict: None, announced: false, to_send: Vec::new() }
    }

    /// Returns the index of the interface at which the address is assumed.
    pub(crate) fn interface(&self) -> u32 {
        self.assumed.interface
    }

    /// Probes for a host that has the address; [`Impersonation::conflict`] returns the answer.
    pub(crate) fn probe(&mut self) {
        self.to_send.push(self.assumed.probe());
    }

    /// Announces that the address is ours.
    pub(crate) fn announce(&mut self) {
        self.announced = true;
        self.to_send.push(self.assumed.announce());
    }

    /// Solicits the link address of a neighbour; [`Impersonation::neighbour`] returns the answer.
    pub(crate) fn solicit(&mut self, address: IpAddr) {
        self.to_send.push(self.assumed.solicit(address));
        if self.sought.is_none_or(|(sought, _)| sought != address) {
            self.sought = Some((address, None));
        }
    }

    /// Returns the link address of the neighbour that was solicited last.
    pub(crate) fn neighbour(&self) -> Option<MacAddr> {
        self.sought?.1
    }

    /// Returns the link address of another host that claims the address.
    pub(crate) fn conflict(&self) -> Option<MacAddr> {
        self.conflict
    }

    /// Returns whether messages are due.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.to_send.is_empty()
    }

    /// Sends the messages that are due. A lost one is not retransmitted here.
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub(crate) fn send(&mut self, link: &mut dyn Link) -> Result<(), LinkError> {
        self.to_send.drain(..).try_for_each(|message| message.send(link))
    }

    /// Handles a received ARP packet or NDP message. Our own, which the link may bring back, are
    /// ignored.
    pub(crate) fn handle(&mut self, message: &Resolution) {
        let assumed = &self.assumed;
        match message.announcement.filter(|announcement| announcement.mac != assumed.mac) {
            // A conflict over our address matters more than the request.
            Some(Announcement { address, mac, .. }) if address == assumed.address => {
                // The address is defended once after its announcement (RFC 5227, section 2.4, case
                // b).
                if self.conflict.replace(mac).is_none() && self.announced {
                    log::warn!("{mac} claims {address}, too");
                    self.to_send.push(assumed.announce());
                }
                return;
            }
            Some(Announcement { address, mac, .. }) => {
                if let Some((sought, answer)) = &mut self.sought
                    && *sought == address
                {
                    *answer = Some(mac);
                }
            }
            None => {}
        }
        if let Some(request) = message.request
            && request.target == assumed.address
            && request.at != assumed.mac
        {
            self.to_send.push(assumed.answer(request.by, request.at));
        }
    }
}
