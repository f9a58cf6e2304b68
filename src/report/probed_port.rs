//! A port of -z: its state as an identifier, as its line on standard output has it, and as JSON.
use super::{Error, Verdict, counters::milliseconds};
use crate::{
    net::{Protocol, zone::ScopedIp},
    session,
};
use serde::Serialize;
use std::{fmt, net::SocketAddr, time::Duration};

/// The state of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Open,
    /// The host itself reports the UDP port as unreachable.
    Closed,
    /// A UDP port that does not answer.
    OpenOrFiltered,
    /// All other failures have their verdict's name.
    #[serde(untagged)]
    Failed(Verdict),
}

/// The result of a probe.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProbedPort {
    address: String,
    port: u16,
    protocol: Protocol,
    state: State,
    verdict: Verdict,
    /// Null for an open port.
    error: Option<String>,
    /// Null without an answer, and where the probe was repeated: no answer tells which one it answers.
    #[serde(rename = "round_trip_ms", serialize_with = "milliseconds")]
    round_trip: Option<Duration>,
    /// The state as the port's line on standard output has it.
    #[serde(skip)]
    words: String,
}

impl ProbedPort {
    /// Returns the result of a probe, whose answer came after `round_trip`.
    pub(crate) fn new(
        at: SocketAddr,
        protocol: Protocol,
        result: Result<(), &Error>,
        round_trip: Option<Duration>,
    ) -> ProbedPort {
        let verdict = result.err().map_or(Verdict::Done, Verdict::from);
        let state = match result {
            Ok(()) => State::Open,
            Err(Error::Session(session::Error::PortUnreachable { .. })) => State::Closed,
            Err(Error::Silent { .. }) => State::OpenOrFiltered,
            Err(_) => State::Failed(verdict),
        };
        ProbedPort {
            address: ScopedIp::from(at).to_string(),
            port: at.port(),
            protocol,
            state,
            verdict,
            error: result.err().map(ToString::to_string),
            round_trip,
            words: match (state, result) {
                (State::Open, _) => "open".to_owned(),
                (State::Closed, _) => "closed".to_owned(),
                (State::OpenOrFiltered, _) => "open|filtered".to_owned(),
                (_, Err(Error::Session(session::Error::Rejected { error, .. }))) => {
                    format!("rejected: {error}")
                }
                (State::Failed(verdict), _) => verdict.to_string(),
            },
        }
    }
}

impl fmt::Display for ProbedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} {}", self.address, self.port, self.protocol, self.words)
    }
}
