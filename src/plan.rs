//! Flags and what the host says of them, made into a [`Plan`]: everything is decided and checked before
//! anything is opened.
use crate::{
    cli::{Cli, Feature, Hook},
    host::{
        interface::{self, Address, Interface, InterfaceError},
        missing::Missing,
        resolve::{self, Family, PortError, ResolveError},
        route::Query,
        sandbox::{Sandbox, Task},
        sysctl,
    },
    kernel::{Backend, IpFamily, SniffFilter},
    mode::{
        self, Access, Attempt, Command, Connect, DatagramConnect, DatagramListen, EgressError, Hop, Listen,
        PROBE_BUFFER, Policy, Recording, Report, Scan, Setup, Sniff, Source, Verdict, Wish,
    },
    net::{MacAddr, Protocol},
    recovery::Algorithm,
    sniffer::{
        sink::{Form, Output, Show},
        tap::Watch,
    },
    stack::Settings,
};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

/// How long to try to connect unless -w says otherwise.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How many processes --exec runs at once unless --max-conns says otherwise (ncat's default).
const MAX_PROCESSES: usize = 100;
/// The TTL and hop limit of Linux (net.ipv4.ip_default_ttl, net.ipv6.conf.all.hop_limit).
const HOP_LIMIT: u8 = 64;

/// What to do.
#[derive(Debug)]
pub enum Plan {
    Connect(Connect),
    Listen(Listen),
    DatagramConnect(DatagramConnect),
    DatagramListen(DatagramListen),
    Sniff(Sniff),
    Scan(Scan),
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
    Egress(#[from] EgressError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("{0} is not an address of this host; listen on one of: {1}")]
    NotLocal(IpAddr, String),
    #[error("no interface of this host is up and has an address to listen on")]
    NowhereToListen,
}

impl PlanError {
    pub fn verdict(&self) -> Verdict {
        match self {
            PlanError::Usage(_) | PlanError::Port(_) => Verdict::Usage,
            PlanError::Egress(error) => error.into(),
            _ => Verdict::Failed,
        }
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::Usage(text.into()))
}

impl Plan {
    /// Decides what `cli` asks for.
    pub fn new(cli: &Cli) -> Result<Plan, PlanError> {
        if cli.watches_only() {
            return Ok(Plan::Sniff(sniff(cli)?));
        }
        habits(cli)?;
        if let Some(flag) = sniffing_flag(cli) {
            return usage(format!("{flag} is for --sniff and --read"));
        }
        if cli.udp && (cli.exec.is_some() || cli.sh_exec.is_some() || cli.max_conns.is_some()) {
            return usage(
                "--exec, --sh-exec and --max-conns are for TCP; with -u, use -k to serve several peers",
            );
        }
        if cli.udp && cli.reject {
            return usage(
                "--reject answers by a reset, which UDP does not have; without it, others get no answer",
            );
        }
        if cli.scan {
            return Ok(Plan::Scan(scan(cli)?));
        }
        Ok(match (cli.listen, protocol(cli)) {
            (false, Protocol::Tcp) => Plan::Connect(connect(cli)?),
            (true, Protocol::Tcp) => Plan::Listen(listen(cli)?),
            (false, Protocol::Udp) => {
                let Connect { attempts, wait, policy, .. } = connect(cli)?;
                Plan::DatagramConnect(DatagramConnect { attempts, wait, policy, delay: cli.delay })
            }
            (true, Protocol::Udp) => {
                let Listen { setup, wait, policy, access, .. } = listen(cli)?;
                Plan::DatagramListen(DatagramListen {
                    setup,
                    access,
                    wait,
                    keep_open: cli.keep_open,
                    policy,
                    delay: cli.delay,
                })
            }
        })
    }

    /// Does it, and says in `report` how far it came.
    pub fn run(&self, report: &mut Report) -> Result<(), mode::Error> {
        match self {
            Plan::Connect(connect) => connect.run(report),
            Plan::Listen(listen) => listen.run(report),
            Plan::DatagramConnect(connect) => connect.run(report),
            Plan::DatagramListen(listen) => listen.run(report),
            Plan::Sniff(sniff) => sniff.run(),
            Plan::Scan(scan) => scan.run(report),
        }
    }
}

/// What --sniff and --read ask for.
fn sniff(cli: &Cli) -> Result<Sniff, PlanError> {
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
        Some(host) => resolve::addresses(host, 0, family(cli), cli.numeric)?.first().map(SocketAddr::ip),
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
            "--json={}: packets are shown on standard output; redirect it",
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
    let form = if cli.json.is_some() { Form::Json } else { Form::Line };
    let show = Show { form, payload: cli.payload, interface: several };
    Ok(Sniff {
        source,
        filter: SniffFilter { protocol, family, host, port },
        output: Output { show: shown.then_some(show), record: cli.pcap.clone() },
        count: cli.count,
        missing: missing(cli),
        sandbox: sandbox(cli, if cli.read.is_some() { Task::Replay } else { Task::Sniff }),
    })
}

/// A flag that only a sniffer can honour.
fn sniffing_flag(cli: &Cli) -> Option<&'static str> {
    let given = [("--tcp", cli.tcp), ("--promiscuous", cli.promiscuous), ("--count", cli.count.is_some())];
    given.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
}

