//! Flags and what the host says of them, made into a [`Plan`]: everything is decided and checked before
//! anything is opened.
use crate::{
    cli::{Cli, Hook},
    host::{
        interface::{self, Address, Interface, InterfaceError},
        resolve::{self, Family, PortError, ResolveError},
        route::{self, Kind, Query, Route, RouteError},
        sysctl,
    },
    kernel::Backend,
    mode::{self, Attempt, Connect, DatagramConnect, DatagramListen, Listen, Policy, Setup},
    net::Protocol,
    recovery::Algorithm,
    stack::Settings,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// How long to try to connect unless -w says otherwise.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// The TTL and hop limit of Linux (net.ipv4.ip_default_ttl, net.ipv6.conf.all.hop_limit).
const HOP_LIMIT: u8 = 64;

/// What to do.
#[derive(Debug)]
pub enum Plan {
    Connect(Connect),
    Listen(Listen),
    DatagramConnect(DatagramConnect),
    DatagramListen(DatagramListen),
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("{0} is not an address of this host; listen on one of: {1}")]
    NotLocal(IpAddr, String),
    #[error("no interface of this host is up and has an address to listen on")]
    NowhereToListen,
}

impl PlanError {
    /// Whether the command line itself is wrong, whatever the host.
    pub fn is_usage(&self) -> bool {
        matches!(self, PlanError::Usage(_) | PlanError::Port(_))
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::Usage(text.into()))
}

impl Plan {
    /// Decides what `cli` asks for.
    pub fn new(cli: &Cli) -> Result<Plan, PlanError> {
        if cli.keep_open && !(cli.listen && cli.udp) {
            return usage("-k: keeps a UDP port open for every client; use it with -u and -l");
        }
        Ok(match (cli.listen, protocol(cli)) {
            (false, Protocol::Tcp) => Plan::Connect(connect(cli)?),
            (true, Protocol::Tcp) => Plan::Listen(listen(cli)?),
            (false, Protocol::Udp) => {
                let Connect { attempts, wait, policy } = connect(cli)?;
                Plan::DatagramConnect(DatagramConnect { attempts, wait, policy })
            }
            (true, Protocol::Udp) => {
                let Listen { setup, wait, policy } = listen(cli)?;
                Plan::DatagramListen(DatagramListen { setup, wait, keep_open: cli.keep_open, policy })
            }
        })
    }

    pub fn run(&self) -> Result<(), mode::Error> {
        match self {
            Plan::Connect(connect) => connect.run(),
            Plan::Listen(listen) => listen.run(),
            Plan::DatagramConnect(connect) => connect.run(),
            Plan::DatagramListen(listen) => listen.run(),
        }
    }
}

fn connect(cli: &Cli) -> Result<Connect, PlanError> {
    let [host, port] = cli.target.as_slice() else {
        return usage(match cli.target.as_slice() {
            [] => "say where to connect to: netkat HOST PORT (or listen: netkat -l PORT)".to_owned(),
            [only, ..] => {
                format!("\"{only}\": say host and port: netkat HOST PORT (or listen: netkat -l PORT)")
            }
        });
    };
    let port = resolve::port(port, protocol(cli))?;
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
        _ => Ok(Connect { attempts, wait: cli.wait.unwrap_or(CONNECT_WAIT), policy: policy(cli) }),
    }
}

/// Asks the kernel for the way to one address.
fn attempt(
    cli: &Cli,
    remote: SocketAddr,
    source_port: Option<u16>,
    interface: Option<&Interface>,
) -> Result<Attempt, PlanError> {
    let mut query = Query { source_port, ..Query::to(remote, protocol(cli)) };
    if let Some(source) = &cli.source {
        let family = if remote.is_ipv4() { Family::V4 } else { Family::V6 };
        query.source = resolve::addresses(source, 0, family, cli.numeric)?.first().map(SocketAddr::ip);
    }
    if let Some(interface) = interface {
        query.interface = Some(interface.index);
    }
    let route = route::lookup(&query)?;
    let out = interface::by_index(route.interface)?;
    log_route(&route, &out, remote);
    let framing = out.framing()?;
    let setup = Setup {
        protocol: protocol(cli),
        local: vec![route.source],
        port: source_port.unwrap_or(0),
        lease: vec![route.source],
        remote: Some(remote),
        interfaces: vec![out.clone()],
        backend: backend(cli),
        vnet_header: !cli.no_vnet_header,
        segmentation: !cli.no_gso,
        settings: Settings { hop_limit: route.hop_limit.unwrap_or(HOP_LIMIT), ..settings(cli) },
    };
    Ok(Attempt {
        remote,
        framing,
        source: route.source,
        next_hop: route.next_hop(),
        path: mode::path(&out, route.mtu),
        interface: out,
        setup,
    })
}

