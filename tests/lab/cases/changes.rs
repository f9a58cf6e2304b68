//! The host and its links change under a connection: it goes on, or ends with an error that says why.
use crate::support::{
    namespace::Namespace,
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Input, Process},
    requirements::lab,
    topology::{Family, Pair, address, veth},
};
use std::{net::IpAddr, time::Duration};

const KIB: usize = 1024;
/// Maximum time until a broken connection is reported.
const PROMPT: Duration = Duration::from_secs(5);

/// The side of the connection that netkat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Connects,
    Listens,
}

const ROLES: [Role; 2] = [Role::Connects, Role::Listens];

/// A connection between netkat and a kernel's netcat, both with open input.
struct Talk {
    netkat: Process,
    peer: Process,
    said: [Vec<u8>; 2],
}

impl Talk {
    fn new(pair: &Pair, role: Role, family: Family, arguments: &str) -> Self {
        let (host, peer) = (&pair.host, &pair.peer);
        Self::between(host, pair.host_address(family), peer, pair.peer_address(family), role, arguments)
    }

    fn between(
        host: &Namespace,
        host_address: IpAddr,
        peer: &Namespace,
        peer_address: IpAddr,
        role: Role,
        arguments: &str,
    ) -> Self {
        let open = |command: crate::support::process::Command| command.input(Input::Open);
        let (mut netkat, peer) = match role {
            Role::Connects => {
                let server = Netcat::OpenBsd.listen(peer, peer_address, 5000, open);
                (open(netkat(host, &format!("-v {arguments} {peer_address} 5000"))).spawn(), server)
            }
            Role::Listens => {
                let netkat = listening(host, &format!("{arguments} {host_address} 5000"), open);
                (netkat, open(Netcat::OpenBsd.connect(peer, host_address, 5000)).spawn())
            }
        };
        netkat.wait_for_stderr("established");
        let mut talk = Self { netkat, peer, said: Default::default() };
        talk.both_say(KIB);
        talk
    }

    /// Sends bytes from netkat.
    fn we_say(&mut self, length: usize) {
        let words = words(length, self.said[0].len());
        self.netkat.write(&words);
        self.said[0].extend(words);
    }

    fn peer_says(&mut self, length: usize) {
        let words = words(length, self.said[1].len());
        self.peer.write(&words);
        self.said[1].extend(words);
    }

    /// Waits until all sent bytes have arrived.
    fn is_heard(&mut self) {
        let [ours, theirs] = self.said.each_ref().map(|said| said.len() as u64);
        self.peer.wait_until("what netkat said", |peer| peer.received() >= ours);
        self.netkat.wait_until("what the peer said", |netkat| netkat.received() >= theirs);
    }

    fn both_say(&mut self, length: usize) {
        self.we_say(length);
        self.peer_says(length);
        self.is_heard();
    }

    /// Ends both sides, and checks that all bytes have arrived.
    fn ends_well(mut self) {
        self.netkat.close_stdin();
        self.peer.close_stdin();
        let ours = self.netkat.wait(DEADLINE);
        assert_eq!(ours.code(), Some(0), "{ours}");
        let theirs = self.peer.wait(DEADLINE);
        assert!(theirs.stdout == self.said[0] && ours.stdout == self.said[1], "{ours}\n{theirs}");
    }

    /// Checks that netkat exits by itself, soon, with an error that says this.
    fn breaks(self, words: &str) {
        let ended = self.netkat.wait(PROMPT);
        assert_eq!(ended.code(), Some(1), "{ended}");
        assert!(ended.stderr.contains(words), "{ended}");
    }
}

