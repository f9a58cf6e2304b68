//! The kernel's routing decision for one flow.
//!
//! The request has what the kernel's own connect(2) looks at (RTM_GETROUTE with the flow's protocol, ports,
//! traffic class and user), so policy rules, VRFs, multipath hashing and nexthop objects answer for the
//! real flow. For IPv4 there are two requests, as connect(2) makes two lookups (ip_route_connect in
//! include/net/route.h): the first chooses the source address, at which a rule or a hash may look in the
//! second.
//!
//! Two answers are wrong. With an output interface, IPv4 invents an on-link route where the table has none
//! (ip_route_output_key_hash_rcu in net/ipv4/route.c); such an answer names no table. And with a source as
//! well, IPv6 prefers a longer prefix through another interface.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
};

use log::debug;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteVia},
    rule::{RuleAttribute, RuleMessage},
};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};

pub(crate) use netlink_packet_route::route::RouteType;

use super::{
    interface::{self, Interface, InterfaceError},
    metrics::Metrics,
    netlink::{Netlink, NetlinkError},
};
use crate::net::{
    Protocol,
    zone::{ScopedIp, needs_zone},
};

/// The total length field of an IP packet has 16 bits.
const MAX_IP_PACKET: u32 = 65535;
/// The DSCP in a traffic class; the other two bits are ECN's (RFC 3168, section 5).
const DSCP_MASK: u8 = 0xfc;
/// Destination port where none matters (discard, RFC 863); nothing is sent there.
const DISCARD_PORT: u16 = 9;

/// The flow whose route is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The destination.
    pub destination: IpAddr,
    /// An address of this host; `None` for an assumed address, from which the kernel knows no route.
    pub source: Option<IpAddr>,
    /// Index of the output interface, or of the VRF device, that the flow is bound to.
    pub interface: Option<u32>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The source port, if it is known.
    pub source_port: Option<u16>,
    /// The destination port, if there is only one.
    pub destination_port: Option<u16>,
    /// The TOS or traffic class. Rules look at the DSCP (in IPv4 before Linux 6.13, at its lower three bits).
    pub traffic_class: u8,
    /// The user that the flow's socket belongs to, for rules with a uidrange; `None` for this process's, as of
    /// a socket that it creates now.
    pub user: Option<u32>,
}

impl Query {
    /// Returns the query for a flow to `destination`, whose zone, if it has one, is the output interface.
    pub fn to(destination: SocketAddr, protocol: Protocol) -> Self {
        let zone = match destination {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
            _ => None,
        };
        Query {
            destination: destination.ip().to_canonical(),
            source: None,
            interface: zone,
            protocol,
            source_port: None,
            destination_port: Some(destination.port()),
            traffic_class: 0,
            user: None,
        }
    }
}

/// The kind of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another host.
    Unicast,
    /// An address of this host, which the kernel reaches by `lo` or the VRF device.
    Local,
    /// All hosts on a segment.
    Broadcast,
    /// A group.
    Multicast,
    /// The nearest of several hosts.
    Anycast,
}

/// The route of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub destination: IpAddr,
    /// The kind of destination.
    pub kind: Kind,
    /// Index of the output interface; that of `lo` for [`Kind::Local`], even if the query names another.
    pub interface: u32,
    /// The source address.
    pub source: IpAddr,
    /// The next hop if the destination is not on-link; may be IPv6 for an IPv4 destination (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The path's MTU in bytes, at most 65535: the interface's, a route metric, or one that an ICMP error
    /// reported.
    pub mtu: u32,
    /// The route's metrics.
    pub metrics: Metrics,
}

impl Route {
    /// Returns the address whose link address the frames are sent to.
    pub fn next_hop(&self) -> IpAddr {
        self.gateway.unwrap_or(self.destination)
    }
}

