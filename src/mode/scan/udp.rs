//! UDP ports are probed by empty datagrams, some times over while there is no answer.
//!
//! A datagram is the answer of an open port, an ICMP port unreachable from the host itself that of a closed one.
//! Silence may be either's: most services ignore an empty datagram, a firewall drops it, and hosts limit how many
//! errors they send: Linux sends one peer six at once and then one a second (net.ipv4.icmp_ratelimit,
//! net/ipv4/inetpeer.c, XRLIM_BURST_FACTOR). So where a host looks as if it did, its silent ports are probed in
//! further rounds for as long as any of them answers.
use super::{IN_FLIGHT, Results, Sweep};
use crate::{
    mode::{Error, connect::Opened},
    net::{FiveTuple, Protocol},
    stack::{Finding, icmp::Reason},
};
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

/// How often a silent port is probed within its wait.
const REPEATS: u32 = 4;
/// How many errors Linux sends at once before it limits them.
const BURST: usize = 6;
/// How long a port waits in a further round, at least: longer than it takes for the next error to be allowed.
const PATIENT_WAIT: Duration = Duration::from_millis(1500);

/// Probes every port of the sweep.
pub fn run(sweep: Sweep, results: &mut Results<'_>) -> Result<(), Error> {
    let Sweep { mut opened, address, mut wait, mut ports } = sweep;
    opened.engine.stack.datagrams.survey();
    let mut first = true;
    loop {
        let round = Round::new(&mut opened, address, wait, std::mem::take(&mut ports)).run(results)?;
        let limited = round.repeated || round.unreachable >= if first { BURST } else { 1 };
        if round.silent.is_empty() || !limited {
            let waited = wait;
            round.silent.into_iter().for_each(|(at, probes)| {
                results.note(at, Err(Error::Silent { target: at, datagrams: probes, waited }));
            });
            return results.print();
        }
        if first {
            log::warn!(
                "{} seems to limit its ICMP errors, as Linux does, to about one a second: asking its {} silent ports \
                 again for as long as any answers",
                address.ip(),
                round.silent.len()
            );
            (first, wait) = (false, wait.max(PATIENT_WAIT));
        }
        ports = round.silent.iter().map(|(at, _)| at.port()).collect();
    }
}

/// A port that has not answered yet.
struct Probe {
    since: Duration,
    next: Duration,
    sent: u64,
    /// Of these, how many this host's own egress dropped.
    dropped: u64,
}

/// Every port once, with its repetitions.
struct Round<'o> {
    opened: &'o mut Opened,
    address: SocketAddr,
    wait: Duration,
    waiting: VecDeque<u16>,
    probes: HashMap<u16, Probe>,
    /// Ports that said nothing, and how many datagrams they were sent.
    silent: Vec<(SocketAddr, u64)>,
    /// How many ports an ICMP error closed.
    unreachable: usize,
    /// An answer came to a probe that was not the first.
    repeated: bool,
}

impl<'o> Round<'o> {
    fn new(opened: &'o mut Opened, address: SocketAddr, wait: Duration, waiting: VecDeque<u16>) -> Round<'o> {
        let (probes, silent) = (HashMap::new(), Vec::new());
        Round { opened, address, wait, waiting, probes, silent, unreachable: 0, repeated: false }
    }

    fn run(mut self, results: &mut Results<'_>) -> Result<Round<'o>, Error> {
        while !self.waiting.is_empty() || !self.probes.is_empty() {
            let now = self.opened.engine.reactor.now();
            let busy = self.opened.engine.ingress(now)?;
            while let Some(finding) = self.opened.engine.stack.datagrams.take_finding() {
                self.note(finding, results);
            }
            self.begin(now);
            let due = self.send(now, results)?;
            results.print()?;
            if let Some(due) = due {
                self.opened.engine.wait(&mut [], Some(if busy { now } else { due }))?;
            }
        }
        Ok(self)
    }

    fn note(&mut self, finding: Finding, results: &mut Results<'_>) {
        let Finding { port: at, answer } = finding;
        let Some(probe) = self.probes.remove(&at.port()) else { return };
        self.repeated |= answer.is_err() && probe.sent > 1;
        let result = answer.map_err(|error| match error.reason {
            Reason::PortUnreachable if error.from == at.ip() => {
                self.unreachable += 1;
                Error::PortUnreachable { target: at, from: error.from }
            }
            _ => Error::Rejected { target: at, error: Box::new(error) },
        });
        results.note(at, result);
    }

    fn begin(&mut self, now: Duration) {
        while self.probes.len() < IN_FLIGHT
            && let Some(port) = self.waiting.pop_front()
        {
            self.probes.insert(port, Probe { since: now, next: now, sent: 0, dropped: 0 });
        }
    }

    /// Sends what is due, and gives up on what has waited long enough. Returns when the next is due.
    fn send(&mut self, now: Duration, results: &mut Results<'_>) -> Result<Option<Duration>, Error> {
        let mut due: Vec<u16> =
            self.probes.iter().filter(|(_, probe)| probe.next <= now).map(|(port, _)| *port).collect();
        due.sort_unstable();
        for port in due {
            let at = SocketAddr::new(self.address.ip(), port);
            let Some(probe) = self.probes.get_mut(&port) else { continue };
            if now < probe.since + self.wait || probe.sent == 0 {
                probe.dropped += transmit(self.opened, at)?;
                probe.sent += 1;
                probe.next = (now + self.wait / REPEATS).min(probe.since + self.wait).max(now);
                continue;
            }
            let (sent, dropped) = (probe.sent, probe.dropped);
            self.probes.remove(&port);
            match dropped == sent {
                true => {
                    let interface = self.opened.egress.interface.name.clone();
                    results.note(at, Err(Error::DatagramsDropped { target: at, datagrams: sent, interface }));
                }
                false => self.silent.push((at, sent)),
            }
        }
        Ok(self.probes.values().map(|probe| probe.next).min())
    }
}

/// Sends an empty datagram; returns how many this host's own egress dropped.
fn transmit(opened: &mut Opened, remote: SocketAddr) -> Result<u64, Error> {
    let tuple = FiveTuple {
        protocol: Protocol::Udp,
        local: SocketAddr::new(opened.egress.source, opened.engine.port()),
        remote,
    };
    let way = opened.way();
    let before = opened.engine.stack.datagrams.counters().egress_drops;
    opened.engine.claim(&tuple);
    opened.engine.stack.datagrams.dial(tuple, way);
    opened.engine.send_datagrams(&[], 1)?;
    Ok(opened.engine.stack.datagrams.counters().egress_drops - before)
}
