//! The kernel's routing decision for one flow.
//!
//! The question is put as the kernel's own `connect` puts it (RTM_GETROUTE with the flow's protocol, ports, mark
//! and user), so policy rules, VRFs, multipath hashing and nexthop objects answer for the real flow. For IPv4 it
//! is put twice, since `connect` does so (ip_route_connect in include/net/route.h): the first answer chooses the
//! source address, and a rule or a hash that looks at the source has its say in the second.
//!
//! Two answers must not be believed. With an output interface, IPv4 invents an on-link route where the table
//! has none (ip_route_output_key_hash_rcu in net/ipv4/route.c); it betrays itself by naming no table. And IPv6
//! lets a longer prefix through another interface win when a source is given too.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
};

use log::debug;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteVia},
};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};

pub use netlink_packet_route::route::RouteType;

use super::{
    interface::{self, Interface, InterfaceError},
    netlink::{Netlink, NetlinkError},
};
use crate::net::Protocol;

/// The total length field of an IP packet has 16 bits.
const MAX_IP_PACKET: u32 = 65535;
/// Where a socket is connected that is only asked for its source address (discard, RFC 863); nothing is sent.
const DISCARD_PORT: u16 = 9;

/// The flow whose route is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    pub destination: IpAddr,
    /// Must be an address of this host; leave it out when impersonating another, for the kernel knows no route
    /// from a foreign address.
    pub source: Option<IpAddr>,
    /// The output interface, or the VRF device, that the flow is bound to.
    pub interface: Option<u32>,
    pub protocol: Protocol,
    pub source_port: Option<u16>,
    pub destination_port: Option<u16>,
    /// The firewall mark that policy rules may look at (SO_MARK).
    pub mark: Option<u32>,
    /// The user that policy rules may look at; by default the process's own.
    pub uid: Option<u32>,
}

impl Query {
    /// A flow to `destination`; its zone, if it has one, is the output interface.
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
            mark: None,
            uid: None,
        }
    }
}

/// What kind of destination the routing table takes it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unicast,
    /// An address of this host: the kernel would loop the packet back through `lo` (or the VRF device).
    Local,
    Broadcast,
    Multicast,
    Anycast,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpAddr,
    pub kind: Kind,
    /// Index of the output interface; for [`Kind::Local`] that is `lo`'s, whatever the query asked for.
    pub interface: u32,
    /// The address to send from.
    pub source: IpAddr,
    /// The next hop when the destination is not on-link; may be IPv6 for an IPv4 destination (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// Bytes of the largest IP packet on this path, as far as the kernel knows: the interface's MTU, a route
    /// metric, or what an ICMP error taught it; at most 65535.
    pub mtu: u32,
    /// The TTL or hop limit that the route demands; the system's default holds otherwise.
    pub hop_limit: Option<u8>,
}

impl Route {
    /// Whose link address the frames are sent to.
    pub fn next_hop(&self) -> IpAddr {
        self.gateway.unwrap_or(self.destination)
    }
}

/// Why there is no way to a destination.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error(
        "no route to {0}: the network is unreachable, no routing table has an entry for it; \
         add a route, or name interface and next hop"
    )]
    None(IpAddr),
    #[error("no route to {0}: the routing policy declares it unreachable; see: ip route get {0}; ip rule")]
    Unreachable(IpAddr),
    #[error("no route to {0}: the routing policy prohibits it; see: ip route get {0}; ip rule")]
    Prohibited(IpAddr),
    #[error("no route to {0}: the routing policy discards it (blackhole); see: ip route get {0}; ip rule")]
    Blackhole(IpAddr),
    #[error(
        "source address {source_address} is not on this host; \
         use one of its own addresses, or be another host with --as"
    )]
    ForeignSource { source_address: IpAddr },
    #[error("source address {source_address} can't be used: {reason}")]
    UnusableSource { source_address: IpAddr, reason: &'static str },
    #[error(
        "no route to {destination}: {interface} has no address to send from; assign it one, or name a source"
    )]
    NoSource { destination: IpAddr, interface: String },
    #[error(
        "no route to {destination} through {asked}: {}; leave the interface out, or name the next hop",
        instead(.chosen.as_deref())
    )]
    InterfaceMismatch { destination: IpAddr, asked: String, chosen: Option<String> },
    #[error("no route to {destination} through {interface}: it is down; try: ip link set {interface} up")]
    InterfaceDown { destination: IpAddr, interface: String },
    #[error("{0} is link-local: say on which interface, as {0}%eth0")]
    ZoneMissing(Ipv6Addr),
    #[error("{0} is no destination; this host is 127.0.0.1 or ::1")]
    Unspecified(IpAddr),
    #[error("source {source_address} and destination {destination} are not of one address family")]
    FamilyMismatch { source_address: IpAddr, destination: IpAddr },
    #[error("the route to {destination} encapsulates its packets ({kind}), which netkat can't do")]
    Encapsulated { destination: IpAddr, kind: String },
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("could not ask the kernel for the route to {destination}: {source}")]
    Netlink { destination: IpAddr, source: NetlinkError },
}

