//! Connecting: to the address of the host that answers first, and the session there.
use super::{race, target::Target};
use crate::{
    net::FiveTuple,
    report::{Error, JsonReport},
    session::{self, Command, Policy, Prologue, single},
    stack::{Phase, Stack},
    stdio::StreamOptions,
};
use std::time::Duration;

/// A TCP connection to make.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub target: Target,
    /// Longest time of each attempt.
    pub wait: Duration,
    pub policy: Policy,
    /// The PROXY protocol header to send in front of the input.
    pub prologue: Prologue,
    /// Command that the peer gets a process of, instead of standard input and output.
    pub command: Option<Command>,
    pub stream_options: StreamOptions,
}

impl Connect {
    /// Connects, and relays until the session ends.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let streams = super::standard_streams(&self.stream_options, self.command.as_ref())?;
        let (mut engine, tuple) = race::run(&self.target, self.wait, report)?;
        let (summary, result) =
            single::run(&mut engine, tuple, self.prologue, self.policy, self.command.as_ref(), streams);
        report.summary(&summary);
        Ok(result?)
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
