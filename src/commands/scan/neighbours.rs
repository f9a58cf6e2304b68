//! Link addresses of a scan's next hops, for probes that wait for them.
//!
//! The kernel's table is asked first. A few next hops that it lacks, the kernel resolves: it is asked while netkat has the
//! privilege to, and what its table cannot do (a dead link, an interface without ARP) becomes the error. Many would
//! overflow its table (net.ipv4.neigh.default.gc_thresh3), so netkat solicits those itself, as it does later in the run
//! and at an assumed address.
use super::{queue::Probe, routes::Routes};
use crate::{
    host::neighbour,
    neighbour::Neighbour,
    net::{MacAddr, zone::ScopedIp},
    report::Error,
    runtime::{self, Engine, Way},
};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Maximum next hops that the kernel is made to resolve.
const BY_KERNEL: usize = 16;
/// Maximum next hops under resolution.
const MAX_PENDING: usize = 256;
/// Longest wait for a change of the kernel's table before it is read again.
const TICK: Duration = Duration::from_millis(50);
/// Interval of solicitations, and the wait for an answer to three of them (RFC 4861, section 10).
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
const UNREACHABLE_AFTER: Duration = Duration::from_secs(3);

/// A next hop: the interface's index and the address.
type Key = (u32, IpAddr);

/// The resolution of a probe's next hop.
pub(super) enum Resolution {
    Known(MacAddr, Neighbour),
    /// The probe comes back from [`Neighbours::poll`]. It is the first of its next hop, for which a request leaves.
    Asked,
    /// The probe comes back from [`Neighbours::poll`].
    Parked,
    /// Too many next hops are under resolution.
    Full,
}

/// The next hops so far.
pub(super) struct Neighbours {
    wait: Duration,
    known: HashMap<Key, (MacAddr, Neighbour)>,
    pending: HashMap<Key, Pending>,
    /// Next hops that the kernel resolves.
    kernel: Vec<Key>,
}

/// A next hop under resolution.
struct Pending {
    since: Duration,
    /// Time of the next solicitation, or of the next look at the kernel's table.
    next: Duration,
    by_kernel: bool,
    way: Way,
    probes: Vec<Probe>,
}

/// The outcome of resolving a next hop.
pub(super) struct Resolved {
    /// The probes that have waited.
    pub probes: Vec<Probe>,
    /// The time that this took, or why it failed.
    pub result: Result<Duration, Error>,
}

impl Neighbours {
    /// Returns the neighbours of a scan that waits this long for each.
    pub(super) fn new(wait: Duration) -> Neighbours {
        Neighbours { wait, known: HashMap::new(), pending: HashMap::new(), kernel: Vec::new() }
    }

    /// Makes the kernel resolve the next hops, if they are few. Call it while netkat has the privilege to ask.
    pub(super) fn ask_kernel(&mut self, routes: &Routes<'_>, ports: &[u16]) {
        let mut keys: Vec<Key> = Vec::new();
        for way in routes.ways.iter().flat_map(|ways| ports.iter().filter_map(|port| ways.to(*port).ok())) {
            if let Some(key) = routes.unresolved(&way).filter(|_| routes.egress(&way).assumed.is_none())
                && !keys.contains(&key)
            {
                keys.push(key);
                if keys.len() > BY_KERNEL {
                    return;
                }
            }
        }
        for (interface, address) in keys {
            match neighbour::begin(interface, address) {
                Ok(_) => self.kernel.push((interface, address)),
                Err(error) => log::debug!("{error}"),
            }
        }
    }

