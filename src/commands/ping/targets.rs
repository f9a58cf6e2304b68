//! The targets of pings: one local port and one engine for all, the route and next hop of each.
use super::Ping;
use crate::{
    commands::attempt::{Attempt, Origin},
    host::neighbour,
    link::LinkHeader,
    neighbour::Neighbour,
    net::{FiveTuple, MacAddr, Protocol},
    path::Tally,
    report::{Error, JsonReport},
    runtime::{self, Egress, Engine, SharedEnd, assume},
    segment::SeqNumber,
    stack::{FlowRoute, HeaderOnly},
};
use arrayvec::ArrayVec;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Round trips kept of all targets together, and of each at least.
const KEPT: usize = 1 << 20;
const KEPT_OF_EACH: usize = 1 << 10;
/// Maximum SYNs of a target whose connections are reset before the next.
const MAX_DOUBTFUL: usize = 4;
/// Longest wait for a change of the neighbour table before it is read again.
const TICK: Duration = Duration::from_millis(20);

/// A target.
#[derive(Debug)]
pub(super) struct PingTarget {
    pub tuple: FiveTuple,
    pub route: FlowRoute,
    /// The SYN, whose sequence number each ping replaces; `None` for UDP.
    pub syn: Option<HeaderOnly>,
    /// The next hop, unless it never changes.
    pub next_hop: Option<HopAddress>,
    /// The target is this host, which may answer from any of its addresses.
    pub is_here: bool,
    pub tally: Tally,
    /// The kernel's path, with --both.
    pub kernel: Option<Tally>,
    /// The key of the last ping.
    pub last: Option<u32>,
    /// The keys of the last SYNs of which one may have left the peer half open: the last that was answered, since the
    /// reset may be lost, and those after it.
    pub doubtful: ArrayVec<u32, MAX_DOUBTFUL>,
}

/// A next hop: the interface's index, and the address.
pub(super) type HopAddress = (u32, IpAddr);

/// Everything that is open.
pub(super) struct OpenTargets {
    pub engine: Engine,
    pub targets: Vec<PingTarget>,
}

/// Opens everything for all targets that have a route and a neighbour. Says of the others why they have none.
///
/// # Errors
/// Those of opening; the first target's if none can be pinged.
pub(super) fn open(ping: &Ping, report: &mut JsonReport) -> Result<OpenTargets, Error> {
    let attempts = attempts(ping, report)?;
    let requests: Vec<_> = attempts.iter().map(|attempt| attempt.request).collect();
    let Some(first) = attempts.first() else { return Err(none_left(Vec::new(), report)) };
    let chosen = SharedEnd::choose(&requests, &first.setup)?;
    let mut setup = chosen.setup;
    if setup.remotes.len() > 1 {
        let hosts: BTreeSet<IpAddr> = setup.remotes.iter().map(SocketAddr::ip).collect();
        setup.flows = setup.remotes.len();
        setup.remotes = hosts.into_iter().map(|host| SocketAddr::new(host, 0)).collect();
    }
    let (mut routed, mut failures) = (Vec::new(), Vec::new());
    for (attempt, egress) in attempts.iter().zip(chosen.egresses) {
        match egress {
            Ok(egress) => routed.push((attempt, egress)),
            Err(error) => failures.push((attempt.remote, Error::from(runtime::Error::from(error)))),
        }
    }
    let Some(port) = chosen.port else { return Err(none_left(failures, report)) };
    setup.hears_neighbours = routed.iter().any(|(_, egress)| egress.neighbour() != Neighbour::Fixed);
    let mut engine = Engine::open(&setup, port)?;
    engine.stack.leave_unknown_segments();
    if let Some(assumed) = setup.assumed {
        assume::assume(&mut engine, assumed)?;
    }
    let start = engine.reactor.now();
    let hops: BTreeSet<_> = routed.iter().filter_map(|(_, egress)| hop_address(egress)).collect();
    let known = resolve(&mut engine, &hops, setup.assumed.is_some(), ping.wait)?;
    let limit = (KEPT / routed.len().max(1)).max(KEPT_OF_EACH);
    let mut targets = Vec::new();
    for (attempt, egress) in routed {
        let next_hop = hop_address(&egress);
        let destination = match next_hop {
            None => egress.known_mac(),
            Some(address) => match known.get(&address) {
                Some(mac) => *mac,
                None => {
                    let error = neighbour::unanswered(address.0, address.1, Some(ping.wait));
                    failures.push((attempt.remote, runtime::Error::from(error).into()));
                    continue;
                }
            },
        };
        let is_here = egress.interface.loopback;
        if targets.is_empty() {
            report.attempt(attempt.remote);
            report.route(&egress);
            report.resolved(engine.reactor.now() - start);
        }
        let next_hop =
            next_hop.filter(|_| egress.assumed.is_none() && egress.neighbour() != Neighbour::Fixed);
        let origin = Origin::new(attempt.request, egress, destination);
        let (tuple, route) = origin.flow(&engine, ping.protocol, attempt.remote.port());
        if targets.is_empty() {
            report.flow(&tuple);
        }
        log::info!("pinging {tuple}");
        let now = engine.reactor.now();
        let syn = match ping.protocol {
            Protocol::Tcp => engine.stack.syn(now, tuple, route),
            Protocol::Udp => None,
        };
        if setup.flows > 0 {
            engine.add_flow(&tuple);
        }
        let (tally, doubtful) = (Tally::new(limit), ArrayVec::new());
        let kernel = ping.both.as_ref().map(|_| tally.clone());
        targets.push(PingTarget {
            tuple,
            route,
            syn,
            next_hop,
            is_here,
            tally,
            kernel,
            last: None,
            doubtful,
        });
    }
    if targets.is_empty() {
        return Err(none_left(failures, report));
    }
    failures.iter().for_each(|(_, error)| log::warn!("{error}"));
    Ok(OpenTargets { engine, targets })
}

