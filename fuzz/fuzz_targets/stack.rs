//! Runs the stack and its recovery layer, from the frame on the link to the application's reads,
//! against an arbitrary peer and a clock that jumps. Nothing may panic or spin, and the sniffer
//! must find no fault with any frame sent.
#![no_main]

#[path = "../../tests/common/script.rs"]
#[allow(dead_code)]
mod script;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use netkat::{
    host::metrics::Metrics,
    link::{
        ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Link, LinkHeader, NextHop, Outgoing, Received,
        memory::{Impairment, Medium, MemoryLink},
    },
    neighbour::{LocalAddress, Neighbour},
    net::{FiveTuple, MacAddr, Protocol, checksum::Sum},
    recovery::Algorithm,
    sniffer::{
        CapturedFrame, FrameDirection, LinkType,
        decode::{Ip, Network, Tcp, Transport, decode},
    },
    stack::{
        Admission, Audience, DatagramService, FlowRoute, FrameResult, Listener, Path, ReturnRoute, Settings,
        Stack,
        ip::{self, Fragmentation, Template},
    },
};

/// Not lo, on which the stack answers every source.
const INTERFACE: u32 = 2;
const PATH: Path = Path { mtu: 1500, max_frame: 65_000, max_segments: 64, ipv6_hop_limit: 64 };
const PORT: u16 = 80;
/// Maximum turns without progress of the clock; more count as spinning.
const SPIN: usize = 2_000;

struct World {
    stack: Stack,
    medium: Medium,
    link: MemoryLink,
    peer: MemoryLink,
    local: IpAddr,
    remote: IpAddr,
    dialed: FiveTuple,
    /// The stack's last segment, from which the peer derives invalid ones.
    last: Option<(Tcp, Vec<u8>)>,
    accepted: Vec<FiveTuple>,
    /// Quarters of the arriving data that the application reads at once.
    appetite: usize,
}

impl World {
    fn new(u: &mut Unstructured<'_>) -> Result<World> {
        let (medium, link, peer) = Medium::new(Impairment::default(), 1);
        let v6: bool = u.arbitrary()?;
        let ip = |last: u8| -> IpAddr {
            if v6 { [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into() } else { [10, 0, 0, last].into() }
        };
        let (local, remote) = (ip(1), ip(2));
        let settings = Settings {
            mss: u.arbitrary::<Option<u16>>()?.map(|mss| usize::from(mss.clamp(88, 9_000))),
            send_buffer: u.int_in_range(1_000..=100_000)?,
            receive_buffer: u.int_in_range(1_000..=100_000)?,
            hop_limit: None,
            default_ttl: 64,
            traffic_class: 0,
            congestion: Some(*u.choose(&Algorithm::ALL)?),
            default_congestion: Algorithm::Cubic,
            user_timeout: Some(Duration::from_secs(300)),
            keep_alive: u.arbitrary::<bool>()?.then_some(Duration::from_secs(10)),
        };
        let mut seed = 7u64;
        let mut stack = Stack::new(settings, move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        });
        stack.require_return_routes();
        stack.listen(Listener {
            backlog: 4,
            half_open: u.int_in_range(0..=4)?,
            gate: Box::new(|_| Admission::Accept),
            paths: HashMap::from([(INTERFACE, PATH)]),
        });
        if u.arbitrary()? {
            stack.impersonate(LocalAddress {
                address: local,
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                interface: INTERFACE,
            });
        }
        let tuple = |protocol| FiveTuple {
            protocol,
            local: SocketAddr::new(local, 40_000),
            remote: SocketAddr::new(remote, PORT),
        };
        let route = FlowRoute {
            next_hop: hop(2, 1),
            neighbour: Neighbour::Fixed,
            path: PATH,
            metrics: Metrics::default(),
        };
        if u.arbitrary()? {
            stack.datagrams.dial(tuple(Protocol::Udp), route);
        } else {
            let paths = HashMap::from([(INTERFACE, PATH)]);
            let gate = Box::new(|_| Admission::Accept);
            stack.datagrams.serve(DatagramService { audience: Audience::All, gate, paths });
        }
        let dialed = tuple(Protocol::Tcp);
        stack.dial(medium.now(), dialed, route);
        let mut world = World {
            stack,
            medium,
            link,
            peer,
            local,
            remote,
            dialed,
            last: None,
            accepted: Vec::new(),
            appetite: 0,
        };
        world.turn();
        if u.ratio(3, 4)? {
            world.answer_the_syn();
        }
        Ok(world)
    }

