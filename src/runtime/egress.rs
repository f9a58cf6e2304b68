//! The egress: interface, source address and next hop of our packets, by the kernel's routing decision or
//! past it.
//!
//! A chosen next hop overrides the routing table, so that a destination can be tried by way of another
//! node, even one that this host has bound to itself (a load balancer's address under MetalLB or kube-vip).
//! With an assumed address, this host acts as one more host on the segment.
use crate::{
    host::{
        interface::{self, Framing, Interface, InterfaceError},
        metrics::Metrics,
        neighbour::{self, NeighbourState},
        route::{self, Kind, Query, RouteError},
    },
    neighbour::{LocalAddress, Neighbour},
    net::MacAddr,
};
use std::{collections::BTreeSet, fmt, net::IpAddr};

/// The address of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopAddress {
    /// By its IP address, whose link address has to be resolved.
    Ip(IpAddr),
    /// By its link address.
    Mac(MacAddr),
}

impl fmt::Display for NextHopAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHopAddress::Ip(address) => address.fmt(f),
            NextHopAddress::Mac(mac) => mac.fmt(f),
        }
    }
}

/// A request for an egress: the flow and the user's choices.
#[derive(Clone, Copy, Debug)]
pub struct EgressRequest {
    /// The flow.
    pub query: Query,
    /// The chosen next hop; `None` leaves it to the routing tables.
    pub via: Option<NextHopAddress>,
    /// The address to assume, and its link address if that is chosen, too.
    pub assumed: Option<(IpAddr, Option<MacAddr>)>,
}

/// The way of our packets out of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The output interface.
    pub interface: Interface,
    /// The interface's link headers.
    pub framing: Framing,
    /// The source address.
    pub source: IpAddr,
    /// The next hop.
    pub next_hop: NextHopAddress,
    /// The path's MTU as far as the host knows it, in bytes.
    pub mtu: u32,
    /// The route's metrics.
    pub metrics: Metrics,
    /// The assumed address.
    pub assumed: Option<LocalAddress>,
    /// The egress as a sentence for the log.
    pub description: String,
}

impl Egress {
    /// Returns the other interfaces by which answers may arrive, as they may for a kernel socket: that of
    /// the source address, and those of the route's other next hops. There are none for a `query` that is
    /// bound to an interface, and for an assumed address.
    ///
    /// # Errors
    /// [`EgressError::Interface`].
    pub fn return_interfaces(&self, query: &Query) -> Result<Vec<Interface>, EgressError> {
        if query.interface.is_some() || self.assumed.is_some() || self.framing == Framing::Loopback {
            return Ok(Vec::new());
        }
        let addresses = interface::addresses(None)?.into_iter();
        let own = addresses.filter(|address| address.ip == self.source).map(|address| address.interface);
        let indices: BTreeSet<_> = route::paths(query).into_iter().chain(own).collect();
        let others = indices.into_iter().filter(|index| *index != self.interface.index);
        // An interface that is gone meanwhile brings no answers.
        let interfaces = others.filter_map(|index| interface::by_index(index).ok());
        Ok(interfaces.filter(|i| !i.loopback && i.framing().is_ok()).collect())
    }

    /// Returns the next hop whose link address has to be resolved, if it has one that is not given.
    pub fn unresolved(&self) -> Option<IpAddr> {
        match (self.framing, self.next_hop) {
            (Framing::Ethernet, NextHopAddress::Ip(address)) => Some(address),
            _ => None,
        }
    }

    /// Returns the next hop's link address if it is given; zeros otherwise.
    pub fn known_mac(&self) -> MacAddr {
        match self.next_hop {
            NextHopAddress::Mac(mac) => mac,
            NextHopAddress::Ip(_) => MacAddr::default(),
        }
    }

