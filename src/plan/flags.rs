//! Decisions that take the flags alone, and that several commands need.
use super::{PlanError, usage};
use crate::{
    cli::{Cli, Feature, Hook},
    host::{features::FeatureOverrides, resolve::Family, sysctl},
    kernel::Backend,
    net::{MacAddr, Protocol},
    process::sandbox::{Profile, Sandbox},
    recovery::Algorithm,
    runtime::Setup,
    session::{Command, Policy},
    sniffer::{
        SharedSink,
        sink::{SinkOptions, TextFormat, TextOptions},
    },
    stack::Settings,
    stdio::StreamOptions,
};
use std::net::IpAddr;

/// TTL and hop limit of Linux (net.ipv4.ip_default_ttl, net.ipv6.conf.all.hop_limit).
pub(super) const HOP_LIMIT: u8 = 64;

/// Returns the set-up that the flags alone decide; addresses, ports and interfaces are still open.
pub(super) fn setup(cli: &Cli) -> Setup {
    Setup {
        protocol: protocol(cli),
        local: Vec::new(),
        port: 0,
        lease: Vec::new(),
        force: cli.force,
        remote: None,
        flows: 0,
        interfaces: Vec::new(),
        return_interfaces: Vec::new(),
        persona: None,
        hears_neighbours: true,
        backend: backend(cli),
        vnet_header: !cli.no_vnet_header,
        overrides: feature_overrides(cli),
        segmentation: !cli.no_gso,
        settings: settings(cli),
        sink: sink(cli),
        sandbox: sandbox(cli, Profile::Relay),
    }
}

/// Returns what the process gives up once everything is open.
pub(super) fn sandbox(cli: &Cli, profile: Profile) -> Sandbox {
    let processes = cli.exec.is_some() || cli.sh_exec.is_some();
    Sandbox { profile: if processes { Profile::Processes } else { profile }, enabled: !cli.no_sandbox }
}

/// Returns the sink of a connection's frames.
pub(super) fn sink(cli: &Cli) -> SharedSink {
    let format = if cli.json.is_some() { TextFormat::Json } else { TextFormat::Line };
    let text = TextOptions { format, payload: cli.payload, interface: false };
    let shown = cli.debug || cli.payload;
    SharedSink::new(SinkOptions { text: shown.then_some(text), capture_file: cli.pcap.clone() })
}

/// Returns the address of --as, and the MAC address of --as-mac.
pub(super) fn persona(cli: &Cli) -> Result<Option<(IpAddr, Option<MacAddr>)>, PlanError> {
    let Some(address) = cli.impersonate else { return Ok(None) };
    if cli.source.is_some() {
        return usage("--as and -s both name a source address; name one");
    }
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return usage(format!(
            "--as {address}: no host can have that address; name a unicast address of the segment"
        ));
    }
    if cli.as_mac.is_some_and(|mac| mac.0[0] & 1 != 0) {
        return usage("--as-mac: a multicast address cannot be a host's; its first byte must be even");
    }
    Ok(Some((address, cli.as_mac)))
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

pub(super) fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(super) fn backend(cli: &Cli) -> Backend {
    match cli.guard {
        Hook::Auto => Backend::Auto,
        Hook::Tcx => Backend::Tcx,
        Hook::Clsact => Backend::Clsact,
    }
}

pub(super) fn feature_overrides(cli: &Cli) -> FeatureOverrides {
    let without = |feature| cli.without.contains(&feature);
    FeatureOverrides {
        no_tcx: without(Feature::Tcx),
        no_before: without(Feature::Before),
        no_vnet_header: without(Feature::VnetHeader),
    }
}

pub(super) fn settings(cli: &Cli) -> Settings {
    Settings {
        mss: cli.mss.map(usize::from),
        send_buffer: cli.buffer,
        receive_buffer: cli.buffer,
        hop_limit: cli.ttl.unwrap_or(HOP_LIMIT),
        traffic_class: cli.tos,
        congestion: cli.congestion.unwrap_or_else(system_congestion),
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
        idle_timeout: cli.idle_timeout,
        send_only: cli.send_only,
        receive_only: cli.recv_only,
    }
}
