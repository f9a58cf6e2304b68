//! Assumptions of netkat: which of the kernel's hooks can stop a raw packet socket, and which can't. Each case is one
//! row of the README's table, so that a kernel that differs fails here and not in a user's session.
//!
//! Theory of operation: the host is set up so that something there drops packets. In each row the kernel's own
//! UDP is first shown to work, then to be stopped; then raw frames are sent, with and without
//! PACKET_QDISC_BYPASS, and looked for on the other side's packet socket.
use crate::support::{
    datagrams::receive_from,
    frames::{self, HOST_MAC, PEER_MAC, sees},
    namespace::Namespace,
    packet_socket::{Mode, PacketSocket},
    process::{Command, Input},
    programs::{self, Direction, Link, TC_ACT_SHOT},
    requirements::{self, lab},
    topology::{Family, Pair},
};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

const PORT: u16 = 7777;
/// veth delivers within the sender's system call; this covers a busy machine and address resolution.
const LONG: Duration = Duration::from_secs(2);
const BRIEF: Duration = Duration::from_millis(60);

/// Direction of the packets, seen from the host with the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// Expected fate of raw frames, without and with PACKET_QDISC_BYPASS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passes {
    raw: bool,
    bypass: bool,
}

const BOTH_PASS: Passes = Passes { raw: true, bypass: true };
const BYPASS_PASSES: Passes = Passes { raw: false, bypass: true };
const BLOCKED: Passes = Passes { raw: false, bypass: false };

/// A row's attachment, for as long as the row lasts.
type Attached = Option<Link>;

struct Row {
    pair: Pair,
    family: Family,
    way: Way,
}

impl Row {
    fn new(family: Family, way: Way) -> Self {
        Self { pair: Pair::new(), family, way }
    }

    fn ends(&self) -> [(&Namespace, IpAddr, [u8; 6]); 2] {
        let host = (&self.pair.host, self.pair.host_address(self.family), HOST_MAC);
        let peer = (&self.pair.peer, self.pair.peer_address(self.family), PEER_MAC);
        if self.way == Way::Out { [host, peer] } else { [peer, host] }
    }

    /// Returns whether a datagram gets through from kernel to kernel. Errors on sending are the rule's doing.
    fn kernel_passes(&self, receiver: &UdpSocket, within: Duration) -> bool {
        let [(from, ..), (_, to, _)] = self.ends();
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
        let sent = from.inside(|| {
            UdpSocket::bind((any, 0)).and_then(|s| s.send_to(b"kernel", SocketAddr::new(to, PORT)))
        });
        receiver.set_read_timeout(Some(within)).expect("a timeout");
        sent.is_ok() && receive_from(receiver, &mut [0; 64]).is_ok()
    }

    fn raw_passes(&self, qdisc_bypass: bool) -> bool {
        let [(from, source, source_mac), (at, to, mac)] = self.ends();
        let watcher = at.inside(|| PacketSocket::open("eth0", Mode::default())).expect("a packet socket");
        let mode = Mode { qdisc_bypass, ..Mode::default() };
        let sender = from.inside(|| PacketSocket::open("eth0", mode)).expect("a packet socket");
        let mark = format!("raw frame, bypass {qdisc_bypass}");
        let frame = frames::udp(source_mac, mac, source, to, PORT, mark.as_bytes());
        match sender.send(&frame) {
            Ok(()) => sees(&watcher, mark.as_bytes(), BRIEF * 3),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::ENOBUFS), "sending a raw frame: {e}");
                assert!(!sees(&watcher, mark.as_bytes(), BRIEF), "ENOBUFS, and the frame arrived");
                false
            }
        }
    }

    /// Runs a row: `prepare` must not hurt the kernel yet, `set` must stop it.
    fn check(
        &self,
        what: &str,
        prepare: impl FnOnce(&Pair),
        set: impl FnOnce(&Pair) -> Attached,
        passes: Passes,
    ) {
        let [_, (at, to, _)] = self.ends();
        let receiver = at.inside(|| UdpSocket::bind((to, PORT))).expect("a UDP socket");
        prepare(&self.pair);
        let row = format!("{what}, {:?}, {:?}", self.family, self.way);
        assert!(self.kernel_passes(&receiver, LONG), "{row}: the kernel does not pass without the rule");
        let _attached = set(&self.pair);
        assert!(!self.kernel_passes(&receiver, BRIEF), "{row}: the rule does not stop the kernel");
        let found = Passes { raw: self.raw_passes(false), bypass: self.raw_passes(true) };
        assert_eq!(found, passes, "{row}");
    }
}

/// Returns the command of iptables or ip6tables for one back end.
fn iptables(family: Family, backend: &str) -> String {
    format!("{}-{backend}", if family == Family::V4 { "iptables" } else { "ip6tables" })
}

fn nft(namespace: &Namespace, rules: &str) {
    namespace.command("nft").args(["-f", "-"]).text(rules).succeed();
}

