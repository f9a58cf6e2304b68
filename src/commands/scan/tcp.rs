//! TCP probes: a connection for each port.
//!
//! netkat closes an open port's connection by a FIN, since services may log a reset as an error; a peer
//! that does not close in turn is reset, so that no connection stays half-open.
use super::{IN_FLIGHT, Results, Sweep};
use crate::{
    commands::connect::answer,
    net::FiveTuple,
    report::Error,
    runtime::{Engine, Task, Turn},
    stack::{Flow, Phase, Stack},
    stdio::Interest,
};
use std::time::Duration;

/// Time for a peer to close after netkat's FIN, before it is reset.
const LINGER: Duration = Duration::from_millis(500);

/// Probes every port of the sweep.
pub(crate) fn run(engine: &mut Engine, sweep: Sweep, results: &mut Results<'_>) -> Result<(), Error> {
    engine.run(&mut Probes { sweep, results, opening: Vec::new(), closing: Vec::new() })
}

/// The probes of one address.
struct Probes<'a, 'r> {
    sweep: Sweep,
    results: &'a mut Results<'r>,
    /// Connections under way, and when they were started.
    opening: Vec<(FiveTuple, Duration)>,
    /// Connections of open ports that are being closed, and since when.
    closing: Vec<(FiveTuple, Duration)>,
}

impl Probes<'_, '_> {
    fn is_over(&self) -> bool {
        self.sweep.ports.is_empty()
            && self.opening.is_empty()
            && self.closing.is_empty()
            && self.results.waiting.is_empty()
    }

    /// Starts as many probes as may be in flight. Returns whether there are new ones.
    fn dial(&mut self, engine: &mut Engine) -> bool {
        let busy = |port| is_closing(&self.closing, port);
        self.sweep.ports.extend(self.results.waiting.due(engine.reactor.now(), busy));
        let before = self.sweep.ports.len();
        while self.opening.len() + self.closing.len() < IN_FLIGHT
            && let Some(port) = self.sweep.ports.pop_front()
        {
            let tuple = self.sweep.origin.dial(engine, port);
            self.opening.push((tuple, engine.reactor.now()));
        }
        before != self.sweep.ports.len()
    }

    /// Takes answers, and ends probes whose wait is over.
    fn take_answers(&mut self, now: Duration, stack: &mut Stack) {
        for (tuple, since) in std::mem::take(&mut self.opening) {
            match answer(stack, &tuple) {
                Some(Ok(())) => {
                    let round_trip = round_trip(stack, &tuple, now.saturating_sub(since));
                    self.results.note(now, tuple.remote, Ok(()), round_trip);
                    stack.flow(&tuple).map(Flow::close);
                    self.closing.push((tuple, now));
                }
                Some(Err(error)) => {
                    let round_trip = round_trip(stack, &tuple, now.saturating_sub(since));
                    self.results.note(now, tuple.remote, Err(error), round_trip);
                    stack.remove(&tuple);
                }
                None if now >= since + self.sweep.wait || self.results.waiting.is_over(now) => {
                    let silence = self.sweep.origin.silence(stack, &tuple, now.saturating_sub(since));
                    self.results.note(now, tuple.remote, Err(silence), None);
                    stack.remove(&tuple);
                }
                None => self.opening.push((tuple, since)),
            }
        }
    }

    /// Forgets closed connections, and resets those that do not close in time.
    fn close(&mut self, now: Duration, stack: &mut Stack) {
        self.closing.retain(|(tuple, since)| {
            if stack.peek(tuple).is_none_or(|flow| flow.phase() == Phase::Closed) {
                stack.remove(tuple);
                return false;
            }
            if now >= *since + LINGER {
                stack.flow(tuple).map(Flow::abort);
            }
            true
        });
    }
}

impl Task for Probes<'_, '_> {
    type Output = ();
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        let mut busy = engine.egress(now)?;
        self.take_answers(now, &mut engine.stack);
        self.close(now, &mut engine.stack);
        busy |= self.dial(engine);
        self.results.print()?;
        if self.is_over() { Ok(Turn::Done(())) } else { Ok(Turn::of(busy)) }
    }

    fn waits_for<'a>(&'a self, _: Duration, _: &Stack, _: &mut Vec<Interest<'a>>) -> Option<Duration> {
        // Both lists are in chronological order.
        let soonest = [(self.opening.first(), self.sweep.wait), (self.closing.first(), LINGER)];
        let waiting = &self.results.waiting;
        let end = waiting.end().filter(|_| !self.opening.is_empty());
        soonest
            .into_iter()
            .filter_map(|(entry, time)| Some(entry?.1 + time))
            .chain(waiting.next(|port| is_closing(&self.closing, port)))
            .chain(end)
            .min()
    }
}

/// Returns whether the port's last connection is still being closed.
fn is_closing(closing: &[(FiveTuple, Duration)], port: u16) -> bool {
    closing.iter().any(|(tuple, _)| tuple.remote.port() == port)
}

/// Returns the time from a probe to its answer, unless the SYN was repeated (Karn's algorithm, RFC 6298, section 3).
fn round_trip(stack: &Stack, tuple: &FiveTuple, waited: Duration) -> Option<Duration> {
    stack.peek(tuple).is_some_and(|flow| flow.counters().syns_sent == 1).then_some(waited)
}
