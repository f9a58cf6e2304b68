//! The power of a hostile peer, or of an attacker who forges a peer's packets, over a flow: at most
//! to end its own. The test is the other host and holds the clock.
#[path = "support/recording_link.rs"]
mod recording_link;
#[path = "support/settings.rs"]
mod settings;

use netkat::{
    host::metrics::Metrics,
    link::{ETHERTYPE_IPV4, Received},
    neighbour::Neighbour,
    net::{FiveTuple, Protocol},
    stack::{Admission, FlowFailure, FlowRoute, FrameResult, Listener, Phase, Stack},
};
use proptest::prelude::*;
use recording_link::{PATH, RecordingLink, Sent, next_hop, received, seeds};
use settings::settings;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const US: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
const WINDOW: u32 = 65_535;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// The sequence number before the peer's first byte.
const PEER_ISS: u32 = 0xffff_f000;

fn tuple() -> FiveTuple {
    let at = |ip: [u8; 4], port| SocketAddr::new(IpAddr::from(ip), port);
    FiveTuple { protocol: Protocol::Tcp, local: at(US, 80), remote: at(PEER, 4000) }
}

/// Returns an IPv4 packet from the peer, or from `source`.
fn packet(source: [u8; 4], protocol: u8, body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    ip.extend(source);
    ip.extend(US);
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    ip.extend(body);
    ip
}

fn tcp(
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    window: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4).min(40), 0);
    let mut tcp = [4000u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgment.to_be_bytes());
    tcp.extend([(5 + options.len() as u8 / 4) << 4, flags]);
    tcp.extend(window.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(options);
    tcp.extend(payload);
    tcp
}

/// Returns a router's ICMP error about a segment of ours that began with `sequence`.
fn icmp(kind: u8, code: u8, rest: u32, sequence: u32) -> Vec<u8> {
    let mut quoted = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    quoted.extend(US);
    quoted.extend(PEER);
    quoted.extend([80u16.to_be_bytes(), 4000u16.to_be_bytes()].concat());
    quoted.extend(sequence.to_be_bytes());
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend(rest.to_be_bytes());
    icmp.extend(quoted);
    let sum: u32 = icmp.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    icmp
}

/// A stack under attack.
struct Target {
    stack: Stack,
    wire: RecordingLink,
    now: Duration,
    arrived: Vec<u8>,
    /// Bytes of a frame's data that the user reads in place; `None` for a user who never reads.
    appetite: Option<usize>,
    /// Our next sequence number, and the peer's.
    ours: u32,
    theirs: u32,
}

impl Target {
    fn new() -> Target {
        let stack = Stack::new(settings(1 << 20, WINDOW as usize), seeds());
        let now = Duration::from_secs(1);
        let (wire, arrived, theirs) = (RecordingLink::default(), Vec::new(), PEER_ISS + 1);
        Target { stack, wire, now, arrived, appetite: Some(0), ours: 0, theirs }
    }

    fn listening() -> Target {
        let mut target = Target::new();
        target.stack.listen(Listener {
            backlog: 16,
            half_open: 16,
            gate: Box::new(|_| Admission::Accept),
            paths: HashMap::from([(1, PATH)]),
        });
        target
    }

    /// Connects as the peer with these options in its SYN, if they are valid.
    fn connected(options: &[u8]) -> Target {
        let mut target = Target::listening();
        target.peer(PEER_ISS, 0, SYN, 0xffff, options, &[]);
        let answer = target.sent().into_iter().find(|sent| sent.flags & (SYN | ACK) == SYN | ACK);
        target.ours = answer.expect("a SYN-ACK").sequence.wrapping_add(1);
        target.send(b"");
        assert_eq!(target.stack.accept(), Some(tuple()));
        target
    }

