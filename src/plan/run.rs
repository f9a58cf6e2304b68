//! The plan of a command (`--run`, `--shell`): its addresses, its routes, and the interfaces that it uses.
use super::{
    PlanError,
    flags::{assumed, backend, family, feature_overrides, sandbox, sink},
    forwards::Forwards,
    remote::via,
    scope::Scope,
    usage,
};
use crate::{
    cli::{Cli, Feature},
    commands::Run,
    gateway::{DEVICE_BUFFER, GatewaySetup},
    host::{
        interface::{self, Address, Framing, Interface},
        resolve,
        route::{self, Query, TableRoute},
    },
    kernel::{DeviceRoute, DeviceSpec, MAX_LOCAL_ADDRESSES},
    namespace::NamespaceSpec,
    neighbour::LocalAddress,
    net::{Protocol, zone::ScopedIp},
    process::sandbox::Profile,
    runtime::{Egress, EgressRequest, NextHopAddress},
};
use std::{
    collections::BTreeSet,
    env,
    ffi::CString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Maximum interfaces, each of which gets a guard.
const MAX_INTERFACES: usize = 16;
/// Distance of a super-frame from gso_max_size, in bytes: at the limit, the kernel segments in software.
const FRAME_MARGIN: u32 = 15;

/// Plans a command.
pub(super) fn run(cli: &Cli) -> Result<Run, PlanError> {
    let command = command(cli)?;
    let (source, scope) = chosen_source(cli, Scope::new(cli)?)?;
    let (via, scope) = via(cli, scope)?;
    let bound = scope.interface();
    let published = cli.publish.clone();
    let host = Host::read()?;
    let ground = match (source, via) {
        (None, None) => host.ground(cli, bound)?,
        (source, via) => past_the_table(cli, &host, bound, via, source)?,
    };
    let Ground { interfaces, addresses, routes, assumed } = ground;
    let Some(egress) = interfaces.first() else { return Err(PlanError::NoUplink) };
    let forwards = Forwards::plan(cli, &addresses, &host.addresses, &interfaces)?;
    let device = DeviceSpec {
        name: egress.name.clone(),
        mtu: egress.mtu,
        gso_max_size: egress.gso_max_size.min(65_536).saturating_sub(FRAME_MARGIN),
        gso_max_segs: egress.gso_max_segs,
        addresses: addresses.clone(),
        on_loopback: forwards.on_loopback,
        routes,
    };
    let namespace = NamespaceSpec {
        command,
        device,
        ephemeral_ports: 0..=0,
        across: false,
        raw: cli.raw,
        receive_buffer: DEVICE_BUFFER,
        by_host: forwards.by_host,
        by_namespace: forwards.by_namespace,
    };
    Ok(Run {
        setup: GatewaySetup {
            namespace,
            addresses: addresses.into_iter().map(|(address, _)| address).collect(),
            bound: bound.map(|interface| interface.index).or(assumed.map(|assumed| assumed.interface)),
            interfaces,
            via,
            assumed,
            published,
            user_timeout: cli.user_timeout,
            fast_path: fast_path(cli),
            report_flows: cli.json.is_some(),
            backend: backend(cli),
            overrides: feature_overrides(cli),
            vnet_header: !cli.no_vnet_header,
            segmentation: !cli.no_gso,
            sink: sink(cli),
            sandbox: sandbox(cli, Profile::Gateway),
        },
    })
}

/// Returns whether the kernel may forward the packets of known flows: not where netkat is to show each packet, to do
/// without offloads, or to check what raw sockets send.
fn fast_path(cli: &Cli) -> bool {
    let shown = cli.debug || cli.payload || cli.pcap.is_some();
    let without = |feature| cli.without.contains(&feature);
    let whole = !cli.no_vnet_header && !without(Feature::VnetHeader);
    !shown && whole && !without(Feature::FastPath) && !cli.raw
}

/// Returns the program and its arguments.
fn command(cli: &Cli) -> Result<Vec<CString>, PlanError> {
    let words = match (cli.shell, cli.target.as_slice()) {
        (false, []) => return usage("say what to run: netkat --run -- COMMAND"),
        (false, words) => words.to_vec(),
        (true, []) => vec![env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())],
        (true, _) => return usage("--shell runs $SHELL; for another command: netkat --run -- COMMAND"),
    };
    words.into_iter().map(|word| CString::new(word).or_else(|_| usage("the command holds a NUL"))).collect()
}

