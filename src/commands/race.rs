//! A race of connection attempts (RFC 8305, Happy Eyeballs): the addresses of a name are tried side by side, each a
//! little after the one before, and the first completed handshake wins.
//!
//! All attempts share one engine, and so one local port, one set of guards and one sandbox, which is entered before the
//! first SYN. With several addresses, the flow table tells their packets from those of others. The kernel is asked for
//! all next hops at the start, while netkat still has the privilege to ask.
mod runner;

use self::runner::{Runner, State};
use super::attempt::{Attempt, Target};
use crate::{
    host::interface::Interface,
    net::FiveTuple,
    report::{Error, JsonReport},
    runtime::{Egress, Engine, Port, Setup, Task, Turn, assume},
    stack::{Flow, Neighbour, Stack},
    stdio::Interest,
};
use std::{net::IpAddr, time::Duration};

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
    let Some(first) = target.attempts.first() else { return Err(fail(target, Vec::new(), report)) };
    let before = target.attempts.iter().map(|attempt| (attempt, &attempt.egress));
    let port = Port::take(&shared_setup(&first.setup, before))?;
    let mut runners: Vec<_> = target.attempts.iter().map(|at| Runner::new(at, port.number())).collect();
    if runners.iter().all(|runner| matches!(runner.state, State::Failed(_))) {
        return Err(fail(target, runners, report));
    }
    let mut setup = shared_setup(&first.setup, runners.iter().map(|runner| (runner.attempt, &runner.egress)));
    let others = runners.iter().flat_map(|runner| runner.return_interfaces.iter().cloned());
    setup.return_interfaces = distinct(others.filter(|other| !has(&setup.interfaces, other)));
    let mut engine = Engine::open(&setup, port)?;
    runners.iter_mut().for_each(Runner::ask_kernel);
    engine.enter_sandbox()?;
    if let Some(persona) = setup.persona {
        assume::assume(&mut engine, persona)?;
    }
    let next_at = engine.reactor.now();
    let mut race = Race { runners, wait, next_at, report };
    let result = engine.run(&mut race);
    let Race { runners, .. } = race;
    if target.is_choice() {
        report.tried(runners.iter().map(Runner::outcome).chain(target.unusable.iter().cloned()));
    }
    let Some(tuple) = result? else { return Err(fail(target, runners, report)) };
    dismiss_losers(&mut engine, &runners)?;
    Ok((engine, tuple))
}

/// Returns the set-up that serves all attempts on their ways out.
fn shared_setup<'a>(base: &Setup, ways: impl Iterator<Item = (&'a Attempt, &'a Egress)> + Clone) -> Setup {
    let remotes = distinct(ways.clone().map(|(attempt, _)| attempt.remote));
    Setup {
        local: distinct(ways.clone().map(|(_, egress)| egress.source)),
        lease: distinct(ways.clone().flat_map(|(attempt, _)| attempt.setup.lease.iter().copied())),
        // A single peer needs no table.
        flows: if remotes.len() > 1 { remotes.len() } else { 0 },
        remotes,
        interfaces: interfaces(ways.clone().map(|(_, egress)| egress)),
        hears_neighbours: ways.clone().any(|(_, egress)| egress.neighbour() != Neighbour::Fixed),
        ..base.clone()
    }
}

/// Returns the interfaces of several ways out, first that of a link-local source, since the port lease binds such an
/// address at the first one.
fn interfaces<'a>(egresses: impl Iterator<Item = &'a Egress>) -> Vec<Interface> {
    let link_local = |ip| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let mut egresses: Vec<_> = egresses.collect();
    egresses.sort_by_key(|egress| !link_local(egress.source));
    let mut found = Vec::new();
    for egress in egresses {
        if !has(&found, &egress.interface) {
            found.push(egress.interface.clone());
        }
    }
    found
}

fn has(interfaces: &[Interface], wanted: &Interface) -> bool {
    interfaces.iter().any(|interface| interface.index == wanted.index)
}

/// Returns each item once, in order.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.fold(Vec::new(), |mut list, item| {
        if !list.contains(&item) {
            list.push(item);
        }
        list
    })
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

/// Returns the error of a race that no address won: its own for a single one.
fn fail(target: &Target, mut runners: Vec<Runner<'_>>, report: &mut JsonReport) -> Error {
    if !target.is_choice()
        && let Some(Runner { state: State::Failed(error), .. }) = runners.pop()
    {
        return error;
    }
    target.fail(runners.iter().map(Runner::outcome), report)
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