/// The reason why a flow has no route.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No routing table has an entry.
    #[error(
        "no route to {0}: the network is unreachable, no routing table has an entry for it; \
         add a route, or name interface and next hop"
    )]
    None(ScopedIp),
    /// An unreachable route or rule.
    #[error("no route to {0}: the routing policy declares it unreachable; see: ip route get {0}; ip rule")]
    Unreachable(ScopedIp),
    /// A prohibit route or rule.
    #[error("no route to {0}: the routing policy prohibits it; see: ip route get {0}; ip rule")]
    Prohibited(ScopedIp),
    /// A blackhole route or rule.
    #[error("no route to {0}: the routing policy discards it (blackhole); see: ip route get {0}; ip rule")]
    Blackhole(ScopedIp),
    /// The source is no address of this host.
    #[error("source address {source_address} is not on this host; use one of its own addresses")]
    ForeignSource {
        /// The source.
        source_address: IpAddr,
    },
    /// The source address is tentative or a duplicate.
    #[error("source address {source_address} can't be used: {reason}")]
    UnusableSource {
        /// The source.
        source_address: IpAddr,
        /// The reason, as a clause of the message.
        reason: &'static str,
    },
    /// The output interface has no address.
    #[error(
        "no route to {destination}: {interface} has no address to send from; assign it one, or name a source"
    )]
    NoSource {
        /// The destination.
        destination: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The route leads out of another interface.
    #[error(
        "no route to {destination} through {asked}: {}; leave the interface out, or name the next hop",
        instead(.chosen.as_deref())
    )]
    InterfaceMismatch {
        /// The destination.
        destination: IpAddr,
        /// The interface in the query.
        asked: String,
        /// The interface that the routing table names.
        chosen: Option<String>,
    },
    /// The interface is down.
    #[error("no route to {destination} through {interface}: it is down; try: ip link set {interface} up")]
    InterfaceDown {
        /// The destination.
        destination: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// A link-local destination, or a group of the link, without a zone.
    #[error("{0} is link-local: say on which interface, as {0}%eth0")]
    ZoneMissing(Ipv6Addr),
    /// TCP to a group; the kernel's connect(2) says ENETUNREACH.
    #[error(
        "no route to {destination}: the network is unreachable by TCP, which has no {}",
        if *.kind == Kind::Broadcast { "broadcast" } else { "multicast" }
    )]
    NotUnicast {
        /// The destination.
        destination: ScopedIp,
        /// [`Kind::Broadcast`] or [`Kind::Multicast`].
        kind: Kind,
    },
    /// The destination is 0.0.0.0 or ::.
    #[error("{0} is no destination; this host is 127.0.0.1 or ::1")]
    Unspecified(IpAddr),
    /// Source and destination are of two families.
    #[error("source {source_address} and destination {destination} are not of one address family")]
    FamilyMismatch {
        /// The source.
        source_address: IpAddr,
        /// The destination.
        destination: IpAddr,
    },
    /// The route encapsulates packets (lwtunnel).
    #[error("the route to {destination} encapsulates its packets ({kind}), which netkat can't do")]
    Encapsulated {
        /// The destination.
        destination: IpAddr,
        /// The encapsulation.
        kind: String,
    },
    /// An interface is unknown.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The kernel does not answer.
    #[error("could not ask the kernel for the route to {destination}: {source}")]
    Netlink {
        /// The destination.
        destination: IpAddr,
        /// The request's error.
        source: NetlinkError,
    },
}

fn instead(chosen: Option<&str>) -> String {
    match chosen {
        Some(name) => format!("the routing table sends it through {name}"),
        None => "no routing table has an entry for it".to_owned(),
    }
}

/// Looks up the route of a flow. Needs no privilege.
///
/// # Errors
/// [`RouteError`] tells whether a table, a rule or an interface refuses.
pub fn lookup(query: &Query) -> Result<Route, RouteError> {
    let mut netlink =
        Netlink::open().map_err(|source| RouteError::Netlink { destination: query.destination, source })?;
    let bound = query.interface.map(interface::by_index).transpose()?;
    check(query)?;
    if let Some(source) = query.source {
        check_source(&mut netlink, query, source)?;
    }
    let answer = ask_as_connect(&mut netlink, query)
        .and_then(|answer| check_interface(answer, query, bound.as_ref()))
        .or_else(|error| ask_elsewhere(error, &mut netlink, query, bound.as_ref()))
        .map_err(|error| blame_interface(error, query.destination))?;
    let route = route(&answer, query)?;
    debug!("route: {route:?}");
    Ok(route)
}