/// Values that mean something else to nc or ncat.
fn habits(cli: &Cli) -> Result<(), PlanError> {
    if let Some(number) = cli.interface.as_deref().filter(|name| value_is_time(name)) {
        return usage(format!(
            "-i {number}: -i names the interface here; a limit to silence (ncat's -i) is --idle-timeout {number}"
        ));
    }
    if cli.append_output && cli.output.is_none() && cli.hex_dump.is_none() {
        return usage("--append-output: name the file with -o or -x");
    }
    let proxy =
        cli.hex_dump.as_deref().and_then(Path::to_str).filter(|text| text.parse::<SocketAddr>().is_ok());
    if let Some(address) = proxy {
        return usage(format!(
            "-x {address}: -x names a file for a hex dump here (./{address} if you mean one); proxies (nc's -x) are not spoken to"
        ));
    }
    Ok(())
}

/// Whether a name of an interface looks like a time, and no interface has it.
fn value_is_time(name: &str) -> bool {
    crate::cli::is_time(name) && interface::by_name(name).is_err()
}

fn connect(cli: &Cli) -> Result<Connect, PlanError> {
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
        recording: recording(cli),
    })
}

fn scan(cli: &Cli) -> Result<Scan, PlanError> {
    let (host, ports) = remote_target(cli)?;
    let ports = resolve::ports(ports, protocol(cli))?;
    // A policy rule may look at the port; all probes go the first one's way.
    let mut attempts = attempts(cli, host, ports.first().copied().unwrap_or_default())?;
    for attempt in &mut attempts {
        attempt.setup.remote = Some(SocketAddr::new(attempt.remote.ip(), 0));
        attempt.setup.settings.send_buffer = PROBE_BUFFER;
        attempt.setup.settings.receive_buffer = PROBE_BUFFER;
    }
    Ok(Scan { protocol: protocol(cli), attempts, ports, wait: cli.wait.unwrap_or(CONNECT_WAIT) })
}

fn remote_target(cli: &Cli) -> Result<(&str, &str), PlanError> {
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

/// An IPv6 address without the brackets that URLs put around it.
fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| inner.contains(':')).unwrap_or(host)
}

/// The ways to every address of the host that there is a way to; at least one.
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

/// Asks the kernel for the way to one address.
fn attempt(
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
        return usage(format!("--as: the address to be and {} are not of one family", remote.ip()));
    }
    let wish = Wish { query, via: via(cli)?, persona };
    let egress = wish.decide()?;
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
    Ok(Attempt { remote, wish, egress, setup })
}

/// What the flags alone decide.
fn setup(cli: &Cli) -> Setup {
    Setup {
        protocol: protocol(cli),
        local: Vec::new(),
        port: 0,
        lease: Vec::new(),
        remote: None,
        interfaces: Vec::new(),
        persona: None,
        hears_neighbours: true,
        backend: backend(cli),
        vnet_header: !cli.no_vnet_header,
        missing: missing(cli),
        segmentation: !cli.no_gso,
        settings: settings(cli),
        watch: watch(cli),
        sandbox: sandbox(cli, Task::Relay),
    }
}

/// What is given up once everything is open.
fn sandbox(cli: &Cli, task: Task) -> Sandbox {
    let processes = cli.exec.is_some() || cli.sh_exec.is_some();
    Sandbox { task: if processes { Task::Processes } else { task }, enabled: !cli.no_sandbox }
}

/// What is shown and recorded of a connection's frames.
fn watch(cli: &Cli) -> Watch {
    let form = if cli.json.is_some() { Form::Json } else { Form::Line };
    let show = Show { form, payload: cli.payload, interface: false };
    let shown = cli.debug || cli.payload;
    Watch::new(Output { show: shown.then_some(show), record: cli.pcap.clone() })
}

/// The next hop that --via names: an address, or a MAC address.
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