    /// Returns the neighbour whose link address our packets carry. A permanent entry of the neighbour table
    /// is fixed.
    pub fn neighbour(&self) -> Neighbour {
        match (self.framing, self.next_hop) {
            (Framing::Ethernet, NextHopAddress::Ip(address)) if self.assumed.is_some() => {
                Neighbour::At(address)
            }
            (Framing::Ethernet, NextHopAddress::Ip(address)) => {
                let entry = neighbour::lookup(self.interface.index, address).ok().flatten();
                let permanent = entry.is_some_and(|entry| entry.state == NeighbourState::Permanent);
                if permanent { Neighbour::Fixed } else { Neighbour::At(address) }
            }
            _ => Neighbour::Fixed,
        }
    }
}

/// The reason why packets have no egress interface or next hop.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The routing tables have no usable route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// An interface is unknown or of an unknown kind.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The chosen next hop is behind a gateway.
    #[error(
        "next hop {via} is not on a segment of this host: the route to it leads through {gateway}; name a neighbour"
    )]
    NotOnLink {
        /// The chosen next hop.
        via: IpAddr,
        /// The gateway of the route to it.
        gateway: IpAddr,
    },
    /// The chosen next hop is an address of this host.
    #[error("next hop {0} is this host itself; name a neighbour")]
    ViaSelf(IpAddr),
    /// The chosen next hop is of the other address family.
    #[error(
        "next hop {via} and {destination} are not of one address family; name the next hop by its MAC address"
    )]
    FamilyMismatch {
        /// The chosen next hop.
        via: IpAddr,
        /// The destination.
        destination: IpAddr,
    },
    /// A link address alone does not tell the interface.
    #[error("next hop {0}: a link address does not tell the interface")]
    InterfaceWanted(MacAddr),
    /// The interface has no address of the destination's family.
    #[error("{interface} has no address to send to {destination} from")]
    NoSource {
        /// The interface's name.
        interface: String,
        /// The destination.
        destination: IpAddr,
    },
    /// The address to assume is this host's.
    #[error("{0} is this host's own address")]
    AssumedIsSelf(IpAddr),
    /// The destination is an address of this host.
    #[error("{0} is this host's own: from outside it is reached by way of a neighbour")]
    DestinationIsSelf(IpAddr),
    /// The destination is this host's own link-local address, which the kernel does not accept on lo (RT6_LOOKUP_F_IFACE:
    /// ip6_route_input_lookup() in net/ipv6/route.c), or an address in a VRF, where packet sockets do not receive the
    /// kernel's answers (PACKET_LOOPBACK: vrf_local_xmit() in drivers/net/vrf.c, packet_rcv() in net/packet/af_packet.c).
    #[error(
        "{0} is this host's own address, link-local or in a VRF, which netkat cannot reach from here; connect to \
         another address of this host, or from another host"
    )]
    OwnOutOfReach(IpAddr),
    /// The interface cannot carry frames to a chosen next hop or from an assumed address.
    #[error("a chosen next hop and an assumed address need an interface with link addresses; {0} has none")]
    NoLinkAddresses(String),
}

impl EgressRequest {
    /// Decides the egress by queries to the kernel, without changing anything there.
    ///
    /// # Errors
    /// [`EgressError`].
    pub fn decide(&self) -> Result<Egress, EgressError> {
        let destination = self.query.destination;
        if let Some((address, _)) = self.assumed
            && interface::addresses(None)?.iter().any(|own| own.ip == address)
        {
            return Err(EgressError::AssumedIsSelf(address));
        }
        let egress = match self.via {
            Some(NextHopAddress::Ip(via)) => self.by_address(via)?,
            Some(NextHopAddress::Mac(mac)) => self.by_link(mac)?,
            None => self.by_route()?,
        };
        if (self.via.is_some() || self.assumed.is_some()) && egress.framing != Framing::Ethernet {
            return Err(match egress.framing {
                Framing::Loopback => EgressError::DestinationIsSelf(destination),
                _ => EgressError::NoLinkAddresses(egress.interface.name),
            });
        }
        Ok(self.assume(egress))
    }

