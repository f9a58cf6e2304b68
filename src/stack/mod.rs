//! The TCP/IP stack: frames in, byte streams or datagrams out.
//!
//! A [`Stack`] is a table from five-tuple to [`Flow`], each with a small smoltcp of its own, made when we dial
//! or when a SYN comes. So a listener's backlog is a number, a flood of SYNs cannot touch the established,
//! and a thousand flows cost what they use: a handshake is a small record until its ACK comes, and what is over
//! is a small record until the peer is sure to know. It does no I/O: the reactor passes in frames, a link to send
//! by, and the time.
mod bare;
pub mod checksum;
mod datagram;
mod deadlines;
mod discovery;
mod disguise;
mod endpoint;
mod flow;
pub mod fragment;
mod handshake;
pub mod icmp;
pub mod ip;
mod segment;
mod time_wait;

use crate::{
    link::{ChecksumState, Link, LinkError, NextHop, Received},
    net::{FiveTuple, Protocol},
};
use bare::Bare;
use deadlines::Deadlines;
use fragment::Reassembly;
use handshake::{Cookies, Handshake, Handshakes, Reply};
use segment::Segment;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use time_wait::{Answer, TimeWaits};

pub use datagram::{Audience, Datagram, DatagramCounters, DatagramService, DatagramSocket, max_payload};
pub use discovery::Persona;
pub use disguise::Disguise;
pub use flow::{Counters, Failure, Flow, Path, Phase, Settings, Way};

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

/// The table of flows.
pub struct Stack {
    settings: Settings,
    flows: HashMap<FiveTuple, Flow>,
    /// Flows that something happened to since the last [`Stack::egress`].
    touched: BTreeSet<FiveTuple>,
    deadlines: Deadlines,
    listener: Option<Listener>,
    /// Whether the listener takes further connections; its gate holds all the same.
    listening: bool,
    handshakes: Handshakes,
    cookies: Cookies,
    accepted: VecDeque<FiveTuple>,
    orphans: Orphans,
    time_waits: TimeWaits,
    /// Answers to segments of no connection.
    replies: Vec<Bare>,
    /// Our port, where it is a UDP port.
    pub datagrams: DatagramSocket,
    reassembly: Reassembly,
    seed: Box<dyn FnMut() -> u64>,
    disguise: Option<Disguise>,
}

/// Replies that may wait; further ones are dropped, as a kernel's rate limit would.
const MAX_REPLIES: usize = 64;
/// SYN-ACKs repeated in one turn.
const MAX_REPEATED: usize = 64;
/// How long a released flow may take to end, like Linux's tcp_fin_timeout.
const ORPHAN_LIFETIME: Duration = Duration::from_secs(60);
/// Released flows that may be ending; one more and the oldest is reset.
const MAX_ORPHANS: usize = 1024;

/// Released flows, and when their time is over.
#[derive(Debug, Default)]
struct Orphans {
    until: HashMap<FiveTuple, Duration>,
    order: VecDeque<FiveTuple>,
}

impl Stack {
    /// A stack without flows. `seed` yields unpredictable numbers for initial sequence numbers.
    pub fn new(settings: Settings, mut seed: impl FnMut() -> u64 + 'static) -> Stack {
        Stack {
            datagrams: DatagramSocket::new(&settings, seed()),
            reassembly: Reassembly::default(),
            settings,
            flows: HashMap::new(),
            touched: BTreeSet::new(),
            deadlines: Deadlines::default(),
            listener: None,
            listening: false,
            handshakes: Handshakes::default(),
            cookies: Cookies::default(),
            accepted: VecDeque::new(),
            orphans: Orphans::default(),
            time_waits: TimeWaits::default(),
            replies: Vec::new(),
            seed: Box::new(seed),
            disguise: None,
        }
    }

    /// Begins a connection; the SYN leaves with the next [`Stack::egress`].
    pub fn dial(&mut self, now: Duration, tuple: FiveTuple, way: Way) {
        let flow = Flow::dial(now, tuple, way, &self.settings, (self.seed)());
        self.flows.insert(tuple, flow);
        self.touched.insert(tuple);
    }

    /// Answers for an address that this host does not own, from now on.
    pub fn impersonate(&mut self, persona: Persona) {
        self.disguise = Some(Disguise::new(persona));
    }

    /// The host that we are instead of this one, if we are.
    pub fn disguise(&mut self) -> Option<&mut Disguise> {
        self.disguise.as_mut()
    }

