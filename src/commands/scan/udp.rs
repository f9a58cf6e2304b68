//! UDP probes: requests of well-known services, else empty datagrams, repeated while there is no answer.
//!
//! An open port may answer with a datagram; a closed one answers with an ICMP port unreachable from the
//! host itself. Silence is ambiguous: most services ignore what they do not understand, a firewall drops it, and
//! hosts limit their ICMP errors.
use super::{
    BATCH, IN_FLIGHT, Results,
    pending::{Pending, silence},
    queue::{Departure, Queue},
    round::Round,
};
use crate::{
    host::interface::Framing,
    net::zone::ScopedIp,
    report::Error,
    runtime::{Engine, Task, Turn},
    session,
    stack::{Stack, SurveyAnswer, icmp::Reason},
    stdio::Interest,
};
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

/// Probes every target of the queue.
pub(super) fn run(
    engine: &mut Engine,
    queue: &mut Queue<'_>,
    results: &mut Results<'_>,
) -> Result<(), Error> {
    engine.stack.datagrams.survey();
    let (probes, addresses, ended) = (HashMap::new(), HashMap::new(), BTreeSet::new());
    engine.run(&mut Probes { queue, results, probes, addresses, ended, warned: false })
}

/// The probes of a scan.
struct Probes<'a, 'q, 'r> {
    queue: &'a mut Queue<'q>,
    results: &'a mut Results<'r>,
    probes: HashMap<SocketAddr, Pending>,
    /// The rounds of addresses with silent or closed ports, by the addresses' numbers.
    addresses: HashMap<usize, Round>,
    /// Addresses of which a probe has ended, and whose round may be over.
    ended: BTreeSet<usize>,
    /// The user knows that hosts limit their ICMP errors.
    warned: bool,
}

