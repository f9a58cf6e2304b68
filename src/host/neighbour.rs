//! The link address of a next hop, from the kernel's neighbour table.
//!
//! The kernel owns ARP and neighbour discovery: an entry that it has is taken as it is, and for one that it lacks
//! `NTF_USE` makes it ask the wire (it does so under OUTPUT DROP too, since ARP is not filtered there). Changes
//! are announced to the group RTNLGRP_NEIGH; an announcement only wakes us up, the entry itself is always read
//! again, so that a lost announcement costs one tick and nothing else.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use log::debug;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};
use nix::errno::Errno;

pub use netlink_packet_route::neighbour::NeighbourState;

use super::{
    interface::{self, Framing, InterfaceError},
    netlink::{Netlink, NetlinkError},
};
use crate::net::MacAddr;

/// The notification group for neighbours (linux/rtnetlink.h).
pub(super) const RTNLGRP_NEIGH: u32 = 3;
/// How long to go without reading the entry when nothing is announced.
const TICK: Duration = Duration::from_millis(50);

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub state: NeighbourState,
    /// The link address; an unresolved entry has none, nor has one on a device without link addresses.
    pub mac: Option<MacAddr>,
}

impl Neighbour {
    /// What one of the kernel's replies says of a neighbour; `None`: it is about something else.
    pub fn from_reply(reply: RouteNetlinkMessage) -> Option<Self> {
        match reply {
            RouteNetlinkMessage::NewNeighbour(message) => Some(neighbour(&message)),
            _ => None,
        }
    }

    /// Whether the kernel itself would send to this address (NUD_VALID, net/neighbour.h).
    pub fn valid(&self) -> bool {
        use NeighbourState::*;
        matches!(self.state, Reachable | Stale | Delay | Probe | Permanent | Noarp)
    }
}

/// Why a next hop has no link address.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    #[error(
        "no neighbour: {address} did not answer {protocol} on {interface}; \
         check the address, and that the host is up and on this segment"
    )]
    Failed { address: IpAddr, interface: String, protocol: Discovery },
    #[error("no neighbour: {address} did not answer {protocol} on {interface} within {} ms", waited.as_millis())]
    TimedOut { address: IpAddr, interface: String, protocol: Discovery, waited: Duration },
    #[error("{interface} has no 48-bit link addresses, so {address} has none to resolve")]
    NoLinkAddress { address: IpAddr, interface: String },
    #[error(
        "could not make the kernel resolve {address} on {interface}: permission denied; \
         needs CAP_NET_ADMIN (run with sudo)"
    )]
    NotPermitted { address: IpAddr, interface: String },
    #[error("interface {interface} is down, so {address} can't be resolved; try: ip link set {interface} up")]
    InterfaceDown { address: IpAddr, interface: String },
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("could not {what} the neighbour {address} on {interface}: {source}")]
    Netlink { what: &'static str, address: IpAddr, interface: String, source: NetlinkError },
}

/// The protocol that asks the segment for a neighbour's link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// RFC 826, for IPv4.
    Arp,
    /// RFC 4861, for IPv6.
    Ndp,
}

impl Discovery {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Discovery::Arp } else { Discovery::Ndp }
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Discovery::Arp => "ARP",
            Discovery::Ndp => "neighbour discovery",
        })
    }
}

/// The kernel's entry for `address` on the interface, if it has one. Needs no privilege.
pub fn lookup(ifindex: u32, address: IpAddr) -> Result<Option<Neighbour>, NeighbourError> {
    Netlink::open()
        .and_then(|mut netlink| entry(&mut netlink, ifindex, address))
        .map_err(|source| netlink_error("look up", ifindex, address, source))
}