    /// Returns the link address of a probe's next hop, or has the probe wait for it.
    pub(super) fn resolve(
        &mut self,
        now: Duration,
        engine: &mut Engine,
        routes: &Routes<'_>,
        way: &Way,
        probe: Probe,
    ) -> Resolution {
        let Some(key) = routes.unresolved(way) else {
            return Resolution::Known(MacAddr::default(), Neighbour::Fixed);
        };
        if let Some((mac, neighbour)) = self.known.get(&key) {
            return Resolution::Known(*mac, *neighbour);
        }
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.probes.push(probe);
            return Resolution::Parked;
        }
        let assumed = routes.egress(way).assumed.is_some();
        if !assumed && let Ok(Some(mac)) = engine.neighbour(key.0, key.1) {
            return self.learn(engine, key, mac);
        }
        if self.pending.len() >= MAX_PENDING {
            return Resolution::Full;
        }
        let by_kernel = self.kernel.iter().position(|asked| *asked == key);
        // Only the first time.
        let by_kernel = by_kernel.map(|at| self.kernel.swap_remove(at)).is_some();
        let pending = Pending { since: now, next: now, by_kernel, way: *way, probes: vec![probe] };
        self.pending.insert(key, pending);
        Resolution::Asked
    }

    fn learn(&mut self, engine: &mut Engine, key: Key, mac: MacAddr) -> Resolution {
        let neighbour =
            if engine.is_permanent(key.0, key.1) { Neighbour::Fixed } else { Neighbour::At(key.1) };
        self.known.insert(key, (mac, neighbour));
        Resolution::Known(mac, neighbour)
    }

    /// Forgets the link address of a next hop that does not answer: a host that comes back may have another one.
    pub(super) fn forget(&mut self, routes: &Routes<'_>, way: &Way) {
        if let Some(key) = routes.unresolved(way) {
            self.known.remove(&key);
        }
    }

    /// Asks for the next hops that are due. Returns those that have answered or failed, at `end` at the latest.
    pub(super) fn poll(
        &mut self,
        now: Duration,
        end: Option<Duration>,
        engine: &mut Engine,
        routes: &Routes<'_>,
    ) -> Vec<Resolved> {
        let mut ended = Vec::new();
        for (key, pending) in &mut self.pending {
            let limit = if pending.by_kernel { self.wait } else { self.wait.min(UNREACHABLE_AFTER) };
            let waited = now.saturating_sub(pending.since);
            let answer = match pending.by_kernel {
                // There are few, and a notification has woken us.
                true => {
                    pending.next = now + TICK;
                    engine.neighbour(key.0, key.1)
                }
                false => {
                    if now >= pending.next {
                        pending.next = now + SOLICIT_INTERVAL;
                        let from = routes.next_hop(&pending.way, MacAddr::BROADCAST);
                        let local = routes.egress(&pending.way).source;
                        engine.stack.solicit(now, local, &from, key.1);
                    }
                    Ok(engine.stack.take_solicited(key.0, key.1))
                }
            };
            match answer {
                Ok(Some(mac)) => ended.push((*key, Ok(mac))),
                Ok(None) if waited >= limit || end.is_some_and(|end| now >= end) => {
                    let assumed = routes.egress(&pending.way).assumed.is_some();
                    let address = ScopedIp::new(key.1, key.0);
                    ended.push((
                        *key,
                        Err(match assumed {
                            true => runtime::Error::NoNeighbour { address, waited },
                            false => neighbour::unanswered(key.0, key.1, Some(limit)).into(),
                        }),
                    ));
                }
                Ok(None) => {}
                Err(error) => ended.push((*key, Err(error))),
            }
        }
        let mut resolved = Vec::with_capacity(ended.len());
        for (key, answer) in ended {
            let Some(pending) = self.pending.remove(&key) else { continue };
            let result = answer.map_err(Error::from).map(|mac| {
                self.learn(engine, key, mac);
                now.saturating_sub(pending.since)
            });
            resolved.push(Resolved { probes: pending.probes, result });
        }
        resolved
    }

    /// Returns whether no probe waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns when [`Neighbours::poll`] is due.
    pub(super) fn due(&self) -> Option<Duration> {
        let due = self.pending.values().map(|pending| {
            let limit = if pending.by_kernel { self.wait } else { self.wait.min(UNREACHABLE_AFTER) };
            pending.next.min(pending.since + limit)
        });
        due.min()
    }
}
