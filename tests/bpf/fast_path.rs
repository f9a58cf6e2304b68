//! The fast path of a command's flows: what takes it, both ways, and what passes netkat.

use crate::{
    frames::{Extension, ICMP, ICMP6, Ip4, TCP, UDP, around, ip6, packet},
    run::{REDIRECT, SHOT, UNSPEC, is_root, run},
};
use netkat::{
    kernel::{CommandFilter, FastPath, FastPathSpec, Filter, FlowKey, Programs, Uplink},
    net::MacAddr,
};
use std::net::{IpAddr, SocketAddr};

const US: [&str; 2] = ["10.0.0.1", "fd00::1"];
const PEER: [&str; 2] = ["10.0.0.2", "fd00::2"];
const STRANGER: [&str; 2] = ["10.0.0.3", "fd00::3"];
/// Index of the device of test runs, which is lo.
const LO: u32 = 1;
const MTU: u32 = 600;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const NEIGHBOUR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The socket filter keeps the whole packet.
const WHOLE: i32 = 0x7fff_ffff;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn load(family: usize, uplink: u32) -> (Programs, FastPath) {
    let filter = Filter::Command(CommandFilter {
        local_addresses: vec![ip(US[family])],
        published: Vec::new(),
        table: 100,
        assumed_mac: None,
        fast_path: Some(FastPathSpec {
            outer: LO,
            uplinks: vec![Uplink { index: 77, mac: MAC }, Uplink { index: uplink, mac: MAC }],
        }),
    });
    let mut programs = Programs::load(&filter).expect("loads");
    let path = programs.take_fast_path().expect("a fast path");
    (programs, path)
}

fn key(family: usize, protocol: u8, local: u16, remote: u16) -> FlowKey {
    FlowKey {
        protocol,
        local: SocketAddr::new(ip(US[family]), local),
        remote: SocketAddr::new(ip(PEER[family]), remote),
    }
}

/// Returns a TCP segment, or a datagram, with `length` bytes of data.
fn payload(protocol: u8, ports: (u16, u16), flags: u8, length: usize) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    if protocol == TCP {
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    } else {
        bytes.extend([0; 4]);
    }
    bytes.resize(bytes.len() + length, 0);
    bytes
}

/// Returns whether both programs at the command's device let a packet take the fast path, which must agree.
fn leaves(programs: &Programs, packet: &[u8]) -> bool {
    let frame = around(packet);
    let action = run(programs.leave_fd(), &frame);
    // The kernel runs socket filters behind the link header, so these bytes stand for it.
    let kept = run(programs.door_fd(), &[frame, vec![0; 14]].concat());
    assert!(matches!((action, kept), (REDIRECT, 0) | (SHOT, WHOLE)), "{action} {kept}");
    action == REDIRECT
}

/// Returns whether the guard redirects a packet and the capture program hides it, which must agree. Both count it.
fn arrives(programs: &Programs, packet: &[u8]) -> bool {
    let (frame, before) = (around(packet), programs.counters());
    let (action, kept) = (run(programs.guard_fd(), &frame), run(programs.capture_fd(), &frame));
    let after = programs.counters();
    assert_eq!(after.dropped - before.dropped, after.flow - before.flow);
    assert_eq!(after.flow - before.flow, u64::from(action != UNSPEC));
    // Later fragments go to netkat and the kernel.
    assert!(matches!((action, kept), (REDIRECT, 0) | (SHOT, WHOLE) | (UNSPEC, 0 | WHOLE)), "{action} {kept}");
    action == REDIRECT
}

