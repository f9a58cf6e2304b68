//! Scanning (`-z`): probes which ports of which hosts answer.
//!
//! All probes leave from one local port, so that one guard drops the kernel's copy of every answer, and one sandbox is
//! entered before the first; a bounded number is in flight. Results are printed in the order of hosts and ports, each as
//! soon as those before it are known. A port that is not open at one of a name's addresses is tried at the next.
mod neighbours;
mod pace;
mod patience;
mod payload;
mod pending;
mod queue;
mod results;
mod round;
mod routes;
mod tcp;
mod udp;

use crate::{
    net::{Protocol, count, zone::scoped},
    report::{Error, Failure, JsonReport, Tried, Verdict},
    runtime::{EgressRequest, Engine, ManyEnds, Setup, assume},
};
use queue::{Probe, Queue};
use results::Results;
use routes::Routes;
use std::{net::SocketAddr, ops::Range, rc::Rc, time::Duration};

pub(crate) use patience::{Patience, Wanted};

/// Maximum probes in flight: 1,000 ports of a silent host take two rounds.
const IN_FLIGHT: usize = 500;
/// Maximum probes that begin in one turn. Their answers are taken after it, so a round trip is as exact as a turn is short.
const BATCH: usize = 8;
/// Buffers of a probe, in bytes: a service may send a greeting, which nothing reads.
pub(crate) const PROBE_BUFFER: usize = 16 << 10;
/// Maximum targets, a target being a port of a host.
pub(crate) const MAX_SCAN_TARGETS: usize = 65_536;

/// Ports of hosts to probe.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub protocol: Protocol,
    /// The hosts as typed.
    pub typed: String,
    /// The hosts in the order of their results, at least one.
    pub hosts: Vec<ScannedHost>,
    /// There may be several hosts: each has results of its own, whatever becomes of the others.
    pub several: bool,
    /// The addresses of all hosts, as requests for the routes to them.
    pub requests: Vec<EgressRequest>,
    /// Further addresses of a single host, which nothing can be sent to.
    pub unusable: Vec<Tried>,
    /// The engine's parameters; port and routes complete them.
    pub setup: Setup,
    /// The ports in the order of their results, at least one; with the hosts at most [`MAX_SCAN_TARGETS`] together.
    pub ports: Vec<u16>,
    /// Longest wait for each port's answer.
    pub wait: Duration,
    /// Maximum probes a second.
    pub rate: Option<u32>,
    /// Probe ports again that are not as wanted.
    pub patience: Option<Patience>,
}

/// A host to probe.
#[derive(Clone, Debug)]
pub(crate) struct ScannedHost {
    /// The name, if it was not typed as an address.
    pub name: Option<Rc<str>>,
    /// The numbers of its addresses among those of all hosts.
    pub addresses: Range<usize>,
    /// The reason why it has no address.
    pub failure: Option<(Rc<str>, Verdict)>,
}

