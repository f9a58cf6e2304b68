//! The results of a scan: their order, their lines and objects, and the result of all together.
use super::{
    Scan,
    patience::{Waiting, Wanted},
};
use crate::{
    commands::text_output,
    net::Protocol,
    report::{Error, JsonReport, ProbedPort, Verdict, Waited},
    stdio::{self, Writer},
};
use std::{
    collections::{HashMap, VecDeque},
    io::Write,
    net::SocketAddr,
    time::Duration,
};

/// The results so far.
pub(super) struct Results<'r> {
    protocol: Protocol,
    pub(super) report: &'r mut JsonReport,
    /// `None` if JSON objects take the lines' place.
    output: Option<Writer>,
    known: HashMap<u16, Probed>,
    /// Failures at earlier addresses of ports that are tried again.
    earlier: HashMap<u16, Probed>,
    /// Ports whose line is not printed yet.
    unprinted: VecDeque<u16>,
    /// No address follows: a failure is final.
    pub(super) last: bool,
    pub(super) waiting: Waiting,
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
    pub(super) fn new<'r>(scan: &Scan, report: &'r mut JsonReport) -> Result<Results<'r>, Error> {
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

    /// Returns whether a result of the port is known.
    pub(super) fn knows(&self, port: u16) -> bool {
        self.known.contains_key(&port)
    }

    /// Returns whether no result is known.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn is_open(&self, port: u16) -> bool {
        self.known.get(&port).is_some_and(|probed| probed.result.is_ok())
    }

    /// Notes the result of a probe, which is the port's unless the port is probed again.
    pub(super) fn note(
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
    pub(super) fn conclude_port(
        &mut self,
        at: SocketAddr,
        result: Result<(), Error>,
        round_trip: Option<Duration>,
    ) {
        let waited = self.waiting.of(at.port()).cloned();
        let mut probed = Probed { at, result, round_trip, waited, reported: false };
        if probed.result.is_ok() || self.last {
            probed.report(self.report, self.protocol);
        }
        self.known.insert(at.port(), probed);
    }

    /// Writes the objects of ports whose failure has become final, since no address follows.
    pub(super) fn report_failures(&mut self) {
        for probed in self.known.values_mut() {
            probed.report(self.report, self.protocol);
        }
    }

    /// Prints final results, up to the first port without one.
    pub(super) fn print(&mut self) -> Result<(), Error> {
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
    pub(super) fn print_known(&mut self) -> Result<(), Error> {
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
    pub(super) fn retry_failures(&mut self) {
        self.earlier.extend(self.known.extract_if(|_, probed| probed.result.is_err()));
    }

    /// Returns the result of all ports together.
    pub(super) fn conclude(mut self) -> Result<(), Error> {
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
