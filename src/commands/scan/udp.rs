//! UDP probes: requests of well-known services, else empty datagrams, repeated while there is no answer.
//!
//! An open port may answer with a datagram; a closed one answers with an ICMP port unreachable from the
//! host itself. Silence is ambiguous: most services ignore what they do not understand, a firewall drops it, and
//! hosts limit their ICMP errors: Linux sends one peer six at once and then one a second
//! (net.ipv4.icmp_ratelimit, net/ipv4/inetpeer.c, XRLIM_BURST_FACTOR). If a host seems to do so, further
//! rounds probe its silent ports for as long as any of them answers.
use super::{IN_FLIGHT, Results, Sweep, payload::Request};
use crate::{
    commands::attempt::Origin,
    host::interface::Framing,
    net::zone::ScopedIp,
    report::Error,
    runtime::{Engine, Task, Turn, unpredictable},
    session,
    stack::{Stack, SurveyAnswer, icmp::Reason},
    stdio::Interest,
};
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

/// Probes of a silent port within its wait.
const REPEATS: u32 = 4;
/// ICMP errors that Linux sends at once before it limits them.
const BURST: usize = 6;
/// Minimum wait of a port in a further round: longer than the interval of Linux's limit.
const FURTHER_WAIT: Duration = Duration::from_millis(1500);

/// Probes every port of the sweep.
pub(crate) fn run(engine: &mut Engine, sweep: Sweep, results: &mut Results<'_>) -> Result<(), Error> {
    let Sweep { origin, mut wait, mut ports } = sweep;
    engine.stack.datagrams.survey();
    let mut first = true;
    loop {
        let mut round = Round::new(&origin, wait, std::mem::take(&mut ports), results);
        engine.run(&mut round)?;
        let Round { silent, unreachable, repeated, .. } = round;
        let limited = repeated || unreachable >= if first { BURST } else { 1 };
        if silent.is_empty() || !limited {
            let waited = wait;
            silent.into_iter().for_each(|(at, probes)| {
                let invalid = engine.stack.datagrams.invalid_from(at.port());
                let probe = Request::of(at.port()).noun;
                let silence = Error::Silent { target: at, probe, datagrams: probes, waited, invalid };
                results.note(engine.reactor.now(), at, Err(silence), None);
            });
            return results.print();
        }
        if first {
            log::warn!(
                "{} seems to limit its ICMP errors, as Linux does, to about one a second: asking its {} silent ports \
                 again for as long as any answers",
                ScopedIp::from(origin.remote(0)),
                silent.len()
            );
            (first, wait) = (false, wait.max(FURTHER_WAIT));
        }
        ports = silent.iter().map(|(at, _)| at.port()).collect();
    }
}

/// A probe without an answer yet.
struct Probe {
    since: Duration,
    next: Duration,
    sent: u64,
    /// Datagrams of these that this host's own egress dropped.
    dropped: u64,
}

/// A round: each port once, with its repetitions.
struct Round<'a, 'r> {
    origin: &'a Origin,
    results: &'a mut Results<'r>,
    wait: Duration,
    waiting: VecDeque<u16>,
    probes: HashMap<u16, Probe>,
    /// Ports without an answer, and the number of datagrams sent to each.
    silent: Vec<(SocketAddr, u64)>,
    /// Number of ports that the host reported as unreachable.
    unreachable: usize,
    /// An ICMP error answered a repeated probe, not the first.
    repeated: bool,
}

impl<'a, 'r> Round<'a, 'r> {
    fn new(
        origin: &'a Origin,
        wait: Duration,
        waiting: VecDeque<u16>,
        results: &'a mut Results<'r>,
    ) -> Round<'a, 'r> {
        let (probes, silent) = (HashMap::new(), Vec::new());
        Round { origin, results, wait, waiting, probes, silent, unreachable: 0, repeated: false }
    }

