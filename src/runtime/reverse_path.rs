//! The reverse path filter: whether and how this host's routing and neighbour tables lead back to a new
//! source (RFC 3704).
//!
//! A listener answers as the kernel would. A route to the source must exist, from the address that the
//! packet was sent to, and lead out of the interface by which the packet arrived. For IPv4, where the
//! host's own filter (net.ipv4.conf.*.rp_filter) is not strict, the route may lead out of another
//! interface, and the answer leaves by that one. IPv6 has no such setting and is always strict. The answer
//! goes to the link address that the neighbour table has for the next hop, so that a forged source gets the
//! answer only if address resolution is forged, too. Where the table has no entry, or an unverified one
//! that contradicts the frame, the stack solicits the neighbour and the frame waits. A permanent entry
//! stands: frames from another link address are dropped.
//!
//! A client has looked up its route before: answers may arrive by all of its interfaces. An assumed address
//! has no routing table. If this host's leads to the source by the same interface, its next hop counts;
//! else the answer goes to the sender of the frame.
use super::Setup;
use crate::{
    host::{
        interface::{Framing, Interface},
        monitor::Monitor,
        neighbour::NeighbourState,
        netlink::NetlinkError,
        route::{FibNexthop, Query, RouteType},
        sysctl,
    },
    link::{LinkHeader, NextHop},
    net::{MacAddr, Protocol},
    stack::{Neighbour, Question, WayBack},
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

/// Maximum depth of stacked devices: a bond in a bridge in a VRF.
const MAX_UPPERS: usize = 4;

/// The filter of one run.
pub(super) struct ReversePathFilter {
    protocol: Protocol,
    port: u16,
    role: Role,
}

enum Role {
    /// Talks with known peers, whose packets may arrive by these interfaces.
    Client(HashSet<u32>),
    /// Listens at the host's own addresses; IPv4 is strict on the interfaces in `strict`.
    Listener { strict: HashSet<u32> },
    /// Listens at an assumed address, which has this link address.
    AssumedAddress(MacAddr),
}

/// The way back to a source.
pub(super) enum ReversePath {
    /// The next hop and its link address are known.
    Found(WayBack),
    /// No route leads back.
    None(Reason),
    /// The neighbour's link address is unknown.
    Unresolved {
        /// Interface and link address to solicit from.
        from: NextHop,
        /// The next hop.
        neighbour: IpAddr,
    },
}

/// The reason why no route leads back.
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

impl ReversePathFilter {
    /// Reads the host's settings. Call it before the sandbox closes the file system.
    pub fn new(setup: &Setup, port: u16) -> ReversePathFilter {
        let all = || setup.interfaces.iter().chain(&setup.return_interfaces);
        let role = match (setup.remotes.is_empty(), setup.persona) {
            (false, _) => Role::Client(all().map(|interface| interface.index).collect()),
            (true, Some(persona)) => Role::AssumedAddress(persona.mac),
            (true, None) => {
                let is_strict = |interface: &&Interface| {
                    sysctl::is_reverse_path_strict(&interface.name).unwrap_or_else(|error| {
                        log::debug!("{error}: taken for loose");
                        false
                    })
                };
                Role::Listener { strict: all().filter(is_strict).map(|interface| interface.index).collect() }
            }
        };
        ReversePathFilter { protocol: setup.protocol, port, role }
    }

    /// Finds the way back for `question`. `solicited` returns what a neighbour answered to the stack's
    /// solicitation.
    pub fn find(
        &self,
        question: &Question,
        monitor: &mut Monitor,
        interfaces: &HashMap<u32, Interface>,
        solicited: &dyn Fn(u32, IpAddr) -> Option<MacAddr>,
    ) -> ReversePath {
        let mut search = Search { ways: self, question, monitor, interfaces, solicited };
        let found = match &self.role {
            Role::Client(own) if own.contains(&question.interface) => Ok(ReversePath::Found(TO_SENDER)),
            Role::Client(_) => Err(Reason::Interface),
            Role::AssumedAddress(_) => search.as_persona(),
            Role::Listener { strict } => search.as_listener(strict.contains(&question.interface)),
        };
        found.unwrap_or_else(ReversePath::None)
    }
}

/// The way back to the sender of the frame.
const TO_SENDER: WayBack = WayBack { next_hop: None, neighbour: Neighbour::Sender(None) };

struct Search<'a> {
    ways: &'a ReversePathFilter,
    question: &'a Question,
    monitor: &'a mut Monitor,
    interfaces: &'a HashMap<u32, Interface>,
    solicited: &'a dyn Fn(u32, IpAddr) -> Option<MacAddr>,
}

