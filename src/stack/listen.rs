//! Being called: from a SYN, or a segment that completes a handshake, to a flow that waits to be accepted.
use super::{
    Flow, FlowRoute, Path, Stack,
    door::{Judgement, Question},
    flow_route,
    handshake::{Handshake, Reply, syn_window},
    header_only::HeaderOnly,
    next_hop::Neighbour,
    state_machine,
    time_wait::Answer,
};
use crate::{
    link::NextHop,
    net::FiveTuple,
    segment::{ACK, FIN, RST, SYN, Segment, SeqNumber},
};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// What a listener does with connections that it does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Accept,
    /// No answer, as if nothing were there.
    Ignore,
    /// A reset.
    Refuse,
}

/// Who may connect to a listener.
pub type Gate = Box<dyn Fn(IpAddr) -> Admission>;

/// What comes of a segment that belongs to no flow.
pub(super) enum Found {
    /// It was dropped or answered.
    Nothing,
    /// There is a flow for it now.
    Flow,
    /// The segment is to be shown again once this is answered.
    Unknown(Question),
}

/// A listening port.
pub struct Listener {
    /// Connections that may wait to be accepted; one more SYN gets no answer and will be repeated.
    pub backlog: usize,
    /// Handshakes of which a record is kept; beyond them, SYN cookies are given.
    pub half_open: usize,
    pub gate: Gate,
    /// The interfaces served, by index, and what packets may measure on each.
    pub paths: HashMap<u32, Path>,
}

