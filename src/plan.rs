//! Flags and what the host says of them, made into a [`Plan`]: everything is decided and checked before
//! anything is opened.
mod flags;
mod listen;
mod remote;
mod sniff;

use crate::{
    cli::Cli,
    commands::{Connect, DatagramConnect, DatagramListen, Listen, Scan, Sniff},
    host::{
        interface::{self, InterfaceError},
        resolve::{PortError, ResolveError},
    },
    net::Protocol,
    report::{self, Report, Verdict},
    runtime::EgressError,
};
use flags::protocol;
use listen::listen;
use remote::{connect, scan};
use sniff::{sniff, sniffing_flag};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

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
    pub fn run(&self, report: &mut Report) -> Result<(), report::Error> {
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
