//! Where packets go on the link, and what becomes of it while we talk.
//!
//! A next hop's link address may change: a gateway fails and its partner takes over, a host gets another card. We
//! learn it as a kernel does, from what the neighbours say (ARP, neighbour discovery; the engine adds what the
//! kernel itself has found out), and ask them again when a peer falls silent. A flow that came to us is answered to
//! where its peer's segments come from.
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

/// How often a neighbour is asked for its link address (RFC 4861, section 10, RETRANS_TIMER; RFC 1122, section
/// 2.3.2.1).
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
/// Neighbours of which it is remembered when they were asked, and of which the answer is.
const MAX_ASKED: usize = 256;
/// How long an answer to a question of ours holds (RFC 4861, section 10, REACHABLE_TIME).
const REACHABLE: Duration = Duration::from_secs(30);

/// Whose link address packets carry, in case it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// The neighbour with this IP address: its word is followed.
    At(IpAddr),
    /// The neighbour that delivers the peer's packets; its IP address, once that had to be found out.
    Sender(Option<IpAddr>),
    /// It does not change: the user named it, or the link has no addresses.
    Fixed,
}

impl Neighbour {
    /// Whether what goes to `remote` goes to the neighbour at `address`.
    pub(super) fn is_at(self, address: IpAddr, remote: IpAddr) -> bool {
        match self {
            Neighbour::At(neighbour) | Neighbour::Sender(Some(neighbour)) => neighbour == address,
            Neighbour::Sender(None) => remote == address,
            Neighbour::Fixed => false,
        }
    }
}

/// Who says that a neighbour has a link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This host's kernel, whose neighbour table is the administrator's word, too.
    Kernel,
    /// The neighbour, who means to replace what we know (the override flag of RFC 4861; ARP always does).
    Neighbour,
    /// A proxy, or one of several hosts with the address: believed only where the old link address is silent.
    Proxy,
}

/// The questions for link addresses that are due.
#[derive(Debug, Default)]
pub(super) struct Solicitations {
    asked: HashMap<(u32, IpAddr), Duration>,
    answers: HashMap<(u32, IpAddr), (MacAddr, Duration)>,
    to_send: Vec<Message>,
}

impl Solicitations {
    /// Asks for the link address of `neighbour`, from `local`, unless that was done just now.
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

    /// Notes what a neighbour says, if it was asked.
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

    /// What the neighbour answered when it was asked last, not long ago.
    fn answer(&self, now: Duration, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        let (mac, at) = self.answers.get(&(interface, neighbour))?;
        (now < *at + REACHABLE).then_some(*mac)
    }

    /// Sends what is due. What is lost on the way out will be asked again.
    pub fn send(&mut self, link: &mut dyn Link) -> Result<(), LinkError> {
        self.to_send.drain(..).try_for_each(|message| message.send(link))
    }
}

impl NextHop {
    /// Where the link header goes; none where it does not say, or says nobody in particular.
    pub(super) fn destination(&self) -> Option<MacAddr> {
        match self.header {
            LinkHeader::LOOPBACK | LinkHeader::None => None,
            LinkHeader::Ethernet { destination, .. } => Some(destination).filter(|mac| mac.0[0] & 1 == 0),
        }
    }

    /// The same from the same to `destination`; `None` if it goes there already.
    pub(super) fn moved(&self, to: MacAddr) -> Option<NextHop> {
        self.destination().filter(|destination| *destination != to)?;
        match self.header {
            LinkHeader::Ethernet { source, .. } => {
                Some(NextHop { header: LinkHeader::Ethernet { destination: to, source }, ..*self })
            }
            LinkHeader::None => None,
        }
    }

    /// The same, sent from what the interface is called now, where it was sent from what it was called before.
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
    /// Takes what neighbours say of themselves.
    pub(super) fn overhear(&mut self, now: Duration, ethertype: u16, packet: &[u8], interface: u32) {
        if let Some(word) = discovery::overhear(ethertype, packet) {
            let source = if word.overrides { Source::Neighbour } else { Source::Proxy };
            self.solicitations.note(now, interface, word.address, word.mac);
            self.move_neighbour(now, interface, word.address, word.mac, source);
        }
    }

    /// A neighbour's link address is `mac`: what goes there takes it from now on.
    pub fn move_neighbour(
        &mut self,
        now: Duration,
        interface: u32,
        address: IpAddr,
        mac: MacAddr,
        source: Source,
    ) {
        for (tuple, flow) in &mut self.flows {
            if flow.next_hop().interface == interface && flow.move_neighbour(now, address, mac, source) {
                self.touched.insert(*tuple);
            }
        }
        self.datagrams.move_neighbour(interface, address, mac);
    }

    /// Asks for the link address of `neighbour` on the interface of `from`, whose source is ours there; at most once
    /// a second. [`Stack::solicited`] has the answer.
    pub fn solicit(&mut self, now: Duration, local: IpAddr, from: &NextHop, neighbour: IpAddr) {
        self.solicitations.ask(now, local, from, neighbour);
    }

    /// The link address that a neighbour gave when it was asked within the last half minute.
    pub fn solicited(&self, now: Duration, interface: u32, neighbour: IpAddr) -> Option<MacAddr> {
        self.solicitations.answer(now, interface, neighbour)
    }

    /// The flows whose packets seem not to arrive, and of which it is not known which neighbour they go to: the
    /// routing table may know, see [`Stack::locate`].
    pub fn take_unlocated(&mut self) -> Vec<FiveTuple> {
        std::mem::take(&mut self.unlocated)
    }

    /// The packets of a flow that came to us go to the neighbour at `address`.
    pub fn locate(&mut self, tuple: &FiveTuple, address: IpAddr) {
        if let Some(flow) = self.flow(tuple) {
            flow.locate(address);
        }
    }

    /// Asks the neighbour of a flow that is stalled whether it has moved.
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

    /// An interface has changed: its packets may measure more or less, or come from another link address.
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