fn persona(cli: &Cli) -> Result<Option<(IpAddr, Option<MacAddr>)>, PlanError> {
    let Some(address) = cli.impersonate else { return Ok(None) };
    if cli.source.is_some() {
        return usage("--as and -s both name a source address; name one");
    }
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return usage(format!("--as {address}: no host can have that address"));
    }
    if cli.as_mac.is_some_and(|mac| mac.0[0] & 1 != 0) {
        return usage("--as-mac: a host's address is not a group's; its first byte must be even");
    }
    Ok(Some((address, cli.as_mac)))
}

fn listen(cli: &Cli) -> Result<Listen, PlanError> {
    let (address, port) = listening_target(cli)?;
    let port = resolve::port(port, protocol(cli))?;
    if let Some(persona) = persona(cli)? {
        return listen_as(cli, persona, address, port);
    }
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
    serve(cli, Setup { local, port, lease, interfaces, ..setup(cli) })
}

/// Listening at an address that is not this host's.
fn listen_as(
    cli: &Cli,
    persona: (IpAddr, Option<MacAddr>),
    address: Option<&str>,
    port: u16,
) -> Result<Listen, PlanError> {
    if let Some(address) = address {
        return usage(format!(
            "-l {address} and --as {} both name an address to listen on; name one",
            persona.0
        ));
    }
    let mut query = Query::to(SocketAddr::new(persona.0, port), protocol(cli));
    query.interface = cli.interface.as_deref().map(interface::by_name).transpose()?.map(|i| i.index);
    let egress = Wish { query, via: None, persona: Some(persona) }.decide()?;
    let setup = Setup {
        local: vec![persona.0],
        port,
        interfaces: vec![egress.interface],
        persona: egress.persona,
        ..setup(cli)
    };
    serve(cli, setup)
}

/// Whom to serve, and with what.
fn serve(cli: &Cli, setup: Setup) -> Result<Listen, PlanError> {
    let command = command(cli)?;
    let at_once = if command.is_some() { MAX_PROCESSES } else { 1 };
    Ok(Listen {
        recording: recording(cli),
        setup,
        wait: cli.wait,
        policy: policy(cli),
        access: access(cli)?,
        keep_open: cli.keep_open.then(|| cli.max_conns.map_or(at_once, |n| n as usize)),
        command,
    })
}

fn command(cli: &Cli) -> Result<Option<Command>, PlanError> {
    let (flag, command) = match (&cli.exec, &cli.sh_exec) {
        (Some(text), _) => ("--exec", Command::program(text)),
        (None, Some(text)) => ("--sh-exec", Command::shell(text)),
        (None, None) => return Ok(None),
    };
    command.map(Some).or_else(|error| usage(format!("{flag}: {error}")))
}

fn access(cli: &Cli) -> Result<Access, PlanError> {
    Ok(Access { allow: networks(cli, &cli.allow)?, deny: networks(cli, &cli.deny)?, reject: cli.reject })
}

/// Networks in CIDR notation, addresses, and the addresses that names have now.
fn networks(cli: &Cli, texts: &[String]) -> Result<Vec<IpNet>, PlanError> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts.iter().map(|text| text.trim()) {
        match text.parse::<IpNet>() {
            Ok(network) => networks.push(network),
            Err(_) if text.is_empty() || text.contains('/') => {
                return usage(format!("\"{text}\" is not a network; write it as 10.0.0.0/8 or fd00::/8"));
            }
            Err(_) => {
                let found = resolve::addresses(text, 0, Family::Any, cli.numeric)?;
                networks.extend(found.iter().map(|address| IpNet::from(address.ip())));
            }
        }
    }
    Ok(networks)
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

fn missing(cli: &Cli) -> Missing {
    let lacks = |feature| cli.without.contains(&feature);
    Missing {
        tcx: lacks(Feature::Tcx),
        before: lacks(Feature::Before),
        vnet_header: lacks(Feature::VnetHeader),
    }
}

fn settings(cli: &Cli) -> Settings {
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

/// What the kernel's own connections use, where we have it, too.
fn system_congestion() -> Algorithm {
    let name = sysctl::tcp_congestion_control().ok();
    name.and_then(|name| name.parse().ok()).unwrap_or(Algorithm::Cubic)
}

fn recording(cli: &Cli) -> Recording {
    Recording {
        crlf: cli.crlf,
        delay: cli.delay,
        output: cli.output.clone(),
        hex_dump: cli.hex_dump.clone(),
        append: cli.append_output,
        progress: cli.progress,
    }
}

fn policy(cli: &Cli) -> Policy {
    Policy {
        no_shutdown: cli.no_shutdown,
        quit_after: cli.quit_after,
        idle_timeout: cli.idle_timeout,
        send_only: cli.send_only,
        receive_only: cli.recv_only,
    }
}
