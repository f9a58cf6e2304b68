//! The TCP/IP stack: frames in, byte streams or datagrams out.
//!
//! A [`Stack`] is a table from five-tuple to [`Flow`], each with a small smoltcp of its own, made when we dial
//! or when a SYN comes. So a listener's backlog is a number, a flood of SYNs cannot touch the established,
//! and a thousand flows cost what they use. It does no I/O: the reactor passes in frames, a link to send
//! by, and the time.
pub mod checksum;
mod datagram;
mod endpoint;
mod flow;
pub mod fragment;
pub mod icmp;
pub mod ip;
mod segment;

use crate::{
    link::{ChecksumOffload, ChecksumState, Link, LinkError, NextHop, Outgoing, Received},
    net::{FiveTuple, Protocol},
};
use fragment::Reassembly;
use segment::Segment;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use datagram::{Audience, Datagram, DatagramCounters, DatagramService, DatagramSocket, max_payload};
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
    /// Handshakes under way; one more and the oldest gives way.
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
    half_open: VecDeque<FiveTuple>,
    accepted: VecDeque<FiveTuple>,
    /// Resets due to segments of no connection.
    resets: Vec<(NextHop, ip::Template, [u8; segment::MIN_HEADER])>,
    /// Our port, where it is a UDP port.
    pub datagrams: DatagramSocket,
    reassembly: Reassembly,
    seed: Box<dyn FnMut() -> u64>,
}

