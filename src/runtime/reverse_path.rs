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
        metrics::Metrics,
        monitor::Monitor,
        neighbour::NeighbourState,
        netlink::NetlinkError,
        route::{FibNexthop, Query, RouteType},
        sysctl,
    },
    link::{LinkHeader, NextHop},
    neighbour::{LocalAddress, Neighbour},
    net::{MacAddr, Protocol},
    stack::{ReturnRoute, UnverifiedSource},
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
    traffic_class: u8,
    /// The groups and broadcast addresses that we hear.
    groups: HashSet<IpAddr>,
    role: Role,
}

enum Role {
    /// Talks with known peers, whose packets may arrive by these interfaces.
    Client(HashSet<u32>),
    /// Listens at the host's own addresses; IPv4 is strict on the interfaces in `strict`.
    Listener { strict: HashSet<u32> },
    /// Listens at an assumed address.
    AssumedAddress(LocalAddress),
}

/// The route back to a source.
pub(super) enum ReversePath {
    /// The next hop and its link address are known.
    Found(ReturnRoute),
    /// No route leads back.
    None(NoReturnRoute),
    /// The neighbour's link address is unknown.
    Unresolved {
        /// Our address to solicit from.
        local: IpAddr,
        /// Interface and link address to solicit from.
        from: NextHop,
        /// The next hop.
        neighbour: IpAddr,
    },
}

/// The reason why no route leads back.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReturnRoute {
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
    #[error("no address of ours leads there")]
    NoSource,
    #[error("the neighbour table does not answer ({0})")]
    Neighbours(NetlinkError),
}

impl ReversePathFilter {
    /// Reads the host's settings. Call it before the sandbox closes the file system.
    pub(crate) fn new(setup: &Setup, port: u16) -> ReversePathFilter {
        let all = || setup.interfaces.iter().chain(&setup.return_interfaces);
        let role = match (setup.remotes.is_empty(), setup.assumed) {
            (false, _) => Role::Client(all().map(|interface| interface.index).collect()),
            (true, Some(assumed)) => Role::AssumedAddress(assumed),
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
        ReversePathFilter {
            protocol: setup.protocol,
            port,
            traffic_class: setup.settings.traffic_class,
            groups: setup.groups.addresses.iter().copied().collect(),
            role,
        }
    }

    /// Finds the route back for `unverified`. `solicited` returns what a neighbour answered to the stack's
    /// solicitation.
    pub(crate) fn find(
        &self,
        unverified: &UnverifiedSource,
        monitor: &mut Monitor,
        interfaces: &HashMap<u32, Interface>,
        solicited: &dyn Fn(u32, IpAddr) -> Option<MacAddr>,
    ) -> ReversePath {
        let mut search = Search {
            filter: self,
            unverified,
            to_group: self.groups.contains(&unverified.local),
            local: unverified.local,
            monitor,
            interfaces,
            solicited,
            metrics: Metrics::default(),
        };
        let found = match &self.role {
            Role::Client(own) if own.contains(&unverified.interface) => {
                Ok(ReversePath::Found(to_sender(Metrics::default())))
            }
            Role::Client(_) => Err(NoReturnRoute::Interface),
            Role::AssumedAddress(_) => search.as_assumed_address(),
            Role::Listener { strict } => search.as_listener(strict.contains(&unverified.interface)),
        };
        found.unwrap_or_else(ReversePath::None)
    }
}

/// The route back to the sender of the frame.
fn to_sender(metrics: Metrics) -> ReturnRoute {
    ReturnRoute { next_hop: None, neighbour: Neighbour::Sender(None), source: None, metrics }
}

struct Search<'a> {
    filter: &'a ReversePathFilter,
    unverified: &'a UnverifiedSource,
    /// The packet was addressed to a group or to all hosts.
    to_group: bool,
    /// Our address: the packet's destination, or the source of the answer to a packet for a group.
    local: IpAddr,
    monitor: &'a mut Monitor,
    interfaces: &'a HashMap<u32, Interface>,
    solicited: &'a dyn Fn(u32, IpAddr) -> Option<MacAddr>,
    /// The metrics of the last route found.
    metrics: Metrics,
}

