//! Planning: makes flags and the host's answers into a command that is ready to run.
//!
//! Everything is decided and checked here, before anything is opened.
mod asked;
mod compare;
mod flags;
mod forwards;
mod groups;
mod listen;
mod outputs;
mod ping;
mod remote;
mod run;
mod scan;
mod scope;
mod sniff;
mod sniff_filter;
mod trace;

use crate::{
    cli::Cli,
    commands::{
        Compare, CompareClients, Connect, DatagramConnect, DatagramListen, Listen, PathMtu, PathTrace, Ping,
        Run, Scan, Sniff, list_interfaces,
    },
    host::{
        container,
        interface::{self, InterfaceError},
        resolve::{PortError, ResolveError},
    },
    net::{Protocol, zone::ScopedIp},
    report::{Failure, JsonReport, Verdict, advice},
    runtime::EgressError,
    sniffer::filter::FilterError,
};
use asked::asked;
use compare::{compare, compare_clients};
use flags::{enter_namespace, protocol};
use listen::listen;
use remote::connect;
use run::run;
use scan::scan;
use sniff::{check_line_form, sniff};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// A command that is ready to run.
#[derive(Debug)]
pub struct Plan(Command);

#[derive(Debug)]
enum Command {
    Connect(Connect),
    Listen(Listen),
    Run(Box<Run>),
    DatagramConnect(DatagramConnect),
    DatagramListen(DatagramListen),
    Sniff(Sniff),
    ListInterfaces,
    Scan(Scan),
    Compare(Box<Compare>),
    CompareClients(Box<CompareClients>),
    Trace(Box<PathTrace>),
    Mtu(Box<PathMtu>),
    Ping(Box<Ping>),
}

/// The reason why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Filter(FilterError),
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("{0} is not an address of this host; listen on one of: {1}")]
    NotLocal(ScopedIp, String),
    #[error("cannot listen on {0}: interface lo is down; try: ip link set lo up")]
    LoopbackDown(IpAddr),
    #[error(
        "cannot enter the network namespace {}: {error}; it needs CAP_SYS_ADMIN ({})",
        path.display(),
        container::grant("SYS_ADMIN", &["SYS_ADMIN"]).unwrap_or_else(|| "run with sudo".to_owned())
    )]
    Namespace { path: PathBuf, error: io::Error },
    #[error("cannot tell what process {pid} is: {error}")]
    Process { pid: u32, error: io::Error },
    #[error("no interface of this host is up and has an address that a command could use; name one with -i")]
    NoUplink,
    #[error("no interface of this host is up and has an address to listen on")]
    NowhereToListen,
}

