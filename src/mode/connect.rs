//! Connecting: to each address of the name in turn, until one answers.
use super::{
    Command, Error, Hint, Policy, Recording, Report, disguise,
    egress::{Egress, Hop, Wish},
    engine::{Engine, Port, Setup},
    session,
};
use crate::{
    host::{interface::Framing, neighbour, route::Query},
    link::{LinkHeader, NextHop},
    net::{FiveTuple, Protocol},
    stack::{Flow, Neighbour, Phase, Stack, Way},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// One address to try.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub remote: SocketAddr,
    pub wish: Wish,
    /// The way there, as far as it is known before our port is.
    pub egress: Egress,
    pub setup: Setup,
}

/// A connection to be made.
#[derive(Clone, Debug)]
pub struct Connect {
    /// At least one.
    pub attempts: Vec<Attempt>,
    /// How long each attempt may take.
    pub wait: Duration,
    pub policy: Policy,
    /// What the peer talks to, instead of standard input and output.
    pub command: Option<Command>,
    pub recording: Recording,
}

impl Connect {
    pub fn run(&self, report: &mut Report) -> Result<(), Error> {
        let taps = self.recording.open(self.command.as_ref())?;
        let mut attempts = self.attempts.iter().peekable();
        loop {
            let Some(attempt) = attempts.next() else { return Ok(()) };
            let last = attempts.peek().is_none();
            match attempt.establish(self.wait, last, report) {
                Ok((mut engine, tuple)) => {
                    if !last {
                        engine.enter_sandbox()?;
                    }
                    let command = self.command.as_ref();
                    return session::run(&mut engine, tuple, self.policy, command, taps, report);
                }
                Err(error @ Error::Interrupted(_)) => return Err(error),
                Err(error) if last => return Err(error),
                Err(error) => log::info!("{error}; trying the next address"),
            }
        }
    }
}

impl Attempt {
    /// Opens everything and completes the handshake; behind the `last` attempt's SYN there are no privileges left.
    fn establish(
        &self,
        wait: Duration,
        last: bool,
        report: &mut Report,
    ) -> Result<(Engine, FiveTuple), Error> {
        report.attempt(self.remote, &self.egress);
        let mut opened = self.open(wait)?;
        report.attempt(self.remote, &opened.egress);
        report.resolved(opened.resolution);
        if last {
            opened.engine.enter_sandbox()?;
        }
        let tuple = self.dial(&mut opened, wait, report)?;
        Ok((opened.engine, tuple))
    }

    /// Opens everything and finds the link addresses of our frames; a neighbour has `wait` to answer.
    pub(super) fn open(&self, wait: Duration) -> Result<Opened, Error> {
        let port = Port::take(&self.setup)?;
        let query =
            Query { source: Some(self.egress.source), source_port: Some(port.number()), ..self.wish.query };
        let egress = self.decide_for(query)?;
        log::info!("{}", egress.words);
        let mut setup = Setup {
            interfaces: vec![egress.interface.clone()],
            ways_back: egress.ways_back(&query)?,
            ..self.setup.clone()
        };
        let Some(persona) = egress.persona else {
            // The kernel's neighbour table knows.
            let start = Instant::now();
            let next_hop = resolve(&egress, wait)?;
            let resolution = start.elapsed();
            let neighbour = egress.neighbour();
            setup.hears_neighbours = neighbour != Neighbour::Fixed;
            let engine = Engine::open(&setup, port)?;
            return Ok(Opened { engine, wish: self.wish, egress, next_hop, neighbour, resolution });
        };
        let mut engine = Engine::open(&setup, port)?;
        disguise::assume(&mut engine, persona)?;
        let start = engine.reactor.now();
        let (destination, neighbour) = match egress.next_hop {
            Hop::Link(mac) => (mac, Neighbour::Fixed),
            Hop::Address(address) => (disguise::resolve(&mut engine, address, wait)?, Neighbour::At(address)),
        };
        let header = LinkHeader::Ethernet { destination, source: persona.mac };
        let next_hop = NextHop { interface: persona.interface, header };
        let resolution = engine.reactor.now() - start;
        Ok(Opened { engine, wish: self.wish, egress, next_hop, neighbour, resolution })
    }

    /// Asks for the way once more, now that our port is known: policy rules and multipath hashing look at it.
    fn decide_for(&self, query: Query) -> Result<Egress, Error> {
        if self.wish.via.is_some() || self.wish.persona.is_some() {
            return Ok(self.egress.clone());
        }
        Ok(Wish { query, ..self.wish }.decide()?)
    }

    fn dial(&self, opened: &mut Opened, wait: Duration, report: &mut Report) -> Result<FiveTuple, Error> {
        let start = opened.engine.reactor.now();
        let tuple = opened.dial(self.remote);
        report.flow(&tuple);
        log::info!("dialing {} from {}", self.remote, tuple.local);
        let ended = opened.engine.run_until(Some(start + wait), |stack| answer(stack, &tuple))?;
        report.discarded(opened.engine.stack.peek(&tuple).and_then(Flow::discards));
        ended.unwrap_or_else(|| Err(opened.silence(&tuple, wait)))?;
        let time = opened.engine.reactor.now() - start;
        report.connected(time);
        log::info!("established {tuple} after {:.1} ms", time.as_secs_f64() * 1e3);
        Ok(tuple)
    }
}

/// What connections are made on.
pub(super) struct Opened {
    pub engine: Engine,
    wish: Wish,
    pub egress: Egress,
    pub next_hop: NextHop,
    pub neighbour: Neighbour,
    /// How long it took to find the next hop's link address.
    pub resolution: Duration,
}

impl Opened {
    /// Begins a connection; the SYN leaves with the engine's next turn.
    pub fn dial(&mut self, remote: SocketAddr) -> FiveTuple {
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: SocketAddr::new(self.egress.source, self.engine.port()),
            remote: SocketAddr::new(remote.ip(), remote.port()),
        };
        let way = self.way();
        self.engine.stack.dial(self.engine.reactor.now(), tuple, way);
        tuple
    }

    /// Where our packets go, and what they may measure.
    pub fn way(&self) -> Way {
        Way {
            next_hop: self.next_hop,
            neighbour: self.neighbour,
            path: self.engine.path(&self.egress.interface, self.egress.mtu),
        }
    }

    /// What it means that nothing came back.
    pub fn silence(&self, tuple: &FiveTuple, waited: Duration) -> Error {
        let flow = self.engine.stack.peek(tuple);
        let counters = flow.map(Flow::counters).unwrap_or_default();
        let (target, syns) = (tuple.remote, counters.syns_sent);
        match counters.egress_syn_drops {
            drops if drops > 0 && drops == syns => {
                Error::EgressDropped { target, syns, interface: self.egress.interface.name.clone() }
            }
            _ => {
                let discards = flow.and_then(Flow::discards);
                Error::TimedOut { target, syns, waited, discards, hint: Hint::of(&self.wish) }
            }
        }
    }
}

/// How the handshake ended; `None` while it is under way.
pub(super) fn answer(stack: &Stack, tuple: &FiveTuple) -> Option<Result<(), Error>> {
    let Some(flow) = stack.peek(tuple) else { return Some(Err(Error::Refused(tuple.remote))) };
    match flow.failure() {
        Some(failure) => Some(Err(Error::of(tuple.remote, failure))),
        // A peer may have said all it has to say within one turn.
        None => (flow.was_established() || flow.phase() != Phase::Opening).then_some(Ok(())),
    }
}

/// The link addresses of our frames, by the kernel's neighbour table.
fn resolve(egress: &Egress, wait: Duration) -> Result<NextHop, Error> {
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
