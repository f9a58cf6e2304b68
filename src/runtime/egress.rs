//! The egress: interface, source address and next hop of our packets, by the kernel's routing decision or
//! past it.
//!
//! A chosen next hop overrides the routing table, so that a destination can be tried by way of another
//! node, even one that this host has bound to itself (a load balancer's address under MetalLB or kube-vip).
//! With an assumed address, this host acts as one more host on the segment.
use crate::{
    host::{
        container,
        interface::{self, Framing, Interface, InterfaceError},
        metrics::Metrics,
        neighbour::{self, NeighbourState},
        route::{self, Kind, Query, RouteError},
    },
    neighbour::{LocalAddress, Neighbour},
    net::{
        MacAddr, Protocol,
        zone::{self, ScopedIp},
    },
};
use std::{collections::BTreeSet, net::IpAddr};

/// The address of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextHopAddress {
    /// By its IP address, whose link address has to be resolved.
    Ip(IpAddr),
    /// By its link address.
    Mac(MacAddr),
}

impl NextHopAddress {
    /// Returns the next hop as a text, with the interface as the zone of an address that has one.
    pub(crate) fn on(self, interface: u32) -> String {
        match self {
            NextHopAddress::Ip(address) => ScopedIp::new(address, interface).to_string(),
            NextHopAddress::Mac(mac) => mac.to_string(),
        }
    }
}

fn is_group(kind: Kind) -> bool {
    matches!(kind, Kind::Broadcast | Kind::Multicast)
}

/// A request for an egress: the flow and the user's choices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EgressRequest {
    /// The flow.
    pub query: Query,
    /// The chosen next hop; `None` leaves it to the routing tables.
    pub via: Option<NextHopAddress>,
    /// The address to assume, and its link address if that is chosen, too.
    pub assumed: Option<(IpAddr, Option<MacAddr>)>,
    /// Datagrams may go to a broadcast address, as with SO_BROADCAST.
    pub broadcast: bool,
}

