//! One local UDP port (RFC 768): sends and receives datagrams.
//!
//! The only state is the peer. Received datagrams are copied into an inbox until the user has taken
//! them. Meanwhile the event loop reads no frames, so the inbox holds one turn's worth and the rest
//! waits in the packet socket's buffer. Sent datagrams go straight to the link: datagrams of equal
//! size as one super-frame where the kernel segments those, datagrams above the MTU in fragments.
mod inbox;

use super::{
    Admission, FlowRoute, Gate, Path, Settings, UnverifiedSource, fragment,
    icmp::{IcmpError, Reason},
    ip::{self, Fragment, Fragmentation, Template, UDP},
    source_validation::Validation,
};
use crate::{
    host::interface::Interface,
    link::{ChecksumOffload, Link, LinkError, MAX_LINK_HEADER, NextHop, Outgoing, Segmentation},
    neighbour::Neighbour,
    net::{
        FiveTuple, MacAddr, Protocol, minimum_mtu,
        zone::{endpoint, scoped, zone_of},
    },
    segment,
};
pub(crate) use inbox::Datagram;
use inbox::Inbox;
use smoltcp::wire::UdpPacket;
use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Length of the UDP header, in bytes.
const HEADER: usize = 8;
/// Offset of the checksum field, in bytes.
const CHECKSUM: usize = 6;
/// Maximum length of the IP and UDP headers together, in bytes.
const MAX_HEADERS: usize = ip::IPV6_HEADER + 8 + HEADER;
/// Maximum datagrams in a super-frame (UDP_MAX_SEGMENTS of linux/udp.h; 128 in later kernels).
const MAX_SEGMENTS: usize = 64;
/// Time without an answer from the peer after which its neighbour is probed (RFC 4861, section 10,
/// DELAY_FIRST_PROBE_TIME).
const CONFIRM_AFTER: Duration = Duration::from_secs(5);
/// Maximum queued ICMP errors.
const MAX_ERRORS: usize = 16;
/// Maximum queued answers to a survey: more than arrive in one turn.
const MAX_FINDINGS: usize = 4096;
/// Maximum ports whose invalid datagrams are counted during a survey.
const MAX_INVALID: usize = 65_536;

/// Returns the maximum payload of a datagram from this address, in bytes: 65507 in IPv4, 65527 in
/// IPv6.
pub(crate) fn max_payload(local: IpAddr) -> usize {
    let ip = if local.is_ipv4() { ip::IPV4_HEADER } else { 0 };
    usize::from(u16::MAX) - ip - HEADER
}

/// The peers that a port serves when it dials none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The first peer that sends a datagram; all others are dropped from then on.
    First,
    /// Every peer; datagrams are sent to the peer that was heard from last.
    All,
}

/// A port to serve.
pub struct DatagramService {
    /// The peers served.
    pub audience: Audience,
    /// The filter of remote addresses. Datagrams that it does not accept are dropped.
    pub gate: Gate,
    /// The served interfaces by index, each with the limits of its packets.
    pub paths: HashMap<u32, Path>,
}

/// Counters of a port's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatagramCounters {
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Datagrams received and delivered.
    pub datagrams_received: u64,
    /// Payload bytes received and delivered.
    pub bytes_received: u64,
    /// Datagrams that this host's own egress dropped (ENOBUFS), or that met an interface that was
    /// down.
    pub egress_drops: u64,
    /// Datagrams dropped because they came from a host other than the peer.
    pub strangers: u64,
    /// Datagrams with a wrong checksum or a malformed header.
    pub invalid: u64,
}

/// The destination of sent datagrams.
#[derive(Clone, Copy, Debug)]
struct Peer {
    tuple: FiveTuple,
    next_hop: NextHop,
    neighbour: Neighbour,
    /// Link-layer origin of the last datagram admitted; at first, the next hop.
    came_from: NextHop,
    path: Path,
    template: Template,
    /// The peer is a group or a broadcast address, whose members answer from addresses of their own.
    is_group: bool,
}

