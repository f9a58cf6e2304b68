//! An attempt: one address to try, and everything that is opened for it.
use crate::{
    host::{interface::Framing, neighbour},
    link::{LinkHeader, NextHop},
    neighbour::Neighbour,
    net::{
        FiveTuple, Protocol,
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

/// Tries each address in turn, until `work` succeeds with one. `work` is told whether an address is the last.
/// Returns `None` without addresses.
pub(super) fn first<T>(
    attempts: &[Attempt],
    mut work: impl FnMut(&Attempt, bool) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let mut failure = None;
    let mut attempts = attempts.iter().peekable();
    while let Some(attempt) = attempts.next() {
        let last = attempts.peek().is_none();
        match work(attempt, last) {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.signal().is_some() => return Err(error),
            Err(error) => {
                if !last {
                    log::info!("{error}; trying the next address");
                }
                // An address without a route was not tried.
                if failure.is_none() || !lacks_route(&error) {
                    failure = Some(error);
                }
            }
        }
    }
    failure.map_or(Ok(None), Err)
}

/// Returns whether no route leads to the address of the attempt that failed.
pub(super) fn lacks_route(error: &Error) -> bool {
    matches!(error, Error::Runtime(runtime::Error::Egress(_)))
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
            let origin = Origin::new(self.request, egresses, report, |egress| {
                Ok((resolve(egress, wait)?, egress.neighbour()))
            })?;
            report.resolved(start.elapsed());
            setup.hears_neighbours = origin.legs().any(|leg| leg.neighbour != Neighbour::Fixed);
            return Ok(Opened { engine: Engine::open(&setup, port)?, origin });
        };
        let mut engine = Engine::open(&setup, port)?;
        assume::assume(&mut engine, assumed)?;
        let start = engine.reactor.now();
        let origin = Origin::new(self.request, egresses, report, |egress| {
            let (destination, neighbour) = match egress.next_hop {
                NextHopAddress::Mac(mac) => (mac, Neighbour::Fixed),
                NextHopAddress::Ip(address) => {
                    (assume::resolve(&mut engine, address, wait)?, Neighbour::At(address))
                }
            };
            let header = LinkHeader::Ethernet { destination, source: assumed.mac };
            Ok((NextHop { interface: assumed.interface, header }, neighbour))
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

impl Origin {
    /// Resolves the next hop of each egress by `resolve`. Fails with the first error where none can be resolved.
    fn new(
        request: EgressRequest,
        egresses: Egresses,
        report: &mut JsonReport,
        mut resolve: impl FnMut(&Egress) -> Result<(NextHop, Neighbour), runtime::Error>,
    ) -> Result<Origin, Error> {
        let Egresses { first, others, by_port, refused } = egresses;
        report.route(&first);
        let (next_hop, neighbour) = resolve(&first)?;
        let mut origin = Origin {
            request,
            first: Leg { egress: first, next_hop, neighbour },
            others: Vec::with_capacity(others.len()),
            by_port: HashMap::new(),
            unreachable: refused.into_iter().map(|(port, error)| (port, unreachable(error))).collect(),
        };
        for (at, egress) in others.into_iter().enumerate() {
            let start = Instant::now();
            let ports = by_port.iter().filter(|(_, other)| **other == at).map(|(port, _)| *port);
            match (resolve(&egress), egress.next_hop) {
                (Ok((next_hop, neighbour)), _) => {
                    origin.by_port.extend(ports.map(|port| (port, origin.others.len())));
                    origin.others.push(Leg { egress, next_hop, neighbour });
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
    pub fn egress(&self, port: u16) -> &Egress {
        &self.leg(port).egress
    }

    /// Starts a connection to a remote port; the SYN leaves with the engine's next turn.
    pub fn dial(&self, engine: &mut Engine, port: u16) -> FiveTuple {
        let (tuple, route) = self.flow(engine, Protocol::Tcp, port);
        engine.stack.dial(engine.reactor.now(), tuple, route);
        tuple
    }

    /// Makes a remote port the peer of the UDP port.
    pub fn dial_datagrams(&self, engine: &mut Engine, port: u16) -> FiveTuple {
        let (tuple, route) = self.flow(engine, Protocol::Udp, port);
        match self.egress(port).is_to_group() {
            true => engine.stack.datagrams.dial_group(tuple, route),
            false => engine.stack.datagrams.dial(tuple, route),
        }
        tuple
    }

    /// Returns a remote port of the host, with the zone that its route gives the address.
    pub fn remote(&self, port: u16) -> SocketAddr {
        scoped(self.request.query.destination, port, self.egress(port).interface.index)
    }

    /// Resets the connection that the kernel opened from our port before, `syn` being its SYN's sequence number.
    pub fn reset_predecessor(&self, engine: &mut Engine, port: u16, syn: SeqNumber) {
        let (tuple, route) = self.flow(engine, Protocol::Tcp, port);
        engine.stack.reset_predecessor(&tuple, &route, syn);
    }

    /// Returns the five-tuple and the route of a flow.
    fn flow(&self, engine: &Engine, protocol: Protocol, port: u16) -> (FiveTuple, FlowRoute) {
        let Leg { egress, next_hop, neighbour } = self.leg(port);
        let local = scoped(egress.source, engine.port(), egress.interface.index);
        let remote = self.remote(port);
        let path = engine.path(&egress.interface, egress.mtu);
        let route = FlowRoute { next_hop: *next_hop, neighbour: *neighbour, path, metrics: egress.metrics };
        (FiveTuple { protocol, local, remote }, route)
    }

    /// Returns the error of a handshake without an answer.
    pub fn silence(&self, stack: &Stack, tuple: &FiveTuple, waited: Duration) -> Error {
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
                Error::TimedOut { target, syns, waited, discards, hint: Hint::of(&self.request) }
            }
        }
    }
}

fn unreachable(error: EgressError) -> Error {
    runtime::Error::from(error).into()
}

/// Returns the next hop with its link address, which the kernel's neighbour table resolves.
fn resolve(egress: &Egress, wait: Duration) -> Result<NextHop, runtime::Error> {
    let interface = &egress.interface;
    let header = match (egress.framing, egress.next_hop) {
        (Framing::None, _) => LinkHeader::None,
        (Framing::Loopback, _) => LinkHeader::LOOPBACK,
        (Framing::Ethernet, hop) => LinkHeader::Ethernet {
            destination: match hop {
                NextHopAddress::Mac(mac) => mac,
                NextHopAddress::Ip(address) => neighbour::resolve(interface.index, address, wait)?,
            },
            source: interface.mac.unwrap_or_default(),
        },
    };
    Ok(NextHop { interface: interface.index, header })
}