    /// Answers with an ordinary SYN-ACK, so most inputs pass the handshake.
    fn answer_the_syn(&mut self) {
        let Some((syn, _)) = self.last.clone() else { return };
        let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
        let sequence = syn.sequence.wrapping_add(1);
        let segment = script::segment(
            5_000,
            sequence,
            script::SYN | script::ACK,
            60_000,
            &options,
            &[],
            (PORT, syn.source),
        );
        self.inject(ip::TCP, segment, 16);
        self.turn();
    }

    /// Processes arrived frames and due timers, as the event loop does.
    fn turn(&mut self) {
        let now = self.medium.now();
        while let Ok(Some(received)) = self.link.receive() {
            let appetite = self.appetite;
            let reply = NextHop { interface: INTERFACE, ..received.reply };
            let Received { frame, .. } = received;
            let first = Received { reply, frame: &mut *frame, ..received };
            let mut taken = self.stack.ingress(now, first);
            if let FrameResult::Unverified(unverified) = taken {
                let route = ReturnRoute {
                    next_hop: None,
                    neighbour: Neighbour::Sender(None),
                    source: None,
                    metrics: Metrics::default(),
                };
                self.stack.learn_return_route(unverified, Some(route));
                let second = Received { reply, frame: &mut *frame, ..received };
                taken = self.stack.ingress(now, second);
                assert!(!matches!(taken, FrameResult::Unverified(_)), "what is answered is not asked again");
            }
            if let FrameResult::Data(data) = taken
                && let Some(mut data) = self.stack.received_data(now, &data, frame)
            {
                let eats = |bytes: &[u8]| Ok(bytes.len() * appetite / 4);
                while data.receive(usize::MAX, eats).is_ok_and(|taken| taken > 0) {}
            }
        }
        self.accepted.extend(std::iter::from_fn(|| self.stack.accept()));
        // The stack's user removes failed flows.
        for tuple in self.accepted.iter().chain([&self.dialed]) {
            if self.stack.peek(tuple).is_some_and(|flow| flow.failure().is_some()) {
                self.stack.remove(tuple);
            }
        }
        let mut turns = 0;
        while self.stack.egress(now, &mut self.link).expect("a memory link does not fail") {
            turns += 1;
            assert!(turns < SPIN, "it never stops sending: {:?} {:?}", self.last, self.states());
        }
        while let Ok(Some(received)) = self.peer.receive() {
            let frame = CapturedFrame::new(now, FrameDirection::Outbound, LinkType::Ethernet, received.frame);
            let decoded = decode(&frame);
            assert!(decoded.problem.is_none(), "{decoded:?}");
            if let Network::Ip(Ip { transport: Transport::Tcp(tcp), .. }) = decoded.network {
                self.last = Some((tcp, received.frame[received.network..].to_vec()));
            }
        }
    }

    /// Returns the flows' states for a failure's message.
    fn states(&self) -> Vec<String> {
        let flows = self.accepted.iter().chain([&self.dialed]).filter_map(|tuple| self.stack.peek(tuple));
        flows.map(|flow| format!("{:?} {:?} {:?}", flow.phase(), flow.failure(), flow.recovery())).collect()
    }

    /// Lets `time` pass, in steps of the stack's timers.
    fn wait(&mut self, time: Duration) {
        let end = self.medium.now() + time;
        let mut turns = 0;
        while let Some(at) = self.stack.poll_at().filter(|at| *at <= end) {
            turns = if at > self.medium.now() { 0 } else { turns + 1 };
            assert!(turns < SPIN, "it spins: {:?}", self.states());
            self.medium.advance(at.max(self.medium.now() + Duration::from_micros(1)));
            self.turn();
            if self.medium.now() > end {
                break;
            }
        }
        self.medium.advance(end);
        self.turn();
    }