/// The MAC address of `address` on the interface: at once if the kernel knows it, else the kernel is made to ask
/// the segment, and its answer is waited for, at most `deadline` long.
///
/// The kernel itself gives up after three requests one second apart (by default), so a deadline above 3 s only
/// matters where that was configured otherwise.
///
/// # Errors
/// See [`NeighbourError`]; needs CAP_NET_ADMIN unless the kernel knows the neighbour.
pub fn resolve(ifindex: u32, address: IpAddr, deadline: Duration) -> Result<MacAddr, NeighbourError> {
    let interface = interface::by_index(ifindex)?;
    match interface.framing()? {
        Framing::None => return Err(NeighbourError::NoLinkAddress { address, interface: interface.name }),
        Framing::Loopback => return Ok(MacAddr::default()),
        Framing::Ethernet if !interface.up => {
            return Err(NeighbourError::InterfaceDown { address, interface: interface.name });
        }
        Framing::Ethernet => {}
    }
    let failed = |what| move |source| netlink_error(what, ifindex, address, source);
    let mut questions = Netlink::open().map_err(failed("look up"))?;
    let mut changes = Netlink::subscribe(RTNLGRP_NEIGH).map_err(failed("watch"))?;

    let known = entry(&mut questions, ifindex, address).map_err(failed("look up"))?;
    if let Some(neighbour) = known.filter(Neighbour::valid) {
        if neighbour.state == NeighbourState::Stale {
            // As when the kernel sends there itself: used at once, verified behind our back.
            solicit(&mut questions, ifindex, address)
                .unwrap_or_else(|error| debug!("could not have {address} verified: {error}"));
        }
        return mac(neighbour, ifindex, address);
    }
    let started = Instant::now();
    solicit(&mut questions, ifindex, address).map_err(failed("resolve"))?;
    loop {
        match entry(&mut questions, ifindex, address).map_err(failed("look up"))? {
            Some(neighbour) if neighbour.valid() => return mac(neighbour, ifindex, address),
            Some(Neighbour { state: NeighbourState::Failed, .. }) => {
                return Err(NeighbourError::Failed {
                    address,
                    interface: interface_name(ifindex),
                    protocol: Discovery::of(address),
                });
            }
            Some(_) => {}
            // Flushed in the meantime (carrier lost and found, ip neigh flush).
            None => solicit(&mut questions, ifindex, address).map_err(failed("resolve"))?,
        }
        let left = deadline.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(NeighbourError::TimedOut {
                address,
                interface: interface_name(ifindex),
                protocol: Discovery::of(address),
                waited: deadline,
            });
        }
        changes.wait_for_change(left.min(TICK)).map_err(failed("watch"))?;
    }
}

/// A valid entry's MAC address.
fn mac(neighbour: Neighbour, ifindex: u32, address: IpAddr) -> Result<MacAddr, NeighbourError> {
    neighbour.mac.ok_or_else(|| NeighbourError::NoLinkAddress { address, interface: interface_name(ifindex) })
}

/// The kernel's entry for `address`, asked over a socket that is open already.
pub(super) fn entry(
    netlink: &mut Netlink,
    ifindex: u32,
    address: IpAddr,
) -> Result<Option<Neighbour>, NetlinkError> {
    match netlink.request(RouteNetlinkMessage::GetNeighbour(message(ifindex, address)), 0) {
        Ok(replies) => replies
            .into_iter()
            .find_map(Neighbour::from_reply)
            .map(Some)
            .ok_or(NetlinkError::Malformed("no neighbour in it")),
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn neighbour(message: &NeighbourMessage) -> Neighbour {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(MacAddr),
        _ => None,
    });
    Neighbour { state: message.header.state, mac }
}

/// Whose entry an announcement is about, and the entry.
pub(super) fn announced(message: &NeighbourMessage) -> Option<(IpAddr, Neighbour)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    Some((address?, neighbour(message)))
}

/// Makes the kernel ask the segment. Never to be used on a permanent entry: NTF_USE takes its permanence away
/// (__neigh_update in net/core/neighbour.c).
fn solicit(netlink: &mut Netlink, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
    let mut message = message(ifindex, address);
    message.header.flags = NeighbourFlags::Use;
    netlink.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
}

fn message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn netlink_error(what: &'static str, ifindex: u32, address: IpAddr, source: NetlinkError) -> NeighbourError {
    let interface = interface_name(ifindex);
    match source.errno() {
        Some(Errno::EPERM) => NeighbourError::NotPermitted { address, interface },
        _ => NeighbourError::Netlink { what, address, interface, source },
    }
}

/// For messages only: the index serves when the interface has gone meanwhile.
fn interface_name(ifindex: u32) -> String {
    interface::by_index(ifindex).map_or_else(|_| format!("interface {ifindex}"), |interface| interface.name)
}
