//! The TCP/IP stack: frames in, byte streams or datagrams out.
//!
//! A [`Stack`] is a table from five-tuple to [`Flow`]. Each flow has a small smoltcp of its own,
//! made when a connection is dialed or when a handshake completes. A listener's backlog is
//! therefore a plain number, a flood of SYNs cannot touch established connections, and memory
//! follows use: a pending handshake or a connection in TIME-WAIT is a small record.
//!
//! The stack does no I/O. The event loop calls it in this order: [`Stack::ingress`] for each
//! received frame; [`Stack::learn_return_route`] and [`Stack::ingress`] again where that returned
//! an unverified source;
//! [`Stack::received_data`] where it returned data; [`Stack::accept`] and [`Stack::flow`] for the
//! user's turn; [`Stack::egress`] with the link to send by; [`Stack::poll_at`] for the time of the
//! next [`Stack::egress`]. [`Stack::dial`], [`Stack::listen`] and [`DatagramSocket::dial`] begin
//! the work, and [`Stack::release`] or [`Stack::remove`] ends that of one flow.
mod datagram;
mod deadlines;
mod discard;
mod flow;
mod flow_route;
pub(crate) mod fragment;
mod handshake;
mod header_only;
pub(crate) mod icmp;
pub mod ip;
mod listen;
pub(crate) mod martian;
mod neighbours;
mod peer_retransmissions;
mod probe;
mod recently_closed;
mod source_validation;
mod state_machine;
mod time_wait;

use crate::{
    host::metrics::Metrics,
    link::{ChecksumState, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Link, LinkError, LinkHeader, NextHop, Received},
    neighbour::{self, Impersonation, Solicitations},
    net::{FiveTuple, Protocol, zone::scoped},
    recovery::MemoryPool,
    segment::{self, Segment, SeqNumber},
};
use deadlines::Deadlines;
use fragment::FragmentReassembly;
use handshake::{Cookies, Handshakes};
pub(crate) use header_only::HeaderOnly;
use listen::Found;
use recently_closed::RecentlyClosed;
use source_validation::{SourceValidator, Validation};
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::IpAddr,
    ops::Range,
    time::Duration,
};
use time_wait::TimeWaits;

use datagram::Origin;
pub use datagram::{Audience, DatagramService};
pub(crate) use datagram::{DatagramCounters, DatagramSocket, SurveyAnswer, max_payload};
pub use discard::{Discard, Discards};
pub use flow::{Flow, FlowFailure, Phase};
pub(crate) use flow::{FlowCounters, ReceivedData};
pub use flow_route::{FlowRoute, Path, Settings};
pub(crate) use listen::Gate;
pub use listen::{Admission, Listener};
pub(crate) use probe::Probe;
pub use source_validation::{ReturnRoute, UnverifiedSource};
pub use state_machine::{State, StateMachine};

/// A table of flows, with the listener, the UDP port and the tables that they share.
pub struct Stack {
    settings: Settings,
    flows: HashMap<FiveTuple, Flow>,
    /// Flows with possible work since the last [`Stack::egress`].
    touched: BTreeSet<FiveTuple>,
    deadlines: Deadlines,
    listener: Option<Listener>,
    /// Whether the listener takes further connections. Its gate applies in any case.
    listening: bool,
    /// Segments of no flow are left to a caller who sends probes.
    only_flows: bool,
    handshakes: Handshakes,
    cookies: Cookies,
    accepted: VecDeque<FiveTuple>,
    orphans: Orphans,
    time_waits: TimeWaits,
    recently_closed: RecentlyClosed,
    /// Connections added or dropped: see [`Stack::take_changed`].
    changed: Vec<FiveTuple>,
    /// Answers to segments of no connection.
    replies: Vec<HeaderOnly>,
    validator: SourceValidator,
    solicitations: Solicitations,
    unlocated: Vec<FiveTuple>,
    /// The local UDP port, if the stack is used for UDP.
    pub datagrams: DatagramSocket,
    reassembly: FragmentReassembly,
    /// The memory of all flows' buffers.
    pool: MemoryPool,
    /// When memory was last reclaimed from idle flows.
    reclaimed_at: Duration,
    seed: Box<dyn FnMut() -> u64>,
    impersonation: Option<Impersonation>,
    /// The zone of each interface that is a port of another, by index.
    zones: HashMap<u32, u32>,
    /// The groups and broadcast addresses that the UDP port hears, and the interfaces at which it
    /// does.
    groups: HashSet<IpAddr>,
    group_interfaces: HashSet<u32>,
}