fn instead(chosen: Option<&str>) -> String {
    match chosen {
        Some(name) => format!("the routing table sends it through {name}"),
        None => "no routing table has an entry for it".to_owned(),
    }
}

/// Asks the kernel which way the flow goes. Needs no privilege (but for `mark` on old kernels).
///
/// # Errors
/// See [`RouteError`]: each way in which a table, a rule or an interface can refuse has its own.
pub fn lookup(query: &Query) -> Result<Route, RouteError> {
    let mut netlink =
        Netlink::open().map_err(|source| RouteError::Netlink { destination: query.destination, source })?;
    let bound = query.interface.map(interface::by_index).transpose()?;
    check(query)?;
    if let Some(source) = query.source {
        check_source(&mut netlink, query, source)?;
    }
    let answer = ask_as_connect(&mut netlink, query)
        .and_then(|answer| believe(answer, query, bound.as_ref()))
        .or_else(|error| ask_elsewhere(error, &mut netlink, query, bound.as_ref()))?;
    let route = route(&answer, query)?;
    debug!("route: {route:?}");
    Ok(route)
}

/// Whether it is the default route, and none that knows the destination any better, that leads there. `false` also
/// where the kernel does not say: IPv4 before Linux 4.13, IPv6 before 4.15.
pub fn is_default(query: &Query) -> bool {
    entry(query).is_some_and(|entry| entry.prefix == 0)
}

/// The interfaces of the route's paths, of which it may have several.
pub fn paths(query: &Query) -> Vec<u32> {
    let legs = entry(query).map(|entry| entry.legs).unwrap_or_default();
    legs.into_iter().map(|leg| leg.interface).collect()
}

/// The routing table's entry that leads there.
fn entry(query: &Query) -> Option<Entry> {
    Netlink::open()
        .and_then(|mut netlink| entry_of(&mut netlink, query))
        .inspect_err(|error| debug!("cannot tell which route leads to {}: {error}", query.destination))
        .ok()
}

/// What a routing table says of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of destination it is; none of those that refuse, which are errors.
    pub kind: RouteType,
    /// Bits of the destination's prefix.
    pub prefix: u8,
    /// The paths, at least one; a route may have several.
    pub legs: Vec<Leg>,
}

/// One path of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The output interface's index.
    pub interface: u32,
    /// The next hop when the destination is not on-link.
    pub gateway: Option<IpAddr>,
}

/// The routing table's entry for `query`, asked over a socket that is open already. Kernels that can't name the entry
/// (IPv4 before Linux 4.13, IPv6 before 4.15) name the path that they would take, with the prefix of a host.
///
/// # Errors
/// No table has an entry, the entry refuses, or the kernel does not answer.
pub(super) fn entry_of(netlink: &mut Netlink, query: &Query) -> Result<Entry, NetlinkError> {
    let mut message = question(query);
    message.header.flags |= RouteFlags::FibMatch;
    let replies = netlink.request(RouteNetlinkMessage::GetRoute(message), 0)?;
    let route = replies.into_iter().find_map(|reply| match reply {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    let route = route.ok_or(NetlinkError::Malformed("no route in it"))?;
    let (mut only, mut legs) = (Leg { interface: 0, gateway: None }, Vec::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => only.interface = *index,
            RouteAttribute::MultiPath(hops) => legs.extend(hops.iter().map(|hop| Leg {
                interface: hop.interface_index,
                gateway: hop.attributes.iter().find_map(gateway),
            })),
            other => only.gateway = only.gateway.or_else(|| gateway(other)),
        }
    }
    if legs.is_empty() {
        legs.push(only);
    }
    Ok(Entry { kind: route.header.kind, prefix: route.header.destination_prefix_length, legs })
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

/// The interface and the neighbour on the way from `source` to `destination`, asked over a socket that is open
/// already.
pub(super) fn neighbour_towards(
    netlink: &mut Netlink,
    source: Option<IpAddr>,
    destination: IpAddr,
) -> Option<(u32, IpAddr)> {
    let query = Query { source, ..Query::to(SocketAddr::new(destination, DISCARD_PORT), Protocol::Tcp) };
    let answer = ask(netlink, &query).ok().filter(|answer| answer.kind == RouteType::Unicast)?;
    Some((answer.interface, answer.gateway.unwrap_or(destination)))
}

/// Refuses what the kernel would misunderstand.
fn check(query: &Query) -> Result<(), RouteError> {
    match (query.destination, query.interface) {
        (destination, _) if destination.is_unspecified() => Err(RouteError::Unspecified(destination)),
        (IpAddr::V6(v6), None) if v6.is_unicast_link_local() => Err(RouteError::ZoneMissing(v6)),
        _ => Ok(()),
    }
}

/// Whether the host may send from `source`; the kernel's own refusal can't be told from a missing route.
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
        // No interface has it, but a whole prefix may be local: 127.0.0.0/8, or `ip route add local`.
        None => match ask(netlink, &Query { destination: source, source: None, ..*query }) {
            Ok(answer) if answer.kind == RouteType::Local => Ok(()),
            _ => Err(RouteError::ForeignSource { source_address: source }),
        },
    }
}

