//! The plan of a sniffer (`--sniff`, `--read`).
use super::{
    PlanError,
    flags::{family, feature_overrides, sandbox},
    scope::Scope,
    usage,
};
use crate::{
    cli::Cli,
    commands::{Sniff, Source},
    host::{
        interface::Interface,
        resolve::{self, Family},
    },
    kernel::{IpFamily, SniffFilter},
    net::Protocol,
    process::sandbox::Profile,
    sniffer::{
        capture_file::addresses_in,
        sink::{SinkOptions, TextFormat, TextOptions},
    },
    stdio::STANDARD,
};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// Plans a sniffer.
pub(super) fn sniff(cli: &Cli) -> Result<Sniff, PlanError> {
    let (host, port) = match (cli.target.as_slice(), cli.source_port.as_deref()) {
        ([], port) => (None, port),
        ([host], port) => (Some(host.as_str()), port),
        ([host, port], None) => (Some(host.as_str()), Some(port.as_str())),
        (_, _) => return usage("say one host and one port: netkat --sniff HOST PORT"),
    };
    let protocol = match (cli.tcp, cli.udp) {
        (true, _) => Some(Protocol::Tcp),
        (_, true) => Some(Protocol::Udp),
        _ => None,
    };
    let port = port.map(|port| resolve::port(port, protocol.unwrap_or(Protocol::Tcp))).transpose()?;
    // In a file, a zone is the name of an interface of the host that recorded it.
    let (host, zone) = match host.and_then(|host| host.split_once('%')).filter(|_| cli.read.is_some()) {
        Some((address, zone)) => (Some(address), Some(zone.to_owned())),
        None => (host, None),
    };
    let hosts = host.map_or_else(|| Ok(Vec::new()), |host| hosts(cli, host))?;
    let family = match family(cli) {
        Family::Any => None,
        Family::V4 => Some(IpFamily::Ipv4),
        Family::V6 => Some(IpFamily::Ipv6),
    };
    let named = cli.interface.as_deref().filter(|name| *name != "any");
    if cli.promiscuous && named.is_none() {
        return usage("--promiscuous: name one interface");
    }
    if let Some(Some(path)) = cli.json.as_ref().filter(|file| file.as_deref() != Some(Path::new(STANDARD))) {
        return usage(format!(
            "--json={}: packets are shown on standard output; use --json and redirect it",
            path.display()
        ));
    }
    let source = match &cli.read {
        Some(path) => Source::File(path.clone()),
        None => Source::Live { interface: live_interface(named, &hosts)?, promiscuous: cli.promiscuous },
    };
    let several = matches!(source, Source::Live { interface: None, .. });
    let shown = cli.shows_packets();
    let format = if cli.json.is_some() { TextFormat::Json } else { TextFormat::Line };
    let text = TextOptions { format, payload: cli.payload, interface: several };
    Ok(Sniff {
        source,
        filter: SniffFilter { protocol, family, hosts: addresses(&hosts), port },
        zone,
        output: SinkOptions { text: shown.then_some(text), capture_file: cli.pcap.clone() },
        count: cli.count,
        overrides: feature_overrides(cli),
        sandbox: sandbox(cli, if cli.read.is_some() { Profile::Replay } else { Profile::Sniff }),
    })
}

/// Returns the interface of -i or of the only host's zone; `None` for all.
fn live_interface(named: Option<&str>, hosts: &[SocketAddr]) -> Result<Option<Interface>, PlanError> {
    let scope = Scope::named(named)?;
    let scope = match hosts {
        [host] => scope.within(host)?,
        _ => scope,
    };
    Ok(scope.interface().cloned())
}

/// Returns all addresses of a host: those that the resolver knows, and those that a capture file names.
fn hosts(cli: &Cli, host: &str) -> Result<Vec<SocketAddr>, PlanError> {
    let mut found: Vec<_> = match &cli.read {
        Some(path) => addresses_in(path, host).into_iter().map(|ip| SocketAddr::new(ip, 0)).collect(),
        None => Vec::new(),
    };
    found.retain(|address| family(cli).includes(address.ip()));
    match resolve::addresses(host, 0, family(cli), cli.numeric) {
        Ok(resolved) => found.extend(resolved),
        Err(error) if found.is_empty() => return Err(error.into()),
        Err(error) => log::debug!("{error}"),
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Returns the addresses without their zones, each once.
fn addresses(hosts: &[SocketAddr]) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = hosts.iter().map(SocketAddr::ip).collect();
    addresses.dedup();
    addresses
}

/// Returns a given flag that only a sniffer can honour.
pub(super) fn sniffing_flag(cli: &Cli) -> Option<&'static str> {
    let given = [("--tcp", cli.tcp), ("--promiscuous", cli.promiscuous), ("--count", cli.count.is_some())];
    given.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
}