impl Stack {
    /// Serves SYNs from now on.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
        self.listening = true;
    }

    /// Answers further SYNs with resets, as far as the gate lets strangers see any. Connections not yet
    /// accepted are reset; handshakes under way will be.
    pub fn stop_listening(&mut self) {
        self.listening = false;
        for tuple in self.handshakes.clear() {
            self.depart(tuple);
        }
        for tuple in std::mem::take(&mut self.accepted) {
            if let Some(flow) = self.flow(&tuple) {
                flow.abort();
            }
        }
    }

    /// The next established connection to the listener, in the order of their handshakes' ends.
    pub fn accept(&mut self) -> Option<FiveTuple> {
        let tuple = self.accepted.pop_front()?;
        if let Some(flow) = self.flow(&tuple) {
            flow.accept();
        }
        Some(tuple)
    }

    /// Finds or makes the flow of a segment that had none.
    pub(super) fn find_or_make(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        reply: NextHop,
    ) -> Found {
        let window = syn_window(self.settings.receive_buffer);
        // A handshake is under way where its SYN was let in, and its answers go there.
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
                    let next_hop = handshake.next_hop;
                    // Its first SYN got a cookie, and only then a repeated one a record.
                    if self.redeem(now, &tuple, segment, next_hop).is_some() {
                        return self.meet(now, tuple, segment, reply);
                    }
                    self.reset(tuple, segment, next_hop);
                }
                Reply::Nothing => {}
                Reply::Replaced => return self.meet(now, tuple, segment, reply),
            }
            return Found::Nothing;
        }
        self.meet(now, tuple, segment, reply)
    }

    /// Lets a segment in by the door, or not. Those whom the gate ignores are not worth a question.
    fn meet(&mut self, now: Duration, tuple: FiveTuple, segment: &Segment, reply: NextHop) -> Found {
        let address = tuple.remote.ip();
        if self.listener.as_ref().is_some_and(|listener| (listener.gate)(address) == Admission::Ignore) {
            return Found::Nothing;
        }
        let (next_hop, neighbour) = match self.door.judge(now, &tuple, &reply, false) {
            Judgement::Open(next_hop, neighbour) => (next_hop, neighbour),
            Judgement::Closed => return Found::Nothing,
            Judgement::Ask(question) => return Found::Unknown(question),
            Judgement::Busy => return self.meet_unasked(now, tuple, segment, reply),
        };
        self.handshakes.remove(&tuple);
        let mut beyond = None;
        match self.time_waits.ingress(now, &tuple, segment) {
            Some(Answer::Nothing) => return Found::Nothing,
            Some(Answer::Repeat(last)) => {
                self.reply(last);
                return Found::Nothing;
            }
            Some(Answer::Open { beyond: old }) => beyond = Some(old),
            None => {}
        }
        if let Some(handshake) = self.redeem(now, &tuple, segment, next_hop) {
            return self.establish(tuple, handshake.with(neighbour));
        }
        self.admit(now, tuple, segment, (next_hop, neighbour), beyond);
        Found::Nothing
    }

    /// Takes a segment whose way back can't be asked for now: there are too many. A SYN gets a cookie, to be checked
    /// when it comes back; anything else is dropped, as a lost one.
    fn meet_unasked(&mut self, now: Duration, tuple: FiveTuple, segment: &Segment, reply: NextHop) -> Found {
        if self.redeem(now, &tuple, segment, reply).is_some()
            && let Judgement::Ask(question) = self.door.judge(now, &tuple, &reply, true)
        {
            return Found::Unknown(question);
        }
        let Some(listener) = self.listener.as_ref().filter(|_| self.listening) else { return Found::Nothing };
        let accepts = (listener.gate)(tuple.remote.ip()) == Admission::Accept
            && self.accepted.len() < listener.backlog
            && listener.paths.contains_key(&reply.interface);
        if reaction(segment) == Admission::Accept && accepts {
            let handshake = self.cookies.give(now, &tuple, reply, segment);
            self.send_syn_ack(now, &tuple, &handshake);
        }
        Found::Nothing
    }

    /// The handshake that a segment without one completes, if we gave its sender a cookie.
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
        ((listener.gate)(tuple.remote.ip()) == Admission::Accept).then_some(handshake)
    }

    /// Answers a segment of no connection: in CLOSED (RFC 9293, section 3.10.7.1) whatever is no reset is reset; in
    /// LISTEN see [`reaction`].
    fn admit(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        way: (NextHop, Neighbour),
        beyond: Option<SeqNumber>,
    ) {
        if reaction(segment) != Admission::Accept && self.cookies.were_given() && !self.knows(&tuple) {
            // Perhaps it was let in only because it might have been the ACK of a cookie.
            return;
        }
        let admission = match &self.listener {
            Some(listener) => match (listener.gate)(tuple.remote.ip()) {
                // A gate that shows strangers nothing must not betray itself by resets either.
                Admission::Ignore => Admission::Ignore,
                // Whom it refuses sees a closed port.
                Admission::Refuse => Admission::Refuse,
                _ if !self.listening => Admission::Refuse,
                Admission::Accept => reaction(segment),
            },
            None => Admission::Refuse,
        };
        match admission {
            Admission::Ignore => {}
            Admission::Refuse => self.reset(tuple, segment, way.0),
            Admission::Accept => self.answer(now, tuple, segment, way, beyond),
        }
    }

    /// Begins a handshake. Its initial sequence number lies beyond that of the connection before, if there was
    /// one of the same name not long ago (RFC 1122, section 4.2.2.13).
    fn answer(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        (next_hop, neighbour): (NextHop, Neighbour),
        beyond: Option<SeqNumber>,
    ) {
        let Some(listener) = &self.listener else { return };
        if self.accepted.len() >= listener.backlog {
            return log::debug!("the backlog is full: no answer to {}", tuple.remote);
        }
        if self.pool.is_exhausted() {
            return log::debug!("memory is short: no answer to {}", tuple.remote);
        }
        if !listener.paths.contains_key(&next_hop.interface) {
            return log::debug!(
                "the way back to {} leads out of interface {}, which is not served",
                tuple.remote,
                next_hop.interface
            );
        }
        if self.handshakes.len() >= listener.half_open {
            let handshake = self.cookies.give(now, &tuple, next_hop, segment);
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
        let handshake = Handshake::new(now, next_hop, seed, segment).with(neighbour);
        self.send_syn_ack(now, &tuple, &handshake);
        self.handshakes.insert(tuple, handshake);
    }

    pub(super) fn repeat_syn_ack(&mut self, now: Duration, tuple: &FiveTuple) {
        if let Some(handshake) = self.handshakes.get(tuple).cloned() {
            self.send_syn_ack(now, tuple, &handshake);
        }
    }

    fn send_syn_ack(&mut self, now: Duration, tuple: &FiveTuple, handshake: &Handshake) {
        let path = self.listener.as_ref().and_then(|l| l.paths.get(&handshake.next_hop.interface));
        let Some(path) = path else { return };
        let mss = flow_route::mss(path, tuple.remote.ip(), &self.settings);
        let Some(segment) = handshake.syn_ack(now, mss, self.settings.receive_buffer) else {
            return log::debug!("a SYN from {} makes no sense", tuple.remote);
        };
        let template = flow_route::template(tuple, &self.settings, handshake.seed);
        self.reply(HeaderOnly { next_hop: handshake.next_hop, template, segment });
    }

    /// Tells the peer of a handshake where we are.
    fn challenge(&mut self, now: Duration, tuple: &FiveTuple) {
        let Some(handshake) = self.handshakes.challenged(now, tuple) else { return };
        let Some(segment) = handshake.challenge(now, self.settings.receive_buffer) else { return };
        let template = flow_route::template(tuple, &self.settings, handshake.seed);
        let next_hop = handshake.next_hop;
        self.reply(HeaderOnly { next_hop, template, segment });
    }

    /// Makes the flow of a handshake whose ACK has come, unless the backlog is full or memory short: then the peer will
    /// send it again.
    fn establish(&mut self, tuple: FiveTuple, handshake: Handshake) -> Found {
        let Some(listener) = &self.listener else { return Found::Nothing };
        if self.accepted.len() >= listener.backlog {
            log::debug!("the backlog is full: {} has to wait", tuple.remote);
            return Found::Nothing;
        }
        if self.pool.is_exhausted() {
            log::debug!("memory is short: {} has to wait", tuple.remote);
            return Found::Nothing;
        }
        self.handshakes.remove(&tuple);
        let (next_hop, neighbour) = (handshake.next_hop, handshake.neighbour);
        let Some(path) = listener.paths.get(&next_hop.interface) else { return Found::Nothing };
        let route = FlowRoute { next_hop, neighbour, path: *path };
        self.flows.insert(tuple, Flow::answer(tuple, route, &self.settings, &self.pool, &handshake));
        self.changed.push(tuple);
        self.accepted.push_back(tuple);
        Found::Flow
    }
}

/// What a segment means to a port in LISTEN (RFC 9293, section 3.10.7.2). A SYN with a FIN is dropped, as by Linux
/// (tcp_rcv_state_process(), net/ipv4/tcp_input.c): no client sends one, and scanners get no answer.
fn reaction(segment: &Segment) -> Admission {
    match (segment.is(RST), segment.is(ACK), segment.is(SYN)) {
        // First, second and third.
        (true, _, _) => Admission::Ignore,
        (_, true, _) => Admission::Refuse,
        (_, _, true) if !segment.is(FIN) => Admission::Accept,
        // Fourth.
        _ => Admission::Ignore,
    }
}