    fn note(&mut self, now: Duration, finding: SurveyAnswer) {
        let SurveyAnswer { port: at, answer } = finding;
        let Some(probe) = self.probes.remove(&at.port()) else { return };
        self.repeated |= answer.is_err() && probe.sent > 1;
        let result = answer.map_err(|error| match error.reason {
            // Of its own addresses, a host may take another as the source of its answer.
            Reason::PortUnreachable if error.from == at.ip() || self.is_on_host(at) => {
                self.unreachable += 1;
                session::Error::PortUnreachable { target: at, from: error.from }
            }
            _ => session::Error::Rejected { target: at, error: Box::new(error) },
        });
        let round_trip = (probe.sent == 1).then(|| now.saturating_sub(probe.since));
        self.results.note(now, at, result.map_err(Error::from), round_trip);
    }

    fn is_on_host(&self, at: SocketAddr) -> bool {
        self.origin.egress(at.port()).framing == Framing::Loopback
    }

    /// Starts as many probes as may be in flight.
    fn begin(&mut self, now: Duration) {
        self.waiting.extend(self.results.waiting.due(now, |_| false));
        while self.probes.len() < IN_FLIGHT
            && let Some(port) = self.waiting.pop_front()
        {
            self.probes.insert(port, Probe { since: now, next: now, sent: 0, dropped: 0 });
        }
    }

    /// Sends the probes that are due, and ends those whose wait is over.
    fn send(&mut self, now: Duration, engine: &mut Engine) -> Result<(), Error> {
        let mut due: Vec<u16> =
            self.probes.iter().filter(|(_, probe)| probe.next <= now).map(|(port, _)| *port).collect();
        due.sort_unstable();
        for port in due {
            let at = self.origin.remote(port);
            let Some(probe) = self.probes.get_mut(&port) else { continue };
            if !self.results.waiting.is_over(now) && now < probe.since + self.wait || probe.sent == 0 {
                probe.dropped += transmit(engine, self.origin, port, probe.sent)?;
                probe.sent += 1;
                probe.next = (now + self.wait / REPEATS).min(probe.since + self.wait).max(now);
                continue;
            }
            let (sent, dropped) = (probe.sent, probe.dropped);
            self.probes.remove(&port);
            match dropped == sent {
                true => {
                    let interface = self.origin.egress(port).interface.name.clone();
                    let dropped = session::Error::DatagramsDropped { target: at, datagrams: sent, interface };
                    self.results.note(now, at, Err(dropped.into()), None);
                }
                false if self.results.waiting.patience.is_some() => {
                    let (waited, invalid) = (self.wait, engine.stack.datagrams.invalid_from(port));
                    let probe = Request::of(port).noun;
                    let silence = Error::Silent { target: at, probe, datagrams: sent, waited, invalid };
                    self.results.note(now, at, Err(silence), None);
                }
                false => self.silent.push((at, sent)),
            }
        }
        Ok(())
    }
}

impl Task for Round<'_, '_> {
    type Output = ();
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        while let Some(finding) = engine.stack.datagrams.take_survey_answer() {
            self.note(now, finding);
        }
        self.begin(now);
        self.send(now, engine)?;
        self.results.print()?;
        let over = self.waiting.is_empty() && self.probes.is_empty() && self.results.waiting.is_empty();
        if over { Ok(Turn::Done(())) } else { Ok(Turn::Idle) }
    }

    fn waits_for<'a>(&'a self, now: Duration, _: &Stack, _: &mut Vec<Interest<'a>>) -> Option<Duration> {
        // A waiting port starts as soon as another probe ends.
        let places = self.probes.len() < IN_FLIGHT && !self.waiting.is_empty();
        let waiting = &self.results.waiting;
        let end = waiting.end().filter(|_| !self.probes.is_empty());
        let probes = self.probes.values().map(|probe| probe.next);
        places.then_some(now).into_iter().chain(probes).chain(waiting.next(|_| false)).chain(end).min()
    }
}

/// Sends the probe with this number, from 0 on. Returns the number of datagrams that this host's own egress dropped.
fn transmit(engine: &mut Engine, origin: &Origin, port: u16, number: u64) -> Result<u64, Error> {
    let before = engine.stack.datagrams.counters().egress_drops;
    let tuple = origin.dial_datagrams(engine, port);
    engine.add_flow(&tuple);
    let payload = Request::of(port).payload(number, [unpredictable(), unpredictable()]);
    engine.send_datagrams(&payload, payload.len())?;
    Ok(engine.stack.datagrams.counters().egress_drops - before)
}
