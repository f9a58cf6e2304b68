//! The plan of a listener: addresses, port and interfaces, access, and what clients get.
use super::{
    PlanError,
    flags::{assumed, command, family, family_of, names, policy, protocol, setup, stream_options},
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
    net::MacAddr,
    runtime::{EgressRequest, Setup},
    session::Access,
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
            found
                .first()
                .map(SocketAddr::ip)
                .filter(|ip| !ip.is_unspecified() || family_of(*ip) != family(cli))
        }
    };
    let all: Vec<Address> = interface::addresses(None)?
        .into_iter()
        .filter(|a| a.usable() && family(cli).includes(a.ip))
        .collect();
    let (local, lease) = match wanted {
        Some(ip) if ip.is_unspecified() => local_addresses(&all, family_of(ip)),
        Some(ip) if is_local(ip, &all) => (vec![ip], vec![ip]),
        Some(ip) => return Err(PlanError::NotLocal(ip, join(&all))),
        None => local_addresses(&all, family(cli)),
    };
    let interfaces = listening_interfaces(cli, &local)?;
    if let Some(ip) = local.first()
        && interfaces.is_empty()
        && local.iter().all(IpAddr::is_loopback)
    {
        return Err(PlanError::LoopbackDown(*ip));
    }
    if local.is_empty() || interfaces.is_empty() {
        return Err(PlanError::NowhereToListen);
    }
    serve(cli, Setup { local, port, lease, interfaces, ..setup(cli) })
}

/// Plans a listener at an address that is not this host's.
fn listen_as(
    cli: &Cli,
    assumed: (IpAddr, Option<MacAddr>),
    address: Option<&str>,
    port: u16,
) -> Result<Listen, PlanError> {
    if let Some(address) = address {
        return usage(format!(
            "-l {address} and --as {} both name an address to listen on; name one",
            assumed.0
        ));
    }
    let mut query = Query::to(SocketAddr::new(assumed.0, port), protocol(cli));
    query.interface = cli.interface.as_deref().map(interface::by_name).transpose()?.map(|i| i.index);
    let egress = EgressRequest { query, via: None, assumed: Some(assumed) }.decide()?;
    let setup = Setup {
        local: vec![assumed.0],
        port,
        interfaces: vec![egress.interface],
        assumed: egress.assumed,
        ..setup(cli)
    };
    serve(cli, setup)
}

/// Adds access, limits and streams to a listener's set-up.
fn serve(cli: &Cli, setup: Setup) -> Result<Listen, PlanError> {
    let command = command(cli)?;
    let at_once = if command.is_some() { MAX_PROCESSES } else { 1 };
    Ok(Listen {
        stream_options: stream_options(cli),
        setup,
        wait: cli.wait,
        policy: policy(cli),
        access: access(cli)?,
        keep_open: cli.keep_open.then(|| cli.max_conns.map_or(at_once, |n| n as usize)),
        command,
    })
}

fn access(cli: &Cli) -> Result<Access, PlanError> {
    Ok(Access { allow: networks(cli, &cli.allow)?, deny: networks(cli, &cli.deny)?, reject: cli.reject })
}

/// Returns networks in CIDR notation, addresses, and the present addresses of names, as networks.
fn networks(cli: &Cli, texts: &[String]) -> Result<Vec<IpNet>, PlanError> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts.iter().map(|text| text.trim()) {
        match text.parse::<IpNet>() {
            Ok(network) => networks.push(network),
            Err(_) if text.is_empty() || text.contains('/') => {
                return usage(format!("\"{text}\" is not a network; write it as 10.0.0.0/8 or fd00::/8"));
            }
            Err(_) => {
                let found = resolve::addresses(text, 0, Family::Any, names(cli))?;
                networks.extend(found.iter().map(|address| IpNet::from(address.ip())));
            }
        }
    }
    Ok(networks)
}

/// Returns address and port of `-l PORT`, `-l ADDRESS PORT`, `-l -p PORT`, `-l -p PORT ADDRESS`, `-l -s
/// ADDRESS -p PORT`.
fn listening_target(cli: &Cli) -> Result<(Option<&str>, &str), PlanError> {
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

/// Returns whether the host owns an address: an interface has it, or it is a loopback address.
fn is_local(ip: IpAddr, all: &[Address]) -> bool {
    ip.is_loopback() || all.iter().any(|address| address.ip == ip)
}

fn join(addresses: &[Address]) -> String {
    let mut texts: Vec<_> = addresses.iter().map(|a| a.ip.to_string()).collect();
    texts.dedup();
    texts.join(", ")
}

/// Returns the interfaces at which packets for the local addresses may arrive: all, since a host accepts
/// them at any interface (RFC 1122, section 3.3.4.2, weak ES model), but lo alone for loopback addresses.
fn listening_interfaces(cli: &Cli, local: &[IpAddr]) -> Result<Vec<Interface>, PlanError> {
    if let Some(name) = &cli.interface {
        let interface = interface::by_name(name)?;
        interface.framing()?;
        if let Some(problem) = interface.problem() {
            log::warn!("no client will come: {problem}");
        }
        return Ok(vec![interface]);
    }
    let loopback_only = local.iter().all(IpAddr::is_loopback);
    let mut interfaces = interface::all()?;
    interfaces.retain(|i| i.up && (i.loopback || !loopback_only) && i.framing().is_ok());
    Ok(interfaces)
}
