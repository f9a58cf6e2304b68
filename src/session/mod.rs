//! Sessions: one connection, many clients, processes, datagrams, and the rules of their ends.
mod access;
mod conversation;
pub(crate) mod datagrams;
mod end_timers;
mod process;
mod relay;
pub(crate) mod server;
mod shared_input;
pub(crate) mod single;

use crate::{
    net::count,
    runtime,
    stack::{
        FlowFailure,
        icmp::{IcmpError, Reason},
    },
    stdio,
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub(crate) use access::Access;
pub(crate) use process::Command;
pub use relay::{FlowStatus, Outcome, Policy, Relay, Step};
pub(crate) use single::Summary;

/// The reason why a session failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}: refused: the peer answered with a reset (RST)")]
    Refused(SocketAddr),
    #[error("{target}: refused: {from} says that the port is unreachable (ICMP)")]
    PortUnreachable { target: SocketAddr, from: IpAddr },
    #[error("{target}: rejected: {error}")]
    Rejected { target: SocketAddr, error: Box<IcmpError> },
    #[error("{target}: dropped by this host's own egress: {} met ENOBUFS or an interface that is down; look for a tc or nft egress rule or a full queue on {interface}", count(*.datagrams, "datagram"))]
    DatagramsDropped { target: SocketAddr, datagrams: u64, interface: String },
    #[error("{0}: connection reset by peer")]
    Reset(SocketAddr),
    #[error("{0}: reset, since it held up the other clients for too long")]
    HeldUp(SocketAddr),
    #[error("{0}: the peer has stopped answering: nothing acknowledged within the user timeout")]
    Vanished(SocketAddr),
    #[error("{target}: interface {interface}, which led there, disappeared")]
    InterfaceGone { target: SocketAddr, interface: String },
    #[error("no client connected within {} s", .0.as_secs_f64())]
    NoClient(Duration),
    #[error("{target}: exited with {} unacknowledged", count(*.bytes as u64, "byte"))]
    Undelivered { target: SocketAddr, bytes: usize },
    #[error("{target}: nothing came or went for {} s", after.as_secs_f64())]
    Idle { target: SocketAddr, after: Duration },
    #[error("cannot run \"{command}\": {error}")]
    Exec { command: String, error: io::Error },
    #[error(transparent)]
    Stdio(#[from] stdio::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

impl Error {
    /// Returns the error of a flow's failure.
    pub fn of(target: SocketAddr, failure: &FlowFailure) -> Error {
        match failure {
            FlowFailure::Refused => Error::Refused(target),
            FlowFailure::Reset => Error::Reset(target),
            FlowFailure::Rejected(error) => Error::Rejected { target, error: Box::new(*error) },
            FlowFailure::Vanished => Error::Vanished(target),
            FlowFailure::InterfaceGone(name) => Error::InterfaceGone { target, interface: name.clone() },
        }
    }

    /// Returns the error of an ICMP error about a datagram.
    pub fn of_icmp(error: IcmpError) -> Error {
        match error.reason {
            Reason::PortUnreachable => Error::PortUnreachable { target: error.remote, from: error.from },
            _ => Error::Rejected { target: error.remote, error: Box::new(error) },
        }
    }
}
