//! The way out of this host: by the kernel's routing decision, or past it.
//!
//! `--via` names the next hop whatever the routing table says, so that a destination can be tried by way of
//! another node, even one that this host has bound to itself (a load balancer's address under MetalLB or
//! kube-vip). `--as` sends from an address that is nobody's: this host becomes one more host on the segment.
use crate::{
    host::{
        interface::{self, Framing, Interface, InterfaceError},
        neighbour::{self, NeighbourState},
        route::{self, Kind, Query, RouteError},
    },
    net::MacAddr,
    stack::{Neighbour, Persona},
};
use std::{collections::BTreeSet, fmt, net::IpAddr};

/// Whose link address frames are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// To be resolved.
    Address(IpAddr),
    Link(MacAddr),
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Address(address) => address.fmt(f),
            Hop::Link(mac) => mac.fmt(f),
        }
    }
}

/// What the user wants of the way out.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub query: Query,
    pub via: Option<Hop>,
    /// The host to be instead of this one.
    pub persona: Option<(IpAddr, Option<MacAddr>)>,
}

/// The way out.
#[derive(Clone, Debug)]
pub struct Egress {
    pub interface: Interface,
    pub framing: Framing,
    pub source: IpAddr,
    pub next_hop: Hop,
    /// The path's MTU as far as the host knows, in bytes.
    pub mtu: u32,
    /// The TTL or hop limit that the route demands.
    pub hop_limit: Option<u8>,
    pub persona: Option<Persona>,
    /// The way in words, for the log.
    pub words: String,
}

impl Egress {
    /// The other interfaces that answers may come in by, as they may to a kernel socket: that of the source address,
    /// and those of the route's other paths. None if `query` is bound to an interface, and to an assumed address.
    pub fn ways_back(&self, query: &Query) -> Result<Vec<Interface>, EgressError> {
        if query.interface.is_some() || self.persona.is_some() || self.framing == Framing::Loopback {
            return Ok(Vec::new());
        }
        let addresses = interface::addresses(None)?.into_iter();
        let own = addresses.filter(|address| address.ip == self.source).map(|address| address.interface);
        let ways: BTreeSet<_> = route::paths(query).into_iter().chain(own).collect();
        let others = ways.into_iter().filter(|index| *index != self.interface.index);
        // One that has gone meanwhile brings no answers.
        let interfaces = others.filter_map(|index| interface::by_index(index).ok());
        Ok(interfaces.filter(|i| !i.loopback && i.framing().is_ok()).collect())
    }

    /// Whose link address our packets carry. One that the administrator has entered by hand stays.
    pub fn neighbour(&self) -> Neighbour {
        match (self.framing, self.next_hop) {
            (Framing::Ethernet, Hop::Address(address)) => {
                let entry = neighbour::lookup(self.interface.index, address).ok().flatten();
                let by_hand = entry.is_some_and(|entry| entry.state == NeighbourState::Permanent);
                if by_hand { Neighbour::Fixed } else { Neighbour::At(address) }
            }
            _ => Neighbour::Fixed,
        }
    }
}

/// Why there is no way out.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(
        "--via {via} is not on a segment of this host: the way to it leads through {gateway}; name a neighbour"
    )]
    NotOnLink { via: IpAddr, gateway: IpAddr },
    #[error("--via {0} is this host itself; name a neighbour")]
    ViaSelf(IpAddr),
    #[error(
        "--via {via} and {destination} are not of one address family; name the next hop by its MAC address"
    )]
    FamilyMismatch { via: IpAddr, destination: IpAddr },
    #[error("--via {0}: say by which interface, with -i")]
    InterfaceWanted(MacAddr),
    #[error(
        "{interface} has no address to send to {destination} from; name one with -s, or be another host with --as"
    )]
    NoSource { interface: String, destination: IpAddr },
    #[error("{0} is this host's own address; with --as, name an address that nobody has")]
    PersonaIsSelf(IpAddr),
    #[error("{0} is this host's own: from outside it is reached by way of a neighbour; name one with --via")]
    DestinationIsSelf(IpAddr),
    #[error("--as and --via need an interface with link addresses; {0} has none")]
    NoLinkAddresses(String),
}

