//! The results of a scan: their order, their lines and objects, and the result of all together.
use super::{
    Scan,
    patience::{Waiting, Wanted},
    queue::Probe,
};
use crate::{
    commands::text_output,
    net::{count, zone::ScopedIp},
    report::{Error, JsonReport, ProbedPort, Verdict, Waited},
    stdio::{self, Writer},
};
use std::{collections::HashMap, io::Write, net::SocketAddr, time::Duration};

/// The results so far.
pub(super) struct Results<'r> {
    scan: &'r Scan,
    pub(super) report: &'r mut JsonReport,
    /// `None` if JSON objects take the lines' place.
    output: Option<Writer>,
    /// Final results whose line is not printed yet, by target.
    known: HashMap<usize, Probed>,
    /// Failures at earlier addresses of targets that are tried at the next.
    earlier: HashMap<usize, Probed>,
    /// The first target whose line is not printed.
    unprinted: usize,
    tally: Tally,
    pub(super) waiting: Waiting,
}

/// The result of a target.
struct Probed {
    /// The address, or the name of a host without one.
    at: String,
    result: Result<(), Error>,
    /// From the only probe to its answer.
    round_trip: Option<Duration>,
    /// The wait for the port's state.
    waited: Option<Waited>,
}

/// The sums of all results.
#[derive(Default)]
struct Tally {
    open: usize,
    /// Targets that are not as wanted, and the verdict on them if it is one.
    others: usize,
    verdict: Option<Verdict>,
    /// The address of the last of these.
    at: Option<String>,
    /// The error of the only target.
    only: Option<Error>,
}

