//! The way back to a source that has not been spoken with: where this host's own routing and neighbour tables lead.
//!
//! A listener answers as the kernel would. The route to the source, from the address that it wrote to, must exist. It
//! has to lead out of the interface that the packet came in by; for IPv4, where the host's reverse path filter
//! (net.ipv4.conf.*.rp_filter) is not strict, it may also lead out of another one, and then the answer leaves by that
//! one, as a kernel's does. IPv6 has no such setting and is always strict. The answer goes to the link address that
//! the neighbour table has for the next hop, so that whoever wants it without being the source has to forge address
//! resolution. What the table does not know, or has not verified and the frame contradicts, the stack asks the segment
//! for; the packet is dropped meanwhile, and its sender repeats it. An entry made by hand is never doubted: frames
//! that come from elsewhere are dropped.
//!
//! A client has asked for its way before it spoke: answers may come by the interfaces that it listens to. An assumed
//! address has no routing table of its own: where this host's leads to the source by the same interface, its next hop
//! counts; else the answer goes to whoever delivered the packet.
use super::Setup;
use crate::{
    host::{
        interface::{Framing, Interface},
        neighbour::NeighbourState,
        netlink::NetlinkError,
        route::{Leg, Query, RouteType},
        sysctl,
        watch::Watch,
    },
    link::{LinkHeader, NextHop},
    net::{MacAddr, Protocol},
    stack::{Neighbour, Question, WayBack},
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

/// How many devices may lie upon one another: a bond in a bridge in a VRF.
const MAX_UPPERS: usize = 4;

/// Finds ways back.
pub(super) struct WaysBack {
    protocol: Protocol,
    port: u16,
    role: Role,
}

enum Role {
    /// Talks with one peer, whose packets may come by these interfaces.
    Client(HashSet<u32>),
    /// Listens at the host's own addresses. IPv4 is strict on these interfaces.
    Listener { strict: HashSet<u32> },
    /// Listens at an assumed address, which is found at this link address.
    Persona(MacAddr),
}

/// What was found.
pub(super) enum Found {
    Way(WayBack),
    /// No way leads back.
    None(Reason),
    /// The segment has to be asked for the neighbour's link address, by the interface and from the link address of
    /// `from`.
    Unresolved {
        from: NextHop,
        neighbour: IpAddr,
    },
}

/// Why no way leads back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error("the interface is not one that we listen to")]
    Interface,
    #[error("{0} is not an address of the interface")]
    Scope(IpAddr),
    #[error("no route leads there ({0})")]
    Route(NetlinkError),
    #[error("the routing table takes it for {0:?}")]
    Kind(RouteType),
    #[error("the route leads out of interface {0}")]
    Elsewhere(u32),
    #[error("the neighbour {neighbour} was entered by hand as {mac}")]
    ByHand { neighbour: IpAddr, mac: MacAddr },
    #[error("the neighbour table does not answer ({0})")]
    Neighbours(NetlinkError),
}

impl WaysBack {
    /// Reads the settings, while files may still be opened.
    pub fn new(setup: &Setup, port: u16) -> WaysBack {
        let all = || setup.interfaces.iter().chain(&setup.ways_back);
        let role = match (setup.remote, setup.persona) {
            (Some(_), _) => Role::Client(all().map(|interface| interface.index).collect()),
            (None, Some(persona)) => Role::Persona(persona.mac),
            (None, None) => {
                let is_strict = |interface: &&Interface| {
                    sysctl::is_reverse_path_strict(&interface.name).unwrap_or_else(|error| {
                        log::debug!("{error}: taken for loose");
                        false
                    })
                };
                Role::Listener { strict: all().filter(is_strict).map(|interface| interface.index).collect() }
            }
        };
        WaysBack { protocol: setup.protocol, port, role }
    }

