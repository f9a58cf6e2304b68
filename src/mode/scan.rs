//! Scanning: which ports answer, without sending data (nc's -z).
//!
//! All probes leave from one port of ours, so that one guard keeps every answer from the kernel; a bounded
//! number is in flight. A port that opens is closed as any connection is, by a FIN, since services may take
//! offence at resets; a peer that does not close in turn is reset, so that nothing is left half-open. The
//! results come in the ports' order, each as soon as those before it are known.
use super::{
    Attempt, Error, Report, Verdict,
    connect::{Opened, answer},
};
use crate::{
    net::FiveTuple,
    stack::{Flow, Phase},
};
use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

/// Connections at a time: 1,000 ports of a silent host take two rounds.
const IN_FLIGHT: usize = 500;
/// How long a peer has to close after our FIN before it is reset.
const LINGER: Duration = Duration::from_millis(500);
/// Buffers of a probe, in bytes: a service may greet us, but nobody reads it.
pub const PROBE_BUFFER: usize = 16 << 10;

/// Ports to probe.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The addresses of the host, at least one; what is not open at one is tried at the next.
    pub attempts: Vec<Attempt>,
    /// In the order of their results; at least one.
    pub ports: Vec<u16>,
    /// How long each port has to answer.
    pub wait: Duration,
}

impl Scan {
    /// Succeeds if a port is open.
    pub fn run(&self, report: &mut Report) -> Result<(), Error> {
        let mut results = Results::new(&self.ports, report);
        let mut attempts = self.attempts.iter().peekable();
        while let Some(attempt) = attempts.next() {
            results.last = attempts.peek().is_none();
            match self.sweep(attempt, &mut results) {
                Ok(()) => {}
                Err(error @ (Error::Interrupted(_) | Error::Output(_))) => return Err(error),
                Err(error) if results.last && results.known.is_empty() => return Err(error),
                Err(error) => log::warn!("{error}"),
            }
        }
        results.last = true;
        results.print()?;
        results.conclude()
    }

    /// Probes the ports that are not known to be open at one address.
    fn sweep(&self, attempt: &Attempt, results: &mut Results<'_>) -> Result<(), Error> {
        let opened = attempt.open(self.wait)?;
        results.forget_failures();
        if results.last {
            opened.engine.enter_sandbox()?;
        }
        let mut ports: VecDeque<u16> =
            self.ports.iter().copied().filter(|port| !results.is_open(*port)).collect();
        log::info!("probing {} ports of {}", ports.len(), attempt.remote.ip());
        let mut sweep = Sweep { opened, wait: self.wait, probes: Vec::new(), closing: Vec::new() };
        while !ports.is_empty() || !sweep.probes.is_empty() || !sweep.closing.is_empty() {
            let room = IN_FLIGHT - sweep.probes.len() - sweep.closing.len();
            for port in ports.drain(..room.min(ports.len())) {
                sweep.probe(SocketAddr::new(attempt.remote.ip(), port));
            }
            sweep.turn(results)?;
            results.print()?;
        }
        Ok(())
    }
}

/// One address under way.
struct Sweep {
    opened: Opened,
    wait: Duration,
    /// What was dialed, and when.
    probes: Vec<(FiveTuple, Duration)>,
    /// What was open and is being closed, since when.
    closing: Vec<(FiveTuple, Duration)>,
}

impl Sweep {
    fn probe(&mut self, remote: SocketAddr) {
        let tuple = self.opened.dial(remote);
        self.probes.push((tuple, self.opened.engine.reactor.now()));
    }

    /// Frames in, results out, frames out; then sleeps until something is due.
    fn turn(&mut self, results: &mut Results<'_>) -> Result<(), Error> {
        let now = self.opened.engine.reactor.now();
        let busy = self.opened.engine.ingress(now)? | self.opened.engine.egress(now)?;
        for (tuple, since) in std::mem::take(&mut self.probes) {
            let engine = &mut self.opened.engine;
            match answer(&engine.stack, &tuple) {
                Some(Ok(())) => {
                    results.note(tuple.remote, Ok(()));
                    engine.stack.flow(&tuple).map(Flow::close);
                    self.closing.push((tuple, now));
                }
                Some(Err(error)) => {
                    results.note(tuple.remote, Err(error));
                    engine.stack.remove(&tuple);
                }
                None if now >= since + self.wait => {
                    results.note(tuple.remote, Err(self.opened.silence(&tuple, self.wait)));
                    self.opened.engine.stack.remove(&tuple);
                }
                None => self.probes.push((tuple, since)),
            }
        }
        self.close(now);
        // Both lists are in the order of their times.
        let soonest = [(self.probes.first(), self.wait), (self.closing.first(), LINGER)];
        let due = soonest.into_iter().filter_map(|(entry, time)| Some(entry?.1 + time)).min();
        match due {
            Some(due) => self.opened.engine.wait(&mut [], Some(if busy { now } else { due })),
            None => Ok(()),
        }
    }

    /// Forgets what is closed, and resets what does not close.
    fn close(&mut self, now: Duration) {
        let stack = &mut self.opened.engine.stack;
        self.closing.retain(|(tuple, since)| {
            if stack.peek(tuple).is_none_or(|flow| flow.phase() == Phase::Closed) {
                stack.remove(tuple);
                return false;
            }
            if now >= *since + LINGER {
                stack.flow(tuple).map(Flow::abort);
            }
            true
        });
    }
}

/// What is known of the ports.
struct Results<'r> {
    report: &'r mut Report,
    known: HashMap<u16, (SocketAddr, Result<(), Error>)>,
    /// Ports whose line has not been printed.
    unprinted: VecDeque<u16>,
    /// This is the last address: a port that is not open now will not be.
    last: bool,
}

impl Results<'_> {
    fn new<'r>(ports: &[u16], report: &'r mut Report) -> Results<'r> {
        Results { report, known: HashMap::new(), unprinted: ports.iter().copied().collect(), last: false }
    }

    fn is_open(&self, port: u16) -> bool {
        self.known.get(&port).is_some_and(|(_, result)| result.is_ok())
    }

    fn note(&mut self, at: SocketAddr, result: Result<(), Error>) {
        self.known.insert(at.port(), (at, result));
    }

    /// Prints what is settled, as far as everything before it is.
    fn print(&mut self) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        while let Some((at, result)) = self.unprinted.front().and_then(|port| self.known.get(port))
            && (result.is_ok() || self.last)
        {
            self.report.port(*at, result.as_ref().copied());
            let (ip, port) = (at.ip(), at.port());
            let state = match result {
                Ok(()) => "open".to_owned(),
                Err(Error::Rejected { error, .. }) => format!("rejected: {error}"),
                Err(error) => Verdict::from(error).to_string(),
            };
            writeln!(out, "{ip} {port}/tcp {state}").map_err(Error::Output)?;
            self.unprinted.pop_front();
        }
        out.flush().map_err(Error::Output)
    }

    /// What failed at one address is tried at the next.
    fn forget_failures(&mut self) {
        self.known.retain(|_, (_, result)| result.is_ok());
    }

    /// The verdict on all ports together.
    fn conclude(mut self) -> Result<(), Error> {
        let ports = self.known.len();
        let mut failures = Vec::with_capacity(ports);
        for (_, (at, result)) in self.known.drain() {
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
        Err(Error::NothingOpen { address: at.ip(), ports, verdict })
    }
}
