//! The kernel's neighbour table: the link addresses of next hops.
//!
//! The kernel runs ARP and neighbour discovery. netkat uses the entries that it has, and `NTF_USE` makes it
//! resolve one that it lacks (under OUTPUT DROP, too, since iptables does not filter ARP). Notifications of
//! the group RTNLGRP_NEIGH only wake netkat up to read the entry, so a lost one costs one tick.

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
    container,
    interface::{self, Framing, InterfaceError},
    netlink::{Netlink, NetlinkError},
};
use crate::net::{MacAddr, zone::on_interface};

/// The notification group for neighbours (linux/rtnetlink.h).
pub(super) const RTNLGRP_NEIGH: u32 = 3;
/// Longest wait for a notification before the entry is read again.
const TICK: Duration = Duration::from_millis(50);

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// The state (NUD_*, linux/neighbour.h).
    pub state: NeighbourState,
    /// The link address, unless the entry is unresolved or the device has no link addresses.
    pub mac: Option<MacAddr>,
}

impl NeighbourEntry {
    /// Reads one of the kernel's replies; `None` for a reply about something else.
    pub fn from_reply(reply: RouteNetlinkMessage) -> Option<Self> {
        match reply {
            RouteNetlinkMessage::NewNeighbour(message) => Some(neighbour(&message)),
            _ => None,
        }
    }

    /// Returns whether the kernel would send to this address (NUD_VALID, net/neighbour.h).
    pub fn valid(&self) -> bool {
        use NeighbourState::*;
        matches!(self.state, Reachable | Stale | Delay | Probe | Permanent | Noarp)
    }
}

/// The reason why a next hop has no link address.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    /// The neighbour does not answer the kernel.
    #[error(
        "no neighbour: {at} did not answer {protocol} on {interface}; \
         check the address, and that the host is up and on this segment",
        at = on_interface(*address, interface)
    )]
    Failed {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's name.
        interface: String,
        /// The protocol that asked for it.
        protocol: Discovery,
    },
    /// The neighbour has not answered yet.
    #[error("no neighbour: {at} did not answer {protocol} on {interface} within {} ms", waited.as_millis(), at = on_interface(*address, interface))]
    TimedOut {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's name.
        interface: String,
        /// The protocol that asked for it.
        protocol: Discovery,
        /// How long netkat waited.
        waited: Duration,
    },
    /// The link is dead.
    #[error(
        "no neighbour: {interface} has no carrier (NO-CARRIER: the cable is out, or the other end is down), so {address} \
         could not be resolved; see: ip link show {interface}"
    )]
    NoCarrier {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The interface has no link addresses.
    #[error("{interface} has no 48-bit link addresses, so {at} has none to resolve", at = on_interface(*address, interface))]
    NoLinkAddress {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// CAP_NET_ADMIN is missing.
    #[error(
        "could not make the kernel resolve {at} on {interface}: permission denied; \
         needs CAP_NET_ADMIN ({how})",
        at = on_interface(*address, interface),
        how = container::grant("NET_ADMIN", &["NET_ADMIN"]).unwrap_or_else(|| "run with sudo".to_owned())
    )]
    NotPermitted {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The interface is down.
    #[error("interface {interface} is down, so {at} can't be resolved; try: ip link set {interface} up", at = on_interface(*address, interface))]
    InterfaceDown {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The interface is unknown or of an unknown kind.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The kernel does not answer.
    #[error("could not {what} the neighbour {at} on {interface}: {source}", at = on_interface(*address, interface))]
    Netlink {
        /// The failed operation, as a verb phrase.
        what: &'static str,
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's name.
        interface: String,
        /// The request's error.
        source: NetlinkError,
    },
}

/// The protocol that resolves a neighbour's link address.
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

/// Returns the kernel's entry for `address` on the interface, if it has one. Needs no privilege.
///
/// # Errors
/// [`NeighbourError::Netlink`].
pub fn lookup(ifindex: u32, address: IpAddr) -> Result<Option<NeighbourEntry>, NeighbourError> {
    Netlink::open()
        .and_then(|mut netlink| entry(&mut netlink, ifindex, address))
        .map_err(|source| netlink_error("look up", ifindex, address, source))
}

/// Makes the kernel resolve the link address of `address` on the interface, unless it knows it. Returns the address if
/// it is known: an entry that is stale is used at once and verified meanwhile, as the kernel does when it sends.
///
/// # Errors
/// See [`NeighbourError`]; needs CAP_NET_ADMIN unless the kernel knows the neighbour.
pub(crate) fn begin(ifindex: u32, address: IpAddr) -> Result<Option<MacAddr>, NeighbourError> {
    let interface = interface::by_index(ifindex)?;
    match interface.framing()? {
        Framing::None => return Err(NeighbourError::NoLinkAddress { address, interface: interface.name }),
        Framing::Loopback => return Ok(Some(MacAddr::default())),
        Framing::Ethernet if !interface.up => {
            return Err(NeighbourError::InterfaceDown { address, interface: interface.name });
        }
        Framing::Ethernet => {}
    }
    let failed = |what| move |source| netlink_error(what, ifindex, address, source);
    let mut questions = Netlink::open().map_err(failed("look up"))?;
    let known = entry(&mut questions, ifindex, address).map_err(failed("look up"))?;
    if let Some(neighbour) = known.filter(NeighbourEntry::valid) {
        if neighbour.state == NeighbourState::Stale {
            solicit(&mut questions, ifindex, address)
                .unwrap_or_else(|error| debug!("could not have {address} verified: {error}"));
        }
        return mac(neighbour, ifindex, address).map(Some);
    }
    solicit(&mut questions, ifindex, address).map_err(failed("resolve"))?;
    Ok(None)
}

/// Returns the link address in the kernel's entry for `address`, `None` while the kernel resolves it.
///
/// # Errors
/// [`NeighbourError::Failed`] once the kernel has given up.
pub(crate) fn judge(
    entry: Option<NeighbourEntry>,
    ifindex: u32,
    address: IpAddr,
) -> Result<Option<MacAddr>, NeighbourError> {
    match entry {
        Some(neighbour) if neighbour.valid() => mac(neighbour, ifindex, address).map(Some),
        Some(NeighbourEntry { state: NeighbourState::Failed, .. }) => Err(unanswered(ifindex, address, None)),
        _ => Ok(None),
    }
}

/// Returns the error of a neighbour that has not answered within `waited`, or at all.
pub(crate) fn unanswered(ifindex: u32, address: IpAddr, waited: Option<Duration>) -> NeighbourError {
    let protocol = Discovery::of(address);
    let (interface, state) = match interface::by_index(ifindex) {
        Ok(interface) => (interface.name.clone(), Some(interface)),
        Err(_) => (format!("interface {ifindex}"), None),
    };
    match (state, waited) {
        (Some(state), _) if !state.up => NeighbourError::InterfaceDown { address, interface },
        (Some(state), _) if !state.running => NeighbourError::NoCarrier { address, interface },
        (_, Some(waited)) => NeighbourError::TimedOut { address, interface, protocol, waited },
        (_, None) => NeighbourError::Failed { address, interface, protocol },
    }
}

/// Returns the link address of `address` on the interface: at once if the kernel knows it, else after
/// making the kernel resolve it, within `deadline`.
///
/// The kernel gives up after three requests one second apart by default, so a deadline above 3 s only
/// matters where that is configured otherwise.
///
/// # Errors
/// As for [`begin`] and [`judge`]; [`NeighbourError::TimedOut`].
pub fn resolve(ifindex: u32, address: IpAddr, deadline: Duration) -> Result<MacAddr, NeighbourError> {
    let failed = |what| move |source| netlink_error(what, ifindex, address, source);
    let mut changes = Netlink::subscribe(RTNLGRP_NEIGH).map_err(failed("watch"))?;
    let started = Instant::now();
    if let Some(mac) = begin(ifindex, address)? {
        return Ok(mac);
    }
    let mut questions = Netlink::open().map_err(failed("look up"))?;
    loop {
        let known = entry(&mut questions, ifindex, address).map_err(failed("look up"))?;
        if known.is_none() {
            // Flushed in the meantime (carrier lost and found, ip neigh flush).
            solicit(&mut questions, ifindex, address).map_err(failed("resolve"))?;
        }
        if let Some(mac) = judge(known, ifindex, address)? {
            return Ok(mac);
        }
        let left = deadline.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(unanswered(ifindex, address, Some(deadline)));
        }
        changes.wait_for_change(left.min(TICK)).map_err(failed("watch"))?;
    }
}

