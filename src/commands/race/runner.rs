//! One attempt of a race: next hop, handshake, outcome.
use crate::{
    commands::{
        attempt::{Attempt, Origin},
        connect::answer,
    },
    host::neighbour,
    net::{
        FiveTuple, MacAddr,
        zone::{endpoint, scoped},
    },
    report::{Error, Failure, JsonReport, Tried},
    runtime::{self, Egress, Engine, assume},
    stack::Flow,
};
use std::{net::SocketAddr, time::Duration};

/// An attempt in the race.
pub(super) struct Runner<'a> {
    pub attempt: &'a Attempt,
    pub egress: Egress,
    pub state: State,
}

/// A handshake under way.
pub(super) struct Opening {
    origin: Origin,
    tuple: FiveTuple,
    pub since: Duration,
    /// Time that the resolution of the next hop took.
    resolution: Duration,
}

/// The progress of an attempt.
pub(super) enum State {
    Ready,
    Resolving { since: Duration },
    Opening(Box<Opening>),
    Won,
    Failed(Error),
}

impl<'a> Runner<'a> {
    /// Returns an attempt that is ready to start.
    pub(crate) fn new(attempt: &'a Attempt, egress: Egress) -> Runner<'a> {
        Runner { attempt, egress, state: State::Ready }
    }

    /// Makes the kernel resolve the next hop. For an assumed address netkat resolves it itself.
    pub(crate) fn ask_kernel(&mut self) {
        if let (State::Ready, None, Some(address)) =
            (&self.state, self.egress.assumed, self.egress.unresolved())
            && let Err(error) = neighbour::begin(self.egress.interface.index, address)
        {
            self.state = State::Failed(runtime::Error::from(error).into());
        }
    }

    /// Starts the attempt.
    pub(crate) fn start(&mut self, now: Duration, report: &mut JsonReport) {
        report.attempt(self.remote());
        report.route(&self.egress);
        self.state = State::Resolving { since: now };
    }

    /// Takes the next step if it is due. Returns the connection if that has won the race.
    pub(crate) fn advance(
        &mut self,
        now: Duration,
        wait: Duration,
        engine: &mut Engine,
        report: &mut JsonReport,
    ) -> Result<Option<FiveTuple>, Error> {
        match &self.state {
            State::Resolving { since } => {
                let since = *since;
                if let Some(destination) = self.resolve(now, since, wait, engine)? {
                    let resolution = engine.reactor.now() - since;
                    self.dial(engine, destination, resolution, report);
                }
                Ok(None)
            }
            State::Opening(opening) => {
                let Opening { origin, tuple, since, resolution } = &**opening;
                let tuple = *tuple;
                let result = match answer(&engine.stack, &tuple) {
                    None if now < *since + wait => return Ok(None),
                    None => Err(origin.silence(&engine.stack, &tuple, wait)),
                    Some(result) => result,
                };
                report.attempt(self.remote());
                report.route(&self.egress);
                report.resolved(*resolution);
                report.flow(&tuple);
                report.discarded(engine.stack.peek(&tuple).and_then(Flow::discards));
                if let Err(error) = result {
                    engine.stack.remove(&tuple);
                    return Err(error);
                }
                let time = engine.reactor.now() - *since;
                report.connected(time);
                log::info!("established {tuple} after {:.1} ms", time.as_secs_f64() * 1e3);
                self.state = State::Won;
                Ok(Some(tuple))
            }
            State::Ready | State::Won | State::Failed(_) => Ok(None),
        }
    }

    /// Returns the next hop's link address once it is known; any for a link without.
    fn resolve(
        &self,
        now: Duration,
        since: Duration,
        wait: Duration,
        engine: &mut Engine,
    ) -> Result<Option<MacAddr>, Error> {
        let interface = self.egress.interface.index;
        let Some(address) = self.egress.unresolved() else { return Ok(Some(self.egress.known_mac())) };
        if self.egress.assumed.is_some() {
            return Ok(Some(assume::resolve(engine, address, wait)?));
        }
        match engine.neighbour(interface, address)? {
            None if now >= since + wait => {
                Err(runtime::Error::from(neighbour::unanswered(interface, address, Some(wait))).into())
            }
            found => Ok(found),
        }
    }

    /// Opens the connection; the SYN leaves with the engine's next turn.
    fn dial(
        &mut self,
        engine: &mut Engine,
        destination: MacAddr,
        resolution: Duration,
        report: &mut JsonReport,
    ) {
        let origin = Origin::new(self.attempt.request, self.egress.clone(), destination);
        let tuple = origin.dial(engine, self.attempt.remote.port());
        report.resolved(resolution);
        report.flow(&tuple);
        log::info!("dialing {} from {}", endpoint(&tuple.remote), endpoint(&tuple.local));
        let since = engine.reactor.now();
        self.state = State::Opening(Box::new(Opening { origin, tuple, since, resolution }));
    }

    /// Returns the peer, with the zone that the route gives its address.
    fn remote(&self) -> SocketAddr {
        let remote = self.attempt.remote;
        scoped(remote.ip(), remote.port(), self.egress.interface.index)
    }

    /// Returns the connection that is being opened.
    pub(crate) fn tuple(&self) -> Option<&FiveTuple> {
        match &self.state {
            State::Opening(opening) => Some(&opening.tuple),
            _ => None,
        }
    }

    /// Returns the error of an attempt that has failed.
    pub(crate) fn into_error(self) -> Option<Error> {
        match self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Returns what became of the address.
    pub(crate) fn outcome(&self) -> Tried {
        let remote = self.remote();
        match &self.state {
            State::Won => Tried::won(remote),
            State::Failed(error) => Tried::failed(remote, &Failure::of(error)),
            State::Ready | State::Resolving { .. } | State::Opening(_) => Tried::undecided(remote),
        }
    }
}
