//! A monitor of this host's interfaces and neighbours, by rtnetlink's notifications, as `ip monitor` shows
//! them.
//!
//! The sockets are opened once and need no privilege later, so a process in the sandbox can go on. The
//! kernel drops notifications when too many arrive at once; then [`Change::Missed`] tells the caller to
//! look at the interfaces again with [`Monitor::interface`].
use super::{
    interface::{self, Interface, InterfaceError},
    neighbour::{self, NeighbourEntry, NeighbourState},
    netlink::{Netlink, NetlinkError},
    route::{self, Departure, FibEntry, Query, RouteError},
};
use crate::net::{MacAddr, zone};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::unistd::getuid;
use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// The notification groups for interfaces, routes and rules (linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_IPV6_RULE: u32 = 19;

/// A change of this host's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A neighbour has this link address.
    Neighbour {
        /// Index of its interface.
        interface: u32,
        /// Its IP address.
        address: IpAddr,
        /// Its link address.
        mac: MacAddr,
    },
    /// An interface is new, or has changed to this.
    Interface(Interface),
    /// The interface with this index has left this network namespace.
    InterfaceGone(u32),
    /// A route or a rule has come or gone; see [`Monitor::follow_routes`].
    Routes,
    /// Notifications were lost.
    Missed,
}

/// Two rtnetlink sockets in the network namespace of the thread that opened them.
pub(crate) struct Monitor {
    changes: Netlink,
    questions: Netlink,
    /// The user whose routes are asked for: that of the process before it gives up its identity.
    user: Option<u32>,
}

impl Monitor {
    /// Opens the sockets; changes are reported from now on. Needs no privilege.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn open() -> Result<Monitor, NetlinkError> {
        let changes = Netlink::subscribe(RTNLGRP_LINK)?;
        changes.join(neighbour::RTNLGRP_NEIGH)?;
        Ok(Monitor { changes, questions: Netlink::open()?, user: Some(getuid().as_raw()) })
    }

    /// Reports changes of routes and rules from now on, too.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn follow_routes(&self) -> Result<(), NetlinkError> {
        [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE]
            .into_iter()
            .try_for_each(|group| self.changes.join(group))
    }

    /// Returns the changes since the last call. Does not wait.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] or [`NetlinkError::Malformed`].
    pub(crate) fn changes(&mut self) -> Result<Vec<Change>, NetlinkError> {
        let notifications = self.changes.notifications()?;
        let missed = notifications.is_none().then_some(Change::Missed);
        Ok(missed.into_iter().chain(notifications.into_iter().flatten().filter_map(change)).collect())
    }

    /// Returns the interface with this index, if it still exists.
    ///
    /// # Errors
    /// [`InterfaceError::Netlink`].
    pub(crate) fn interface(&mut self, index: u32) -> Result<Option<Interface>, InterfaceError> {
        interface::ask(&mut self.questions, index)
    }

    /// Returns the routing table's entry for `query`, as for a socket of the user who opened this monitor.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] where no table has an entry or the entry refuses, or another where the
    /// kernel does not answer.
    pub(crate) fn route(&mut self, query: &Query) -> Result<FibEntry, NetlinkError> {
        route::fib_entry(&mut self.questions, &Query { user: self.user, ..*query })
    }

    /// Returns the source address that the kernel chooses for `query`, if there is a route.
    pub(crate) fn source(&mut self, query: &Query) -> Option<IpAddr> {
        route::source(&mut self.questions, &Query { user: self.user, ..*query })
    }

    /// Returns the way of a flow's packets to another host.
    ///
    /// # Errors
    /// [`RouteError`].
    pub(crate) fn departure(&mut self, query: &Query) -> Result<Departure, RouteError> {
        route::departure(&mut self.questions, &Query { user: self.user, ..*query })
    }

    /// Returns the kernel's entry for a neighbour, if it has one.
    ///
    /// # Errors
    /// [`NetlinkError`] where the kernel does not answer.
    pub(crate) fn neighbour(
        &mut self,
        interface: u32,
        address: IpAddr,
    ) -> Result<Option<NeighbourEntry>, NetlinkError> {
        neighbour::entry(&mut self.questions, interface, address)
    }

    /// Returns the next hop from `source` to `destination`, if the route leads out of this interface.
    pub(crate) fn next_hop(&mut self, interface: u32, source: IpAddr, destination: IpAddr) -> Option<IpAddr> {
        if zone::needs_zone(destination) {
            return Some(destination);
        }
        let found = self.towards(Some(source), destination);
        // The table has no route from an assumed address.
        let found = found.or_else(|| self.towards(None, destination));
        found.filter(|(by, _)| *by == interface).map(|(_, neighbour)| neighbour)
    }

    fn towards(&mut self, source: Option<IpAddr>, destination: IpAddr) -> Option<(u32, IpAddr)> {
        route::neighbour_towards(&mut self.questions, source, destination, self.user)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

fn change(notification: RouteNetlinkMessage) -> Option<Change> {
    match notification {
        // A bridge announces its ports, too, and a port that leaves it is not gone.
        RouteNetlinkMessage::NewLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(Change::Interface(Interface::from_message(link)))
        }
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(Change::InterfaceGone(link.header.index))
        }
        RouteNetlinkMessage::NewNeighbour(message) => {
            let (address, neighbour) = neighbour::announced(&message)?;
            // In the other states the address is unverified or missing.
            let known = matches!(
                neighbour.state,
                NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Permanent
            );
            let mac = neighbour.mac.filter(|_| known)?;
            Some(Change::Neighbour { interface: message.header.ifindex, address, mac })
        }
        RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_) => Some(Change::Routes),
        _ => None,
    }
}