/// Resets that may wait; further ones are dropped, as a kernel's rate limit would.
const MAX_RESETS: usize = 64;

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
            half_open: VecDeque::new(),
            accepted: VecDeque::new(),
            resets: Vec::new(),
            seed: Box::new(seed),
        }
    }

    /// Begins a connection; the SYN leaves with the next [`Stack::egress`].
    pub fn dial(&mut self, now: Duration, tuple: FiveTuple, way: Way) {
        let flow = Flow::dial(now, tuple, way, &self.settings, (self.seed)());
        self.flows.insert(tuple, flow);
        self.touched.insert(tuple);
    }

    /// Serves SYNs from now on.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// Answers further SYNs with resets. Handshakes under way and connections not yet accepted are reset.
    pub fn stop_listening(&mut self) {
        self.listener = None;
        for tuple in std::mem::take(&mut self.half_open).into_iter().chain(std::mem::take(&mut self.accepted))
        {
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

    /// Forgets a flow. Whatever the peer still sends is answered as a segment of no connection.
    pub fn remove(&mut self, tuple: &FiveTuple) -> Option<Flow> {
        self.deadlines.set(*tuple, None);
        self.touched.remove(tuple);
        self.flows.remove(tuple)
    }

    /// Takes one received frame.
    pub fn ingress(&mut self, now: Duration, received: Received<'_>) {
        let Received { frame, network, reply, checksum, segment_size, .. } = received;
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
                let trusted = checksum == ChecksumState::Trusted;
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
        let trusted = checksum == ChecksumState::Trusted;
        if !self.flows.contains_key(&tuple) {
            let valid = trusted
                || ip::pseudo_header(header.source, header.destination, ip::TCP, bytes.len())
                    .add(bytes)
                    .checksum()
                    == 0;
            if !valid || !self.admit(now, tuple, &segment, reply) {
                return;
            }
        }
        let Some(flow) = self.flows.get_mut(&tuple) else { return };
        let opening = flow.phase() == Phase::Opening;
        flow.ingress(now, frame, network, header, trusted);
        self.touched.insert(tuple);
        if opening && flow.was_established() && take(&mut self.half_open, &tuple) {
            self.accepted.push_back(tuple);
        } else if opening && flow.failure().is_some() && take(&mut self.half_open, &tuple) {
            self.remove(&tuple);
        }
    }

    /// Whether a segment of no flow may make one; if not, it is answered as RFC 9293, section 3.10.7.1 says.
    fn admit(&mut self, now: Duration, tuple: FiveTuple, segment: &Segment, reply: NextHop) -> bool {
        let opens =
            segment.flags & (segment::SYN | segment::ACK | segment::RST | segment::FIN) == segment::SYN;
        let admission = match &self.listener {
            Some(listener) if opens => {
                let admission = (listener.gate)(tuple.remote.ip());
                if admission == Admission::Accept && self.accepted.len() >= listener.backlog {
                    log::debug!("the backlog is full: no answer to {}", tuple.remote);
                    return false;
                }
                admission
            }
            // A gate that shows strangers nothing must not betray itself by resets either.
            Some(listener) => match (listener.gate)(tuple.remote.ip()) {
                Admission::Ignore => Admission::Ignore,
                _ => Admission::Refuse,
            },
            None => Admission::Refuse,
        };
        match admission {
            Admission::Ignore => false,
            Admission::Refuse => {
                self.reset(tuple, segment, reply);
                false
            }
            Admission::Accept => self.answer(now, tuple, reply),
        }
    }

    /// Makes a flow for a SYN that was admitted; whether there is one now.
    fn answer(&mut self, now: Duration, tuple: FiveTuple, reply: NextHop) -> bool {
        let Some(listener) = &self.listener else { return false };
        let Some(path) = listener.paths.get(&reply.interface) else {
            log::debug!(
                "a SYN from {} came in by interface {}, which is not served",
                tuple.remote,
                reply.interface
            );
            return false;
        };
        let way = Way { next_hop: reply, path: *path };
        if self.half_open.len() >= listener.half_open
            && let Some(oldest) = self.half_open.pop_front()
        {
            self.remove(&oldest);
        }
        let flow = Flow::answer(now, tuple, way, &self.settings, (self.seed)());
        self.flows.insert(tuple, flow);
        self.half_open.push_back(tuple);
        true
    }

    fn reset(&mut self, tuple: FiveTuple, segment: &Segment, reply: NextHop) {
        if self.resets.len() >= MAX_RESETS {
            return;
        }
        let template = ip::Template {
            source: tuple.local.ip(),
            destination: tuple.remote.ip(),
            protocol: ip::TCP,
            hop_limit: self.settings.hop_limit,
            traffic_class: self.settings.traffic_class,
            flow_label: 0,
        };
        self.resets.extend(segment.reset().map(|reset| (reply, template, reset)));
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
        for (next_hop, template, header) in self.resets.drain(..) {
            send_bare(link, &next_hop, &template, &header)?;
        }
        while let Some(tuple) = self.deadlines.due(now) {
            self.touched.insert(tuple);
        }
        let mut more = BTreeSet::new();
        for tuple in std::mem::take(&mut self.touched) {
            let Some(flow) = self.flows.get_mut(&tuple) else { continue };
            if flow.egress(now, link)? {
                more.insert(tuple);
            }
            let deadline = flow.poll_at(now);
            self.deadlines.set(tuple, deadline);
        }
        self.touched = more;
        Ok(!self.touched.is_empty())
    }

    /// When [`Stack::egress`] is due next; a time that has passed means at once.
    pub fn poll_at(&self) -> Option<Duration> {
        match self.touched.is_empty() && self.resets.is_empty() {
            true => self.deadlines.next(),
            false => Some(Duration::ZERO),
        }
    }
}

/// Removes `tuple` from a queue; whether it was there.
fn take(queue: &mut VecDeque<FiveTuple>, tuple: &FiveTuple) -> bool {
    match queue.iter().position(|t| t == tuple) {
        Some(at) => queue.remove(at).is_some(),
        None => false,
    }
}

/// Sends a TCP header that belongs to no flow.
fn send_bare(
    link: &mut dyn Link,
    next_hop: &NextHop,
    template: &ip::Template,
    header: &[u8; segment::MIN_HEADER],
) -> Result<(), LinkError> {
    let mut headers = [0; ip::IPV6_HEADER + segment::MIN_HEADER];
    let start = template.write(header.len(), 0, ip::Fragmentation::Forbidden, &mut headers);
    let end = start + header.len();
    headers[start..end].copy_from_slice(header);
    let sum = ip::pseudo_header(template.source, template.destination, ip::TCP, header.len());
    let offload = link.offloads().checksum;
    let field = if offload { sum.partial() } else { sum.add(header).checksum() };
    headers[start + segment::CHECKSUM..start + segment::CHECKSUM + 2].copy_from_slice(&field.to_be_bytes());
    let packet = Outgoing {
        ethertype: template.ethertype(),
        headers: &headers[..end],
        payload: [&[], &[]],
        checksum: offload.then_some(ChecksumOffload { start, offset: segment::CHECKSUM }),
        segmentation: None,
    };
    match link.transmit(next_hop, &packet) {
        Err(error) if !error.is_transient() => Err(error),
        _ => Ok(()),
    }
}

/// The flows' timers, soonest first.
#[derive(Debug, Default)]
struct Deadlines {
    of: HashMap<FiveTuple, Duration>,
    order: BTreeSet<(Duration, FiveTuple)>,
}

impl Deadlines {
    fn set(&mut self, tuple: FiveTuple, deadline: Option<Duration>) {
        let old = match deadline {
            Some(at) => self.of.insert(tuple, at),
            None => self.of.remove(&tuple),
        };
        if old == deadline {
            return;
        }
        if let Some(at) = old {
            self.order.remove(&(at, tuple));
        }
        if let Some(at) = deadline {
            self.order.insert((at, tuple));
        }
    }

    fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out one flow whose time has come.
    fn due(&mut self, now: Duration) -> Option<FiveTuple> {
        let (at, tuple) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.of.remove(&tuple);
        Some(tuple)
    }
}
