//! The request of a run, as its JSON objects repeat it.
use crate::net::{Protocol, zone::ScopedIp};
use serde::{Serialize, Serializer};
use std::net::SocketAddr;

/// The kind of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    Connect,
    Listen,
    Scan,
    Run,
    Compare,
    Trace,
    Mtu,
    Ping,
}

/// The request of a run. A field that the run does not have is left out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    pub mode: Mode,
    /// The host as typed: of a listener, the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The address of the host that was tried last; the winner's, if one was connected to.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "scoped")]
    pub address: Option<SocketAddr>,
    /// The port, if it is a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The ports of -z and --ping as typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The command of --run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Writes an address without its port, with the name of the zone.
fn scoped<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.map(|address| ScopedIp::from(address).to_string()).serialize(serializer)
}
