use super::*;
use crate::{
    host::metrics::Metrics,
    link::{LinkHeader, Offloads, Received},
    recovery::Algorithm,
    stack::{FrameResult, Stack, fragment::FragmentReassembly},
};
use proptest::{collection::vec, prelude::*};
use std::time::Duration;

const AT: Duration = Duration::from_secs(1);
const HOP: NextHop = NextHop { interface: 1, header: LinkHeader::None };
const PATH: Path = Path { mtu: 1500, max_frame: 65_521, max_segments: 65_535, ipv6_hop_limit: 64 };

fn settings() -> Settings {
    Settings {
        mss: None,
        send_buffer: 1 << 16,
        receive_buffer: 1 << 16,
        hop_limit: None,
        default_ttl: 64,
        traffic_class: 0,
        congestion: Some(Algorithm::Cubic),
        default_congestion: Algorithm::Cubic,
        user_timeout: None,
        keep_alive: None,
    }
}

fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
    match v6 {
        false => ("192.0.2.1:4000".parse().unwrap(), "192.0.2.2:53".parse().unwrap()),
        true => ("[2001:db8::1]:4000".parse().unwrap(), "[2001:db8::2]:53".parse().unwrap()),
    }
}

fn client(v6: bool) -> FiveTuple {
    let (local, remote) = addresses(v6);
    FiveTuple { protocol: Protocol::Udp, local, remote }
}

fn dialed(tuple: FiveTuple, path: Path) -> Stack {
    let mut stack = Stack::new(settings(), || 7);
    stack.datagrams.dial(
        tuple,
        FlowRoute { next_hop: HOP, neighbour: Neighbour::Fixed, path, metrics: Metrics::default() },
    );
    stack
}

fn serving(audience: Audience, gate: fn(SocketAddr) -> Admission) -> Stack {
    let mut stack = Stack::new(settings(), || 7);
    stack.datagrams.serve(DatagramService { audience, gate: Box::new(gate), paths: [(1, PATH)].into() });
    stack
}

/// A link that records packets, and refuses offloads as a kernel does.
struct Tape {
    offloads: Offloads,
    takes_segmentation: bool,
    packets: Vec<(Vec<u8>, Option<u16>)>,
}

fn tape(segmentation: bool) -> Tape {
    let offloads = Offloads { checksum: segmentation, segmentation };
    Tape { offloads, takes_segmentation: true, packets: Vec::new() }
}

impl Link for Tape {
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError> {
        Ok(None)
    }