#[test]
fn iptables_tables_and_chains_do_not_stop_raw_frames() {
    lab!("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft");
    let chains = [
        ("raw", "PREROUTING", Way::In),
        ("mangle", "PREROUTING", Way::In),
        ("mangle", "INPUT", Way::In),
        ("filter", "INPUT", Way::In),
        ("raw", "OUTPUT", Way::Out),
        ("mangle", "OUTPUT", Way::Out),
        ("filter", "OUTPUT", Way::Out),
        ("mangle", "POSTROUTING", Way::Out),
    ];
    for backend in ["legacy", "nft"] {
        for family in Family::ALL {
            for (table, chain, way) in chains {
                let rule = format!("-w -t {table} -A {chain} -p udp -j DROP");
                let program = iptables(family, backend);
                Row::new(family, way).check(
                    &format!("{program} {rule}"),
                    |_| {},
                    |pair| {
                        pair.host.run(&format!("{program} {rule}"));
                        None
                    },
                    BOTH_PASS,
                );
            }
        }
    }
}

#[test]
fn policies_rejects_and_redirects_do_not_stop_raw_frames() {
    lab!("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft");
    for backend in ["legacy", "nft"] {
        for family in Family::ALL {
            let elsewhere = if family == Family::V4 { "10.77.0.99" } else { "[fd77::99]" };
            let rules = [
                (Way::In, "-P INPUT DROP".to_owned()),
                (Way::Out, "-P OUTPUT DROP".to_owned()),
                (Way::In, "-A INPUT -p udp -j REJECT".to_owned()),
                (Way::Out, "-A OUTPUT -p udp -j REJECT".to_owned()),
                (Way::In, format!("-t nat -A PREROUTING -p udp -j DNAT --to-destination {elsewhere}:9")),
                (Way::Out, format!("-t nat -A OUTPUT -p udp -j DNAT --to-destination {elsewhere}:9")),
            ];
            for (way, rule) in rules {
                let program = iptables(family, backend);
                Row::new(family, way).check(
                    &format!("{program} {rule}"),
                    |_| {},
                    |pair| {
                        pair.host.run(&format!("{program} -w {rule}"));
                        None
                    },
                    BOTH_PASS,
                );
            }
        }
    }
}

#[test]
fn nftables_stops_raw_frames_in_netdev_egress_only() {
    lab!("nft");
    let chains = [
        ("inet", "filter hook input priority 0", Way::In, BOTH_PASS),
        ("inet", "filter hook prerouting priority -300", Way::In, BOTH_PASS),
        ("inet", "filter hook ingress device \"eth0\" priority 0", Way::In, BOTH_PASS),
        ("netdev", "filter hook ingress device \"eth0\" priority 0", Way::In, BOTH_PASS),
        ("inet", "filter hook output priority 0", Way::Out, BOTH_PASS),
        ("inet", "filter hook postrouting priority 0", Way::Out, BOTH_PASS),
        ("netdev", "filter hook egress device \"eth0\" priority 0", Way::Out, BLOCKED),
    ];
    for family in Family::ALL {
        for (table, hook, way, passes) in chains {
            let rules = format!("table {table} lab {{ chain c {{ type {hook}; meta l4proto udp drop; }}; }}");
            Row::new(family, way).check(
                &rules,
                |_| {},
                |pair| {
                    nft(&pair.host, &rules);
                    None
                },
                passes,
            );
        }
    }
}

#[test]
fn arp_rules_do_not_stop_raw_frames() {
    lab!("nft");
    Row::new(Family::V4, Way::Out).check(
        "nft arp output",
        |_| {},
        |pair| {
            nft(
                &pair.host,
                "table arp lab { chain c { type filter hook output priority 0; policy drop; }; }",
            );
            pair.host.ip("neigh flush dev eth0");
            None
        },
        BOTH_PASS,
    );
}

#[test]
fn traffic_control_stops_raw_frames_at_egress_unless_they_bypass_it() {
    lab!();
    for family in Family::ALL {
        for (direction, way, passes) in
            [(Direction::Ingress, Way::In, BOTH_PASS), (Direction::Egress, Way::Out, BYPASS_PASSES)]
        {
            Row::new(family, way).check(
                "tcx drop",
                |_| {},
                |pair| {
                    let program = programs::classifier("lab_drop", TC_ACT_SHOT);
                    let link = programs::attach_tcx(&program, &pair.host, "eth0", direction);
                    if link.is_none() {
                        // Before Linux 6.6 clsact is the only place, and the next row tests it.
                        programs::attach_clsact(&program, &pair.host, "eth0", direction, 1);
                    }
                    link
                },
                passes,
            );
            Row::new(family, way).check(
                "clsact drop",
                |_| {},
                |pair| {
                    let program = programs::classifier("lab_drop", TC_ACT_SHOT);
                    programs::attach_clsact(&program, &pair.host, "eth0", direction, 1);
                    None
                },
                passes,
            );
        }
        Row::new(family, Way::Out).check(
            "a root qdisc that drops",
            |_| {},
            |pair| {
                pair.host.run("tc qdisc replace dev eth0 root pfifo limit 1");
                pair.host.run("tc qdisc replace dev eth0 root blackhole");
                None
            },
            BYPASS_PASSES,
        );
    }
}