/// Returns bytes that tell their place.
fn words(length: usize, from: usize) -> Vec<u8> {
    (from..from + length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

fn everywhere(test: impl Fn(&Pair, Role, Family)) {
    for family in Family::ALL {
        for role in ROLES {
            test(&Pair::new(), role, family);
        }
    }
}

#[test]
fn an_address_that_goes_and_comes_back() {
    lab!("nc.openbsd");
    everywhere(|pair, role, family| {
        let mut talk = Talk::new(pair, role, family, "");
        for own in ["10.77.0.1/24", "fd77::1/64"] {
            pair.host.ip(&format!("address del {own} dev eth0"));
        }
        talk.we_say(MIB as usize);
        talk.peer_says(MIB as usize);
        for own in ["10.77.0.1/24", "fd77::1/64"] {
            address(&pair.host, "eth0", own);
        }
        talk.both_say(KIB);
        talk.ends_well();
    });
}

#[test]
fn a_link_that_goes_down_and_up() {
    lab!("nc.openbsd");
    everywhere(|pair, role, family| {
        // A listener on one interface, and one on all of them.
        let mut talk = Talk::new(pair, role, family, if family == Family::V4 { "-i eth0" } else { "" });
        pair.host.ip("link set eth0 down");
        talk.we_say(256 * KIB);
        std::thread::sleep(Duration::from_millis(700));
        assert!(talk.netkat.is_running());
        pair.host.ip("link set eth0 up");
        if family == Family::V6 {
            // The kernel has removed the address with the link; netkat asks for the peer's.
            address(&pair.host, "eth0", "fd77::1/64");
        }
        talk.is_heard();
        talk.both_say(KIB);
        talk.ends_well();
    });
}

#[test]
fn an_interface_that_is_renamed() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    for role in ROLES {
        let mut talk = Talk::new(&pair, role, Family::V4, "");
        let (was, is) = if role == Role::Connects { ("eth0", "lan0") } else { ("lan0", "eth0") };
        let renamed = pair.host.words(&format!("ip link set {was} name {is}")).run();
        if !renamed.success() {
            // Before Linux 6.2 only while the interface is down.
            pair.host.ip(&format!("link set {was} down"));
            pair.host.ip(&format!("link set {was} name {is}"));
            pair.host.ip(&format!("link set {is} up"));
        }
        talk.both_say(MIB as usize);
        talk.ends_well();
    }
    let talk = Talk::new(&pair, Role::Connects, Family::V4, "");
    pair.host.words("ip link set eth0 name wan0").run();
    pair.host.ip("link delete wan0");
    talk.breaks("wan0 disappeared");
}

#[test]
fn an_mtu_that_shrinks_and_grows() {
    lab!("nc.openbsd", "ethtool");
    for family in Family::ALL {
        for role in ROLES {
            for offloads in [true, false] {
                let pair = Pair::new();
                if !offloads {
                    for end in [&pair.host, &pair.peer] {
                        crate::support::topology::offloads_off(end, "eth0");
                    }
                }
                let mut talk = Talk::new(&pair, role, family, "");
                talk.we_say(256 * KIB);
                // The peer's side first: the link then loses larger packets.
                for mtu in [1300, 1500] {
                    for end in [&pair.peer, &pair.host] {
                        end.ip(&format!("link set eth0 mtu {mtu}"));
                    }
                    talk.both_say(MIB as usize);
                }
                talk.ends_well();
            }
        }
    }
}

/// Changes the peer's link address. The kernel announces the change only if told to.
fn move_peer(peer: &Namespace, announces: bool, last: u8) {
    for setting in ["ipv4.conf.eth0.arp_notify", "ipv6.conf.eth0.ndisc_notify"] {
        peer.sysctl(&format!("net.{setting}"), if announces { "1" } else { "0" });
    }
    peer.ip(&format!("link set eth0 address 02:00:00:00:77:{last:02x}"));
}

#[test]
fn a_neighbour_that_moves_to_another_link_address() {
    lab!("nc.openbsd");
    everywhere(|pair, role, family| {
        let mut talk = Talk::new(pair, role, family, "");
        for (announces, last) in [(true, 0xa1), (false, 0xa2)] {
            move_peer(&pair.peer, announces, last);
            talk.we_say(256 * KIB);
            talk.is_heard();
            talk.both_say(KIB);
        }
        talk.ends_well();
    });
}

#[test]
fn a_neighbour_that_moved_before_the_connection() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        let pair = Pair::new();
        let there = pair.peer_address(family);
        pair.host.ip(&format!("neigh replace {there} lladdr 02:00:00:00:77:b1 dev eth0 nud stale"));
        let mut talk = Talk::new(&pair, Role::Connects, family, "");
        talk.both_say(KIB);
        talk.ends_well();
    }
}

#[test]
fn a_neighbour_that_the_administrator_entered_stays() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let there = pair.peer_address(Family::V4);
    pair.host.ip(&format!("neigh replace {there} lladdr 02:00:00:00:77:b1 dev eth0 nud permanent"));
    let _server = Netcat::OpenBsd.listen(&pair.peer, there, 5000, |c| c);
    let refused = netkat(&pair.host, &format!("-w 1500ms {there} 5000")).run();
    assert!(refused.stderr.contains("timed out"), "{refused}");
}

#[test]
fn a_neighbour_table_that_is_flushed() {
    lab!("nc.openbsd");
    everywhere(|pair, role, family| {
        let mut talk = Talk::new(pair, role, family, "");
        pair.host.run("ip neigh flush all");
        talk.both_say(MIB as usize);
        // The kernel has forgotten the entry, so only netkat itself can find the neighbour.
        pair.host.run("ip neigh flush all");
        move_peer(&pair.peer, false, 0xc1);
        talk.we_say(KIB);
        talk.is_heard();
        talk.ends_well();
    });
}

#[test]
fn a_link_address_of_ours_that_changes() {
    lab!("nc.openbsd");
    everywhere(|pair, role, family| {
        let mut talk = Talk::new(pair, role, family, "");
        pair.host.ip("link set eth0 address 02:00:00:00:77:d1");
        talk.both_say(MIB as usize);
        talk.ends_well();
    });
}