    fn deliver(&mut self, packet: Vec<u8>) {
        let mut frame = vec![0; 14];
        frame.extend(packet);
        let received = received(next_hop(1, 2), &mut frame, 14, ETHERTYPE_IPV4);
        let Received { frame, .. } = received;
        let shown = Received { frame: &mut *frame, ..received };
        let FrameResult::Data(data) = self.stack.ingress(self.now, shown) else { return };
        let Some(appetite) = self.appetite else { return };
        let mut data = self.stack.received_data(self.now, &data, frame).expect("it is the flow's");
        assert_eq!(*data.tuple(), tuple());
        let mut left = appetite;
        while left > 0 {
            let taken = data.receive(left, |bytes| {
                self.arrived.extend_from_slice(bytes);
                Ok(bytes.len())
            });
            match taken.expect("a test takes everything") {
                0 => break,
                taken => left -= taken,
            }
        }
    }

    fn peer(&mut self, sequence: u32, ack: u32, flags: u8, window: u16, options: &[u8], payload: &[u8]) {
        self.deliver(packet(PEER, 6, &tcp(sequence, ack, flags, window, options, payload)));
    }

    /// Returns the true peer's next bytes.
    fn send(&mut self, payload: &[u8]) {
        self.peer(self.theirs, self.ours, ACK, 0xffff, &[], payload);
        self.theirs = self.theirs.wrapping_add(payload.len() as u32);
    }

    /// Takes the arrived segments. Returns the segments sent now.
    fn sent(&mut self) -> Vec<Sent> {
        if let Some(flow) = self.stack.flow(&tuple()) {
            while flow.received() > 0 {
                let arrived = &mut self.arrived;
                let taken = flow.receive(1 << 16, |bytes| {
                    arrived.extend_from_slice(bytes);
                    Ok(bytes.len())
                });
                taken.expect("a test takes everything");
            }
        }
        while self.stack.egress(self.now, &mut self.wire).expect("the wire does not fail") {}
        std::mem::take(&mut self.wire.0)
    }

    fn write(&mut self, count: usize) {
        let flow = self.stack.flow(&tuple()).expect("a flow");
        // One byte more of room, so that the frame waits for no more.
        flow.send(count + 1, |room| {
            let length = room.len().min(count);
            room[..length].fill(b'x');
            Ok(length)
        })
        .expect("room");
    }

    /// Runs the clock up to `until`. Returns the segments sent meanwhile.
    fn run(&mut self, until: Duration) -> Vec<Sent> {
        let mut all = self.sent();
        let mut turns = 0;
        while let Some(at) = self.stack.poll_at().filter(|at| *at <= until) {
            turns = if at <= self.now { turns + 1 } else { 0 };
            assert!(turns < 100, "spinning at {:?}", self.now);
            self.now = at.max(self.now);
            all.extend(self.sent());
        }
        self.now = until;
        all.extend(self.sent());
        all
    }

    fn failure(&self) -> Option<FlowFailure> {
        self.stack.peek(&tuple()).and_then(|flow| flow.failure().cloned())
    }

    fn is_open(&self) -> bool {
        self.stack.peek(&tuple()).is_some_and(|flow| flow.phase() == Phase::Open && flow.failure().is_none())
    }

    /// Checks that the true peer is still heard, and hears.
    fn still_works(&mut self) {
        let before = self.arrived.len();
        self.send(b"still here");
        self.sent();
        assert_eq!(self.arrived[before..], *b"still here");
        self.write(10);
        let sent = self.sent();
        assert!(sent.iter().any(|sent| sent.payload == 10), "{sent:?}");
        self.ours = self.ours.wrapping_add(10);
        self.send(b"");
        self.sent();
        assert!(self.is_open());
    }
}

