//! The plan of a sniffer (`--sniff`, `--read`).
use super::{
    PlanError,
    flags::{family, feature_overrides, names, sandbox},
    usage,
};
use crate::{
    cli::Cli,
    commands::{Sniff, Source},
    host::{
        interface,
        resolve::{self, Family},
    },
    kernel::{IpFamily, SniffFilter},
    net::Protocol,
    process::sandbox::Profile,
    sniffer::sink::{SinkOptions, TextFormat, TextOptions},
};
use std::net::SocketAddr;

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
    let host = match host {
        Some(host) => resolve::addresses(host, 0, family(cli), names(cli))?.first().map(SocketAddr::ip),
        None => None,
    };
    let family = match family(cli) {
        Family::Any => None,
        Family::V4 => Some(IpFamily::Ipv4),
        Family::V6 => Some(IpFamily::Ipv6),
    };
    let named = cli.interface.as_deref().filter(|name| *name != "any");
    if cli.promiscuous && named.is_none() {
        return usage("--promiscuous: name one interface");
    }
    if let Some(Some(path)) = &cli.json {
        return usage(format!(
            "--json={}: packets are shown on standard output; use --json and redirect it",
            path.display()
        ));
    }
    let source = match &cli.read {
        Some(path) => Source::File(path.clone()),
        None => Source::Live {
            interface: named.map(interface::by_name).transpose()?,
            promiscuous: cli.promiscuous,
        },
    };
    let several = matches!(source, Source::Live { interface: None, .. });
    let shown = cli.pcap.is_none() || cli.debug || cli.json.is_some() || cli.payload;
    let format = if cli.json.is_some() { TextFormat::Json } else { TextFormat::Line };
    let text = TextOptions { format, payload: cli.payload, interface: several };
    Ok(Sniff {
        source,
        filter: SniffFilter { protocol, family, host, port },
        output: SinkOptions { text: shown.then_some(text), capture_file: cli.pcap.clone() },
        count: cli.count,
        overrides: feature_overrides(cli),
        sandbox: sandbox(cli, if cli.read.is_some() { Profile::Replay } else { Profile::Sniff }),
    })
}