fn log_route(route: &Route, out: &Interface, remote: SocketAddr) {
    let via = match (route.gateway, route.kind) {
        (Some(gateway), _) => format!("gateway {gateway}"),
        (None, Kind::Local) => "on this host".to_owned(),
        (None, _) => "on link".to_owned(),
    };
    log::info!(
        "route to {}: interface {}, source {}, {via}, MTU {}",
        remote.ip(),
        out.name,
        route.source,
        route.mtu
    );
}

fn listen(cli: &Cli) -> Result<Listen, PlanError> {
    let (address, port) = listening_target(cli)?;
    let port = resolve::port(port, protocol(cli))?;
    let address = address.filter(|text| !text.is_empty());
    let wanted = match address {
        None => None,
        Some(text) => {
            let found = resolve::addresses(text, port, family(cli), cli.numeric)?;
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
    if local.is_empty() || interfaces.is_empty() {
        return Err(PlanError::NowhereToListen);
    }
    let setup = Setup {
        protocol: protocol(cli),
        local,
        port,
        lease,
        remote: None,
        interfaces,
        backend: backend(cli),
        vnet_header: !cli.no_vnet_header,
        segmentation: !cli.no_gso,
        settings: settings(cli),
    };
    Ok(Listen { setup, wait: cli.wait, policy: policy(cli) })
}

/// `-l PORT`, `-l ADDRESS PORT`, `-l -p PORT`, `-l -p PORT ADDRESS`, `-l -s ADDRESS -p PORT`.
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

fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Every usable address of the family, and the unspecified ones that stand for them in the kernel.
fn local_addresses(all: &[Address], family: Family) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let mut local: Vec<IpAddr> = all.iter().map(|a| a.ip).filter(|ip| family.includes(*ip)).collect();
    local.sort_unstable();
    local.dedup();
    let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let lease =
        unspecified.into_iter().filter(|u| local.iter().any(|ip| ip.is_ipv4() == u.is_ipv4())).collect();
    (local, lease)
}

/// Whether the host owns an address: an interface has it, or it lies in 127.0.0.0/8.
fn is_local(ip: IpAddr, all: &[Address]) -> bool {
    ip.is_loopback() || all.iter().any(|address| address.ip == ip)
}

fn join(addresses: &[Address]) -> String {
    let mut texts: Vec<_> = addresses.iter().map(|a| a.ip.to_string()).collect();
    texts.dedup();
    texts.join(", ")
}

/// Where packets for our addresses may come in: anywhere, since a host takes them by any interface; only what
/// is for a loopback address can come by lo alone.
fn listening_interfaces(cli: &Cli, local: &[IpAddr]) -> Result<Vec<Interface>, PlanError> {
    if let Some(name) = &cli.interface {
        let interface = interface::by_name(name)?;
        interface.framing()?;
        return Ok(vec![interface]);
    }
    let loopback_only = local.iter().all(IpAddr::is_loopback);
    let mut interfaces = interface::all()?;
    interfaces.retain(|i| i.up && (i.loopback || !loopback_only) && i.framing().is_ok());
    Ok(interfaces)
}

fn protocol(cli: &Cli) -> Protocol {
    if cli.udp { Protocol::Udp } else { Protocol::Tcp }
}

fn family(cli: &Cli) -> Family {
    match (cli.ipv4, cli.ipv6) {
        (true, _) => Family::V4,
        (_, true) => Family::V6,
        _ => Family::Any,
    }
}

fn backend(cli: &Cli) -> Backend {
    match cli.guard {
        Hook::Auto => Backend::Auto,
        Hook::Tcx => Backend::Tcx,
        Hook::Clsact => Backend::Clsact,
    }
}

fn settings(cli: &Cli) -> Settings {
    Settings {
        mss: None,
        send_buffer: cli.buffer,
        receive_buffer: cli.buffer,
        hop_limit: HOP_LIMIT,
        traffic_class: 0,
        congestion: cli.congestion.unwrap_or_else(system_congestion),
        user_timeout: Some(cli.user_timeout),
        keep_alive: None,
    }
}

/// What the kernel's own connections use, where we have it, too.
fn system_congestion() -> Algorithm {
    let name = sysctl::tcp_congestion_control().ok();
    name.and_then(|name| name.parse().ok()).unwrap_or(Algorithm::Cubic)
}

fn policy(cli: &Cli) -> Policy {
    Policy { no_shutdown: cli.no_shutdown, quit_after: cli.quit_after, ..Policy::default() }
}
