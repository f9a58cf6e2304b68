//! Source validation: netkat ignores frames for others, answers neither impossible sources nor
//! sources whose return route leads elsewhere, and serves every honest client by whichever path it
//! comes.
use crate::support::{
    frames::{HOST_MAC, PEER_MAC, sees},
    namespace::Namespace,
    netkat::{GUARDS, listening},
    packet_socket::{Mode, PacketSocket},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Input, Process},
    requirements::lab,
    topology::{Family, Pair, address, at, veth},
};
use netkat::{
    host::interface,
    stack::ip::{Fragmentation, TCP, Template, UDP, pseudo_header},
};
use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

const PORT: u16 = 5000;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// Deadline of an expected answer, and the wait for an answer that must not come.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);
/// A link address that no interface has.
const NOBODY: [u8; 6] = [2, 0xaa, 0xbb, 0xcc, 0xdd, 1];

/// A frame of the test's to the listener, from a port of its own.
#[derive(Clone, Copy, Debug)]
struct Probe {
    protocol: u8,
    flags: u8,
    source: IpAddr,
    to: IpAddr,
    sender: [u8; 6],
    mac: [u8; 6],
}

impl Probe {
    fn frame(&self, port: u16) -> Vec<u8> {
        let mut transport = [port.to_be_bytes(), PORT.to_be_bytes()].concat();
        let checksum = match self.protocol {
            TCP => {
                transport.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
                16
            }
            _ => {
                transport.extend([0, 14, 0, 0]);
                transport.extend(b"forged");
                6
            }
        };
        let sum = pseudo_header(self.source, self.to, self.protocol, transport.len()).add(&transport);
        transport[checksum..checksum + 2].copy_from_slice(&sum.checksum().to_be_bytes());
        let template = Template {
            source: self.source,
            destination: self.to,
            protocol: self.protocol,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut header = [0; 40];
        let length = template.write(transport.len(), 1, Fragmentation::Allowed(1), &mut header);
        let ethertype = template.ethertype().to_be_bytes();
        [&self.mac[..], &self.sender, &ethertype, &header[..length], &transport].concat()
    }
}

/// A sender of forged frames on a link.
struct Forger(PacketSocket);

/// Ports that no test uses twice, so that the pair identifies an answer.
fn fresh_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Forger {
    fn new(namespace: &Namespace, interface: &str) -> Self {
        Self(namespace.inside(|| PacketSocket::open(interface, Mode::default())).expect("a packet socket"))
    }

    /// Sends the probe, and waits for an answer.
    fn is_answered(&self, probe: Probe, within: Duration) -> bool {
        let port = fresh_port();
        self.0.send(&probe.frame(port)).expect("sending");
        sees(&self.0, &[PORT.to_be_bytes(), port.to_be_bytes()].concat(), within)
    }

    /// Sends the probe until an answer comes, as an honest sender does: the first SYN may be lost.
    fn is_served(&self, probe: Probe) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.is_answered(probe, SILENCE) {
                return true;
            }
        }
        false
    }
}

fn probe(family: Family, source: IpAddr) -> Probe {
    let to = at(family, "10.77.0.1", "fd77::1");
    Probe { protocol: TCP, flags: SYN, source, to, sender: PEER_MAC, mac: HOST_MAC }
}