/// Returns the kind of a destination as far as the address alone tells it; [`Kind::Unicast`] for a subnet's
/// broadcast address, too.
pub(crate) fn kind_by_address(destination: IpAddr) -> Kind {
    match destination {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Kind::Broadcast,
        _ if destination.is_multicast() => Kind::Multicast,
        _ => Kind::Unicast,
    }
}

/// Returns the kind of a flow's destination; [`Kind::Unicast`] without a route.
pub(crate) fn kind(query: &Query) -> Kind {
    match kind_by_address(query.destination) {
        Kind::Unicast => lookup(&Query { source: None, ..*query }).map_or(Kind::Unicast, |route| route.kind),
        kind => kind,
    }
}

/// Returns whether only the default route leads to the destination. `false` also where the kernel does not
/// tell: IPv4 before Linux 4.13, IPv6 before 4.15.
pub(crate) fn is_default(query: &Query) -> bool {
    logged_entry(query).is_some_and(|entry| entry.prefix == 0)
}

/// Returns whether flows that differ in their ports may take different routes: several paths, or policy rules
/// that look at ports. `true` also where the kernel does not tell.
pub(crate) fn depends_on_port(query: &Query) -> bool {
    paths(query).len() > 1 || rules_look_at_ports(query.destination.is_ipv4()).unwrap_or(true)
}

pub(super) fn rules_look_at_ports(v4: bool) -> Result<bool, NetlinkError> {
    let mut message = RuleMessage::default();
    message.header.family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let rules = Netlink::open()?.dump(RouteNetlinkMessage::GetRule(message))?;
    Ok(rules.iter().any(|reply| match reply {
        RouteNetlinkMessage::NewRule(rule) => rule.attributes.iter().any(|attribute| {
            matches!(attribute, RuleAttribute::SourcePortRange(_) | RuleAttribute::DestinationPortRange(_))
        }),
        _ => false,
    }))
}

/// Returns the output interfaces of the route's next hops.
pub(crate) fn paths(query: &Query) -> Vec<u32> {
    let nexthops = logged_entry(query).map(|entry| entry.nexthops).unwrap_or_default();
    nexthops.into_iter().map(|nexthop| nexthop.interface).collect()
}

/// Returns the routing table's entry, or logs why there is none.
fn logged_entry(query: &Query) -> Option<FibEntry> {
    Netlink::open()
        .and_then(|mut netlink| fib_entry(&mut netlink, query))
        .inspect_err(|error| debug!("cannot tell which route leads to {}: {error}", query.destination))
        .ok()
}

/// An entry of a routing table (FIB, forwarding information base).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FibEntry {
    /// The kind of destination; never one that refuses, which is an error.
    pub kind: RouteType,
    /// Length of the destination's prefix, in bits.
    pub prefix: u8,
    /// The next hops, at least one; a multipath route has several.
    pub nexthops: Vec<FibNexthop>,
    /// The route's metrics.
    pub metrics: Metrics,
}

/// A next hop of a routing table's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FibNexthop {
    /// The output interface's index.
    pub interface: u32,
    /// The gateway if the destination is not on-link.
    pub gateway: Option<IpAddr>,
}

/// Returns the routing table's entry for `query`, over an open socket. Kernels that cannot name the entry
/// (IPv4 before Linux 4.13, IPv6 before 4.15) name the next hop that they would take, with the prefix of a
/// host.
///
/// # Errors
/// [`NetlinkError::Refused`] where no table has an entry or the entry refuses, or another where the kernel
/// does not answer.
pub(super) fn fib_entry(netlink: &mut Netlink, query: &Query) -> Result<FibEntry, NetlinkError> {
    let mut message = question(query);
    message.header.flags |= RouteFlags::FibMatch;
    let replies = netlink.request(RouteNetlinkMessage::GetRoute(message), 0)?;
    let route = replies.into_iter().find_map(|reply| match reply {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    let route = route.ok_or(NetlinkError::Malformed("no route in it"))?;
    let (mut only, mut nexthops) = (FibNexthop { interface: 0, gateway: None }, Vec::new());
    let mut metrics = Metrics::default();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => only.interface = *index,
            RouteAttribute::Metrics(list) => metrics = Metrics::from_attributes(list),
            RouteAttribute::MultiPath(hops) => nexthops.extend(hops.iter().map(|hop| FibNexthop {
                interface: hop.interface_index,
                gateway: hop.attributes.iter().find_map(gateway),
            })),
            other => only.gateway = only.gateway.or_else(|| gateway(other)),
        }
    }
    if nexthops.is_empty() {
        nexthops.push(only);
    }
    let prefix = route.header.destination_prefix_length;
    Ok(FibEntry { kind: route.header.kind, prefix, nexthops, metrics })
}