    /// Sends the stack a packet from the peer, with a correct transport checksum at `at`.
    fn inject(&mut self, protocol: u8, mut transport: Vec<u8>, at: usize) {
        if let Some(field) = transport.get_mut(at..at + 2) {
            field.fill(0);
            let sum = match (protocol, self.local) {
                (ip::ICMP, _) => Sum::default(),
                _ => ip::pseudo_header(self.remote, self.local, protocol, transport.len()),
            };
            let checksum = sum.add(&transport).checksum();
            transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        self.send(protocol, &transport, Fragmentation::Forbidden);
    }

    fn send(&mut self, protocol: u8, transport: &[u8], fragmentation: Fragmentation) {
        let template = Template {
            source: self.remote,
            destination: self.local,
            protocol,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut headers = [0; 64];
        let length = template.write(transport.len(), 1, fragmentation, &mut headers);
        self.transmit(template.ethertype(), &headers[..length], transport);
    }

    fn transmit(&mut self, ethertype: u16, headers: &[u8], payload: &[u8]) {
        let packet =
            Outgoing { ethertype, headers, payload: [payload, &[]], checksum: None, segmentation: None };
        self.peer.transmit(&hop(1, 2), &packet).expect("a memory link does not fail");
    }

    /// Applies one random event.
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=13)? {
            0 => {
                let ethertype = *u.choose(&[ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP])?;
                let length = u.int_in_range(0..=200)?;
                let bytes = u.bytes(length)?.to_vec();
                self.transmit(ethertype, &bytes, &[]);
            }
            1..=4 => self.segment(u)?,
            5 => {
                let ports: [u16; 2] = *u.choose(&[[PORT, 40_000], [5_000, 40_000]])?;
                let payload = vec![7; u.int_in_range(0..=3_000)?];
                let mut datagram = Vec::new();
                datagram.extend(ports[0].to_be_bytes());
                datagram.extend(ports[1].to_be_bytes());
                let slack = u.int_in_range(-9i32..=9)? * i32::from(u.ratio(1, 8)?);
                datagram.extend((payload.len() as i32 + 8 + slack).max(0).to_be_bytes()[2..].iter());
                datagram.extend([0, 0]);
                datagram.extend(payload);
                self.inject(ip::UDP, datagram, 6);
            }
            6 => {
                let Some((_, quoted)) = self.last.clone() else { return Ok(()) };
                let cut = u.int_in_range(0..=quoted.len().min(100))?;
                let mut message = u.arbitrary::<[u8; 8]>()?.to_vec();
                message.extend(&quoted[..cut]);
                let protocol = if self.local.is_ipv4() { ip::ICMP } else { ip::ICMPV6 };
                self.inject(protocol, message, 2);
            }
            7 => {
                let protocol = *u.choose(&[ip::TCP, ip::UDP, ip::ICMP, ip::ICMPV6])?;
                let offset = u.int_in_range(0..=8_191u16)? * 8;
                let length = u.int_in_range(0..=200)?;
                let piece = u.bytes(length)?.to_vec();
                let fragment = ip::Fragment { id: u.int_in_range(0..=3)?, offset, more: u.arbitrary()? };
                self.send(protocol, &piece, Fragmentation::Fragment(fragment));
            }
            8 => {
                let longest = *u.choose(&[2_000u64, 400_000, 20_000_000, 400_000_000])?;
                let micros = u.int_in_range(0..=longest)?;
                self.wait(Duration::from_micros(micros));
            }
            9 => {
                let tuple = self.some_flow(u)?;
                let amount = u.int_in_range(1..=50_000)?;
                if let Some(flow) = self.stack.flow(&tuple) {
                    let _ = flow.send(amount, |room| {
                        room.fill(0x55);
                        Ok(room.len())
                    });
                }
            }
            10 => {
                let tuple = self.some_flow(u)?;
                let amount = u.int_in_range(1..=50_000)?;
                self.appetite = u.int_in_range(0..=4)?;
                if let Some(flow) = self.stack.flow(&tuple) {
                    let _ = flow.receive(amount, |bytes| Ok(bytes.len()));
                }
                while self.stack.datagrams.front().is_some() {
                    self.stack.datagrams.pop();
                }
                let _ = self.stack.datagrams.take_error();
            }
            11 => {
                let length = u.int_in_range(0..=4_000usize)?;
                let size = u.int_in_range(1..=1_400usize)?;
                if self.stack.datagrams.peer().is_some() {
                    let _ = self.stack.datagrams.send(&mut self.link, &vec![1; length], size);
                }
            }
            12 => {
                let tuple = self.some_flow(u)?;
                let now = self.medium.now();
                match u.int_in_range(0..=3)? {
                    0 => drop(self.stack.flow(&tuple).map(|flow| flow.close())),
                    1 => drop(self.stack.flow(&tuple).map(|flow| flow.abort())),
                    2 => self.stack.release(now, &tuple),
                    _ => drop(self.stack.remove(&tuple)),
                }
            }
            _ => self.stranger(u)?,
        }
        self.turn();
        Ok(())
    }