/// Returns the attempts: of each host the first address with a route, at each port.
fn attempts(ping: &Ping, report: &mut JsonReport) -> Result<Vec<Attempt>, Error> {
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut known = HashSet::new();
    let mut unusable = None;
    for host in &ping.hosts {
        let mut choices = host.attempts.iter();
        let routed = choices.find(|attempt| host.attempts.len() == 1 || attempt.request.decide().is_ok());
        let Some(chosen) = routed.or(host.attempts.first()) else {
            let error = host.fail_with(Vec::new(), report);
            log::info!("{error}");
            unusable.get_or_insert(error);
            continue;
        };
        for port in &ping.ports {
            let mut attempt = chosen.clone();
            attempt.remote.set_port(*port);
            attempt.request = attempt.request.with_remote_port(*port);
            if known.insert(attempt.remote) {
                attempts.push(attempt);
            }
        }
    }
    match unusable {
        Some(error) if attempts.is_empty() => Err(error),
        _ => Ok(attempts),
    }
}

/// Returns the first failure, after a line for each of the others.
fn none_left(mut failures: Vec<(SocketAddr, Error)>, report: &mut JsonReport) -> Error {
    for (_, error) in failures.iter().skip(1) {
        log::warn!("{error}");
    }
    match failures.is_empty() {
        true => Error::Ping { operation: "ping", error: io::ErrorKind::AddrNotAvailable.into() },
        false => {
            let (remote, error) = failures.swap_remove(0);
            report.attempt(remote);
            error
        }
    }
}

/// Returns the address of a next hop whose link address has to be resolved.
fn hop_address(egress: &Egress) -> Option<HopAddress> {
    egress.unresolved().map(|address| (egress.interface.index, address))
}

/// Resolves next hops, all at once unless they are asked from an assumed address. Returns those that answer within
/// `wait`.
fn resolve(
    engine: &mut Engine,
    hops: &BTreeSet<HopAddress>,
    assumed: bool,
    wait: Duration,
) -> Result<BTreeMap<HopAddress, MacAddr>, Error> {
    let mut known = BTreeMap::new();
    if assumed {
        for hop in hops {
            match assume::resolve(engine, hop.1, wait) {
                Ok(mac) => drop(known.insert(*hop, mac)),
                Err(runtime::Error::NoNeighbour { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        return Ok(known);
    }
    let mut asked = Vec::new();
    for hop in hops {
        match neighbour::begin(hop.0, hop.1).map_err(runtime::Error::from)? {
            Some(mac) => drop(known.insert(*hop, mac)),
            None => asked.push(*hop),
        }
    }
    let end = engine.reactor.now() + wait;
    while !asked.is_empty() && engine.reactor.now() < end {
        engine.run_until(Some(engine.reactor.now() + TICK), |_| None::<()>)?;
        asked.retain(|hop| match engine.neighbour(hop.0, hop.1) {
            Ok(Some(mac)) => known.insert(*hop, mac).is_some(),
            Ok(None) => true,
            Err(error) => {
                log::debug!("{error}");
                false
            }
        });
    }
    Ok(known)
}

impl PingTarget {
    /// Returns the resets to send before the next SYN. A target that has answered nothing yet is half open by the last SYN
    /// at most, whose answer was lost.
    pub(super) fn resets(&self) -> impl Iterator<Item = HeaderOnly> {
        let recent = if self.tally.answered() > 0 { MAX_DOUBTFUL } else { 1 };
        let keys = self.doubtful.iter().rev().take(recent);
        self.syn.into_iter().flat_map(move |syn| keys.clone().map(move |key| syn.reset_of(SeqNumber(*key))))
    }

    /// Notes that a SYN was sent, or that it is the last that was answered.
    pub(super) fn doubt(&mut self, key: u32, is_answered: bool) {
        if is_answered {
            self.doubtful.clear();
        } else if self.doubtful.is_full() {
            // The last answered one stays first.
            self.doubtful.remove(1);
        }
        self.doubtful.push(key);
    }

    /// Sends further pings to this link address.
    pub(super) fn move_next_hop(&mut self, mac: MacAddr) {
        let header = &mut self.route.next_hop.header;
        if let LinkHeader::Ethernet { destination, .. } = header
            && *destination != mac
        {
            log::info!("{}: the next hop is at {mac} now", self.tuple);
            *destination = mac;
        }
        if let Some(syn) = &mut self.syn {
            syn.next_hop = self.route.next_hop;
        }
    }
}
