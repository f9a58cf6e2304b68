//! The ground that every command with a network stack runs on: opening in order, the port, the way out,
//! host events, and the event loop.
pub(crate) mod assume;
pub(crate) mod children;
pub(crate) mod egress;
mod engine;
mod event_loop;
mod ingress;
pub(crate) mod leak;
mod local_end;
mod many_ends;
pub(crate) mod memory_budget;
mod nat;
mod port;
pub(crate) mod reactor;
mod reverse_path;
pub(crate) mod wire;
mod zones;

use crate::{
    host::{
        conntrack, interface::InterfaceError, neighbour::NeighbourError, netlink::NetlinkError,
        rules::Translation,
    },
    kernel::KernelError,
    link::LinkError,
    net::{MacAddr, Protocol, zone::ScopedIp},
    process::{capability::CapabilityError, sandbox::SandboxError},
    sniffer::{filter::FilterError, sink::SinkError},
};
use nix::sys::signal::Signal;
use std::{io, net::SocketAddr, time::Duration};

pub(crate) use egress::{Egress, EgressError, EgressRequest, NextHopAddress};
pub(crate) use engine::{Engine, Groups, Setup, unpredictable};
pub(crate) use event_loop::{Task, Turn};
pub(crate) use local_end::{Egresses, LocalEnd, SharedEnd};
pub(crate) use many_ends::{ManyEnds, Way, Ways};
pub(crate) use port::Port;

/// The reason why a run cannot begin, or has to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The reactor's system calls failed.
    #[error("cannot wait for events: {0}")]
    Reactor(io::Error),
    /// A signal ended the run.
    #[error("ended by {0}")]
    Interrupted(Signal),
    /// conntrack has a connection whose packets look like ours.
    #[error(
        "{protocol} port {port}: this host translates a connection of others to it: {connection}; its packets could not \
         be told from netkat's: choose another port"
    )]
    Masqueraded {
        /// Our protocol.
        protocol: Protocol,
        /// Our port.
        port: u16,
        /// The connection of others.
        connection: Box<conntrack::Connection>,
    },
    /// A rule gives packets for our port another destination.
    #[error(
        "port {} of {} {} translated before it reaches this host's sockets: {rule}. Its clients would get netkat \
         instead; choose another port",
        at.port(), at.ip(), if rule.certain { "is" } else { "may be" }
    )]
    Translated {
        /// Our address and port.
        at: SocketAddr,
        /// The rule.
        rule: Box<Translation>,
    },
    /// Packets cannot pass by the programs at egress of a loopback device.
    #[error(
        "--past-egress: packets to this host itself need a program at egress of {0}; name another interface with -i, or \
         leave the flag out"
    )]
    PastEgressOnLoopback(String),
    /// Another host on the segment has the address to assume.
    #[error("{address} is in use by {mac}")]
    AddressInUse {
        /// The address.
        address: ScopedIp,
        /// The other host's link address.
        mac: MacAddr,
    },
    /// The next hop of an assumed address did not answer.
    #[error("no neighbour: {address} answered no question for its link address in {} s", waited.as_secs_f64())]
    NoNeighbour {
        /// The next hop.
        address: ScopedIp,
        /// Time that netkat waited for an answer.
        waited: Duration,
    },
    /// Changes of this host cannot be followed.
    #[error("cannot watch this host's interfaces and neighbours: {0}")]
    Monitor(#[from] NetlinkError),
    /// Packets to the peer have no egress interface or next hop.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The kernel refused programs, attachments or the port.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The socket filter could not be made.
    #[error("cannot filter packets: {0}")]
    CaptureFilter(#[from] FilterError),
    /// The packet socket failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A capability is missing.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Frames could not be shown or recorded.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// An interface could not be read.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The next hop has no link address.
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
}
