//! An attempt: one address to try, and everything that is opened for it.
use crate::{
    host::{interface::Framing, neighbour},
    link::{LinkHeader, NextHop},
    neighbour::Neighbour,
    net::{
        FiveTuple, MacAddr, Protocol,
        zone::{ScopedIp, scoped},
    },
    process::signals,
    report::{Error, Hint, JsonReport},
    runtime::{
        self, Egress, EgressError, EgressRequest, Egresses, Engine, LocalEnd, NextHopAddress, Setup, assume,
    },
    segment::SeqNumber,
    stack::{Flow, FlowRoute, Stack},
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// An address to try.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub remote: SocketAddr,
    /// The request for the route to it.
    pub request: EgressRequest,
    /// The engine's parameters; port and route complete them.
    pub setup: Setup,
}

impl Attempt {
    /// Opens everything for flows to the remote `ports`, and resolves the next hops' link addresses within
    /// `wait`.
    pub(super) fn open(
        &self,
        ports: &[u16],
        wait: Duration,
        report: &mut JsonReport,
    ) -> Result<Opened, Error> {
        // An earlier attempt has closed everything it opened; while the neighbour is resolved, a signal may
        // end the process.
        signals::release();
        let chosen = LocalEnd::choose(&self.request, &self.setup, ports);
        if !matches!(chosen, Err(runtime::Error::Egress(_))) {
            report.attempt(self.remote);
        }
        let LocalEnd { port, mut setup, egresses } = chosen?;
        let start = Instant::now();
        let Some(assumed) = setup.assumed else {
            // The kernel resolves the neighbours of this host's own addresses.
            let origin = Origin::resolve(self.request, egresses, report, |egress| {
                let resolve = |address| neighbour::resolve(egress.interface.index, address, wait);
                Ok(egress.unresolved().map_or_else(|| Ok(egress.known_mac()), resolve)?)
            })?;
            report.resolved(start.elapsed());
            setup.hears_neighbours = origin.legs().any(|leg| leg.neighbour != Neighbour::Fixed);
            return Ok(Opened { engine: Engine::open(&setup, port)?, origin });
        };
        let mut engine = Engine::open(&setup, port)?;
        assume::assume(&mut engine, assumed)?;
        let start = engine.reactor.now();
        let origin = Origin::resolve(self.request, egresses, report, |egress| {
            let resolve = |address| assume::resolve(&mut engine, address, wait);
            egress.unresolved().map_or_else(|| Ok(egress.known_mac()), resolve)
        })?;
        report.resolved(engine.reactor.now() - start);
        Ok(Opened { engine, origin })
    }
}

/// An open engine, and the origin of its connections.
pub(super) struct Opened {
    pub engine: Engine,
    pub origin: Origin,
}

/// The local end of connections: source addresses and next hops.
pub(super) struct Origin {
    request: EgressRequest,
    /// The route to remote ports that are not in `by_port`.
    first: Leg,
    others: Vec<Leg>,
    /// The route to each remote port, as an index into `others`.
    by_port: HashMap<u16, usize>,
    /// The remote ports that cannot be reached, and why.
    pub unreachable: Vec<(u16, Error)>,
}

/// A route with its next hop's link address.
struct Leg {
    egress: Egress,
    next_hop: NextHop,
    neighbour: Neighbour,
}

impl Leg {
    /// Returns the route behind a next hop with this link address, which a link without such addresses ignores.
    fn new(egress: Egress, destination: MacAddr) -> Leg {
        let interface = &egress.interface;
        let header = match egress.framing {
            Framing::None => LinkHeader::None,
            Framing::Loopback => LinkHeader::LOOPBACK,
            Framing::Ethernet => LinkHeader::Ethernet {
                destination,
                source: egress.assumed.map(|assumed| assumed.mac).or(interface.mac).unwrap_or_default(),
            },
        };
        let next_hop = NextHop { interface: interface.index, header };
        let neighbour = egress.neighbour();
        Leg { egress, next_hop, neighbour }
    }
}

impl Origin {
    /// Returns the local end of flows by one route, behind a next hop with this link address.
    pub(crate) fn new(request: EgressRequest, egress: Egress, destination: MacAddr) -> Origin {
        let first = Leg::new(egress, destination);
        Origin { request, first, others: Vec::new(), by_port: HashMap::new(), unreachable: Vec::new() }
    }

