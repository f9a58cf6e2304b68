//! Being another host on the segment: whoever asks for its address is answered, and neighbours are found by
//! questions that carry its address.
use super::discovery::{Heard, Message, Persona};
use crate::{
    link::{ETHERTYPE_ARP, Link, LinkError, LinkHeader, NextHop},
    net::MacAddr,
};
use std::net::IpAddr;

/// An assumed address. Its messages leave with the next [`super::Stack::egress`].
#[derive(Debug)]
pub struct Disguise {
    persona: Persona,
    /// The neighbour whose link address we want, and the answer.
    sought: Option<(IpAddr, Option<MacAddr>)>,
    /// Who else claims our address.
    rival: Option<MacAddr>,
    announced: bool,
    to_send: Vec<Message>,
}

impl Disguise {
    pub(super) fn new(persona: Persona) -> Disguise {
        Disguise { persona, sought: None, rival: None, announced: false, to_send: Vec::new() }
    }

    /// Asks whether anybody has the address; [`Disguise::rival`] has the answer.
    pub fn probe(&mut self) {
        self.to_send.push(self.persona.probe());
    }

    /// Tells the segment that the address is ours.
    pub fn announce(&mut self) {
        self.announced = true;
        self.to_send.push(self.persona.announce());
    }

    /// Asks for the link address of a neighbour; [`Disguise::neighbour`] has the answer.
    pub fn solicit(&mut self, address: IpAddr) {
        self.to_send.push(self.persona.solicit(address));
        if self.sought.is_none_or(|(sought, _)| sought != address) {
            self.sought = Some((address, None));
        }
    }

    /// What the neighbour that was asked for last answered.
    pub fn neighbour(&self) -> Option<MacAddr> {
        self.sought?.1
    }

    /// The host that has the address, too.
    pub fn rival(&self) -> Option<MacAddr> {
        self.rival
    }

    pub(super) fn wants_to_send(&self) -> bool {
        !self.to_send.is_empty()
    }

    /// Sends what is due. What is lost on the way out will be asked for again.
    pub(super) fn send(&mut self, link: &mut dyn Link) -> Result<(), LinkError> {
        self.to_send.drain(..).try_for_each(|message| message.send(link))
    }

    /// Takes a packet if it is address resolution; whether it was.
    pub(super) fn take(&mut self, ethertype: u16, packet: &[u8], reply: &NextHop) -> bool {
        let LinkHeader::Ethernet { destination: from, .. } = reply.header else { return false };
        match self.persona.hear(ethertype, packet, from) {
            None => return ethertype == ETHERTYPE_ARP,
            Some(Heard::Asked { by, at }) => self.to_send.push(self.persona.answer(by, at)),
            Some(Heard::Told { address, mac }) if address == self.persona.address => {
                // Once the address is ours it is defended, but only once (RFC 5227, section 2.4, case b).
                if self.rival.replace(mac).is_none() && self.announced {
                    log::warn!("{mac} claims {address}, too");
                    self.to_send.push(self.persona.announce());
                }
            }
            Some(Heard::Told { address, mac }) => {
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
