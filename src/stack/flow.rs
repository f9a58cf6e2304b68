//! One TCP connection: its states, its loss recovery, and the IP header of its segments.
//!
//! A flow does no I/O. Received segments enter by [`Flow::ingress`]; [`Flow::egress`] sends what is
//! due when [`Flow::poll_at`] says so. Time is the duration since an arbitrary start. The user
//! calls [`Flow::send`], [`Flow::receive`] and [`Flow::close`] in between.
use super::{
    discard::{Discard, Discards},
    flow_route::{FlowRoute, MAX_HEADERS, Settings, max_payload, mss, template},
    handshake::Handshake,
    header_only::HeaderOnly,
    icmp::{IcmpError, Reason},
    ip::{self, Fragmentation, TCP, Template},
    peer_retransmissions::PeerRetransmissions,
    state_machine::{State, StateMachine, recovery_time},
};
use crate::{
    host::interface::Interface,
    link::{ChecksumOffload, Link, LinkError, LinkHeader, NextHop, Outgoing, Segmentation},
    neighbour::{AnnouncementSource, Neighbour},
    net::{FiveTuple, MacAddr, minimum_mtu},
    recovery::{self, MemoryPool, Recovery, SegmentOutcome},
    segment::{self, MAX_HEADER_LEN, Segment, SeqNumber},
};
use arrayvec::ArrayVec;
use std::{fmt, io, net::IpAddr, time::Duration};

/// Maximum frames sent in one turn, so that one flow does not starve the others.
const EGRESS_BUDGET: usize = 64;

/// The reason why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowFailure {
    /// A reset answered our SYN.
    Refused,
    /// The peer reset an established connection.
    Reset,
    /// An ICMP error answered our SYN.
    Rejected(IcmpError),
    /// The peer has acknowledged nothing for the user timeout.
    Vanished,
    /// The interface of this name, which led to the peer, disappeared.
    InterfaceGone(String),
}

impl fmt::Display for FlowFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowFailure::Refused => f.write_str("refused (RST)"),
            FlowFailure::Reset => f.write_str("connection reset by peer"),
            FlowFailure::Rejected(error) => write!(f, "rejected ({error})"),
            FlowFailure::Vanished => f.write_str("the peer has stopped answering"),
            FlowFailure::InterfaceGone(name) => write!(f, "interface {name} disappeared"),
        }
    }
}

/// The phase of a connection, as its user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The handshake is under way.
    Opening,
    /// Data can be exchanged.
    Open,
    /// The connection is over. The user's data has arrived unless [`Flow::failure`] returns a
    /// failure.
    Closed,
}

/// Counters of a connection's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Payload bytes that the user wrote.
    pub bytes_sent: u64,
    /// Payload bytes that the user read.
    pub bytes_received: u64,
    /// Frames sent, where a super-frame counts once.
    pub frames_sent: u64,
    /// Frames received, where a super-frame counts once.
    pub frames_received: u64,
    /// SYNs sent, retransmissions included.
    pub syns_sent: u64,
    /// Frames that this host's own egress dropped (ENOBUFS).
    pub egress_drops: u64,
    /// SYNs that this host's own egress dropped.
    pub egress_syn_drops: u64,
    /// Segments with a wrong checksum or header length.
    pub invalid: u64,
    /// When the peer's first data arrived.
    pub first_data_at: Option<Duration>,
    /// The last "packet too big" message that lowered the MSS: its sender, and the MTU in bytes.
    pub too_big: Option<(IpAddr, u32)>,
}

/// A TCP connection.
pub struct Flow {
    tuple: FiveTuple,
    next_hop: NextHop,
    neighbour: Neighbour,
    /// Index of the interface that the peer's segments come by.
    came_by: u32,
    template: Template,
    /// IPv4 identification of the next packet. Nothing fragments, so it need not be unpredictable
    /// (RFC 6864, section 4.1).
    id: u16,
    states: StateMachine,
    recovery: Recovery,
    mss: usize,
    established: bool,
    failure: Option<FlowFailure>,
    retransmissions: PeerRetransmissions,
    counters: FlowCounters,
    discards: Option<Discards>,
    /// Probes of the path are sent in the flow's name: routers' errors about them do not concern the flow.
    probed: bool,
    /// Header of the last segment sent without payload; in TIME-WAIT, that is the last ACK.
    last_bare: ArrayVec<u8, MAX_HEADER_LEN>,
}