    /// Resolves the next hop of each egress by `resolve`. Fails with the first error where none can be resolved.
    fn resolve(
        request: EgressRequest,
        egresses: Egresses,
        report: &mut JsonReport,
        mut resolve: impl FnMut(&Egress) -> Result<MacAddr, runtime::Error>,
    ) -> Result<Origin, Error> {
        let Egresses { first, others, by_port, refused } = egresses;
        report.route(&first);
        let destination = resolve(&first)?;
        let mut origin = Origin::new(request, first, destination);
        origin.unreachable = refused.into_iter().map(|(port, error)| (port, unreachable(error))).collect();
        for (at, egress) in others.into_iter().enumerate() {
            let start = Instant::now();
            let ports = by_port.iter().filter(|(_, other)| **other == at).map(|(port, _)| *port);
            match (resolve(&egress), egress.next_hop) {
                (Ok(destination), _) => {
                    origin.by_port.extend(ports.map(|port| (port, origin.others.len())));
                    origin.others.push(Leg::new(egress, destination));
                }
                (Err(_), NextHopAddress::Ip(address)) => {
                    let waited = start.elapsed();
                    let address = ScopedIp::new(address, egress.interface.index);
                    let lost = || runtime::Error::NoNeighbour { address, waited }.into();
                    origin.unreachable.extend(ports.map(|port| (port, lost())));
                }
                (Err(error), NextHopAddress::Mac(_)) => return Err(error.into()),
            }
        }
        Ok(origin)
    }

    fn legs(&self) -> impl Iterator<Item = &Leg> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn leg(&self, port: u16) -> &Leg {
        self.by_port.get(&port).and_then(|at| self.others.get(*at)).unwrap_or(&self.first)
    }

    /// Returns the egress of packets to a remote port.
    pub(crate) fn egress(&self, port: u16) -> &Egress {
        &self.leg(port).egress
    }

    /// Starts a connection to a remote port; the SYN leaves with the engine's next turn.
    pub(crate) fn dial(&self, engine: &mut Engine, port: u16) -> FiveTuple {
        let (tuple, route) = self.flow(engine, Protocol::Tcp, port);
        engine.stack.dial(engine.reactor.now(), tuple, route);
        tuple
    }

    /// Makes a remote port the peer of the UDP port.
    pub(crate) fn dial_datagrams(&self, engine: &mut Engine, port: u16) -> FiveTuple {
        let (tuple, route) = self.flow(engine, Protocol::Udp, port);
        match self.egress(port).is_to_group() {
            true => engine.stack.datagrams.dial_group(tuple, route),
            false => engine.stack.datagrams.dial(tuple, route),
        }
        tuple
    }

    /// Returns a remote port of the host, with the zone that its route gives the address.
    pub(crate) fn remote(&self, port: u16) -> SocketAddr {
        scoped(self.request.query.destination, port, self.egress(port).interface.index)
    }

    /// Resets the connection that the kernel opened from our port before, `syn` being its SYN's sequence number.
    pub(crate) fn reset_predecessor(&self, engine: &mut Engine, port: u16, syn: SeqNumber) {
        let (tuple, route) = self.flow(engine, Protocol::Tcp, port);
        engine.stack.reset_predecessor(&tuple, &route, syn);
    }

    /// Returns the five-tuple and the route of a flow.
    pub(crate) fn flow(&self, engine: &Engine, protocol: Protocol, port: u16) -> (FiveTuple, FlowRoute) {
        let Leg { egress, next_hop, neighbour } = self.leg(port);
        let local = scoped(egress.source, engine.port(), egress.interface.index);
        let remote = self.remote(port);
        let path = engine.path(&egress.interface, egress.mtu);
        let route = FlowRoute { next_hop: *next_hop, neighbour: *neighbour, path, metrics: egress.metrics };
        (FiveTuple { protocol, local, remote }, route)
    }

    /// Returns the error of a handshake without an answer.
    pub(crate) fn silence(&self, stack: &Stack, tuple: &FiveTuple, waited: Duration) -> Error {
        let flow = stack.peek(tuple);
        let counters = flow.map(Flow::counters).unwrap_or_default();
        let (target, syns) = (tuple.remote, counters.syns_sent);
        match counters.egress_syn_drops {
            drops if drops > 0 && drops == syns => {
                let interface = self.egress(target.port()).interface.name.clone();
                Error::EgressDropped { target, syns, interface }
            }
            _ => {
                let discards = flow.and_then(Flow::discards);
                let hint = Hint::of(&self.request, self.egress(target.port()));
                Error::TimedOut { target, syns, waited, discards, hint }
            }
        }
    }
}

fn unreachable(error: EgressError) -> Error {
    runtime::Error::from(error).into()
}
