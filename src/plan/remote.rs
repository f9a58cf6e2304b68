//! The plans of clients and scans: addresses of the host, routes and ports.
use super::{
    PlanError,
    flags::{
        address, assumed, command, family, family_of, names, outgoing_header, policy, protocol,
        receives_by_ring, setup, stream_options,
    },
    scope::Scope,
    usage,
};
use crate::{
    cli::Cli,
    commands::{Attempt, Connect, Target},
    host::{
        resolve::{self, ResolveError},
        route::Query,
    },
    net::zone::scoped,
    report::{JsonReport, Tried},
    runtime::{EgressRequest, NextHopAddress, Setup},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Time to connect without -w.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Plans a connection.
pub(super) fn connect(cli: &Cli, report: &mut JsonReport) -> Result<Connect, PlanError> {
    let prologue = outgoing_header(cli)?;
    let (host, port) = remote_target(cli)?;
    if resolve::ports(port, protocol(cli)).is_ok_and(|ports| ports.len() > 1) {
        return usage(format!("\"{port}\" is more than one port: add -z to probe them"));
    }
    let port = resolve::port(port, protocol(cli))?;
    let mut target = target(cli, host, port, report)?;
    for attempt in &mut target.attempts {
        attempt.setup.ring = receives_by_ring(cli);
    }
    Ok(Connect {
        target,
        wait: cli.wait.unwrap_or(CONNECT_WAIT),
        policy: policy(cli),
        prologue,
        command: command(cli)?,
        stream_options: stream_options(cli),
    })
}

/// Returns host and port as typed.
pub(super) fn remote_target(cli: &Cli) -> Result<(&str, &str), PlanError> {
    match cli.target.as_slice() {
        [host, _] if host.is_empty() => usage("the host is empty: say where to connect to: netkat HOST PORT"),
        [host, port] => Ok((unbracketed(host), port)),
        [] => usage("say where to connect to: netkat HOST PORT (or listen: netkat -l PORT)"),
        [_, _, extra, ..] => usage(format!(
            "\"{extra}\" is one argument too many: netkat HOST PORT (several hosts and ports have commas: -z HOST,HOST \
             22,80)"
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
pub(super) fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| inner.contains(':') && !inner.contains(']')).unwrap_or(host)
}

/// Returns the local port that the flags name.
pub(super) fn source_port(cli: &Cli) -> Result<Option<u16>, PlanError> {
    let port = cli.source_port.as_deref().map(|port| resolve::local_port(port, protocol(cli))).transpose()?;
    // Port 0 is any, as without -p.
    Ok(port.filter(|port| *port != 0))
}

/// Returns the addresses of the host: those to try, and those that flags for one family exclude, with the reason.
pub(super) fn target(cli: &Cli, host: &str, port: u16, report: &mut JsonReport) -> Result<Target, PlanError> {
    let source_port = source_port(cli)?;
    let remotes = addresses(cli, host, port, report)?;
    let scope = Scope::new(cli)?;
    let (mut attempts, mut unusable, mut wrong) = (Vec::with_capacity(remotes.len()), Vec::new(), None);
    let several = remotes.len() > 1;
    for remote in remotes {
        match attempt(cli, remote, source_port, &scope) {
            Ok(attempt) => attempts.push(attempt),
            Err(error) if !several => return Err(error),
            Err(error) => {
                log::info!("{error}");
                if let PlanError::Usage(words) = &error {
                    wrong.get_or_insert_with(|| words.clone());
                }
                unusable.push(Tried::failed(remote, &error.into()));
            }
        }
    }
    // Flags that fit one family only are no mistake if the host has an address of it.
    if let Some(words) = wrong.filter(|_| attempts.is_empty()) {
        return usage(words);
    }
    Ok(Target { host: host.to_owned(), attempts: interleaved(attempts), unusable })
}

/// Returns the addresses of the host, and notes how long the look-up of a name took.
pub(super) fn addresses(
    cli: &Cli,
    host: &str,
    port: u16,
    report: &mut JsonReport,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let start = Instant::now();
    let found = resolve::addresses(host, port, family(cli), names(cli));
    if !cli.numeric && matches!(resolve::literal(host, port), Err(ResolveError::NotNumeric(_))) {
        report.looked_up(start.elapsed());
    }
    found
}

/// Returns attempts of both families in turn, of either in its order (RFC 8305, section 4, with a First Address Family
/// Count of 1).
pub(super) fn interleaved(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let first = attempts.first().is_some_and(|attempt| attempt.remote.is_ipv4());
    let (ours, others): (VecDeque<_>, VecDeque<_>) =
        attempts.into_iter().partition(|attempt| attempt.remote.is_ipv4() == first);
    let (mut next, mut after, mut all) = (ours, others, Vec::new());
    while let Some(attempt) = next.pop_front() {
        all.push(attempt);
        if !after.is_empty() {
            std::mem::swap(&mut next, &mut after);
        }
    }
    all
}

/// Makes the request for one address's route, which is asked for once the port is known.
pub(super) fn attempt(
    cli: &Cli,
    remote: SocketAddr,
    source_port: Option<u16>,
    scope: &Scope,
) -> Result<Attempt, PlanError> {
    let mut scope = scope.clone().within(&remote)?;
    let mut query = Query { source_port, traffic_class: cli.tos, ..Query::to(remote, protocol(cli)) };
    if let Some(source) = &cli.source {
        let found = resolve::addresses(source, 0, family_of(remote.ip()), names(cli))?;
        if let Some(source) = found.first() {
            scope = scope.at_own(source)?;
            query.source = Some(source.ip());
        }
    }
    let assumed = assumed(cli)?.filter(|(address, _)| address.is_ipv4() == remote.is_ipv4());
    if cli.impersonate.is_some() && assumed.is_none() {
        return usage(format!("--as: the assumed address and {} are not of one family", remote.ip()));
    }
    if let Some((address, _)) = &assumed {
        scope = scope.within(address)?;
    }
    let (via, scope) = via(cli, scope)?;
    query.interface = scope.index();
    let remote = scoped(remote.ip(), remote.port(), scope.index().unwrap_or_default());
    let assumed = assumed.map(|(address, mac)| (address.ip(), mac));
    let request = EgressRequest { query, via, assumed, broadcast: cli.broadcast };
    let setup = Setup {
        port: source_port.unwrap_or(0),
        port_is_free: source_port.is_none(),
        remotes: vec![remote],
        ..setup(cli)
    };
    Ok(Attempt { remote, request, setup })
}

/// Returns the next hop of --via, an address or a MAC address, and the scope within the address's zone.
pub(super) fn via(cli: &Cli, scope: Scope) -> Result<(Option<NextHopAddress>, Scope), PlanError> {
    let Some(text) = &cli.via else { return Ok((None, scope)) };
    if let Ok(mac) = text.parse() {
        return Ok((Some(NextHopAddress::Mac(mac)), scope));
    }
    let address = address(text, "--via", "the next hop by its MAC address or its address")?;
    Ok((Some(NextHopAddress::Ip(address.ip())), scope.within(&address)?))
}
