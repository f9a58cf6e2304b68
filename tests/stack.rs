//! Two stacks over an in-memory link: the bytes that arrive are the bytes that were sent, whatever
//! the path does. The clock is the test's own and every run is seeded, so a failure repeats.
#[path = "support/settings.rs"]
mod settings;

use netkat::{
    host::metrics::Metrics,
    link::{
        Link, LinkHeader, NextHop, Received,
        memory::{Impairment, Medium, MemoryLink},
    },
    neighbour::Neighbour,
    net::{FiveTuple, MacAddr, Protocol},
    stack::{Admission, FlowFailure, FlowRoute, FrameResult, Listener, Path, Phase, Stack, ip},
};
use proptest::prelude::*;
use settings::settings;
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const INTERFACE: u32 = 1;
const PATH: Path = Path { mtu: 1500, max_frame: 65_000, max_segments: 64, ipv6_hop_limit: 64 };
/// Maximum time of a transfer on the test's clock.
const LIMIT: Duration = Duration::from_secs(3600);

/// One host: a stack, its end of the link, its remaining data and its received data.
struct Host {
    stack: Stack,
    link: MemoryLink,
    tuple: Option<FiveTuple>,
    /// Content of the programs' flow table: of other flows only SYNs pass.
    known: HashSet<FiveTuple>,
    to_send: Vec<u8>,
    arrived: Vec<u8>,
    closed: bool,
}

impl Host {
    fn new(link: MemoryLink, buffer: usize, to_send: Vec<u8>, seed: u64) -> Host {
        let mut state = seed;
        let seeds = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        };
        let stack = Stack::new(settings(buffer, buffer), seeds);
        Host { stack, link, tuple: None, known: HashSet::new(), to_send, arrived: Vec::new(), closed: false }
    }

    /// Takes one turn of the reactor. `chunk` bounds each read and write.
    fn turn(&mut self, now: Duration, chunk: usize) {
        while let Ok(Some(received)) = self.link.receive() {
            let packet = &received.frame[received.network..];
            if is_taken(&self.known, packet) || self.stack.expects_cookies(now).is_some() {
                take(&mut self.stack, now, received);
            }
        }
        self.tuple = self.tuple.or_else(|| self.stack.accept());
        if let Some(flow) = self.tuple.and_then(|t| self.stack.flow(&t)) {
            while flow.received() > 0 {
                let arrived = &mut self.arrived;
                let _ = flow.receive(chunk, |bytes| {
                    arrived.extend_from_slice(bytes);
                    Ok(bytes.len())
                });
            }
            if flow.was_established() {
                while flow.send_room() > 0 && !self.to_send.is_empty() {
                    let source = &mut self.to_send;
                    let _ = flow.send(chunk, |room| {
                        let len = room.len().min(source.len());
                        room[..len].copy_from_slice(&source[..len]);
                        source.drain(..len);
                        Ok(len)
                    });
                }
                if self.to_send.is_empty() && !self.closed {
                    flow.close();
                    self.closed = true;
                }
            }
        }
        loop {
            self.update_known();
            if !self.stack.egress(now, &mut self.link).expect("a memory link does not fail") {
                return;
            }
        }
    }

    /// Follows the stack as the flow table does.
    fn update_known(&mut self) {
        for tuple in self.stack.take_changed() {
            match self.stack.knows(&tuple) {
                true => self.known.insert(tuple),
                false => self.known.remove(&tuple),
            };
        }
    }

    fn phase(&self) -> Phase {
        self.tuple.and_then(|t| self.stack.peek(&t)).map_or(Phase::Opening, |flow| flow.phase())
    }

    fn failure(&self) -> Option<FlowFailure> {
        self.stack.peek(&self.tuple?)?.failure().cloned()
    }
}

/// Returns whether the programs pass a packet: of a flow in the table, or a SYN that opens one.
/// Shows the stack a frame, and keeps none of its data.
fn take(stack: &mut Stack, now: Duration, received: Received<'_>) {
    let Received { frame, .. } = received;
    if let FrameResult::Data(data) = stack.ingress(now, Received { frame: &mut *frame, ..received }) {
        drop(stack.received_data(now, &data, frame));
    }
}