    /// Finds the way back that `question` asks for. `solicited` knows what neighbours answered when they were asked.
    pub fn find(
        &self,
        question: &Question,
        watch: &mut Watch,
        interfaces: &HashMap<u32, Interface>,
        solicited: &dyn Fn(u32, IpAddr) -> Option<MacAddr>,
    ) -> Found {
        let mut search = Search { ways: self, question, watch, interfaces, solicited };
        let found = match &self.role {
            Role::Client(own) if own.contains(&question.interface) => Ok(Found::Way(TO_SENDER)),
            Role::Client(_) => Err(Reason::Interface),
            Role::Persona(_) => search.as_persona(),
            Role::Listener { strict } => search.as_listener(strict.contains(&question.interface)),
        };
        found.unwrap_or_else(Found::None)
    }
}

/// To whoever delivered the packet.
const TO_SENDER: WayBack = WayBack { next_hop: None, neighbour: Neighbour::Sender(None) };

struct Search<'a> {
    ways: &'a WaysBack,
    question: &'a Question,
    watch: &'a mut Watch,
    interfaces: &'a HashMap<u32, Interface>,
    solicited: &'a dyn Fn(u32, IpAddr) -> Option<MacAddr>,
}

impl Search<'_> {
    fn as_listener(&mut self, strict: bool) -> Result<Found, Reason> {
        let Question { interface, local, remote, .. } = *self.question;
        if !self.interfaces.contains_key(&interface) {
            return Err(Reason::Interface);
        }
        let uppers = self.uppers(interface);
        let top = uppers.iter().rev().find(|(_, vrf)| !vrf).map_or(interface, |(index, _)| *index);
        // A link-local address means something on its link only (RFC 4007); a VRF has tables of its own.
        if is_link_local(local) {
            self.check_scope(local, top)?;
        }
        let bound = match is_link_local(remote) {
            true => Some(top),
            false => uppers.iter().find(|(_, vrf)| *vrf).map(|(index, _)| *index),
        };
        let legs = self.legs(Some(local), bound)?;
        if let Some(leg) = legs.iter().find(|leg| uppers.iter().any(|(index, _)| *index == leg.interface)) {
            return self.towards(interface, leg);
        }
        if strict || remote.is_ipv6() {
            return Err(Reason::Elsewhere(legs.first().map_or(0, |leg| leg.interface)));
        }
        if let Some(leg) = legs.iter().find(|leg| self.interfaces.contains_key(&leg.interface)) {
            return self.towards(leg.interface, leg);
        }
        // Bound to an interface (-i), packets leave by it, if any route does.
        let bound = self.legs(Some(local), Some(interface))?;
        let leg = bound.iter().find(|leg| leg.interface == interface);
        leg.map_or(Err(Reason::Elsewhere(0)), |leg| self.towards(interface, leg))
    }

    fn as_persona(&mut self) -> Result<Found, Reason> {
        let Question { interface, remote, .. } = *self.question;
        let legs = match self.legs(None, is_link_local(remote).then_some(interface)) {
            Err(error @ Reason::Kind(_)) => return Err(error),
            legs => legs.unwrap_or_default(),
        };
        match legs.iter().find(|leg| leg.interface == interface) {
            Some(leg) => self.towards(interface, leg),
            None => Ok(Found::Way(TO_SENDER)),
        }
    }

    /// The interface and those that it is a port of, each with whether it is a VRF.
    fn uppers(&mut self, index: u32) -> Vec<(u32, bool)> {
        let mut uppers = Vec::with_capacity(1);
        let mut next = Some(index);
        while let Some(index) = next.filter(|_| uppers.len() < MAX_UPPERS) {
            let asked;
            let interface = match self.interfaces.get(&index) {
                Some(interface) => Some(interface),
                None => {
                    asked = self.watch.interface(index).ok().flatten();
                    asked.as_ref()
                }
            };
            let vrf = interface.is_some_and(|interface| interface.kind.as_deref() == Some("vrf"));
            uppers.push((index, vrf));
            next = interface.and_then(|interface| interface.master);
        }
        uppers
    }

    /// Whether a link-local address of ours is one of this interface.
    fn check_scope(&mut self, local: IpAddr, interface: u32) -> Result<(), Reason> {
        match self.watch.route(&self.query(None, local, Some(interface))) {
            Ok(entry) if entry.kind == RouteType::Local => Ok(()),
            _ => Err(Reason::Scope(local)),
        }
    }

    /// The paths of the route to the source.
    fn legs(&mut self, local: Option<IpAddr>, bound: Option<u32>) -> Result<Vec<Leg>, Reason> {
        let query = self.query(local, self.question.remote, bound);
        let entry = self.watch.route(&query).map_err(Reason::Route)?;
        match entry.kind {
            RouteType::Unicast => Ok(entry.legs),
            kind => Err(Reason::Kind(kind)),
        }
    }

    fn query(&self, source: Option<IpAddr>, destination: IpAddr, interface: Option<u32>) -> Query {
        let port = source.is_some().then_some(self.ways.port);
        let query = Query::to(SocketAddr::new(destination, 0), self.ways.protocol);
        Query { source, interface, source_port: port, destination_port: None, ..query }
    }

    /// The link address of a leg's next hop, for packets that leave by `interface`: the leg's, or a port of it.
    fn towards(&mut self, interface: u32, leg: &Leg) -> Result<Found, Reason> {
        let Question { remote, sender, .. } = *self.question;
        let arrival = interface == self.question.interface;
        let Some(out) = self.interfaces.get(&interface) else { return Err(Reason::Elsewhere(interface)) };
        let neighbour = leg.gateway.unwrap_or(remote);
        let source = match self.ways.role {
            Role::Persona(mac) => mac,
            _ => out.mac.unwrap_or_default(),
        };
        let header = |destination| LinkHeader::Ethernet { destination, source };
        let next_hop = |header| NextHop { interface, header };
        match out.framing() {
            Ok(Framing::Ethernet) if !out.no_arp => {}
            Ok(Framing::None) => {
                let next_hop = Some(next_hop(LinkHeader::None));
                return Ok(Found::Way(WayBack { next_hop, neighbour: Neighbour::Fixed }));
            }
            _ if arrival => return Ok(Found::Way(TO_SENDER)),
            _ => return Err(Reason::Elsewhere(interface)),
        }
        let to =
            |mac, neighbour| Ok(Found::Way(WayBack { next_hop: Some(next_hop(header(mac))), neighbour }));
        let entry = self.watch.neighbour(leg.interface, neighbour).map_err(Reason::Neighbours)?;
        let entry = entry.filter(|entry| entry.valid()).and_then(|entry| Some((entry.state, entry.mac?)));
        let here = sender.filter(|_| arrival);
        // Packets that come from the next hop are followed when it moves. Where they come from elsewhere, as from a
        // balancer that leaves the answer to us, they say nothing of the way back.
        let learned = |mac| match here == Some(mac) {
            true => Neighbour::Sender(Some(neighbour)),
            false => Neighbour::At(neighbour),
        };
        match (entry, (self.solicited)(interface, neighbour)) {
            (Some((NeighbourState::Permanent, mac)), _) => match here {
                Some(sender) if sender != mac => Err(Reason::ByHand { neighbour, mac }),
                _ => to(mac, Neighbour::Fixed),
            },
            // Verified just now, or confirmed by the frame.
            (Some((state, mac)), _) if state == NeighbourState::Reachable || here == Some(mac) => {
                to(mac, learned(mac))
            }
            (_, Some(mac)) => to(mac, learned(mac)),
            // On another interface nothing contradicts the entry.
            (Some((_, mac)), None) if here.is_none() => to(mac, learned(mac)),
            _ => Ok(Found::Unresolved { from: next_hop(header(MacAddr::BROADCAST)), neighbour }),
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
