//! The plan of a listener: addresses, port and interfaces, access, and what clients get.
use super::{
    PlanError,
    flags::{
        assumed, awaited_header, command, family, family_of, names, policy, protocol, receives_by_ring,
        setup, stream_options,
    },
    groups,
    scope::Scope,
    usage,
};
use crate::{
    cli::Cli,
    commands::Listen,
    host::{
        interface::{self, Address, Interface},
        resolve::{self, Family},
        route::Query,
    },
    net::{
        MacAddr, Protocol,
        zone::{ScopedIp, needs_zone, zone_of},
    },
    runtime::{EgressRequest, Groups, Setup},
    session::{Access, Network},
};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Maximum processes of --exec at once without --max-conns (ncat's default).
const MAX_PROCESSES: usize = 100;

/// Plans a listener at addresses of this host, or at the address of --as.
pub(super) fn listen(cli: &Cli) -> Result<Listen, PlanError> {
    let (address, port) = listening_target(cli)?;
    let port = resolve::local_port(port, protocol(cli))?;
    if let Some(assumed) = assumed(cli)? {
        return listen_as(cli, assumed, address, port);
    }
    let wanted = match address {
        None => None,
        Some(text) => {
            let found = resolve::addresses(text, port, family(cli), names(cli))?;
            let first = found.first().copied();
            first.filter(|at| !at.ip().is_unspecified() || family_of(at.ip()) != family(cli))
        }
    };
    let scope = match &wanted {
        Some(at) => Scope::new(cli)?.at_own(at)?,
        None => Scope::new(cli)?,
    };
    let own: Vec<Address> = interface::addresses(None)?.into_iter().filter(Address::usable).collect();
    let Endpoints { local, lease, groups } = endpoints(cli, wanted, &own, &scope)?;
    let interfaces = listening_interfaces(scope.interface(), &local)?;
    if let Some(ip) = local.first()
        && interfaces.is_empty()
        && local.iter().all(IpAddr::is_loopback)
    {
        return Err(PlanError::LoopbackDown(*ip));
    }
    if local.is_empty() || interfaces.is_empty() {
        return Err(PlanError::NowhereToListen);
    }
    serve(cli, Setup { local, port, lease, groups, interfaces, ..setup(cli) })
}

/// The addresses of a listener.
struct Endpoints {
    /// The host's own addresses.
    local: Vec<IpAddr>,
    /// The addresses to bind in the kernel.
    lease: Vec<IpAddr>,
    groups: Groups,
}

/// Returns the addresses to listen at: all of a family, one of this host, or a group.
fn endpoints(
    cli: &Cli,
    wanted: Option<SocketAddr>,
    own: &[Address],
    scope: &Scope,
) -> Result<Endpoints, PlanError> {
    let wanted_family = match wanted {
        Some(at) => family_of(at.ip()),
        None => family(cli),
    };
    let own: Vec<Address> = own.iter().copied().filter(|own| wanted_family.includes(own.ip)).collect();
    let (all, unspecified) = local_addresses(&own, wanted_family);
    let Some(at) = wanted.filter(|at| !at.ip().is_unspecified()) else {
        let groups = match protocol(cli) {
            Protocol::Tcp => Groups::default(),
            Protocol::Udp => groups::of_all(&own),
        };
        return Ok(Endpoints { local: all, lease: unspecified, groups });
    };
    let ip = at.ip();
    if let Some(groups) = groups::at(cli, ip, &own, scope.interface())? {
        return Ok(Endpoints { local: all, lease: vec![ip], groups });
    }
    match is_local(ip, &own, scope.index()) {
        true => Ok(Endpoints { local: vec![ip], lease: vec![ip], groups: Groups::default() }),
        false => Err(PlanError::NotLocal(at.into(), join(&own))),
    }
}

/// Plans a listener at an address that is not this host's.
fn listen_as(
    cli: &Cli,
    (assumed, mac): (SocketAddr, Option<MacAddr>),
    address: Option<&str>,
    port: u16,
) -> Result<Listen, PlanError> {
    let ip = assumed.ip();
    if let Some(address) = address {
        return usage(format!("-l {address} and --as {ip} both name an address to listen on; name one"));
    }
    let interface = Scope::new(cli)?.within(&assumed)?.index();
    let query = Query { interface, ..Query::to(SocketAddr::new(ip, port), protocol(cli)) };
    let egress = EgressRequest { query, via: None, assumed: Some((ip, mac)), broadcast: true }.decide()?;
    let own = interface::addresses(Some(egress.interface.index))?;
    let beside: Vec<Address> = own.into_iter().filter(|own| own.on_link(ip)).collect();
    let groups = match protocol(cli) {
        Protocol::Tcp => Groups::default(),
        Protocol::Udp => groups::of_all(&beside),
    };
    let setup = Setup {
        local: vec![ip],
        port,
        groups,
        interfaces: vec![egress.interface],
        assumed: egress.assumed,
        ..setup(cli)
    };
    serve(cli, setup)
}

/// Adds access, limits and streams to a listener's set-up.
fn serve(cli: &Cli, setup: Setup) -> Result<Listen, PlanError> {
    // A ring's size is for one connection.
    let setup = Setup { ring: receives_by_ring(cli) && !cli.keep_open, ..setup };
    let command = command(cli)?;
    let at_once = if command.is_some() { MAX_PROCESSES } else { 1 };
    Ok(Listen {
        stream_options: stream_options(cli),
        setup,
        wait: cli.wait,
        policy: policy(cli),
        access: access(cli)?,
        header: awaited_header(cli)?,
        keep_open: cli.keep_open.then(|| cli.max_conns.map_or(at_once, |n| n as usize)),
        command,
    })
}

fn access(cli: &Cli) -> Result<Access, PlanError> {
    Ok(Access { allow: networks(cli, &cli.allow)?, deny: networks(cli, &cli.deny)?, reject: cli.reject })
}

/// Returns networks in CIDR notation, addresses, and the present addresses of names, as networks.
fn networks(cli: &Cli, texts: &[String]) -> Result<Vec<Network>, PlanError> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts.iter().map(|text| text.trim()) {
        if text.is_empty() || text.contains('/') {
            networks.push(network(text)?);
            continue;
        }
        let found = resolve::addresses(text, 0, Family::Any, names(cli))?;
        let host = |at: &SocketAddr| Network { net: IpNet::from(at.ip()), zone: zone_of(at) };
        networks.extend(found.iter().map(host));
    }
    Ok(networks)
}