    /// Serves SYNs from now on.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
        self.listening = true;
    }

    /// Answers further SYNs with resets, as far as the gate lets strangers see any. Connections not yet
    /// accepted are reset; handshakes under way will be.
    pub fn stop_listening(&mut self) {
        self.listening = false;
        self.handshakes.clear();
        for tuple in std::mem::take(&mut self.accepted) {
            if let Some(flow) = self.flow(&tuple) {
                flow.abort();
            }
        }
    }

    /// The next established connection to the listener, in the order of their handshakes' ends.
    pub fn accept(&mut self) -> Option<FiveTuple> {
        self.accepted.pop_front()
    }

    /// A flow to be worked on: what it has to send leaves with the next [`Stack::egress`].
    pub fn flow(&mut self, tuple: &FiveTuple) -> Option<&mut Flow> {
        let flow = self.flows.get_mut(tuple)?;
        self.touched.insert(*tuple);
        Some(flow)
    }

    /// A flow to be looked at.
    pub fn peek(&self, tuple: &FiveTuple) -> Option<&Flow> {
        self.flows.get(tuple)
    }

    /// Whether there are no flows.
    pub fn is_idle(&self) -> bool {
        self.flows.is_empty()
    }

    /// The interfaces that flows use, by index.
    pub fn interfaces(&self) -> BTreeSet<u32> {
        self.flows.values().map(|flow| flow.next_hop().interface).collect()
    }

    /// Fails the flows whose interface is gone.
    pub fn strand(&mut self, interface: u32) {
        for (tuple, flow) in &mut self.flows {
            if flow.next_hop().interface == interface {
                flow.strand();
                self.touched.insert(*tuple);
            }
        }
    }

    /// Forgets a flow. Whatever the peer still sends is answered as a segment of no connection.
    pub fn remove(&mut self, tuple: &FiveTuple) -> Option<Flow> {
        self.deadlines.set(*tuple, None);
        self.touched.remove(tuple);
        self.orphans.until.remove(tuple);
        self.flows.remove(tuple)
    }

    /// Leaves the rest of a flow to the stack, as close(2) does: what is unsent is sent, then a FIN if there was
    /// none. What the peer still sends is not wanted: it is dropped, and reset once all of ours is acknowledged.
    /// A flow that takes longer than a minute is reset.
    pub fn release(&mut self, now: Duration, tuple: &FiveTuple) {
        let Some(flow) = self.flow(tuple) else { return };
        flow.close();
        let orphans = &mut self.orphans;
        while orphans.order.front().is_some_and(|oldest| !orphans.until.contains_key(oldest)) {
            orphans.order.pop_front();
        }
        if orphans.until.len() >= MAX_ORPHANS
            && let Some(oldest) = orphans.order.pop_front()
        {
            orphans.until.insert(oldest, now);
            self.touched.insert(oldest);
        }
        self.orphans.until.insert(*tuple, now + ORPHAN_LIFETIME);
        self.orphans.order.push_back(*tuple);
    }

    /// Takes one received frame.
    pub fn ingress(&mut self, now: Duration, received: Received<'_>) {
        let Received { frame, network, ethertype, reply, checksum, segment_size, .. } = received;
        let Some(packet) = frame.get(network..) else { return };
        if let Some(disguise) = &mut self.disguise
            && disguise.take(ethertype, packet, &reply)
        {
            return;
        }
        self.ingress_packet(now, frame, network, reply, checksum, segment_size.into());
    }

    fn ingress_packet(
        &mut self,
        now: Duration,
        frame: &mut [u8],
        network: usize,
        reply: NextHop,
        checksum: ChecksumState,
        segment_size: usize,
    ) {
        let Some(packet) = frame.get(network..) else { return };
        let header = match ip::parse(packet, false) {
            Ok(header) => header,
            Err(error) => return log::debug!("dropping a packet: {error}"),
        };
        if header.fragment.is_some() {
            if let Some(mut whole) = self.reassembly.insert(now, &header, packet) {
                self.ingress_packet(now, &mut whole, 0, reply, ChecksumState::Unverified, 0);
            }
            return;
        }
        match header.protocol {
            ip::TCP => self.ingress_tcp(now, frame, network, &header, reply, checksum),
            ip::UDP => {
                let Some(bytes) = packet.get(header.transport..header.end) else { return };
                let trusted = checksum.is_trusted();
                self.datagrams.ingress(&header, bytes, reply, trusted, segment_size);
            }
            ip::ICMP | ip::ICMPV6 => {
                if let Some(error) = icmp::parse(&header, packet) {
                    self.ingress_icmp(now, &error);
                }
            }
            _ => {}
        }
    }

    fn ingress_tcp(
        &mut self,
        now: Duration,
        frame: &mut [u8],
        network: usize,
        header: &ip::Header,
        reply: NextHop,
        checksum: ChecksumState,
    ) {
        let Some(bytes) = frame.get(network + header.transport..network + header.end) else { return };
        let Some(segment) = Segment::parse(bytes) else {
            return log::debug!("dropping a malformed segment from {}", header.source);
        };
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: SocketAddr::new(header.destination, segment.destination_port),
            remote: SocketAddr::new(header.source, segment.source_port),
        };
        let trusted = checksum.is_trusted();
        if !self.flows.contains_key(&tuple) {
            let valid = trusted
                || ip::pseudo_header(header.source, header.destination, ip::TCP, bytes.len())
                    .add(bytes)
                    .checksum()
                    == 0;
            if !valid || !self.find_or_make(now, tuple, &segment, bytes, reply) {
                return;
            }
        }
        let Some(flow) = self.flows.get_mut(&tuple) else { return };
        flow.ingress(now, frame, network, header, trusted);
        self.touched.insert(tuple);
    }

    /// Whether there is a flow, now, for a segment that had none. `bytes` is the whole segment.
    fn find_or_make(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        bytes: &[u8],
        reply: NextHop,
    ) -> bool {
        let mut beyond = None;
        match self.time_waits.ingress(now, &tuple, segment, bytes) {
            Some(Answer::Nothing) => return false,
            Some(Answer::Repeat(last)) => {
                self.reply(last);
                return false;
            }
            Some(Answer::Open { beyond: old }) => beyond = Some(old),
            None => {}
        }
        if let Some(handshake) = self.handshakes.get(&tuple) {
            match handshake.classify(segment) {
                Reply::Completed => {
                    let handshake = handshake.clone();
                    return self.establish(tuple, handshake);
                }
                Reply::Repeated => self.repeat_syn_ack(&tuple),
                Reply::Abandoned => drop(self.handshakes.remove(&tuple)),
                Reply::Wrong => self.reset(tuple, segment, reply),
                Reply::Nothing => {}
                Reply::Replaced => {
                    self.handshakes.remove(&tuple);
                    self.admit(now, tuple, segment, bytes, reply, beyond);
                }
            }
        } else if let Some(handshake) = self.redeem(now, &tuple, segment, reply) {
            return self.establish(tuple, handshake);
        } else {
            self.admit(now, tuple, segment, bytes, reply, beyond);
        }
        false
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
        let handshake = self.cookies.redeem(now, tuple, reply, segment)?;
        ((listener.gate)(tuple.remote.ip()) == Admission::Accept).then_some(handshake)
    }

    /// Answers a segment of no connection, as RFC 9293, section 3.10.7.1 says: a SYN to a listener begins a
    /// handshake.
    fn admit(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        bytes: &[u8],
        reply: NextHop,
        beyond: Option<u32>,
    ) {
        let opens =
            segment.flags & (segment::SYN | segment::ACK | segment::RST | segment::FIN) == segment::SYN;
        let admission = match &self.listener {
            Some(listener) => match (listener.gate)(tuple.remote.ip()) {
                // A gate that shows strangers nothing must not betray itself by resets either.
                Admission::Ignore => Admission::Ignore,
                _ if !self.listening || !opens => Admission::Refuse,
                admission => admission,
            },
            None => Admission::Refuse,
        };
        match admission {
            Admission::Ignore => {}
            Admission::Refuse => self.reset(tuple, segment, reply),
            Admission::Accept => self.answer(now, tuple, segment, bytes, reply, beyond),
        }
    }

    /// Begins a handshake. Its initial sequence number lies beyond that of the connection before, if there was
    /// one of the same name not long ago (RFC 1122, section 4.2.2.13).
    fn answer(
        &mut self,
        now: Duration,
        tuple: FiveTuple,
        segment: &Segment,
        bytes: &[u8],
        reply: NextHop,
        beyond: Option<u32>,
    ) {
        let Some(listener) = &self.listener else { return };
        if self.accepted.len() >= listener.backlog {
            return log::debug!("the backlog is full: no answer to {}", tuple.remote);
        }
        if !listener.paths.contains_key(&reply.interface) {
            return log::debug!(
                "a SYN from {} came in by interface {}, which is not served",
                tuple.remote,
                reply.interface
            );
        }
        if self.handshakes.len() >= listener.half_open {
            let handshake = self.cookies.give(now, &tuple, reply, segment, bytes);
            return self.send_syn_ack(&tuple, &handshake);
        }
        let lies_beyond = |seed| match beyond {
            Some(old) => (endpoint::initial_sequence(seed).wrapping_sub(old) as i32) > 0,
            None => true,
        };
        let mut seed = (self.seed)();
        while !lies_beyond(seed) {
            seed = (self.seed)();
        }
        let handshake = Handshake::new(now, reply, seed, segment, bytes);
        self.send_syn_ack(&tuple, &handshake);
        self.handshakes.insert(tuple, handshake);
    }

    fn repeat_syn_ack(&mut self, tuple: &FiveTuple) {
        if let Some(handshake) = self.handshakes.get(tuple).cloned() {
            self.send_syn_ack(tuple, &handshake);
        }
    }

    fn send_syn_ack(&mut self, tuple: &FiveTuple, handshake: &Handshake) {
        let path = self.listener.as_ref().and_then(|l| l.paths.get(&handshake.next_hop.interface));
        let Some(path) = path else { return };
        let mss = flow::mss(path, tuple.remote.ip(), &self.settings);
        let Some(header) = handshake.syn_ack(mss, self.settings.receive_buffer) else {
            return log::debug!("a SYN from {} makes no sense", tuple.remote);
        };
        let template = flow::template(tuple, &self.settings, handshake.seed);
        self.reply(Bare { next_hop: handshake.next_hop, template, header });
    }

    /// Makes the flow of a handshake whose ACK has come, unless the backlog is full: then the peer will send it
    /// again. Whether it did.
    fn establish(&mut self, tuple: FiveTuple, handshake: Handshake) -> bool {
        let Some(listener) = &self.listener else { return false };
        if self.accepted.len() >= listener.backlog {
            log::debug!("the backlog is full: {} has to wait", tuple.remote);
            return false;
        }
        self.handshakes.remove(&tuple);
        let Some(path) = listener.paths.get(&handshake.next_hop.interface) else { return false };
        let way = Way { next_hop: handshake.next_hop, path: *path };
        let Handshake { answered, seed, syn, .. } = handshake;
        self.flows.insert(tuple, Flow::answer(answered, tuple, way, &self.settings, seed, &syn));
        self.accepted.push_back(tuple);
        true
    }

    fn reply(&mut self, reply: Bare) {
        if self.replies.len() < MAX_REPLIES {
            self.replies.push(reply);
        }
    }

    fn reset(&mut self, tuple: FiveTuple, segment: &Segment, next_hop: NextHop) {
        let template = flow::template(&tuple, &self.settings, 0);
        if let Some(reset) = segment.reset() {
            self.reply(Bare { next_hop, template, header: reset.into_iter().collect() });
        }
    }

    fn ingress_icmp(&mut self, now: Duration, error: &icmp::IcmpError) {
        let tuple = FiveTuple { protocol: Protocol::Tcp, local: error.local, remote: error.remote };
        if error.protocol == ip::UDP {
            self.datagrams.icmp(error);
        }
        if error.protocol == ip::TCP
            && let Some(flow) = self.flow(&tuple)
        {
            flow.icmp(now, error);
        }
    }

    /// Sends what every flow has to send; `Ok(true)` if there is more than one turn's worth.
    pub fn egress(&mut self, now: Duration, link: &mut dyn Link) -> Result<bool, LinkError> {
        for _ in 0..MAX_REPEATED {
            let Some(tuple) = self.handshakes.due(now) else { break };
            self.repeat_syn_ack(&tuple);
        }
        if let Some(disguise) = &mut self.disguise {
            disguise.send(link)?;
        }
        for reply in self.replies.drain(..) {
            reply.send(link)?;
        }
        self.time_waits.expire(now);
        while let Some(tuple) = self.deadlines.due(now) {
            self.touched.insert(tuple);
        }
        let mut more = BTreeSet::new();
        for tuple in std::mem::take(&mut self.touched) {
            let Some(flow) = self.flows.get_mut(&tuple) else { continue };
            let until = self.orphans.until.get(&tuple).copied();
            if let Some(until) = until {
                flow.drop_received(now >= until);
            }
            if flow.egress(now, link)? {
                more.insert(tuple);
            } else if until.is_some() && flow.phase() == Phase::Closed {
                self.retire(now, &tuple);
                continue;
            }
            let deadline = flow.poll_at(now).into_iter().chain(until).min();
            self.deadlines.set(tuple, deadline);
        }
        self.touched = more;
        Ok(!self.touched.is_empty())
    }

    /// Forgets a released flow that is over, but for what its peer may still have to be told.
    fn retire(&mut self, now: Duration, tuple: &FiveTuple) {
        if let Some(flow) = self.remove(tuple)
            && flow.in_time_wait()
            && let Some(last) = flow.last_ack()
        {
            self.time_waits.insert(now, *tuple, last);
        }
    }

    /// When [`Stack::egress`] is due next; a time that has passed means at once.
    pub fn poll_at(&self) -> Option<Duration> {
        let messages = self.disguise.as_ref().is_some_and(Disguise::wants_to_send);
        match !messages && self.touched.is_empty() && self.replies.is_empty() {
            true => self.deadlines.next().into_iter().chain(self.handshakes.deadline()).min(),
            false => Some(Duration::ZERO),
        }
    }
}
