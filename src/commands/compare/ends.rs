//! The kernel's end of an attempt: the address to bind, the next hop, and further connections from there.
use super::{Compare, ROUND};
use crate::{
    diagnose::NeighbourState,
    host::{interface::Framing, neighbour, route},
    kernel::{AttemptOrder, begin_attempt},
    runtime::Hop,
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
                let local = local.map(|local| SocketAddr::new(local.ip(), 0));
                let order = AttemptOrder {
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
        let attempt = self.attempt.as_ref().ok()?;
        let past_the_table = attempt.request.via.is_some() || attempt.setup.persona.is_some();
        let source = match past_the_table {
            true => route::lookup(&self.query).ok()?.source,
            false => attempt.egress.source,
        };
        let mut local = SocketAddr::new(source, attempt.setup.port);
        if let (SocketAddr::V6(local), SocketAddr::V6(remote)) = (&mut local, self.remote) {
            local.set_scope_id(remote.scope_id());
        }
        Some(local)
    }

    /// Returns the next hop if the kernel has no link address of it.
    pub(super) fn unresolved(&self) -> Option<IpAddr> {
        let egress = &self.attempt.as_ref().ok()?.egress;
        let Hop::Address(address) = egress.next_hop else { return None };
        if egress.framing != Framing::Ethernet {
            return None;
        }
        let entry = neighbour::lookup(egress.interface.index, address).ok().flatten();
        (!entry.is_some_and(|entry| entry.valid())).then_some(address)
    }

    /// Returns the next hop's state in the neighbour table.
    pub(super) fn neighbour(&self) -> Option<NeighbourState> {
        let egress = &self.attempt.as_ref().ok()?.egress;
        let Hop::Address(address) = egress.next_hop else { return None };
        let entry = neighbour::lookup(egress.interface.index, address).ok().flatten()?;
        use neighbour::NeighbourState::{Failed, Incomplete};
        let failed = matches!(entry.state, Failed | Incomplete);
        Some(NeighbourState { address, interface: egress.interface.name.clone(), failed })
    }
}