/// The way of our packets out of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Egress {
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
    /// The kind of the destination: [`Kind::Unicast`] past the routing table, unless it is a group.
    pub kind: Kind,
    /// The packets leave a pod by its veth: the node's rules see them then.
    pub pod_veth: bool,
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
    pub(crate) fn return_interfaces(&self, query: &Query) -> Result<Vec<Interface>, EgressError> {
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

    /// Returns whether packets by another egress leave this host in the same way, but for the next hop's address.
    pub(super) fn is_like(&self, other: &Egress) -> bool {
        self.interface.index == other.interface.index
            && (self.framing, self.source, self.mtu) == (other.framing, other.source, other.mtu)
            && (self.metrics, self.assumed, self.kind) == (other.metrics, other.assumed, other.kind)
    }

    /// Returns whether the destination is a group or all hosts of a segment, whose members answer from their own
    /// addresses.
    pub(crate) fn is_to_group(&self) -> bool {
        is_group(self.kind)
    }

    /// Returns the next hop whose link address has to be resolved, if it has one that is not given.
    pub(crate) fn unresolved(&self) -> Option<IpAddr> {
        match (self.framing, self.next_hop) {
            (Framing::Ethernet, NextHopAddress::Ip(address)) => Some(address),
            _ => None,
        }
    }

    /// Returns the next hop's link address if it is given; zeros otherwise.
    pub(crate) fn known_mac(&self) -> MacAddr {
        match self.next_hop {
            NextHopAddress::Mac(mac) => mac,
            NextHopAddress::Ip(_) => MacAddr::default(),
        }
    }

    /// Returns the neighbour whose link address our packets carry. A permanent entry of the neighbour table
    /// is fixed.
    pub(crate) fn neighbour(&self) -> Neighbour {
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
pub(crate) enum EgressError {
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
    ViaSelf(ScopedIp),
    /// The chosen next hop is a group, or all hosts of a segment.
    #[error("next hop {0} is the address of several hosts; name a neighbour")]
    ViaGroup(ScopedIp),
    /// The destination is a broadcast address, and the user has not asked for it (EACCES of a socket without
    /// SO_BROADCAST).
    #[error("cannot send to {0}: Permission denied: it is a broadcast address; allow that with -b")]
    Broadcast(IpAddr),
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
    AssumedIsSelf(ScopedIp),
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
    pub(crate) fn decide(&self) -> Result<Egress, EgressError> {
        let destination = self.query.destination;
        if let Some((address, _)) = self.assumed {
            // An equal link-local address on another link is another address.
            let link = self.query.interface.filter(|_| zone::needs_zone(address));
            if interface::addresses(link)?.iter().any(|own| own.ip == address) {
                return Err(EgressError::AssumedIsSelf(self.here(address)));
            }
        }
        self.check_destination()?;
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
        self.check_kind(egress.kind)?;
        Ok(self.assume(egress))
    }

    /// Returns an address with the interface of the query as its zone.
    fn here(&self, address: IpAddr) -> ScopedIp {
        ScopedIp::new(address, self.query.interface.unwrap_or_default())
    }

    /// Refuses destinations that no next hop reaches.
    fn check_destination(&self) -> Result<(), EgressError> {
        let destination = self.query.destination;
        if destination.is_unspecified() {
            return Err(RouteError::Unspecified(destination).into());
        }
        self.check_unicast(route::kind_by_address(destination))
    }

    /// Refuses TCP to a group, as connect(2) does, whatever the routing table says (tcp_v4_connect in
    /// net/ipv4/tcp_ipv4.c, tcp_v6_connect in net/ipv6/tcp_ipv6.c; RFC 9293, MUST-57).
    fn check_unicast(&self, kind: Kind) -> Result<(), EgressError> {
        if self.query.protocol != Protocol::Tcp || !is_group(kind) {
            return Ok(());
        }
        let destination = self.here(self.query.destination);
        Err(RouteError::NotUnicast { destination, kind }.into())
    }

    /// Refuses destinations of the kinds that the flow may not send to. A route comes first, as in sendmsg(2)
    /// (udp_sendmsg in net/ipv4/udp.c).
    fn check_kind(&self, kind: Kind) -> Result<(), EgressError> {
        self.check_unicast(kind)?;
        match kind == Kind::Broadcast && !self.broadcast {
            true => Err(EgressError::Broadcast(self.query.destination)),
            false => Ok(()),
        }
    }

    /// Returns the request for a flow from this local port; 0 stands for one that is not known.
    #[must_use]
    pub(crate) fn with_local_port(&self, port: u16) -> EgressRequest {
        let source_port = Some(port).filter(|port| *port != 0);
        EgressRequest { query: Query { source_port, ..self.query }, ..*self }
    }

    /// Returns the request for a flow to this remote port.
    #[must_use]
    pub(crate) fn with_remote_port(&self, port: u16) -> EgressRequest {
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
        let here = |address| ScopedIp::new(address, interface.index);
        let via = route.gateway.map_or("on link".to_owned(), |gateway| format!("gateway {}", here(gateway)));
        let description = format!(
            "route to {}{on_host}: interface {}, source {}, {via}, MTU {}",
            here(route.destination),
            interface.name,
            here(route.source),
            route.mtu
        );
        let group = match route.kind {
            Kind::Broadcast => Some(MacAddr::BROADCAST),
            _ => MacAddr::of_group(route.destination),
        };
        Ok(Egress {
            framing,
            pod_veth: leaves_pod(&interface),
            source: route.source,
            next_hop: group.map_or(NextHopAddress::Ip(route.next_hop()), NextHopAddress::Mac),
            mtu: route.mtu,
            metrics: route.metrics,
            interface,
            assumed: None,
            kind: route.kind,
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
            (Kind::Local, _) => return Err(EgressError::ViaSelf(self.here(via))),
            (kind, _) if is_group(kind) => return Err(EgressError::ViaGroup(self.here(via))),
            (_, Some(gateway)) => return Err(EgressError::NotOnLink { via, gateway }),
            _ => {}
        }
        let interface = interface::by_index(route.interface)?;
        // The route to a link-local next hop names a link-local source, which the destination's host could not
        // answer. The kernel chooses the source for the destination (ip6_route_get_saddr in net/ipv6/route.c).
        let source = match self.query.source.is_none() && zone::needs_zone(via) {
            true => interface::source_towards(interface.index, destination)?.unwrap_or(route.source),
            false => route.source,
        };
        self.past_the_table(interface, NextHopAddress::Ip(via), source)
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
        let here = |address| ScopedIp::new(address, interface.index);
        let description = format!(
            "past the routing table to {}: interface {}, source {}, next hop {}, MTU {mtu}",
            here(self.query.destination),
            interface.name,
            here(source),
            next_hop.on(interface.index)
        );
        let kind = match route::kind(&self.query) {
            kind if is_group(kind) => kind,
            _ => Kind::Unicast,
        };
        Ok(Egress {
            framing: interface.framing()?,
            pod_veth: leaves_pod(&interface),
            source,
            next_hop,
            mtu,
            metrics: Metrics::default(),
            interface,
            assumed: None,
            kind,
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
/// Returns whether packets by this interface leave a pod.
fn leaves_pod(interface: &Interface) -> bool {
    // The file is read before the sandbox forbids it, whatever the first interface is.
    interface.kind.as_deref() == Some("veth") && container::has_pod_network()
}
