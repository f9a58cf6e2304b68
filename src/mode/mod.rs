//! What netkat can do, a file each: every one reads like its section of the manual.
mod access;
mod broadcast;
mod connect;
mod conversation;
mod datagram;
mod dialogue;
mod disguise;
mod doorkeeper;
mod egress;
mod engine;
mod exec;
mod hint;
mod line_end;
mod line_pace;
mod listen;
mod report;
mod scan;
mod serve;
mod session;
mod sniff;
mod transcript;
mod verdict;
mod way_back;

use crate::{
    host::{
        capability::CapabilityError, interface::InterfaceError, neighbour::NeighbourError,
        netlink::NetlinkError, sandbox::SandboxError,
    },
    kernel::KernelError,
    link::LinkError,
    net::MacAddr,
    sniffer::sink::SinkError,
    stack::{Failure, icmp::IcmpError},
};
use nix::sys::signal::Signal;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use crate::relay::Policy;
pub use access::Access;
pub use connect::{Attempt, Connect};
pub use datagram::{DatagramConnect, DatagramListen};
pub use egress::{Egress, EgressError, Hop, Wish};
pub use engine::Setup;
pub use exec::{Command, CommandError};
pub use hint::Hint;
pub use listen::Listen;
pub use report::Report;
pub use scan::{PROBE_BUFFER, Scan};
pub use sniff::{Sniff, Source};
pub use transcript::Recording;
pub use verdict::Verdict;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{target}: timed out: no answer to {} in {}{}", count(*.syns, "SYN"), seconds(*.waited), hint::behind(*.hint))]
    TimedOut { target: SocketAddr, syns: u64, waited: Duration, hint: Option<Hint> },
    #[error("{0}: refused: the peer answered with a reset (RST)")]
    Refused(SocketAddr),
    #[error("{target}: refused: {from} says that the port is unreachable (ICMP)")]
    PortUnreachable { target: SocketAddr, from: IpAddr },
    #[error("{target}: rejected: {error}")]
    Rejected { target: SocketAddr, error: Box<IcmpError> },
    #[error("{target}: dropped by this host's own egress: {} met ENOBUFS; look for a tc or nft egress rule or a full queue on {interface}", count(*.syns, "SYN"))]
    EgressDropped { target: SocketAddr, syns: u64, interface: String },
    #[error("{target}: dropped by this host's own egress: {} met ENOBUFS or an interface that is down; look for a tc or nft egress rule or a full queue on {interface}", count(*.datagrams, "datagram"))]
    DatagramsDropped { target: SocketAddr, datagrams: u64, interface: String },
    #[error("{0}: connection reset by peer")]
    Reset(SocketAddr),
    #[error("{0}: reset, since it has held up the other clients for too long")]
    HeldUp(SocketAddr),
    #[error("{0}: the peer has stopped answering: nothing acknowledged within the user timeout")]
    Vanished(SocketAddr),
    #[error("{target}: interface {interface}, which led there, disappeared")]
    InterfaceGone { target: SocketAddr, interface: String },
    #[error("{target}: open or filtered: no answer to {} in {}", count(*.datagrams, "empty datagram"), seconds(*.waited))]
    Silent { target: SocketAddr, datagrams: u64, waited: Duration },
    #[error("{address}: none of {ports} ports is known to be open")]
    NothingOpen { address: IpAddr, ports: usize, verdict: Verdict },
    #[error("nobody connected in {}", seconds(*.0))]
    NobodyCame(Duration),
    #[error("{target}: left with {} unacknowledged", count(*.bytes as u64, "byte"))]
    Undelivered { target: SocketAddr, bytes: usize },
    #[error("{target}: nothing came or went for {}", seconds(*.after))]
    Idle { target: SocketAddr, after: Duration },
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot read the packet socket's statistics: {0}")]
    Statistics(io::Error),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("cannot write to {}: {error}", path.display())]
    Record { path: PathBuf, error: io::Error },
    #[error("cannot wait for events: {0}")]
    Reactor(io::Error),
    #[error("cannot run \"{command}\": {error}")]
    Exec { command: String, error: io::Error },
    #[error("ended by {0}")]
    Interrupted(Signal),
    #[error("cannot write the report to {to}: {error}")]
    Report { to: String, error: io::Error },
    #[error("{address} is in use by {mac}: name another address with --as")]
    AddressInUse { address: IpAddr, mac: MacAddr },
    #[error("no neighbour: {address} answered no question for its link address in {}", seconds(*.waited))]
    NoNeighbour { address: IpAddr, waited: Duration },
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
    #[error("cannot watch this host's interfaces and neighbours: {0}")]
    Watch(#[from] NetlinkError),
}

impl Error {
    /// What a flow's failure means for the user.
    fn of(target: SocketAddr, failure: &Failure) -> Error {
        match failure {
            Failure::Refused => Error::Refused(target),
            Failure::Reset => Error::Reset(target),
            Failure::Rejected(error) => Error::Rejected { target, error: Box::new(*error) },
            Failure::Vanished => Error::Vanished(target),
            Failure::InterfaceGone(name) => Error::InterfaceGone { target, interface: name.clone() },
        }
    }
}

/// "1 SYN", "3 SYNs".
fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// "5 s", "0.25 s".
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}