impl Probes<'_, '_, '_> {
    /// Handles an answer.
    fn note(&mut self, now: Duration, finding: SurveyAnswer) {
        let SurveyAnswer { local, port: at, answer } = finding;
        let Some(key) = self.asked(at).filter(|key| self.is_from(key, local)) else { return };
        let Some(pending) = self.probes.remove(&key) else { return };
        let on_host = self.is_on_host(&pending.departure);
        let round = self.addresses.entry(pending.departure.probe.address).or_default();
        round.repeated |= answer.is_err() && pending.sent > 1;
        let result = answer.map_err(|error| match error.reason {
            // Of its own addresses, a host may take another as the source of its answer.
            Reason::PortUnreachable if error.from == at.ip() || on_host => {
                round.unreachable += 1;
                session::Error::PortUnreachable { target: at, from: error.from }
            }
            _ => session::Error::Rejected { target: at, error: Box::new(error) },
        });
        let round_trip = (pending.sent == 1).then(|| now.saturating_sub(pending.since));
        self.end(now, &pending.departure, at, result.map_err(Error::from), round_trip);
    }

    /// Returns the remote end of the probe that an answer is for: its sender, or the group that the sender is in.
    fn asked(&self, at: SocketAddr) -> Option<SocketAddr> {
        if self.probes.contains_key(&at) {
            return Some(at);
        }
        let to_group = |pending: &Pending| self.queue.routes.egress(&pending.departure.way).is_to_group();
        let groups = self.probes.iter().filter(|(key, pending)| key.port() == at.port() && to_group(pending));
        groups.map(|(key, _)| *key).next()
    }

    fn is_from(&self, key: &SocketAddr, local: SocketAddr) -> bool {
        self.probes.get(key).is_some_and(|pending| pending.departure.tuple.local == local)
    }

    fn is_on_host(&self, departure: &Departure) -> bool {
        self.queue.routes.egress(&departure.way).framing == Framing::Loopback
    }

    /// Notes the result of a probe.
    fn end(
        &mut self,
        now: Duration,
        departure: &Departure,
        at: SocketAddr,
        result: Result<(), Error>,
        round_trip: Option<Duration>,
    ) {
        let silent = matches!(result, Err(Error::Silent { .. }));
        let next = self.results.note(now, departure.probe, at, result, round_trip);
        self.queue.push_next(next);
        self.leave(departure, silent);
    }

    /// Notes that a probe is not under way any more.
    fn leave(&mut self, departure: &Departure, silent: bool) {
        self.queue.end(departure, silent);
        let round = self.addresses.entry(departure.probe.address).or_default();
        round.under_way = round.under_way.saturating_sub(1);
        self.ended.insert(departure.probe.address);
    }

    /// Starts probes, as many as may be in flight and a turn may have. Returns whether there are new ones.
    fn begin(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        for target in self.results.waiting.due(now, |_| false) {
            self.queue.repeat(target);
        }
        self.queue.poll(now, engine, self.results);
        let before = self.probes.len();
        while self.probes.len() < IN_FLIGHT.min(before + BATCH)
            && let Some(departure) = self.queue.take(now, engine, self.results)
        {
            let round = self.addresses.entry(departure.probe.address).or_default();
            round.under_way += 1;
            let mut pending = Pending::new(departure, now, round.wait(self.queue.scan.wait));
            pending.send(now, engine)?;
            self.probes.insert(departure.tuple.remote, pending);
        }
        Ok(before != self.probes.len())
    }

    /// Repeats the probes that are due, and ends those whose wait is over.
    fn repeat(&mut self, now: Duration, engine: &mut Engine) -> Result<(), Error> {
        let due = self.probes.iter().filter(|(_, pending)| pending.next <= now).map(|(at, _)| *at);
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        for at in due {
            let Some(pending) = self.probes.get_mut(&at) else { continue };
            if !self.results.waiting.is_over(now) && now < pending.since + pending.wait {
                if self.queue.pace.is_due(now) {
                    self.queue.pace.note(now);
                    pending.send(now, engine)?;
                }
                continue;
            }
            if let Some(pending) = self.probes.remove(&at) {
                self.end_silent(now, pending, engine);
            }
        }
        Ok(())
    }

    fn end_silent(&mut self, now: Duration, pending: Pending, engine: &Engine) {
        let Pending { departure, sent, dropped, wait, .. } = pending;
        let at = departure.tuple.remote;
        if dropped == sent {
            let interface = self.queue.routes.egress(&departure.way).interface.name.clone();
            let dropped = session::Error::DatagramsDropped { target: at, datagrams: sent, interface };
            self.end(now, &departure, at, Err(dropped.into()), None);
        } else if self.results.waiting.patience.is_some() {
            self.end(now, &departure, at, Err(silence(engine, at, sent, wait)), None);
        } else {
            self.addresses.entry(departure.probe.address).or_default().silent.push((departure, sent));
            self.leave(&departure, false);
        }
    }

    /// Ends the rounds of the addresses whose probes are over. A host that limits its ICMP errors gets a further round
    /// for its silent ports. Returns whether more probes may begin.
    fn end_rounds(&mut self, now: Duration, engine: &Engine) -> bool {
        let mut more = false;
        for address in std::mem::take(&mut self.ended) {
            if self.addresses.get(&address).is_some_and(|round| round.under_way > 0)
                || self.queue.has(address)
            {
                self.ended.insert(address);
                continue;
            }
            let Some(round) = self.addresses.remove(&address) else { continue };
            more |= !round.silent.is_empty();
            if !round.goes_on() {
                let wait = round.wait(self.queue.scan.wait);
                for (departure, sent) in round.silent {
                    let at = departure.tuple.remote;
                    let error = silence(engine, at, sent, wait);
                    let next = self.results.note(now, departure.probe, at, Err(error), None);
                    self.queue.push_next(next);
                }
                continue;
            }
            let Round { silent, further, .. } = round;
            if let Some((departure, _)) = silent.first().filter(|_| !further) {
                // Of a network, one line is enough.
                let first = !std::mem::replace(&mut self.warned, true);
                let level = if first { log::Level::Warn } else { log::Level::Info };
                log::log!(
                    level,
                    "{} seems to limit its ICMP errors, as Linux does, to about one a second: asking its {} silent ports \
                     again for as long as any answers",
                    ScopedIp::from(departure.tuple.remote),
                    silent.len()
                );
            }
            self.addresses.insert(address, Round { further: true, ..Round::default() });
            silent.iter().for_each(|(departure, _)| self.queue.push(departure.probe));
        }
        more
    }
}

impl Task for Probes<'_, '_, '_> {
    type Output = ();
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        while let Some(finding) = engine.stack.datagrams.take_survey_answer() {
            self.note(now, finding);
        }
        self.repeat(now, engine)?;
        let mut busy = self.begin(now, engine)?;
        while self.end_rounds(now, engine) {
            busy |= self.begin(now, engine)?;
        }
        self.results.print()?;
        let over = self.queue.is_empty() && self.probes.is_empty() && self.results.waiting.is_empty();
        if over { Ok(Turn::Done(())) } else { Ok(Turn::of(busy)) }
    }

    fn waits_for<'a>(&'a self, _: Duration, _: &Stack, _: &mut Vec<Interest<'a>>) -> Option<Duration> {
        let room = self.probes.len() < IN_FLIGHT;
        let waiting = &self.results.waiting;
        let end = waiting.end().filter(|_| !self.probes.is_empty() || !self.queue.is_empty());
        // A repetition waits for the pace.
        let pace = self.queue.pace.next().unwrap_or_default();
        let probes = self.probes.values().map(|pending| match pending.next < pending.since + pending.wait {
            true => pending.next.max(pace),
            false => pending.next,
        });
        probes.chain(waiting.next()).chain(self.queue.due(room)).chain(end).min()
    }
}
