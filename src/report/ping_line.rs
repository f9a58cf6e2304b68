//! A ping: its line on standard output, and its object (docs/schema/probe.json).
use super::{
    Verdict,
    counters::{in_milliseconds, milliseconds},
};
use crate::{
    net::{Protocol, zone::ScopedIp},
    path::{Pinged, Reached},
};
use serde::Serialize;
use std::{fmt, net::SocketAddr, time::Duration};

/// The path of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PingPath {
    Netkat,
    Kernel,
}

/// The result of a ping.
#[derive(Debug, Serialize)]
pub(crate) struct PingLine {
    address: String,
    port: u16,
    protocol: Protocol,
    path: PingPath,
    /// From 1 on.
    number: u64,
    state: &'static str,
    verdict: Verdict,
    /// The answer as an identifier; of a rejection, its ICMP error in words. Null without one.
    answer: Option<String>,
    /// Who rejected it.
    from: Option<String>,
    #[serde(rename = "round_trip_ms", serialize_with = "milliseconds")]
    round_trip: Option<Duration>,
    /// The state for people.
    #[serde(skip)]
    words: String,
}

impl PingLine {
    /// Returns the result of a ping in its printable forms.
    pub(crate) fn new(
        remote: SocketAddr,
        protocol: Protocol,
        path: PingPath,
        number: u64,
        pinged: &Pinged,
        round_trip: Option<Duration>,
    ) -> PingLine {
        let (state, verdict) = state(pinged);
        let (answer, from, words) = match pinged {
            Pinged::Rejected { reason, from } => {
                let from = ScopedIp::from(SocketAddr::new(*from, 0)).to_string();
                let words = format!("rejected by {from}: {reason}");
                (Some(reason.to_string()), Some(from), words)
            }
            Pinged::Reached(by) => (Some(by.words().0.to_owned()), None, state.to_owned()),
            Pinged::Silent => (None, None, "no answer".to_owned()),
            Pinged::EgressDropped => (None, None, "dropped by this host's own egress".to_owned()),
            Pinged::Failed(error) => (Some((*error).to_owned()), None, format!("failed: {error}")),
        };
        PingLine {
            address: ScopedIp::from(remote).to_string(),
            port: remote.port(),
            protocol,
            path,
            number,
            state,
            verdict,
            answer,
            from,
            round_trip: round_trip.filter(|_| pinged.is_answer()),
            words,
        }
    }
}

impl fmt::Display for PingLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = if self.path == PingPath::Kernel { "kernel " } else { "" };
        let PingLine { address, port, protocol, number, words, .. } = self;
        write!(f, "{address} {port}/{protocol} #{number} {kernel}{words}")?;
        match self.round_trip {
            Some(time) => write!(f, " {:.3} ms", in_milliseconds(time)),
            None => Ok(()),
        }
    }
}

/// Returns the state's identifier, as of a port of -z, and the verdict.
pub(super) fn state(pinged: &Pinged) -> (&'static str, Verdict) {
    match pinged {
        pinged if pinged.is_open() => ("open", Verdict::Done),
        Pinged::Reached(Reached::PortUnreachable) => ("closed", Verdict::Refused),
        Pinged::Reached(_) => ("refused", Verdict::Refused),
        Pinged::Rejected { .. } => ("rejected", Verdict::Rejected),
        Pinged::Silent => ("timed_out", Verdict::TimedOut),
        Pinged::EgressDropped => ("egress_dropped", Verdict::EgressDropped),
        Pinged::Failed(_) => ("failed", Verdict::Failed),
    }
}
