//! A race of connection attempts (RFC 8305, Happy Eyeballs): the addresses of a name are tried side by side, each a
//! little after the one before, and the first completed handshake wins.
//!
//! All attempts share one engine, and so one local port, one set of guards and one sandbox, which is entered before the
//! first SYN. With several addresses, the flow table tells their packets from those of others. The kernel is asked for
//! all next hops at the start, while netkat still has the privilege to ask.
mod runner;

use self::runner::{Runner, State};
use super::target::Target;
use crate::{
    neighbour::Neighbour,
    net::FiveTuple,
    report::{Error, Failure, JsonReport, Tried},
    runtime::{self, Engine, SharedEnd, Task, Turn, assume},
    stack::{Flow, Stack},
    stdio::Interest,
};
use std::{net::SocketAddr, time::Duration};

/// Time after which the next address is tried as well (RFC 8305, section 5, Connection Attempt Delay).
const DELAY: Duration = Duration::from_millis(250);
/// Longest wait for a change of the neighbour table before it is read again.
const TICK: Duration = Duration::from_millis(50);

/// Connects to the first address that completes a handshake. Returns the engine, with that connection alone.
pub(super) fn run(
    target: &Target,
    wait: Duration,
    report: &mut JsonReport,
) -> Result<(Engine, FiveTuple), Error> {
    let Some(first) = target.attempts.first() else { return Err(target.fail_with(Vec::new(), report)) };
    let requests: Vec<_> = target.attempts.iter().map(|attempt| attempt.request).collect();
    let chosen = SharedEnd::choose(&requests, &first.setup).inspect_err(|_| report.attempt(first.remote))?;
    let (mut runners, mut unroutable) = (Vec::new(), Vec::new());
    for (attempt, egress) in target.attempts.iter().zip(chosen.egresses) {
        match egress {
            Ok(egress) => runners.push(Runner::new(attempt, egress)),
            Err(error) => unroutable.push((attempt.remote, Error::from(runtime::Error::from(error)))),
        }
    }
    let Some(port) = chosen.port else { return Err(target.fail_with(unroutable, report)) };
    unroutable.iter().for_each(|(_, error)| log::info!("{error}"));
    let mut setup = chosen.setup;
    // A single peer needs no table.
    setup.flows = if setup.remotes.len() > 1 { setup.remotes.len() } else { 0 };
    setup.hears_neighbours = runners.iter().any(|runner| runner.egress.neighbour() != Neighbour::Fixed);
    let mut engine = Engine::open(&setup, port)?;
    runners.iter_mut().for_each(Runner::ask_kernel);
    engine.enter_sandbox()?;
    if let Some(assumed) = setup.assumed {
        assume::assume(&mut engine, assumed)?;
    }
    let next_at = engine.reactor.now();
    let mut race = Race { runners, wait, next_at, report };
    let result = engine.run(&mut race);
    let Race { mut runners, .. } = race;
    let outcomes: Vec<_> = runners.iter().map(Runner::outcome).chain(unroutable.iter().map(tried)).collect();
    match result {
        Ok(Some(tuple)) => {
            note(target, outcomes, report);
            dismiss_losers(&mut engine, &runners)?;
            Ok((engine, tuple))
        }
        Ok(None) => {
            let own = runners.pop().and_then(Runner::into_error);
            Err(target.fail(outcomes.into_iter(), own, report))
        }
        Err(error) => {
            note(target, outcomes, report);
            Err(error)
        }
    }
}

/// Notes what became of the addresses of a host that has several.
fn note(target: &Target, outcomes: Vec<Tried>, report: &mut JsonReport) {
    if target.is_choice() {
        report.tried(outcomes.into_iter().chain(target.unusable.iter().cloned()));
    }
}

fn tried((remote, error): &(SocketAddr, Error)) -> Tried {
    Tried::failed(*remote, &Failure::of(error))
}

/// Ends the attempts that lost. The stack answers what their peers still send with a reset, as a kernel does for a
/// socket that was closed while it connected.
fn dismiss_losers(engine: &mut Engine, runners: &[Runner<'_>]) -> Result<(), Error> {
    let losers = || runners.iter().filter_map(Runner::tuple);
    for tuple in losers() {
        if engine.stack.peek(tuple).is_some_and(Flow::was_established) {
            engine.stack.flow(tuple).map(Flow::abort);
        }
    }
    let now = engine.reactor.now();
    engine.egress(now)?;
    losers().for_each(|tuple| engine.stack.remove(tuple));
    Ok(())
}

/// The attempts, in the order in which they start.
struct Race<'a, 'r> {
    runners: Vec<Runner<'a>>,
    wait: Duration,
    /// Time at which the next attempt may start.
    next_at: Duration,
    report: &'r mut JsonReport,
}

impl Task for Race<'_, '_> {
    /// The winner; `None` if all have failed.
    type Output = Option<FiveTuple>;
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<Option<FiveTuple>>, Error> {
        let mut busy = engine.egress(now)?;
        if now >= self.next_at
            && let Some(next) = self.runners.iter_mut().find(|runner| matches!(runner.state, State::Ready))
        {
            next.start(now, self.report);
            self.next_at = now + DELAY;
        }
        for runner in &mut self.runners {
            match runner.advance(now, self.wait, engine, self.report) {
                Ok(None) => {}
                Ok(Some(winner)) => return Ok(Turn::Done(Some(winner))),
                Err(error) if error.signal().is_some() => return Err(error),
                Err(error) => {
                    log::info!("{error}");
                    runner.state = State::Failed(error);
                    (self.next_at, busy) = (now, true);
                }
            }
        }
        let over = self.runners.iter().all(|runner| matches!(runner.state, State::Failed(_)));
        Ok(if over { Turn::Done(None) } else { Turn::of(busy) })
    }

    fn waits_for<'a>(&'a self, now: Duration, _: &Stack, _: &mut Vec<Interest<'a>>) -> Option<Duration> {
        let due = self.runners.iter().filter_map(|runner| match runner.state {
            State::Ready => Some(self.next_at),
            State::Resolving { since } => Some((now + TICK).min(since + self.wait)),
            State::Opening(ref opening) => Some(opening.since + self.wait),
            State::Won | State::Failed(_) => None,
        });
        due.min()
    }
}