impl Flow {
    /// Opens a connection; the SYN leaves with the next [`Flow::egress`]. `seed` must be
    /// unpredictable. The flow's buffers share `pool` with those of other flows.
    pub(crate) fn dial(
        now: Duration,
        tuple: FiveTuple,
        route: FlowRoute,
        settings: &Settings,
        pool: &MemoryPool,
        seed: u64,
    ) -> Flow {
        let mut flow = Flow::new(now, tuple, route, settings, pool, seed);
        flow.states.connect(tuple.local.port(), tuple.remote.port());
        flow
    }

    /// Returns the flow of a handshake whose SYN-ACK was sent. The segment that completes the
    /// handshake must be the next one passed to [`Flow::ingress`]. The window stays small until
    /// [`Flow::accept`].
    pub(crate) fn answer(
        tuple: FiveTuple,
        route: FlowRoute,
        settings: &Settings,
        pool: &MemoryPool,
        handshake: &Handshake,
    ) -> Flow {
        let answered = handshake.answered;
        let mut flow = Flow::new(answered, tuple, route, settings, pool, handshake.seed);
        flow.states.listen(tuple.local.port());
        flow.recovery.set_accepted(false);
        let now = recovery_time(answered);
        let outcome = flow.recovery.handle_segment(now, &handshake.syn, &[]);
        flow.states.ingress(answered, &handshake.syn, outcome, &mut flow.recovery);
        flow.states.egress(answered, &mut flow.recovery);
        // The flow's first segment is the SYN-ACK, which was sent already.
        while flow.recovery.poll_transmit(now).is_some() {}
        flow.recovery.set_clock(now, handshake.clock);
        flow
    }

    fn new(
        now: Duration,
        tuple: FiveTuple,
        route: FlowRoute,
        settings: &Settings,
        pool: &MemoryPool,
        seed: u64,
    ) -> Flow {
        let (path, metrics) = (route.path.with_mtu_of(&route.metrics), &route.metrics);
        let hop_limit = settings.hop_limit(tuple.remote.ip(), path.ipv6_hop_limit, metrics);
        let template = template(&tuple, hop_limit, settings, seed);
        let mss = mss(&path, tuple.remote.ip(), settings);
        let config = recovery::Config {
            send_buffer: settings.send_buffer,
            receive_buffer: settings.receive_buffer,
            link_mss: mss as u16,
            advertised_mss: settings.advertised_mss(metrics),
            max_frame: max_payload(&path, mss),
            algorithm: settings.congestion(metrics),
            initial_window: metrics.initial_window.unwrap_or(recovery::INITIAL_WINDOW),
            rto_min: metrics.rto_min.unwrap_or(recovery::RTO_MIN),
            user_timeout: settings.user_timeout,
            keep_alive: settings.keep_alive,
        };
        let mut recovery = Recovery::sharing(config, pool);
        let states = StateMachine::new(now, mss, seed, &mut recovery);
        Flow {
            tuple,
            next_hop: route.next_hop,
            neighbour: route.neighbour,
            came_by: route.next_hop.interface,
            template,
            id: (seed >> 32) as u16,
            states,
            recovery,
            mss,
            established: false,
            failure: None,
            retransmissions: PeerRetransmissions::default(),
            counters: FlowCounters::default(),
            discards: None,
            probed: false,
            last_bare: ArrayVec::new(),
        }
    }

    /// Returns the traffic counters.
    pub fn counters(&self) -> FlowCounters {
        self.counters
    }