/// Reads data in place as the user, after the waiting data. The rest is kept; unread data counts as
/// lost.
#[test]
fn data_left_in_its_frame_is_neither_lost_nor_doubled() {
    let stream: Vec<u8> = (0..70_000u32).map(|n| (n % 251) as u8).collect();
    for appetite in [0, 7, 100, 5_000, 20_000, usize::MAX] {
        let mut target = Target::connected(&[]);
        target.appetite = Some(appetite);
        for (from, to) in [(0, 100), (100, 20_100), (20_100, 45_000), (45_000, 70_000)] {
            target.send(&stream[from..to]);
            let flow = target.stack.peek(&tuple()).expect("a flow");
            assert_eq!(target.arrived.len() + flow.received(), to, "{appetite}");
            assert_eq!(flow.counters().bytes_received, target.arrived.len() as u64, "{appetite}");
            let acks: Vec<_> = target.sent().iter().map(|sent| sent.acknowledgment).collect();
            assert_eq!(acks.last(), Some(&target.theirs), "{appetite}");
        }
        assert!(target.arrived == stream, "{appetite}");
    }
    let mut target = Target::connected(&[]);
    target.appetite = None;
    target.send(&stream[..20_000]);
    target.send(&stream[20_000..20_100]);
    assert!(target.sent().iter().all(|sent| sent.acknowledgment == PEER_ISS + 1), "it was lost");
    (target.theirs, target.appetite) = (PEER_ISS + 1, Some(0));
    target.send(&stream[..20_000]);
    target.theirs = (PEER_ISS + 1).wrapping_add(20_100);
    assert_eq!(target.sent().last().map(|sent| sent.acknowledgment), Some(target.theirs));
    assert!(target.arrived == stream[..20_100]);
}

#[test]
fn a_reset_or_a_syn_outside_of_the_window_is_ignored() {
    for flags in [RST, RST | ACK, SYN, SYN | ACK] {
        let mut target = Target::connected(&[]);
        for offset in [u32::MAX, WINDOW + 1, WINDOW + 100_000, 1 << 31, u32::MAX - WINDOW] {
            target.peer(target.theirs.wrapping_add(offset), target.ours, flags, 0xffff, &[], &[]);
            target.sent();
            assert!(target.is_open(), "flags {flags:#x} at offset {offset:#x}");
        }
        target.still_works();
    }
}

/// RFC 5961, section 3.2: only the exact number resets, so guessing the window is not enough.
#[test]
fn a_reset_within_the_window_must_have_the_exact_number() {
    let mut target = Target::connected(&[]);
    for offset in [1, 1000, WINDOW / 2, WINDOW - 1] {
        target.peer(target.theirs.wrapping_add(offset), target.ours, RST, 0, &[], &[]);
        target.sent();
        assert!(target.is_open(), "offset {offset}");
    }
    target.still_works();
    target.peer(target.theirs, target.ours, RST, 0, &[], &[]);
    target.sent();
    assert_eq!(target.failure(), Some(FlowFailure::Reset));
}

/// RFC 5961, section 4.2: a SYN on an open connection draws a challenge ACK.
#[test]
fn a_syn_within_the_window_does_not_end_the_connection() {
    let mut target = Target::connected(&[]);
    for offset in [0, 1, 1000] {
        target.peer(target.theirs.wrapping_add(offset), target.ours, SYN, 0xffff, &[], &[]);
        target.sent();
        assert!(target.is_open(), "offset {offset}");
    }
    target.still_works();
}

#[test]
fn data_outside_of_the_window_is_not_taken() {
    let mut target = Target::connected(&[]);
    target.send(b"before");
    for offset in [0u32.wrapping_sub(6), 0u32.wrapping_sub(3), WINDOW + 1, 1 << 30, 1 << 31, 3 << 30] {
        target.peer(target.theirs.wrapping_add(offset), target.ours, ACK, 0xffff, &[], b"bad");
    }
    let sent = target.sent();
    assert_eq!(target.arrived, b"before");
    assert!(sent.iter().all(|sent| sent.acknowledgment == target.theirs), "{sent:?}");
    target.still_works();
}