/// Returns the address of -s or --as, and the scope within its zone.
fn chosen_source(cli: &Cli, scope: Scope) -> Result<(Option<IpAddr>, Scope), PlanError> {
    if let Some((address, _)) = assumed(cli)? {
        return Ok((Some(address.ip()), scope.within(&address)?));
    }
    let Some(text) = &cli.source else { return Ok((None, scope)) };
    let found = resolve::addresses(text, 0, family(cli), super::flags::names(cli))?;
    match found.first() {
        Some(source) => Ok((Some(source.ip()), scope.at_own(source)?)),
        None => Ok((None, scope)),
    }
}

/// The interfaces, addresses and routes of a command.
struct Ground {
    /// The egress interface first.
    interfaces: Vec<Interface>,
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<DeviceRoute>,
    assumed: Option<LocalAddress>,
}

/// This host's interfaces, addresses and routes.
struct Host {
    interfaces: Vec<Interface>,
    addresses: Vec<Address>,
    routes: Vec<TableRoute>,
}

impl Host {
    fn read() -> Result<Host, PlanError> {
        let interfaces = interface::all()?;
        let addresses = interface::addresses(None)?.into_iter().filter(Address::usable).collect();
        let mut routes = route::main_table().map_err(|source| {
            PlanError::Interface(interface::InterfaceError::Netlink { what: "routes", source })
        })?;
        routes.sort_by_key(|route| (route.metric, route.prefix));
        Ok(Host { interfaces, addresses, routes })
    }

    /// Returns the addresses and routes of all interfaces that can carry the command's packets, or of `bound`.
    fn ground(&self, cli: &Cli, bound: Option<&Interface>) -> Result<Ground, PlanError> {
        let interfaces = match bound {
            Some(bound) => {
                bound.framing()?;
                vec![bound.clone()]
            }
            None => self.uplinks(),
        };
        let Some(egress) = interfaces.first() else { return Err(PlanError::NoUplink) };
        let mut addresses = Vec::new();
        for interface in &interfaces {
            let own = self.addresses.iter().filter(|address| address.interface == interface.index);
            let own = own.filter(|address| family(cli).includes(address.ip));
            // Of link-local addresses, the device can have those of one link.
            let own = own.filter(|address| interface.index == egress.index || !is_link_local(address.ip));
            addresses.extend(own.map(|address| (address.ip, address.prefix)));
        }
        Ok(Ground {
            addresses: bounded(addresses),
            routes: self.device_routes(cli, &interfaces),
            interfaces,
            assumed: None,
        })
    }

    /// Returns the interfaces with addresses, that of the default route first.
    fn uplinks(&self) -> Vec<Interface> {
        let usable = |interface: &&Interface| {
            interface.up
                && !interface.loopback
                && matches!(interface.framing(), Ok(Framing::Ethernet | Framing::None))
        };
        let has_address = |interface: &&Interface| {
            interface.kind.as_deref() != Some("dummy")
                && self.addresses.iter().any(|a| a.interface == interface.index && !is_link_local(a.ip))
        };
        let default = self.routes.iter().find(|route| route.prefix == 0).map(|route| route.interface);
        let mut uplinks: Vec<_> = self
            .interfaces
            .iter()
            .filter(usable)
            .filter(|i| Some(i.index) == default || has_address(i))
            .cloned()
            .collect();
        uplinks.sort_by_key(|interface| Some(interface.index) != default);
        if uplinks.len() > MAX_INTERFACES {
            log::warn!(
                "of {} interfaces, the command uses {MAX_INTERFACES}; name one with -i",
                uplinks.len()
            );
            uplinks.truncate(MAX_INTERFACES);
        }
        uplinks
    }

    /// Returns the routes through these interfaces, with the source address that the host would choose.
    fn device_routes(&self, cli: &Cli, interfaces: &[Interface]) -> Vec<DeviceRoute> {
        let mut seen = BTreeSet::new();
        let through = |route: &&TableRoute| interfaces.iter().any(|i| i.index == route.interface);
        let wanted = self.routes.iter().filter(through).filter(|r| family(cli).includes(r.destination));
        let routes = wanted.filter_map(|route| {
            let TableRoute { destination, prefix, interface, metric, .. } = *route;
            let chosen = || interface::source_towards(interface, destination).ok().flatten();
            let source = route.source.or_else(chosen)?;
            seen.insert((destination, prefix, metric)).then_some(DeviceRoute {
                destination,
                prefix,
                source,
                metric,
            })
        });
        routes.collect()
    }
}

