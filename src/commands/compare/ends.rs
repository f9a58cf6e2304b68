//! The kernel's end of an attempt: the address to bind, the next hop, and further connections from there.
use super::{Compare, ROUND};
use crate::{
    diagnose::NeighbourState,
    host::{interface::Framing, neighbour, route},
    kernel::{AttemptOrder, begin_attempt},
    net::zone::scoped,
    runtime::NextHopAddress,
};
use std::{
    net::{IpAddr, SocketAddr},
    thread,
};

impl Compare {
    /// Makes so many connections of the kernel's at once, each from a port of its own, and resets them.
    pub(super) fn probe(&self, local: Option<SocketAddr>, connections: usize) {
        let sockets: Vec<_> = (0..connections)
            .filter_map(|_| {
                let mut local = local;
                local.iter_mut().for_each(|local| local.set_port(0));
                let order = AttemptOrder {
                    protocol: self.protocol(),
                    local,
                    remote: self.remote,
                    interface: self.interface.clone(),
                    user: None,
                    cgroup: None,
                    namespace: None,
                };
                begin_attempt(&order).inspect_err(|error| log::debug!("a probe failed: {error}")).ok()
            })
            .collect();
        thread::sleep(ROUND);
        drop(sockets);
    }

    /// Returns the address to bind: connect(2)'s own choice, which `--via` and `--as` do not change, and the chosen
    /// port; `None` where connect(2) finds no route.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        let (request, egress) = (&self.attempt.request, self.egress.as_ref().ok()?);
        let (source, interface) = match request.via.is_some() || request.assumed.is_some() {
            true => route::lookup(&request.query).map(|route| (route.source, route.interface)).ok()?,
            false => (egress.source, egress.interface.index),
        };
        Some(scoped(source, self.attempt.setup.port, interface))
    }

    /// Returns the next hop if the kernel has no link address of it.
    pub(super) fn unresolved(&self) -> Option<IpAddr> {
        let egress = self.egress.as_ref().ok()?;
        let NextHopAddress::Ip(address) = egress.next_hop else { return None };
        if egress.framing != Framing::Ethernet {
            return None;
        }
        let entry = neighbour::lookup(egress.interface.index, address).ok().flatten();
        (!entry.is_some_and(|entry| entry.valid())).then_some(address)
    }

    /// Returns the next hop's state in the neighbour table.
    pub(super) fn neighbour(&self) -> Option<NeighbourState> {
        let egress = self.egress.as_ref().ok()?;
        let NextHopAddress::Ip(address) = egress.next_hop else { return None };
        let entry = neighbour::lookup(egress.interface.index, address).ok().flatten()?;
        use neighbour::NeighbourState::{Failed, Incomplete};
        let failed = matches!(entry.state, Failed | Incomplete);
        Some(NeighbourState { address, interface: egress.interface.name.clone(), failed })
    }
}
