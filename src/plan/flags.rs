//! Decisions that take the flags alone, and that several commands need.
use super::{PlanError, usage};
use crate::{
    cli::{self, Cli, Feature, Hook, LineForm, ProxyProtocol},
    host::{
        features::FeatureOverrides,
        resolve::{self, Family, Names, ResolveError},
        sysctl,
    },
    kernel::Backend,
    net::{MacAddr, Protocol},
    process::{
        namespace,
        sandbox::{Profile, Sandbox},
    },
    proxy_protocol::{OutgoingHeader, Versions},
    recovery::Algorithm,
    runtime::{Groups, Setup},
    session::{Command, Policy, Prologue},
    sniffer::{
        SharedSink,
        dump::{Dump, DumpForm},
        sink::{SinkOptions, TextFormat, TextOptions},
        tcpdump::{TcpdumpOptions, TimeForm},
    },
    stack::Settings,
    stdio::StreamOptions,
};
use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Linux's TTL unless the administrator changes it (IPDEFTTL, linux/ip.h).
const DEFAULT_TTL: u8 = 64;

/// Returns the set-up that the flags alone decide; addresses, ports and interfaces are still open.
pub(super) fn setup(cli: &Cli) -> Setup {
    Setup {
        protocol: protocol(cli),
        local: Vec::new(),
        port: 0,
        port_is_free: false,
        lease: Vec::new(),
        force: cli.force,
        groups: Groups::default(),
        remotes: Vec::new(),
        to_group: false,
        flows: 0,
        interfaces: Vec::new(),
        return_interfaces: Vec::new(),
        assumed: None,
        hears_neighbours: true,
        backend: backend(cli),
        vnet_header: !cli.no_vnet_header,
        overrides: feature_overrides(cli),
        segmentation: !cli.no_gso,
        past_egress: cli.past_egress,
        ring: false,
        settings: settings(cli),
        sink: sink(cli),
        sandbox: sandbox(cli, Profile::Relay),
    }
}

/// Enters the network namespace of --netns or --like with the calling thread. Returns the one that it leaves; `None`
/// without these flags, or if it was there already.
pub(super) fn enter_namespace(cli: &Cli) -> Result<Option<File>, PlanError> {
    let of_process = |pid: u32| PathBuf::from(format!("/proc/{pid}/ns/net"));
    let path = match (cli.like, cli.netns.as_deref()) {
        (Some(pid), _) => of_process(pid),
        (None, None) => return Ok(None),
        (None, Some(text)) => match text.parse() {
            Ok(pid) => of_process(pid),
            Err(_) if text.contains('/') => PathBuf::from(text),
            Err(_) => Path::new("/run/netns").join(text),
        },
    };
    namespace::enter(&path).map_err(|error| PlanError::Namespace { path, error })
}

/// Returns what the process gives up once everything is open.
pub(super) fn sandbox(cli: &Cli, profile: Profile) -> Sandbox {
    let processes = cli.exec.is_some() || cli.sh_exec.is_some();
    Sandbox { profile: if processes { Profile::Processes } else { profile }, enabled: !cli.no_sandbox }
}

/// Returns the sink of a connection's frames.
pub(super) fn sink(cli: &Cli) -> SharedSink {
    let shown = cli.debug || cli.payload;
    let text = text_options(cli, false);
    SharedSink::new(SinkOptions { text: shown.then_some(text), capture_file: cli.pcap.clone() })
}

/// Returns whether a connection may receive by a ring. Segments are joined there, so it is not for packets that are shown or
/// recorded: those stand as they came.
pub(super) fn receives_by_ring(cli: &Cli) -> bool {
    protocol(cli) == Protocol::Tcp && !cli.debug && !cli.payload && cli.pcap.is_none()
}

/// Returns the form of the packets' text.
pub(super) fn text_options(cli: &Cli, interface: bool) -> TextOptions {
    let details = TcpdumpOptions {
        time: match cli.time {
            None => TimeForm::Clock,
            Some(cli::TimeForm::None) => TimeForm::None,
            Some(cli::TimeForm::Epoch) => TimeForm::Epoch,
            Some(cli::TimeForm::Delta) => TimeForm::Delta,
            Some(cli::TimeForm::Date) => TimeForm::Date,
            Some(cli::TimeForm::Elapsed) => TimeForm::Elapsed,
        },
        absolute: cli.absolute_tcp_sequence_numbers,
        link_header: cli.link_header,
    };
    let form = cli.line.unwrap_or(match details == TcpdumpOptions::default() {
        true => LineForm::Gvisor,
        false => LineForm::Tcpdump,
    });
    let format = match form {
        _ if cli.json.is_some() => TextFormat::Json,
        LineForm::Gvisor => TextFormat::Line,
        LineForm::Tcpdump => TextFormat::Tcpdump(details),
    };
    let dump = cli.dump.map(|form| match form {
        cli::Dump::Hex => (DumpForm::Hex, false),
        cli::Dump::HexWithLink => (DumpForm::Hex, true),
        cli::Dump::HexAndAscii => (DumpForm::HexAndAscii, false),
        cli::Dump::HexAndAsciiWithLink => (DumpForm::HexAndAscii, true),
        cli::Dump::Ascii => (DumpForm::Ascii, false),
        cli::Dump::AsciiWithLink => (DumpForm::Ascii, true),
    });
    let dump = dump.map(|(form, link_header)| Dump { form, link_header });
    TextOptions { format, payload: cli.payload, dump, interface }
}

