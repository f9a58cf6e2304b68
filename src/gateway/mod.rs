//! The gateway of a command's network namespace (`--run`): it moves IP packets between the command's device and
//! the packet socket on the host's interfaces, super-frames whole, and keeps all others out.
//!
//! ```text
//! out  command -> its kernel's TCP -> device -> door (own address, known or new flow) -> next hop -> wire
//! in   wire -> packet socket (flow table, before tc and netfilter) -> device -> its kernel's TCP -> command
//! ```
//!
//! A flow's first packet makes the gateway hold the port on the host and enter the flow into the table that the
//! capture program and the guard look into. The gateway changes no byte of a packet, and its TTL as little.
mod assume;
mod event_loop;
mod fast_flows;
mod flows;
mod next_hops;
mod opening;
mod packet;
mod ports;
mod refusal;
mod relay;

use crate::{
    host::{
        features::FeatureOverrides,
        interface::Interface,
        monitor::Monitor,
        netlink::{Netlink, NetlinkError},
        rules,
    },
    kernel::{self, Backend, Guard, KernelError, PortHold, Programs, SilentSockets},
    link::{LinkError, PacketSocket, SocketFilter},
    namespace::{self, Namespace, NamespaceSpec},
    neighbour::LocalAddress,
    net::Protocol,
    process::{
        capability::{self, Capability},
        sandbox::Sandbox,
    },
    runtime::{
        self, NextHopAddress,
        leak::Leak,
        wire::{self, WireOptions},
    },
    sniffer::SharedSink,
};
use fast_flows::FastFlows;
use flows::{Flows, Published};
use netlink_packet_sock_diag::SockDiagMessage;
use next_hops::NextHops;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use opening::Opened;
use relay::Relay;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

pub(crate) use flows::{Flow, Traffic};
pub(crate) use ports::ephemeral_ports;

/// Receive buffers of both packet sockets, in bytes. The command's bounds how far its packets may run ahead of
/// the wire: at 1 Gbit/s some 30 ms.
const WIRE_BUFFER: usize = 32 << 20;
pub(crate) const DEVICE_BUFFER: usize = 4 << 20;

/// TCP ports that are held by sockets which answer nothing, whatever reaches the kernel; further ones depend on
/// the guard.
const SILENT_SOCKETS: usize = 512;