/// Looks up a flow's route with a packet's mark, over an open socket.
///
/// # Errors
/// [`NetlinkError::Refused`] where rules or routes refuse, or another where the kernel does not answer.
pub(super) fn with_policy(netlink: &mut Netlink, query: &Query, mark: u32) -> Result<(), NetlinkError> {
    let mut message = question(query);
    message.attributes.push(RouteAttribute::Mark(mark));
    netlink.request(RouteNetlinkMessage::GetRoute(message), 0).map(drop)
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

/// Returns output interface and next hop from `source` to `destination`, over an open socket.
pub(super) fn neighbour_towards(
    netlink: &mut Netlink,
    source: Option<IpAddr>,
    destination: IpAddr,
    user: Option<u32>,
) -> Option<(u32, IpAddr)> {
    let query =
        Query { source, user, ..Query::to(SocketAddr::new(destination, DISCARD_PORT), Protocol::Tcp) };
    let answer = ask(netlink, &query).ok().filter(|answer| answer.kind == RouteType::Unicast)?;
    Some((answer.interface, answer.gateway.unwrap_or(destination)))
}

/// Returns the source address that the kernel chooses for `query`, over an open socket.
pub(super) fn source(netlink: &mut Netlink, query: &Query) -> Option<IpAddr> {
    ask(netlink, query).ok()?.source
}

/// The routing tables' answer about an address, for no socket of this host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableAnswer {
    /// The address is this host's.
    pub is_local: bool,
    /// Index of the interface that leads there.
    pub interface: u32,
    /// The address whose link address frames are sent to.
    pub next_hop: IpAddr,
}

/// Asks the routing tables alone, which takes rtnetlink and no other socket; `None` without a route.
pub(crate) fn by_tables(query: &Query) -> Option<TableAnswer> {
    let answer = Netlink::open().ok().and_then(|mut netlink| ask(&mut netlink, query).ok())?;
    Some(TableAnswer {
        is_local: answer.kind == RouteType::Local,
        interface: answer.interface,
        next_hop: answer.gateway.unwrap_or(query.destination),
    })
}

/// The way of a packet out of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Index of the output interface.
    pub interface: u32,
    /// The neighbour that the packet goes to.
    pub next_hop: IpAddr,
    /// The path's MTU in bytes, if a route metric or an ICMP error gave one; else the interface's holds.
    pub mtu: Option<u32>,
}

/// Returns the way of a flow's packets to another host, by one question over an open socket.
///
/// # Errors
/// [`RouteError`], with [`RouteError::None`] also for destinations that are no other host's.
pub(super) fn departure(netlink: &mut Netlink, query: &Query) -> Result<Departure, RouteError> {
    let answer = ask(netlink, query)?;
    // IPv4 invents a route through the interface in the query: see the module's head.
    let invented = query.interface.is_some()
        && query.destination.is_ipv4()
        && answer.table == Some(u32::from(RouteHeader::RT_TABLE_UNSPEC));
    let elsewhere = query.interface.is_some_and(|asked| asked != answer.interface);
    if answer.kind != RouteType::Unicast || invented || elsewhere {
        let destination = ScopedIp::new(query.destination, query.interface.unwrap_or_default());
        return Err(RouteError::None(destination));
    }
    let next_hop = answer.gateway.unwrap_or(query.destination);
    Ok(Departure { interface: answer.interface, next_hop, mtu: answer.metrics.mtu })
}

/// A route to other hosts in the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableRoute {
    /// The destination's network.
    pub destination: IpAddr,
    /// Length of its prefix, in bits.
    pub prefix: u8,
    /// Index of the output interface, the first of several.
    pub interface: u32,
    /// The gateway if the network is not on-link, and has only one.
    pub gateway: Option<IpAddr>,
    /// The source address that the route prefers.
    pub source: Option<IpAddr>,
    /// The metric; the lowest wins.
    pub metric: u32,
}