/// Returns the ground of a command whose source or next hop the user chose: one address, and a route to
/// everything from it.
fn past_the_table(
    cli: &Cli,
    host: &Host,
    bound: Option<&Interface>,
    via: Option<NextHopAddress>,
    source: Option<IpAddr>,
) -> Result<Ground, PlanError> {
    let mut grounds = Vec::new();
    let assumed = assumed(cli)?.map(|(address, mac)| (address.ip(), mac));
    for v4 in [true, false] {
        let fits = |address: IpAddr| address.is_ipv4() == v4;
        let reaches = match via {
            Some(NextHopAddress::Ip(via)) => fits(via),
            _ => true,
        };
        if !source.is_none_or(fits) || !reaches || !family(cli).includes(nowhere(v4)) {
            continue;
        }
        let destination = match (via, source) {
            (Some(NextHopAddress::Ip(via)), _) => via,
            // A neighbour, in its own place.
            (_, Some(source)) => source,
            (_, None) => nowhere(v4),
        };
        let mut query = Query::to(SocketAddr::new(destination, 0), Protocol::Tcp);
        query.interface = bound.map(|interface| interface.index);
        query.source = source.filter(|_| assumed.is_none());
        grounds.push(match (via, assumed, source) {
            (None, None, Some(source)) => own_source(host, bound, source)?,
            _ => one_address(&EgressRequest { query, via, assumed, broadcast: false }.decide()?, host),
        });
    }
    let mut grounds = grounds.into_iter();
    let Some(mut ground) = grounds.next() else {
        return usage("the source, the next hop and -4 or -6 are not of one address family");
    };
    for other in grounds.filter(|other| other.interfaces == ground.interfaces) {
        ground.addresses.extend(other.addresses);
        ground.routes.extend(other.routes);
    }
    Ok(ground)
}

/// Returns the ground of an address of this host's: the routes of the host lead from it.
fn own_source(host: &Host, bound: Option<&Interface>, source: IpAddr) -> Result<Ground, PlanError> {
    let Some(address) = host.addresses.iter().find(|address| address.ip == source) else {
        let scope = bound.map_or(0, |interface| interface.index);
        let all: Vec<_> =
            host.addresses.iter().map(|own| ScopedIp::new(own.ip, own.interface).to_string()).collect();
        return Err(PlanError::NotLocal(ScopedIp::new(source, scope), all.join(", ")));
    };
    let mut interfaces = bound.map_or_else(|| host.uplinks(), |bound| vec![bound.clone()]);
    interfaces.sort_by_key(|interface| interface.index != address.interface);
    let addresses = vec![(source, address.prefix)];
    Ok(Ground { interfaces, addresses, routes: vec![everywhere(source)], assumed: None })
}

fn one_address(egress: &Egress, host: &Host) -> Ground {
    let on_link = |address: &&Address| {
        address.interface == egress.interface.index && address.ip.is_ipv4() == egress.source.is_ipv4()
    };
    let like = host.addresses.iter().find(|address| address.ip == egress.source);
    let prefix = like.or_else(|| host.addresses.iter().filter(on_link).find(|a| a.on_link(egress.source)));
    let full = if egress.source.is_ipv4() { 32 } else { 128 };
    Ground {
        interfaces: vec![egress.interface.clone()],
        addresses: vec![(egress.source, prefix.map_or(full, |address| address.prefix))],
        routes: vec![everywhere(egress.source)],
        assumed: egress.assumed,
    }
}

fn everywhere(source: IpAddr) -> DeviceRoute {
    DeviceRoute { destination: nowhere(source.is_ipv4()), prefix: 0, source, metric: 0 }
}

fn nowhere(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Drops duplicates, and what is beyond the number that the programs compare.
fn bounded(addresses: Vec<(IpAddr, u8)>) -> Vec<(IpAddr, u8)> {
    let (mut seen, mut counts) = (BTreeSet::new(), [0; 2]);
    let kept = addresses.into_iter().filter(|(ip, _)| {
        let Some(count) = counts.get_mut(usize::from(ip.is_ipv6())) else { return false };
        let keep = seen.insert(*ip) && *count < MAX_LOCAL_ADDRESSES;
        *count += usize::from(keep);
        keep
    });
    kept.collect()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
