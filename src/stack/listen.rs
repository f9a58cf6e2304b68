//! Listeners: from a SYN, or the ACK that completes a handshake, to a flow in the backlog.
use super::{
    Flow, FlowRoute, Path, Stack, flow_route,
    handshake::{Handshake, Reply, syn_window},
    header_only::HeaderOnly,
    ip::Template,
    source_validation::{UnverifiedSource, Validation},
    state_machine,
    time_wait::TimeWaitAnswer,
};
use crate::{
    host::metrics::Metrics,
    link::NextHop,
    neighbour::Neighbour,
    net::{FiveTuple, zone::endpoint},
    segment::{ACK, FIN, RST, SYN, Segment, SeqNumber},
};
use std::{collections::HashMap, net::SocketAddr, time::Duration};

/// The treatment of a segment, or of a remote address by a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The connection is served.
    Accept,
    /// The segment is dropped without an answer, as if no host were there.
    Ignore,
    /// The segment is answered with a reset.
    Refuse,
}

/// A filter of the addresses, with their zones, that may connect to a listener.
pub(crate) type Gate = Box<dyn Fn(SocketAddr) -> Admission>;

/// The outcome of a segment that belonged to no flow.
pub(super) enum Found {
    /// The segment was dropped or answered.
    Nothing,
    /// A flow exists for the segment now.
    Flow,
    /// The segment has to be handed over again once the route back to its source is known.
    Unverified(UnverifiedSource),
}

/// A listening port.
pub struct Listener {
    /// Maximum connections that wait to be accepted. Further SYNs get no answer, and the peer
    /// retransmits them.
    pub backlog: usize,
    /// Maximum handshakes with a record; further SYNs are answered with SYN cookies.
    pub half_open: usize,
    /// The filter of remote addresses.
    pub gate: Gate,
    /// The served interfaces by index, each with the limits of its packets.
    pub paths: HashMap<u32, Path>,
}

/// Hop limit of IPv6 on an interface that is not served (IPV6_DEFAULT_HOPLIMIT, net/ipv6.h).
const DEFAULT_HOP_LIMIT: u8 = 64;