/// Makes the host know its neighbour.
fn acquainted(pair: &Pair) {
    for family in Family::ALL {
        let mac = netkat::net::MacAddr(PEER_MAC);
        let there = pair.peer_address(family);
        pair.host.ip(&format!("neigh replace {there} lladdr {mac} dev eth0 nud reachable"));
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Sources without a route back to the forger.
fn impossible(family: Family) -> &'static [&'static str] {
    match family {
        Family::V4 => &[
            "255.255.255.255",
            "10.77.0.255",
            "224.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.0.0.7",
            "240.0.0.1",
            // Own addresses of the host: the listener's, and another interface's.
            "10.77.0.1",
            "10.79.0.1",
            // No route leads there; a route refuses.
            "10.99.0.9",
            "10.98.0.9",
        ],
        Family::V6 => &[
            "::",
            "::1",
            "ff02::1",
            "ff0e::7",
            "::ffff:10.77.0.2",
            "fd77::1",
            "fd79::1",
            "fd99::9",
            "fd98::9",
        ],
    }
}

/// Returns a pair whose host has a second link, eth1, to a third host: 10.79.0.1 and .2, fd79::1
/// and ::2.
fn with_third() -> (Pair, Namespace) {
    let (pair, third) = (Pair::new(), Namespace::new("third"));
    veth(&pair.host, "eth1", &third, "eth1");
    for (end, number) in [(&pair.host, 1), (&third, 2)] {
        address(end, "eth1", &format!("10.79.0.{number}/24"));
        address(end, "eth1", &format!("fd79::{number}/64"));
    }
    pair.host.ip("route add unreachable 10.98.0.0/16");
    pair.host.ip("-6 route add unreachable fd98::/16");
    acquainted(&pair);
    (pair, third)
}

fn strictness(host: &Namespace, value: &str) {
    for interface in ["all", "eth0", "eth1"] {
        host.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), value);
    }
}

#[test]
fn sources_without_a_return_route_get_no_answer() {
    lab!();
    let (pair, _third) = with_third();
    let forger = Forger::new(&pair.peer, "eth0");
    for rp_filter in ["0", "1", "2"] {
        strictness(&pair.host, rp_filter);
        for arguments in ["--guard tcx", "--guard clsact -k", "--guard nft -k"] {
            let _server = listening(&pair.host, &format!("{arguments} {PORT}"), |c| c.input(Input::Open));
            for family in Family::ALL {
                for source in impossible(family) {
                    let probe = probe(family, ip(source));
                    assert!(!forger.is_answered(probe, SILENCE / 3), "SYN from {source}, {rp_filter}");
                    let ack = Probe { flags: ACK, ..probe };
                    assert!(!forger.is_answered(ack, SILENCE / 3), "ACK from {source}, {rp_filter}");
                }
                assert!(forger.is_served(probe(family, pair.peer_address(family))), "{family:?}");
            }
        }
    }
}

/// Returns the bytes that a server received.
fn heard(server: &Process) -> String {
    String::from_utf8_lossy(&server.stdout()).into_owned()
}

fn say(from: &Namespace, to: IpAddr, word: &str) {
    from.words(&format!("nc.openbsd -u -q 0 -w 1 {to} {PORT}")).text(word).run();
}

#[test]
fn datagrams_without_a_return_route_are_dropped() {
    lab!("nc.openbsd");
    let (pair, _third) = with_third();
    strictness(&pair.host, "1");
    let forger = Forger::new(&pair.peer, "eth0");
    for arguments in ["--guard tcx", "--guard clsact -k", "--guard nft -k"] {
        for family in Family::ALL {
            let mut server =
                listening(&pair.host, &format!("-u {arguments} {PORT}"), |c| c.input(Input::Open));
            let elsewhere = at(family, "10.79.0.2", "fd79::2");
            let forged = impossible(family).iter().map(|source| ip(source)).chain([elsewhere]);
            for source in forged {
                let probe = Probe { protocol: UDP, ..probe(family, source) };
                forger.0.send(&probe.frame(fresh_port())).expect("sending");
            }
            let honest = Probe { protocol: UDP, ..probe(family, pair.peer_address(family)) };
            for mac in [NOBODY, [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
                forger.0.send(&Probe { mac, ..honest }.frame(fresh_port())).expect("sending");
            }
            say(&pair.peer, pair.host_address(family), "honest");
            server.wait_for_stdout("honest");
            assert_eq!(heard(&server), "honest", "{family:?} {arguments}");
        }
    }
}

/// Without a strict reverse path filter, the answer follows the route, as the kernel's does; with
/// one, and over IPv6, there is no answer.
#[test]
fn a_source_behind_another_interface_is_answered_there_or_not_at_all() {
    lab!();
    for rp_filter in ["0", "1", "2"] {
        let (pair, third) = with_third();
        strictness(&pair.host, rp_filter);
        let forger = Forger::new(&pair.peer, "eth0");
        let there = Forger::new(&third, "eth1");
        let _server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(Input::Open));
        for family in Family::ALL {
            let source = at(family, "10.79.0.2", "fd79::2");
            for to in [at(family, "10.77.0.1", "fd77::1"), at(family, "10.79.0.1", "fd79::1")] {
                let probe = Probe { to, ..probe(family, source) };
                assert!(!forger.is_answered(probe, SILENCE), "{source} to {to}, {rp_filter}");
                let port = fresh_port();
                let mark = [PORT.to_be_bytes(), port.to_be_bytes()].concat();
                let started = Instant::now();
                let mut answered = false;
                while !answered && started.elapsed() < if rp_filter == "1" { SILENCE } else { PATIENCE } {
                    forger.0.send(&probe.frame(port)).expect("sending");
                    answered = sees(&there.0, &mark, SILENCE);
                    if family == Family::V6 {
                        break;
                    }
                }
                assert_eq!(
                    answered,
                    rp_filter != "1" && family == Family::V4,
                    "{source} to {to}, {rp_filter}"
                );
            }
        }
    }
}