impl<'r> Results<'r> {
    pub(super) fn new(scan: &'r Scan, report: &'r mut JsonReport) -> Result<Results<'r>, Error> {
        let output = text_output(report)?;
        Ok(Results {
            scan,
            report,
            output,
            known: HashMap::new(),
            earlier: HashMap::new(),
            unprinted: 0,
            tally: Tally::default(),
            waiting: Waiting::new(scan.patience),
        })
    }

    /// Notes the result of a probe, which is the target's unless the target is probed again. Returns the probe that
    /// follows: at the next address of the host.
    pub(super) fn note(
        &mut self,
        now: Duration,
        probe: Probe,
        at: SocketAddr,
        result: Result<(), Error>,
        round_trip: Option<Duration>,
    ) -> Option<Probe> {
        let Probe { target, address } = probe;
        let at = ScopedIp::from(at).to_string();
        let probed = self.settled(target, Probed { at, result, round_trip, waited: None });
        if probed.result.is_err() && address + 1 < self.scan.addresses(target).end {
            self.earlier.insert(target, probed);
            return Some(Probe { address: address + 1, ..probe });
        }
        // A route that is not there does not come.
        let hopeless = is_hopeless(&probed.result);
        if hopeless {
            self.waiting.note(now, target, &probed.result);
        }
        if !hopeless && self.waiting.goes_on(now, target, &probed.result) {
            log::info!("{}, probing again", self.as_port(target, &probed).sentence());
        } else {
            self.conclude_target(target, probed);
        }
        None
    }

    /// Notes the result of a host without an address.
    pub(super) fn note_unusable(&mut self, now: Duration, target: usize) {
        let (name, error) = self.scan.unusable(target);
        let probed = Probed { at: name, result: Err(error), round_trip: None, waited: None };
        // It has no address later either.
        self.waiting.note(now, target, &probed.result);
        self.conclude_target(target, probed);
    }

    /// Returns the result of the addresses of a host so far: that of the one that came furthest. Where the port should be
    /// closed, one at which it may not be counts more.
    fn settled(&mut self, target: usize, new: Probed) -> Probed {
        let closing = self.waiting.patience.is_some_and(|patience| patience.wanted == Wanted::Closed);
        let weight = |probed: &Probed| {
            let result = &probed.result;
            let doubtful = closing && !is_hopeless(result) && !Wanted::Closed.is_shown_by(result);
            (doubtful, result.as_ref().err().map_or(Verdict::Done, Verdict::from).reach())
        };
        match self.earlier.remove(&target) {
            Some(earlier) if weight(&earlier) > weight(&new) => earlier,
            _ => new,
        }
    }

    /// Notes the final result of a target, and writes its object.
    fn conclude_target(&mut self, target: usize, probed: Probed) {
        let probed = Probed { waited: self.waiting.take(target), ..probed };
        let port = self.as_port(target, &probed);
        self.report.probed(&port);
        let wanted = self.waiting.patience.filter(|patience| patience.all).map(|patience| patience.wanted);
        self.tally.note(wanted.unwrap_or(Wanted::Open), &probed);
        self.known.insert(target, probed);
    }

    /// Prints final results, up to the first target without one.
    pub(super) fn print(&mut self) -> Result<(), Error> {
        let mut lines = String::new();
        while let Some(probed) = self.known.remove(&self.unprinted) {
            lines.push_str(&self.conclude(self.unprinted, &probed));
            self.unprinted += 1;
            self.tally.only = probed.result.err();
        }
        self.write(&lines)
    }

    /// Prints every result so far, past the targets without one.
    pub(super) fn print_known(&mut self) -> Result<(), Error> {
        let mut lines = String::new();
        let (mut known, mut earlier) = (std::mem::take(&mut self.known), std::mem::take(&mut self.earlier));
        for target in self.unprinted..self.scan.targets() {
            if let Some(probed) = known.remove(&target) {
                lines.push_str(&self.conclude(target, &probed));
            } else if let Some(probed) = earlier.remove(&target) {
                let port = self.as_port(target, &probed);
                self.report.probed(&port);
                lines.push_str(&self.conclude(target, &probed));
            }
        }
        self.write(&lines)
    }

    /// Notes the target in the run's object, and returns its line.
    fn conclude(&mut self, target: usize, probed: &Probed) -> String {
        let port = self.as_port(target, probed);
        let line = format!("{port}\n");
        self.report.port(port);
        line
    }

    fn as_port(&self, target: usize, probed: &Probed) -> ProbedPort {
        ProbedPort::new(
            (probed.at.clone(), self.scan.port(target)),
            self.scan.name(target),
            self.scan.protocol,
            probed.result.as_ref().copied(),
            probed.round_trip,
            probed.waited.clone(),
        )
    }

    fn write(&mut self, lines: &str) -> Result<(), Error> {
        match &mut self.output {
            Some(output) if !lines.is_empty() => {
                Ok(output.write_all(lines.as_bytes()).map_err(stdio::Error::Output)?)
            }
            _ => Ok(()),
        }
    }

    /// Returns the result of all targets together.
    pub(super) fn conclude_all(self) -> Result<(), Error> {
        let Tally { open, others, verdict, at, only } = self.tally;
        let (ports, several) = (self.scan.targets(), self.scan.several);
        let wait = self.waiting.patience.filter(|patience| patience.all);
        let over = if wait.is_some() { others == 0 } else { open > 0 };
        let Some(at) = at.filter(|_| !over) else { return Ok(()) };
        let verdict = verdict.unwrap_or(Verdict::Failed);
        let hosts = if several { count(self.scan.hosts.len() as u64, "host") } else { at };
        match (wait, only) {
            (_, Some(error)) if ports == 1 => Err(error),
            (None, _) => Err(Error::NothingOpen { hosts, ports, verdict }),
            (Some(wait), _) => Err(Error::NotAsWanted {
                hosts,
                ports: others,
                of: ports,
                wanted: if wait.wanted == Wanted::Open { "open" } else { "closed" },
                verdict,
            }),
        }
    }
}

impl Tally {
    fn note(&mut self, wanted: Wanted, probed: &Probed) {
        self.open += usize::from(probed.result.is_ok());
        if wanted.is_shown_by(&probed.result) {
            return;
        }
        let verdict = probed.result.as_ref().err().map_or(Verdict::Failed, Verdict::from);
        self.verdict = match self.others {
            0 => Some(verdict),
            _ => self.verdict.filter(|one| *one == verdict),
        };
        self.others += 1;
        self.at = Some(probed.at.clone());
    }
}

/// Returns whether a later probe cannot have another result: there is no route, or no address.
fn is_hopeless(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Unusable { verdict, .. }) if *verdict != Verdict::NoNeighbour)
}