/// The origin of a received datagram.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    /// The next hop back to the frame's sender.
    pub reply: NextHop,
    /// The zone of the datagram's addresses.
    pub zone: u32,
    /// The datagram was addressed to a group or to all hosts.
    pub to_group: bool,
}

/// An answer to a survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SurveyAnswer {
    /// Our address and port.
    pub local: SocketAddr,
    /// The port that answered.
    pub port: SocketAddr,
    /// A datagram, or an ICMP error.
    pub answer: Result<(), IcmpError>,
}

/// A UDP port. It receives nothing before [`DatagramSocket::dial`] or [`DatagramSocket::serve`].
pub struct DatagramSocket {
    settings: Settings,
    /// Identification of the next packet or fragmented datagram. It starts anywhere (RFC 7739,
    /// section 5.2).
    id: u32,
    service: Option<DatagramService>,
    peer: Option<Peer>,
    /// Whether the peer has sent anything.
    has_received: bool,
    inbox: Inbox,
    errors: VecDeque<IcmpError>,
    /// Answers from all peers, during a survey.
    survey_answers: Option<VecDeque<SurveyAnswer>>,
    /// Datagrams with a wrong checksum or length, by the surveyed port.
    invalid: HashMap<(IpAddr, u16), u64>,
    counters: DatagramCounters,
    /// When the peer last proved reachable, or had not been sent anything since; datagrams sent and
    /// received by then.
    confirmed: (Duration, u64, u64),
}

impl DatagramSocket {
    /// Returns a socket without a peer. `seed` must be unpredictable.
    pub(crate) fn new(settings: &Settings, seed: u64) -> DatagramSocket {
        DatagramSocket {
            settings: settings.clone(),
            id: seed as u32,
            service: None,
            peer: None,
            has_received: false,
            inbox: Inbox::default(),
            errors: VecDeque::new(),
            survey_answers: None,
            invalid: HashMap::new(),
            counters: DatagramCounters::default(),
            confirmed: (Duration::ZERO, 0, 0),
        }
    }

    /// Sets the peer to send to and receive from.
    pub fn dial(&mut self, tuple: FiveTuple, route: FlowRoute) {
        self.set_peer(tuple, route);
    }

    /// Sets a group or broadcast address to send to, and receives from anyone.
    pub(crate) fn dial_group(&mut self, tuple: FiveTuple, route: FlowRoute) {
        self.set_peer(tuple, route);
        self.peer.iter_mut().for_each(|peer| peer.is_group = true);
    }

    /// Serves the peers that send datagrams here.
    pub fn serve(&mut self, service: DatagramService) {
        self.service = Some(service);
    }

    /// Starts a survey: from now on, every answer becomes a [`SurveyAnswer`] and nothing else, so that each peer can be
    /// dialed in turn. The user tells which answers are for peers that were dialed.
    pub(crate) fn survey(&mut self) {
        self.survey_answers = Some(VecDeque::new());
    }

    /// Returns the next answer to a survey.
    pub(crate) fn take_survey_answer(&mut self) -> Option<SurveyAnswer> {
        self.survey_answers.as_mut()?.pop_front()
    }

    /// Returns how many datagrams with a wrong checksum or length a surveyed port has sent.
    pub(crate) fn invalid_from(&self, port: SocketAddr) -> u64 {
        self.invalid.get(&(port.ip(), port.port())).copied().unwrap_or(0)
    }

    /// Counts a datagram with a wrong checksum or length. `bytes` begins with its header, if it has
    /// one.
    fn note_invalid(&mut self, header: &ip::Header, bytes: &[u8]) {
        self.counters.invalid += 1;
        if self.survey_answers.is_some()
            && let Some((source, _)) = segment::ports(bytes)
            && let port = (header.source, source)
            && (self.invalid.len() < MAX_INVALID || self.invalid.contains_key(&port))
        {
            *self.invalid.entry(port).or_default() += 1;
        }
    }

    /// Records an answer to a survey. Returns whether one is under way.
    fn find(&mut self, local: SocketAddr, port: SocketAddr, answer: Result<(), IcmpError>) -> bool {
        let Some(survey_answers) = &mut self.survey_answers else { return false };
        if survey_answers.len() < MAX_FINDINGS {
            survey_answers.push_back(SurveyAnswer { local, port, answer });
        }
        true
    }