    fn transmit(&mut self, _: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError> {
        if packet.segmentation.is_some() && !self.takes_segmentation {
            self.offloads.segmentation = false;
            return Err(LinkError::OffloadRefused { offload: "segmentation", interface: "tape".to_owned() });
        }
        let bytes = [packet.headers, packet.payload[0], packet.payload[1]].concat();
        self.packets.push((
            bytes,
            packet.segmentation.map(|(kind, size)| {
                assert_eq!(kind, Segmentation::Udp);
                size
            }),
        ));
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

fn deliver(stack: &mut Stack, packet: &[u8], segment_size: u16, trusted: bool) {
    use crate::link::{ChecksumState, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
    let mut frame = packet.to_vec();
    let taken = stack.ingress(
        AT,
        Received {
            reply: HOP,
            wire_len: frame.len(),
            frame: &mut frame,
            network: 0,
            ethertype: if packet[0] >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 },
            checksum: if trusted { ChecksumState::Verified } else { ChecksumState::Unverified },
            segment_size,
            hardware_type: 0xfffe,
            vlan: None,
            outgoing: false,
            time: None,
        },
    );
    assert_eq!(taken, FrameResult::Done);
}

fn drain(stack: &mut Stack) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut taken = Vec::new();
    while let Some(datagram) = stack.datagrams.front() {
        taken.push((datagram.from, datagram.payload.to_vec()));
        stack.datagrams.pop();
    }
    taken
}

/// Returns the packets that `from` sends in one call.
fn sent(from: &mut Stack, bytes: &[u8], size: usize, segmentation: bool) -> Tape {
    let mut tape = tape(segmentation);
    from.datagrams.send(&mut tape, bytes, size).expect("the tape takes everything");
    tape
}

fn pass(tape: &Tape, to: &mut Stack) {
    for (packet, size) in &tape.packets {
        deliver(to, packet, size.unwrap_or(0), tape.offloads.checksum);
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn equal_datagrams_travel_together_and_arrive_apart() {
    for v6 in [false, true] {
        let mut sender = dialed(client(v6), PATH);
        let tape = sent(&mut sender, &bytes(250), 100, true);
        assert_eq!(tape.packets.len(), 1);
        assert_eq!(tape.packets[0].1, Some(100));
        let mut receiver = serving(Audience::First, |_| Admission::Accept);
        pass(&tape, &mut receiver);
        let from = client(v6).local;
        let expected: Vec<_> = bytes(250).chunks(100).map(|c| (from, c.to_vec())).collect();
        assert_eq!(drain(&mut receiver), expected);
        assert_eq!(receiver.datagrams.counters().datagrams_received, 3);
        assert_eq!(sender.datagrams.counters().datagrams_sent, 3);
    }
}

#[test]
fn a_kernel_that_cuts_no_datagrams_gets_them_one_by_one_and_none_is_lost() {
    let mut sender = dialed(client(false), PATH);
    let mut tape = tape(true);
    tape.takes_segmentation = false;
    sender.datagrams.send(&mut tape, &bytes(300), 100).expect("falls back");
    assert_eq!(tape.packets.len(), 3);
    let mut receiver = serving(Audience::First, |_| Admission::Accept);
    pass(&tape, &mut receiver);
    assert_eq!(drain(&mut receiver).len(), 3);
}

#[test]
fn super_frames_stay_within_what_the_kernel_takes() {
    let path = Path { max_frame: 10_000, ..PATH };
    let tape = sent(&mut dialed(client(false), path), &bytes(60_000), 1000, true);
    assert!(tape.packets.iter().all(|(packet, _)| packet.len() + MAX_LINK_HEADER <= 10_000));
    let tape = sent(&mut dialed(client(false), PATH), &bytes(200), 1, true);
    assert_eq!(tape.packets.len(), 200usize.div_ceil(MAX_SEGMENTS));
}

#[test]
fn empty_datagrams_arrive_as_such() {
    for v6 in [false, true] {
        for segmentation in [false, true] {
            let tape = sent(&mut dialed(client(v6), PATH), &[], 0, segmentation);
            let mut receiver = serving(Audience::First, |_| Admission::Accept);
            pass(&tape, &mut receiver);
            assert_eq!(drain(&mut receiver), [(client(v6).local, vec![])]);
        }
    }
}

#[test]
fn the_largest_datagram_arrives_in_fragments() {
    for (v6, largest) in [(false, 65_507), (true, 65_527)] {
        assert_eq!(max_payload(client(v6).local.ip()), largest);
        let data = bytes(largest);
        let tape = sent(&mut dialed(client(v6), PATH), &data, largest, true);
        assert!(tape.packets.len() > 40 && tape.packets.iter().all(|(packet, _)| packet.len() <= 1500));
        let mut receiver = serving(Audience::First, |_| Admission::Accept);
        // Fragments carry a complete checksum, which is verified whatever the link says of their
        // frames.
        for (packet, _) in tape.packets.iter().rev() {
            deliver(&mut receiver, packet, 0, false);
        }
        assert_eq!(drain(&mut receiver), [(client(v6).local, data)]);
    }
}

#[test]
fn a_damaged_fragment_spoils_the_datagram() {
    let mut tape = sent(&mut dialed(client(false), PATH), &bytes(3000), 3000, false);
    tape.packets[1].0[100] ^= 1;
    let mut receiver = serving(Audience::First, |_| Admission::Accept);
    pass(&tape, &mut receiver);
    assert_eq!(drain(&mut receiver), []);
    assert_eq!(receiver.datagrams.counters().invalid, 1);
}

#[test]
fn a_missing_checksum_is_fine_in_ipv4_only() {
    for v6 in [false, true] {
        let mut tape = sent(&mut dialed(client(v6), PATH), b"ping", 4, false);
        let at = if v6 { 46 } else { 26 };
        tape.packets[0].0[at..at + 2].fill(0);
        let mut receiver = serving(Audience::First, |_| Admission::Accept);
        pass(&tape, &mut receiver);
        assert_eq!(drain(&mut receiver).len(), usize::from(!v6));
    }
}

#[test]
fn the_length_field_cuts_padding_and_cannot_promise_more() {
    let mut tape = sent(&mut dialed(client(false), PATH), b"pingpong", 8, false);
    let packet = &mut tape.packets[0].0;
    packet[26..28].fill(0);
    for (len, expected) in [(12u16, Some(&b"ping"[..])), (17, None), (7, None), (0, None)] {
        packet[24..26].copy_from_slice(&len.to_be_bytes());
        let mut receiver = serving(Audience::First, |_| Admission::Accept);
        deliver(&mut receiver, packet, 0, false);
        assert_eq!(drain(&mut receiver).first().map(|(_, payload)| payload.as_slice()), expected, "{len}");
    }
}

/// Returns a datagram from the client's address with another port.
fn stranger(port: u16, text: &[u8]) -> Vec<u8> {
    let mut tuple = client(false);
    tuple.local.set_port(port);
    sent(&mut dialed(tuple, PATH), text, text.len(), false).packets.remove(0).0
}

#[test]
fn a_client_hears_its_peer_only() {
    let tuple = client(false);
    let mut ours = dialed(FiveTuple { local: tuple.remote, remote: tuple.local, ..tuple }, PATH);
    deliver(&mut ours, &stranger(4001, b"no"), 0, false);
    deliver(&mut ours, &stranger(4000, b"yes"), 0, false);
    assert_eq!(drain(&mut ours), [(tuple.local, b"yes".to_vec())]);
    assert_eq!(ours.datagrams.counters().strangers, 1);
}

#[test]
fn whoever_speaks_first_has_the_port_unless_it_serves_all() {
    for (audience, heard, last) in [(Audience::First, 1, 4001), (Audience::All, 2, 4002)] {
        let mut server = serving(audience, |_| Admission::Accept);
        assert_eq!(sent(&mut server, b"to nobody", 9, false).packets, []);
        deliver(&mut server, &stranger(4001, b"first"), 0, false);
        deliver(&mut server, &stranger(4002, b"second"), 0, false);
        assert_eq!(drain(&mut server).len(), heard);
        let answer = sent(&mut server, b"answer", 6, false).packets.remove(0).0;
        let header = ip::parse(&answer, false).expect("our own packet");
        assert_eq!(
            (header.source, header.destination),
            (client(false).remote.ip(), client(false).local.ip())
        );
        assert_eq!(answer[20..24], [53u16.to_be_bytes(), u16::to_be_bytes(last)].concat());
    }
}

#[test]
fn a_closed_gate_lets_nobody_in() {
    for admission in [|_| Admission::Ignore, |_| Admission::Refuse] {
        let mut server = serving(Audience::All, admission);
        deliver(&mut server, &stranger(4001, b"hello"), 0, false);
        assert_eq!(drain(&mut server), []);
        assert_eq!(server.datagrams.peer(), None);
    }
}

fn error(tuple: FiveTuple, reason: Reason) -> IcmpError {
    let (from, local, remote) = (tuple.remote.ip(), tuple.local, tuple.remote);
    IcmpError { reason, from, protocol: UDP, local, remote, sequence: 0 }
}

#[test]
fn what_waits_can_be_taken_in_pieces_of_any_size() {
    let mut sender = dialed(client(false), PATH);
    let mut receiver = serving(Audience::First, |_| Admission::Accept);
    for text in ["one", "", "", "two", ""] {
        pass(&sent(&mut sender, text.as_bytes(), 9, false), &mut receiver);
    }
    let datagrams = &mut receiver.datagrams;
    assert_eq!(datagrams.waiting(), b"onetwo");
    datagrams.forget(4);
    assert_eq!(
        (datagrams.waiting(), datagrams.front().map(|one| one.payload)),
        (&b"wo"[..], Some(&b"wo"[..]))
    );
    datagrams.forget(2);
    assert_eq!((datagrams.waiting(), datagrams.front()), (&b""[..], None), "the empty ones go along");
}

#[test]
fn a_survey_hears_every_port_of_every_host() {
    let theirs = client(false);
    let tuple = FiveTuple { local: theirs.remote, remote: theirs.local, ..theirs };
    let mut stack = dialed(tuple, PATH);
    stack.datagrams.survey();
    deliver(&mut stack, &stranger(4001, b"here"), 0, false);
    let refusal = error(tuple, Reason::PortUnreachable);
    let elsewhere = SocketAddr::new("192.0.2.99".parse().unwrap(), 53);
    stack.datagrams.icmp(&refusal);
    stack.datagrams.icmp(&IcmpError { remote: elsewhere, ..refusal });
    stack.datagrams.icmp(&error(tuple, Reason::PacketTooBig(1000)));
    let found: Vec<_> = std::iter::from_fn(|| stack.datagrams.take_survey_answer()).collect();
    let open = SocketAddr::new(tuple.remote.ip(), 4001);
    let expected = [
        SurveyAnswer { local: tuple.local, port: open, answer: Ok(()) },
        SurveyAnswer { local: tuple.local, port: tuple.remote, answer: Err(refusal) },
        SurveyAnswer {
            local: tuple.local,
            port: elsewhere,
            answer: Err(IcmpError { remote: elsewhere, ..refusal }),
        },
    ];
    assert_eq!(found, expected);
    assert!(stack.datagrams.front().is_none() && stack.datagrams.take_error().is_none());
}

/// Checks that an invalid datagram is counted for the port that it came from.
#[test]
fn a_survey_counts_damaged_answers_by_port() {
    let theirs = client(false);
    let tuple = FiveTuple { local: theirs.remote, remote: theirs.local, ..theirs };
    let mut stack = dialed(tuple, PATH);
    let damaged = || {
        let mut packet = stranger(4001, b"here");
        *packet.last_mut().expect("payload") ^= 1;
        packet
    };
    deliver(&mut stack, &damaged(), 0, false);
    stack.datagrams.survey();
    deliver(&mut stack, &damaged(), 0, false);
    deliver(&mut stack, &damaged(), 0, false);
    assert_eq!(stack.datagrams.take_survey_answer(), None);
    let datagrams = &stack.datagrams;
    let invalid = [4001, 4002].map(|port| datagrams.invalid_from(SocketAddr::new(tuple.remote.ip(), port)));
    assert_eq!((invalid, datagrams.counters().invalid), ([2, 0], 3));
}

#[test]
fn errors_count_only_for_the_peer_and_only_once_something_was_sent() {
    let tuple = client(false);
    let mut stack = dialed(tuple, PATH);
    let datagrams = &mut stack.datagrams;
    let (refused, mut other) = (error(tuple, Reason::PortUnreachable), tuple);
    datagrams.icmp(&refused);
    assert_eq!(datagrams.take_error(), None);
    datagrams.send(&mut tape(false), b"x", 1).expect("sent");
    other.remote.set_port(54);
    datagrams.icmp(&error(other, Reason::PortUnreachable));
    assert_eq!(datagrams.take_error(), None);
    for _ in 0..100 {
        datagrams.icmp(&refused);
    }
    assert_eq!(datagrams.take_error(), Some(refused));
    assert!(datagrams.errors.len() < MAX_ERRORS);
}

#[test]
fn a_smaller_path_mtu_makes_fragments_and_a_forged_one_has_a_floor() {
    for (v6, told, expected) in [(false, 1400, 1400), (false, 68, 552), (true, 1400, 1400), (true, 600, 1280)]
    {
        let mut stack = dialed(client(v6), PATH);
        assert_eq!(sent(&mut stack, &bytes(1450), 1450, false).packets.len(), 1);
        stack.datagrams.icmp(&error(client(v6), Reason::PacketTooBig(told)));
        stack.datagrams.icmp(&error(client(v6), Reason::PacketTooBig(9000)));
        let lens: Vec<_> =
            sent(&mut stack, &bytes(1450), 1450, true).packets.iter().map(|p| p.0.len()).collect();
        assert!(
            lens.len() > 1 && lens.iter().all(|len| *len <= expected && *len + 8 > expected || *len < 1000)
        );
        assert_eq!(stack.datagrams.take_error(), None);
    }
}

#[test]
fn packets_of_one_burst_differ_in_their_identification() {
    let mut stack = dialed(client(false), PATH);
    let id = |tape: &Tape| u16::from_be_bytes([tape.packets[0].0[4], tape.packets[0].0[5]]);
    let first = sent(&mut stack, &bytes(300), 100, true);
    let second = sent(&mut stack, &bytes(100), 100, true);
    // The kernel numbers the three datagrams of the first super-frame from its identification on.
    assert_eq!(id(&second).wrapping_sub(id(&first)), 3);
}

proptest! {
    #[test]
    fn any_stream_cut_into_datagrams_arrives_in_order(
        v6: bool,
        segmentation: bool,
        mtu in 1280..9001usize,
        calls in vec((1..70_000usize, 1..70_000usize), 1..6),
    ) {
        let mut sender = dialed(client(v6), Path { mtu, ..PATH });
        let mut receiver = serving(Audience::First, |_| Admission::Accept);
        for (len, size) in calls {
            let data = bytes(len);
            let tape = sent(&mut sender, &data, size, segmentation);
            for (packet, segment) in &tape.packets {
                let whole = ip::parse(packet, false).expect("our own packet").fragment.is_none();
                deliver(&mut receiver, packet, segment.unwrap_or(0), segmentation && whole);
            }
            let size = size.min(max_payload(client(v6).local.ip()));
            let got: Vec<_> = drain(&mut receiver).into_iter().map(|(_, payload)| payload).collect();
            prop_assert_eq!(got, data.chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>());
        }
        prop_assert_eq!(sender.datagrams.counters().bytes_sent, receiver.datagrams.counters().bytes_received);
    }

    #[test]
    fn hostile_packets_do_not_panic(
        v6: bool,
        len in 0..200usize,
        segment_size: u16,
        trusted: bool,
        flips in vec((0..300usize, any::<u8>()), 0..8),
    ) {
        let mut packet = sent(&mut dialed(client(v6), PATH), &bytes(len), len, false).packets.remove(0).0;
        for (at, value) in flips {
            let at = at % packet.len();
            packet[at] = value;
        }
        let mut server = serving(Audience::All, |_| Admission::Accept);
        deliver(&mut server, &packet, segment_size, trusted);
        let got: usize = drain(&mut server).iter().map(|(_, payload)| payload.len()).sum();
        prop_assert!(got <= len);
    }
}

#[test]
fn a_segment_in_fragments_reaches_its_connection() {
    // A SYN to a closed port is answered with a reset, whole or in fragments.
    let (local, remote) = addresses(false);
    let template = Template {
        source: remote.ip(),
        destination: local.ip(),
        protocol: ip::TCP,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
    };
    let mut segment = vec![0; 40];
    segment[..4].copy_from_slice(&[0, 53, 0x0f, 0xa0]);
    segment[12] = 5 << 4;
    segment[13] = 2;
    let checksum = ip::pseudo_header(template.source, template.destination, ip::TCP, segment.len())
        .add(&segment)
        .checksum();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    let mut stack = Stack::new(settings(), || 7);
    for (range, more) in fragment::cut(segment.len(), 20 + 16, 20) {
        let mut packet = vec![0; 20];
        let piece = Fragment { id: 3, offset: range.start as u16, more };
        template.write(range.len(), 0, Fragmentation::Fragment(piece), &mut packet);
        packet.extend_from_slice(&segment[range]);
        assert!(
            FragmentReassembly::default().insert(AT, &ip::parse(&packet, false).unwrap(), &packet).is_none()
        );
        deliver(&mut stack, &packet, 0, true);
    }
    let mut tape = tape(false);
    stack.egress(AT, &mut tape).expect("sent");
    assert_eq!(tape.packets.len(), 1);
    assert_eq!(tape.packets[0].0[33] & 4, 4);
}

#[test]
fn a_neighbour_is_asked_for_after_a_time_in_which_only_we_spoke() {
    let neighbour: IpAddr = "192.0.2.9".parse().unwrap();
    let mut stack = Stack::new(settings(), || 7);
    let route = FlowRoute {
        next_hop: HOP,
        neighbour: Neighbour::At(neighbour),
        path: PATH,
        metrics: Metrics::default(),
    };
    stack.datagrams.dial(client(false), route);
    let at = Duration::from_secs;
    assert_eq!(stack.datagrams.unanswered(at(10)), None, "nothing was sent");
    stack.datagrams.send(&mut tape(false), b"anybody?", 8).unwrap();
    assert_eq!(stack.datagrams.unanswered(at(12)), None, "not yet");
    let asked = stack.datagrams.unanswered(at(15)).map(|(_, _, neighbour)| neighbour);
    assert_eq!(asked, Some(neighbour));
    assert_eq!(stack.datagrams.unanswered(at(16)), None, "just asked");
    assert!(stack.datagrams.unanswered(at(20)).is_some(), "still no answer");
}