/// Returns the unicast routes of the main table, of both families.
///
/// # Errors
/// [`NetlinkError`] where the kernel does not answer.
pub(crate) fn main_table() -> Result<Vec<TableRoute>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let mut routes = Vec::new();
    for (family, nowhere) in [
        (AddressFamily::Inet, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (AddressFamily::Inet6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        for reply in netlink.dump(RouteNetlinkMessage::GetRoute(message))? {
            let RouteNetlinkMessage::NewRoute(route) = reply else { continue };
            routes.extend(table_route(&route, nowhere));
        }
    }
    Ok(routes)
}

fn table_route(route: &RouteMessage, nowhere: IpAddr) -> Option<TableRoute> {
    if route.header.table != RouteHeader::RT_TABLE_MAIN
        || route.header.kind != RouteType::Unicast
        || route.header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let prefix = route.header.destination_prefix_length;
    let mut found =
        TableRoute { destination: nowhere, prefix, interface: 0, gateway: None, source: None, metric: 0 };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => found.destination = ip(address)?,
            RouteAttribute::Oif(index) => found.interface = *index,
            RouteAttribute::MultiPath(hops) => found.interface = hops.first()?.interface_index,
            RouteAttribute::PrefSource(address) => found.source = ip(address),
            RouteAttribute::Priority(metric) => found.metric = *metric,
            other => found.gateway = found.gateway.or_else(|| gateway(other)),
        }
    }
    (found.interface > 0).then_some(found)
}

/// Refuses destinations that the kernel would misunderstand.
fn check(query: &Query) -> Result<(), RouteError> {
    match (query.destination, query.interface) {
        (destination, _) if destination.is_unspecified() => Err(RouteError::Unspecified(destination)),
        (IpAddr::V6(v6), None) if needs_zone(v6.into()) => Err(RouteError::ZoneMissing(v6)),
        _ => Ok(()),
    }
}

/// Checks that the host may send from `source`; the kernel's own refusal looks like a missing route.
fn check_source(netlink: &mut Netlink, query: &Query, source: IpAddr) -> Result<(), RouteError> {
    if source.is_ipv4() != query.destination.is_ipv4() {
        return Err(RouteError::FamilyMismatch { source_address: source, destination: query.destination });
    }
    let link_local = matches!(source, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let zone = query.interface.filter(|_| link_local);
    match interface::addresses(zone)?.iter().find(|address| address.ip == source) {
        Some(address) if address.duplicate => Err(RouteError::UnusableSource {
            source_address: source,
            reason: "duplicate address detection found another host that has it",
        }),
        Some(address) if address.tentative => Err(RouteError::UnusableSource {
            source_address: source,
            reason: "duplicate address detection has not finished; try again in a second or two",
        }),
        Some(_) => Ok(()),
        // A whole prefix may be local: 127.0.0.0/8, or `ip route add local`. An interface finds that of a VRF.
        None => {
            let mut is_local = |interface| {
                let query = Query { destination: source, source: None, interface, ..*query };
                ask(netlink, &query).is_ok_and(|answer| answer.kind == RouteType::Local)
            };
            match is_local(query.interface) || is_local(None) {
                true => Ok(()),
                false => Err(RouteError::ForeignSource { source_address: source }),
            }
        }
    }
}

/// Makes the lookups of the kernel's connect(2).
pub(super) fn ask_as_connect(netlink: &mut Netlink, query: &Query) -> Result<Answer, RouteError> {
    let first = ask(netlink, query);
    match (query.destination, query.source) {
        (IpAddr::V4(_), None) => {
            let chosen = first?;
            match chosen.source {
                Some(source) => ask(netlink, &Query { source: Some(source), ..*query }),
                None => Ok(chosen),
            }
        }
        (IpAddr::V4(_), Some(_)) => first,
        // A route may exist for one source only; then IPv6 chooses the source without a route and asks again
        // (ip6_dst_lookup_tail in net/ipv6/ip6_output.c).
        (IpAddr::V6(_), None) => match first {
            Ok(answer) if answer.source.is_some() => Ok(answer),
            first => match source_of_socket(query) {
                Some(source) => ask(netlink, &Query { source: Some(source), ..*query }),
                None => first,
            },
        },
        // Without a source the interface binds strictly, as it does for a socket that is bound to both.
        (IpAddr::V6(_), Some(source)) => match (first, query.interface) {
            (Ok(answer), Some(asked)) if answer.interface != asked && answer.kind == RouteType::Unicast => {
                let strict = ask(netlink, &Query { source: None, ..*query })?;
                Ok(Answer { source: Some(source), ..strict })
            }
            (first, _) => first,
        },
    }
}

/// Returns the source that the kernel gives a socket of its own. Sends nothing.
fn source_of_socket(query: &Query) -> Option<IpAddr> {
    let IpAddr::V6(destination) = query.destination else { return None };
    let connected = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        if let Some(index) = query.interface {
            let name = interface::by_index(index).map_err(io::Error::other)?.name;
            setsockopt(&socket, sockopt::BindToDevice, &name.into())?;
        }
        let port = query.destination_port.unwrap_or(DISCARD_PORT);
        socket.connect(SocketAddrV6::new(destination, port, 0, query.interface.unwrap_or(0)))?;
        Ok(socket.local_addr()?.ip())
    };
    connected()
        .inspect_err(|error| debug!("the kernel has no source address for {destination}: {error}"))
        .ok()
        .filter(|source| !source.is_unspecified())
}

