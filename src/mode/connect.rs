//! Connecting: to each address of the name in turn, until one answers.
use super::{
    Error, Policy,
    engine::{Engine, Setup},
    session,
};
use crate::{
    host::{
        interface::{Framing, Interface},
        neighbour,
    },
    link::{LinkHeader, NextHop},
    net::{FiveTuple, Protocol},
    stack::{Failure, Flow, Path, Phase, Way},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// One address to try, and the way there.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub remote: SocketAddr,
    pub interface: Interface,
    pub framing: Framing,
    pub source: IpAddr,
    /// The address whose link address frames are sent to.
    pub next_hop: IpAddr,
    pub path: Path,
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
}

impl Connect {
    pub fn run(&self) -> Result<(), Error> {
        let mut attempts = self.attempts.iter().peekable();
        loop {
            let Some(attempt) = attempts.next() else { return Ok(()) };
            match attempt.establish(self.wait) {
                Ok((engine, tuple)) => return converse(engine, tuple, self.policy),
                Err(error @ Error::Interrupted(_)) => return Err(error),
                Err(error) if attempts.peek().is_none() => return Err(error),
                Err(error) => log::warn!("{error}; trying the next address"),
            }
        }
    }
}

fn converse(mut engine: Engine, tuple: FiveTuple, policy: Policy) -> Result<(), Error> {
    engine.drop_privileges()?;
    let counters = session::run(&mut engine, tuple, policy)?;
    log::info!(
        "closed {}: {} bytes sent, {} received",
        tuple.remote,
        counters.bytes_sent,
        counters.bytes_received
    );
    Ok(())
}

impl Attempt {
    /// Opens everything and completes the handshake.
    fn establish(&self, wait: Duration) -> Result<(Engine, FiveTuple), Error> {
        let next_hop = self.resolve(wait)?;
        let mut engine = Engine::open(&self.setup)?;
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: SocketAddr::new(self.source, engine.port()),
            remote: SocketAddr::new(self.remote.ip(), self.remote.port()),
        };
        log::info!("dialing {} from {}", self.remote, tuple.local);
        let start = engine.reactor.now();
        engine.stack.dial(start, tuple, Way { next_hop, path: self.path });
        loop {
            let now = engine.reactor.now();
            let busy = engine.ingress(now)? | engine.egress(now)?;
            let Some(flow) = engine.stack.peek(&tuple) else { return Err(Error::Refused(self.remote)) };
            if let Some(failure) = flow.failure() {
                return Err(self.explain(failure));
            }
            // A peer may have said all it has to say within one turn.
            if flow.was_established() || flow.phase() != Phase::Opening {
                log::info!("established {tuple} after {:.1} ms", (now - start).as_secs_f64() * 1e3);
                return Ok((engine, tuple));
            }
            if now >= start + wait {
                return Err(self.silence(flow, wait));
            }
            if !busy {
                engine.wait(&mut [], Some(start + wait))?;
            }
        }
    }

    /// The link addresses of our frames.
    pub(super) fn resolve(&self, wait: Duration) -> Result<NextHop, Error> {
        let header = match self.framing {
            Framing::None => LinkHeader::None,
            Framing::Loopback => LinkHeader::LOOPBACK,
            Framing::Ethernet => LinkHeader::Ethernet {
                destination: neighbour::resolve(self.interface.index, self.next_hop, wait)?,
                source: self.interface.mac.unwrap_or_default(),
            },
        };
        Ok(NextHop { interface: self.interface.index, header })
    }

    fn explain(&self, failure: &Failure) -> Error {
        let target = self.remote;
        match failure {
            Failure::Refused => Error::Refused(target),
            Failure::Reset => Error::Reset(target),
            Failure::Rejected(error) => Error::Rejected { target, error: *error },
            Failure::Vanished => Error::Vanished(target),
        }
    }

    /// What it means that nothing came back.
    fn silence(&self, flow: &Flow, waited: Duration) -> Error {
        let counters = flow.counters();
        let (target, syns) = (self.remote, counters.syns_sent);
        match counters.egress_syn_drops {
            drops if drops > 0 && drops == syns => {
                Error::EgressDropped { target, syns, interface: self.interface.name.clone() }
            }
            _ => Error::TimedOut { target, syns, waited },
        }
    }
}
