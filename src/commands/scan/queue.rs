//! The probes of a scan before they leave: their order, their pace, and the next hops that they wait for.
use super::{
    Scan,
    neighbours::{Neighbours, Resolution, Resolved},
    pace::Pace,
    results::Results,
    routes::Routes,
};
use crate::{
    net::FiveTuple,
    report::{Error, Failure, Verdict},
    runtime::{Engine, Way},
    stack::FlowRoute,
};
use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    ops::Range,
    time::Duration,
};

/// A probe of a target at one of its host's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The target's number: that of its host times the number of ports, plus that of its port.
    pub target: usize,
    /// The number of the address, among those of all hosts.
    pub address: usize,
}

/// A probe that is ready to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    pub probe: Probe,
    pub way: Way,
    pub tuple: FiveTuple,
    pub route: FlowRoute,
}

/// The probes that have not left yet.
pub(super) struct Queue<'a> {
    pub scan: &'a Scan,
    pub routes: Routes<'a>,
    pub pace: Pace,
    neighbours: Neighbours,
    /// Targets that were not begun yet, at the first address of their hosts.
    fresh: Range<usize>,
    /// Probes that come first: at a further address, once more, or with a next hop that has just been resolved.
    ready: VecDeque<Probe>,
    /// Remote ends of probes under way. Two hosts may have one address.
    busy: HashSet<SocketAddr>,
    /// The address that the report names.
    noted: Option<usize>,
    /// A probe has left.
    pub has_sent: bool,
    /// The next hops of addresses that did not answer, of a single host.
    pub failures: Vec<(SocketAddr, Error)>,
}

