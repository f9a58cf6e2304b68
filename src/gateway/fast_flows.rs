//! The flows on the fast path: from when, until when, and their traffic there.
//!
//! A flow is nominated with one of its first packets. It gets onto the fast path once no packet waits in the
//! packet sockets, so that later packets do not overtake earlier ones. It leaves the fast path when its way or its
//! neighbour changes, and when it falls silent; its next packet then passes netkat, which looks up both.
use super::{
    flows::{Flow, Traffic},
    next_hops::{NextHops, Resolution},
};
use crate::{
    kernel::{FastFlow, FastPath, FastTraffic, FlowKey},
    link::{LinkHeader, NextHop},
    net::ip_protocol::{TCP, UDP},
};
use std::{collections::HashMap, time::Duration};

/// Packets after which a flow is nominated: shorter flows are not worth it.
pub(super) const RIPE: u64 = 16;
/// Longest wait of a nominated flow for idle packet sockets.
const PATIENCE: Duration = Duration::from_millis(100);
/// Silence after which a flow leaves the fast path.
const IDLE: Duration = Duration::from_secs(5);

/// The fast path, if there is one, and the flows that are to get onto it.
pub(super) struct FastFlows {
    path: Option<FastPath>,
    nominated: Vec<FlowKey>,
    /// Time of the first nomination.
    since: Duration,
    /// What took the fast path, both directions.
    carried: Traffic,
}

impl FastFlows {
    pub(crate) fn new(path: Option<FastPath>) -> FastFlows {
        FastFlows { path, nominated: Vec::new(), since: Duration::ZERO, carried: Traffic::default() }
    }

    /// Returns what took the fast path, both directions.
    pub(crate) fn carried(&self) -> Traffic {
        self.carried
    }

    /// Returns whether a flow may be nominated.
    pub(crate) fn accepts(&self, flow: &Flow) -> bool {
        self.path.is_some()
            && flow.fast.is_none()
            && flow.packets() >= flow.ripe_at
            && flow.next_hop.is_some()
            && matches!(flow.key.protocol, TCP | UDP)
    }

    /// Nominates a flow.
    pub(crate) fn nominate(&mut self, now: Duration, flow: &mut Flow) {
        if self.nominated.is_empty() {
            self.since = now;
        }
        flow.ripe_at = u64::MAX;
        self.nominated.push(flow.key);
    }

    /// Puts the nominated flows onto the fast path, if the packet sockets are `idle` or have not been for long.
    pub(crate) fn promote(&mut self, now: Duration, idle: bool, flows: &mut HashMap<FlowKey, Flow>) {
        if self.nominated.is_empty() || !idle && now < self.since + PATIENCE {
            return;
        }
        for key in std::mem::take(&mut self.nominated) {
            let Some(flow) = flows.get_mut(&key) else { continue };
            flow.ripe_at = RIPE;
            let (Some(way), Some(next_hop)) = (flow.way, flow.next_hop) else { continue };
            flow.fast = self.put(flow.key, next_hop, way.mtu);
            match flow.fast {
                Some(_) => log::debug!("flow: {} -> {} takes the fast path", flow.key.local, flow.remote),
                // There may be room later.
                None => flow.ripe_at = flow.packets().saturating_mul(2),
            }
        }
    }

    fn put(&mut self, key: FlowKey, next_hop: NextHop, mtu: u32) -> Option<FastFlow> {
        let LinkHeader::Ethernet { destination, source } = next_hop.header else { return None };
        self.path.as_mut()?.insert(key, next_hop.interface, source, destination, mtu)
    }

    /// Takes a flow off the fast path, for a reason that goes into the log.
    pub(crate) fn leave(&mut self, flow: &mut Flow, reason: &str) {
        if let Some((path, fast)) = self.path.as_mut().zip(flow.fast.take()) {
            let traffic = path.remove(fast);
            self.count(flow, traffic);
            log::debug!("flow: {} -> {} leaves the fast path: {reason}", flow.key.local, flow.remote);
        }
    }

    /// Closes the fast path for good; no flow may be on it.
    pub(crate) fn close(&mut self) {
        self.path = None;
    }

    /// Counts a flow's traffic, and takes the flow off the fast path if it is silent or its neighbour has changed.
    pub(crate) fn follow(&mut self, now: Duration, flow: &mut Flow, hops: &mut NextHops) {
        let Some((path, fast)) = self.path.as_ref().zip(flow.fast.as_mut()) else { return };
        let traffic = path.take_traffic(fast);
        self.count(flow, traffic);
        let Some(way) = flow.way else { return };
        if traffic != FastTraffic::default() {
            flow.last = now;
        }
        if traffic.received.0 > 0 {
            hops.confirm(now, &way);
        }
        if traffic.sent.0 == 0 {
            if now >= flow.last + IDLE {
                self.leave(flow, "silent");
            }
            return;
        }
        // Asks a neighbour that has fallen silent.
        let resolution = hops.resolve(now, &way, flow.key.local.ip());
        if !matches!(resolution, Resolution::Known(next_hop) if flow.next_hop == Some(next_hop)) {
            self.leave(flow, "another next hop");
        }
    }

    fn count(&mut self, flow: &mut Flow, traffic: FastTraffic) {
        for (total, (packets, bytes)) in
            [(&mut flow.sent, traffic.sent), (&mut flow.received, traffic.received)]
        {
            for total in [total, &mut self.carried] {
                total.packets += packets;
                total.bytes += bytes;
            }
        }
    }
}
