//! Frames with an obvious verdict, for a listener and for a connection, IPv4 and IPv6.

use crate::{
    filters,
    frames::{
        ETHERTYPE_ARP, ETHERTYPE_VLAN, Extension, ICMP, ICMP6, Ip4, TCP, UDP, around, arp, ethernet, icmp,
        ip6, packet, transport,
    },
    model::Verdict::{self, Control, Flow, Foreign, Fragment},
    run::{capture, guard, is_root, load, loopback},
};
use netkat::{
    kernel::{CommandFilter, Filter, FlowFilter, FlowKey, Programs},
    net::{FiveTuple, MacAddr, Protocol},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

const US: &str = "10.0.0.1";
const PEER: &str = "10.0.0.2";
const STRANGER: &str = "10.0.0.3";
const US6: &str = "fd00::1";
const PEER6: &str = "fd00::2";
const STRANGER6: &str = "fd00::3";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn listener() -> FlowFilter {
    filters::listener(Protocol::Tcp, vec![ip(US), ip(US6)], 8080)
}

fn connection() -> FlowFilter {
    FlowFilter {
        local_addresses: vec![ip(US)],
        local_port: 40000,
        remote_address: Some(ip(PEER)),
        remote_port: Some(80),
        ..listener()
    }
}

fn connection6() -> FlowFilter {
    FlowFilter { local_addresses: vec![ip(US6)], remote_address: Some(ip(PEER6)), ..connection() }
}

/// Checks capture and guard: the guard drops exactly the packets with the flow's ports.
fn check(filter: &FlowFilter, cases: Vec<(&str, Vec<u8>, Verdict)>) {
    if !is_root() {
        return;
    }
    let programs = load(filter);
    for (name, frame, expected) in cases {
        assert_eq!(capture(&programs, &frame), expected, "capture: {name}");
        assert_eq!(guard(&programs, &frame), expected == Flow, "guard: {name}");
    }
}

fn tcp4(source: &str, destination: &str, ports: (u16, u16)) -> Vec<u8> {
    around(&packet(ip(source), ip(destination), TCP, &transport(ports.0, ports.1)))
}

#[test]
fn listener_takes_its_port_from_everyone() {
    let port = transport(5, 8080);
    let udp = packet(ip(PEER), ip(US), UDP, &port);
    check(
        &listener(),
        vec![
            ("any peer", tcp4(PEER, US, (1, 8080)), Flow),
            ("another peer", tcp4(STRANGER, US, (65535, 8080)), Flow),
            ("IPv6", around(&packet(ip(PEER6), ip(US6), TCP, &port)), Flow),
            ("another port", tcp4(PEER, US, (8080, 8081)), Foreign),
            ("another host's", tcp4(PEER, STRANGER, (1, 8080)), Foreign),
            ("another host's, IPv6", around(&packet(ip(PEER6), ip(STRANGER6), TCP, &port)), Foreign),
            ("another protocol", around(&udp), Foreign),
            ("what we send", tcp4(US, PEER, (8080, 1)), Foreign),
        ],
    );
}

#[test]
fn connection_takes_one_tuple_only() {
    check(
        &connection(),
        vec![
            ("the peer", tcp4(PEER, US, (80, 40000)), Flow),
            ("another flow to the same server", tcp4(PEER, US, (80, 40001)), Foreign),
            ("another port of the peer", tcp4(PEER, US, (81, 40000)), Foreign),
            ("another peer", tcp4(STRANGER, US, (80, 40000)), Foreign),
            (
                "IPv6 with the same ports",
                around(&packet(ip(PEER6), ip(US6), TCP, &transport(80, 40000))),
                Foreign,
            ),
        ],
    );
}

#[test]
fn every_local_address_of_a_full_list_counts() {
    if !is_root() {
        return;
    }
    let v4 = (1..=64).map(|i| ip(&format!("10.1.0.{i}")));
    let v6 = (1..=64).map(|i| ip(&format!("fd01::{i:x}")));
    let filter = FlowFilter { local_addresses: v4.chain(v6).collect(), ..listener() };
    let programs = load(&filter);
    for &address in &filter.local_addresses {
        let peer = if address.is_ipv4() { PEER } else { PEER6 };
        let frame = around(&packet(ip(peer), address, TCP, &transport(1, 8080)));
        assert_eq!(capture(&programs, &frame), Flow, "{address}");
        assert!(guard(&programs, &frame), "{address}");
    }
    for other in ["10.1.0.65", "10.1.0.0", "fd01::41", "fd01::"] {
        let peer = if ip(other).is_ipv4() { PEER } else { PEER6 };
        let frame = around(&packet(ip(peer), ip(other), TCP, &transport(1, 8080)));
        assert_eq!(capture(&programs, &frame), Foreign, "{other}");
    }
}

#[test]
fn ipv4_headers_of_all_lengths() {
    let ports = transport(80, 40000);
    let with = |options| around(&Ip4 { options, ..Ip4::new(PEER, US, TCP) }.packet(&ports));
    let broken = |byte: u8| {
        let mut frame = tcp4(PEER, US, (80, 40000));
        frame[14] = byte;
        frame
    };
    let cut = |mut frame: Vec<u8>, length| {
        frame.truncate(length);
        frame
    };
    check(
        &connection(),
        vec![
            ("four bytes of options", with(4), Flow),
            ("forty bytes of options", with(40), Flow),
            ("header length below 20", broken(0x44), Foreign),
            ("version 6 in an IPv4 frame", broken(0x65), Foreign),
            ("no ports", cut(tcp4(PEER, US, (80, 40000)), 14 + 20), Foreign),
            ("three bytes of ports", cut(tcp4(PEER, US, (80, 40000)), 14 + 23), Foreign),
            ("ports and no more", cut(tcp4(PEER, US, (80, 40000)), 14 + 24), Flow),
            ("options cut short", cut(with(40), 14 + 50), Foreign),
        ],
    );
}

#[test]
fn fragments_go_to_both_but_for_the_first() {
    let fragment =
        |offset, more| Ip4 { offset, more, ..Ip4::new(PEER, US, TCP) }.packet(&transport(80, 40000));
    let stranger = Ip4 { offset: 8, ..Ip4::new(STRANGER, US, TCP) }.packet(&[0; 8]);
    let udp = Ip4 { offset: 8, ..Ip4::new(PEER, US, UDP) }.packet(&[0; 8]);
    check(
        &connection(),
        vec![
            ("first", around(&fragment(0, true)), Flow),
            ("middle", around(&fragment(1480, true)), Fragment),
            ("last", around(&fragment(65528, false)), Fragment),
            ("a stranger's", around(&stranger), Foreign),
            ("another protocol's", around(&udp), Foreign),
        ],
    );
}

#[test]
fn ipv6_extension_headers() {
    use Extension::{Authentication, Fragment as Frag, Options};
    let with =
        |extensions: &[Extension]| around(&ip6(v6(PEER6), v6(US6), extensions, TCP, &transport(80, 40000)));
    let cut = |mut frame: Vec<u8>, length| {
        frame.truncate(length);
        frame
    };
    check(
        &connection6(),
        vec![
            ("none", with(&[]), Flow),
            ("hop by hop", with(&[Options(0, 0)]), Flow),
            ("long destination options", with(&[Options(60, 31)]), Flow),
            ("routing, mobility", with(&[Options(43, 2), Options(135, 0)]), Flow),
            ("authentication", with(&[Authentication(4)]), Flow),
            ("first fragment", with(&[Options(0, 0), Frag(0), Options(60, 0)]), Flow),
            ("later fragment", with(&[Options(0, 0), Frag(1448)]), Fragment),
            ("eight of them", with(&vec![Options(60, 0); 8]), Flow),
            ("nine of them", with(&vec![Options(60, 0); 9]), Foreign),
            ("an unknown one", with(&[Options(253, 0)]), Foreign),
            ("cut in an extension", cut(with(&[Options(0, 0)]), 14 + 41), Foreign),
            ("cut in the fragment header", cut(with(&[Frag(1448)]), 14 + 47), Foreign),
            ("cut before the ports", cut(with(&[Options(0, 0)]), 14 + 50), Foreign),
        ],
    );
}

#[test]
fn icmp_errors_are_seen_and_left_to_the_kernel() {
    let ours = packet(ip(US), ip(PEER), TCP, &transport(40000, 80));
    let received = packet(ip(PEER), ip(US), TCP, &transport(80, 40000));
    let other = packet(ip(US), ip(PEER), TCP, &transport(40001, 80));
    let fragment = Ip4 { offset: 8, ..Ip4::new(US, PEER, TCP) }.packet(&transport(40000, 80));
    let options = Ip4 { options: 8, ..Ip4::new(US, PEER, TCP) }.packet(&transport(40000, 80));
    let error = |kind, quoted: &[u8]| around(&packet(ip(STRANGER), ip(US), ICMP, &icmp(kind, quoted)));
    check(
        &connection(),
        vec![
            ("unreachable", error(3, &ours), Control),
            ("time exceeded", error(11, &ours), Control),
            ("parameter problem", error(12, &ours), Control),
            ("quoting options", error(3, &options), Control),
            ("only eight bytes quoted", error(3, &ours[..28]), Control),
            ("ports not quoted", error(3, &ours[..22]), Foreign),
            ("header not quoted", error(3, &ours[..12]), Foreign),
            ("redirect", error(5, &ours), Foreign),
            ("echo request", error(8, &ours), Foreign),
            ("about another flow", error(3, &other), Foreign),
            ("about a packet we got", error(3, &received), Foreign),
            ("about a later fragment", error(3, &fragment), Foreign),
        ],
    );
}

#[test]
fn icmpv6_errors_are_seen_and_left_to_the_kernel() {
    let ours = packet(ip(US6), ip(PEER6), TCP, &transport(40000, 80));
    let other = packet(ip(US6), ip(PEER6), TCP, &transport(40000, 81));
    let extended = ip6(v6(US6), v6(PEER6), &[Extension::Options(60, 1)], TCP, &transport(40000, 80));
    let error = |kind, quoted: &[u8]| around(&packet(ip(STRANGER6), ip(US6), ICMP6, &icmp(kind, quoted)));
    check(
        &connection6(),
        vec![
            ("unreachable", error(1, &ours), Control),
            ("packet too big", error(2, &ours), Control),
            ("time exceeded", error(3, &ours), Control),
            ("parameter problem", error(4, &extended), Control),
            ("echo request", error(128, &ours), Foreign),
            ("about another flow", error(1, &other), Foreign),
            ("solicitation, when not asked for", error(135, &v6(US6).octets()), Foreign),
        ],
    );
}

/// The kernel gets datagrams to groups, too: they are for the other members on the host. Unicast
/// addresses in frames for several hosts are forged.
#[test]
fn groups_are_heard_and_left_to_the_kernel() {
    const ALL: [u8; 6] = [0xff; 6];
    const MEMBERS: [u8; 6] = [0x01, 0x00, 0x5e, 1, 2, 3];
    const MEMBERS6: [u8; 6] = [0x33, 0x33, 0, 0, 0, 5];
    let frame = |destination: &str, protocol: u8, port: u16| {
        let source = if destination.contains(':') { PEER6 } else { PEER };
        around(&packet(ip(source), ip(destination), protocol, &transport(1, port)))
    };
    let groups = ["10.0.0.255", "239.1.2.3", "ff02::5"].map(ip).to_vec();
    let all = FlowFilter { protocol: Protocol::Udp, groups, ..listener() };
    check(
        &all,
        vec![
            ("a broadcast", to(ALL, frame("10.0.0.255", UDP, 8080)), Control),
            ("a group", to(MEMBERS, frame("239.1.2.3", UDP, 8080)), Control),
            ("a group, IPv6", to(MEMBERS6, frame("ff02::5", UDP, 8080)), Control),
            ("on a link without addresses", frame("239.1.2.3", UDP, 8080), Control),
            ("us", frame(US, UDP, 8080), Flow),
            ("us, IPv6", frame(US6, UDP, 8080), Flow),
            ("us, in a frame for all", to(ALL, frame(US, UDP, 8080)), Foreign),
            ("us, in a frame for all, IPv6", to(MEMBERS6, frame(US6, UDP, 8080)), Foreign),
            ("another group", to(MEMBERS, frame("239.1.2.4", UDP, 8080)), Foreign),
            ("another group, IPv6", to(MEMBERS6, frame("ff02::6", UDP, 8080)), Foreign),
            ("another port", to(MEMBERS, frame("239.1.2.3", UDP, 8081)), Foreign),
            ("another protocol", to(MEMBERS, frame("239.1.2.3", TCP, 8080)), Foreign),
        ],
    );
    check(
        &FlowFilter { groups_only: true, ..all.clone() },
        vec![
            ("a group", to(MEMBERS, frame("239.1.2.3", UDP, 8080)), Control),
            ("a group, IPv6", to(MEMBERS6, frame("ff02::5", UDP, 8080)), Control),
            ("us", frame(US, UDP, 8080), Foreign),
            ("us, IPv6", frame(US6, UDP, 8080), Foreign),
        ],
    );
    check(
        &FlowFilter { protocol: Protocol::Tcp, ..all },
        vec![("TCP to a group", to(MEMBERS, frame("239.1.2.3", TCP, 8080)), Foreign)],
    );
}

#[test]
fn neighbour_discovery_for_an_address_of_ours() {
    let ns =
        |target: &str, to: &str| around(&packet(ip(PEER6), ip(to), ICMP6, &icmp(135, &v6(target).octets())));
    let na =
        |target: &str, to: &str| around(&packet(ip(PEER6), ip(to), ICMP6, &icmp(136, &v6(target).octets())));
    let who_has =
        |target: &str| ethernet(ETHERTYPE_ARP, &arp(PEER.parse().unwrap(), target.parse().unwrap()));
    let claim = ethernet(ETHERTYPE_ARP, &arp(US.parse().unwrap(), Ipv4Addr::UNSPECIFIED));
    let mut odd = who_has(US);
    odd[14 + 4] = 8;
    let filter = FlowFilter { neighbour_discovery: true, ..listener() };
    check(
        &filter,
        vec![
            ("ARP for us", who_has(US), Control),
            ("ARP for another", who_has(STRANGER), Foreign),
            ("ARP that claims our address", claim, Control),
            ("ARP with eight-byte addresses", odd, Foreign),
            ("ARP cut short", who_has(US)[..14 + 27].to_vec(), Foreign),
            ("solicitation for us", ns(US6, "ff02::1:ff00:1"), Control),
            ("solicitation for another", ns(STRANGER6, "ff02::1:ff00:3"), Foreign),
            ("advertisement that claims our address", na(US6, "ff02::1"), Control),
            ("advertisement to us", na(PEER6, US6), Control),
            ("advertisement to another", na(PEER6, STRANGER6), Foreign),
            ("the flow all the same", tcp4(PEER, US, (1, 8080)), Flow),
        ],
    );
    check(&listener(), vec![("ARP, when not asked for", who_has(US), Foreign)]);
}

/// Returns the frame to another link address.
fn to(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

/// RFC 1122 4.2.3.10: the guard leaves these to the kernel, which ignores them.
#[test]
fn frames_for_others_and_for_groups_are_no_flow() {
    const OTHER: [u8; 6] = [2, 0xaa, 0xbb, 0xcc, 0xdd, 1];
    const ALL: [u8; 6] = [0xff; 6];
    const NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    let filter = FlowFilter { neighbour_discovery: true, ..listener() };
    let six = || around(&packet(ip(PEER6), ip(US6), TCP, &transport(1, 8080)));
    let later = || around(&Ip4 { offset: 8, ..Ip4::new(PEER, US, TCP) }.packet(&[0; 8]));
    let quoted = packet(ip(US), ip(PEER), TCP, &transport(8080, 1));
    let error = || around(&packet(ip(STRANGER), ip(US), ICMP, &icmp(3, &quoted)));
    let quoted6 = packet(ip(US6), ip(PEER6), TCP, &transport(8080, 1));
    let error6 = || around(&packet(ip(STRANGER6), ip(US6), ICMP6, &icmp(1, &quoted6)));
    let who_has = || ethernet(ETHERTYPE_ARP, &arp(PEER.parse().unwrap(), US.parse().unwrap()));
    let solicitation = || around(&packet(ip(PEER6), ip(US6), ICMP6, &icmp(135, &v6(US6).octets())));
    let mut cases = Vec::new();
    for (group, mac) in [(false, OTHER), (true, ALL), (true, NODES)] {
        let control = if group { Control } else { Foreign };
        cases.extend([
            ("IPv4", to(mac, tcp4(PEER, US, (1, 8080))), Foreign),
            ("IPv6", to(mac, six()), Foreign),
            ("a later fragment", to(mac, later()), Foreign),
            ("an error", to(mac, error()), Foreign),
            ("an ICMPv6 error", to(mac, error6()), Foreign),
            ("ARP", to(mac, who_has()), control),
            ("a solicitation", to(mac, solicitation()), control),
        ]);
    }
    check(&filter, cases);
}

/// To the kernel, an assumed address's frames are another host's; frames to the interface's address
/// are not the assumed address's.
#[test]
fn an_assumed_address_is_found_at_its_link_address_alone() {
    const MAC: [u8; 6] = [2, 0x6e, 10, 0, 0, 1];
    let filter = FlowFilter { neighbour_discovery: true, assumed_mac: Some(MacAddr(MAC)), ..listener() };
    let who_has = ethernet(ETHERTYPE_ARP, &arp(PEER.parse().unwrap(), US.parse().unwrap()));
    check(
        &filter,
        vec![
            ("to it", to(MAC, tcp4(PEER, US, (1, 8080))), Flow),
            ("to the interface", tcp4(PEER, US, (1, 8080)), Foreign),
            ("to another", to([2, 0x6e, 10, 0, 0, 2], tcp4(PEER, US, (1, 8080))), Foreign),
            ("to all", to([0xff; 6], tcp4(PEER, US, (1, 8080))), Foreign),
            ("ARP to it", to(MAC, who_has.clone()), Control),
            ("ARP to all", to([0xff; 6], who_has.clone()), Control),
            ("ARP to the interface", who_has, Foreign),
        ],
    );
}

#[test]
fn a_tag_in_the_frame_is_not_ours() {
    let mut tagged = vec![0x00, 0x05, 0x08, 0x00];
    tagged.extend(packet(ip(PEER), ip(US), TCP, &transport(80, 40000)));
    check(&connection(), vec![("VLAN 5", ethernet(ETHERTYPE_VLAN, &tagged), Foreign)]);
}

#[test]
fn loopback_reroutes_what_we_send_over_ipv4() {
    if !is_root() {
        return;
    }
    let programs = load(&listener());
    assert!(loopback(&programs, &tcp4(US, PEER, (8080, 1))));
    assert!(!loopback(&programs, &tcp4(PEER, US, (1, 8080))), "what we receive");
    assert!(!loopback(&programs, &tcp4(US, PEER, (8081, 1))), "another port's");
    assert!(!loopback(&programs, &around(&packet(ip(US6), ip(PEER6), TCP, &transport(8080, 1)))), "IPv6");
}

#[test]
fn filters_that_match_too_much_or_nothing_are_refused() {
    let refused = |filter: FlowFilter| Programs::load(&Filter::Flow(filter)).err().unwrap().to_string();
    let cases = [
        (FlowFilter { local_addresses: vec![ip("0.0.0.0")], ..listener() }, "unspecified"),
        (FlowFilter { local_addresses: vec![ip("::")], ..listener() }, "unspecified"),
        (FlowFilter { local_addresses: vec![], ..listener() }, "no local address"),
        (FlowFilter { local_port: 0, ..listener() }, "local port is 0"),
        (FlowFilter { remote_port: Some(0), ..listener() }, "remote port is 0"),
        (FlowFilter { local_addresses: vec![ip(US); 65], ..listener() }, "more than 64"),
    ];
    for (filter, expected) in cases {
        let message = refused(filter);
        assert!(message.contains(expected), "{message}");
    }
}

/// Returns a TCP segment with flags; of UDP, these bytes.
fn segment(source: &str, destination: &str, protocol: u8, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut header = transport(ports.0, ports.1);
    header.resize(20, 0);
    header[13] = flags;
    around(&packet(ip(source), ip(destination), protocol, &header))
}

#[test]
fn with_a_flow_table_only_syns_and_its_flows_are_taken() {
    if !is_root() {
        return;
    }
    const ACK: u8 = 0x10;
    let flow = |remote: &str, local: &str, port| FiveTuple {
        protocol: Protocol::Tcp,
        local: SocketAddr::new(ip(local), 8080),
        remote: SocketAddr::new(ip(remote), port),
    };
    let scanner = FlowFilter { remote_address: Some(ip(PEER)), local_addresses: vec![ip(US)], ..listener() };
    for (filter, us, peer) in [(listener(), US, PEER), (listener(), US6, PEER6), (scanner, US, PEER)] {
        let mut programs = load(&FlowFilter { table: 100, ..filter });
        let ours = |programs: &Programs, port, flags| {
            let frame = segment(peer, us, TCP, (port, 8080), flags);
            let taken = guard(programs, &frame);
            let captured = capture(programs, &frame);
            assert_eq!(captured == Flow, taken);
            (captured != Foreign, taken)
        };
        let (foreign, flow_of_ours, unsure) = ((false, false), (true, true), (true, false));
        let known = flow(peer, us, 5);
        for (flags, expected) in [
            (0x02, flow_of_ours),
            (0xc2, flow_of_ours), // with ECN
            (0x12, foreign),
            (ACK, foreign),
            (0x11, foreign),
            (0x04, foreign),
            (0x06, foreign),
            (0x03, foreign),
            (0x00, foreign),
        ] {
            assert_eq!(ours(&programs, 5, flags), expected, "{flags:#x}");
        }
        assert!(programs.table().unwrap().insert(&known));
        for flags in 0..=0xff {
            assert_eq!(ours(&programs, 5, flags), flow_of_ours, "{flags:#x}");
        }
        assert_eq!(ours(&programs, 6, ACK), foreign);
        // While cookies are out, the kernel sees a possible ACK of one, too.
        programs.capture_unknown(Duration::from_secs(60));
        assert_eq!((ours(&programs, 5, ACK), ours(&programs, 6, ACK)), (flow_of_ours, unsure));
        programs.capture_unknown(Duration::ZERO);
        programs.table().unwrap().remove(&known);
        assert_eq!((ours(&programs, 5, ACK), ours(&programs, 6, ACK)), (foreign, foreign));
        // The first fragment of a tiny kind has no flags: RFC 1858.
        let tiny = around(&packet(ip(peer), ip(us), TCP, &transport(5, 8080)[..4]));
        assert_eq!(capture(&programs, &tiny), Foreign);
        assert!(programs.table().unwrap().insert(&known));
        assert_eq!(capture(&programs, &tiny), Flow);
    }
    // A datagram opens nothing.
    let udp = FlowFilter { protocol: Protocol::Udp, table: 100, ..listener() };
    let mut programs = load(&udp);
    let frame = segment(PEER, US, UDP, (5, 8080), 0x02);
    programs.capture_unknown(Duration::from_secs(60));
    assert_eq!((capture(&programs, &frame), guard(&programs, &frame)), (Foreign, false));
    assert!(programs.table().unwrap().insert(&flow(PEER, US, 5)));
    assert_eq!(capture(&programs, &frame), Foreign, "a TCP flow");
    assert!(programs.table().unwrap().insert(&FiveTuple { protocol: Protocol::Udp, ..flow(PEER, US, 5) }));
    assert_eq!((capture(&programs, &frame), guard(&programs, &frame)), (Flow, true));
    // Without a table there is none to fill.
    assert!(load(&listener()).table().is_none());
}

#[test]
fn a_command_gets_its_flows_and_published_ports_alone() {
    if !is_root() {
        return;
    }
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    for (us, peer) in [(US, PEER), (US6, PEER6)] {
        let filter = Filter::Command(CommandFilter {
            local_addresses: vec![ip(us)],
            published: vec![(Protocol::Tcp, 80), (Protocol::Udp, 53)],
            table: 100,
            assumed_mac: None,
            fast_path: None,
        });
        let mut programs = Programs::load(&filter).expect("loads");
        let verdict = |programs: &Programs, protocol, ports: (u16, u16), flags| {
            let frame = segment(peer, us, protocol, ports, flags);
            (capture(programs, &frame) != Foreign, guard(programs, &frame))
        };
        let (foreign, ours) = ((false, false), (true, true));
        let at = |address: &str, port| SocketAddr::new(ip(address), port);
        let key =
            |protocol, local, remote| FlowKey { protocol, local: at(us, local), remote: at(peer, remote) };
        // Published ports open by a SYN or a datagram, and by nothing else.
        assert_eq!(verdict(&programs, TCP, (5, 80), SYN), ours);
        assert_eq!(verdict(&programs, TCP, (5, 80), ACK), foreign);
        assert_eq!(verdict(&programs, TCP, (5, 81), SYN), foreign);
        assert_eq!(verdict(&programs, UDP, (5, 53), 0), ours);
        assert_eq!(verdict(&programs, UDP, (5, 80), 0), foreign);
        // A TCP flow is its five-tuple; a UDP flow has any port of its peer.
        assert!(programs.table().unwrap().insert(key(TCP, 4000, 443)));
        assert!(programs.table().unwrap().insert(key(UDP, 4000, 0)));
        assert_eq!(verdict(&programs, TCP, (443, 4000), ACK), ours);
        assert_eq!(verdict(&programs, TCP, (444, 4000), ACK), foreign);
        assert_eq!(verdict(&programs, TCP, (443, 4001), SYN), foreign);
        assert_eq!(verdict(&programs, UDP, (69, 4000), 0), ours);
        assert_eq!(verdict(&programs, UDP, (69, 4001), 0), foreign);
        let elsewhere = segment(us, peer, TCP, (443, 4000), ACK);
        assert_eq!((capture(&programs, &elsewhere), guard(&programs, &elsewhere)), (Foreign, false));
        programs.table().unwrap().remove(key(TCP, 4000, 443));
        assert_eq!(verdict(&programs, TCP, (443, 4000), ACK), foreign);
        // Echo replies go to both stacks.
        let (protocol, reply) = if us == US { (1, 0) } else { (58, 129) };
        let echo = around(&packet(ip(peer), ip(us), protocol, &[reply, 0, 0, 0, 0x12, 0x34, 0, 1]));
        assert_eq!(capture(&programs, &echo), Foreign);
        assert!(programs.table().unwrap().insert(key(protocol, 0x1234, 0)));
        assert_eq!((capture(&programs, &echo), guard(&programs, &echo)), (Control, false));
        // Errors about a flow do, too.
        let unreachable = if us == US { 3 } else { 1 };
        for (port, expected) in [(4000, Control), (4001, Foreign)] {
            let mut message = vec![unreachable, 3, 0, 0, 0, 0, 0, 0];
            message.extend(packet(ip(us), ip(peer), UDP, &transport(port, 33_434)));
            let error = around(&packet(ip(peer), ip(us), protocol, &message));
            assert_eq!((capture(&programs, &error), guard(&programs, &error)), (expected, false));
        }
    }
}
