//! On a router that translates addresses, as every Kubernetes node does, connections of others by
//! our port go on. The host masquerades a pod, 10.66.0.2 and fd66::2, behind its own addresses on
//! eth0.
use crate::support::{
    frames::syn,
    namespace::Namespace,
    netkat::{GUARDS, listening, netkat},
    packet_socket::{Mode, PacketSocket},
    process::{DEADLINE, Input, Process},
    requirements::lab,
    topology::{Family, Pair, address, veth},
    traces::settles,
    witness::Witness,
};

/// netkat's port, by which the pod's connections leave.
const PORT: u16 = 5000;
/// The peer's echo port.
const ECHO: u16 = 8000;

struct Router {
    pair: Pair,
    pod: Namespace,
}

impl Router {
    fn new() -> Router {
        let (pair, pod) = (Pair::new(), Namespace::new("pod"));
        veth(&pair.host, "pod0", &pod, "eth0");
        for (program, net) in [("iptables", "10.66.0."), ("ip6tables", "fd66::")] {
            let prefix = if program == "iptables" { 24 } else { 64 };
            address(&pair.host, "pod0", &format!("{net}1/{prefix}"));
            address(&pod, "eth0", &format!("{net}2/{prefix}"));
            pod.ip(&format!("route add default via {net}1"));
            for protocol in ["tcp", "udp"] {
                pair.host
                    .run(&format!("{program} -w -t nat -A POSTROUTING -p {protocol} -o eth0 -j MASQUERADE"));
            }
        }
        pair.host.sysctl("net.ipv4.ip_forward", "1");
        pair.host.sysctl("net.ipv6.conf.all.forwarding", "1");
        Router { pair, pod }
    }

    /// Sends a byte and waits for its echo, `rounds` times with a pause between, from [`PORT`] of
    /// `from`.
    fn dialogue(
        &self,
        from: &Namespace,
        kind: &str,
        to: std::net::IpAddr,
        port: u16,
        rounds: usize,
    ) -> Process {
        let family = if to.is_ipv4() { "AF_INET" } else { "AF_INET6" };
        let script = format!(
            "import socket, sys, time\n\
             s = socket.socket(socket.{family}, socket.{kind})\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             s.bind(('', {PORT}))\n\
             s.settimeout(5)\n\
             s.connect(('{to}', {port}))\n\
             for n in range({rounds}):\n\
             \x20   s.send(b'x')\n\
             \x20   assert s.recv(1) == b'x'\n\
             \x20   if n == 0: print('talking', file=sys.stderr, flush=True)\n\
             \x20   time.sleep(0.05)\n\
             print('done', end='')"
        );
        let mut client = from.command("python3").args(["-c", &script]).spawn();
        client.wait_for_stderr("talking");
        client
    }

    /// Panics unless the pod's packets leave from [`PORT`] of the host.
    fn translates(&self, family: Family) {
        let name = if family == Family::V4 { "ipv4" } else { "ipv6" };
        let table = self.pair.host.run(&format!("conntrack -L -f {name}")).text();
        let host = self.pair.host_address(family).to_string();
        let host = if family == Family::V4 { host } else { "fd77:".to_owned() };
        let reply =
            |line: &str| line.contains(&format!("dport={PORT}")) && line.contains(&format!("dst={host}"));
        assert!(table.lines().any(reply), "{table}");
    }
}

/// Echoes on a port, for any number of clients.
fn echo(at: &Namespace, family: Family, protocol: &str, port: u16) -> Process {
    let number = if family == Family::V4 { 4 } else { 6 };
    if protocol == "TCP" {
        let listen = format!("TCP{number}-LISTEN:{port},fork,reuseaddr");
        let mut server = at.command("socat").arg(listen).arg("EXEC:cat").spawn();
        server.wait_listening(port);
        return server;
    }
    // One process for all datagrams: socat's children share a socket and take each other's.
    let inet = if family == Family::V4 { "AF_INET" } else { "AF_INET6" };
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.{inet}, socket.SOCK_DGRAM)\n\
         s.bind(('', {port}))\n\
         while True: s.sendto(*s.recvfrom(65536))"
    );
    let mut server = at.command("python3").args(["-c", &script]).spawn();
    server.wait_listening(port);
    server
}

fn finish(client: Process) {
    let client = client.wait(DEADLINE);
    assert_eq!(client.text(), "done", "{client}");
}

fn question(pair: &Pair, family: Family) {
    let at = pair.host_address(family);
    let asked = pair.peer.words(&format!("nc.openbsd -N -w 10 {at} {PORT}")).text("question").run();
    assert_eq!(asked.text(), "question", "{asked}");
}