/// Maximum queued replies; further ones are dropped, as a kernel's rate limit would.
const MAX_REPLIES: usize = 64;
/// Maximum SYN-ACKs retransmitted in one turn.
const MAX_REPEATED: usize = 64;
/// Maximum time that a released flow takes to end, like Linux's tcp_fin_timeout.
const ORPHAN_LIFETIME: Duration = Duration::from_secs(60);
/// Maximum released flows. The oldest is reset when there is a further one, or when memory is
/// exhausted.
const MAX_ORPHANS: usize = 1024;
/// Minimum interval between reclaims of memory from idle flows, while memory is short.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum connections that are over and still known: released, in TIME-WAIT, or remembered.
pub(crate) const MAX_ENDED: usize = MAX_ORPHANS + time_wait::LIMIT + recently_closed::LIMIT;

/// A table of released flows and their deadlines.
#[derive(Debug, Default)]
struct Orphans {
    until: HashMap<FiveTuple, Duration>,
    order: VecDeque<FiveTuple>,
}

/// The link's description of a packet.
#[derive(Clone, Copy)]
struct Metadata {
    reply: NextHop,
    checksum: ChecksumState,
    /// Payload bytes of each segment in a coalesced frame; 0 for an ordinary one.
    segment_size: u16,
}

/// The outcome of [`Stack::ingress`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum FrameResult {
    /// The stack is done with the frame.
    Done,
    /// The frame was not handled. It has to be handed over again once the route back to its source
    /// is known: see [`Stack::learn_return_route`].
    Unverified(UnverifiedSource),
    /// The frame carries data that is in order and can be read where it lies, by
    /// [`Stack::received_data`]. Without that call the data counts as lost, and the peer
    /// retransmits it.
    Data(InOrder),
}

/// Data in order, left in its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InOrder {
    tuple: FiveTuple,
    segment: Segment,
    /// The payload's range in the frame, in bytes.
    payload: Range<usize>,
}

impl FrameResult {
    /// Returns the result for a frame in which `len` bytes precede the packet.
    fn behind(self, len: usize) -> FrameResult {
        match self {
            FrameResult::Data(data) => {
                let payload = data.payload.start + len..data.payload.end + len;
                FrameResult::Data(InOrder { payload, ..data })
            }
            other => other,
        }
    }
}

impl Stack {
    /// Returns a stack without flows. `seed` yields unpredictable numbers, for initial sequence
    /// numbers among other uses.
    pub fn new(settings: Settings, mut seed: impl FnMut() -> u64 + 'static) -> Stack {
        Stack {
            datagrams: DatagramSocket::new(&settings, seed()),
            reassembly: FragmentReassembly::default(),
            pool: MemoryPool::unlimited(),
            reclaimed_at: Duration::ZERO,
            settings,
            flows: HashMap::new(),
            touched: BTreeSet::new(),
            deadlines: Deadlines::default(),
            listener: None,
            listening: false,
            only_flows: false,
            handshakes: Handshakes::default(),
            cookies: Cookies::default(),
            accepted: VecDeque::new(),
            orphans: Orphans::default(),
            time_waits: TimeWaits::default(),
            recently_closed: RecentlyClosed::default(),
            changed: Vec::new(),
            replies: Vec::new(),
            validator: SourceValidator::default(),
            solicitations: Solicitations::default(),
            unlocated: Vec::new(),
            seed: Box::new(seed),
            impersonation: None,
            zones: HashMap::new(),
            groups: HashSet::new(),
            group_interfaces: HashSet::new(),
        }
    }

    /// Sets the zones of interfaces, by index: a port of a bridge or bond shares that device's zone.
    /// Any other interface is a zone of its own (RFC 4007, section 6).
    pub(crate) fn set_zones(&mut self, zones: HashMap<u32, u32>) {
        self.zones = zones;
    }