    /// Returns the MTU of the path as the link's and routers' messages give it, in bytes.
    pub(crate) fn path_mtu(&self) -> usize {
        self.mss + self.template.header_len() + segment::MIN_HEADER_LEN
    }

    /// Returns the reason why the connection failed, if it did.
    pub fn failure(&self) -> Option<&FlowFailure> {
        self.failure.as_ref()
    }

    /// Returns the recovery layer, for its statistics.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Returns whether the peer has no such connection, so that nothing needs to be sent.
    fn is_reset(&self) -> bool {
        matches!(self.failure, Some(FlowFailure::Reset | FlowFailure::Refused))
    }

    /// Returns the link address and interface that the flow's packets go to.
    pub(crate) fn next_hop(&self) -> NextHop {
        self.next_hop
    }

    /// Returns the index of the interface that the peer's segments come by; at first, the interface
    /// that the flow's own leave by.
    pub(crate) fn came_by(&self) -> u32 {
        self.came_by
    }

    /// Sets the interface that the peer's segments come by.
    pub(crate) fn set_came_by(&mut self, interface: u32) {
        self.came_by = interface;
    }

    /// Returns the neighbour whose link address the flow's packets carry.
    pub(crate) fn neighbour(&self) -> Neighbour {
        self.neighbour
    }

    /// Sets the IP address of the neighbour that delivers the peer's packets.
    pub(crate) fn locate(&mut self, address: IpAddr) {
        self.neighbour = Neighbour::Sender(Some(address));
    }

    /// Returns whether sent segments seem not to arrive.
    pub(crate) fn is_stalled(&self, now: Duration) -> bool {
        match self.phase() {
            Phase::Opening => self.counters.syns_sent >= 2,
            Phase::Open => {
                self.retransmissions.suggest_lost_acks() || self.recovery.is_stalled(recovery_time(now))
            }
            Phase::Closed => false,
        }
    }

    /// Handles an ARP or NDP announcement for `address`. Returns whether the next hop changed.
    pub(crate) fn move_neighbour(
        &mut self,
        now: Duration,
        address: IpAddr,
        mac: MacAddr,
        source: AnnouncementSource,
    ) -> bool {
        let ours = self.neighbour.is_at(address, self.tuple.remote.ip());
        let stalled = self.is_stalled(now);
        if !ours || source == AnnouncementSource::Proxy && !stalled {
            return false;
        }
        let Some(next_hop) = self.next_hop.with_destination(mac) else { return false };
        log::info!("{}: {address} is at {mac} now", self.tuple);
        self.next_hop = next_hop;
        if stalled {
            self.retry(now);
        }
        true
    }

    /// Applies a change of the interface's state.
    pub(crate) fn change_interface(&mut self, now: Duration, was: &Interface, is: &Interface) {
        self.next_hop = self.next_hop.with_changed_source(was, is);
        self.shrink(now, is.mtu_towards(self.tuple.remote.ip()));
        if is.up && is.running && !(was.up && was.running) && self.is_stalled(now) {
            self.retry(now);
        }
    }

    /// Retransmits unacknowledged data at once, because the path or its next hop has changed.
    fn retry(&mut self, now: Duration) {
        self.retransmissions.forget_lost_acks();
        self.recovery.retry(recovery_time(now));
    }

    /// Returns the connection's phase.
    pub fn phase(&self) -> Phase {
        match self.states.state() {
            _ if self.failure.is_some() => Phase::Closed,
            State::Listen | State::SynSent | State::SynReceived => Phase::Opening,
            State::Closed | State::TimeWait => Phase::Closed,
            _ => Phase::Open,
        }
    }

    /// Returns whether the connection waits for retransmissions of the peer's FIN (RFC 9293,
    /// section 3.6.1).
    pub fn in_time_wait(&self) -> bool {
        self.states.state() == State::TimeWait
    }