#[test]
fn a_listener_leaves_masqueraded_connections_of_its_port_alone() {
    lab!("socat", "python3", "iptables", "ip6tables", "conntrack", "nc.openbsd", "tcpdump");
    for family in Family::ALL {
        for guard in GUARDS {
            let router = Router::new();
            let Router { pair, pod } = &router;
            let to = pair.peer_address(family);
            let _echo = echo(&pair.peer, family, "TCP", ECHO);
            let resets = Witness::of_resets_and_errors(&pair.peer, PORT);
            let before = router.dialogue(pod, "SOCK_STREAM", to, ECHO, 40);
            router.translates(family);
            let _server = listening(&pair.host, &format!("-k --guard {guard} --exec cat {PORT}"), |c| {
                c.input(Input::Null)
            });
            question(pair, family);
            finish(before);
            // A connection that begins while netkat listens.
            let _other = echo(&pair.peer, family, "TCP", ECHO + 1);
            finish(router.dialogue(pod, "SOCK_STREAM", to, ECHO + 1, 3));
            question(pair, family);
            resets.saw_nothing();
        }
    }
}

/// The scanned address is the pod's peer, too.
#[test]
fn a_scan_leaves_masqueraded_connections_of_its_port_alone() {
    lab!("socat", "python3", "iptables", "ip6tables", "conntrack", "tc", "tcpdump");
    for family in Family::ALL {
        for (guard, kind, protocol, udp) in [
            ("tcx", "SOCK_STREAM", "TCP", ""),
            ("clsact", "SOCK_STREAM", "TCP", ""),
            ("tcx", "SOCK_DGRAM", "UDP", "-u"),
            ("clsact", "SOCK_DGRAM", "UDP", "-u"),
        ] {
            let router = Router::new();
            let Router { pair, pod } = &router;
            let to = pair.peer_address(family);
            if (guard, protocol) == ("clsact", "UDP") {
                // While the kernel adds the qdisc it drops what is sent, which nobody repeats here.
                pair.host.run("tc qdisc add dev eth0 clsact");
            }
            let _echo = echo(&pair.peer, family, protocol, ECHO);
            // An empty datagram has no echo: a closed port is UDP's sign of life.
            let _open = udp.is_empty().then(|| echo(&pair.peer, family, protocol, ECHO + 1));
            // One port never answers, so the scan lasts.
            let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
            let protocol = protocol.to_lowercase();
            let silent = ECHO + 2;
            pair.peer.run(&format!("{program} -w -A INPUT -p {protocol} --dport {silent} -j DROP"));
            let resets = Witness::of_resets_and_errors(&pair.peer, PORT);
            let talk = router.dialogue(pod, kind, to, ECHO, 30);
            router.translates(family);
            let probed = ECHO + 1;
            let line = format!("-z {udp} --guard {guard} -w 2 -p {PORT} {to} {probed},{silent}");
            let scan = netkat(&pair.host, &line).run();
            finish(talk);
            let state = if udp.is_empty() { "open" } else { "closed" };
            assert!(scan.text().contains(&format!("{probed}/{protocol} {state}")), "{scan}");
            resets.saw_nothing();
        }
    }
}

/// The host forwards a port to the pod. Established connections stay the pod's when netkat takes
/// the port.
#[test]
fn an_established_connection_that_is_sent_on_stays_where_it_is() {
    lab!("socat", "python3", "iptables", "ip6tables", "nc.openbsd", "tcpdump");
    for family in Family::ALL {
        for guard in GUARDS {
            let router = Router::new();
            let Router { pair, pod } = &router;
            let _echo = echo(pod, family, "TCP", ECHO);
            let (program, to) = match family {
                Family::V4 => ("iptables", format!("10.66.0.2:{ECHO}")),
                Family::V6 => ("ip6tables", format!("[fd66::2]:{ECHO}")),
            };
            let rule = format!("PREROUTING -i eth0 -p tcp --dport {PORT} -j DNAT --to-destination {to}");
            pair.host.run(&format!("{program} -w -t nat -A {rule}"));
            let resets = Witness::of_resets_and_errors(&pair.peer, PORT);
            let old = router.dialogue(&pair.peer, "SOCK_STREAM", pair.host_address(family), PORT, 30);
            // Its entry in conntrack stays.
            pair.host.run(&format!("{program} -w -t nat -D {rule}"));
            let _server = listening(&pair.host, &format!("-k --guard {guard} --exec cat {PORT}"), |c| {
                c.input(Input::Null)
            });
            question(pair, family);
            finish(old);
            resets.saw_nothing();
        }
    }
}

