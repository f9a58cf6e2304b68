//! Next hops, and how they follow a neighbour whose link address changes.
//!
//! A next hop's link address may change: a gateway fails over to its partner, or a host gets
//! another card. The stack learns the new address as a kernel does, from what the neighbours
//! announce (ARP, NDP); the event loop adds what the kernel itself has resolved. When a peer falls
//! silent, the stack solicits the neighbour. An accepted flow follows the link address that its
//! peer's segments come from.
use super::{
    Stack,
    discovery::{self, AssumedAddress, Message},
};
use crate::{
    host::interface::Interface,
    link::{Link, LinkError, LinkHeader, NextHop},
    net::{FiveTuple, MacAddr},
};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Minimum interval between solicitations of one neighbour (RFC 4861, section 10, RETRANS_TIMER;
/// RFC 1122, section 2.3.2.1).
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum neighbours remembered as solicited, and maximum answers remembered.
const MAX_ASKED: usize = 256;
/// Lifetime of the answer to a solicitation (RFC 4861, section 10, REACHABLE_TIME).
const REACHABLE: Duration = Duration::from_secs(30);

/// The neighbour whose link address packets carry, in case that address changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// The neighbour with this IP address; its announcements are followed.
    At(IpAddr),
    /// The neighbour that delivers the peer's packets, and its IP address once it was looked up.
    Sender(Option<IpAddr>),
    /// A neighbour that does not change: the user named it, or the link has no addresses.
    Fixed,
}

impl Neighbour {
    /// Returns whether packets to `remote` go to the neighbour at `address`.
    pub(super) fn is_at(self, address: IpAddr, remote: IpAddr) -> bool {
        match self {
            Neighbour::At(neighbour) | Neighbour::Sender(Some(neighbour)) => neighbour == address,
            Neighbour::Sender(None) => remote == address,
            Neighbour::Fixed => false,
        }
    }
}

/// The origin of an announcement of a link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncementSource {
    /// This host's kernel, whose neighbour table includes the administrator's entries.
    Kernel,
    /// The neighbour itself, which means to override what is known (the override flag of RFC 4861;
    /// ARP always overrides).
    Neighbour,
    /// A proxy, or one of several hosts with the address. It is believed only where the old link
    /// address is silent.
    Proxy,
}

/// Solicitations to send, and the answers to recent ones.
#[derive(Debug, Default)]
pub(super) struct Solicitations {
    asked: HashMap<(u32, IpAddr), Duration>,
    answers: HashMap<(u32, IpAddr), (MacAddr, Duration)>,
    to_send: Vec<Message>,
}

impl Solicitations {
    /// Solicits the link address of `neighbour` from `local`, unless it was solicited within the
    /// last second.
    pub fn ask(&mut self, now: Duration, local: IpAddr, next_hop: &NextHop, neighbour: IpAddr) {
        let LinkHeader::Ethernet { source: mac, .. } = next_hop.header else { return };
        if local.is_ipv4() != neighbour.is_ipv4() {
            return;
        }
        let interface = next_hop.interface;
        self.asked.retain(|_, at| now < *at + SOLICIT_INTERVAL);
        if self.asked.contains_key(&(interface, neighbour)) || self.asked.len() >= MAX_ASKED {
            return;
        }
        log::debug!("asking for the link address of {neighbour}");
        self.asked.insert((interface, neighbour), now);
        self.to_send.push(AssumedAddress { address: local, mac, interface }.solicit(neighbour));
    }

    /// Stores a neighbour's announcement, if the neighbour was solicited.
    fn note(&mut self, now: Duration, interface: u32, neighbour: IpAddr, mac: MacAddr) {
        let key = (interface, neighbour);
        let asked = self.asked.get(&key).is_some_and(|at| now < *at + SOLICIT_INTERVAL);
        if asked {
            self.answers.retain(|_, (_, at)| now < *at + REACHABLE);
            if self.answers.len() < MAX_ASKED || self.answers.contains_key(&key) {
                self.answers.insert(key, (mac, now));
            }
        }
    }

    /// Returns the neighbour's answer to a recent solicitation.
    fn answer(&self, now: Duration, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        let (mac, at) = self.answers.get(&(interface, neighbour))?;
        (now < *at + REACHABLE).then_some(*mac)
    }

    /// Sends the solicitations that are due. A lost one is repeated by the next
    /// [`Solicitations::ask`].
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub fn send(&mut self, link: &mut dyn Link) -> Result<(), LinkError> {
        self.to_send.drain(..).try_for_each(|message| message.send(link))
    }
}

