//! Source validation: the stack asks for the route back before it answers, and answers by that
//! route alone. The test is the engine and all other hosts.
#[path = "support/recording_link.rs"]
mod recording_link;
#[path = "support/settings.rs"]
mod settings;

use netkat::{
    host::metrics::Metrics,
    link::{ETHERTYPE_IPV4, NextHop},
    neighbour::Neighbour,
    net::{FiveTuple, MacAddr, Protocol},
    stack::{
        Admission, FrameResult, Listener, ReturnRoute, Stack, UnverifiedSource,
        ip::{Fragment, Fragmentation, TCP, Template, pseudo_header},
    },
};
use recording_link::{PATH, RecordingLink, Sent, next_hop as via, received, seeds};
use settings::settings;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

const US: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[derive(Clone, Copy)]
struct Segment {
    source: IpAddr,
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    payload: &'static [u8],
}

const OPENING: Segment = Segment { source: PEER, flags: SYN, sequence: 99, acknowledgment: 0, payload: b"" };

impl Segment {
    fn packet(&self, fragmentation: Fragmentation) -> Vec<u8> {
        let mut tcp = [4000u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgment.to_be_bytes());
        tcp.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(self.payload);
        let sum = pseudo_header(self.source, US, TCP, tcp.len()).add(&tcp);
        tcp[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
        let (protocol, hop_limit) = (TCP, 64);
        let template = Template {
            source: self.source,
            destination: US,
            protocol,
            hop_limit,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut packet = vec![0; 20];
        template.write(tcp.len(), 0, fragmentation, &mut packet);
        [packet, tcp].concat()
    }
}

/// A listener whose return routes the test knows.
struct House {
    stack: Stack,
    now: Duration,
}

impl House {
    fn new() -> House {
        let mut stack = Stack::new(settings(1 << 16, 1 << 16), seeds());
        stack.require_return_routes();
        stack.listen(Listener {
            backlog: 16,
            half_open: 16,
            gate: Box::new(|_| Admission::Accept),
            paths: HashMap::from([(2, PATH), (3, PATH)]),
        });
        House { stack, now: Duration::from_secs(1) }
    }

    fn frame(&mut self, from: NextHop, mut packet: Vec<u8>) -> Option<UnverifiedSource> {
        match self.stack.ingress(self.now, received(from, &mut packet, 0, ETHERTYPE_IPV4)) {
            FrameResult::Unverified(unverified) => Some(unverified),
            _ => None,
        }
    }

    fn segment(&mut self, from: NextHop, segment: Segment) -> Option<UnverifiedSource> {
        self.frame(from, segment.packet(Fragmentation::Forbidden))
    }

    fn sent(&mut self) -> Vec<Sent> {
        let mut wire = RecordingLink::default();
        while self.stack.egress(self.now, &mut wire).expect("the wire does not fail") {}
        wire.0
    }

    /// Returns the SYN-ACK to the peer, once its return route is known to lead to `next_hop`.
    fn opened(&mut self, from: NextHop, next_hop: Option<NextHop>) -> Sent {
        let unverified = self.segment(from, OPENING).expect("an unverified source");
        self.stack.learn_return_route(
            unverified,
            Some(ReturnRoute {
                next_hop,
                neighbour: Neighbour::Sender(None),
                source: None,
                metrics: Metrics::default(),
            }),
        );
        assert_eq!(self.segment(from, OPENING), None);
        let [answer] = self.sent()[..] else { panic!("one answer") };
        assert_eq!(answer.flags, SYN | ACK);
        answer
    }
}

fn completing(answer: Sent) -> Segment {
    let acknowledgment = answer.sequence.wrapping_add(1);
    Segment { flags: ACK, sequence: answer.acknowledgment, acknowledgment, ..OPENING }
}

fn tuple() -> FiveTuple {
    FiveTuple { protocol: Protocol::Tcp, local: SocketAddr::new(US, 80), remote: SocketAddr::new(PEER, 4000) }
}

#[test]
fn nothing_is_answered_before_the_way_back_is_known() {
    for flags in [SYN, ACK, SYN | ACK] {
        let mut house = House::new();
        let segment = Segment { flags, ..OPENING };
        let unverified = house.segment(via(2, 2), segment).expect("an unverified source");
        let sender = Some(MacAddr([2, 0, 0, 0, 0, 2]));
        assert_eq!(unverified, UnverifiedSource { interface: 2, sender, local: US, remote: PEER });
        assert_eq!(house.sent(), []);
        house.stack.learn_return_route(unverified, None);
        assert_eq!(house.segment(via(2, 2), segment), None);
        assert_eq!(house.sent(), [], "{flags}");
    }
}

#[test]
fn martians_are_not_worth_a_question() {
    let mut house = House::new();
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [10, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        for flags in [SYN, ACK] {
            let segment = Segment { source: source.into(), flags, ..OPENING };
            assert_eq!(house.segment(via(2, 2), segment), None);
            let first = Fragmentation::Fragment(Fragment { id: 1, offset: 0, more: true });
            assert_eq!(house.frame(via(2, 2), segment.packet(first)), None);
        }
    }
    assert_eq!(house.sent(), []);
    assert_eq!(house.stack.accept(), None);
}

#[test]
fn answers_go_where_the_way_back_leads_whoever_delivered_the_packet() {
    for (route, to) in [(None, via(2, 2)), (Some(via(2, 9)), via(2, 9)), (Some(via(3, 9)), via(3, 9))] {
        let mut house = House::new();
        let answer = house.opened(via(2, 2), route);
        assert_eq!(answer.next_hop, to);
        // A repeated SYN from elsewhere, and an acknowledgment of unsent data.
        assert_eq!(house.segment(via(3, 7), OPENING), None);
        let wrong = Segment { flags: ACK, sequence: 100, acknowledgment: 77, ..OPENING };
        assert_eq!(house.segment(via(3, 7), wrong), None);
        let sent: Vec<_> =
            house.sent().iter().map(|sent| (sent.next_hop, sent.flags & (SYN | RST))).collect();
        assert_eq!(sent, [(to, SYN), (to, RST)]);
        // Another SYN opens another handshake, whose route is asked for if it differs.
        let another = Segment { sequence: 5000, ..OPENING };
        let unverified = house.segment(via(3, 7), another).expect("an unverified source");
        house.stack.learn_return_route(unverified, None);
        assert_eq!(house.segment(via(3, 7), another), None);
        assert_eq!(house.sent(), []);
        assert_eq!(house.segment(via(2, 2), completing(answer)), None);
        assert_eq!(house.stack.accept(), Some(tuple()));
    }
}

#[test]
fn a_connection_is_spoken_to_by_the_way_it_came_or_by_one_that_leads_back() {
    let mut house = House::new();
    let answer = house.opened(via(2, 2), None);
    let said = |payload| Segment { payload, ..completing(answer) };
    assert_eq!(house.segment(via(2, 2), said(b"")), None);
    let received = |house: &House| house.stack.peek(&tuple()).expect("a flow").received();

    let unverified = house.segment(via(3, 7), said(b"forged")).expect("an unverified source");
    house.stack.learn_return_route(unverified, None);
    assert_eq!(house.segment(via(3, 7), said(b"forged")), None);
    assert_eq!(received(&house), 0);

    let unverified = house.segment(via(3, 8), said(b"honest")).expect("an unverified source");
    house.stack.learn_return_route(
        unverified,
        Some(ReturnRoute {
            next_hop: None,
            neighbour: Neighbour::Sender(None),
            source: None,
            metrics: Metrics::default(),
        }),
    );
    assert_eq!(house.segment(via(3, 8), said(b"honest")), None);
    assert_eq!(received(&house), 6);
}

#[test]
fn fragments_are_asked_about_before_they_are_kept() {
    let mut house = House::new();
    let packet = OPENING.packet(Fragmentation::Forbidden);
    let cut = |offset: usize, more| {
        let fragment = Fragmentation::Fragment(Fragment { id: 1, offset: offset as u16, more });
        let mut piece = OPENING.packet(fragment);
        piece.truncate(20);
        let end = if more { offset + 8 } else { packet.len() - 20 };
        piece[2..4].copy_from_slice(&(20 + (end - offset) as u16).to_be_bytes());
        piece[10..12].fill(0);
        let sum: u32 = piece.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        piece[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        piece.extend(&packet[20 + offset..20 + end]);
        piece
    };
    let unverified = house.frame(via(2, 2), cut(0, true)).expect("an unverified source");
    house.stack.learn_return_route(
        unverified,
        Some(ReturnRoute {
            next_hop: None,
            neighbour: Neighbour::Sender(None),
            source: None,
            metrics: Metrics::default(),
        }),
    );
    for (offset, more) in [(0, true), (8, true), (16, false)] {
        assert_eq!(house.frame(via(2, 2), cut(offset, more)), None);
    }
    let [answer] = house.sent()[..] else { panic!("one answer") };
    assert_eq!(answer.flags, SYN | ACK);
}

/// Beyond the maximum of queries, a SYN costs no memory; the acknowledgment of its cookie is worth
/// a query.
#[test]
fn a_flood_gets_cookies_that_open_nothing_unasked() {
    let mut house = House::new();
    let from = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0b00_0001 + number));
    let asked =
        (0..1500).filter(|n| house.segment(via(2, 2), Segment { source: from(*n), ..OPENING }).is_some());
    let asked = asked.count();
    assert!((900..=1100).contains(&asked), "{asked} queries");
    house.sent();
    assert_eq!(house.segment(via(2, 2), OPENING), None, "no query");
    let [cookie] = house.sent()[..] else { panic!("one answer") };
    assert_eq!((cookie.flags, cookie.next_hop), (SYN | ACK, via(2, 2)));
    for route in [
        None,
        Some(ReturnRoute {
            next_hop: None,
            neighbour: Neighbour::Sender(None),
            source: None,
            metrics: Metrics::default(),
        }),
    ] {
        let unverified = house.segment(via(2, 2), completing(cookie)).expect("an unverified source");
        assert_eq!(house.stack.accept(), None);
        house.stack.learn_return_route(unverified, route);
        house.segment(via(2, 2), completing(cookie));
        assert_eq!(house.stack.accept(), route.map(|_| tuple()));
        house.stack.forget_return_routes();
    }
}

/// The repeated SYN may arrive when queries have room again.
#[test]
fn a_cookie_holds_although_a_record_was_made_after_it() {
    let mut house = House::new();
    let from = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0b00_0001 + number));
    while house.segment(via(2, 2), Segment { source: from(0), ..OPENING }).is_some() {}
    house.sent();
    assert_eq!(house.segment(via(2, 2), OPENING), None, "no query");
    let [cookie] = house.sent()[..] else { panic!("one answer") };
    house.now += Duration::from_secs(1);
    assert_ne!(house.opened(via(2, 2), None).sequence, cookie.sequence);
    assert_eq!(house.segment(via(2, 2), completing(cookie)), None);
    assert_eq!(house.stack.accept(), Some(tuple()));
}