/// While SYN cookies are in flight an ACK may be netkat's or another's: the kernel gets it as well.
#[test]
fn a_flood_of_syns_leaves_masqueraded_connections_alone() {
    lab!("socat", "python3", "iptables", "ip6tables", "conntrack", "nc.openbsd", "tcpdump");
    for (family, guard) in
        [(Family::V4, "tcx"), (Family::V4, "clsact"), (Family::V6, "tcx"), (Family::V6, "clsact")]
    {
        let router = Router::new();
        let Router { pair, pod } = &router;
        // A return route leads to the forged sources, none of which answers.
        pair.host.ip(&format!("route add default via {}", pair.peer_address(family)));
        pair.peer.sysctl("net.ipv4.ip_forward", "0");
        pair.peer.sysctl("net.ipv6.conf.all.forwarding", "0");
        let _echo = echo(&pair.peer, family, "TCP", ECHO);
        let resets = Witness::of_resets_and_errors(&pair.peer, ECHO);
        let old = router.dialogue(pod, "SOCK_STREAM", pair.peer_address(family), ECHO, 60);
        router.translates(family);
        let _server =
            listening(&pair.host, &format!("-k --guard {guard} --exec cat {PORT}"), |c| c.input(Input::Null));
        let socket =
            pair.peer.inside(|| PacketSocket::open("eth0", Mode::default())).expect("a packet socket");
        for number in 0..20_000 {
            // A full queue drops the packet, as a wire would.
            let _ = socket.send(&syn(family, number, PORT));
            if number % 100 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        question(pair, family);
        finish(old);
        resets.saw_nothing();
    }
}

/// The client's peer is the pod's, by the same port: neither could tell the other's packets.
#[test]
fn a_client_passes_over_a_port_of_a_masqueraded_connection() {
    lab!("socat", "python3", "iptables", "ip6tables", "conntrack", "ss");
    for family in Family::ALL {
        for (kind, protocol, udp) in [("SOCK_STREAM", "TCP", ""), ("SOCK_DGRAM", "UDP", "-u")] {
            let router = Router::new();
            let Router { pair, pod } = &router;
            let to = pair.peer_address(family);
            let _echo = echo(&pair.peer, family, protocol, ECHO);
            let talk = router.dialogue(pod, kind, to, ECHO, 40);
            router.translates(family);
            let ask = |arguments: String| netkat(&pair.host, &arguments).text("question").run();
            let refused = ask(format!("{udp} -p {PORT} {to} {ECHO}"));
            assert_eq!(refused.code(), Some(1), "{refused}");
            let host = std::net::SocketAddr::new(pair.host_address(family), PORT);
            assert!(refused.stderr.contains(&format!("masqueraded as {host}")), "{refused}");
            // Where the kernel has two ports to offer, netkat takes the other one.
            pair.host.sysctl("net.ipv4.ip_local_port_range", &format!("{PORT} {}", PORT + 1));
            let held = || pair.host.run("ss -Htln").text();
            for _ in 0..4 {
                let served = ask(format!("{udp} {to} {ECHO}"));
                assert_eq!((served.code(), served.text().as_str()), (Some(0), "question"), "{served}");
                // The copy in TIME-WAIT holds the only free port.
                settles(|| !held().contains(&format!(":{} ", PORT + 1)), held);
            }
            finish(talk);
        }
    }
}

/// To a UDP listener any datagram may be a client's first.
#[test]
fn a_udp_listener_does_not_take_a_port_of_a_masqueraded_connection() {
    lab!("socat", "python3", "iptables", "ip6tables", "conntrack");
    for family in Family::ALL {
        let router = Router::new();
        let Router { pair, pod } = &router;
        let to = pair.peer_address(family);
        let _echo = echo(&pair.peer, family, "UDP", ECHO);
        let talk = router.dialogue(pod, "SOCK_DGRAM", to, ECHO, 20);
        router.translates(family);
        let refused = netkat(&pair.host, &format!("-u -l {PORT}")).run();
        assert_eq!(refused.code(), Some(1), "{refused}");
        let host = std::net::SocketAddr::new(pair.host_address(family), PORT);
        assert!(refused.stderr.contains(&format!("masqueraded as {host}")), "{refused}");
        let _other = listening(&pair.host, &format!("-u {}", PORT + 1), |c| c.input(Input::Null));
        finish(talk);
    }
}
