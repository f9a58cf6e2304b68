//! Connecting: tries each address of the host in turn, until one answers.
use super::attempt::{Attempt, Opened};
use crate::{
    net::FiveTuple,
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
                    let (summary, result) = single::run(&mut engine, tuple, self.policy, command, streams);
                    report.summary(&summary);
                    return Ok(result?);
                }
                Err(error) if error.signal().is_some() => return Err(error),
                Err(error) if last => return Err(error),
                Err(error) => log::info!("{error}; trying the next address"),
            }
        }
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
        report.attempt(self.remote, &self.egress);
        let mut opened = self.open(wait)?;
        report.attempt(self.remote, &opened.origin.egress);
        report.resolved(opened.resolution);
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
        let Opened { engine, origin, .. } = opened;
        let tuple = origin.dial(engine, self.remote);
        report.flow(&tuple);
        log::info!("dialing {} from {}", self.remote, tuple.local);
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