impl NextHop {
    /// Returns the link header's destination; `None` where the header has none, or a group address.
    pub(super) fn destination(&self) -> Option<MacAddr> {
        match self.header {
            LinkHeader::LOOPBACK | LinkHeader::None => None,
            LinkHeader::Ethernet { destination, .. } => Some(destination).filter(|mac| mac.0[0] & 1 == 0),
        }
    }

    /// Returns this next hop with the destination `to`; `None` if it goes there already.
    pub(super) fn moved(&self, to: MacAddr) -> Option<NextHop> {
        self.destination().filter(|destination| *destination != to)?;
        match self.header {
            LinkHeader::Ethernet { source, .. } => {
                Some(NextHop { header: LinkHeader::Ethernet { destination: to, source }, ..*self })
            }
            LinkHeader::None => None,
        }
    }

    /// Returns this next hop with the interface's new link address as the source, if its source was
    /// the interface's old one.
    pub(super) fn readdressed(&self, was: &Interface, is: &Interface) -> NextHop {
        match (self.header, is.mac) {
            (LinkHeader::Ethernet { destination, source }, Some(mac))
                if self.destination().is_some() && was.mac == Some(source) =>
            {
                NextHop { header: LinkHeader::Ethernet { destination, source: mac }, ..*self }
            }
            _ => *self,
        }
    }
}

impl Stack {
    /// Handles the neighbours' ARP and NDP announcements.
    pub(super) fn overhear(&mut self, now: Duration, ethertype: u16, packet: &[u8], interface: u32) {
        if let Some(word) = discovery::overhear(ethertype, packet) {
            let source =
                if word.overrides { AnnouncementSource::Neighbour } else { AnnouncementSource::Proxy };
            self.solicitations.note(now, interface, word.address, word.mac);
            self.move_neighbour(now, interface, word.address, word.mac, source);
        }
    }

    /// Handles a neighbour's announcement that its link address is `mac`. Flows whose next hop is
    /// that neighbour follow it.
    pub fn move_neighbour(
        &mut self,
        now: Duration,
        interface: u32,
        address: IpAddr,
        mac: MacAddr,
        source: AnnouncementSource,
    ) {
        for (tuple, flow) in &mut self.flows {
            if flow.next_hop().interface == interface && flow.move_neighbour(now, address, mac, source) {
                self.touched.insert(*tuple);
            }
        }
        self.datagrams.move_neighbour(interface, address, mac);
    }

    /// Solicits the link address of `neighbour` on the interface of `from`, whose source is our
    /// link address there; at most once a second. [`Stack::solicited`] returns the answer.
    pub fn solicit(&mut self, now: Duration, local: IpAddr, from: &NextHop, neighbour: IpAddr) {
        self.solicitations.ask(now, local, from, neighbour);
    }

    /// Returns the link address that a neighbour gave to a solicitation within the last 30 seconds.
    pub fn solicited(&self, now: Duration, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        self.solicitations.answer(now, interface, neighbour)
    }

    /// Returns the flows that are stalled and whose neighbour's IP address is unknown. The routing
    /// table may know the address: see [`Stack::locate`].
    pub fn take_unlocated(&mut self) -> Vec<FiveTuple> {
        std::mem::take(&mut self.unlocated)
    }

    /// Sets the IP address of the neighbour that an accepted flow's packets go to.
    pub fn locate(&mut self, tuple: &FiveTuple, address: IpAddr) {
        if let Some(flow) = self.flow(tuple) {
            flow.locate(address);
        }
    }

    /// Solicits the neighbour of a stalled flow, which may have moved.
    pub(super) fn look_for_neighbour(&mut self, now: Duration, tuple: FiveTuple) {
        let Some(flow) = self.flows.get(&tuple).filter(|flow| flow.is_stalled(now)) else { return };
        let next_hop = flow.next_hop();
        match flow.neighbour() {
            Neighbour::At(address) | Neighbour::Sender(Some(address)) => {
                self.solicitations.ask(now, tuple.local.ip(), &next_hop, address);
            }
            Neighbour::Sender(None) if next_hop.destination().is_some() => self.unlocated.push(tuple),
            Neighbour::Sender(None) | Neighbour::Fixed => {}
        }
    }

    /// Applies a change of an interface's MTU or link address.
    pub fn change_interface(&mut self, now: Duration, was: &Interface, is: &Interface) {
        for (tuple, flow) in &mut self.flows {
            if flow.next_hop().interface == is.index {
                flow.change_interface(now, was, is);
                self.touched.insert(*tuple);
            }
        }
        if let Some(path) = self.listener.as_mut().and_then(|listener| listener.paths.get_mut(&is.index)) {
            path.mtu = is.mtu as usize;
        }
        self.datagrams.change_interface(was, is);
    }
}