/// Refuses answers that do not keep to the interface in the query.
fn check_interface(answer: Answer, query: &Query, bound: Option<&Interface>) -> Result<Answer, RouteError> {
    let Some(bound) = bound.filter(|_| answer.kind == RouteType::Unicast) else { return Ok(answer) };
    let mismatch = |chosen| RouteError::InterfaceMismatch {
        destination: query.destination,
        asked: bound.name.clone(),
        chosen,
    };
    if answer.interface != bound.index {
        let chosen = interface::by_index(answer.interface)?;
        // Bound to a VRF device or a bond: one of its ports carries the flow.
        if chosen.master != Some(bound.index) {
            return Err(mismatch(Some(chosen.name)));
        }
    }
    // Without neighbours, an invented on-link route is right.
    let invented = answer.table == Some(u32::from(RouteHeader::RT_TABLE_UNSPEC));
    if invented && query.destination.is_ipv4() && !bound.no_arp {
        return Err(mismatch(None));
    }
    Ok(answer)
}

/// Repeats the lookup without the interface if that was the obstacle: the destination may be this host's
/// own address, to which only `lo` leads; otherwise the answer explains the error.
fn ask_elsewhere(
    error: RouteError,
    netlink: &mut Netlink,
    query: &Query,
    bound: Option<&Interface>,
) -> Result<Answer, RouteError> {
    let (RouteError::None(_) | RouteError::InterfaceMismatch { chosen: None, .. }, Some(bound)) =
        (&error, bound)
    else {
        return Err(error);
    };
    let destination = query.destination;
    let elsewhere = ask(netlink, &Query { interface: None, ..*query }).ok();
    match elsewhere {
        Some(answer) if answer.kind == RouteType::Local => Ok(answer),
        _ if !bound.up => Err(RouteError::InterfaceDown { destination, interface: bound.name.clone() }),
        _ => {
            let chosen = elsewhere.and_then(|answer| interface::by_index(answer.interface).ok());
            let asked = bound.name.clone();
            Err(RouteError::InterfaceMismatch { destination, asked, chosen: chosen.map(|other| other.name) })
        }
    }
}

/// Names the interface that would lead to the destination if it were up, where no table has a route.
fn blame_interface(error: RouteError, destination: IpAddr) -> RouteError {
    let RouteError::None(_) = error else { return error };
    let down = || -> Result<Option<String>, InterfaceError> {
        let addresses = interface::addresses(None)?;
        let leads = |interface: &Interface| {
            interface.loopback && destination.is_loopback()
                || addresses.iter().any(|own| own.interface == interface.index && own.on_link(destination))
        };
        let mut down = interface::all()?.into_iter().filter(|interface| !interface.up);
        Ok(down.find(leads).map(|interface| interface.name))
    };
    match down() {
        Ok(Some(interface)) => RouteError::InterfaceDown { destination, interface },
        _ => error,
    }
}