/// RFC 5961, section 5.2: an attacker who guesses the sequence number must guess the
/// acknowledgment, too.
#[test]
fn data_with_an_impossible_acknowledgment_is_not_taken() {
    let mut target = Target::connected(&[]);
    for acknowledgment in [1, 1000, 1 << 30, 1 << 31, 3 << 30, 0u32.wrapping_sub(1 << 20)] {
        target.peer(target.theirs, target.ours.wrapping_add(acknowledgment), ACK, 0xffff, &[], b"bad");
        target.sent();
        assert_eq!(target.arrived, b"", "acknowledgment {acknowledgment:#x} beyond ours");
    }
    target.still_works();
}

#[test]
fn icmp_errors_that_quote_what_is_not_in_flight_are_ignored() {
    for (kind, code, rest) in
        [(3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 13, 0), (3, 4, 600), (11, 0, 0), (12, 0, 0)]
    {
        let mut target = Target::new();
        target.stack.dial(
            target.now,
            tuple(),
            FlowRoute {
                next_hop: next_hop(1, 2),
                neighbour: Neighbour::Fixed,
                path: PATH,
                metrics: Metrics::default(),
            },
        );
        let syn = target.sent()[0];
        for offset in [u32::MAX, 1, 2, 1000, 1 << 31] {
            target.deliver(packet(
                [10, 0, 0, 99],
                1,
                &icmp(kind, code, rest, syn.sequence.wrapping_add(offset)),
            ));
            target.sent();
            assert_eq!(target.failure(), None, "ICMP {kind}/{code}, sequence number off by {offset:#x}");
        }
        if (kind, code) == (3, 3) {
            target.deliver(packet([10, 0, 0, 99], 1, &icmp(kind, code, rest, syn.sequence)));
            target.sent();
            assert!(target.failure().is_some(), "the true one counts");
        }
    }
}

/// An established connection survives a forged error whose number is in flight, as Linux's do.
#[test]
fn icmp_errors_do_not_end_what_is_established() {
    let mut target = Target::connected(&[]);
    target.write(100);
    let data = target.sent()[0];
    for code in [0, 1, 2, 3, 13] {
        target.deliver(packet([10, 0, 0, 99], 1, &icmp(3, code, 0, data.sequence)));
        target.sent();
        assert!(target.is_open(), "code {code}");
    }
    target.ours = target.ours.wrapping_add(100);
    target.send(b"");
    target.still_works();
}

#[test]
fn a_window_of_zero_for_ten_minutes_costs_a_probe_now_and_then() {
    let mut target = Target::connected(&[]);
    target.peer(target.theirs, target.ours, ACK, 0, &[], &[]);
    target.write(100_000);
    let start = target.now;
    for minute in 1..=10 {
        let probes = target.run(start + Duration::from_secs(60) * minute);
        assert!(probes.len() < 60, "{} probes in minute {minute}", probes.len());
        assert!(target.is_open());
        target.peer(target.theirs, target.ours, ACK, 0, &[], &[]);
    }
    target.peer(target.theirs, target.ours, ACK, 0xffff, &[], &[]);
    let until = target.now + Duration::from_secs(2);
    let sent: usize = target.run(until).iter().map(|sent| sent.payload).sum();
    assert!(sent > 0, "the window has opened");
}

#[test]
fn a_peer_that_sends_single_bytes_with_holes_between_them_is_served_all_the_same() {
    let mut target = Target::connected(&[]);
    let start = target.theirs;
    for offset in (1..60_000).step_by(2) {
        target.peer(start.wrapping_add(offset), target.ours, ACK, 0xffff, &[], b"b");
        if offset % 999 == 0 {
            target.sent();
        }
    }
    for _ in 0..60_000 {
        target.send(b"b");
    }
    target.sent();
    assert_eq!(target.arrived, vec![b'b'; 60_000]);
    target.still_works();
}

