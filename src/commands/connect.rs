//! Connecting: tries each address of the host in turn, until one answers.
use super::attempt::{self, Attempt, Opened};
use crate::{
    net::{FiveTuple, zone::endpoint},
    report::{Error, JsonReport},
    runtime::Engine,
    session::{self, Command, Policy, single},
    stack::{Flow, Phase, Stack},
    stdio::StreamOptions,
};
use std::time::Duration;

/// A TCP connection to make.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    /// The addresses to try, at least one.
    pub attempts: Vec<Attempt>,
    /// Longest time of each attempt.
    pub wait: Duration,
    pub policy: Policy,
    /// Command that the peer gets a process of, instead of standard input and output.
    pub command: Option<Command>,
    pub stream_options: StreamOptions,
}

impl Connect {
    /// Connects, and relays until the session ends.
    pub fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let streams = super::standard_streams(&self.stream_options, self.command.as_ref())?;
        let established = attempt::first(&self.attempts, |attempt, last| {
            let (engine, tuple) = attempt.establish(self.wait, last, report)?;
            Ok((engine, tuple, last))
        });
        let Some((mut engine, tuple, last)) = established? else { return Ok(()) };
        if !last {
            engine.enter_sandbox()?;
        }
        let command = self.command.as_ref();
        let (summary, result) = single::run(&mut engine, tuple, self.policy, command, streams);
        report.summary(&summary);
        Ok(result?)
    }
}

impl Attempt {
    /// Opens everything and completes the handshake. The `last` attempt gives up all privileges before its
    /// SYN.
    fn establish(
        &self,
        wait: Duration,
        last: bool,
        report: &mut JsonReport,
    ) -> Result<(Engine, FiveTuple), Error> {
        let mut opened = self.open(&[self.remote.port()], wait, report)?;
        if last {
            opened.engine.enter_sandbox()?;
        }
        let tuple = self.dial(&mut opened, wait, report)?;
        Ok((opened.engine, tuple))
    }

    /// Completes the handshake.
    pub(super) fn dial(
        &self,
        opened: &mut Opened,
        wait: Duration,
        report: &mut JsonReport,
    ) -> Result<FiveTuple, Error> {
        let start = opened.engine.reactor.now();
        let Opened { engine, origin } = opened;
        let tuple = origin.dial(engine, self.remote.port());
        report.flow(&tuple);
        log::info!("dialing {} from {}", endpoint(&tuple.remote), endpoint(&tuple.local));
        let ended = engine.run_until(Some(start + wait), |stack| answer(stack, &tuple))?;
        report.discarded(engine.stack.peek(&tuple).and_then(Flow::discards));
        ended.unwrap_or_else(|| Err(origin.silence(&engine.stack, &tuple, wait)))?;
        let time = engine.reactor.now() - start;
        report.connected(time);
        log::info!("established {tuple} after {:.1} ms", time.as_secs_f64() * 1e3);
        Ok(tuple)
    }
}

/// Returns how the handshake ended; `None` while it is under way.
pub(super) fn answer(stack: &Stack, tuple: &FiveTuple) -> Option<Result<(), Error>> {
    let Some(flow) = stack.peek(tuple) else {
        return Some(Err(session::Error::Refused(tuple.remote).into()));
    };
    match flow.failure() {
        Some(failure) => Some(Err(session::Error::of(tuple.remote, failure).into())),
        // Within one turn a peer may send everything and close.
        None => (flow.was_established() || flow.phase() != Phase::Opening).then_some(Ok(())),
    }
}