    /// Lets the UDP port hear datagrams to these groups and broadcast addresses at these interfaces,
    /// by index.
    pub(crate) fn hear_groups(
        &mut self,
        groups: impl IntoIterator<Item = IpAddr>,
        interfaces: impl IntoIterator<Item = u32>,
    ) {
        self.groups = groups.into_iter().collect();
        self.group_interfaces = interfaces.into_iter().collect();
    }

    /// Returns the zone of the addresses of an interface's packets.
    fn zone(&self, interface: u32) -> u32 {
        self.zones.get(&interface).copied().unwrap_or(interface)
    }

    /// Limits the memory of all future flows' buffers together, in bytes. When it is exhausted,
    /// connections wait to be established, as they do when the backlog is full.
    pub fn limit_memory(&mut self, bytes: u64) {
        self.pool = MemoryPool::new(bytes);
    }

    /// Returns the memory in use, in bytes: the flows' buffers, and the windows that peers may
    /// still fill.
    pub fn memory(&self) -> u64 {
        self.pool.used()
    }

    /// Opens a connection; the SYN leaves with the next [`Stack::egress`].
    pub fn dial(&mut self, now: Duration, tuple: FiveTuple, route: FlowRoute) {
        let flow = Flow::dial(now, tuple, route, &self.settings, &self.pool, (self.seed)());
        self.flows.insert(tuple, flow);
        self.touched.insert(tuple);
        self.changed.push(tuple);
    }

    /// Returns a flow to work on. Its segments leave with the next [`Stack::egress`].
    pub fn flow(&mut self, tuple: &FiveTuple) -> Option<&mut Flow> {
        let flow = self.flows.get_mut(tuple)?;
        self.touched.insert(*tuple);
        Some(flow)
    }

    /// Returns a flow to inspect.
    pub fn peek(&self, tuple: &FiveTuple) -> Option<&Flow> {
        self.flows.get(tuple)
    }

    /// Returns whether there are no flows.
    pub(crate) fn is_idle(&self) -> bool {
        self.flows.is_empty()
    }

    /// Fails the flows of an interface that disappeared; `name` was its name.
    pub(crate) fn fail_interface(&mut self, interface: u32, name: &str) {
        for (tuple, flow) in &mut self.flows {
            if flow.next_hop().interface == interface {
                flow.fail_interface(name);
                self.touched.insert(*tuple);
            }
        }
    }

    /// Drops a flow. Further segments from the peer are answered as segments of no connection.
    pub fn remove(&mut self, tuple: &FiveTuple) {
        self.deadlines.set(*tuple, None);
        self.touched.remove(tuple);
        self.orphans.until.remove(tuple);
        if self.flows.remove(tuple).is_some() {
            self.remember_closed(*tuple);
        }
    }

    /// Remembers a closed connection, so that its stragglers are answered.
    fn remember_closed(&mut self, tuple: FiveTuple) {
        self.changed.push(tuple);
        self.changed.extend(self.recently_closed.insert(tuple));
    }

    /// Returns whether the stack has to answer this connection's segments: it exists, is being
    /// opened, or ended not long ago. SYN cookies leave no record: see
    /// [`Stack::expects_cookies`].
    pub fn knows(&self, tuple: &FiveTuple) -> bool {
        self.flows.contains_key(tuple)
            || self.handshakes.get(tuple).is_some()
            || self.time_waits.contains(tuple)
            || self.recently_closed.contains(tuple)
    }

