//! Scanning (`-z`): probes which ports answer, without sending data.
//!
//! All probes leave from one local port, so that one guard drops the kernel's copy of every answer; a
//! bounded number is in flight. Results are printed in the order of the ports, each as soon as those before
//! it are known.
mod patience;
mod payload;
mod results;
mod tcp;
mod udp;

use super::{
    attempt::{Attempt, Opened, Origin},
    target::Target,
};
use crate::{
    net::{Protocol, count, zone::ScopedIp},
    report::{Error, JsonReport},
    runtime,
};
use results::Results;
use std::{collections::VecDeque, time::Duration};

pub(crate) use patience::{Patience, Wanted};

/// Maximum probes in flight: 1,000 ports of a silent host take two rounds.
const IN_FLIGHT: usize = 500;
/// Buffers of a probe, in bytes: a service may send a greeting, which nothing reads.
pub(crate) const PROBE_BUFFER: usize = 16 << 10;

/// Ports to probe.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub protocol: Protocol,
    /// The host. A port that is not open at one of its addresses is tried at the next.
    pub target: Target,
    /// The ports in the order of their results, at least one.
    pub ports: Vec<u16>,
    /// Longest wait for each port's answer.
    pub wait: Duration,
    /// Probe ports again that are not as wanted.
    pub patience: Option<Patience>,
}

impl Scan {
    /// Probes all ports at all addresses. Succeeds if a port is open.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        // A wait for ports holds what its engine has opened, which one address fills.
        let attempts = match self.patience {
            Some(_) => self.target.attempts.get(..1).unwrap_or_default(),
            None => &self.target.attempts,
        };
        if attempts.is_empty() {
            return Err(self.target.fail_with(Vec::new(), report));
        }
        for error in self.target.unusable.iter().filter_map(|tried| tried.error.as_deref()) {
            log::warn!("{error}");
        }
        let mut results = Results::new(self, report)?;
        let mut attempts = attempts.iter().peekable();
        let mut failures = Vec::new();
        while let Some(attempt) = attempts.next() {
            results.last = attempts.peek().is_none();
            match self.sweep(attempt, &mut results) {
                Ok(()) => {}
                Err(error) if error.signal().is_some() => {
                    results.print_known()?;
                    return Err(error);
                }
                Err(error) if matches!(error, Error::Stdio(_)) => return Err(error),
                Err(error) => failures.push((attempt.remote, error)),
            }
        }
        if results.is_empty() {
            return Err(self.target.fail_with(failures, results.report));
        }
        for (_, error) in &failures {
            match lacks_route(error) {
                true => log::info!("{error}"),
                false => log::warn!("{error}"),
            }
        }
        results.last = true;
        results.report_failures();
        results.print()?;
        results.conclude()
    }

    /// Probes, at one address, the ports that are not known to be open.
    fn sweep(&self, attempt: &Attempt, results: &mut Results<'_>) -> Result<(), Error> {
        let mut ports: VecDeque<u16> =
            self.ports.iter().copied().filter(|port| !results.is_open(*port)).collect();
        let Opened { mut engine, mut origin } =
            attempt.open(ports.make_contiguous(), self.wait, results.report)?;
        results.retry_failures();
        if results.last {
            engine.enter_sandbox()?;
        }
        results.waiting.begin(engine.reactor.now());
        for (port, error) in std::mem::take(&mut origin.unreachable) {
            results.conclude_port(origin.remote(port), Err(error), None);
        }
        ports.retain(|port| !results.knows(*port));
        let probes = count(ports.len() as u64, "port");
        log::info!("probing {probes} of {}", ScopedIp::from(origin.remote(0)));
        let sweep = Sweep { origin, wait: self.wait, ports };
        match self.protocol {
            Protocol::Tcp => tcp::run(&mut engine, sweep, results),
            Protocol::Udp => udp::run(&mut engine, sweep, results),
        }
    }
}

/// Returns whether no route leads to the address of the attempt that failed.
fn lacks_route(error: &Error) -> bool {
    matches!(error, Error::Runtime(runtime::Error::Egress(_)))
}

/// The probes of one address.
struct Sweep {
    origin: Origin,
    wait: Duration,
    /// Ports that are not probed yet.
    ports: VecDeque<u16>,
}
