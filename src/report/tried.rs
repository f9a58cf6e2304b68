//! The addresses of a host that a client has tried.
use super::{Failure, Verdict};
use serde::Serialize;
use std::net::SocketAddr;

/// The outcome of one address.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tried {
    #[serde(serialize_with = "super::json_report::endpoint")]
    pub remote: SocketAddr,
    /// Null for an address that was not decided when another won.
    pub verdict: Option<Verdict>,
    pub error: Option<String>,
}

impl Tried {
    /// Returns the record of the address that was connected to.
    pub(crate) fn won(remote: SocketAddr) -> Tried {
        Tried { remote, verdict: Some(Verdict::Done), error: None }
    }

    /// Returns the record of an address that could not be connected to.
    pub(crate) fn failed(remote: SocketAddr, failure: &Failure) -> Tried {
        Tried { remote, verdict: Some(failure.verdict), error: Some(failure.message.clone()) }
    }

    /// Returns the record of an address that was not tried to the end.
    pub(crate) fn undecided(remote: SocketAddr) -> Tried {
        Tried { remote, verdict: None, error: None }
    }
}