/// A hundred thousand forged SYNs keep no client out, and their memory is bounded.
#[test]
fn a_flood_of_syns_keeps_nobody_out() {
    let mut target = Target::listening();
    let mut answers = 0;
    for number in 0..100_000u32 {
        let [_, a, b, c] = number.to_be_bytes();
        target.deliver(packet([11, a, b, c], 6, &tcp(number, 0, SYN, 0xffff, &[], &[])));
        if number % 64 == 0 {
            answers += target.sent().len();
        }
    }
    assert!(answers > 1000, "{answers} were answered");
    assert_eq!(target.stack.accept(), None, "nobody has completed a handshake");
    target.peer(PEER_ISS, 0, SYN, 0xffff, &[], &[]);
    let answer = target.sent().into_iter().find(|sent| sent.acknowledgment == PEER_ISS + 1);
    target.ours = answer.expect("a SYN-ACK").sequence.wrapping_add(1);
    target.send(b"");
    assert_eq!(target.stack.accept(), Some(tuple()));
    target.still_works();
}

/// ACKs without a cookie of ours make no connection.
#[test]
fn guessed_cookies_open_nothing() {
    let mut target = Target::listening();
    for guess in 0..200_000u32 {
        target.peer(PEER_ISS + 1, guess.wrapping_mul(0x9e37_79b9), ACK, 0xffff, &[], b"data");
        if guess % 64 == 0 {
            target.sent();
        }
    }
    assert_eq!(target.stack.accept(), None);
}

/// While cookies are out, segments of others' connections arrive as well and draw no answer.
/// Without cookies, every segment is ours and is answered by RFC 9293, section 3.10.7.
#[test]
fn strangers_among_the_acks_of_cookies_get_no_answer() {
    let mut target = Target::listening();
    let strays = [ACK, ACK | FIN, RST, ACK | SYN];
    let stray = |target: &mut Target, flags| {
        target.deliver(packet([10, 9, 9, 9], 6, &tcp(77, 88, flags, 0xffff, &[], &[])));
        target.sent().len()
    };
    assert_eq!(strays.map(|flags| stray(&mut target, flags)), [1, 1, 0, 1]);
    for number in 0..5000u32 {
        let [_, _, a, b] = number.to_be_bytes();
        target.deliver(packet([10, 1, a, b], 6, &tcp(number, 0, SYN, 0xffff, &[], &[])));
        target.sent();
    }
    assert!(target.stack.expects_cookies(target.now).is_some(), "cookies are given");
    assert_eq!(strays.map(|flags| stray(&mut target, flags)), [0, 0, 0, 0]);
    // A known handshake still gets its answer.
    target.deliver(packet([10, 1, 0, 0], 6, &tcp(1, 88, ACK, 0xffff, &[], &[])));
    assert_eq!(target.sent().len(), 1);
}