impl Stack {
    /// Starts serving SYNs.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
        self.listening = true;
    }

    /// Stops the listener: further SYNs are answered with resets, where the gate shows strangers
    /// any. Connections in the backlog are reset; handshakes under way are reset when their ACK
    /// comes.
    pub(crate) fn stop_listening(&mut self) {
        self.listening = false;
        for tuple in self.handshakes.clear() {
            self.remember_closed(tuple);
        }
        for tuple in std::mem::take(&mut self.accepted) {
            if let Some(flow) = self.flow(&tuple) {
                flow.abort();
            }
        }
    }

    /// Returns the next connection in the backlog, in the order in which their handshakes
    /// completed.
    pub fn accept(&mut self) -> Option<FiveTuple> {
        let tuple = self.accepted.pop_front()?;
        if let Some(flow) = self.flow(&tuple) {
            flow.accept();
        }
        Some(tuple)
    }

    /// Finds the flow of a segment that had none, or makes it if the segment completes a handshake.
    pub(super) fn find_or_make(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        reply: NextHop,
    ) -> Found {
        let window = syn_window(self.settings.receive_buffer);
        // The handshake's SYN has passed the validation, and its answers keep the next hop found
        // then.
        if let Some(handshake) = self.handshakes.get(&tuple) {
            match handshake.classify(segment, window) {
                Reply::Completed => {
                    let handshake = handshake.clone();
                    return self.establish(tuple, handshake);
                }
                Reply::Repeated => self.repeat_syn_ack(now, &tuple),
                Reply::Challenged => self.challenge(now, &tuple),
                Reply::Abandoned => drop(self.handshakes.remove(&tuple)),
                Reply::Wrong => {
                    let (next_hop, metrics) = (handshake.next_hop, handshake.metrics);
                    // The first SYN got a cookie, and only a retransmitted one got a record.
                    if self.redeem(now, &tuple, segment, next_hop).is_some() {
                        return self.handle_unknown(now, tuple, segment, reply);
                    }
                    self.reset(tuple, segment, next_hop, &metrics);
                }
                Reply::Nothing => {}
                Reply::Replaced => return self.handle_unknown(now, tuple, segment, reply),
            }
            return Found::Nothing;
        }
        self.handle_unknown(now, tuple, segment, reply)
    }

    /// Handles a segment of no flow, if gate and source validation let it pass. The gate comes
    /// first: sources that it ignores are not worth a query.
    fn handle_unknown(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        reply: NextHop,
    ) -> Found {
        if self.listener.as_ref().is_some_and(|listener| (listener.gate)(tuple.remote) == Admission::Ignore) {
            return Found::Nothing;
        }
        let (next_hop, neighbour, metrics) = match self.validator.validate(now, &tuple, &reply, false) {
            Validation::Valid { next_hop, neighbour, metrics, .. } => (next_hop, neighbour, metrics),
            Validation::Invalid => return Found::Nothing,
            Validation::Unverified(unverified) => return Found::Unverified(unverified),
            Validation::RateLimited => return self.handle_unvalidated(now, tuple, segment, reply),
        };
        self.handshakes.remove(&tuple);
        let mut beyond = None;
        match self.time_waits.ingress(now, &tuple, segment) {
            Some(TimeWaitAnswer::Nothing) => return Found::Nothing,
            Some(TimeWaitAnswer::Repeat(last)) => {
                self.reply(last);
                return Found::Nothing;
            }
            Some(TimeWaitAnswer::Open { beyond: old }) => beyond = Some(old),
            None => {}
        }
        if let Some(handshake) = self.redeem(now, &tuple, segment, next_hop) {
            return self.establish(tuple, handshake.with(neighbour, metrics));
        }
        self.admit(now, tuple, segment, (next_hop, neighbour, metrics), beyond);
        Found::Nothing
    }

    /// Handles a segment while the rate of queries is exhausted. A SYN gets a cookie, and the
    /// unverified is asked when the cookie comes back. Any other segment is dropped, as if lost.
    fn handle_unvalidated(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        reply: NextHop,
    ) -> Found {
        if self.redeem(now, &tuple, segment, reply).is_some()
            && let Validation::Unverified(unverified) = self.validator.validate(now, &tuple, &reply, true)
        {
            return Found::Unverified(unverified);
        }
        let Some(listener) = self.listener.as_ref().filter(|_| self.listening) else { return Found::Nothing };
        let accepts = (listener.gate)(tuple.remote) == Admission::Accept
            && self.accepted.len() < listener.backlog
            && listener.paths.contains_key(&reply.interface);
        if reaction(segment) == Admission::Accept && accepts {
            let handshake = self.cookies.give(now, &tuple, reply, segment);
            self.send_syn_ack(now, &tuple, &handshake);
        }
        Found::Nothing
    }

    /// Returns the handshake that a segment completes by a SYN cookie.
    fn redeem(
        &self,
        now: Duration,
        tuple: &FiveTuple,
        segment: &Segment,
        reply: NextHop,
    ) -> Option<Handshake> {
        let listener = self.listener.as_ref().filter(|_| self.listening)?;
        let window = syn_window(self.settings.receive_buffer);
        let handshake = self.cookies.redeem(now, tuple, reply, segment, window)?;
        ((listener.gate)(tuple.remote) == Admission::Accept).then_some(handshake)
    }

    /// Answers a segment of no connection. In CLOSED (RFC 9293, section 3.10.7.1), everything but a
    /// reset is answered with a reset; for LISTEN see [`reaction`].
    fn admit(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        way: (NextHop, Neighbour, Metrics),
        beyond: Option<SeqNumber>,
    ) {
        if reaction(segment) != Admission::Accept && self.cookies.were_given() && !self.knows(&tuple) {
            // The capture program may have let the segment in only because it could be a cookie's
            // ACK.
            return;
        }
        let admission = match &self.listener {
            Some(listener) => match (listener.gate)(tuple.remote) {
                // A gate that hides the port must not give it away by resets.
                Admission::Ignore => Admission::Ignore,
                // A refused host sees a closed port.
                Admission::Refuse => Admission::Refuse,
                _ if !self.listening => Admission::Refuse,
                Admission::Accept => reaction(segment),
            },
            None => Admission::Refuse,
        };
        match admission {
            Admission::Ignore => {}
            Admission::Refuse => self.reset(tuple, segment, way.0, &way.2),
            Admission::Accept => self.answer(now, tuple, segment, way, beyond),
        }
    }

    /// Begins a handshake. Its initial sequence number lies beyond that of a recent connection with
    /// the same five-tuple, if there was one (RFC 1122, section 4.2.2.13).
    fn answer(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        (next_hop, neighbour, metrics): (NextHop, Neighbour, Metrics),
        beyond: Option<SeqNumber>,
    ) {
        let Some(listener) = &self.listener else { return };
        if self.accepted.len() >= listener.backlog {
            return log::debug!("the backlog is full: no answer to {}", endpoint(&tuple.remote));
        }
        if self.pool.is_exhausted() {
            return log::debug!("memory is short: no answer to {}", endpoint(&tuple.remote));
        }
        if !listener.paths.contains_key(&next_hop.interface) {
            return log::debug!(
                "the route back to {} leads out of interface {}, which is not served",
                endpoint(&tuple.remote),
                next_hop.interface
            );
        }
        if self.handshakes.len() >= listener.half_open {
            let handshake = self.cookies.give(now, &tuple, next_hop, segment).with(neighbour, metrics);
            return self.send_syn_ack(now, &tuple, &handshake);
        }
        let lies_beyond = |seed| match beyond {
            Some(old) => state_machine::initial_sequence(seed).is_after(old),
            None => true,
        };
        let mut seed = (self.seed)();
        while !lies_beyond(seed) {
            seed = (self.seed)();
        }
        let handshake = Handshake::new(now, next_hop, seed, segment).with(neighbour, metrics);
        self.send_syn_ack(now, &tuple, &handshake);
        self.handshakes.insert(tuple, handshake);
    }

    /// Retransmits the SYN-ACK of a handshake.
    pub(super) fn repeat_syn_ack(&mut self, now: Duration, tuple: &FiveTuple) {
        if let Some(handshake) = self.handshakes.get(tuple).cloned() {
            self.send_syn_ack(now, tuple, &handshake);
        }
    }

    /// Sends a handshake's SYN-ACK.
    fn send_syn_ack(&mut self, now: Duration, tuple: &FiveTuple, handshake: &Handshake) {
        let Some(path) = self.path_of(&handshake.next_hop) else { return };
        let path = path.with_mtu_of(&handshake.metrics);
        let mss = flow_route::mss(&path, tuple.remote.ip(), &self.settings);
        let announced = self.settings.advertised_mss(&handshake.metrics);
        let mss = announced.unwrap_or(u16::try_from(mss).unwrap_or(u16::MAX));
        let Some(segment) = handshake.syn_ack(now, mss, self.settings.receive_buffer) else {
            return log::debug!("a SYN from {} makes no sense", endpoint(&tuple.remote));
        };
        let template = self.answer_template(tuple, &handshake.next_hop, &handshake.metrics, handshake.seed);
        self.reply(HeaderOnly { next_hop: handshake.next_hop, template, segment });
    }

    /// Returns the path of a listener's answers to a next hop.
    fn path_of(&self, next_hop: &NextHop) -> Option<Path> {
        self.listener.as_ref()?.paths.get(&next_hop.interface).copied()
    }

    /// Returns the IP header of an answer that no flow sends.
    pub(super) fn answer_template(
        &self,
        tuple: &FiveTuple,
        next_hop: &NextHop,
        metrics: &Metrics,
        seed: u64,
    ) -> Template {
        let hop_limit = self.path_of(next_hop).map_or(DEFAULT_HOP_LIMIT, |path| path.ipv6_hop_limit);
        let hop_limit = self.settings.hop_limit(tuple.remote.ip(), hop_limit, metrics);
        flow_route::template(tuple, hop_limit, &self.settings, seed)
    }

    /// Sends a challenge ACK to the peer of a handshake.
    fn challenge(&mut self, now: Duration, tuple: &FiveTuple) {
        let Some(handshake) = self.handshakes.challenged(now, tuple) else { return };
        let Some(segment) = handshake.challenge(now, self.settings.receive_buffer) else { return };
        let (next_hop, metrics, seed) = (handshake.next_hop, handshake.metrics, handshake.seed);
        let template = self.answer_template(tuple, &next_hop, &metrics, seed);
        self.reply(HeaderOnly { next_hop, template, segment });
    }

    /// Makes the flow of a handshake whose ACK has come. If the backlog is full or memory is short,
    /// the ACK is dropped and the peer retransmits.
    fn establish(&mut self, tuple: FiveTuple, handshake: Handshake) -> Found {
        let Some(listener) = &self.listener else { return Found::Nothing };
        if self.accepted.len() >= listener.backlog {
            log::debug!("the backlog is full: {} has to wait", endpoint(&tuple.remote));
            return Found::Nothing;
        }
        if self.pool.is_exhausted() {
            log::debug!("memory is short: {} has to wait", endpoint(&tuple.remote));
            return Found::Nothing;
        }
        self.handshakes.remove(&tuple);
        let Handshake { next_hop, neighbour, metrics, .. } = handshake;
        let Some(path) = listener.paths.get(&next_hop.interface) else { return Found::Nothing };
        let route = FlowRoute { next_hop, neighbour, path: *path, metrics };
        self.flows.insert(tuple, Flow::answer(tuple, route, &self.settings, &self.pool, &handshake));
        self.changed.push(tuple);
        self.accepted.push_back(tuple);
        Found::Flow
    }
}

/// Returns the treatment of a segment by a port in LISTEN (RFC 9293, section 3.10.7.2). A SYN with
/// a FIN is dropped, as in Linux (tcp_rcv_state_process(), net/ipv4/tcp_input.c): no client sends
/// one, and scanners get no answer.
fn reaction(segment: &Segment) -> Admission {
    match (segment.is(RST), segment.is(ACK), segment.is(SYN)) {
        // Steps "first" to "third" of RFC 9293, section 3.10.7.2.
        (true, _, _) => Admission::Ignore,
        (_, true, _) => Admission::Refuse,
        (_, _, true) if !segment.is(FIN) => Admission::Accept,
        // Step "fourth".
        _ => Admission::Ignore,
    }
}
