//! What every command that speaks runs on: the packet socket with its guards, the stack, the clock and the wait.
pub(crate) mod assume;
pub(crate) mod children;
mod doorkeeper;
pub(crate) mod egress;
mod engine;
mod event_loop;
mod masqueraded;
pub(crate) mod memory;
mod port;
pub(crate) mod reactor;
mod translated;
mod way_back;

use crate::{
    host::{
        conntrack, interface::InterfaceError, neighbour::NeighbourError, netlink::NetlinkError,
        rules::Translation,
    },
    kernel::KernelError,
    link::LinkError,
    net::{MacAddr, Protocol},
    process::{capability::CapabilityError, sandbox::SandboxError},
    sniffer::sink::SinkError,
};
use nix::sys::signal::Signal;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use egress::{Egress, EgressError, Hop, Wish};
pub use engine::{Engine, Setup};
pub use event_loop::{Task, Turn};
pub use port::Port;

/// Why nothing can be sent or received, or why it had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot wait for events: {0}")]
    Reactor(io::Error),
    #[error("ended by {0}")]
    Interrupted(Signal),
    #[error(
        "{protocol} port {port}: this host translates a connection of others to it: {connection}; its packets could not \
         be told from netkat's: choose another port"
    )]
    Masqueraded { protocol: Protocol, port: u16, connection: Box<conntrack::Connection> },
    #[error(
        "port {} of {} {} translated before it reaches this host's sockets: {rule}. Its clients would get netkat \
         instead; choose another port, or take it with --force",
        at.port(), at.ip(), if rule.certain { "is" } else { "may be" }
    )]
    Translated { at: SocketAddr, rule: Box<Translation> },
    #[error("{address} is in use by {mac}: name another address with --as")]
    AddressInUse { address: IpAddr, mac: MacAddr },
    #[error("no neighbour: {address} answered no question for its link address in {} s", waited.as_secs_f64())]
    NoNeighbour { address: IpAddr, waited: Duration },
    #[error("cannot watch this host's interfaces and neighbours: {0}")]
    Watch(#[from] NetlinkError),
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
    Sink(#[from] SinkError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
}
