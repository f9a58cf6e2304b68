//! An attempt: one address to try, and everything that is opened for it.
use crate::{
    host::{interface::Framing, neighbour},
    link::{LinkHeader, NextHop},
    net::{FiveTuple, Protocol},
    process::signals,
    report::{Error, Hint},
    runtime::{self, Egress, EgressRequest, Engine, Hop, Port, Setup, assume},
    segment::SeqNumber,
    stack::{Flow, FlowRoute, Neighbour, Stack},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

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
            let next_hop = resolve(&egress, wait)?;
            let resolution = start.elapsed();
            let neighbour = egress.neighbour();
            setup.hears_neighbours = neighbour != Neighbour::Fixed;
            let engine = Engine::open(&setup, port)?;
            let origin = Origin { request: self.request, egress, next_hop, neighbour };
            return Ok(Opened { engine, origin, resolution });
        };
        let mut engine = Engine::open(&setup, port)?;
        assume::assume(&mut engine, persona)?;
        let start = engine.reactor.now();
        let (destination, neighbour) = match egress.next_hop {
            Hop::Link(mac) => (mac, Neighbour::Fixed),
            Hop::Address(address) => (assume::resolve(&mut engine, address, wait)?, Neighbour::At(address)),
        };
        let header = LinkHeader::Ethernet { destination, source: persona.mac };
        let next_hop = NextHop { interface: persona.interface, header };
        let resolution = engine.reactor.now() - start;
        Ok(Opened {
            engine,
            origin: Origin { request: self.request, egress, next_hop, neighbour },
            resolution,
        })
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

    /// Resets the connection that the kernel opened from our port before, `syn` being its SYN's sequence number.
    pub fn reset_predecessor(&self, engine: &mut Engine, remote: SocketAddr, syn: SeqNumber) {
        let tuple = self.tuple(engine, Protocol::Tcp, remote);
        let way = self.way(engine);
        engine.stack.reset_predecessor(&tuple, &way, syn);
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
                Error::TimedOut { target, syns, waited, discards, hint: Hint::of(&self.request) }
            }
        }
    }
}

/// Returns the next hop with its link address, which the kernel's neighbour table resolves.
fn resolve(egress: &Egress, wait: Duration) -> Result<NextHop, runtime::Error> {
    let interface = &egress.interface;
    let header = match (egress.framing, egress.next_hop) {
        (Framing::None, _) => LinkHeader::None,
        (Framing::Loopback, _) => LinkHeader::LOOPBACK,
        (Framing::Ethernet, hop) => LinkHeader::Ethernet {
            destination: match hop {
                Hop::Link(mac) => mac,
                Hop::Address(address) => neighbour::resolve(interface.index, address, wait)?,
            },
            source: interface.mac.unwrap_or_default(),
        },
    };
    Ok(NextHop { interface: interface.index, header })
}