#[test]
fn a_neighbour_entered_by_hand_speaks_from_its_link_address_alone() {
    lab!();
    let (pair, _third) = with_third();
    let forger = Forger::new(&pair.peer, "eth0");
    let _server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(Input::Open));
    let enter = |address: IpAddr, mac: [u8; 6]| {
        let mac = netkat::net::MacAddr(mac);
        pair.host.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent"));
    };
    for family in Family::ALL {
        // On the link, and as a gateway.
        let (near, far) = (at(family, "10.77.0.9", "fd77::9"), at(family, "10.97.0.9", "fd97::9"));
        let net = if family == Family::V4 { "10.97.0.0/16" } else { "fd97::/16" };
        pair.host.ip(&format!("route add {net} via {near} dev eth0"));
        enter(near, NOBODY);
        for source in [near, far] {
            let probe = probe(family, source);
            assert!(!forger.is_answered(probe, SILENCE), "{source} from another link address");
            assert!(forger.is_answered(Probe { sender: NOBODY, ..probe }, PATIENCE), "{source}");
        }
        // The administrator corrects the entry.
        enter(near, PEER_MAC);
        for source in [near, far] {
            assert!(forger.is_served(probe(family, source)), "{source} after the change");
            assert!(
                !forger.is_answered(Probe { sender: NOBODY, ..probe(family, source) }, SILENCE),
                "{source}"
            );
        }
    }
}

