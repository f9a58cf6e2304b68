//! The local end of flows to many addresses and ports, all from one port.
//!
//! Thousands of addresses share few egresses, so each egress is kept once, and an address has only its number and its
//! next hop.
use super::{
    Egress, EgressError, EgressRequest, Error, NextHopAddress, Port, Setup,
    local_end::{Egresses, add_interface, complete, with_port},
};
use crate::host::{
    interface::{self, Framing},
    route,
    shared_route::{SharedRoute, SharedRoutes},
};
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

/// The local end of flows to many addresses, with its port held.
pub(crate) struct ManyEnds {
    /// The port; `None` if no flow has a route.
    pub port: Option<Port>,
    /// The engine's parameters, with the sources and interfaces of the flows that have a route.
    pub setup: Setup,
    /// The egresses, each once. Their next hops are those of the ways.
    pub egresses: Vec<Egress>,
    /// The ways to each address.
    pub ways: Vec<Ways>,
}

/// The way of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The number of the egress.
    pub egress: usize,
    /// The next hop.
    pub next_hop: NextHopAddress,
}

/// The ways to the ports of one address.
pub(crate) struct Ways {
    /// The way to ports that are in neither of the others.
    pub first: Result<Way, EgressError>,
    by_port: HashMap<u16, Way>,
    refused: HashMap<u16, EgressError>,
}

impl Ways {
    /// Returns the way to a remote port.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(crate) fn to(&self, port: u16) -> Result<Way, &EgressError> {
        match (self.by_port.get(&port), self.refused.get(&port)) {
            (Some(way), _) => Ok(*way),
            (None, Some(error)) => Err(error),
            (None, None) => self.first.as_ref().copied(),
        }
    }
}

impl ManyEnds {
    /// Chooses a port for all the flows, and the route of each. `setup` names the local port, or 0 for any free one.
    ///
    /// # Errors
    /// Those of [`Port::take`]. A flow without a route is no error.
    pub(crate) fn choose(
        requests: &[EgressRequest],
        ports: &[u16],
        setup: &Setup,
    ) -> Result<ManyEnds, Error> {
        let Some(first) = requests.first() else {
            return Ok(ManyEnds { port: None, setup: setup.clone(), egresses: Vec::new(), ways: Vec::new() });
        };
        with_port(first, setup, |port| ManyEnds::at(requests, ports, setup, port))
    }

    fn at(requests: &[EgressRequest], ports: &[u16], setup: &Setup, port: u16) -> Result<ManyEnds, Error> {
        let (mut egresses, mut ways, mut remotes) = (Distinct::default(), Vec::new(), Vec::new());
        let mut routes = SharedRoutes::open().map_err(Error::from)?;
        let mut paths = BTreeSet::new();
        for request in requests {
            let request = request.with_local_port(port);
            // Most of many addresses have the egress of another one.
            let simple = requests.len() > 1 && request.via.is_none() && request.assumed.is_none();
            let shared = simple.then(|| routes.ask(&request.query, ports.len() > 1)).flatten();
            if let Some(way) = shared.and_then(|route| egresses.shared(&request, route)) {
                remotes.push(SocketAddr::new(request.query.destination, 0));
                ways.push(Ways { first: Ok(way), by_port: HashMap::new(), refused: HashMap::new() });
                continue;
            }
            let ways_to = match Egresses::decide(&request, ports) {
                Err(error) => Ways { first: Err(error), by_port: HashMap::new(), refused: HashMap::new() },
                Ok(found) => {
                    // Port 0 stands for all ports.
                    remotes.push(SocketAddr::new(request.query.destination, 0));
                    if requests.len() > 1 {
                        paths.extend(egresses.further_paths(&request, &found.first));
                    }
                    egresses.ways(&request, found)
                }
            };
            if let (Some(route), Ok(way)) = (shared, &ways_to.first) {
                egresses.by_route.push((route, way.egress));
            }
            ways.push(ways_to);
        }
        let mut setup = complete(setup, port, egresses.iter())?;
        for index in paths {
            // An interface that is gone meanwhile brings no answers.
            if setup.interfaces.iter().all(|own| own.index != index)
                && let Ok(interface) = interface::by_index(index)
                && !interface.loopback
                && interface.framing().is_ok()
            {
                add_interface(&mut setup.return_interfaces, interface);
            }
        }
        setup.remotes = remotes;
        let port = if setup.remotes.is_empty() { None } else { Some(Port::take(&setup)?) };
        Ok(ManyEnds {
            port,
            setup,
            egresses: egresses.all.into_iter().map(|(_, egress)| egress).collect(),
            ways,
        })
    }
}

/// The egresses so far, each with the request that it answers.
#[derive(Default)]
struct Distinct {
    all: Vec<(EgressRequest, Egress)>,
    /// The numbers of egresses to which a route leads.
    by_route: Vec<(SharedRoute, usize)>,
}

impl Distinct {
    /// Returns the way by the egress to which a route leads, if that is known.
    fn shared(&self, request: &EgressRequest, route: SharedRoute) -> Option<Way> {
        let (_, egress) = self.by_route.iter().rev().find(|(known, _)| *known == route)?;
        let next_hop = NextHopAddress::Ip(route.next_hop(request.query.destination));
        Some(Way { egress: *egress, next_hop })
    }

    fn ways(&mut self, request: &EgressRequest, found: Egresses) -> Ways {
        let Egresses { first, others, by_port, refused } = found;
        let first = Ok(self.way(request, first));
        let others: Vec<_> = others.into_iter().map(|egress| self.way(request, egress)).collect();
        let by_port = by_port.into_iter().filter_map(|(port, at)| Some((port, *others.get(at)?))).collect();
        Ways { first, by_port, refused: refused.into_iter().collect() }
    }

    /// Returns the way by an egress, which is kept if it is new. Neighbouring addresses mostly share one.
    fn way(&mut self, request: &EgressRequest, egress: Egress) -> Way {
        let next_hop = egress.next_hop;
        let found = self.all.iter().rposition(|(_, known)| known.is_like(&egress));
        let at = found.unwrap_or_else(|| {
            self.all.push((*request, egress));
            self.all.len() - 1
        });
        Way { egress: at, next_hop }
    }

    /// Returns the interfaces of the next hops of a multipath route, by which answers may arrive.
    fn further_paths(&self, request: &EgressRequest, egress: &Egress) -> Vec<u32> {
        let bound = request.query.interface.is_some() || egress.assumed.is_some();
        if bound || egress.framing == Framing::Loopback {
            return Vec::new();
        }
        route::paths(&request.query)
    }

    fn iter(&self) -> impl Iterator<Item = (&EgressRequest, &Egress)> {
        self.all.iter().map(|(request, egress)| (request, egress))
    }
}
