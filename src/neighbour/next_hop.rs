//! Next hops, and how they follow a neighbour or an interface whose link address changes.
use crate::{
    host::interface::Interface,
    link::{LinkHeader, NextHop},
    net::MacAddr,
};
use std::net::IpAddr;

/// The neighbour whose link address packets carry, in case that address changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// The neighbour with this IP address; its announcements are followed.
    At(IpAddr),
    /// The neighbour that delivers the peer's packets, and its IP address once it was looked up.
    Sender(Option<IpAddr>),
    /// A neighbour that does not change: the user named it, or the link has no addresses.
    Fixed,
}

impl Neighbour {
    /// Returns whether packets to `remote` go to the neighbour at `address`.
    pub(crate) fn is_at(self, address: IpAddr, remote: IpAddr) -> bool {
        match self {
            Neighbour::At(neighbour) | Neighbour::Sender(Some(neighbour)) => neighbour == address,
            Neighbour::Sender(None) => remote == address,
            Neighbour::Fixed => false,
        }
    }
}

impl NextHop {
    /// Returns the link header's destination; `None` where the header has none, or a group address.
    pub(crate) fn destination(&self) -> Option<MacAddr> {
        match self.header {
            LinkHeader::LOOPBACK | LinkHeader::None => None,
            LinkHeader::Ethernet { destination, .. } => Some(destination).filter(|mac| !mac.is_group()),
        }
    }

    /// Returns this next hop with the destination `to`; `None` if it goes there already.
    pub(crate) fn with_destination(&self, to: MacAddr) -> Option<NextHop> {
        self.destination().filter(|destination| *destination != to)?;
        match self.header {
            LinkHeader::Ethernet { source, .. } => {
                Some(NextHop { header: LinkHeader::Ethernet { destination: to, source }, ..*self })
            }
            LinkHeader::None => None,
        }
    }

    /// Returns this next hop with the interface's new link address as the source, if its source was
    /// the interface's old one.
    pub(crate) fn with_changed_source(&self, was: &Interface, is: &Interface) -> NextHop {
        match (self.header, is.mac) {
            (LinkHeader::Ethernet { destination, source }, Some(mac))
                if self.destination().is_some() && was.mac == Some(source) =>
            {
                NextHop { header: LinkHeader::Ethernet { destination, source: mac }, ..*self }
            }
            _ => *self,
        }
    }
}