    fn some_flow(&self, u: &mut Unstructured<'_>) -> Result<FiveTuple> {
        if self.accepted.is_empty() || u.arbitrary()? {
            Ok(self.dialed)
        } else {
            u.choose(&self.accepted).copied()
        }
    }

    /// Sends a segment with fields close to those that the stack's last segment makes valid.
    fn segment(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some((last, _)) = self.last.clone() else { return Ok(()) };
        let near = |u: &mut Unstructured<'_>| -> Result<u32> {
            Ok(match u.int_in_range(0..=3)? {
                0 | 1 => 0,
                2 => u.int_in_range(-3_000i32..=3_000)? as u32,
                _ => u.arbitrary()?,
            })
        };
        let end = last.sequence.wrapping_add(last.length as u32).wrapping_add(u32::from(last.flags & 3 != 0));
        let sequence = last.acknowledgement.wrapping_add(near(u)?);
        let acknowledgement = end.wrapping_add(near(u)?);
        let flags = if u.ratio(3, 4)? { script::ACK } else { u.arbitrary()? };
        let mut options = Vec::new();
        match u.int_in_range(0..=4)? {
            0 => {
                let length = u.int_in_range(0..=40)?;
                options.extend(u.bytes(length)?);
            }
            1 => {
                options.extend([1, 1, 5, 10]);
                options.extend(end.wrapping_add(near(u)?).to_be_bytes());
                options.extend(end.wrapping_add(near(u)?).to_be_bytes());
            }
            _ => {
                let echo = last.options.timestamps.map_or(0, |(value, _)| value);
                options.extend([1, 1, 8, 10]);
                options.extend((9 + self.medium.now().as_millis() as u32).to_be_bytes());
                options.extend(echo.wrapping_add(near(u)?).to_be_bytes());
            }
        }
        let longest = *u.choose(&[2_000, 2_000, 2_000, 40_000])?;
        let payload = vec![0xaa; u.int_in_range(0..=longest)?];
        let ports = (last.destination, last.source);
        let segment =
            script::segment(sequence, acknowledgement, flags, u.arbitrary()?, &options, &payload, ports);
        self.inject(ip::TCP, segment, 16);
        Ok(())
    }

    /// Sends a segment of no connection, or a SYN.
    fn stranger(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let flags = if u.ratio(3, 4)? { script::SYN } else { u.arbitrary()? };
        let ports = (u.int_in_range(1_000..=1_007)?, PORT);
        let length = u.int_in_range(0..=40)?;
        let options = u.bytes(length)?.to_vec();
        let segment = script::segment(u.arbitrary()?, u.arbitrary()?, flags, 60_000, &options, &[], ports);
        self.inject(ip::TCP, segment, 16);
        Ok(())
    }
}

fn hop(destination: u8, source: u8) -> NextHop {
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    NextHop {
        interface: INTERFACE,
        header: LinkHeader::Ethernet { destination: mac(destination), source: mac(source) },
    }
}

fuzz_target!(|input: &[u8]| {
    let mut u = Unstructured::new(input);
    let Ok(mut world) = World::new(&mut u) else { return };
    while !u.is_empty() {
        if world.step(&mut u).is_err() {
            break;
        }
    }
    world.wait(Duration::from_secs(1_000));
});