impl Search<'_> {
    fn as_listener(&mut self, strict: bool) -> Result<ReversePath, NoReturnRoute> {
        let UnverifiedSource { interface, remote, .. } = *self.unverified;
        if !self.interfaces.contains_key(&interface) {
            return Err(NoReturnRoute::Interface);
        }
        let uppers = self.uppers(interface);
        let top = uppers.iter().rev().find(|(_, vrf)| !vrf).map_or(interface, |(index, _)| *index);
        let bound = match is_link_local(remote) {
            true => Some(top),
            false => uppers.iter().find(|(_, vrf)| *vrf).map(|(index, _)| *index),
        };
        if self.to_group {
            self.local = self.source(bound)?;
        }
        let local = self.local;
        // A link-local address is valid on its link only (RFC 4007); a VRF has tables of its own.
        if is_link_local(local) {
            self.check_scope(local, top)?;
        }
        let nexthops = self.nexthops(Some(local), bound)?;
        if let Some(nexthop) =
            nexthops.iter().find(|nexthop| uppers.iter().any(|(index, _)| *index == nexthop.interface))
        {
            return self.towards(interface, nexthop);
        }
        if strict || remote.is_ipv6() {
            return Err(NoReturnRoute::Elsewhere(nexthops.first().map_or(0, |nexthop| nexthop.interface)));
        }
        if let Some(nexthop) =
            nexthops.iter().find(|nexthop| self.interfaces.contains_key(&nexthop.interface))
        {
            return self.towards(nexthop.interface, nexthop);
        }
        // A route that a lookup without interface passes over may lead out of this one.
        let bound = self.nexthops(Some(local), Some(interface))?;
        let nexthop = bound.iter().find(|nexthop| nexthop.interface == interface);
        nexthop.map_or(Err(NoReturnRoute::Elsewhere(0)), |nexthop| self.towards(interface, nexthop))
    }

    fn as_assumed_address(&mut self) -> Result<ReversePath, NoReturnRoute> {
        let UnverifiedSource { interface, remote, .. } = *self.unverified;
        if let (true, Role::AssumedAddress(assumed)) = (self.to_group, &self.filter.role) {
            self.local = assumed.address;
        }
        let nexthops = match self.nexthops(None, is_link_local(remote).then_some(interface)) {
            Err(error @ NoReturnRoute::Kind(_)) => return Err(error),
            nexthops => nexthops.unwrap_or_default(),
        };
        match nexthops.iter().find(|nexthop| nexthop.interface == interface) {
            Some(nexthop) => self.towards(interface, nexthop),
            None => Ok(self.to_sender()),
        }
    }

    /// Returns the route back to the sender of the frame. The frame of a packet for a group does not name the link
    /// address that the answer comes from.
    fn to_sender(&self) -> ReversePath {
        let UnverifiedSource { interface, sender, .. } = *self.unverified;
        let Some(out) = self.interfaces.get(&interface).filter(|_| self.to_group) else {
            return ReversePath::Found(to_sender(self.metrics));
        };
        let source = self.link_address(out);
        let header = |destination| LinkHeader::Ethernet { destination, source };
        let next_hop = sender.map(|sender| NextHop { interface, header: header(sender) });
        ReversePath::Found(ReturnRoute { next_hop, source: Some(self.local), ..to_sender(self.metrics) })
    }

    /// Returns the link address that our packets carry on an interface.
    fn link_address(&self, out: &Interface) -> MacAddr {
        match self.filter.role {
            Role::AssumedAddress(assumed) => assumed.mac,
            _ => out.mac.unwrap_or_default(),
        }
    }

    /// Returns the address that the kernel sends from to the source of a packet for a group.
    fn source(&mut self, bound: Option<u32>) -> Result<IpAddr, NoReturnRoute> {
        let query = self.query(None, self.unverified.remote, bound);
        self.monitor.source(&query).ok_or(NoReturnRoute::NoSource)
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
    fn check_scope(&mut self, local: IpAddr, interface: u32) -> Result<(), NoReturnRoute> {
        match self.monitor.route(&self.query(None, local, Some(interface))) {
            Ok(entry) if entry.kind == RouteType::Local => Ok(()),
            _ => Err(NoReturnRoute::Scope(local)),
        }
    }

    /// Returns the next hops of the route to the source.
    fn nexthops(
        &mut self,
        local: Option<IpAddr>,
        bound: Option<u32>,
    ) -> Result<Vec<FibNexthop>, NoReturnRoute> {
        let query = self.query(local, self.unverified.remote, bound);
        let entry = self.monitor.route(&query).map_err(NoReturnRoute::Route)?;
        self.metrics = entry.metrics;
        match entry.kind {
            RouteType::Unicast => Ok(entry.nexthops),
            kind => Err(NoReturnRoute::Kind(kind)),
        }
    }

    fn query(&self, source: Option<IpAddr>, destination: IpAddr, interface: Option<u32>) -> Query {
        let port = source.is_some().then_some(self.filter.port);
        let query = Query::to(SocketAddr::new(destination, 0), self.filter.protocol);
        Query {
            source,
            interface,
            source_port: port,
            destination_port: None,
            traffic_class: self.filter.traffic_class,
            ..query
        }
    }

    /// Resolves a next hop's link address, for packets that leave by `interface`: the next hop's, or a port
    /// of it.
    fn towards(&mut self, interface: u32, nexthop: &FibNexthop) -> Result<ReversePath, NoReturnRoute> {
        let UnverifiedSource { remote, sender, .. } = *self.unverified;
        let arrival = interface == self.unverified.interface;
        let Some(out) = self.interfaces.get(&interface) else {
            return Err(NoReturnRoute::Elsewhere(interface));
        };
        let neighbour = nexthop.gateway.unwrap_or(remote);
        let source = self.link_address(out);
        let own = self.to_group.then_some(self.local);
        let metrics = self.metrics;
        let header = |destination| LinkHeader::Ethernet { destination, source };
        let next_hop = |header| NextHop { interface, header };
        match out.framing() {
            Ok(Framing::Ethernet) if !out.no_arp => {}
            Ok(Framing::None) => {
                let next_hop = Some(next_hop(LinkHeader::None));
                let (neighbour, source) = (Neighbour::Fixed, own);
                return Ok(ReversePath::Found(ReturnRoute { next_hop, neighbour, source, metrics }));
            }
            _ if arrival => return Ok(self.to_sender()),
            _ => return Err(NoReturnRoute::Elsewhere(interface)),
        }
        let to = |mac, neighbour| {
            let next_hop = Some(next_hop(header(mac)));
            Ok(ReversePath::Found(ReturnRoute { next_hop, neighbour, source: own, metrics }))
        };
        let entry =
            self.monitor.neighbour(nexthop.interface, neighbour).map_err(NoReturnRoute::Neighbours)?;
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
                Some(sender) if sender != mac => Err(NoReturnRoute::ByHand { neighbour, mac }),
                _ => to(mac, Neighbour::Fixed),
            },
            // Reachable, or confirmed by the frame.
            (Some((state, mac)), _) if state == NeighbourState::Reachable || here == Some(mac) => {
                to(mac, learned(mac))
            }
            (_, Some(mac)) => to(mac, learned(mac)),
            // On another interface nothing contradicts the entry.
            (Some((_, mac)), None) if here.is_none() => to(mac, learned(mac)),
            _ => {
                let (local, from) = (self.local, next_hop(header(MacAddr::BROADCAST)));
                Ok(ReversePath::Unresolved { local, from, neighbour })
            }
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