impl Search<'_> {
    fn as_listener(&mut self, strict: bool) -> Result<ReversePath, Reason> {
        let Question { interface, local, remote, .. } = *self.question;
        if !self.interfaces.contains_key(&interface) {
            return Err(Reason::Interface);
        }
        let uppers = self.uppers(interface);
        let top = uppers.iter().rev().find(|(_, vrf)| !vrf).map_or(interface, |(index, _)| *index);
        // A link-local address is valid on its link only (RFC 4007); a VRF has tables of its own.
        if is_link_local(local) {
            self.check_scope(local, top)?;
        }
        let bound = match is_link_local(remote) {
            true => Some(top),
            false => uppers.iter().find(|(_, vrf)| *vrf).map(|(index, _)| *index),
        };
        let nexthops = self.nexthops(Some(local), bound)?;
        if let Some(nexthop) =
            nexthops.iter().find(|nexthop| uppers.iter().any(|(index, _)| *index == nexthop.interface))
        {
            return self.towards(interface, nexthop);
        }
        if strict || remote.is_ipv6() {
            return Err(Reason::Elsewhere(nexthops.first().map_or(0, |nexthop| nexthop.interface)));
        }
        if let Some(nexthop) =
            nexthops.iter().find(|nexthop| self.interfaces.contains_key(&nexthop.interface))
        {
            return self.towards(nexthop.interface, nexthop);
        }
        // A route that a lookup without interface passes over may lead out of this one.
        let bound = self.nexthops(Some(local), Some(interface))?;
        let nexthop = bound.iter().find(|nexthop| nexthop.interface == interface);
        nexthop.map_or(Err(Reason::Elsewhere(0)), |nexthop| self.towards(interface, nexthop))
    }

    fn as_persona(&mut self) -> Result<ReversePath, Reason> {
        let Question { interface, remote, .. } = *self.question;
        let nexthops = match self.nexthops(None, is_link_local(remote).then_some(interface)) {
            Err(error @ Reason::Kind(_)) => return Err(error),
            nexthops => nexthops.unwrap_or_default(),
        };
        match nexthops.iter().find(|nexthop| nexthop.interface == interface) {
            Some(nexthop) => self.towards(interface, nexthop),
            None => Ok(ReversePath::Found(TO_SENDER)),
        }
    }

    /// Returns the interface and those above it, of which it is a port, each with whether it is a VRF.
    fn uppers(&mut self, index: u32) -> Vec<(u32, bool)> {
        let mut uppers = Vec::with_capacity(1);
        let mut next = Some(index);
        while let Some(index) = next.filter(|_| uppers.len() < MAX_UPPERS) {
            let asked;
            let interface = match self.interfaces.get(&index) {
                Some(interface) => Some(interface),
                None => {
                    asked = self.monitor.interface(index).ok().flatten();
                    asked.as_ref()
                }
            };
            let vrf = interface.is_some_and(|interface| interface.kind.as_deref() == Some("vrf"));
            uppers.push((index, vrf));
            next = interface.and_then(|interface| interface.master);
        }
        uppers
    }

    /// Checks that a link-local address of ours belongs to this interface.
    fn check_scope(&mut self, local: IpAddr, interface: u32) -> Result<(), Reason> {
        match self.monitor.route(&self.query(None, local, Some(interface))) {
            Ok(entry) if entry.kind == RouteType::Local => Ok(()),
            _ => Err(Reason::Scope(local)),
        }
    }

    /// Returns the next hops of the route to the source.
    fn nexthops(&mut self, local: Option<IpAddr>, bound: Option<u32>) -> Result<Vec<FibNexthop>, Reason> {
        let query = self.query(local, self.question.remote, bound);
        let entry = self.monitor.route(&query).map_err(Reason::Route)?;
        match entry.kind {
            RouteType::Unicast => Ok(entry.nexthops),
            kind => Err(Reason::Kind(kind)),
        }
    }

    fn query(&self, source: Option<IpAddr>, destination: IpAddr, interface: Option<u32>) -> Query {
        let port = source.is_some().then_some(self.ways.port);
        let query = Query::to(SocketAddr::new(destination, 0), self.ways.protocol);
        Query { source, interface, source_port: port, destination_port: None, ..query }
    }

    /// Resolves a next hop's link address, for packets that leave by `interface`: the next hop's, or a port
    /// of it.
    fn towards(&mut self, interface: u32, nexthop: &FibNexthop) -> Result<ReversePath, Reason> {
        let Question { remote, sender, .. } = *self.question;
        let arrival = interface == self.question.interface;
        let Some(out) = self.interfaces.get(&interface) else { return Err(Reason::Elsewhere(interface)) };
        let neighbour = nexthop.gateway.unwrap_or(remote);
        let source = match self.ways.role {
            Role::AssumedAddress(mac) => mac,
            _ => out.mac.unwrap_or_default(),
        };
        let header = |destination| LinkHeader::Ethernet { destination, source };
        let next_hop = |header| NextHop { interface, header };
        match out.framing() {
            Ok(Framing::Ethernet) if !out.no_arp => {}
            Ok(Framing::None) => {
                let next_hop = Some(next_hop(LinkHeader::None));
                return Ok(ReversePath::Found(WayBack { next_hop, neighbour: Neighbour::Fixed }));
            }
            _ if arrival => return Ok(ReversePath::Found(TO_SENDER)),
            _ => return Err(Reason::Elsewhere(interface)),
        }
        let to = |mac, neighbour| {
            Ok(ReversePath::Found(WayBack { next_hop: Some(next_hop(header(mac))), neighbour }))
        };
        let entry = self.monitor.neighbour(nexthop.interface, neighbour).map_err(Reason::Neighbours)?;
        let entry = entry.filter(|entry| entry.valid()).and_then(|entry| Some((entry.state, entry.mac?)));
        let here = sender.filter(|_| arrival);
        // If frames come from the next hop, they tell when it moves. Frames from elsewhere, as from a load
        // balancer with direct server return, do not.
        let learned = |mac| match here == Some(mac) {
            true => Neighbour::Sender(Some(neighbour)),
            false => Neighbour::At(neighbour),
        };
        match (entry, (self.solicited)(interface, neighbour)) {
            (Some((NeighbourState::Permanent, mac)), _) => match here {
                Some(sender) if sender != mac => Err(Reason::ByHand { neighbour, mac }),
                _ => to(mac, Neighbour::Fixed),
            },
            // Reachable, or confirmed by the frame.
            (Some((state, mac)), _) if state == NeighbourState::Reachable || here == Some(mac) => {
                to(mac, learned(mac))
            }
            (_, Some(mac)) => to(mac, learned(mac)),
            // On another interface nothing contradicts the entry.
            (Some((_, mac)), None) if here.is_none() => to(mac, learned(mac)),
            _ => Ok(ReversePath::Unresolved { from: next_hop(header(MacAddr::BROADCAST)), neighbour }),
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