    /// Returns whether the path loses more than one frame in a hundred, by our estimate.
    pub(crate) fn is_lossy(&self) -> bool {
        let FlowCounters { egress_drops, frames_sent, frames_received, .. } = self.counters;
        let lost =
            egress_drops + self.recovery.stats().segments_retransmitted + self.retransmissions.frames();
        lost * 100 > frames_sent + frames_received
    }

    /// Returns whether the peer is on this host; lo loses nothing.
    pub(crate) fn is_on_host(&self) -> bool {
        self.next_hop.header == LinkHeader::LOOPBACK
    }

    /// Returns whether the handshake was ever completed.
    pub fn was_established(&self) -> bool {
        self.established
    }

    /// Returns the free space for [`Flow::send`], in bytes.
    pub fn send_room(&self) -> usize {
        match self.states.may_send() {
            true => self.recovery.room(),
            false => 0,
        }
    }

    /// Returns the bytes ready for [`Flow::receive`].
    pub fn received(&self) -> usize {
        self.recovery.readable()
    }

    /// Returns whether the peer has closed its direction and everything it sent has been read.
    pub fn peer_finished(&self) -> bool {
        self.established && !self.states.may_receive() && self.received() == 0
    }

    /// Returns the bytes written that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.recovery.unacknowledged() as usize
    }

    /// Passes `fill` a contiguous part of the free send buffer, of at most `limit` bytes. `fill`
    /// returns how many bytes it wrote.
    ///
    /// # Errors
    /// `NotConnected` if the connection can no longer send, and the errors of `fill`.
    pub fn send(
        &mut self,
        limit: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.states.may_send() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let written = self.recovery.write(limit, fill)?;
        self.counters.bytes_sent += written as u64;
        Ok(written)
    }

    /// Passes `drain` a contiguous part of the received data, of at most `limit` bytes. `drain`
    /// returns how many bytes it took.
    ///
    /// # Errors
    /// Those of `drain`.
    pub fn receive(
        &mut self,
        limit: usize,
        drain: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.received() == 0 {
            return Ok(0);
        }
        let received = self.recovery.read(limit, drain)?;
        self.counters.bytes_received += received as u64;
        Ok(received)
    }

    /// Fails the connection without sending anything, because its interface is gone.
    pub(crate) fn fail_interface(&mut self, interface: &str) {
        self.failure.get_or_insert_with(|| FlowFailure::InterfaceGone(interface.to_owned()));
    }

    /// Closes our direction: a FIN follows the last byte.
    pub fn close(&mut self) {
        self.states.close();
    }

    /// Aborts the connection: a reset leaves with the next [`Flow::egress`].
    pub fn abort(&mut self) {
        self.states.abort();
    }

    /// Opens the window, because the connection has a user now.
    pub(crate) fn accept(&mut self) {
        self.recovery.set_accepted(true);
    }

    /// Frees the memory that is allocated and not used.
    pub(crate) fn reclaim(&mut self) {
        self.recovery.reclaim();
    }

    /// Drops the received data of a released flow. Aborts the connection if there was any and the
    /// peer has acknowledged all of ours, or if `overdue`.
    pub(crate) fn drop_received(&mut self, overdue: bool) {
        let mut dropped = 0;
        while self.received() > 0 {
            match self.receive(usize::MAX, |bytes| Ok(bytes.len())) {
                Ok(len) if len > 0 => dropped += len,
                _ => break,
            }
        }
        if self.phase() == Phase::Open && (overdue || dropped > 0 && self.recovery.outstanding() == 0) {
            self.abort();
        }
    }

    /// Leaves errors about packets that are too big or expired to a caller who sends probes of the path.
    pub(crate) fn set_probed(&mut self) {
        self.probed = true;
    }

    /// Takes the SYN out of the flow, for a caller who sends it as probes of the path.
    pub(crate) fn take_syn(&mut self, now: Duration) -> Option<HeaderOnly> {
        self.probed = true;
        self.states.egress(now, &mut self.recovery);
        if let Some(transmit) = self.recovery.poll_transmit(recovery_time(now)) {
            self.last_bare.clear();
            let _ = self.last_bare.try_extend_from_slice(transmit.header);
            self.counters.syns_sent += 1;
        }
        self.last_ack()
    }

    /// Returns the last segment without payload: the SYN, or the last ACK, to be retransmitted if the peer missed it.
    pub(crate) fn last_ack(&self) -> Option<HeaderOnly> {
        let Flow { next_hop, template, .. } = *self;
        Segment::parse(&self.last_bare).map(|segment| HeaderOnly { next_hop, template, segment })
    }

    /// Counts a segment that is not part of the connection.
    pub(crate) fn note_discard(&mut self, last: Discard) {
        self.counters.invalid += u64::from(matches!(last, Discard::Checksum | Discard::Header));
        if self.phase() == Phase::Opening {
            let count = self.discards.map_or(0, |before| before.count) + 1;
            self.discards = Some(Discards { count, last });
        }
    }

    /// Returns the segments discarded during the handshake.
    pub fn discards(&self) -> Option<Discards> {
        self.discards
    }

    /// Handles a segment of this flow whose checksum was verified. `reply` is the next hop back to
    /// its sender. Returns whether the payload is in order and was left for [`ReceivedData`].
    pub(crate) fn ingress(
        &mut self,
        now: Duration,
        segment: &Segment,
        payload: &[u8],
        reply: &NextHop,
    ) -> bool {
        self.counters.frames_received += 1;
        self.note_sequence(now, segment);
        self.follow(segment, reply);
        let before = self.states.state();
        let outcome = self.recovery.handle_segment(recovery_time(now), segment, payload);
        self.states.ingress(now, segment, outcome, &mut self.recovery);
        let after = self.states.state();
        self.established |=
            !matches!(after, State::Listen | State::SynSent | State::SynReceived | State::Closed);
        if segment.is(segment::RST) && before != after {
            self.failure = match before {
                State::SynSent | State::SynReceived => Some(FlowFailure::Refused),
                // Everything was exchanged: the peer only skipped its TIME-WAIT.
                State::TimeWait => None,
                _ => Some(FlowFailure::Reset),
            };
        }
        if before == after && matches!(before, State::SynSent | State::SynReceived) {
            let acknowledges = self.recovery.is_acceptable_ack(segment.ack);
            self.note_discard(Discard::of(segment, acknowledges));
        }
        outcome == SegmentOutcome::InOrder
    }

    /// Stores the payload that [`Flow::ingress`] left, except for the first `taken` bytes, which
    /// the user has read.
    fn keep(&mut self, now: Duration, segment: &Segment, payload: &[u8], taken: usize) {
        self.recovery.keep(recovery_time(now), segment, payload, taken);
        self.states.follow(now, &mut self.recovery);
    }

    /// Moves an accepted flow's next hop to the link address that the peer's segments come from, if
    /// the segment is genuine.
    fn follow(&mut self, segment: &Segment, reply: &NextHop) {
        if !matches!(self.neighbour, Neighbour::Sender(_)) || reply.interface != self.next_hop.interface {
            return;
        }
        let Some(next_hop) = reply.destination().and_then(|sender| self.next_hop.with_destination(sender))
        else {
            return;
        };
        // An attacker on the link who guesses the window must guess the acknowledgment, too.
        let ours = segment.is(segment::ACK) && self.recovery.is_acceptable_ack(segment.ack);
        if self.established && ours && self.recovery.admits(segment.seq) {
            log::debug!("{}: comes from another link address", self.tuple);
            self.next_hop = next_hop;
        }
    }

    /// Records the arrival time and order of data.
    fn note_sequence(&mut self, now: Duration, segment: &Segment) {
        if segment.payload_len == 0 {
            return;
        }
        self.counters.first_data_at.get_or_insert(now);
        let end = segment.seq + segment.payload_len as u32;
        let expected = self.established.then(|| self.recovery.expected());
        self.retransmissions.note(now, (segment.seq, end), expected, self.recovery.min_rtt());
    }

    /// Handles an ICMP error about this flow. An error whose quoted sequence number is not in
    /// flight is forged or stale (RFC 5927, section 4.1).
    pub(crate) fn icmp(&mut self, now: Duration, error: &IcmpError) {
        if self.probed && matches!(error.reason, Reason::HopLimitExceeded | Reason::PacketTooBig(_)) {
            return;
        }
        if !self.recovery.quotes(SeqNumber(error.sequence)) {
            self.note_discard(Discard::Icmp);
            return log::info!("{}: ignoring {error}: it quotes nothing that is in flight", self.tuple);
        }
        match error.reason {
            Reason::PacketTooBig(mtu) => {
                self.counters.too_big = Some((error.from, mtu));
                self.shrink(now, mtu);
            }
            _ if self.states.state() == State::SynSent => {
                self.failure = Some(FlowFailure::Rejected(*error));
            }
            // RFC 5927, section 5.2: hard errors are soft once the connection is established.
            _ => log::info!("{}: {error}; going on, the connection is established", self.tuple),
        }
    }

    /// Lowers the MSS to a path MTU of `mtu` bytes.
    fn shrink(&mut self, now: Duration, mtu: u32) {
        let least = minimum_mtu(self.template.source) as usize;
        let headers = self.template.header_len() + segment::MIN_HEADER_LEN;
        let mtu = (mtu as usize).max(least);
        if mtu >= self.mss + headers {
            return;
        }
        self.mss = mtu - headers;
        log::info!("{}: the path's MTU is {mtu}", self.tuple);
        self.recovery.set_mss(recovery_time(now), self.mss as u16);
    }

    /// Sends what is due. Returns whether the budget ended before the work did. A lost packet is no
    /// error here: the recovery layer retransmits it.
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub(crate) fn egress(&mut self, now: Duration, link: &mut dyn Link) -> Result<bool, LinkError> {
        if self.is_reset() {
            return Ok(false);
        }
        self.states.egress(now, &mut self.recovery);
        let offloads = link.offloads();
        let now = recovery_time(now);
        if self.recovery.timed_out(now) && self.failure.is_none() {
            self.failure = Some(FlowFailure::Vanished);
        }
        for _ in 0..EGRESS_BUDGET {
            let Some(transmit) = self.recovery.poll_transmit(now) else { return Ok(false) };
            let mut headers = [0; MAX_HEADERS];
            let payload = transmit.payload_len();
            let len = transmit.header.len() + payload;
            let start = self.template.write(len, self.id, Fragmentation::Forbidden, &mut headers);
            let end = start + transmit.header.len();
            headers[start..end].copy_from_slice(transmit.header);
            let sum = ip::pseudo_header(self.template.source, self.template.destination, TCP, len);
            let field = match offloads.checksum {
                true => sum.partial(),
                false => {
                    // The header's length is even, so the payload's first piece may follow. Only
                    // the ring's end can make that piece odd.
                    odd_safe(sum.add(transmit.header), transmit.payload)
                }
            };
            let at = start + segment::CHECKSUM_OFFSET;
            headers[at..at + 2].copy_from_slice(&field.to_be_bytes());
            let is_syn = headers[start + segment::FLAGS_OFFSET] & segment::SYN != 0;
            let kind = match self.template.source {
                IpAddr::V4(_) => Segmentation::Tcp4,
                IpAddr::V6(_) => Segmentation::Tcp6,
            };
            let packet = Outgoing {
                ethertype: self.template.ethertype(),
                headers: &headers[..end],
                payload: transmit.payload,
                checksum: offloads
                    .checksum
                    .then_some(ChecksumOffload { start, offset: segment::CHECKSUM_OFFSET }),
                segmentation: transmit.gso_size.map(|size| (kind, size)),
            };
            self.counters.frames_sent += 1;
            self.counters.syns_sent += u64::from(is_syn);
            self.id = self.id.wrapping_add(payload.div_ceil(self.mss.max(1)).max(1) as u16);
            if payload == 0 {
                self.last_bare.clear();
                // A TCP header always fits.
                let _ = self.last_bare.try_extend_from_slice(transmit.header);
            }
            match link.transmit(&self.next_hop, &packet) {
                Ok(()) => {}
                Err(LinkError::EgressDropped { .. }) => {
                    self.counters.egress_drops += 1;
                    self.counters.egress_syn_drops += u64::from(is_syn);
                }
                Err(error @ LinkError::OffloadRefused { .. }) => {
                    log::warn!("{error}");
                    self.recovery.set_max_frame(self.mss);
                }
                // The event loop watches the interfaces, and reports the loss by the interface's
                // name.
                Err(error @ LinkError::Gone { .. }) => {
                    log::debug!("{}: {error}", self.tuple);
                    return Ok(false);
                }
                Err(error) if error.is_transient() => log::debug!("{}: {error}", self.tuple),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Returns when [`Flow::egress`] is due next; a time in the past means at once.
    pub(crate) fn poll_at(&mut self, now: Duration) -> Option<Duration> {
        if self.is_reset() {
            return None;
        }
        let stack = self.states.poll_at(now);
        let recovery = self.recovery.poll_at(recovery_time(now)).map(|at| Duration::from_nanos(at.nanos()));
        stack.into_iter().chain(recovery).min()
    }

    /// Returns the time until which received frames may wait; see [`Recovery::quantum_at`].
    pub(super) fn quantum_at(&self, now: Duration) -> Option<Duration> {
        self.recovery.quantum_at(recovery_time(now)).map(|at| Duration::from_nanos(at.nanos()))
    }
}

/// Data of one connection that has arrived in order and still lies in its frame.
///
/// The user reads it there by [`ReceivedData::receive`]. Dropping the value copies the rest into
/// the flow's buffer.
pub struct ReceivedData<'a> {
    now: Duration,
    flow: &'a mut Flow,
    segment: Segment,
    payload: &'a [u8],
    /// Payload bytes that the user has read.
    taken: usize,
}

impl<'a> ReceivedData<'a> {
    /// Returns the payload that [`Flow::ingress`] left in its frame.
    pub(super) fn new(
        now: Duration,
        flow: &'a mut Flow,
        segment: Segment,
        payload: &'a [u8],
    ) -> ReceivedData<'a> {
        ReceivedData { now, flow, segment, payload, taken: 0 }
    }

    /// Returns the connection that the data belongs to.
    pub fn tuple(&self) -> &FiveTuple {
        &self.flow.tuple
    }

    /// Passes `drain` a contiguous part of the received data, of at most `limit` bytes: first the
    /// data in the flow's buffer, then the data in the frame. `drain` returns how many bytes it
    /// took.
    ///
    /// # Errors
    /// Those of `drain`.
    pub fn receive(
        &mut self,
        limit: usize,
        drain: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.flow.received() > 0 {
            return self.flow.receive(limit, drain);
        }
        let rest = self.payload.get(self.taken..).unwrap_or_default();
        let offered = rest.get(..limit).unwrap_or(rest);
        if offered.is_empty() {
            return Ok(0);
        }
        let taken = drain(offered)?.min(offered.len());
        self.taken += taken;
        self.flow.counters.bytes_received += taken as u64;
        Ok(taken)
    }
}

impl Drop for ReceivedData<'_> {
    fn drop(&mut self) {
        self.flow.keep(self.now, &self.segment, self.payload, self.taken);
    }
}

/// Returns the checksum over two pieces, of which the first may have an odd length.
fn odd_safe(sum: crate::net::checksum::Sum, [first, second]: [&[u8]; 2]) -> u16 {
    match (first.len() % 2, second) {
        (0, _) | (_, []) => sum.add(first).add(second).checksum(),
        (_, [next, rest @ ..]) => {
            let (even, odd) = first.split_at(first.len() - 1);
            sum.add(even).add(&[odd[0], *next]).add(rest).checksum()
        }
    }
}