    /// Returns the request for a flow from this local port; 0 stands for one that is not known.
    #[must_use]
    pub fn with_local_port(&self, port: u16) -> EgressRequest {
        let source_port = Some(port).filter(|port| *port != 0);
        EgressRequest { query: Query { source_port, ..self.query }, ..*self }
    }

    /// Returns the request for a flow to this remote port.
    #[must_use]
    pub fn with_remote_port(&self, port: u16) -> EgressRequest {
        EgressRequest { query: Query { destination_port: Some(port), ..self.query }, ..*self }
    }

    /// Decides as the kernel would for a socket of its own.
    fn by_route(&self) -> Result<Egress, EgressError> {
        let route = route::lookup(&self.query)?;
        let interface = interface::by_index(route.interface)?;
        if !interface.up {
            // The table of local addresses keeps those of lo while it is down.
            let destination = self.query.destination;
            return Err(RouteError::InterfaceDown { destination, interface: interface.name }.into());
        }
        let framing = interface.framing()?;
        let link_local = matches!(route.destination, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if route.kind == Kind::Local && (link_local || !interface.loopback) {
            return Err(EgressError::OwnOutOfReach(route.destination));
        }
        let on_host = if route.kind == Kind::Local { " (this host)" } else { "" };
        let via = route.gateway.map_or("on link".to_owned(), |gateway| format!("gateway {gateway}"));
        let description = format!(
            "route to {}{on_host}: interface {}, source {}, {via}, MTU {}",
            route.destination, interface.name, route.source, route.mtu
        );
        Ok(Egress {
            framing,
            source: route.source,
            next_hop: NextHopAddress::Ip(route.next_hop()),
            mtu: route.mtu,
            metrics: route.metrics,
            interface,
            assumed: None,
            description,
        })
    }

    /// Decides for a next hop by address: the interface that leads to it.
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
        self.past_the_table(interface::by_index(route.interface)?, NextHopAddress::Ip(via), route.source)
    }

    /// Decides for a next hop by link address: the interface that the user names.
    fn by_link(&self, mac: MacAddr) -> Result<Egress, EgressError> {
        let index = self.query.interface.ok_or(EgressError::InterfaceWanted(mac))?;
        let interface = interface::by_index(index)?;
        let destination = self.query.destination;
        let source = match (self.query.source, self.assumed) {
            (Some(source), _) | (None, Some((source, _))) => source,
            (None, None) => interface::source_towards(index, destination)?
                .ok_or_else(|| EgressError::NoSource { interface: interface.name.clone(), destination })?,
        };
        self.past_the_table(interface, NextHopAddress::Mac(mac), source)
    }

    fn past_the_table(
        &self,
        interface: Interface,
        next_hop: NextHopAddress,
        source: IpAddr,
    ) -> Result<Egress, EgressError> {
        let mtu = interface.mtu_towards(self.query.destination);
        let description = format!(
            "past the routing table to {}: interface {}, source {source}, next hop {next_hop}, MTU {mtu}",
            self.query.destination, interface.name
        );
        Ok(Egress {
            framing: interface.framing()?,
            source,
            next_hop,
            mtu,
            metrics: Metrics::default(),
            interface,
            assumed: None,
            description,
        })
    }

    fn assume(&self, mut egress: Egress) -> Egress {
        if let Some((address, mac)) = self.assumed {
            let mac = mac.unwrap_or_else(|| link_address(&egress.interface, address));
            egress.source = address;
            egress.assumed = Some(LocalAddress { address, mac, interface: egress.interface.index });
        }
        egress
    }
}

/// Returns the link address of an assumed address: one of its own, except on a macvlan, whose parent
/// delivers only frames to the device's link address (macvlan_handle_frame in drivers/net/macvlan.c).
fn link_address(interface: &Interface, address: IpAddr) -> MacAddr {
    match (interface.kind.as_deref(), interface.mac) {
        (Some("macvlan" | "macvtap"), Some(mac)) => mac,
        _ => MacAddr::locally_administered(address),
    }
}