#[test]
fn ordinary_packets_of_its_flows_take_it() {
    if !is_root() {
        return;
    }
    for family in 0..2 {
        let (us, peer, stranger) = (ip(US[family]), ip(PEER[family]), ip(STRANGER[family]));
        let (mut programs, mut path) = load(family, LO);
        let out = |protocol, ports, flags, length| {
            packet(us, peer, protocol, &payload(protocol, ports, flags, length))
        };
        let back = |protocol, ports, flags| packet(peer, us, protocol, &payload(protocol, ports, flags, 10));
        for key in [key(family, TCP, 4000, 443), key(family, UDP, 4000, 0)] {
            assert!(programs.table().unwrap().insert(key));
        }
        // A flow that netkat knows passes netkat until it is on the fast path.
        assert!(!leaves(&programs, &out(TCP, (4000, 443), ACK, 10)));
        assert!(!arrives(&programs, &back(TCP, (443, 4000), ACK)));
        let mut flows = [key(family, TCP, 4000, 443), key(family, UDP, 4000, 0)]
            .map(|key| path.insert(key, LO, MAC, NEIGHBOUR, MTU).expect("room"));
        let header = if family == 0 { 20 } else { 40 };
        let longest = MTU as usize - header - 20;
        for (packet, expected) in [
            (out(TCP, (4000, 443), ACK, 0), true),
            (out(TCP, (4000, 443), ACK, longest), true),
            (out(TCP, (4000, 443), ACK, longest + 1), false),
            (out(TCP, (4000, 443), ACK | FIN, 10), false),
            (out(TCP, (4000, 443), ACK | RST, 10), false),
            (out(TCP, (4000, 443), SYN, 10), false),
            (out(TCP, (4001, 443), ACK, 10), false),
            (out(TCP, (4000, 444), ACK, 10), false),
            (out(UDP, (4000, 53), 0, 10), true),
            (out(UDP, (4000, 54), 0, 10), true),
            (out(UDP, (4001, 53), 0, 10), false),
            (packet(stranger, peer, TCP, &payload(TCP, (4000, 443), ACK, 10)), false),
            (packet(us, stranger, TCP, &payload(TCP, (4000, 443), ACK, 10)), false),
            (packet(us, peer, 132, &payload(TCP, (4000, 443), ACK, 10)), false),
            (packet(us, peer, [ICMP, ICMP6][family], &payload(TCP, (4000, 443), ACK, 10)), false),
            ([out(TCP, (4000, 443), ACK, 10), vec![0]].concat(), false),
        ] {
            assert_eq!(leaves(&programs, &packet), expected, "{packet:?}");
        }
        for (packet, expected) in [
            (back(TCP, (443, 4000), ACK), true),
            (back(TCP, (443, 4000), ACK | FIN), false),
            (back(TCP, (443, 4000), ACK | SYN), false),
            (back(TCP, (443, 4000), RST), false),
            (back(TCP, (444, 4000), ACK), false),
            (back(TCP, (443, 4001), ACK), false),
            (back(UDP, (53, 4000), 0), true),
            (back(UDP, (53, 4001), 0), false),
            (packet(stranger, us, TCP, &payload(TCP, (443, 4000), ACK, 10)), false),
            // A device pads short frames.
            ([back(TCP, (443, 4000), ACK), vec![0; 6]].concat(), true),
        ] {
            assert_eq!(arrives(&programs, &packet), expected, "{packet:?}");
        }
        let (tcp, udp) = (header as u64 + 20, header as u64 + 8);
        let [first, second] = &mut flows;
        let traffic = path.take_traffic(first);
        assert_eq!(traffic.sent, (2, tcp + u64::from(MTU)));
        assert_eq!(traffic.received, (2, 2 * (tcp + 10)));
        let traffic = path.take_traffic(second);
        assert_eq!((traffic.sent, traffic.received), ((2, 2 * (udp + 10)), (1, udp + 10)));
        assert_eq!(path.take_traffic(second), Default::default());
        let [first, _] = flows;
        path.remove(first);
        assert!(!leaves(&programs, &out(TCP, (4000, 443), ACK, 0)));
        assert!(!arrives(&programs, &back(TCP, (443, 4000), ACK)));
        assert!(leaves(&programs, &out(UDP, (4000, 53), 0, 10)));
    }
}

#[test]
fn fragments_and_options_pass_netkat() {
    if !is_root() {
        return;
    }
    let (programs, mut path) = load(0, LO);
    path.insert(key(0, TCP, 4000, 443), LO, MAC, NEIGHBOUR, MTU).expect("room");
    let plain = Ip4::new(US[0], PEER[0], TCP);
    let segment = payload(TCP, (4000, 443), ACK, 16);
    assert!(leaves(&programs, &plain.packet(&segment)));
    for ip in [
        Ip4 { more: true, ..plain.clone() },
        Ip4 { offset: 8, ..plain.clone() },
        Ip4 { options: 4, ..plain.clone() },
    ] {
        assert!(!leaves(&programs, &ip.packet(&segment)), "{ip:?}");
        let back = Ip4 { source: ip.destination, destination: ip.source, ..ip.clone() };
        assert!(!arrives(&programs, &back.packet(&payload(TCP, (443, 4000), ACK, 16))), "{ip:?}");
    }
    let (programs, mut path) = load(1, LO);
    path.insert(key(1, TCP, 4000, 443), LO, MAC, NEIGHBOUR, MTU).expect("room");
    let [us, peer] = [US[1], PEER[1]].map(|text| text.parse().unwrap());
    assert!(leaves(&programs, &ip6(us, peer, &[], TCP, &segment)));
    for extension in [Extension::Options(0, 0), Extension::Options(60, 0), Extension::Fragment(0)] {
        assert!(
            !leaves(&programs, &ip6(us, peer, std::slice::from_ref(&extension), TCP, &segment)),
            "{extension:?}"
        );
    }
}

#[test]
fn packets_by_another_interface_pass_netkat() {
    if !is_root() {
        return;
    }
    for family in 0..2 {
        let (mut programs, mut path) = load(family, 78);
        assert!(programs.table().unwrap().insert(key(family, TCP, 4000, 443)));
        // A link address that the programs do not know.
        assert!(path.insert(key(family, TCP, 4000, 443), 78, NEIGHBOUR, MAC, MTU).is_none());
        path.insert(key(family, TCP, 4000, 443), 78, MAC, NEIGHBOUR, MTU).expect("room");
        let back = packet(ip(PEER[family]), ip(US[family]), TCP, &payload(TCP, (443, 4000), ACK, 10));
        assert!(!arrives(&programs, &back));
    }
}

#[test]
fn it_has_room_for_thousands_of_flows() {
    if !is_root() {
        return;
    }
    let (_programs, mut path) = load(0, LO);
    for port in 0..4000 {
        assert!(path.insert(key(0, TCP, 4000 + port, 443), LO, MAC, NEIGHBOUR, MTU).is_some(), "{port}");
    }
    let more =
        (0..8000).filter_map(|port| path.insert(key(0, UDP, 4000 + port, 443), LO, MAC, NEIGHBOUR, MTU));
    assert!(more.count() < 4200);
}
