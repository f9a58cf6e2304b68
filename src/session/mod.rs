//! Sessions: one connection, many clients, processes, datagrams, and the rules of their ends.
mod access;
mod conversation;
pub(crate) mod datagrams;
mod end_timers;
mod process;
mod prologue;
mod relay;
pub(crate) mod server;
mod shared_input;
pub(crate) mod single;

use crate::{
    net::{
        count,
        zone::{ScopedIp, endpoint, zone_of},
    },
    proxy_protocol::HeaderError,
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

pub(crate) use access::{Access, Network};
pub(crate) use process::Command;
pub(crate) use prologue::Prologue;
pub use relay::{FlowStatus, Policy, Relay};
pub(crate) use single::{PathSize, Summary};

/// The reason why a session failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: refused: the peer answered with a reset (RST)", endpoint(.0))]
    Refused(SocketAddr),
    #[error(
        "{}: refused: {} says that the port is unreachable (ICMP)",
        endpoint(.target),
        ScopedIp::new(*from, zone_of(target).unwrap_or_default())
    )]
    PortUnreachable { target: SocketAddr, from: IpAddr },
    #[error("{}: rejected: {error}", endpoint(.target))]
    Rejected { target: SocketAddr, error: Box<IcmpError> },
    #[error("{}: dropped by this host's own egress: {} met ENOBUFS or an interface that is down; look for a tc or nft egress rule or a full queue on {interface}", endpoint(.target), count(*.datagrams, "datagram"))]
    DatagramsDropped { target: SocketAddr, datagrams: u64, interface: String },
    #[error("{}: connection reset by peer", endpoint(.0))]
    Reset(SocketAddr),
    #[error("{}: reset, since it held up the other clients for too long", endpoint(.0))]
    HeldUp(SocketAddr),
    #[error("{}: the peer has stopped answering: nothing acknowledged within the user timeout", endpoint(.0))]
    Vanished(SocketAddr),
    #[error("{}: interface {interface}, which led there, disappeared", endpoint(.target))]
    InterfaceGone { target: SocketAddr, interface: String },
    #[error("no client connected within {} s", .0.as_secs_f64())]
    NoClient(Duration),
    #[error("{}: exited with {} unacknowledged", endpoint(.target), count(*.bytes as u64, "byte"))]
    Undelivered { target: SocketAddr, bytes: usize },
    #[error("{}: nothing came or went for {} s", endpoint(.target), after.as_secs_f64())]
    Idle { target: SocketAddr, after: Duration },
    #[error("{}: {error}", endpoint(.target))]
    ProxyHeader { target: SocketAddr, error: HeaderError },
    #[error("{}: the connection ended before its PROXY protocol header was complete, after {}", endpoint(.target), count(*.bytes as u64, "byte"))]
    PartialProxyHeader { target: SocketAddr, bytes: usize },
    #[error("{}: no PROXY protocol header within {} s, but {} of one", endpoint(.target), waited.as_secs_f64(), count(*.bytes as u64, "byte"))]
    NoProxyHeader { target: SocketAddr, bytes: usize, waited: Duration },
    #[error("cannot run \"{command}\": {error}")]
    Exec { command: String, error: io::Error },
    #[error(transparent)]
    Stdio(#[from] stdio::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

impl Error {
    /// Returns the error of a flow's failure.
    pub(crate) fn of(target: SocketAddr, failure: &FlowFailure) -> Error {
        match failure {
            FlowFailure::Refused => Error::Refused(target),
            FlowFailure::Reset => Error::Reset(target),
            FlowFailure::Rejected(error) => Error::Rejected { target, error: Box::new(*error) },
            FlowFailure::Vanished => Error::Vanished(target),
            FlowFailure::InterfaceGone(name) => Error::InterfaceGone { target, interface: name.clone() },
        }
    }

    /// Returns the error of an ICMP error about a datagram.
    pub(crate) fn of_icmp(error: IcmpError) -> Error {
        match error.reason {
            Reason::PortUnreachable => Error::PortUnreachable { target: error.remote, from: error.from },
            _ => Error::Rejected { target: error.remote, error: Box::new(error) },
        }
    }
}
