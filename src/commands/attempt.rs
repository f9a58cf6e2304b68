//! An attempt: one address to try, and everything that is opened for it.
use crate::{
    host::{interface::Framing, neighbour},
    link::{LinkHeader, NextHop},
    net::{FiveTuple, MacAddr, Protocol},
    process::signals,
    report::{Error, Hint, JsonReport, Tried},
    runtime::{self, Egress, EgressRequest, Engine, Port, Setup, assume},
    stack::{Flow, FlowRoute, Neighbour, Stack},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The host to talk to, by all of its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The host as typed.
    pub host: String,
    /// The addresses to try, in that order. There are none only if several are unusable.
    pub attempts: Vec<Attempt>,
    /// Further addresses, which nothing can be sent to.
    pub unusable: Vec<Tried>,
}

impl Target {
    /// Returns whether the host has several addresses.
    pub fn is_choice(&self) -> bool {
        self.attempts.len() + self.unusable.len() > 1
    }

    /// Fails for all addresses together, of which the attempts have these outcomes.
    pub fn fail(&self, attempts: impl Iterator<Item = Tried>, report: &mut JsonReport) -> Error {
        report.tried(attempts.chain(self.unusable.iter().cloned()));
        report.none_reached(&self.host)
    }
}

/// An address to try.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub remote: SocketAddr,
    pub request: EgressRequest,
    /// The egress before the local port is known: it names the source address, at which the port is taken.
    pub egress: Egress,
    pub setup: Setup,
}

impl Attempt {
    /// Opens everything, and resolves the next hop's link address within `wait`.
    pub(super) fn open(&self, wait: Duration) -> Result<Opened, Error> {
        // An earlier attempt has closed everything it opened; while the neighbour is resolved, a signal may
        // end the process.
        signals::release();
        let port = Port::take(&self.setup)?;
        let flow = self.request.with_port(&self.egress, port.number());
        let egress = flow.decide_again(&self.egress).map_err(runtime::Error::from)?;
        log::info!("{}", egress.description);
        let mut setup = Setup {
            interfaces: vec![egress.interface.clone()],
            return_interfaces: egress.return_interfaces(&flow.query).map_err(runtime::Error::from)?,
            ..self.setup.clone()
        };
        let Some(persona) = egress.persona else {
            // The kernel resolves the neighbours of this host's own addresses.
            let start = Instant::now();
            let destination = match egress.unresolved() {
                Some(address) => {
                    neighbour::resolve(egress.interface.index, address, wait).map_err(runtime::Error::from)?
                }
                None => egress.known_mac(),
            };
            let resolution = start.elapsed();
            let origin = Origin::new(self.request, egress, destination);
            setup.hears_neighbours = origin.neighbour != Neighbour::Fixed;
            let engine = Engine::open(&setup, port)?;
            return Ok(Opened { engine, origin, resolution });
        };
        let mut engine = Engine::open(&setup, port)?;
        assume::assume(&mut engine, persona)?;
        let start = engine.reactor.now();
        let destination = match egress.unresolved() {
            Some(address) => assume::resolve(&mut engine, address, wait)?,
            None => egress.known_mac(),
        };
        let resolution = engine.reactor.now() - start;
        Ok(Opened { engine, origin: Origin::new(self.request, egress, destination), resolution })
    }
}

/// An open engine, and the origin of its connections.
pub(super) struct Opened {
    pub engine: Engine,
    pub origin: Origin,
    /// Time that the resolution of the next hop took.
    pub resolution: Duration,
}

/// The local end of connections: source address and next hop.
pub(super) struct Origin {
    request: EgressRequest,
    pub egress: Egress,
    next_hop: NextHop,
    neighbour: Neighbour,
}

impl Origin {
    /// Returns the local end behind a next hop with this link address, which a link without such addresses ignores.
    pub fn new(request: EgressRequest, egress: Egress, destination: MacAddr) -> Origin {
        let interface = &egress.interface;
        let header = match egress.framing {
            Framing::None => LinkHeader::None,
            Framing::Loopback => LinkHeader::LOOPBACK,
            Framing::Ethernet => LinkHeader::Ethernet {
                destination,
                source: egress.persona.map(|persona| persona.mac).or(interface.mac).unwrap_or_default(),
            },
        };
        let next_hop = NextHop { interface: interface.index, header };
        let neighbour = egress.neighbour();
        Origin { request, egress, next_hop, neighbour }
    }

    /// Starts a connection; the SYN leaves with the engine's next turn.
    pub fn dial(&self, engine: &mut Engine, remote: SocketAddr) -> FiveTuple {
        let tuple = self.tuple(engine, Protocol::Tcp, remote);
        let way = self.way(engine);
        engine.stack.dial(engine.reactor.now(), tuple, way);
        tuple
    }

    /// Makes `remote` the peer of the UDP port.
    pub fn dial_datagrams(&self, engine: &mut Engine, remote: SocketAddr) -> FiveTuple {
        let tuple = self.tuple(engine, Protocol::Udp, remote);
        let way = self.way(engine);
        engine.stack.datagrams.dial(tuple, way);
        tuple
    }

    fn tuple(&self, engine: &Engine, protocol: Protocol, remote: SocketAddr) -> FiveTuple {
        FiveTuple {
            protocol,
            local: SocketAddr::new(self.egress.source, engine.port()),
            remote: SocketAddr::new(remote.ip(), remote.port()),
        }
    }

    /// Returns the next hop of packets, and their maximum size.
    fn way(&self, engine: &Engine) -> FlowRoute {
        FlowRoute {
            next_hop: self.next_hop,
            neighbour: self.neighbour,
            path: engine.path(&self.egress.interface, self.egress.mtu),
        }
    }

    /// Returns the error of a handshake without an answer.
    pub fn silence(&self, stack: &Stack, tuple: &FiveTuple, waited: Duration) -> Error {
        let flow = stack.peek(tuple);
        let counters = flow.map(Flow::counters).unwrap_or_default();
        let (target, syns) = (tuple.remote, counters.syns_sent);
        match counters.egress_syn_drops {
            drops if drops > 0 && drops == syns => {
                Error::EgressDropped { target, syns, interface: self.egress.interface.name.clone() }
            }
            _ => {
                let discards = flow.and_then(Flow::discards);
                Error::TimedOut {
                    target,
                    syns,
                    waited,
                    discards,
                    hint: Hint::of(&self.request, &self.egress),
                }
            }
        }
    }
}
