//! The error of a command: what it finds out itself, and the errors of the rooms below.
use super::{Hint, Verdict};
use crate::{
    gateway,
    host::interface::InterfaceError,
    kernel::KernelError,
    link::LinkError,
    net::{count, zone::endpoint},
    process::{capability::CapabilityError, sandbox::SandboxError},
    runtime, session,
    sniffer::{filter::FilterError, sink::SinkError},
    stack::Discards,
    stdio,
};
use nix::sys::signal::Signal;
use std::{fmt, io, net::SocketAddr, time::Duration};

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{}: timed out: no {}answer to {} in {} s{}{}",
        endpoint(target),
        if discards.is_some() { "valid " } else { "" },
        count(*.syns, "SYN"),
        waited.as_secs_f64(),
        behind(*.discards),
        behind(hint.as_ref().map(|hint| format!("hint: {hint}"))),
    )]
    TimedOut {
        target: SocketAddr,
        syns: u64,
        waited: Duration,
        discards: Option<Discards>,
        hint: Option<Hint>,
    },
    #[error("{}: dropped by this host's own egress: {} met ENOBUFS; look for a tc or nft egress rule or a full queue on {interface}", endpoint(target), count(*.syns, "SYN"))]
    EgressDropped { target: SocketAddr, syns: u64, interface: String },
    #[error(
        "{}: open or filtered: no {}answer to {} in {} s{}",
        endpoint(target),
        if *invalid > 0 { "valid " } else { "" },
        count(*.datagrams, probe),
        waited.as_secs_f64(),
        behind((*invalid > 0).then(|| format!("{} with a wrong checksum or length came", count(*invalid, "datagram")))),
    )]
    Silent { target: SocketAddr, probe: &'static str, datagrams: u64, waited: Duration, invalid: u64 },
    #[error("{hosts}: none of {ports} ports is known to be open")]
    NothingOpen { hosts: String, ports: usize, verdict: Verdict },
    /// An address or a port that nothing can be sent to, as an error of its own tells.
    #[error("{text}")]
    Unusable { text: String, verdict: Verdict },
    #[error("{hosts}: {ports} of {of} ports {} not {wanted} within the time", if *ports == 1 { "is" } else { "are" })]
    NotAsWanted { hosts: String, ports: usize, of: usize, wanted: &'static str, verdict: Verdict },
    #[error("{host}: none of its {addresses} addresses can be connected to: {kinds}")]
    NoneReached { host: String, addresses: usize, kinds: String, verdict: Verdict },
    #[error("cannot read the packet socket's statistics: {0}")]
    Statistics(io::Error),
    #[error("cannot write the report to {to}: {error}")]
    Report { to: String, error: io::Error },
    #[error("cannot {operation}: {error}")]
    Compare { operation: &'static str, error: io::Error },
    #[error("cannot {operation}: {error}")]
    Ping { operation: &'static str, error: io::Error },
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Session(#[from] session::Error),
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Stdio(#[from] stdio::Error),
}

impl Error {
    /// Returns the signal that ended the run, if one did.
    pub(crate) fn signal(&self) -> Option<Signal> {
        match self {
            Error::Runtime(runtime::Error::Interrupted(signal))
            | Error::Session(session::Error::Runtime(runtime::Error::Interrupted(signal))) => Some(*signal),
            _ => None,
        }
    }
}

/// Converts errors of the rooms below runtime, which commands also use directly.
macro_rules! through_runtime {
    ($($error:ty),*) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Error {
                runtime::Error::from(error).into()
            }
        }
    )*};
}
through_runtime!(KernelError, LinkError, CapabilityError, SandboxError, InterfaceError, SinkError);

/// Returns further words as the end of an error's message.
fn behind(words: Option<impl fmt::Display>) -> String {
    words.map_or_else(String::new, |words| format!("; {words}"))
}