/// RFC 6528: an initial sequence number tells nothing about the next.
#[test]
fn initial_sequence_numbers_are_unpredictable() {
    let mut target = Target::listening();
    let mut numbers = Vec::new();
    for host in 0..200 {
        target.deliver(packet([10, 0, 1, host], 6, &tcp(1, 0, SYN, 0xffff, &[], &[])));
        numbers.extend(target.sent().iter().map(|sent| sent.sequence));
    }
    let mut steps: Vec<u32> = numbers.windows(2).map(|two| two[1].wrapping_sub(two[0])).collect();
    assert_eq!(steps.len(), 199);
    steps.sort_unstable();
    steps.dedup();
    assert!(steps.len() > 195, "steps repeat");
    let quarter = |step: &u32| step >> 30;
    for expected in 0..4 {
        assert!(steps.iter().filter(|step| quarter(step) == expected).count() > 20, "steps are not spread");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No options panic; a SYN with invalid options counts as a SYN without them.
    #[test]
    fn garbage_in_options_does_no_harm(
        in_syn in prop::collection::vec(any::<u8>(), 0..40),
        later in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
    ) {
        let mut target = Target::listening();
        target.peer(PEER_ISS, 0, SYN, 0xffff, &in_syn, &[]);
        if let Some(answer) = target.sent().first() {
            target.ours = answer.sequence.wrapping_add(1);
            target.send(b"");
            for options in later {
                target.peer(target.theirs, target.ours, ACK, 0xffff, &options, b"data");
                target.sent();
            }
        }
        let until = target.now + Duration::from_secs(600);
        target.run(until);
    }

    /// Segments that overlap in any way and order are reassembled into the peer's stream.
    #[test]
    fn overlapping_segments_make_one_stream(
        pieces in prop::collection::vec((0usize..30_000, 1usize..1400), 1..200),
    ) {
        let mut target = Target::connected(&[]);
        let start = target.theirs;
        let stream: Vec<u8> = (0..32_000usize).map(|i| (i * 7 + i / 251) as u8).collect();
        for (at, length) in pieces {
            let sequence = start.wrapping_add(at as u32);
            target.peer(sequence, target.ours, ACK, 0xffff, &[], &stream[at..at + length]);
            target.sent();
        }
        for at in (0..stream.len()).step_by(1000) {
            let sequence = start.wrapping_add(at as u32);
            target.peer(sequence, target.ours, ACK, 0xffff, &[], &stream[at..at + 1000]);
            target.sent();
        }
        prop_assert!(target.arrived == stream);
    }

    /// Whatever arrives on an open connection from its own address and ports, nothing panics or
    /// spins, and the connection is open or has ended for a reason.
    #[test]
    fn any_segments_at_all_are_survived(
        segments in prop::collection::vec(
            (-70_000i64..70_000, -70_000i64..70_000, any::<u8>(), any::<u16>(), 0usize..1400, 0u64..5000),
            0..60,
        ),
        writes in 0usize..100_000,
    ) {
        let mut target = Target::connected(&[3, 3, 7, 1, 4, 2, 1, 1]);
        if writes > 0 {
            target.write(writes);
        }
        for (sequence, acknowledgment, flags, window, length, wait) in segments {
            let sequence = target.theirs.wrapping_add(sequence as u32);
            let acknowledgment = target.ours.wrapping_add(acknowledgment as u32);
            target.peer(sequence, acknowledgment, flags, window, &[], &vec![b'y'; length]);
            let until = target.now + Duration::from_millis(wait);
            target.run(until);
        }
        let until = target.now + Duration::from_secs(3600);
        prop_assert!(target.run(until).len() < 5000);
    }
}

#[test]
fn a_fin_outside_of_the_window_is_ignored() {
    let mut target = Target::connected(&[]);
    for offset in [WINDOW + 1, 1 << 31] {
        target.peer(target.theirs.wrapping_add(offset), target.ours, FIN | ACK, 0xffff, &[], &[]);
        target.sent();
    }
    target.still_works();
}

/// RFC 9293, section 3.10.7.4: the sequence number is checked first. An attacker who guesses our
/// data in flight can neither acknowledge it in the peer's name nor shut its window.
#[test]
fn an_acknowledgment_outside_of_the_window_moves_nothing() {
    for offset in [1 << 31, 1 << 30, 3 << 30, WINDOW + 1, (WINDOW + 2).wrapping_neg()] {
        let mut target = Target::connected(&[]);
        target.write(5000);
        target.sent();
        let sequence = target.theirs.wrapping_add(offset);
        for (acknowledgment, window) in [(5000, 0xffff), (0, 0)] {
            let forged = target.ours.wrapping_add(acknowledgment);
            target.peer(sequence, forged, ACK, window, &[], &[]);
            target.sent();
            let flow = target.stack.peek(&tuple()).expect("a flow");
            assert_eq!(flow.unacknowledged(), 5000, "offset {offset:#x}");
        }
        target.ours = target.ours.wrapping_add(5000);
        target.still_works();
    }
}
