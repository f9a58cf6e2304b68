//! A port of -z: its state as an identifier, as its line on standard output has it, and as JSON.
use super::{Error, Verdict, counters::milliseconds};
use crate::{net::Protocol, session};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, rc::Rc, time::Duration};

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

/// The wait for a port's state.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Waited {
    /// From the first probe to the last answer.
    #[serde(rename = "waited_ms", serialize_with = "duration")]
    pub time: Duration,
    /// Number of probes.
    pub probes: u64,
    /// Number of probes with each other state before.
    pub before: BTreeMap<Verdict, u64>,
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " after {:.1} s", self.time.as_secs_f64())?;
        let before: Vec<_> = self
            .before
            .iter()
            .map(|(verdict, count)| match verdict {
                Verdict::Done => format!("open {count} times"),
                verdict => format!("{verdict} {count} times"),
            })
            .collect();
        if before.is_empty() { Ok(()) } else { write!(f, " ({})", before.join(", ")) }
    }
}

fn duration<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds(&Some(*time), serializer)
}

/// The name of a host, which its ports share.
#[derive(Clone, Debug)]
struct Host(Rc<str>);

impl Serialize for Host {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The result of a probe.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProbedPort {
    /// The name of a host without an address.
    address: String,
    port: u16,
    /// The name as typed; left out where the address was.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
    protocol: Protocol,
    state: State,
    verdict: Verdict,
    /// Null for an open port.
    error: Option<String>,
    /// Null without an answer, and where the probe was repeated: no answer tells which one it answers.
    #[serde(rename = "round_trip_ms", serialize_with = "milliseconds")]
    round_trip: Option<Duration>,
    /// Left out where nothing was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<Waited>,
    /// The state as the port's line on standard output has it.
    #[serde(skip)]
    words: String,
}

impl ProbedPort {
    /// Returns the result of a probe, whose answer came after `round_trip`.
    pub(crate) fn new(
        (address, port): (String, u16),
        host: Option<Rc<str>>,
        protocol: Protocol,
        result: Result<(), &Error>,
        round_trip: Option<Duration>,
        waited: Option<Waited>,
    ) -> ProbedPort {
        let verdict = result.err().map_or(Verdict::Done, Verdict::from);
        let state = match result {
            Ok(()) => State::Open,
            Err(Error::Session(session::Error::PortUnreachable { .. })) => State::Closed,
            Err(Error::Silent { .. }) => State::OpenOrFiltered,
            Err(_) => State::Failed(verdict),
        };
        ProbedPort {
            address,
            port,
            host: host.map(Host),
            protocol,
            state,
            verdict,
            error: result.err().map(ToString::to_string),
            round_trip,
            waited,
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

impl ProbedPort {
    /// Returns the port's state as a sentence.
    pub(crate) fn sentence(&self) -> String {
        format!("{} {}/{} is {}", self.address, self.port, self.protocol, self.words)
    }
}

impl fmt::Display for ProbedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} {}", self.address, self.port, self.protocol, self.words)?;
        if let Some(time) = self.round_trip {
            write!(f, " ({:.3} ms)", time.as_secs_f64() * 1e3)?;
        }
        self.waited.as_ref().map_or(Ok(()), |waited| waited.fmt(f))
    }
}