/// Returns the address of --as, and the MAC address of --as-mac.
pub(super) fn assumed(cli: &Cli) -> Result<Option<(SocketAddr, Option<MacAddr>)>, PlanError> {
    let Some(text) = &cli.impersonate else { return Ok(None) };
    let assumed = address(text, "--as", "an address of the segment")?;
    let ip = assumed.ip();
    if cli.source.is_some() {
        return usage("--as and -s both name a source address; name one");
    }
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast {
        return usage(format!(
            "--as {text}: no host can have that address; name a unicast address of the segment"
        ));
    }
    if cli.as_mac.is_some_and(|mac| mac.is_group()) {
        return usage("--as-mac: a multicast address cannot be a host's; its first byte must be even");
    }
    Ok(Some((assumed, cli.as_mac)))
}

/// Parses the address of a flag, which may have a zone.
pub(super) fn address(text: &str, flag: &str, what: &str) -> Result<SocketAddr, PlanError> {
    match resolve::literal(text, 0) {
        Err(ResolveError::NotNumeric(_) | ResolveError::InvalidZone(_)) => {
            usage(format!("{flag} \"{text}\": name {what}, as 192.0.2.1 or fe80::1%eth0"))
        }
        result => Ok(result?),
    }
}

/// Returns the command of --exec or --sh-exec.
pub(super) fn command(cli: &Cli) -> Result<Option<Command>, PlanError> {
    let (flag, command) = match (&cli.exec, &cli.sh_exec) {
        (Some(text), _) => ("--exec", Command::program(text)),
        (None, Some(text)) => ("--sh-exec", Command::shell(text)),
        (None, None) => return Ok(None),
    };
    command.map(Some).or_else(|error| usage(format!("{flag}: {error}")))
}

/// Returns the PROXY protocol header that a client sends.
pub(super) fn outgoing_header(cli: &Cli) -> Result<Prologue, PlanError> {
    let Some(asked) = &cli.proxy_protocol else { return Ok(Prologue::None) };
    match asked {
        Some(ProxyProtocol { versions: Versions::Only(version), source }) => {
            Ok(Prologue::Send(OutgoingHeader { version: *version, source: *source }))
        }
        _ => usage("--proxy-protocol: say which version to send: --proxy-protocol 1 or --proxy-protocol 2"),
    }
}

/// Returns the versions of the PROXY protocol header that a listener awaits.
pub(super) fn awaited_header(cli: &Cli) -> Result<Option<Versions>, PlanError> {
    match cli.proxy_protocol {
        None => Ok(None),
        Some(None) => Ok(Some(Versions::Both)),
        Some(Some(ProxyProtocol { versions, source: None })) => Ok(Some(versions)),
        Some(Some(ProxyProtocol { source: Some(source), .. })) => usage(format!(
            "--proxy-protocol: a listener reads the source, so it cannot be {source}: leave that out"
        )),
    }
}

pub(super) fn protocol(cli: &Cli) -> Protocol {
    if cli.udp { Protocol::Udp } else { Protocol::Tcp }
}

pub(super) fn family(cli: &Cli) -> Family {
    match (cli.ipv4, cli.ipv6) {
        (true, _) => Family::V4,
        (_, true) => Family::V6,
        _ => Family::Any,
    }
}

/// Returns how names are looked up: -w bounds it.
pub(super) fn names(cli: &Cli) -> Names {
    if cli.numeric { Names::Numeric } else { Names::Resolver(cli.wait) }
}

pub(super) fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(super) fn backend(cli: &Cli) -> Backend {
    match cli.guard {
        Hook::Auto => Backend::Auto,
        Hook::Netfilter => Backend::Netfilter,
        Hook::Tcx => Backend::Tcx,
        Hook::Clsact => Backend::Clsact,
        Hook::Nft => Backend::Nftables,
    }
}

pub(super) fn feature_overrides(cli: &Cli) -> FeatureOverrides {
    let without = |feature| cli.without.contains(&feature);
    FeatureOverrides {
        no_tcx: without(Feature::Tcx),
        no_netfilter: without(Feature::Netfilter),
        no_before: without(Feature::Before),
        no_vnet_header: without(Feature::VnetHeader),
        no_ring: without(Feature::Ring),
        no_table_owner: without(Feature::Owner),
    }
}

pub(super) fn settings(cli: &Cli) -> Settings {
    Settings {
        mss: cli.mss.map(usize::from),
        send_buffer: cli.buffer,
        receive_buffer: cli.buffer,
        hop_limit: cli.ttl,
        default_ttl: sysctl::ip_default_ttl().unwrap_or(DEFAULT_TTL),
        traffic_class: cli.tos,
        congestion: cli.congestion,
        default_congestion: system_congestion(),
        user_timeout: Some(cli.user_timeout),
        keep_alive: cli.keepalive,
    }
}

/// Returns the congestion control of the kernel's own connections, or CUBIC if netkat does not have it.
fn system_congestion() -> Algorithm {
    let name = sysctl::tcp_congestion_control().ok();
    name.and_then(|name| name.parse().ok()).unwrap_or(Algorithm::Cubic)
}

pub(super) fn stream_options(cli: &Cli) -> StreamOptions {
    StreamOptions {
        crlf: cli.crlf,
        delay: cli.delay,
        output: cli.output.clone(),
        hex_dump: cli.hex_dump.clone(),
        append: cli.append_output,
        progress: cli.progress,
    }
}

pub(super) fn policy(cli: &Cli) -> Policy {
    Policy {
        no_shutdown: cli.no_shutdown,
        quit_after: cli.quit_after,
        quit_on_peer_close: cli.quit_on_peer_close,
        idle_timeout: cli.idle_timeout,
        send_only: cli.send_only,
        receive_only: cli.recv_only,
    }
}
