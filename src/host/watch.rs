//! What changes on this host while netkat runs: interfaces and neighbours, as rtnetlink announces them.
//!
//! The sockets are opened once and ask for no privilege later, so that a process that has given everything up can
//! go on watching. Announcements may be lost when too many come at once; then [`Change::Missed`] says so, and the
//! interfaces are to be looked at again with [`Watch::interface`].
use super::{
    interface::{self, Interface, InterfaceError},
    neighbour::{self, Neighbour, NeighbourState},
    netlink::{Netlink, NetlinkError},
    route::{self, Entry, Query},
};
use crate::net::MacAddr;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// The notification group for interfaces (linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The kernel takes this for a neighbour's link address.
    Neighbour { interface: u32, address: IpAddr, mac: MacAddr },
    /// An interface is new, or like this now.
    Interface(Interface),
    /// The interface with this index is gone from here.
    InterfaceGone(u32),
    /// Announcements were lost.
    Missed,
}

/// Two rtnetlink sockets in the network namespace of the thread that opened them.
pub struct Watch {
    changes: Netlink,
    questions: Netlink,
}

impl Watch {
    /// Watches from now on. Needs no privilege.
    ///
    /// # Errors
    /// No rtnetlink socket can be had.
    pub fn open() -> Result<Watch, NetlinkError> {
        let changes = Netlink::subscribe(RTNLGRP_LINK)?;
        changes.join(neighbour::RTNLGRP_NEIGH)?;
        Ok(Watch { changes, questions: Netlink::open()? })
    }

    /// What has changed since the last call; does not wait.
    pub fn changes(&mut self) -> Result<Vec<Change>, NetlinkError> {
        let announcements = self.changes.notifications()?;
        let missed = announcements.is_none().then_some(Change::Missed);
        Ok(missed.into_iter().chain(announcements.into_iter().flatten().filter_map(change)).collect())
    }

    /// The interface with this index, if it is still there.
    pub fn interface(&mut self, index: u32) -> Result<Option<Interface>, InterfaceError> {
        interface::ask(&mut self.questions, index)
    }

    /// The routing table's entry for `query`.
    ///
    /// # Errors
    /// No table has an entry, the entry refuses, or the kernel does not answer.
    pub fn route(&mut self, query: &Query) -> Result<Entry, NetlinkError> {
        route::entry_of(&mut self.questions, query)
    }

    /// The kernel's entry for a neighbour, if it has one.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn neighbour(&mut self, interface: u32, address: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
        neighbour::entry(&mut self.questions, interface, address)
    }

    /// The neighbour that the routing table sends to, from `source` to `destination`, if it does by this interface.
    pub fn next_hop(&mut self, interface: u32, source: IpAddr, destination: IpAddr) -> Option<IpAddr> {
        let found = route::neighbour_towards(&mut self.questions, Some(source), destination);
        // Of an address that is not this host's the table knows nothing.
        let found = found.or_else(|| route::neighbour_towards(&mut self.questions, None, destination));
        found.filter(|(by, _)| *by == interface).map(|(_, neighbour)| neighbour)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

fn change(announcement: RouteNetlinkMessage) -> Option<Change> {
    match announcement {
        // A bridge announces its ports, too, and that a port has left it is not its end.
        RouteNetlinkMessage::NewLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(Change::Interface(Interface::from_message(link)))
        }
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(Change::InterfaceGone(link.header.index))
        }
        RouteNetlinkMessage::NewNeighbour(message) => {
            let (address, neighbour) = neighbour::announced(&message)?;
            // In the other states the address is in doubt, or none.
            let known = matches!(
                neighbour.state,
                NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Permanent
            );
            let mac = neighbour.mac.filter(|_| known)?;
            Some(Change::Neighbour { interface: message.header.ifindex, address, mac })
        }
        _ => None,
    }
}
