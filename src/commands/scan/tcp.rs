//! TCP ports are probed by connections. A port that opens is closed as any connection is, by a FIN, since
//! services may take offence at resets; a peer that does not close in turn is reset, so that nothing is left
//! half-open.
use super::{IN_FLIGHT, Results, Sweep};
use crate::{
    commands::connect::answer,
    net::FiveTuple,
    report::Error,
    stack::{Flow, Phase},
};
use std::time::Duration;

/// How long a peer has to close after our FIN before it is reset.
const LINGER: Duration = Duration::from_millis(500);

/// Probes every port of the sweep.
pub fn run(sweep: Sweep, results: &mut Results<'_>) -> Result<(), Error> {
    let mut probes = Probes { sweep, opening: Vec::new(), closing: Vec::new() };
    while !probes.are_over() {
        probes.dial();
        probes.turn(results)?;
        results.print()?;
    }
    Ok(())
}

struct Probes {
    sweep: Sweep,
    /// What was dialed, and when.
    opening: Vec<(FiveTuple, Duration)>,
    /// What was open and is being closed, since when.
    closing: Vec<(FiveTuple, Duration)>,
}

impl Probes {
    fn are_over(&self) -> bool {
        self.sweep.ports.is_empty() && self.opening.is_empty() && self.closing.is_empty()
    }

    fn dial(&mut self) {
        while self.opening.len() + self.closing.len() < IN_FLIGHT
            && let Some(port) = self.sweep.ports.pop_front()
        {
            let remote = self.sweep.remote(port);
            let tuple = self.sweep.opened.dial(remote);
            self.opening.push((tuple, self.sweep.opened.engine.reactor.now()));
        }
    }

    /// Frames in, results out, frames out; then sleeps until something is due.
    fn turn(&mut self, results: &mut Results<'_>) -> Result<(), Error> {
        let Sweep { opened, wait, .. } = &mut self.sweep;
        let now = opened.engine.reactor.now();
        let busy = opened.engine.ingress(now)? | opened.engine.egress(now)?;
        for (tuple, since) in std::mem::take(&mut self.opening) {
            match answer(&opened.engine.stack, &tuple) {
                Some(Ok(())) => {
                    results.note(tuple.remote, Ok(()));
                    opened.engine.stack.flow(&tuple).map(Flow::close);
                    self.closing.push((tuple, now));
                }
                Some(Err(error)) => {
                    results.note(tuple.remote, Err(error));
                    opened.engine.stack.remove(&tuple);
                }
                None if now >= since + *wait => {
                    results.note(tuple.remote, Err(opened.silence(&tuple, *wait)));
                    opened.engine.stack.remove(&tuple);
                }
                None => self.opening.push((tuple, since)),
            }
        }
        self.close(now);
        // Both lists are in the order of their times.
        let soonest = [(self.opening.first(), self.sweep.wait), (self.closing.first(), LINGER)];
        let due = soonest.into_iter().filter_map(|(entry, time)| Some(entry?.1 + time)).min();
        match due {
            Some(due) => Ok(self.sweep.opened.engine.wait(&mut [], Some(if busy { now } else { due }))?),
            None => Ok(()),
        }
    }

    /// Forgets what is closed, and resets what does not close.
    fn close(&mut self, now: Duration) {
        let stack = &mut self.sweep.opened.engine.stack;
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