    /// Returns the connections for which [`Stack::knows`] may have changed since the last call.
    pub fn take_changed(&mut self) -> Vec<FiveTuple> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.append(&mut self.handshakes.take_changed());
        changed.append(&mut self.time_waits.take_forgotten());
        changed
    }

    /// Returns how much longer an ACK of an unknown connection may complete a handshake by SYN
    /// cookie. Meanwhile other segments of unknown connections get no answer.
    pub fn expects_cookies(&self, now: Duration) -> Option<Duration> {
        self.cookies.open_for(now)
    }

    /// Leaves the rest of a flow to the stack, as close(2) does. Unsent data is sent, then a FIN if
    /// there was none. Data that the peer still sends is dropped, and answered with a reset once
    /// all of ours is acknowledged. A flow that takes longer than a minute is reset.
    pub fn release(&mut self, now: Duration, tuple: &FiveTuple) {
        let Some(flow) = self.flow(tuple) else { return };
        flow.close();
        let orphans = &mut self.orphans;
        if orphans.order.len() > 2 * MAX_ORPHANS {
            let until = &orphans.until;
            orphans.order.retain(|tuple| until.contains_key(tuple));
        }
        while orphans.order.front().is_some_and(|oldest| !orphans.until.contains_key(oldest)) {
            orphans.order.pop_front();
        }
        // Orphans have no user, so they are the first to go (Linux's tcp_check_oom(),
        // net/ipv4/tcp.c).
        if (orphans.until.len() >= MAX_ORPHANS || self.pool.is_exhausted())
            && let Some(oldest) = orphans.order.pop_front()
        {
            orphans.until.insert(oldest, now);
            self.touched.insert(oldest);
        }
        self.orphans.until.insert(*tuple, now + ORPHAN_LIFETIME);
        self.orphans.order.push_back(*tuple);
    }

    /// Turns on the validation of sources: none is answered before the route back to it is known
    /// (see [`UnverifiedSource`]).
    pub fn require_return_routes(&mut self) {
        self.validator.enable();
    }

    /// Stores the route back to a source; `None` if there is none. The packet that
    /// [`Stack::ingress`] did not handle has to be handed over again.
    pub fn learn_return_route(&mut self, unverified: UnverifiedSource, route: Option<ReturnRoute>) {
        self.validator.learn(unverified, route);
    }

    /// Drops all known routes back, because the tables that they came from have changed.
    pub fn forget_return_routes(&mut self) {
        self.validator.forget();
    }

    /// Handles a received frame.
    pub fn ingress(&mut self, now: Duration, received: Received<'_>) -> FrameResult {
        let Received { frame, network, ethertype, reply, checksum, segment_size, .. } = received;
        let Some(packet) = frame.get_mut(network..) else { return FrameResult::Done };
        if let LinkHeader::Ethernet { destination: from, .. } = reply.header
            && let Some(message) = neighbour::parse(ethertype, packet, from)
        {
            self.ingress_resolution(now, &message, reply.interface);
            return FrameResult::Done;
        }
        match ethertype {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {
                self.ingress_packet(now, packet, Metadata { reply, checksum, segment_size }).behind(network)
            }
            _ => FrameResult::Done,
        }
    }

    /// Returns the data that the last [`Stack::ingress`] left in `frame`, for the user to read.
    pub fn received_data<'a>(
        &'a mut self,
        now: Duration,
        data: &InOrder,
        frame: &'a [u8],
    ) -> Option<ReceivedData<'a>> {
        let flow = self.flows.get_mut(&data.tuple)?;
        Some(ReceivedData::new(now, flow, data.segment, frame.get(data.payload.clone())?))
    }

    /// Handles an IP packet.
    fn ingress_packet(&mut self, now: Duration, packet: &mut [u8], metadata: Metadata) -> FrameResult {
        let header = match ip::parse(packet, false) {
            Ok(header) => header,
            Err(error) => {
                log::debug!("dropping a packet: {error}");
                return FrameResult::Done;
            }
        };
        let interface = metadata.reply.interface;
        let to_group = self.groups.contains(&header.destination);
        let checked = match to_group {
            true => martian::check_address(interface, header.source),
            false => martian::check(interface, header.source, header.destination),
        };
        if let Err(martian) = checked {
            log::debug!("dropping a packet from {}: {martian}", header.source);
            return FrameResult::Done;
        }
        if to_group && !self.group_interfaces.contains(&interface) {
            return FrameResult::Done;
        }
        if header.fragment.is_some() {
            return self.ingress_fragment(now, packet, &header, metadata);
        }
        match header.protocol {
            ip::TCP if to_group => {}
            ip::TCP => return self.ingress_tcp(now, packet, &header, metadata),
            ip::UDP => {
                let Some(bytes) = packet.get(header.transport..header.end) else { return FrameResult::Done };
                let Metadata { reply, checksum, segment_size } = metadata;
                let zone = self.zone(reply.interface);
                let validate = &mut |tuple: &FiveTuple| self.validator.validate(now, tuple, &reply, false);
                let datagrams = &mut self.datagrams;
                let unverified = datagrams.ingress(
                    &header,
                    bytes,
                    Origin { reply, zone, to_group },
                    checksum.is_trusted(),
                    segment_size.into(),
                    validate,
                );
                return unverified.map_or(FrameResult::Done, FrameResult::Unverified);
            }
            ip::ICMP | ip::ICMPV6 => {
                // An error is addressed to the sender of the packet that it quotes (RFC 1122,
                // section 3.2.2).
                if let Some(error) = icmp::parse(&header, packet, self.zone(metadata.reply.interface))
                    && error.local.ip() == header.destination
                {
                    self.ingress_icmp(now, &error);
                }
            }
            _ => {}
        }
        FrameResult::Done
    }

    /// Handles a fragment. The route back is confirmed before the fragment is stored, because the
    /// whole packet cannot be handed over again.
    fn ingress_fragment(
        &mut self,
        now: Duration,
        packet: &[u8],
        header: &ip::Header,
        metadata: Metadata,
    ) -> FrameResult {
        let zone = self.zone(metadata.reply.interface);
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: scoped(header.destination, 0, zone),
            remote: scoped(header.source, 0, zone),
        };
        match self.validator.validate(now, &tuple, &metadata.reply, false) {
            Validation::Valid { .. } => {}
            Validation::Unverified(unverified) => return FrameResult::Unverified(unverified),
            Validation::Invalid | Validation::RateLimited => return FrameResult::Done,
        }
        let Some(mut whole) = self.reassembly.insert(now, header, packet) else { return FrameResult::Done };
        let metadata = Metadata { checksum: ChecksumState::Unverified, segment_size: 0, ..metadata };
        match self.ingress_packet(now, &mut whole, metadata) {
            // The packet lies in no frame, so its data is copied now.
            FrameResult::Data(data) => {
                drop(self.received_data(now, &data, &whole));
                FrameResult::Done
            }
            other => other,
        }
    }

    /// Handles a TCP segment.
    fn ingress_tcp(
        &mut self,
        now: Duration,
        packet: &[u8],
        header: &ip::Header,
        metadata: Metadata,
    ) -> FrameResult {
        let Metadata { reply, checksum, .. } = metadata;
        let Some(bytes) = packet.get(header.transport..header.end) else { return FrameResult::Done };
        let zone = self.zone(reply.interface);
        let tuple = |(source, destination)| FiveTuple {
            protocol: Protocol::Tcp,
            local: scoped(header.destination, destination, zone),
            remote: scoped(header.source, source, zone),
        };
        let Some((segment, payload)) = Segment::split(bytes) else {
            log::debug!("dropping a malformed segment from {}", header.source);
            if let Some(flow) = segment::ports(bytes).and_then(|ports| self.flows.get_mut(&tuple(ports))) {
                flow.note_discard(Discard::Header);
            }
            return FrameResult::Done;
        };
        let tuple = tuple((segment.source, segment.destination));
        let valid = checksum.is_trusted()
            || ip::pseudo_header(header.source, header.destination, ip::TCP, bytes.len())
                .add(bytes)
                .checksum()
                == 0;
        let flow = match self.flows.get_mut(&tuple) {
            Some(flow) if !valid => {
                flow.note_discard(Discard::Checksum);
                return FrameResult::Done;
            }
            Some(flow) => {
                // Another interface than before, as when a route has several paths.
                if flow.came_by() != reply.interface {
                    match self.validator.validate(now, &tuple, &reply, false) {
                        Validation::Valid { .. } => flow.set_came_by(reply.interface),
                        Validation::Unverified(unverified) => return FrameResult::Unverified(unverified),
                        Validation::Invalid | Validation::RateLimited => return FrameResult::Done,
                    }
                }
                flow
            }
            None if valid && !self.only_flows => match self.find_or_make(now, tuple, &segment, reply) {
                Found::Flow => match self.flows.get_mut(&tuple) {
                    Some(flow) => flow,
                    None => return FrameResult::Done,
                },
                Found::Nothing => return FrameResult::Done,
                Found::Unverified(unverified) => return FrameResult::Unverified(unverified),
            },
            None => return FrameResult::Done,
        };
        let left = flow.ingress(now, &segment, payload, &reply);
        self.touched.insert(tuple);
        let payload = header.end - segment.payload_len..header.end;
        if left { FrameResult::Data(InOrder { tuple, segment, payload }) } else { FrameResult::Done }
    }

    /// Queues a segment without payload.
    fn reply(&mut self, reply: HeaderOnly) {
        if self.replies.len() < MAX_REPLIES {
            self.replies.push(reply);
        }
    }

    /// Queues the reset that answers a segment.
    fn reset(&mut self, tuple: FiveTuple, segment: &Segment, next_hop: NextHop, metrics: &Metrics) {
        let template = self.answer_template(&tuple, &next_hop, metrics, 0);
        if let Some(segment) = segment.reset() {
            self.reply(HeaderOnly { next_hop, template, segment });
        }
    }

    /// Queues a reset of a connection that the kernel opened from our port and gave up, `syn` being its
    /// SYN's sequence number. It leaves before the segments of flows. A far end whose SYN-ACK never arrived
    /// would otherwise answer a new SYN from the same port only when its own timer lets it.
    pub(crate) fn reset_predecessor(&mut self, tuple: &FiveTuple, route: &FlowRoute, syn: SeqNumber) {
        let remote = tuple.remote.ip();
        let hop_limit = self.settings.hop_limit(remote, route.path.ipv6_hop_limit, &route.metrics);
        let template = flow_route::template(tuple, hop_limit, &self.settings, 0);
        let segment = Segment {
            source: tuple.local.port(),
            destination: tuple.remote.port(),
            seq: syn + 1,
            ack: SeqNumber::default(),
            flags: segment::RST,
            window: 0,
            options: segment::Options::default(),
            payload_len: 0,
        };
        self.reply(HeaderOnly { next_hop: route.next_hop, template, segment });
    }

    /// Passes an ICMP error to its flow or to the UDP port.
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

    /// Sends what every flow has to send. Returns whether more than one turn's worth was due.
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub fn egress(&mut self, now: Duration, link: &mut dyn Link) -> Result<bool, LinkError> {
        for _ in 0..MAX_REPEATED {
            let Some(tuple) = self.handshakes.due(now) else { break };
            self.repeat_syn_ack(now, &tuple);
        }
        if let Some(impersonation) = &mut self.impersonation {
            impersonation.send(link)?;
        }
        for reply in self.replies.drain(..) {
            reply.send(link)?;
        }
        self.time_waits.expire(now);
        while let Some(tuple) = self.deadlines.due(now) {
            self.touched.insert(tuple);
        }
        if self.pool.is_under_pressure() && now >= self.reclaimed_at + RECLAIM_INTERVAL {
            self.reclaimed_at = now;
            self.flows.values_mut().for_each(Flow::reclaim);
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
            self.look_for_neighbour(now, tuple);
        }
        self.touched = more;
        if let Some((tuple, next_hop, neighbour)) = self.datagrams.unanswered(now) {
            self.solicitations.solicit(now, tuple.local.ip(), &next_hop, neighbour);
        }
        self.solicitations.send(link)?;
        Ok(!self.touched.is_empty())
    }

    /// Drops a released flow that is over, and keeps a record if it is in TIME-WAIT.
    fn retire(&mut self, now: Duration, tuple: &FiveTuple) {
        let last = self.peek(tuple).filter(|flow| flow.in_time_wait()).and_then(Flow::last_ack);
        self.remove(tuple);
        if let Some(last) = last {
            self.time_waits.insert(now, *tuple, last);
        }
    }

    /// Returns when [`Stack::egress`] is due next; a time in the past means at once.
    pub fn poll_at(&self) -> Option<Duration> {
        let messages = self.impersonation.as_ref().is_some_and(Impersonation::wants_to_send);
        match !messages && self.touched.is_empty() && self.replies.is_empty() {
            true => self.deadlines.next().into_iter().chain(self.handshakes.deadline()).min(),
            false => Some(Duration::ZERO),
        }
    }

    /// Returns the time until which received frames may wait: pacing delays the only flow's next
    /// frame until then. One wake-up handles what the flow sends and what it is sent.
    pub(crate) fn quantum_at(&self, now: Duration) -> Option<Duration> {
        let mut flows = self.flows.values();
        let only = flows.next().filter(|_| flows.next().is_none())?;
        only.quantum_at(now).filter(|_| self.touched.is_empty())
    }
}