impl Wish {
    /// Decides; asks the kernel, changes nothing.
    pub fn decide(&self) -> Result<Egress, EgressError> {
        let destination = self.query.destination;
        if let Some((address, _)) = self.persona
            && interface::addresses(None)?.iter().any(|own| own.ip == address)
        {
            return Err(EgressError::PersonaIsSelf(address));
        }
        let egress = match self.via {
            Some(Hop::Address(via)) => self.by_address(via)?,
            Some(Hop::Link(mac)) => self.by_link(mac)?,
            None => self.by_route()?,
        };
        if (self.via.is_some() || self.persona.is_some()) && egress.framing != Framing::Ethernet {
            return Err(match egress.framing {
                Framing::Loopback => EgressError::DestinationIsSelf(destination),
                _ => EgressError::NoLinkAddresses(egress.interface.name),
            });
        }
        Ok(self.disguise(egress))
    }

    /// As the kernel would send.
    fn by_route(&self) -> Result<Egress, EgressError> {
        let route = route::lookup(&self.query)?;
        let interface = interface::by_index(route.interface)?;
        let framing = interface.framing()?;
        let on_host = if route.kind == Kind::Local { " (this host)" } else { "" };
        let via = route.gateway.map_or("on link".to_owned(), |gateway| format!("gateway {gateway}"));
        let words = format!(
            "route to {}{on_host}: interface {}, source {}, {via}, MTU {}",
            route.destination, interface.name, route.source, route.mtu
        );
        Ok(Egress {
            framing,
            source: route.source,
            next_hop: Hop::Address(route.next_hop()),
            mtu: route.mtu,
            hop_limit: route.hop_limit,
            interface,
            persona: None,
            words,
        })
    }

    /// Through a neighbour, by the interface that leads to it.
    fn by_address(&self, via: IpAddr) -> Result<Egress, EgressError> {
        let destination = self.query.destination;
        if via.is_ipv4() != destination.is_ipv4() {
            return Err(EgressError::FamilyMismatch { via, destination });
        }
        let route = route::lookup(&Query { destination: via, ..self.query })?;
        match (route.kind, route.gateway) {
            (Kind::Local, _) => return Err(EgressError::ViaSelf(via)),
            (_, Some(gateway)) => return Err(EgressError::NotOnLink { via, gateway }),
            _ => {}
        }
        self.past_the_table(interface::by_index(route.interface)?, Hop::Address(via), route.source)
    }

    /// To a link address, by the interface that the user names.
    fn by_link(&self, mac: MacAddr) -> Result<Egress, EgressError> {
        let index = self.query.interface.ok_or(EgressError::InterfaceWanted(mac))?;
        let interface = interface::by_index(index)?;
        let destination = self.query.destination;
        let source = match (self.query.source, self.persona) {
            (Some(source), _) | (None, Some((source, _))) => source,
            (None, None) => interface::source_towards(index, destination)?
                .ok_or_else(|| EgressError::NoSource { interface: interface.name.clone(), destination })?,
        };
        self.past_the_table(interface, Hop::Link(mac), source)
    }

    fn past_the_table(
        &self,
        interface: Interface,
        next_hop: Hop,
        source: IpAddr,
    ) -> Result<Egress, EgressError> {
        let mtu = interface.mtu_towards(self.query.destination);
        let words = format!(
            "past the routing table to {}: interface {}, source {source}, next hop {next_hop}, MTU {mtu}",
            self.query.destination, interface.name
        );
        Ok(Egress {
            framing: interface.framing()?,
            source,
            next_hop,
            mtu,
            hop_limit: None,
            interface,
            persona: None,
            words,
        })
    }

    fn disguise(&self, mut egress: Egress) -> Egress {
        if let Some((address, mac)) = self.persona {
            let mac = mac.unwrap_or_else(|| link_address(&egress.interface, address));
            egress.source = address;
            egress.persona = Some(Persona { address, mac, interface: egress.interface.index });
        }
        egress
    }
}

/// Where an assumed address is to be found: at a link address of its own, but on a macvlan, whose parent hands it
/// what is sent to its one link address only (macvlan_handle_frame in drivers/net/macvlan.c).
fn link_address(interface: &Interface, address: IpAddr) -> MacAddr {
    match (interface.kind.as_deref(), interface.mac) {
        (Some("macvlan" | "macvtap"), Some(mac)) => mac,
        _ => MacAddr::locally_administered(address),
    }
}
