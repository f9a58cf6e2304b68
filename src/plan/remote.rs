//! The plans of clients and scans: addresses of the host, routes and ports.
use super::{
    PlanError,
    flags::{
        HOP_LIMIT, command, family, family_of, persona, policy, protocol, settings, setup, stream_options,
    },
    usage,
};
use crate::{
    cli::Cli,
    commands::{Attempt, Connect, PROBE_BUFFER, Scan},
    host::{
        interface::{self, Interface},
        resolve,
        route::Query,
    },
    runtime::{EgressRequest, Hop, Setup},
    stack::Settings,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Time to connect without -w.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Plans a connection.
pub(super) fn connect(cli: &Cli) -> Result<Connect, PlanError> {
    let (host, port) = remote_target(cli)?;
    if resolve::ports(port, protocol(cli)).is_ok_and(|ports| ports.len() > 1) {
        return usage(format!("\"{port}\" is more than one port: add -z to probe them"));
    }
    let port = resolve::port(port, protocol(cli))?;
    let attempts = attempts(cli, host, port)?;
    Ok(Connect {
        attempts,
        wait: cli.wait.unwrap_or(CONNECT_WAIT),
        policy: policy(cli),
        command: command(cli)?,
        stream_options: stream_options(cli),
    })
}

/// Plans a scan.
pub(super) fn scan(cli: &Cli) -> Result<Scan, PlanError> {
    let (host, ports) = remote_target(cli)?;
    let ports = resolve::ports(ports, protocol(cli))?;
    // Policy rules may depend on the port; all probes take the first port's route.
    let mut attempts = attempts(cli, host, ports.first().copied().unwrap_or_default())?;
    for attempt in &mut attempts {
        attempt.setup.remote = Some(SocketAddr::new(attempt.remote.ip(), 0));
        attempt.setup.flows = ports.len();
        attempt.setup.settings.send_buffer = PROBE_BUFFER;
        attempt.setup.settings.receive_buffer = PROBE_BUFFER;
    }
    Ok(Scan { protocol: protocol(cli), attempts, ports, wait: cli.wait.unwrap_or(CONNECT_WAIT) })
}

/// Returns host and port as typed.
pub(super) fn remote_target(cli: &Cli) -> Result<(&str, &str), PlanError> {
    match cli.target.as_slice() {
        [host, _] if host.is_empty() => usage("the host is empty: say where to connect to: netkat HOST PORT"),
        [host, port] => Ok((unbracketed(host), port)),
        [] => usage("say where to connect to: netkat HOST PORT (or listen: netkat -l PORT)"),
        [_, _, extra, ..] => usage(format!(
            "\"{extra}\" is one argument too many: netkat HOST PORT (several ports: -z HOST 22,80)"
        )),
        [only] if cli.scan => {
            usage(format!("\"{only}\": say which ports to probe: netkat -z HOST 22,80,8000-8100"))
        }
        [only] => {
            match only.rsplit_once(':').filter(|(_, port)| resolve::port(port, protocol(cli)).is_ok()) {
                Some((host, port)) if !host.contains(':') || host != unbracketed(host) => usage(format!(
                    "\"{only}\": write host and port apart: netkat {} {port}",
                    unbracketed(host)
                )),
                _ => usage(format!(
                    "\"{only}\": say host and port: netkat HOST PORT (or listen: netkat -l PORT)"
                )),
            }
        }
    }
}

/// Returns an IPv6 address without the brackets that URLs have.
fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| inner.contains(':')).unwrap_or(host)
}

/// Returns an attempt for each address of the host that has a route; at least one.
fn attempts(cli: &Cli, host: &str, port: u16) -> Result<Vec<Attempt>, PlanError> {
    let source_port = cli.source_port.as_deref().map(|p| resolve::port(p, protocol(cli))).transpose()?;
    let remotes = resolve::addresses(host, port, family(cli), cli.numeric)?;
    let interface = cli.interface.as_deref().map(interface::by_name).transpose()?;
    let mut attempts = Vec::with_capacity(remotes.len());
    let mut refused = None;
    for remote in remotes {
        match attempt(cli, remote, source_port, interface.as_ref()) {
            Ok(attempt) => attempts.push(attempt),
            Err(error) => {
                log::info!("{error}");
                refused.get_or_insert(error);
            }
        }
    }
    match refused {
        Some(error) if attempts.is_empty() => Err(error),
        _ => Ok(attempts),
    }
}

/// Asks the kernel for the route to one address.
pub(super) fn attempt(
    cli: &Cli,
    remote: SocketAddr,
    source_port: Option<u16>,
    interface: Option<&Interface>,
) -> Result<Attempt, PlanError> {
    let mut query = Query { source_port, ..Query::to(remote, protocol(cli)) };
    if let Some(source) = &cli.source {
        let family = family_of(remote.ip());
        query.source = resolve::addresses(source, 0, family, cli.numeric)?.first().map(SocketAddr::ip);
    }
    if let Some(interface) = interface {
        query.interface = Some(interface.index);
    }
    let persona = persona(cli)?.filter(|(address, _)| address.is_ipv4() == remote.is_ipv4());
    if cli.impersonate.is_some() && persona.is_none() {
        return usage(format!("--as: the assumed address and {} are not of one family", remote.ip()));
    }
    let request = EgressRequest { query, via: via(cli)?, persona };
    let egress = request.decide()?;
    let settings = Settings { hop_limit: cli.ttl.or(egress.hop_limit).unwrap_or(HOP_LIMIT), ..settings(cli) };
    let setup = Setup {
        local: vec![egress.source],
        port: source_port.unwrap_or(0),
        lease: if egress.persona.is_some() { Vec::new() } else { vec![egress.source] },
        remote: Some(remote),
        interfaces: vec![egress.interface.clone()],
        persona: egress.persona,
        settings,
        ..setup(cli)
    };
    Ok(Attempt { remote, request, egress, setup })
}

/// Returns the next hop of --via: an address, or a MAC address.
fn via(cli: &Cli) -> Result<Option<Hop>, PlanError> {
    let Some(text) = &cli.via else { return Ok(None) };
    if let Ok(mac) = text.parse() {
        return Ok(Some(Hop::Link(mac)));
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Some(Hop::Address(address))),
        Err(_) => usage(format!("--via \"{text}\": name the next hop by its address or its MAC address")),
    }
}