/// Parses a network in CIDR notation; a link-local one may have a zone before its length, as `fe80::%eth0/64` (RFC
/// 4007, section 11.7).
pub(super) fn network(text: &str) -> Result<Network, PlanError> {
    let wrong =
        || PlanError::Usage(format!("\"{text}\" is not a network; write it as 10.0.0.0/8 or fd00::/8"));
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    match address.contains('%') {
        false => Ok(Network { net: text.parse().map_err(|_| wrong())?, zone: None }),
        true => {
            let at = resolve::literal(address, 0)?;
            let net = length.parse().ok().and_then(|length| IpNet::new(at.ip(), length).ok());
            Ok(Network { net: net.ok_or_else(wrong)?, zone: zone_of(&at) })
        }
    }
}

/// Returns address and port of `-l PORT`, `-l ADDRESS PORT`, `-l -p PORT`, `-l -p PORT ADDRESS`, `-l -s
/// ADDRESS -p PORT`.
pub(super) fn listening_target(cli: &Cli) -> Result<(Option<&str>, &str), PlanError> {
    let (address, port) = match (cli.target.as_slice(), cli.source_port.as_deref()) {
        ([port], None) => (None, port.as_str()),
        ([address, port], None) => (Some(address.as_str()), port.as_str()),
        ([], Some(port)) => (None, port),
        ([address], Some(port)) => (Some(address.as_str()), port),
        ([], None) => return usage("say which port to listen on: netkat -l PORT"),
        ([_, port, ..], Some(other)) => {
            return usage(format!("two ports to listen on: {port} and, with -p, {other}; name one"));
        }
        (_, None) => return usage("say one address and one port: netkat -l ADDRESS PORT"),
    };
    match (address, cli.source.as_deref()) {
        (Some(address), Some(other)) => {
            usage(format!("two addresses to listen on: {address} and, with -s, {other}; name one"))
        }
        (address, source) => Ok((address.or(source), port)),
    }
}

/// Returns every usable address of the family, and the unspecified addresses that bind all of them in the
/// kernel.
fn local_addresses(all: &[Address], family: Family) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let mut local: Vec<IpAddr> = all.iter().map(|a| a.ip).filter(|ip| family.includes(*ip)).collect();
    local.sort_unstable();
    local.dedup();
    let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let lease =
        unspecified.into_iter().filter(|u| local.iter().any(|ip| ip.is_ipv4() == u.is_ipv4())).collect();
    (local, lease)
}

/// Returns whether the host owns an address: an interface has it, or it is a loopback address. A link-local address
/// belongs to its zone.
fn is_local(ip: IpAddr, own: &[Address], zone: Option<u32>) -> bool {
    let here = |own: &Address| !needs_zone(ip) || zone == Some(own.interface);
    ip.is_loopback() || own.iter().any(|own| own.ip == ip && here(own))
}

fn join(addresses: &[Address]) -> String {
    let mut texts: Vec<_> =
        addresses.iter().map(|own| ScopedIp::new(own.ip, own.interface).to_string()).collect();
    texts.dedup();
    texts.join(", ")
}

/// Returns the interfaces at which packets for the local addresses may arrive: all, since a host accepts
/// them at any interface (RFC 1122, section 3.3.4.2, weak ES model), but lo alone for loopback addresses.
fn listening_interfaces(named: Option<&Interface>, local: &[IpAddr]) -> Result<Vec<Interface>, PlanError> {
    if let Some(interface) = named {
        interface.framing()?;
        if let Some(problem) = interface.problem() {
            log::warn!("no client will come: {problem}");
        }
        return Ok(vec![interface.clone()]);
    }
    let loopback_only = local.iter().all(IpAddr::is_loopback);
    let mut interfaces = interface::all()?;
    interfaces.retain(|i| i.up && (i.loopback || !loopback_only) && i.framing().is_ok());
    Ok(interfaces)
}