/// One answer to RTM_GETROUTE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub kind: RouteType,
    interface: u32,
    source: Option<IpAddr>,
    pub gateway: Option<IpAddr>,
    metrics: Metrics,
    table: Option<u32>,
}

fn ask(netlink: &mut Netlink, query: &Query) -> Result<Answer, RouteError> {
    let destination = query.destination;
    let here = ScopedIp::new(destination, query.interface.unwrap_or_default());
    let replies =
        netlink.request(RouteNetlinkMessage::GetRoute(question(query)), 0).map_err(|source| match source
            .errno()
        {
            Some(Errno::ENETUNREACH) => RouteError::None(here),
            Some(Errno::EHOSTUNREACH) => RouteError::Unreachable(here),
            Some(Errno::EACCES) => RouteError::Prohibited(here),
            Some(Errno::EINVAL) => RouteError::Blackhole(here),
            _ => RouteError::Netlink { destination, source },
        })?;
    let reply = replies.into_iter().find_map(|reply| match reply {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    match reply {
        Some(reply) => answer(&reply, query),
        None => Err(RouteError::Netlink { destination, source: NetlinkError::Malformed("no route in it") }),
    }
}

fn question(query: &Query) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, bits) = match query.destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    if family == AddressFamily::Inet {
        message.header.flags = RouteFlags::LookupTable;
    }
    message.header.tos = query.traffic_class & DSCP_MASK;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(query.destination.into()));
    if let Some(source) = query.source {
        message.header.source_prefix_length = bits;
        attributes.push(RouteAttribute::Source(source.into()));
    }
    attributes.push(RouteAttribute::IpProto(query.protocol.number()));
    attributes.extend(query.user.map(RouteAttribute::Uid));
    attributes.extend(query.interface.map(RouteAttribute::Oif));
    attributes.extend(query.source_port.map(RouteAttribute::Sport));
    attributes.extend(query.destination_port.map(RouteAttribute::Dport));
    message
}

fn answer(reply: &RouteMessage, query: &Query) -> Result<Answer, RouteError> {
    let mut answer = Answer {
        kind: reply.header.kind,
        interface: 0,
        source: query.source,
        gateway: None,
        metrics: Metrics::default(),
        table: None,
    };
    for attribute in &reply.attributes {
        match attribute {
            RouteAttribute::Oif(index) => answer.interface = *index,
            RouteAttribute::PrefSource(address) => {
                answer.source = answer.source.or(ip(address).filter(|source| !source.is_unspecified()));
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => answer.gateway = gateway(attribute),
            RouteAttribute::Table(table) => answer.table = Some(*table),
            RouteAttribute::Metrics(list) => answer.metrics = Metrics::from_attributes(list),
            RouteAttribute::EncapType(kind) => {
                let kind = kind.to_string();
                return Err(RouteError::Encapsulated { destination: query.destination, kind });
            }
            _ => {}
        }
    }
    Ok(answer)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn route(answer: &Answer, query: &Query) -> Result<Route, RouteError> {
    let destination = query.destination;
    let kind = match answer.kind {
        RouteType::Local => Kind::Local,
        RouteType::Broadcast => Kind::Broadcast,
        RouteType::Multicast => Kind::Multicast,
        RouteType::Anycast => Kind::Anycast,
        // A multicast destination's entry may call itself unicast (ff00::/8 in IPv6's local table).
        _ if destination.is_multicast() => Kind::Multicast,
        _ => Kind::Unicast,
    };
    let interface = interface::by_index(answer.interface)?;
    let source = answer
        .source
        .ok_or_else(|| RouteError::NoSource { destination, interface: interface.name.clone() })?;
    let link = interface.mtu_towards(destination).min(MAX_IP_PACKET);
    Ok(Route {
        destination,
        kind,
        interface: interface.index,
        source,
        gateway: answer.gateway,
        mtu: answer.metrics.mtu.map_or(link, |path| path.min(link)),
        metrics: answer.metrics,
    })
}
