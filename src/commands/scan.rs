//! Scanning (`-z`): probes which ports answer, without sending data.
//!
//! All probes leave from one local port, so that one guard drops the kernel's copy of every answer; a
//! bounded number is in flight. Results are printed in the order of the ports, each as soon as those before
//! it are known.
mod patience;
mod tcp;
mod udp;

use super::{
    attempt::{Attempt, Opened, Origin, Target},
    text_output,
};
use crate::{
    net::{Protocol, count, zone::ScopedIp},
    report::{Error, JsonReport, ProbedPort, Verdict, Waited},
    runtime,
    stdio::{self, Writer},
};
use patience::Waiting;
use std::{
    collections::{HashMap, VecDeque},
    io::Write,
    net::SocketAddr,
    time::Duration,
};

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
        if results.known.is_empty() {
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
        ports.retain(|port| !results.known.contains_key(port));
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

/// The results so far.
struct Results<'r> {
    protocol: Protocol,
    report: &'r mut JsonReport,
    /// `None` if JSON objects take the lines' place.
    output: Option<Writer>,
    known: HashMap<u16, Probed>,
    /// Failures at earlier addresses of ports that are tried again.
    earlier: HashMap<u16, Probed>,
    /// Ports whose line is not printed yet.
    unprinted: VecDeque<u16>,
    /// No address follows: a failure is final.
    last: bool,
    waiting: Waiting,
}

/// The result of a port.
struct Probed {
    at: SocketAddr,
    result: Result<(), Error>,
    /// From the only probe to its answer.
    round_trip: Option<Duration>,
    /// The wait for the port's state.
    waited: Option<Waited>,
    /// The port's own object is written.
    reported: bool,
}

impl Results<'_> {
    fn new<'r>(scan: &Scan, report: &'r mut JsonReport) -> Result<Results<'r>, Error> {
        let output = text_output(report)?;
        let unprinted = scan.ports.iter().copied().collect();
        let (known, earlier) = (HashMap::new(), HashMap::new());
        let waiting = Waiting::new(scan.patience);
        Ok(Results {
            protocol: scan.protocol,
            report,
            output,
            known,
            earlier,
            unprinted,
            last: false,
            waiting,
        })
    }

    fn is_open(&self, port: u16) -> bool {
        self.known.get(&port).is_some_and(|probed| probed.result.is_ok())
    }

    /// Notes the result of a probe, which is the port's unless the port is probed again.
    fn note(
        &mut self,
        now: Duration,
        at: SocketAddr,
        result: Result<(), Error>,
        round_trip: Option<Duration>,
    ) {
        if self.waiting.goes_on(now, at.port(), &result) {
            let state = ProbedPort::new(at, self.protocol, result.as_ref().copied(), round_trip, None);
            log::info!("{}, probing again", state.sentence());
        } else {
            self.conclude_port(at, result, round_trip);
        }
    }

    /// Notes the result of a port, and writes its object if the result is final.
    fn conclude_port(&mut self, at: SocketAddr, result: Result<(), Error>, round_trip: Option<Duration>) {
        let waited = self.waiting.of(at.port()).cloned();
        let mut probed = Probed { at, result, round_trip, waited, reported: false };
        if probed.result.is_ok() || self.last {
            probed.report(self.report, self.protocol);
        }
        self.known.insert(at.port(), probed);
    }

    /// Writes the objects of ports whose failure has become final, since no address follows.
    fn report_failures(&mut self) {
        for probed in self.known.values_mut() {
            probed.report(self.report, self.protocol);
        }
    }

    /// Prints final results, up to the first port without one.
    fn print(&mut self) -> Result<(), Error> {
        let mut lines = String::new();
        while let Some(probed) = self.unprinted.front().and_then(|port| self.known.get_mut(port))
            && (probed.result.is_ok() || self.last)
        {
            lines.push_str(&probed.conclude(self.report, self.protocol));
            self.unprinted.pop_front();
        }
        self.write(&lines)
    }

    /// Prints every result so far, past the ports without one.
    fn print_known(&mut self) -> Result<(), Error> {
        let mut lines = String::new();
        for port in &self.unprinted {
            if let Some(probed) = self.known.get_mut(port).or_else(|| self.earlier.get_mut(port)) {
                lines.push_str(&probed.conclude(self.report, self.protocol));
            }
        }
        self.write(&lines)
    }

    fn write(&mut self, lines: &str) -> Result<(), Error> {
        match &mut self.output {
            None => Ok(()),
            Some(output) => Ok(output.write_all(lines.as_bytes()).map_err(stdio::Error::Output)?),
        }
    }

    /// Puts the failures of one address aside, since these ports are tried at the next.
    fn retry_failures(&mut self) {
        self.earlier.extend(self.known.extract_if(|_, probed| probed.result.is_err()));
    }

    /// Returns the result of all ports together.
    fn conclude(mut self) -> Result<(), Error> {
        let ports = self.known.len();
        if let Some(patience) = self.waiting.patience.filter(|patience| patience.all) {
            return self.conclude_wait(patience.wanted);
        }
        let mut failures = Vec::with_capacity(ports);
        for (_, Probed { at, result, .. }) in self.known.drain() {
            match result {
                Ok(()) => return Ok(()),
                Err(error) => failures.push((at, error)),
            }
        }
        let Some((at, error)) = failures.pop() else { return Ok(()) };
        if failures.is_empty() {
            return Err(error);
        }
        let verdict = Verdict::from(&error);
        let alike = failures.iter().all(|(_, error)| Verdict::from(error) == verdict);
        let verdict = if alike { verdict } else { Verdict::Failed };
        Err(Error::NothingOpen { address: at.into(), ports, verdict })
    }
}

impl Results<'_> {
    /// Returns the result of a wait for all ports.
    fn conclude_wait(mut self, wanted: Wanted) -> Result<(), Error> {
        let of = self.known.len();
        let left: Vec<_> = self
            .known
            .drain()
            .map(|(_, probed)| (probed.at, probed.result))
            .filter(|(_, result)| !wanted.is_shown_by(result))
            .collect();
        let ports = left.len();
        let mut verdicts: Vec<Verdict> = left
            .iter()
            .map(|(_, result)| result.as_ref().err().map_or(Verdict::Failed, Verdict::from))
            .collect();
        verdicts.dedup();
        let verdict = if let [one] = verdicts[..] { one } else { Verdict::Failed };
        match left.into_iter().next() {
            None => Ok(()),
            Some((_, Err(error))) if of == 1 => Err(error),
            Some((at, _)) => Err(Error::NotAsWanted {
                address: at.into(),
                ports,
                of,
                wanted: if wanted == Wanted::Open { "open" } else { "closed" },
                verdict,
            }),
        }
    }
}

impl Probed {
    fn as_port(&self, protocol: Protocol) -> ProbedPort {
        ProbedPort::new(
            self.at,
            protocol,
            self.result.as_ref().copied(),
            self.round_trip,
            self.waited.clone(),
        )
    }

    /// Writes the port's own object, once.
    fn report(&mut self, report: &mut JsonReport, protocol: Protocol) {
        if !std::mem::replace(&mut self.reported, true) {
            report.probed(&self.as_port(protocol));
        }
    }

    /// Notes the port in the run's object, and returns its line.
    fn conclude(&mut self, report: &mut JsonReport, protocol: Protocol) -> String {
        self.report(report, protocol);
        let port = self.as_port(protocol);
        let line = format!("{port}\n");
        report.port(port);
        line
    }
}