/// Puts the question as often, and with as much, as the kernel's `connect` would.
fn ask_as_connect(netlink: &mut Netlink, query: &Query) -> Result<Answer, RouteError> {
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

/// The source that the kernel gives to a socket of its own. Nothing is sent.
fn source_of_socket(query: &Query) -> Option<IpAddr> {
    let IpAddr::V6(destination) = query.destination else { return None };
    let connected = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        if let Some(index) = query.interface {
            let name = interface::by_index(index).map_err(io::Error::other)?.name;
            setsockopt(&socket, sockopt::BindToDevice, &name.into())?;
        }
        if let Some(mark) = query.mark {
            setsockopt(&socket, sockopt::Mark, &mark)?;
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

/// Weeds out answers that don't keep to the interface that was asked for.
fn believe(answer: Answer, query: &Query, bound: Option<&Interface>) -> Result<Answer, RouteError> {
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
    // Where there are no next hops, "on-link" is no claim that could be wrong.
    let invented = answer.table == Some(u32::from(RouteHeader::RT_TABLE_UNSPEC));
    if invented && query.destination.is_ipv4() && !bound.no_arp {
        return Err(mismatch(None));
    }
    Ok(answer)
}

/// Asks again without the interface where that was the obstacle: the destination may be one of our own
/// addresses, which no interface but `lo` leads to; and otherwise there is a better reason to be told.
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

/// One answer to RTM_GETROUTE.
#[derive(Clone, Copy, Debug)]
struct Answer {
    kind: RouteType,
    interface: u32,
    source: Option<IpAddr>,
    gateway: Option<IpAddr>,
    mtu: Option<u32>,
    hop_limit: Option<u8>,
    table: Option<u32>,
}

fn ask(netlink: &mut Netlink, query: &Query) -> Result<Answer, RouteError> {
    let destination = query.destination;
    let replies =
        netlink.request(RouteNetlinkMessage::GetRoute(question(query)), 0).map_err(|source| match source
            .errno()
        {
            Some(Errno::ENETUNREACH) => RouteError::None(destination),
            Some(Errno::EHOSTUNREACH) => RouteError::Unreachable(destination),
            Some(Errno::EACCES) => RouteError::Prohibited(destination),
            Some(Errno::EINVAL) => RouteError::Blackhole(destination),
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
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(query.destination.into()));
    if let Some(source) = query.source {
        message.header.source_prefix_length = bits;
        attributes.push(RouteAttribute::Source(source.into()));
    }
    attributes.push(RouteAttribute::IpProto(query.protocol.number()));
    attributes.extend(query.interface.map(RouteAttribute::Oif));
    attributes.extend(query.source_port.map(RouteAttribute::Sport));
    attributes.extend(query.destination_port.map(RouteAttribute::Dport));
    attributes.extend(query.mark.map(RouteAttribute::Mark));
    attributes.extend(query.uid.map(RouteAttribute::Uid));
    message
}

fn answer(reply: &RouteMessage, query: &Query) -> Result<Answer, RouteError> {
    let mut answer = Answer {
        kind: reply.header.kind,
        interface: 0,
        source: query.source,
        gateway: None,
        mtu: None,
        hop_limit: None,
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
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => answer.mtu = Some(*mtu).filter(|mtu| *mtu > 0),
                        RouteMetric::Hoplimit(limit) => {
                            answer.hop_limit = u8::try_from(*limit).ok().filter(|limit| *limit > 0);
                        }
                        _ => {}
                    }
                }
            }
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
        mtu: answer.mtu.map_or(link, |path| path.min(link)),
        hop_limit: answer.hop_limit,
    })
}