/// A host behind a gateway: peer 10.78.0.2 and fd78::2, by way of 10.77.0.9 and fd77::9.
struct Routed {
    host: Namespace,
    gateway: Namespace,
    peer: Namespace,
}

impl Routed {
    fn new() -> Self {
        let [host, gateway, peer] = ["host", "gateway", "peer"].map(Namespace::new);
        veth(&host, "eth0", &gateway, "eth0");
        veth(&gateway, "eth1", &peer, "eth0");
        for (end, interface, number) in [
            (&host, "eth0", "77::1"),
            (&gateway, "eth0", "77::9"),
            (&gateway, "eth1", "78::9"),
            (&peer, "eth0", "78::2"),
        ] {
            address(end, interface, &format!("fd{number}/64"));
            address(end, interface, &format!("10.{}/24", number.replace("::", ".0.")));
        }
        gateway.sysctl("net.ipv4.ip_forward", "1");
        gateway.sysctl("net.ipv6.conf.all.forwarding", "1");
        for (end, net) in [(&host, 77), (&peer, 78)] {
            end.ip(&format!("route add default via 10.{net}.0.9"));
            end.ip(&format!("-6 route add default via fd{net}::9"));
        }
        Self { host, gateway, peer }
    }

    fn talk(&self, role: Role, family: Family) -> Talk {
        let ends = match family {
            Family::V4 => ["10.77.0.1", "10.78.0.2"],
            Family::V6 => ["fd77::1", "fd78::2"],
        };
        let [ours, theirs] = ends.map(|end| end.parse().expect("an address"));
        Talk::between(&self.host, ours, &self.peer, theirs, role, "")
    }
}

#[test]
fn a_gateway_that_fails_over() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        for role in ROLES {
            let net = Routed::new();
            let mut talk = net.talk(role, family);
            for (announces, last) in [(true, 0xe1), (false, 0xe2)] {
                // With and without an announcement, while only netkat sends.
                move_peer(&net.gateway, announces, last);
                talk.we_say(256 * KIB);
                talk.is_heard();
            }
            // While only the peer sends.
            move_peer(&net.gateway, false, 0xe3);
            talk.peer_says(256 * KIB);
            talk.is_heard();
            talk.ends_well();
        }
    }
}

#[test]
fn a_route_that_changes() {
    lab!("nc.openbsd");
    let net = Routed::new();
    let mut talk = net.talk(Role::Connects, Family::V4);
    net.host.ip("route replace blackhole 10.78.0.0/24");
    talk.both_say(MIB as usize);
    talk.ends_well();
}

#[test]
fn a_wire_whose_other_end_is_deleted() {
    lab!("nc.openbsd");
    for role in ROLES {
        let pair = Pair::new();
        let mut talk = Talk::new(&pair, role, Family::V4, "");
        talk.we_say(MIB as usize);
        // The peer's process first: it would keep its namespace alive.
        talk.peer.signal(nix::sys::signal::Signal::SIGKILL);
        let Pair { host: _host, peer, .. } = &pair;
        peer.ip("link delete eth0");
        talk.breaks("eth0");
    }
}

#[test]
fn a_network_namespace_that_is_deleted_lives_on_in_the_processes_inside() {
    lab!("nc.openbsd");
    for role in ROLES {
        let pair = Pair::new();
        let mut talk = Talk::new(&pair, role, Family::V4, "");
        crate::support::process::Command::new("ip").args(["netns", "del", pair.host.name()]).succeed();
        talk.both_say(MIB as usize);
        talk.ends_well();
    }
}

#[test]
fn datagrams_follow_a_neighbour_that_moves() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        let pair = Pair::new();
        let there = pair.peer_address(family).to_string();
        let mut server =
            pair.peer.command("nc.openbsd").args(["-u", "-l", &there, "5000"]).input(Input::Open).spawn();
        server.wait_listening(5000);
        let mut client = netkat(&pair.host, &format!("-u {there} 5000")).input(Input::Open).spawn();
        client.write(b"before ");
        server.wait_for_stdout("before ");
        move_peer(&pair.peer, true, 0xf1);
        server.wait_until("what was sent after the move", |server| {
            client.write(b"after");
            std::thread::sleep(Duration::from_millis(100));
            String::from_utf8_lossy(&server.stdout()).contains("after")
        });
    }
}

#[test]
fn an_mtu_that_shrinks_under_full_load() {
    lab!("nc.openbsd");
    let pair = Pair::over("--both rate=200mbit");
    let out = Payload::new(21, 16 * MIB);
    let at = pair.peer_address(Family::V4);
    let mut server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.expect(&out));
    let client = netkat(&pair.host, &format!("{at} 5000")).input(out.input()).spawn();
    server.wait_until("the first of it", |server| server.received() > MIB);
    pair.host.ip("link set eth0 mtu 1300");
    server.wait_until("half of it", |server| server.received() > 8 * MIB);
    pair.host.ip("link set eth0 mtu 1500");
    let ended = client.wait(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{ended}");
    server.wait(DEADLINE).check(&out);
}
