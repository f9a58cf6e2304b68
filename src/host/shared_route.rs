//! Routing decisions for many destinations, of which most share one.
//!
//! A decision in full ([`route::lookup`] and what follows from it) takes a dozen questions to the kernel. To see that
//! another destination shares it takes three.
use super::{
    netlink::{Netlink, NetlinkError},
    route::{self, Answer, Query, RouteType},
};
use std::{collections::HashMap, net::IpAddr};

/// The part of a routing decision that destinations may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedRoute {
    answer: Answer,
    /// The interface that the flow is bound to.
    bound: Option<u32>,
}

impl SharedRoute {
    /// Returns the address whose link address the frames to a destination are sent to.
    pub(crate) fn next_hop(&self, destination: IpAddr) -> IpAddr {
        self.answer.gateway.unwrap_or(destination)
    }
}

/// An open socket for questions about routes.
pub(crate) struct SharedRoutes {
    netlink: Netlink,
    /// Whether rules of a family look at ports, by whether it is IPv4.
    by_ports: HashMap<bool, bool>,
}

impl SharedRoutes {
    /// Opens the socket. Needs no privilege.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn open() -> Result<SharedRoutes, NetlinkError> {
        Ok(SharedRoutes { netlink: Netlink::open()?, by_ports: HashMap::new() })
    }

    /// Returns the decision for a flow to another host, with `several_ports` for flows to all ports. `None` where it is
    /// not that simple: there are several paths, the ports matter, or there is no such route.
    pub(crate) fn ask(&mut self, query: &Query, several_ports: bool) -> Option<SharedRoute> {
        let v4 = query.destination.is_ipv4();
        let by_ports =
            *self.by_ports.entry(v4).or_insert_with(|| route::rules_look_at_ports(v4).unwrap_or(true));
        if query.destination.is_multicast() || several_ports && by_ports {
            return None;
        }
        let answer = route::ask_as_connect(&mut self.netlink, query).ok()?;
        let entry = route::fib_entry(&mut self.netlink, query).ok()?;
        let simple = answer.kind == RouteType::Unicast && entry.nexthops.len() == 1;
        simple.then_some(SharedRoute { answer, bound: query.interface })
    }
}