impl From<FilterError> for PlanError {
    fn from(error: FilterError) -> PlanError {
        match error {
            FilterError::Resolve(error) => PlanError::Resolve(error),
            error => PlanError::Filter(error),
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Failure {
        let verdict = match &error {
            PlanError::Usage(_) | PlanError::Port(_) | PlanError::Filter(_) => Verdict::Usage,
            PlanError::Egress(error) => error.into(),
            PlanError::Resolve(_) => Verdict::Name,
            _ => Verdict::Failed,
        };
        let advice = match &error {
            PlanError::Egress(error) => advice::of_egress(error),
            PlanError::Resolve(ResolveError::NotNumeric(_)) => Some("leave out -n to have names looked up"),
            _ => None,
        };
        Failure::new(verdict, &error).with_advice(advice)
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::Usage(text.into()))
}

impl Plan {
    /// Checks where the outputs go. Call it before the first is opened.
    ///
    /// # Errors
    /// Wrong usage: two outputs at one place, or an output that would overwrite the input.
    pub fn check_outputs(cli: &Cli) -> Result<(), Failure> {
        outputs::check(cli).map_err(|error| failure(cli, error))
    }

    /// Plans what the flags ask for, and notes in `report` what that is.
    ///
    /// # Errors
    /// Wrong usage; a host, a port, an interface or a route that is not there.
    pub fn new(cli: &Cli, report: &mut JsonReport) -> Result<Plan, Failure> {
        report.ask(asked(cli));
        Command::new(cli, report).map(Plan).map_err(|error| failure(cli, error))
    }

    /// Runs the command, and notes in `report` how far it comes.
    ///
    /// # Errors
    /// The failure of the run, a signal that ended it included.
    pub fn run(&self, report: &mut JsonReport) -> Result<(), Failure> {
        Ok(match &self.0 {
            Command::Connect(connect) => connect.run(report),
            Command::Listen(listen) => listen.run(report),
            Command::Run(run) => run.run(report),
            Command::DatagramConnect(connect) => connect.run(report),
            Command::DatagramListen(listen) => listen.run(report),
            Command::Sniff(sniff) => sniff.run(),
            Command::ListInterfaces => list_interfaces(),
            Command::Scan(scan) => scan.run(report),
            Command::Compare(compare) => compare.run(report),
            Command::CompareClients(compare) => compare.run(report),
            Command::Trace(trace) => trace.run(report),
            Command::Mtu(mtu) => mtu.run(report),
            Command::Ping(ping) => ping.run(report),
        }?)
    }
}

impl Command {
    fn new(cli: &Cli, report: &mut JsonReport) -> Result<Command, PlanError> {
        if cli.list_interfaces {
            enter_namespace(cli)?;
            return Ok(Command::ListInterfaces);
        }
        check_line_form(cli)?;
        if cli.watches_only() {
            return Ok(Command::Sniff(sniff(cli)?));
        }
        if cli.runs_command() {
            return Ok(Command::Run(Box::new(run(cli)?)));
        }
        check_foreign_values(cli)?;
        if cli.compare && cli.listen {
            return Ok(Command::CompareClients(Box::new(compare_clients(cli)?)));
        }
        if cli.compare {
            return Ok(Command::Compare(Box::new(compare(cli, report)?)));
        }
        if cli.trace {
            return Ok(Command::Trace(Box::new(trace::trace(cli, report)?)));
        }
        if cli.mtu {
            return Ok(Command::Mtu(Box::new(trace::mtu(cli, report)?)));
        }
        if let Some(count) = cli.ping {
            return Ok(Command::Ping(Box::new(ping::ping(cli, count, report)?)));
        }
        if cli.scan {
            return Ok(Command::Scan(scan(cli, report)?));
        }
        Ok(match (cli.listen, protocol(cli)) {
            (false, Protocol::Tcp) => Command::Connect(connect(cli, report)?),
            (true, Protocol::Tcp) => Command::Listen(listen(cli)?),
            (false, Protocol::Udp) => {
                let Connect { target, wait, policy, .. } = connect(cli, report)?;
                Command::DatagramConnect(DatagramConnect { target, wait, policy, delay: cli.delay })
            }
            (true, Protocol::Udp) => {
                let Listen { setup, wait, policy, access, .. } = listen(cli)?;
                Command::DatagramListen(DatagramListen {
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
}

/// Returns the failure of a run that was not planned; that of --run has a status of its own.
fn failure(cli: &Cli, error: PlanError) -> Failure {
    let failure = Failure::from(error);
    if cli.runs_command() { failure.of_command() } else { failure }
}

/// Refuses values that give away nc's or ncat's meaning of a flag.
fn check_foreign_values(cli: &Cli) -> Result<(), PlanError> {
    if let Some(number) = cli.interface.as_deref().filter(|name| value_is_time(name)) {
        return usage(format!(
            "-i {number}: -i names the interface here; a limit to silence (ncat's -i) is --idle-timeout {number}"
        ));
    }
    let proxy =
        cli.hex_dump.as_deref().and_then(Path::to_str).filter(|text| text.parse::<SocketAddr>().is_ok());
    if let Some(address) = proxy {
        return usage(format!(
            "-x {address}: -x names a file for a hex dump here (./{address} if you mean one); proxies (nc's -x) are not supported"
        ));
    }
    Ok(())
}

/// Returns whether the name of an interface is a time, and no interface has it.
fn value_is_time(name: &str) -> bool {
    crate::cli::is_time(name) && interface::by_name(name).is_err()
}