/// Returns a valid entry's link address.
fn mac(neighbour: NeighbourEntry, ifindex: u32, address: IpAddr) -> Result<MacAddr, NeighbourError> {
    neighbour.mac.ok_or_else(|| NeighbourError::NoLinkAddress { address, interface: interface_name(ifindex) })
}

/// Returns the kernel's entry for `address`, over an open socket.
///
/// # Errors
/// [`NetlinkError`] where the kernel does not answer; a missing entry is no error.
pub(super) fn entry(
    netlink: &mut Netlink,
    ifindex: u32,
    address: IpAddr,
) -> Result<Option<NeighbourEntry>, NetlinkError> {
    match netlink.request(RouteNetlinkMessage::GetNeighbour(message(ifindex, address)), 0) {
        Ok(replies) => replies
            .into_iter()
            .find_map(NeighbourEntry::from_reply)
            .map(Some)
            .ok_or(NetlinkError::Malformed("no neighbour in it")),
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn neighbour(message: &NeighbourMessage) -> NeighbourEntry {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(MacAddr),
        _ => None,
    });
    NeighbourEntry { state: message.header.state, mac }
}

/// Reads the address and the entry of a notification.
pub(super) fn announced(message: &NeighbourMessage) -> Option<(IpAddr, NeighbourEntry)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    Some((address?, neighbour(message)))
}

/// Makes the kernel resolve a neighbour. A permanent entry would lose its permanence by NTF_USE
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

/// Returns the interface's name, for messages; its index if it is gone.
fn interface_name(ifindex: u32) -> String {
    interface::by_index(ifindex).map_or_else(|_| format!("interface {ifindex}"), |interface| interface.name)
}
