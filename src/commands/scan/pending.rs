//! A UDP probe under way, and its datagrams.
use super::{payload::Request, queue::Departure};
use crate::{
    report::Error,
    runtime::{Engine, unpredictable},
};
use std::{net::SocketAddr, time::Duration};

/// Probes of a silent port within its wait.
const REPEATS: u32 = 4;

/// A probe without an answer yet.
pub(super) struct Pending {
    pub departure: Departure,
    pub since: Duration,
    /// Time of the next datagram, or of the end of the wait.
    pub next: Duration,
    pub wait: Duration,
    pub sent: u64,
    /// Datagrams of these that this host's own egress dropped.
    pub dropped: u64,
}

impl Pending {
    /// Returns a probe that waits this long from now on.
    pub(super) fn new(departure: Departure, now: Duration, wait: Duration) -> Pending {
        Pending { departure, since: now, next: now, wait, sent: 0, dropped: 0 }
    }

    /// Sends the next datagram.
    pub(super) fn send(&mut self, now: Duration, engine: &mut Engine) -> Result<(), Error> {
        let Departure { tuple, route, way: _, probe: _ } = self.departure;
        let before = engine.stack.datagrams.counters().egress_drops;
        engine.stack.datagrams.dial(tuple, route);
        engine.add_flow(&tuple);
        let payload = Request::of(tuple.remote.port()).payload(self.sent, [unpredictable(), unpredictable()]);
        engine.send_datagrams(&payload, payload.len())?;
        self.dropped += engine.stack.datagrams.counters().egress_drops - before;
        self.sent += 1;
        self.next = (now + self.wait / REPEATS).min(self.since + self.wait).max(now);
        Ok(())
    }
}

/// Returns the error of a port that did not answer.
pub(super) fn silence(engine: &Engine, at: SocketAddr, datagrams: u64, waited: Duration) -> Error {
    let probe = Request::of(at.port()).noun;
    let invalid = engine.stack.datagrams.invalid_from(at);
    Error::Silent { target: at, probe, datagrams, waited, invalid }
}