    fn set_peer(&mut self, tuple: FiveTuple, route: FlowRoute) {
        self.has_received = false;
        self.errors.clear();
        let path = route.path.with_mtu_of(&route.metrics);
        self.peer = Some(Peer {
            tuple,
            next_hop: route.next_hop,
            neighbour: route.neighbour,
            came_from: route.next_hop,
            path,
            is_group: false,
            template: Template {
                source: tuple.local.ip(),
                destination: tuple.remote.ip(),
                protocol: UDP,
                hop_limit: self.settings.hop_limit(tuple.remote.ip(), path.ipv6_hop_limit, &route.metrics),
                traffic_class: self.settings.traffic_class,
                flow_label: self.id,
            },
        });
    }

    /// Returns the peer that [`DatagramSocket::send`] sends to: the one dialed, or the one that was
    /// heard from first or last.
    pub fn peer(&self) -> Option<FiveTuple> {
        self.peer.map(|peer| peer.tuple)
    }

    /// Returns whether the peer has ever sent anything.
    pub(crate) fn was_answered(&self) -> bool {
        self.has_received
    }

    /// Returns the traffic counters.
    pub(crate) fn counters(&self) -> DatagramCounters {
        self.counters
    }

    /// Returns the oldest datagram in the inbox.
    pub fn front(&self) -> Option<Datagram<'_>> {
        self.inbox.front()
    }

    /// Returns the payloads of all datagrams in the inbox as one piece.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.inbox.all()
    }

    /// Drops `bytes` bytes of [`DatagramSocket::waiting`], and the empty datagrams behind them.
    pub(crate) fn forget(&mut self, bytes: usize) {
        self.inbox.forget(bytes);
    }

    /// Drops the oldest datagram in the inbox.
    pub fn pop(&mut self) {
        self.inbox.pop();
    }

    /// Returns the next ICMP error about a datagram sent to the peer.
    pub fn take_error(&mut self) -> Option<IcmpError> {
        self.errors.pop_front()
    }

    /// Handles a UDP packet; `bytes` begins with the UDP header. `trusted` skips the checksum.
    /// `segment_size` is that of a coalesced frame, else 0. `validate` judges a peer that is new,
    /// or that came by a new path. A packet of an unverified source has to be handed over again.
    pub(super) fn ingress(
        &mut self,
        header: &ip::Header,
        bytes: &[u8],
        origin: Origin,
        trusted: bool,
        segment_size: usize,
        validate: &mut dyn FnMut(&FiveTuple) -> Validation,
    ) -> Option<UnverifiedSource> {
        let Some((ports, payload)) = parse(header, bytes, trusted) else {
            self.note_invalid(header, bytes);
            log::debug!("dropping an invalid datagram from {}", header.source);
            return None;
        };
        let tuple = FiveTuple {
            protocol: Protocol::Udp,
            local: scoped(header.destination, ports.destination, origin.zone),
            remote: scoped(header.source, ports.source, origin.zone),
        };
        if self.find(tuple.local, tuple.remote, Ok(())) {
            return None;
        }
        let datagrams = match segment_size {
            0 => payload.len().max(1),
            size => size,
        };
        let count = payload.len().div_ceil(datagrams).max(1) as u64;
        match self.admit(tuple, &origin, validate) {
            Admitted::Yes => {}
            Admitted::No => {
                self.counters.strangers += count;
                return None;
            }
            Admitted::Unknown(unverified) => return Some(unverified),
        }
        self.has_received = true;
        self.counters.datagrams_received += count;
        self.counters.bytes_received += payload.len() as u64;
        match payload.is_empty() {
            true => self.inbox.push(tuple.remote, payload),
            false => payload.chunks(datagrams).for_each(|one| self.inbox.push(tuple.remote, one)),
        }
        None
    }

    /// Decides whether the sender is a peer. A service adopts a new one where audience, gate and
    /// route back allow it.
    fn admit(
        &mut self,
        tuple: FiveTuple,
        &Origin { reply, to_group, .. }: &Origin,
        validate: &mut dyn FnMut(&FiveTuple) -> Validation,
    ) -> Admitted {
        let known = self.peer.as_mut().filter(|peer| peer.may_send(&tuple, to_group));
        let Some(service) = &self.service else {
            return match known {
                None => Admitted::No,
                Some(peer) if peer.came_from.interface == reply.interface => Admitted::Yes,
                Some(peer) => match validate(&tuple) {
                    Validation::Valid { .. } => {
                        peer.came_from = reply;
                        Admitted::Yes
                    }
                    other => other.into(),
                },
            };
        };
        if known.is_some_and(|peer| peer.came_from == reply) {
            return Admitted::Yes;
        }
        let stranger = self.peer.is_none_or(|peer| !peer.may_send(&tuple, to_group));
        if stranger
            && (service.audience == Audience::First && self.peer.is_some()
                || (service.gate)(tuple.remote) != Admission::Accept)
        {
            log::debug!("ignoring a datagram from {}", endpoint(&tuple.remote));
            return Admitted::No;
        }
        let (next_hop, neighbour, source, metrics) = match validate(&tuple) {
            Validation::Valid { next_hop, neighbour, source, metrics } => {
                (next_hop, neighbour, source, metrics)
            }
            other => return other.into(),
        };
        let Some(path) = service.paths.get(&next_hop.interface).copied() else {
            log::debug!(
                "the route back to {} leads out of an interface that is not served",
                endpoint(&tuple.remote)
            );
            return Admitted::No;
        };
        match self.peer.as_mut().filter(|_| !stranger) {
            // The route back may change when a gateway fails.
            Some(peer) => {
                if peer.next_hop.interface != next_hop.interface {
                    peer.path = path.with_mtu_of(&metrics);
                }
                (peer.next_hop, peer.neighbour) = (next_hop, neighbour);
            }
            None => {
                log::debug!("{} speaks; what we send goes there", endpoint(&tuple.remote));
                // No packet has a group as its source (RFC 1122, section 3.2.1.3). On lo, whose route back is
                // not asked for, the peer's address is this host's.
                let own = if to_group { source.unwrap_or(tuple.remote.ip()) } else { tuple.local.ip() };
                let zone = zone_of(&tuple.remote).unwrap_or_default();
                let local = scoped(own, tuple.local.port(), zone);
                self.set_peer(FiveTuple { local, ..tuple }, FlowRoute { next_hop, neighbour, path, metrics });
            }
        }
        if let Some(peer) = &mut self.peer {
            peer.came_from = reply;
        }
        Admitted::Yes
    }

    /// Returns the neighbour to probe when the peer has been sent datagrams and has not answered
    /// for a while, with the peer and its current next hop.
    pub(super) fn unanswered(&mut self, now: Duration) -> Option<(FiveTuple, NextHop, IpAddr)> {
        let Peer { tuple, next_hop, neighbour: Neighbour::At(neighbour), .. } = self.peer? else {
            return None;
        };
        let (since, sent, received) = self.confirmed;
        let counters = &self.counters;
        if received == counters.datagrams_received && sent != counters.datagrams_sent {
            if now < since + CONFIRM_AFTER {
                return None;
            }
            self.confirmed = (now, sent, received);
            return Some((tuple, next_hop, neighbour));
        }
        self.confirmed = (now, counters.datagrams_sent, counters.datagrams_received);
        None
    }

    /// Handles an announcement of the link address of the neighbour at `address`.
    pub(super) fn move_neighbour(&mut self, interface: u32, address: IpAddr, mac: MacAddr) {
        let Some(peer) = self.peer.as_mut().filter(|peer| peer.next_hop.interface == interface) else {
            return;
        };
        let ours = peer.neighbour.is_at(address, peer.tuple.remote.ip());
        if let Some(next_hop) = peer.next_hop.with_destination(mac).filter(|_| ours) {
            log::info!("{}: {address} is at {mac} now", peer.tuple);
            peer.next_hop = next_hop;
        }
    }

    /// Applies a change of an interface's state.
    pub(super) fn change_interface(&mut self, was: &Interface, is: &Interface) {
        if let Some(path) = self.service.as_mut().and_then(|service| service.paths.get_mut(&is.index)) {
            path.mtu = is.mtu as usize;
        }
        if let Some(peer) = self.peer.as_mut().filter(|peer| peer.next_hop.interface == is.index) {
            peer.next_hop = peer.next_hop.with_changed_source(was, is);
            peer.path.mtu = peer.path.mtu.min(is.mtu_towards(peer.tuple.remote.ip()) as usize);
        }
    }

    /// Handles an ICMP error. An error that is not about the peer, or that arrives before anything
    /// was sent, is forged or stale.
    pub(crate) fn icmp(&mut self, error: &IcmpError) {
        if !matches!(error.reason, Reason::PacketTooBig(_))
            && self.find(error.local, error.remote, Err(*error))
        {
            return;
        }
        let about_peer =
            |peer: &&mut Peer| peer.tuple.local == error.local && peer.tuple.remote == error.remote;
        let Some(peer) = self.peer.as_mut().filter(about_peer) else { return };
        if self.counters.datagrams_sent == 0 {
            return;
        }
        match error.reason {
            Reason::PacketTooBig(mtu) => {
                let mtu = mtu.max(minimum_mtu(error.local.ip())) as usize;
                if mtu < peer.path.mtu {
                    log::info!(
                        "the MTU of the path to {} is {mtu}; larger datagrams go in fragments",
                        error.remote
                    );
                    peer.path.mtu = mtu;
                }
            }
            _ if self.errors.len() < MAX_ERRORS => self.errors.push_back(*error),
            _ => {}
        }
    }

    /// Sends `bytes` to the peer as datagrams of `size` bytes, of which the last may be shorter;
    /// without bytes, one empty datagram. A loss on the path is no error. Datagrams that this host
    /// drops are counted.
    ///
    /// # Errors
    /// The link's error if it is permanent.
    pub fn send(&mut self, link: &mut dyn Link, bytes: &[u8], size: usize) -> Result<(), LinkError> {
        let Some(peer) = self.peer else { return Ok(()) };
        let size = size.clamp(1, max_payload(peer.tuple.local.ip()));
        let mut rest = bytes;
        loop {
            let offloads = link.offloads();
            let batch = match offloads.segmentation && offloads.checksum {
                true => peer.batch(size),
                false => size,
            };
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let datagrams = now.len().div_ceil(size).max(1);
            match self.transmit(link, &peer, now, size) {
                Err(error @ LinkError::OffloadRefused { .. }) => {
                    // At most once per offload: the link stops offering the refused one.
                    log::warn!("{error}");
                    continue;
                }
                Err(error) if error.is_transient() => {
                    log::debug!("{}: {error}", peer.tuple);
                    self.counters.egress_drops += datagrams as u64;
                }
                result => result?,
            }
            self.id = self.id.wrapping_add(datagrams as u32);
            self.counters.datagrams_sent += datagrams as u64;
            self.counters.bytes_sent += now.len() as u64;
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends one datagram, or several of `size` bytes as one super-frame.
    fn transmit(
        &self,
        link: &mut dyn Link,
        peer: &Peer,
        payload: &[u8],
        size: usize,
    ) -> Result<(), LinkError> {
        let template = &peer.template;
        let len = HEADER + payload.len();
        let mut udp = [0; HEADER];
        let mut header = UdpPacket::new_unchecked(&mut udp);
        header.set_src_port(peer.tuple.local.port());
        header.set_dst_port(peer.tuple.remote.port());
        header.set_len(len as u16);
        let segmentation = (payload.len() > size).then_some((Segmentation::Udp, size as u16));
        let fits = segmentation.is_some() || template.header_len() + len <= peer.path.mtu;
        let offload = link.offloads().checksum && fits;
        let sum = ip::pseudo_header(template.source, template.destination, UDP, len).add(&udp[..CHECKSUM]);
        let field = match offload {
            // Checksum offload wants the sum over the pseudo-header alone.
            true => ip::pseudo_header(template.source, template.destination, UDP, len).partial(),
            // 0 means that there is no checksum.
            false => match sum.add(payload).checksum() {
                0 => 0xffff,
                sum => sum,
            },
        };
        udp[CHECKSUM..].copy_from_slice(&field.to_be_bytes());
        let mut headers = [0; MAX_HEADERS];
        if fits {
            let start = template.write(len, 0, Fragmentation::Allowed(self.id as u16), &mut headers);
            headers[start..start + HEADER].copy_from_slice(&udp);
            return link.transmit(
                &peer.next_hop,
                &Outgoing {
                    ethertype: template.ethertype(),
                    headers: &headers[..start + HEADER],
                    payload: [payload, &[]],
                    checksum: offload.then_some(ChecksumOffload { start, offset: CHECKSUM }),
                    segmentation,
                },
            );
        }
        for (range, more) in fragment::cut(len, peer.path.mtu, template.fragment_header_len()) {
            let fragment = Fragment { id: self.id, offset: range.start as u16, more };
            let mut end = template.write(range.len(), 0, Fragmentation::Fragment(fragment), &mut headers);
            let payload = match range.start.checked_sub(HEADER) {
                Some(start) => &payload[start..range.end - HEADER],
                None => {
                    headers[end..end + HEADER].copy_from_slice(&udp);
                    end += HEADER;
                    &payload[..range.end - HEADER]
                }
            };
            link.transmit(
                &peer.next_hop,
                &Outgoing {
                    ethertype: template.ethertype(),
                    headers: &headers[..end],
                    payload: [payload, &[]],
                    checksum: None,
                    segmentation: None,
                },
            )?;
        }
        Ok(())
    }
}

/// The decision whether a datagram's sender is a peer.
enum Admitted {
    Yes,
    No,
    Unknown(UnverifiedSource),
}

impl From<Validation> for Admitted {
    fn from(judgement: Validation) -> Admitted {
        match judgement {
            Validation::Valid { .. } => Admitted::Yes,
            Validation::Invalid | Validation::RateLimited => Admitted::No,
            Validation::Unverified(unverified) => Admitted::Unknown(unverified),
        }
    }
}

impl Peer {
    /// Returns whether a datagram may be the peer's: it comes from there, or answers one that went to a
    /// group, and goes to the address that the peer knows or to a group.
    fn may_send(&self, tuple: &FiveTuple, to_group: bool) -> bool {
        (self.is_group || self.tuple.remote == tuple.remote) && (to_group || self.tuple.local == tuple.local)
    }

    /// Returns the maximum payload of one frame, in bytes: a multiple of `size`.
    fn batch(&self, size: usize) -> usize {
        let headers = self.template.header_len() + HEADER;
        if headers + size > self.path.mtu {
            return size;
        }
        let room = self.path.max_frame.saturating_sub(MAX_LINK_HEADER + headers);
        (room / size).min(self.path.max_segments).clamp(1, MAX_SEGMENTS) * size
    }
}

/// The ports of a UDP header.
struct Ports {
    source: u16,
    destination: u16,
}

/// Parses a UDP packet. Returns its ports and payload if it is valid.
fn parse<'a>(header: &ip::Header, bytes: &'a [u8], trusted: bool) -> Option<(Ports, &'a [u8])> {
    let fixed: &[u8; HEADER] = bytes.first_chunk()?;
    let fields = UdpPacket::new_unchecked(fixed);
    // Padding follows the length that the header gives.
    let bytes = bytes.get(..usize::from(fields.len()))?;
    let payload = bytes.get(HEADER..)?;
    let valid = match (fields.checksum(), header.source) {
        (0, IpAddr::V4(_)) => true,
        // The checksum is mandatory in IPv6 (RFC 8200, section 8.1).
        (0, IpAddr::V6(_)) => false,
        _ if trusted => true,
        _ => {
            ip::pseudo_header(header.source, header.destination, UDP, bytes.len()).add(bytes).checksum() == 0
        }
    };
    valid.then_some((Ports { source: fields.src_port(), destination: fields.dst_port() }, payload))
}

#[cfg(test)]
#[path = "datagram/tests.rs"]
mod tests;