impl<'a> Queue<'a> {
    /// Returns the probes of all targets. Call it while netkat has the privilege to make the kernel resolve next hops.
    pub(super) fn new(scan: &'a Scan, routes: Routes<'a>) -> Queue<'a> {
        let mut neighbours = Neighbours::new(scan.wait);
        neighbours.ask_kernel(&routes, &scan.ports);
        Queue {
            scan,
            routes,
            pace: Pace::new(scan.rate),
            neighbours,
            fresh: 0..scan.targets(),
            ready: VecDeque::new(),
            busy: HashSet::new(),
            noted: None,
            has_sent: false,
            failures: Vec::new(),
        }
    }

    /// Returns whether no probe is left.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.ready.is_empty() && self.neighbours.is_empty()
    }

    /// Returns whether a probe of this address is left.
    pub(super) fn has(&self, address: usize) -> bool {
        let fresh = self.scan.addresses(self.fresh.start).start == address && !self.fresh.is_empty();
        fresh || self.ready.iter().any(|probe| probe.address == address)
    }

    /// Queues a target once more, at the first address of its host.
    pub(super) fn repeat(&mut self, target: usize) {
        self.push(Probe { target, address: self.scan.addresses(target).start });
    }

    /// Queues a probe in front of those that were not begun yet.
    pub(super) fn push(&mut self, probe: Probe) {
        self.ready.push_back(probe);
    }

    /// Takes the answers of next hops. Call it once a turn.
    pub(super) fn poll(&mut self, now: Duration, engine: &mut Engine, results: &mut Results<'_>) {
        let end = results.waiting.end();
        for Resolved { probes, result } in self.neighbours.poll(now, end, engine, &self.routes) {
            match result {
                Ok(time) => {
                    if !self.scan.several {
                        results.report.resolved(time);
                    }
                    // In front, in their order.
                    probes.into_iter().rev().for_each(|probe| self.ready.push_front(probe));
                }
                Err(error) => self.fail(now, &probes, error, results),
            }
        }
        if results.waiting.is_over(now) {
            self.expire(now, results);
        }
    }

    /// Notes that the time is over for probes that have not left.
    fn expire(&mut self, now: Duration, results: &mut Results<'_>) {
        while let Some(probe) = self.pop(results, now) {
            let (text, verdict) = ("not probed within the time".to_owned(), Verdict::TimedOut);
            let at = self.remote(probe);
            self.push_next(results.note(now, probe, at, Err(Error::Unusable { text, verdict }), None));
        }
    }

    /// Notes that the next hop of these probes does not answer.
    fn fail(&mut self, now: Duration, probes: &[Probe], error: Error, results: &mut Results<'_>) {
        let (text, verdict) = (Failure::of(&error).message().to_owned(), Verdict::from(&error));
        for probe in probes {
            let at = self.remote(*probe);
            let error = Error::Unusable { text: text.clone(), verdict };
            self.push_next(results.note(now, *probe, at, Err(error), None));
        }
        if let Some(probe) = probes.first().filter(|_| !self.scan.several) {
            log::log!(if self.scan.is_choice() { log::Level::Warn } else { log::Level::Info }, "{error}");
            let at = self.remote(*probe);
            self.failures.retain(|(other, _)| *other != at);
            self.failures.push((at, error));
        }
    }

    /// Queues the probe that follows a failed one, if there is one.
    pub(super) fn push_next(&mut self, next: Option<Probe>) {
        self.ready.extend(next);
    }

    /// Returns the remote end of a probe.
    fn remote(&self, probe: Probe) -> SocketAddr {
        let port = self.scan.port(probe.target);
        match self.routes.way(probe.address, port) {
            Ok(way) => self.routes.remote(probe.address, &way, port),
            Err(_) => self.scan.remote(probe),
        }
    }

    /// Returns the next probe, if one may leave now. Notes the results of those that cannot.
    pub(super) fn take(
        &mut self,
        now: Duration,
        engine: &mut Engine,
        results: &mut Results<'_>,
    ) -> Option<Departure> {
        let mut passed_over = 0;
        while self.pace.is_due(now) && passed_over <= self.ready.len() {
            let probe = self.pop(results, now)?;
            let port = self.scan.port(probe.target);
            let way = match self.routes.way(probe.address, port) {
                Ok(way) => way,
                Err(error) => {
                    let at = self.scan.remote(probe);
                    self.push_next(results.note(now, probe, at, Err(error), None));
                    continue;
                }
            };
            self.note_address(probe, &way, results);
            if self.busy.contains(&self.routes.remote(probe.address, &way, port)) {
                self.ready.push_back(probe);
                passed_over += 1;
                continue;
            }
            match self.neighbours.resolve(now, engine, &self.routes, &way, probe) {
                Resolution::Known(mac, neighbour) => {
                    let (tuple, route) =
                        self.routes.flow(engine, probe.address, &way, port, (mac, neighbour));
                    self.busy.insert(tuple.remote);
                    self.pace.note(now);
                    self.has_sent = true;
                    return Some(Departure { probe, way, tuple, route });
                }
                Resolution::Asked => self.pace.note(now),
                Resolution::Parked => {}
                Resolution::Full => {
                    self.ready.push_front(probe);
                    return None;
                }
            }
        }
        None
    }

    /// Notes the results of all targets where no address has a route.
    pub(super) fn drain(&mut self, results: &mut Results<'_>) {
        while let Some(probe) = self.pop(results, Duration::ZERO) {
            if let Err(error) = self.routes.way(probe.address, self.scan.port(probe.target)) {
                let at = self.scan.remote(probe);
                self.push_next(results.note(Duration::ZERO, probe, at, Err(error), None));
            }
        }
    }

    /// Takes the next probe, ready or fresh. A host without an address has its result at once.
    fn pop(&mut self, results: &mut Results<'_>, now: Duration) -> Option<Probe> {
        if let Some(probe) = self.ready.pop_front() {
            return Some(probe);
        }
        loop {
            let target = self.fresh.next()?;
            let addresses = self.scan.addresses(target);
            if !addresses.is_empty() {
                return Some(Probe { target, address: addresses.start });
            }
            results.note_unusable(now, target);
        }
    }

    /// Notes the end of a probe: its remote end is free again. A silent next hop's link address is forgotten.
    pub(super) fn end(&mut self, departure: &Departure, silent: bool) {
        self.busy.remove(&departure.tuple.remote);
        if silent && self.scan.patience.is_some() {
            self.neighbours.forget(&self.routes, &departure.way);
        }
    }

    /// Notes in the report which address of a single host is tried.
    fn note_address(&mut self, probe: Probe, way: &Way, results: &mut Results<'_>) {
        if !self.scan.several && self.noted != Some(probe.address) {
            self.noted = Some(probe.address);
            results.report.attempt(self.scan.remote(probe));
            results.report.route(self.routes.egress(way));
        }
    }

    /// Returns when [`Queue::poll`] or [`Queue::take`] is due, the latter only if there is `room` for a probe.
    pub(super) fn due(&self, room: bool) -> Option<Duration> {
        let waiting = !self.fresh.is_empty() || !self.ready.is_empty();
        let pace = self.pace.next().filter(|_| room && waiting);
        pace.into_iter().chain(self.neighbours.due()).min()
    }
}