/// Returns destination and source address of the frames that answer to this port in time.
fn link_addresses(forger: &Forger, port: u16) -> Vec<Vec<u8>> {
    let mark = [PORT.to_be_bytes(), port.to_be_bytes()].concat();
    let mut buffer = vec![0; 65536];
    let mut found = Vec::new();
    let started = Instant::now();
    while started.elapsed() < SILENCE {
        while let Some(length) = forger.0.receive(&mut buffer).expect("receiving") {
            if buffer[..length].windows(mark.len()).any(|window| window == mark) {
                found.push(buffer[..12].to_vec());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    found
}

/// An answer goes to the link address that resolution returns, and from the interface's own, so a
/// forged source alone gets nothing.
#[test]
fn a_source_that_the_neighbour_table_knows_elsewhere_is_not_answered_to_the_forger() {
    lab!();
    let right = [PEER_MAC, HOST_MAC].concat();
    for family in Family::ALL {
        let (pair, _third) = with_third();
        let forger = Forger::new(&pair.peer, "eth0");
        let forged = Probe { sender: NOBODY, ..probe(family, pair.peer_address(family)) };
        let server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(Input::Open));
        let port = fresh_port();
        forger.0.send(&forged.frame(port)).expect("sending");
        let frames = link_addresses(&forger, port);
        assert!(
            !frames.is_empty() && frames.iter().all(|frame| *frame == right),
            "{family:?}: {frames:02x?}"
        );
        drop(server);

        // A datagram of the true peer does not redirect our answers, either.
        let mut server = listening(&pair.host, &format!("-u -k {PORT}"), |c| c.input(Input::Open));
        let port = fresh_port();
        for (sender, heard) in [(PEER_MAC, "forged"), (NOBODY, "forgedforged")] {
            let probe = Probe { protocol: UDP, sender, ..forged };
            forger.0.send(&probe.frame(port)).expect("sending");
            server.wait_for_stdout(heard);
        }
        server.write(b"answer\n");
        let frames = link_addresses(&forger, port);
        assert!(
            !frames.is_empty() && frames.iter().all(|frame| *frame == right),
            "{family:?}, UDP: {frames:02x?}"
        );
    }
}

#[test]
fn frames_for_others_are_left_alone() {
    lab!("nc.openbsd");
    for guard in GUARDS {
        let pair = Pair::new();
        acquainted(&pair);
        let forger = Forger::new(&pair.peer, "eth0");
        let out = Payload::short();
        let server = listening(&pair.host, &format!("--guard {guard} {PORT}"), |c| c.expect(&out));
        for family in Family::ALL {
            let probe = probe(family, pair.peer_address(family));
            for mac in [NOBODY, [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
                for flags in [SYN, ACK] {
                    let probe = Probe { mac, flags, ..probe };
                    assert!(!forger.is_answered(probe, SILENCE / 2), "{guard}: {probe:?}");
                }
            }
            // The kernel handles an ACK of no connection of netkat's; a SYN shows that the frame is
            // valid.
            assert!(forger.is_answered(probe, PATIENCE), "{guard}: a SYN for us");
        }
        let client = Netcat::OpenBsd.connect(&pair.peer, pair.host_address(Family::V4), PORT);
        assert_eq!(client.input(out.input()).run().code(), Some(0));
        server.wait(DEADLINE).check(&out);
    }
}

/// Transfers both ways with an honest client that comes by a path of its own.
fn served(host: &Namespace, client: &Namespace, own: IpAddr, to: IpAddr, arguments: &str) {
    let (out, back) = (Payload::new(30, MIB), Payload::new(31, MIB));
    let server = listening(host, &format!("{arguments} {PORT}"), |c| c.input(back.input()).expect(&out));
    let bind = format!("nc.openbsd -N -w 30 -s {own} {to} {PORT}");
    let client = client.words(&bind).input(out.input()).expect(&back).run();
    client.check(&back);
    let server = server.wait(DEADLINE);
    server.check(&out);
    assert_eq!(server.code(), Some(0), "{own} to {to}: {server}");
}

/// A pair with two links, whose peer has addresses on its lo: 10.80.0.1 and fd80::1.
fn two_links() -> Pair {
    let pair = Pair::new();
    veth(&pair.host, "eth1", &pair.peer, "eth1");
    for (end, number) in [(&pair.host, 1), (&pair.peer, 2)] {
        address(end, "eth1", &format!("10.79.0.{number}/24"));
        address(end, "eth1", &format!("fd79::{number}/64"));
        strictness(end, "2");
    }
    address(&pair.peer, "lo", "10.80.0.1/32");
    address(&pair.peer, "lo", "fd80::1/128");
    pair
}

/// The client comes by the second uplink; the route back leads through the first, whose gateway
/// this host has never asked for.
#[test]
fn an_asymmetric_client_is_served_where_the_host_allows_it() {
    lab!("nc.openbsd");
    let pair = two_links();
    pair.host.ip("route add 10.80.0.1 via 10.77.0.2");
    pair.peer.ip("route add 10.77.0.1 via 10.79.0.1 dev eth1");
    served(&pair.host, &pair.peer, ip("10.80.0.1"), ip("10.77.0.1"), "");
    let mut server = listening(&pair.host, &format!("-u -k {PORT}"), |c| c.input(Input::Open));
    let client = pair.peer.words(&format!("nc.openbsd -u -s 10.80.0.1 10.77.0.1 {PORT}"));
    let mut client = client.input(Input::Open).spawn();
    client.write(b"question\n");
    server.wait_for_stdout("question");
    server.write(b"answer\n");
    client.wait_for_stdout("answer");
}

#[test]
fn a_client_of_a_route_with_two_paths_may_come_by_either() {
    lab!("nc.openbsd");
    let pair = two_links();
    strictness(&pair.host, "1");
    pair.host.ip("route add 10.80.0.1 nexthop via 10.77.0.2 dev eth0 nexthop via 10.79.0.2 dev eth1");
    pair.host.ip("-6 route add fd80::1 nexthop via fd77::2 dev eth0 nexthop via fd79::2 dev eth1");
    for family in Family::ALL {
        let own = at(family, "10.80.0.1", "fd80::1");
        // The peer sends by the link that the address is on.
        for to in [at(family, "10.77.0.1", "fd77::1"), at(family, "10.79.0.1", "fd79::1")] {
            served(&pair.host, &pair.peer, own, to, "");
        }
    }
}

#[test]
fn a_route_that_comes_lets_a_client_in() {
    lab!("nc.openbsd");
    let pair = two_links();
    strictness(&pair.host, "1");
    let _server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(Input::Open));
    for family in Family::ALL {
        let (own, to) = (at(family, "10.80.0.1", "fd80::1"), pair.host_address(family));
        let connect = |wait: u32| {
            pair.peer.words(&format!("nc.openbsd -z -w {wait} -s {own} {to} {PORT}")).run().success()
        };
        assert!(!connect(1), "{own} has no route back");
        pair.host.ip(&format!("route add {own} via {} dev eth0", pair.peer_address(family)));
        assert!(connect(10), "{own} has a route back");
        pair.host.ip(&format!("route del {own}"));
    }
}

/// RFC 4007: a link-local address of eth0 does not answer on eth1, and a link-local client is
/// served on its link.
#[test]
fn link_local_addresses_stay_on_their_link() {
    lab!("nc.openbsd");
    let (pair, third) = with_third();
    address(&pair.host, "eth0", "fe80::77:1/64");
    address(&pair.peer, "eth0", "fe80::77:2/64");
    let out = Payload::short();
    let server = listening(&pair.host, &format!("{PORT}"), |c| c.expect(&out));
    let mac =
        |end: &Namespace| end.inside(|| interface::by_name("eth1")).expect("eth1").mac.expect("Ethernet").0;
    let (theirs, ours) = (mac(&third), mac(&pair.host));
    let forger = Forger::new(&third, "eth1");
    for source in ["fe80::77:2", "fe80::79:2", "fd79::2"] {
        let probe =
            Probe { sender: theirs, mac: ours, to: ip("fe80::77:1"), ..probe(Family::V6, ip(source)) };
        assert!(!forger.is_answered(probe, SILENCE), "{source}");
    }
    let client = pair.peer.words(&format!("nc.openbsd -N -w 30 fe80::77:1%eth0 {PORT}"));
    assert_eq!(client.input(out.input()).run().code(), Some(0));
    server.wait(DEADLINE).check(&out);
}

/// An assumed address is a host of its own: neither itself nor the interface's link address reaches
/// it.
#[test]
fn an_assumed_address_validates_sources_too() {
    lab!("nc.openbsd");
    let (pair, _third) = with_third();
    let forger = Forger::new(&pair.peer, "eth0");
    for family in Family::ALL {
        let own = at(family, "10.77.0.70", "fd77::70");
        let out = Payload::short();
        let server = listening(&pair.host, &format!("--as {own} {PORT}"), |c| c.expect(&out));
        let mac = netkat::net::MacAddr::locally_administered(own).0;
        let honest = Probe { to: own, mac, ..probe(family, pair.peer_address(family)) };
        for source in [own, ip(impossible(family)[2]), pair.host_address(family)] {
            assert!(!forger.is_answered(Probe { source, ..honest }, SILENCE), "{source}");
        }
        for mac in [HOST_MAC, NOBODY, [0xff; 6]] {
            assert!(!forger.is_answered(Probe { mac, ..honest }, SILENCE), "to {mac:02x?}");
        }
        let client = Netcat::OpenBsd.connect(&pair.peer, own, PORT).input(out.input()).run();
        assert_eq!(client.code(), Some(0), "{client}");
        server.wait(DEADLINE).check(&out);
    }
}
