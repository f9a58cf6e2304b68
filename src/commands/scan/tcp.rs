//! TCP probes: a connection for each target.
//!
//! netkat closes an open port's connection by a FIN, since services may log a reset as an error; a peer
//! that does not close in turn is reset, so that no connection stays half-open.
use super::{
    BATCH, IN_FLIGHT, Results,
    queue::{Departure, Queue},
};
use crate::{
    commands::connect::answer,
    net::FiveTuple,
    report::{Error, Verdict},
    runtime::{Engine, Task, Turn},
    stack::{Flow, Phase, Stack},
    stdio::Interest,
};
use std::time::Duration;

/// Time for a peer to close after netkat's FIN, before it is reset.
const LINGER: Duration = Duration::from_millis(500);

/// Probes every target of the queue.
pub(super) fn run(
    engine: &mut Engine,
    queue: &mut Queue<'_>,
    results: &mut Results<'_>,
) -> Result<(), Error> {
    engine.run(&mut Probes { queue, results, opening: Vec::new(), closing: Vec::new() })
}

/// The probes of a scan.
struct Probes<'a, 'q, 'r> {
    queue: &'a mut Queue<'q>,
    results: &'a mut Results<'r>,
    /// Connections under way, and when they were started.
    opening: Vec<(Departure, Duration)>,
    /// Connections of open ports that are being closed, and since when.
    closing: Vec<(Departure, Duration)>,
}

impl Probes<'_, '_, '_> {
    fn is_over(&self) -> bool {
        self.queue.is_empty()
            && self.opening.is_empty()
            && self.closing.is_empty()
            && self.results.waiting.is_empty()
    }

    fn has_room(&self) -> bool {
        self.opening.len() + self.closing.len() < IN_FLIGHT
    }

    /// Starts probes, as many as may be in flight and a turn may have. Returns whether there are new ones.
    fn dial(&mut self, now: Duration, engine: &mut Engine) -> bool {
        let closing = &self.closing;
        let busy = |target| closing.iter().any(|(departure, _)| departure.probe.target == target);
        for target in self.results.waiting.due(now, busy) {
            self.queue.repeat(target);
        }
        self.queue.poll(now, engine, self.results);
        let before = self.opening.len();
        while self.has_room()
            && self.opening.len() < before + BATCH
            && let Some(departure) = self.queue.take(now, engine, self.results)
        {
            let now = engine.reactor.now();
            engine.stack.dial(now, departure.tuple, departure.route);
            self.opening.push((departure, now));
        }
        before != self.opening.len()
    }

    /// Takes answers, and ends probes whose wait is over.
    fn take_answers(&mut self, now: Duration, stack: &mut Stack) {
        let (wait, several) = (self.queue.scan.wait, self.queue.scan.several);
        for (departure, since) in std::mem::take(&mut self.opening) {
            let Departure { probe, way, tuple, .. } = &departure;
            let waited = now.saturating_sub(since);
            let result = match answer(stack, tuple) {
                None if waited < wait && !self.results.waiting.is_over(now) => {
                    self.opening.push((departure, since));
                    continue;
                }
                None => {
                    let to = (probe.address, way);
                    Err(self.queue.routes.silence(stack, tuple, to, waited, !several))
                }
                Some(result) => result,
            };
            let silent = result.as_ref().is_err_and(|error| Verdict::from(error) == Verdict::TimedOut);
            let round_trip = if silent { None } else { round_trip(stack, tuple, waited) };
            let open = result.is_ok();
            let next = self.results.note(now, *probe, tuple.remote, result, round_trip);
            self.queue.push_next(next);
            if open {
                stack.flow(tuple).map(Flow::close);
                self.closing.push((departure, now));
            } else {
                stack.remove(tuple);
                self.queue.end(&departure, silent);
            }
        }
    }

    /// Forgets closed connections, and resets those that do not close in time.
    fn close(&mut self, now: Duration, stack: &mut Stack) {
        self.closing.retain(|(departure, since)| {
            let tuple = &departure.tuple;
            if stack.peek(tuple).is_none_or(|flow| flow.phase() == Phase::Closed) {
                stack.remove(tuple);
                self.queue.end(departure, false);
                return false;
            }
            if now >= *since + LINGER {
                stack.flow(tuple).map(Flow::abort);
            }
            true
        });
    }
}

impl Task for Probes<'_, '_, '_> {
    type Output = ();
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        let mut busy = engine.egress(now)?;
        self.take_answers(now, &mut engine.stack);
        self.close(now, &mut engine.stack);
        busy |= self.dial(now, engine);
        self.results.print()?;
        if self.is_over() { Ok(Turn::Done(())) } else { Ok(Turn::of(busy)) }
    }

    fn waits_for<'a>(&'a self, _: Duration, _: &Stack, _: &mut Vec<Interest<'a>>) -> Option<Duration> {
        // Both lists are in chronological order.
        let soonest = [(self.opening.first(), self.queue.scan.wait), (self.closing.first(), LINGER)];
        let waiting = &self.results.waiting;
        let end = waiting.end().filter(|_| !self.opening.is_empty() || !self.queue.is_empty());
        soonest
            .into_iter()
            .filter_map(|(entry, time)| Some(entry?.1 + time))
            .chain(waiting.next())
            .chain(self.queue.due(self.has_room()))
            .chain(end)
            .min()
    }
}

/// Returns the time from a probe to its answer, unless the SYN was repeated (Karn's algorithm, RFC 6298, section 3).
fn round_trip(stack: &Stack, tuple: &FiveTuple, waited: Duration) -> Option<Duration> {
    stack.peek(tuple).is_some_and(|flow| flow.counters().syns_sent == 1).then_some(waited)
}