/// Signals that netkat passes on to the command.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// The reason why a command's gateway cannot be opened, or has to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    #[error("cannot publish {protocol} port {port}: {reason}")]
    Publish { protocol: Protocol, port: u16, reason: String },
    #[error("cannot {step}: {source}")]
    System {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot list the command's sockets: {0}")]
    Sockets(NetlinkError),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

impl From<LinkError> for Error {
    fn from(error: LinkError) -> Error {
        runtime::Error::from(error).into()
    }
}

/// The parameters of a gateway.
#[derive(Clone, Debug)]
pub(crate) struct GatewaySetup {
    pub namespace: NamespaceSpec,
    /// The command's addresses.
    pub addresses: Vec<IpAddr>,
    /// The interfaces that carry its packets, at least one.
    pub interfaces: Vec<Interface>,
    /// The only interface, if the user named it.
    pub bound: Option<u32>,
    pub via: Option<NextHopAddress>,
    pub assumed: Option<LocalAddress>,
    pub published: Vec<(Protocol, u16)>,
    /// Longest wait for acknowledgments after the command's end.
    pub user_timeout: Duration,
    /// Let the kernel forward the packets of flows that netkat has let pass.
    pub fast_path: bool,
    /// Keep ended flows for a report.
    pub report_flows: bool,
    pub backend: Backend,
    pub overrides: FeatureOverrides,
    pub vnet_header: bool,
    pub segmentation: bool,
    pub sink: SharedSink,
    pub sandbox: Sandbox,
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The command's status, a shell's for a signal.
    pub status: u8,
    pub flows: u64,
    /// Ports held, and ports that the command could not have.
    pub ports: u64,
    pub refused: u64,
    pub sent: Traffic,
    pub received: Traffic,
    /// The part of both that took the fast path.
    pub fast: Traffic,
    /// Packets that the guard dropped for the host's kernel, or sent on by the fast path.
    pub kept: u64,
    /// Packets of the command's that were none of a flow's.
    pub foreign: u64,
    /// Packets from the command, and from the wire, that found a receive buffer full.
    pub lost: [u32; 2],
    /// The flows, if they were to be reported.
    pub reported: Vec<Flow>,
}

/// An open gateway. The fields stand in the order of teardown: the namespace first, whose end lets no more
/// packets come.
pub(crate) struct Gateway {
    namespace: Namespace,
    device: PacketSocket,
    sockets: Netlink<SockDiagMessage>,
    relay: Relay,
    _guards: Vec<Guard>,
    programs: Programs,
    signals: SignalFd,
    started: Instant,
    user_timeout: Duration,
    swept: Duration,
    checked: Duration,
    leak: Leak,
    /// The last signal that may end the run, and its time.
    signalled: Option<(Signal, Duration)>,
    wire_gone: bool,
    /// No process is left in the namespace, and its control socket says so for ever.
    deserted: bool,
}

impl Gateway {
    /// Opens everything, starts the command, and gives up all privileges.
    ///
    /// # Errors
    /// Those of each part; what was open by then is closed.
    pub(crate) fn open(setup: &GatewaySetup) -> Result<Gateway, Error> {
        for (capability, purpose) in [
            (Capability::NetRaw, "open a packet socket"),
            (Capability::NetAdmin, "attach the ingress guard"),
            (Capability::Bpf, "load its eBPF programs"),
        ] {
            capability::require(capability, purpose).map_err(runtime::Error::from)?;
        }
        if setup.backend == Backend::Netfilter {
            return Err(runtime::Error::from(KernelError::NotOneConnection).into());
        }
        if setup.backend == Backend::Nftables {
            return Err(runtime::Error::from(KernelError::ProgramsOnly("guard a command's packets")).into());
        }
        // First, so that the supervisor has none of the descriptors that follow.
        let Opened { namespace, device, sockets, mut programs } = opening::open(setup)?;
        raise_descriptor_limit();
        let published = publish(setup)?;
        let interfaces: Vec<_> = setup.interfaces.iter().collect();
        let mut wire = wire::open(
            SocketFilter::Extended(programs.capture_fd()),
            &WireOptions {
                interfaces: &interfaces,
                assumed: setup.assumed,
                vnet_header: setup.vnet_header,
                segmentation: setup.segmentation,
                past_egress: false,
                ring: None,
                overrides: setup.overrides,
                receive_buffer: WIRE_BUFFER,
                blocks: false,
                sink: &setup.sink,
            },
        )?;
        let mut guards = Vec::with_capacity(setup.interfaces.len());
        for interface in &setup.interfaces {
            let guard = Guard::attach(&programs, interface.index, setup.backend);
            guards.push(guard.map_err(runtime::Error::from)?);
        }
        let impersonation = match setup.assumed {
            Some(assumed) => Some(assume::assume(&mut wire, assumed)?),
            None => None,
        };
        let mut leak = Leak::watch(&guards);
        leak.look(&programs.counters());
        let monitor = Monitor::open().map_err(runtime::Error::from)?;
        monitor.follow_routes().map_err(runtime::Error::from)?;
        let hops = NextHops::new(monitor, &setup.interfaces, setup.via, setup.bound, setup.assumed);
        let signals = catch_signals()?;
        let needed = guards.iter().any(Guard::needs_privilege);
        setup
            .sandbox
            .enter(if needed { &[Capability::NetAdmin] } else { &[] })
            .map_err(runtime::Error::from)?;
        namespace.start()?;
        log::info!("the command runs: interface {}", names(&setup.interfaces));
        // A program ahead of the guard could keep packets from it, which netkat would not see either.
        let fast_path = programs.take_fast_path().filter(|_| !leak.is_possible());
        let fast = FastFlows::new(fast_path);
        let flows = Flows::new(published, setup.assumed.is_none(), setup.report_flows, fast);
        Ok(Gateway {
            namespace,
            device,
            sockets,
            relay: Relay::new(wire, flows, hops, impersonation, setup),
            _guards: guards,
            programs,
            signals,
            started: Instant::now(),
            user_timeout: setup.user_timeout,
            swept: Duration::ZERO,
            checked: Duration::ZERO,
            leak,
            signalled: None,
            wire_gone: false,
            deserted: false,
        })
    }
}

/// Holds the published ports.
fn publish(setup: &GatewaySetup) -> Result<Published, Error> {
    let ports = setup.published.clone();
    let mut holds = HashMap::new();
    let mut silent = SilentSockets::make(SILENT_SOCKETS)
        .map_err(|source| Error::System { step: "make the sockets that hold the command's ports", source })?;
    for (protocol, port) in ports.iter().copied().filter(|_| setup.assumed.is_none()) {
        refuse_translated(setup, protocol, port)?;
        let hold = PortHold::take(protocol, port, &mut silent).map_err(|error| Error::Publish {
            protocol,
            port,
            reason: holder(protocol, port, &error),
        })?;
        holds.insert((protocol, port), hold);
    }
    for (protocol, port) in &ports {
        log::info!("publishes {protocol} port {port}");
    }
    Ok(Published { ports, holds, silent })
}

/// Refuses a port whose packets a rule of this host gives another destination: no socket has it, and its
/// clients would get the command instead.
fn refuse_translated(setup: &GatewaySetup, protocol: Protocol, port: u16) -> Result<(), Error> {
    let at: Vec<_> = setup.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    let ingress: Vec<_> = setup.interfaces.iter().map(|i| (i.index, i.name.clone())).collect();
    match rules::translation(protocol, &at, &ingress, &kernel::legacy_nat_tables()) {
        None => Ok(()),
        Some((at, rule)) => Err(runtime::Error::Translated { at, rule: Box::new(rule) }.into()),
    }
}

fn names(interfaces: &[Interface]) -> String {
    interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Returns what holds a port, in words.
fn holder(protocol: Protocol, port: u16, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error.to_string();
    }
    kernel::port_holder(protocol, port).map_or_else(|| error.to_string(), |holder| holder.to_string())
}

/// Blocks the signals that the command gets instead, and opens a descriptor for them.
fn catch_signals() -> Result<SignalFd, Error> {
    let failed = |step| move |errno: nix::errno::Errno| Error::System { step, source: errno.into() };
    let mask = SigSet::from_iter(PASSED_ON);
    mask.thread_block().map_err(failed("block signals"))?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(failed("catch signals"))
}

/// Allows as many descriptors as the hard limit does: each held port is one.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        log::debug!("the limit on open files stays: {error}");
    }
}