#[test]
fn xdp_at_the_receiver_stops_raw_frames() {
    lab!();
    for family in Family::ALL {
        let set = |pair: &Pair| Some(programs::attach_xdp(&pair.host, "eth0", programs::XDP_DROP));
        Row::new(family, Way::In).check("XDP drop", |_| {}, set, BLOCKED);
    }
}

#[test]
fn routing_decisions_do_not_stop_raw_frames() {
    lab!();
    for family in Family::ALL {
        let (v, net, all) = match family {
            Family::V4 => ("-4", "10.77.0.2/32", "10.77.0.0/24"),
            Family::V6 => ("-6", "fd77::2/128", "fd77::/64"),
        };
        let rows = [
            (Way::Out, format!("{v} rule add to {all} prohibit priority 1")),
            (Way::Out, format!("{v} route add blackhole {net}")),
            (Way::Out, format!("{v} route add unreachable {net}")),
            (Way::Out, format!("{v} route add prohibit {net}")),
        ];
        for (way, command) in rows {
            Row::new(family, way).check(
                &command,
                |_| {},
                |pair| {
                    pair.host.ip(&command);
                    None
                },
                BOTH_PASS,
            );
        }
        for way in [Way::In, Way::Out] {
            Row::new(family, way).check(
                "local address deleted",
                |_| {},
                |pair| {
                    pair.host.ip(&format!("{v} address flush dev eth0 scope global"));
                    None
                },
                BOTH_PASS,
            );
        }
    }
}

#[test]
fn the_reverse_path_filter_does_not_stop_raw_frames() {
    lab!();
    Row::new(Family::V4, Way::In).check(
        "rp_filter",
        |pair| {
            pair.host.sysctl("net.ipv4.conf.all.rp_filter", "0");
            pair.host.sysctl("net.ipv4.conf.eth0.rp_filter", "0");
            // The route back to the peer leads over another interface.
            pair.host.ip("link add eth1 type veth peer name eth2");
            pair.host.ip("link set eth1 up");
            pair.host.ip("link set eth2 up");
            pair.host.ip("route add 10.77.0.2/32 dev eth1");
        },
        |pair| {
            pair.host.sysctl("net.ipv4.conf.eth0.rp_filter", "1");
            None
        },
        BOTH_PASS,
    );
}

/// Sends a datagram through the kernel and the frame given in hexadecimal through a packet socket.
const CGROUP_SENDER: &str = r#"
import os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"kernel", (sys.argv[2], int(sys.argv[3])))
except PermissionError:
    pass
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
raw.bind(("eth0", 0))
raw.send(bytes.fromhex(sys.argv[4]))
"#;

#[test]
fn control_groups_do_not_stop_raw_frames() {
    lab!("python3");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc/mounts");
    let mount = mounts.lines().find_map(|l| {
        let mut fields = l.split(' ').skip(1);
        let folder = fields.next()?;
        (fields.next()? == "cgroup2").then(|| folder.to_owned())
    });
    let group = mount.map(|m| std::path::Path::new(&m).join(format!("netkat-lab-{}", std::process::id())));
    let Some(group) = group.filter(|g| std::fs::create_dir(g).is_ok()) else {
        requirements::lacking("control_groups_do_not_stop_raw_frames", "needs a writable cgroup2 mount");
        return;
    };
    let row = Row::new(Family::V4, Way::Out);
    let [(host, source, source_mac), (peer, to, mac)] = row.ends();
    let receiver = peer.inside(|| UdpSocket::bind((to, PORT))).expect("a UDP socket");
    let watcher = peer.inside(|| PacketSocket::open("eth0", Mode::default())).expect("a packet socket");
    let frame = frames::udp(source_mac, mac, source, to, PORT + 1, b"from the group");
    let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
    let send = || -> Command {
        host.command("python3")
            .args(["-c", CGROUP_SENDER, &group.to_string_lossy(), &to.to_string(), &PORT.to_string(), &hex])
            .input(Input::Null)
    };
    receiver.set_read_timeout(Some(LONG)).expect("a timeout");
    send().succeed();
    receive_from(&receiver, &mut [0; 64]).expect("the kernel passes without the rule");
    assert!(sees(&watcher, b"from the group", LONG));

    let attached = programs::drop_by_cgroup(&group, Direction::Egress);
    receiver.set_read_timeout(Some(BRIEF)).expect("a timeout");
    send().succeed();
    assert!(receive_from(&receiver, &mut [0; 64]).is_err(), "the rule does not stop the kernel");
    assert!(sees(&watcher, b"from the group", LONG), "the raw frame was stopped");
    drop(attached);
    std::fs::remove_dir(&group).expect("removing the control group");
}