fn is_taken(known: &HashSet<FiveTuple>, packet: &[u8]) -> bool {
    let Ok(header) = ip::parse(packet, false) else { return false };
    let segment = &packet[header.transport..];
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    let tuple = FiveTuple {
        protocol: Protocol::Tcp,
        local: SocketAddr::new(header.destination, port(2)),
        remote: SocketAddr::new(header.source, port(0)),
    };
    known.contains(&tuple) || segment[13] & 0b1_0111 == 0b10
}

fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
    let ip = |last: u8| -> IpAddr {
        match v6 {
            false => [10, 0, 0, last].into(),
            true => [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
        }
    };
    (SocketAddr::new(ip(1), 40_000), SocketAddr::new(ip(2), 80))
}

fn header(destination: u8, source: u8) -> LinkHeader {
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    LinkHeader::Ethernet { destination: mac(destination), source: mac(source) }
}

fn listener(admission: Admission) -> Listener {
    Listener {
        backlog: 128,
        half_open: 128,
        gate: Box::new(move |_| admission),
        paths: HashMap::from([(INTERFACE, PATH)]),
    }
}

/// A listener without room for handshakes answers by cookies, unnoticed by the peers.
#[test]
fn cookies_carry_what_records_would() {
    for v6 in [false, true] {
        let (there, back) = (payload(300_000, 5), payload(200_000, 6));
        let mut lab = Lab::new(v6, Impairment::default(), 7, 1 << 18, there.clone(), back.clone());
        lab.server.stack.listen(Listener { half_open: 0, ..listener(Admission::Accept) });
        lab.run(1 << 16, Lab::finished);
        assert_eq!((lab.client.failure(), lab.server.failure()), (None, None));
        assert!(lab.server.arrived == there && lab.client.arrived == back);
    }
}

struct Lab {
    medium: Medium,
    client: Host,
    server: Host,
}

impl Lab {
    fn new(v6: bool, impairment: Impairment, seed: u64, buffer: usize, there: Vec<u8>, back: Vec<u8>) -> Lab {
        let (medium, a, b) = Medium::new(impairment, seed);
        let mut client = Host::new(a, buffer, there, seed ^ 1);
        let server = Host::new(b, buffer, back, seed ^ 2);
        let (local, remote) = addresses(v6);
        let tuple = FiveTuple { protocol: Protocol::Tcp, local, remote };
        let next_hop = NextHop { interface: INTERFACE, header: header(2, 1) };
        client.stack.dial(
            medium.now(),
            tuple,
            FlowRoute { next_hop, neighbour: Neighbour::Fixed, path: PATH, metrics: Metrics::default() },
        );
        client.tuple = Some(tuple);
        Lab { medium, client, server }
    }

    /// Runs until `done`, or until the clock tells a hang. Returns the time passed.
    fn run(&mut self, chunk: usize, done: impl Fn(&Lab) -> bool) -> Duration {
        let start = self.medium.now();
        let mut idle_turns = 0;
        loop {
            let now = self.medium.now();
            self.client.turn(now, chunk);
            self.server.turn(now, chunk);
            if done(self) {
                return now - start;
            }
            assert!(now < start + LIMIT, "hung: {:?} {:?}", self.client.phase(), self.server.phase());
            let next = [self.medium.next_arrival(), self.client.stack.poll_at(), self.server.stack.poll_at()];
            let next = next.into_iter().flatten().min().expect("something is always due");
            // A timer that is due again and again without an effect would busy-loop.
            idle_turns = if next <= now { idle_turns + 1 } else { 0 };
            assert!(idle_turns < 1000, "spinning: {:?} {:?}", self.client.phase(), self.server.phase());
            self.medium.advance(next.max(now + Duration::from_micros(1)));
        }
    }

    fn finished(&self) -> bool {
        self.client.phase() == Phase::Closed && self.server.phase() == Phase::Closed
    }
}

