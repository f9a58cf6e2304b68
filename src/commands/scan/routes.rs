//! The routes of a scan: of each address and port, the way out of this host and what an error tells of it.
use crate::{
    host::interface::Framing,
    link::{LinkHeader, NextHop},
    neighbour::Neighbour,
    net::{FiveTuple, MacAddr, Protocol, zone::scoped},
    report::{Error, Hint, Verdict},
    runtime::{self, Egress, EgressRequest, Engine, NextHopAddress, Way, Ways},
    stack::{Flow, FlowRoute, Stack},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The routes to all addresses of a scan.
pub(super) struct Routes<'a> {
    pub protocol: Protocol,
    pub requests: &'a [EgressRequest],
    pub egresses: Vec<Egress>,
    pub ways: Vec<Ways>,
}

impl Routes<'_> {
    /// Returns the way to a port of an address.
    ///
    /// # Errors
    /// [`Error::Unusable`] where there is none.
    pub(super) fn way(&self, address: usize, port: u16) -> Result<Way, Error> {
        match self.ways.get(address).map(|ways| ways.to(port)) {
            Some(Ok(way)) => Ok(way),
            Some(Err(error)) => {
                Err(Error::Unusable { text: error.to_string(), verdict: Verdict::from(error) })
            }
            None => Err(Error::Unusable { text: "no such address".to_owned(), verdict: Verdict::Failed }),
        }
    }

    /// Returns whether no address has a route.
    pub(super) fn is_empty(&self) -> bool {
        self.egresses.is_empty()
    }

    /// Returns whether a next hop's link address has to be resolved.
    pub(super) fn need_neighbours(&self) -> bool {
        self.egresses.iter().any(|egress| egress.unresolved().is_some())
    }

    /// Returns the addresses without a route, and why.
    pub(super) fn into_failures(self) -> Vec<(SocketAddr, Error)> {
        let failures = self.requests.iter().zip(self.ways).filter_map(|(request, ways)| {
            let remote = scoped(request.query.destination, 0, request.query.interface.unwrap_or_default());
            Some((remote, runtime::Error::from(ways.first.err()?).into()))
        });
        failures.collect()
    }

    pub(super) fn egress(&self, way: &Way) -> &Egress {
        &self.egresses[way.egress]
    }

    /// Returns the neighbour whose link address is needed, with its interface's index.
    pub(super) fn unresolved(&self, way: &Way) -> Option<(u32, IpAddr)> {
        let egress = self.egress(way);
        match (egress.framing, way.next_hop) {
            (Framing::Ethernet, NextHopAddress::Ip(address)) => Some((egress.interface.index, address)),
            _ => None,
        }
    }

    /// Returns a next hop by its link address, which a link without such addresses ignores.
    pub(super) fn next_hop(&self, way: &Way, destination: MacAddr) -> NextHop {
        let egress = self.egress(way);
        let interface = &egress.interface;
        let header = match egress.framing {
            Framing::None => LinkHeader::None,
            Framing::Loopback => LinkHeader::LOOPBACK,
            Framing::Ethernet => LinkHeader::Ethernet {
                destination: match way.next_hop {
                    NextHopAddress::Mac(mac) => mac,
                    NextHopAddress::Ip(_) => destination,
                },
                source: egress.assumed.map(|assumed| assumed.mac).or(interface.mac).unwrap_or_default(),
            },
        };
        NextHop { interface: interface.index, header }
    }

    /// Returns a remote port, with the zone that the route gives its address.
    pub(super) fn remote(&self, address: usize, way: &Way, port: u16) -> SocketAddr {
        scoped(self.requests[address].query.destination, port, self.egress(way).interface.index)
    }

    /// Returns the five-tuple and the route of a flow, whose next hop has this link address.
    pub(super) fn flow(
        &self,
        engine: &Engine,
        address: usize,
        way: &Way,
        port: u16,
        resolved: (MacAddr, Neighbour),
    ) -> (FiveTuple, FlowRoute) {
        let egress = self.egress(way);
        let local = scoped(egress.source, engine.port(), egress.interface.index);
        let remote = self.remote(address, way, port);
        let path = engine.path(&egress.interface, egress.mtu);
        let (mac, neighbour) = resolved;
        let next_hop = self.next_hop(way, mac);
        let route = FlowRoute { next_hop, neighbour, path, metrics: egress.metrics };
        (FiveTuple { protocol: self.protocol, local, remote }, route)
    }

    /// Returns the error of a handshake without an answer. `hinting` looks for a cause on this host, which takes some
    /// questions to the kernel.
    pub(super) fn silence(
        &self,
        stack: &Stack,
        tuple: &FiveTuple,
        (address, way): (usize, &Way),
        waited: Duration,
        hinting: bool,
    ) -> Error {
        let flow = stack.peek(tuple);
        let counters = flow.map(Flow::counters).unwrap_or_default();
        let (target, syns) = (tuple.remote, counters.syns_sent);
        match counters.egress_syn_drops {
            drops if drops > 0 && drops == syns => {
                let interface = self.egress(way).interface.name.clone();
                Error::EgressDropped { target, syns, interface }
            }
            _ => {
                let discards = flow.and_then(Flow::discards);
                let hint = hinting.then(|| Hint::of(&self.requests[address], self.egress(way))).flatten();
                Error::TimedOut { target, syns, waited, discards, hint }
            }
        }
    }
}