impl Scan {
    /// Probes all ports. Succeeds if a port is open, or, where they were waited for, if all are as wanted.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let chosen = ManyEnds::choose(&self.requests, &self.ports, &self.setup);
        let ManyEnds { port, mut setup, egresses, ways } = chosen.inspect_err(|_| {
            self.requests.first().into_iter().for_each(|request| report.attempt(remote(request, 0)));
        })?;
        let routes = Routes { protocol: self.protocol, requests: &self.requests, egresses, ways };
        if routes.is_empty() && !self.several {
            return Err(self.fail(routes.into_failures(), report));
        }
        for error in self.unusable.iter().filter_map(|tried| tried.error.as_deref()) {
            log::warn!("{error}");
        }
        let mut results = Results::new(self, report)?;
        let Some(port) = port else {
            // Nothing can be sent.
            let mut queue = Queue::new(self, routes);
            queue.drain(&mut results);
            results.print()?;
            return results.conclude_all();
        };
        setup.hears_neighbours = routes.need_neighbours();
        let mut engine = Engine::open(&setup, port)?;
        let mut queue = Queue::new(self, routes);
        engine.enter_sandbox()?;
        if let Some(assumed) = setup.assumed {
            assume::assume(&mut engine, assumed)?;
        }
        results.waiting.begin(engine.reactor.now());
        log::info!("probing {} of {}", count(self.ports.len() as u64, "port"), self.typed);
        let result = match self.protocol {
            Protocol::Tcp => tcp::run(&mut engine, &mut queue, &mut results),
            Protocol::Udp => udp::run(&mut engine, &mut queue, &mut results),
        };
        match result {
            Ok(()) => results.print()?,
            Err(error) => {
                if !matches!(error, Error::Stdio(_)) {
                    results.print_known()?;
                }
                return Err(error);
            }
        }
        if self.several || queue.has_sent {
            return results.conclude_all();
        }
        let mut failures = queue.routes.into_failures();
        failures.append(&mut queue.failures);
        Err(self.fail(failures, results.report))
    }

    /// Returns the error of a single host that nothing could be sent to: for several addresses one for all; for a single
    /// one its own.
    fn fail(&self, mut failures: Vec<(SocketAddr, Error)>, report: &mut JsonReport) -> Error {
        failures.dedup_by_key(|(remote, _)| remote.ip());
        let port = self.port(0);
        let remotes = failures.iter().map(|(remote, error)| (with_port(*remote, port), error));
        if !self.is_choice()
            && let [(remote, _)] = failures[..]
        {
            report.attempt(with_port(remote, port));
            let own = failures.pop().map(|(_, error)| error);
            return own.unwrap_or_else(|| report.none_reached(&self.typed));
        }
        let tried: Vec<_> =
            remotes.map(|(remote, error)| Tried::failed(remote, &Failure::of(error))).collect();
        report.tried(tried.into_iter().chain(self.unusable.iter().cloned()));
        report.none_reached(&self.typed)
    }

    /// Returns whether a single host has several addresses.
    fn is_choice(&self) -> bool {
        !self.several && self.requests.len() + self.unusable.len() > 1
    }

    /// Returns the number of targets.
    fn targets(&self) -> usize {
        self.hosts.len() * self.ports.len()
    }

    fn host(&self, target: usize) -> Option<&ScannedHost> {
        self.hosts.get(target / self.ports.len().max(1))
    }

    /// Returns the port of a target.
    fn port(&self, target: usize) -> u16 {
        self.ports.get(target % self.ports.len().max(1)).copied().unwrap_or_default()
    }

    /// Returns the numbers of the addresses of a target's host.
    fn addresses(&self, target: usize) -> Range<usize> {
        self.host(target).map_or(0..0, |host| host.addresses.clone())
    }

    /// Returns the name of a target's host, if it was not typed as an address.
    fn name(&self, target: usize) -> Option<Rc<str>> {
        self.host(target)?.name.clone()
    }

    /// Returns name and error of a target's host that has no address.
    fn unusable(&self, target: usize) -> (String, Error) {
        let host = self.host(target);
        let name = host.and_then(|host| host.name.as_deref()).unwrap_or(&self.typed).to_owned();
        let failure = host.and_then(|host| host.failure.as_ref());
        let (text, verdict) = failure.map_or_else(
            || ("it has no address".to_owned(), Verdict::Failed),
            |(text, verdict)| (text.to_string(), *verdict),
        );
        (name, Error::Unusable { text, verdict })
    }

    /// Returns the remote end of a probe, as the request has it.
    fn remote(&self, probe: Probe) -> SocketAddr {
        let port = self.port(probe.target);
        self.requests
            .get(probe.address)
            .map_or_else(|| SocketAddr::from(([0, 0, 0, 0], port)), |request| remote(request, port))
    }
}

fn remote(request: &EgressRequest, port: u16) -> SocketAddr {
    scoped(request.query.destination, port, request.query.interface.unwrap_or_default())
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}