fn payload(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn transfer(
    v6: bool,
    impairment: Impairment,
    seed: u64,
    buffer: usize,
    sizes: (usize, usize),
    chunk: usize,
) -> Duration {
    let (there, back) = (payload(sizes.0, seed), payload(sizes.1, !seed));
    let mut lab = Lab::new(v6, impairment, seed, buffer, there.clone(), back.clone());
    lab.server.stack.listen(listener(Admission::Accept));
    let time = lab.run(chunk, Lab::finished);
    assert_eq!((lab.client.failure(), lab.server.failure()), (None, None));
    assert!(
        lab.server.arrived == there,
        "{} of {} bytes arrived intact",
        lab.server.arrived.len(),
        there.len()
    );
    assert!(
        lab.client.arrived == back,
        "{} of {} bytes arrived intact",
        lab.client.arrived.len(),
        back.len()
    );
    time
}

#[test]
fn a_clean_path_carries_both_ways() {
    for v6 in [false, true] {
        let path = Impairment { delay: Duration::from_millis(1), ..Impairment::default() };
        transfer(v6, path, 7, 1 << 20, (3_000_000, 2_000_000), 1 << 16);
    }
}

#[test]
fn nothing_to_say_is_a_conversation_too() {
    let time = transfer(false, Impairment::default(), 3, 65_536, (0, 0), 1000);
    assert!(time < Duration::from_millis(1), "{time:?}");
}

#[test]
fn nobody_there_is_a_refusal() {
    let mut lab = Lab::new(false, Impairment::default(), 1, 65_536, vec![1], vec![]);
    lab.run(1000, |lab| lab.client.failure() == Some(FlowFailure::Refused));
}

#[test]
fn strangers_are_refused_or_ignored() {
    let mut lab = Lab::new(true, Impairment::default(), 1, 65_536, vec![1], vec![]);
    lab.server.stack.listen(listener(Admission::Refuse));
    lab.run(1000, |lab| lab.client.failure() == Some(FlowFailure::Refused));

    let mut lab = Lab::new(true, Impairment::default(), 1, 65_536, vec![1], vec![]);
    lab.server.stack.listen(listener(Admission::Ignore));
    lab.run(1000, |lab| lab.medium.now() > Duration::from_secs(10));
    assert_eq!((lab.client.failure(), lab.client.phase()), (None, Phase::Opening));
}

#[test]
fn a_reset_tells_the_other_side() {
    let mut lab = Lab::new(false, Impairment::default(), 1, 65_536, payload(500_000, 1), vec![]);
    lab.server.stack.listen(listener(Admission::Accept));
    lab.run(1000, |lab| lab.server.arrived.len() > 1000);
    let tuple = lab.server.tuple.expect("accepted");
    lab.server.stack.flow(&tuple).expect("open").abort();
    lab.run(1000, |lab| lab.client.failure() == Some(FlowFailure::Reset));
}

/// A connection is known from its first SYN until long after its end; an incomplete handshake is
/// forgotten.
#[test]
fn connections_are_known_for_as_long_as_they_must_be_answered() {
    let mut lab = Lab::new(false, Impairment::default(), 1, 65_536, vec![1], vec![2]);
    lab.server.stack.listen(listener(Admission::Accept));
    lab.run(1000, Lab::finished);
    let tuple = lab.server.tuple.expect("accepted");
    lab.server.stack.release(lab.medium.now(), &tuple);
    for seconds in [0, 1, 30, 3600] {
        lab.server.turn(lab.medium.now() + Duration::from_secs(seconds), 1000);
        assert!(lab.server.known.contains(&tuple), "after {seconds} s");
    }
    assert_eq!(lab.server.known.len(), 1);

    let mut lab = Lab::new(false, Impairment::default(), 1, 65_536, vec![1], vec![]);
    lab.server.stack.listen(listener(Admission::Accept));
    lab.client.turn(Duration::ZERO, 1000);
    for (seconds, known) in [(0, 1), (1, 1), (3, 1), (7, 1), (16, 0)] {
        // The second turn hears of the changes by the first one's end.
        lab.server.turn(Duration::from_secs(seconds), 1000);
        lab.server.turn(Duration::from_secs(seconds), 1000);
        assert_eq!(lab.server.known.len(), known, "after {seconds} s");
    }
}

/// A crowd sends without end to a listener with little memory: accepted clients are served fast,
/// waiting clients are offered 64 KiB, and clients without room wait until others have gone.
#[test]
fn a_crowd_shares_a_limit_and_all_are_served_in_the_end() {
    const CLIENTS: usize = 60;
    const MEMORY: u64 = 2 << 20;
    /// Memory of a connection at its arrival, in bytes.
    const EACH: u64 = 72 << 10;
    for v6 in [false, true] {
        let (medium, mut near, mut far) = Medium::new(Impairment::default(), 9);
        let mut seeds = (1u64..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut client = Stack::new(settings(1 << 20, 1 << 20), move || seeds.next().unwrap_or(0));
        let mut seeds = (1u64..).map(|n| n.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        let mut server = Stack::new(settings(1 << 20, 1 << 20), move || seeds.next().unwrap_or(0));
        server.limit_memory(MEMORY);
        server.listen(listener(Admission::Accept));
        let (local, remote) = addresses(v6);
        let tuples: Vec<_> = (0..CLIENTS as u16)
            .map(|n| FiveTuple {
                protocol: Protocol::Tcp,
                local: SocketAddr::new(local.ip(), local.port() + n),
                remote,
            })
            .collect();
        for tuple in &tuples {
            let next_hop = NextHop { interface: INTERFACE, header: header(2, 1) };
            client.dial(
                medium.now(),
                *tuple,
                FlowRoute { next_hop, neighbour: Neighbour::Fixed, path: PATH, metrics: Metrics::default() },
            );
        }
        let mut turn = |client: &mut Stack, server: &mut Stack| {
            let now = medium.now();
            for (stack, link) in [(&mut *client, &mut near), (&mut *server, &mut far)] {
                while let Ok(Some(received)) = link.receive() {
                    take(stack, now, received);
                }
                while stack.egress(now, link).expect("a memory link does not fail") {}
            }
            for tuple in &tuples {
                let flow = client.flow(tuple).expect("dialled");
                while flow.phase() == Phase::Open && flow.send_room() > 0 {
                    let _ = flow.send(usize::MAX, |room| {
                        room.fill(7);
                        Ok(room.len())
                    });
                }
            }
            assert!(server.memory() < MEMORY + 2 * EACH, "{}", server.memory());
            medium.advance(now + Duration::from_millis(1));
        };
        let read = |server: &mut Stack, tuple: &FiveTuple| {
            let flow = server.flow(tuple).expect("accepted");
            let mut len = 0;
            while flow.received() > 0 {
                len += flow.receive(usize::MAX, |bytes| Ok(bytes.len())).unwrap_or(0);
            }
            len
        };
        for _ in 0..2000 {
            turn(&mut client, &mut server);
        }
        let theirs = |tuple: &FiveTuple| FiveTuple { local: tuple.remote, remote: tuple.local, ..*tuple };
        let waiting = tuples.iter().filter(|tuple| server.peek(&theirs(tuple)).is_some()).count();
        assert!((20..=1 + (MEMORY / EACH) as usize).contains(&waiting), "{waiting}");
        let served = server.accept().expect("they are there");
        let offered = read(&mut server, &served);
        assert!((64_000..=65_535).contains(&offered), "whole segments of what was offered: {offered}");
        let mut got = 0;
        for _ in 0..1000 {
            turn(&mut client, &mut server);
            got += read(&mut server, &served);
        }
        assert!(got > 400 * (32 << 10), "the smallest window, in each round trip: {got}");
        server.remove(&served);
        let mut all = 1;
        for _ in 0..60_000 {
            turn(&mut client, &mut server);
            if let Some(tuple) = server.accept() {
                assert!(server.peek(&tuple).is_some_and(|flow| flow.received() <= 65_535));
                server.remove(&tuple);
                all += 1;
            }
        }
        assert_eq!((all, server.memory()), (CLIENTS, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_path_that_delivers_delivers_every_byte(
        v6: bool,
        seed in 1u64..,
        loss in 0u16..150,
        duplication in 0u16..50,
        reordering in 0u16..200,
        corruption in 0u16..20,
        delay in 0u64..30,
        sizes in (0usize..300_000, 0usize..300_000),
        chunk in 1usize..70_000,
    ) {
        let delay = Duration::from_millis(delay);
        let path = Impairment { loss, duplication, reordering, corruption, delay };
        transfer(v6, path, seed, 128 << 10, sizes, chunk.max(64));
    }
}
