//! `--compare -l` beyond one client and one rule: other places of rules, programs, routers, many clients at once.
use crate::support::{
    client_watch::{Stage, choose, clients_in_both},
    comparison::{PORT, check, serve},
    process::Output,
    programs::{self, Direction, TC_ACT_SHOT, XDP_DROP},
    requirements::lab,
    rules::nft,
    topology::{Family, Pair, address, at},
};
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;

/// Returns a stage whose neighbours know each other: the programs drop ARP and neighbour discovery, too.
fn acquainted(family: Family) -> Stage {
    let stage = Stage::new(family);
    let [host, peer] = [stage.pair.host_address(family), stage.pair.peer_address(family)];
    stage.pair.host.ip(&format!("neigh replace {peer} lladdr 02:00:77:00:00:02 dev eth0"));
    stage.pair.peer.ip(&format!("neigh replace {host} lladdr 02:00:77:00:00:01 dev eth0"));
    stage
}

fn contains(output: &Output, status: i32, lines: &[&str]) {
    assert_eq!(output.code(), Some(status), "{output}");
    for line in lines {
        assert!(output.text().contains(line), "{line}\n{output}");
    }
}

#[test]
fn rules_in_other_places() {
    lab!("nft", "socat", "nc.openbsd");
    let from =
        "from {client}: 1 connection, 1 SYN by eth0\nproof nft trace{events ; drop event NETFILTER_DROP|}";
    for (rules, sentence, by) in [
        (
            "table netdev nd { chain in { type filter hook ingress device \"eth0\" priority 0; tcp dport 7000 drop; }; }",
            "the SYNs of 1 client are dropped",
            "by nft netdev nd, chain in, rule 1 of 1 (handle 2)
            tcp dport 7000 drop",
        ),
        (
            "table inet fw { chain in { type filter hook input priority 0; policy drop; tcp dport 22 accept;
                meta l4proto { icmp, ipv6-icmp } accept; }; }",
            "the SYNs of 1 client are dropped by the policy of a chain",
            "by nft inet fw, chain in: policy drop, none of its 2 rules matched",
        ),
        (
            "table inet fw { chain in { type filter hook input priority 0; tcp dport 7000 reject with tcp reset; }; }",
            "the SYNs of 1 client are rejected",
            "by nft inet fw, chain in, rule 1 of 1 (handle 2)
            tcp dport 7000 reject with tcp reset",
        ),
        (
            "table inet fw { chain pre { type filter hook prerouting priority -300; tcp dport 7000 drop; }; }",
            "the SYNs of 1 client are dropped",
            "by nft inet fw, chain pre, rule 1 of 1 (handle 2)
            tcp dport 7000 drop",
        ),
        (
            "table inet fw { chain post { type filter hook postrouting priority 0; tcp sport 7000 drop; }; }",
            "the answers (SYN-ACK) to 1 client are dropped",
            "by nft inet fw, chain post, rule 1 of 1 (handle 2)
            tcp sport 7000 drop",
        ),
    ] {
        let words: Vec<&str> = by.split(", chain ").collect();
        let table = words[0].trim_start_matches("by nft ");
        let chain = words[1].split([',', ':']).next().expect("a chain");
        let expected = format!("this host: {sentence}\n{by}\n{from}\ntry nft -a list chain {table} {chain}");
        clients_in_both(|stage| nft(&stage.pair.host, rules), 11, &expected);
    }
}

#[test]
fn programs_at_ingress_and_egress() {
    lab!("socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = acquainted(family);
        let _server = stage.serve();
        let drop = programs::classifier("lab_drop", TC_ACT_SHOT);
        programs::attach_clsact(&drop, &stage.pair.host, "eth0", Direction::Ingress, 1);
        for (flags, proof) in [
            ("", "  proof   drop event TC_INGRESS\n"),
            ("--without drop-events", "  proof   positions (own chains, tap) (inferred)\n"),
        ] {
            let lines = [
                "this host: the SYNs of 1 client are dropped\n",
                "  by      clsact ingress program lab_drop (id ",
                proof,
                "  try     tc filter show dev eth0 ingress\n",
            ];
            contains(&stage.watch(flags, Stage::client), 11, &lines);
        }
        let stage = acquainted(family);
        let _server = stage.serve();
        programs::attach_clsact(&drop, &stage.pair.host, "eth0", Direction::Egress, 1);
        for (flags, proof) in [
            ("", "  proof   drop event TC_EGRESS\n"),
            ("--without drop-events", "  proof   positions (own chains, tap) (inferred)\n"),
        ] {
            let lines = [
                "this host: the answers (SYN-ACK) to 1 client are dropped\n",
                "  by      clsact egress program lab_drop (id ",
                proof,
                "  try     tc filter show dev eth0 egress\n",
            ];
            contains(&stage.watch(flags, Stage::client), 11, &lines);
        }
    }
}

/// XDP comes before any tap: a drop event is the only trace of the client.
#[test]
fn an_xdp_program() {
    lab!("socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = acquainted(family);
        let _server = stage.serve();
        let _link = programs::attach_xdp(&stage.pair.host, "eth0", XDP_DROP);
        let lines = [
            "not here: no SYN for port 7000 came within ",
            "; or XDP program lab_xdp (id ",
            ", which no tap sees before\n",
        ];
        contains(&stage.watch("--without drop-events", Stage::client), 3, &lines);
        let lines = [
            "this host: the SYNs of 1 client are dropped\n",
            "  by      XDP program lab_xdp (id ",
            "  from    ",
            "  proof   drop event ",
        ];
        contains(&stage.watch("", Stage::client), 11, &lines);
    }
}

#[test]
fn a_rule_of_iptables_legacy() {
    lab!("iptables-legacy", "socat", "nc.openbsd");
    clients_in_both(
        |stage| {
            stage.run(
                "{iptables}-legacy -A INPUT -p udp -j DROP; {iptables}-legacy -A INPUT -p tcp --dport 22 -j DROP; \
                 {iptables}-legacy -A INPUT -p tcp --dport 7000 -m comment --comment blk -j DROP",
            );
        },
        11,
        "this host: the SYNs of 1 client are dropped
        by {iptables}-legacy -t filter, chain INPUT, rule 3
        -A INPUT -p tcp -m tcp --dport 7000 -m comment --comment \"blk\" -j DROP
        from {client}: 1 connection, 1 SYN by eth0
        proof {events drop event NETFILTER_DROP; counters of iptables-legacy|counters of iptables-legacy; \
         positions (own chains, tap)} (inferred)
        try {iptables}-legacy -t filter -S INPUT 3",
    );
}

/// The answers leave this host, and the client's own rule drops them.
#[test]
fn answers_that_do_not_arrive() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        stage.pair.peer.run(&stage.words("{iptables}-nft -A INPUT -p tcp --sport 7000 -j DROP"));
        let twice = |stage: &Stage| {
            let to = stage.server().ip();
            stage.pair.peer.words(&format!("nc.openbsd -z -w 2 {to} {PORT}")).run();
        };
        let expected =
            "not here: the answers (SYN-ACK) to 1 client leave this host, and the SYNs come again: \
             the answers do not arrive
            from {client}: 1 connection, 2 SYNs by eth0
            server a process listens on [::]:7000";
        stage.expect(twice, 3, expected);
    }
}

/// A router is no server: what it passes on is not lost here.
#[test]
fn a_router_that_passes_on() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::of(Pair::with_two_links(), family);
        let (host, peer) = (&stage.pair.host, &stage.pair.peer);
        host.sysctl("net.ipv4.ip_forward", "1");
        host.sysctl("net.ipv6.conf.all.forwarding", "1");
        // The peer is the next host, too, which no process answers for.
        let beyond = at(family, "10.81.0.9", "fd81::9");
        let [next, gateway] = [at(family, "10.79.0.2", "fd79::2"), at(family, "10.77.0.1", "fd77::1")];
        host.ip(&format!("route add {beyond} via {next} dev eth1"));
        peer.ip(&format!("route add {beyond} via {gateway} dev eth0"));
        let expected = "not here: the SYNs of 1 client are forwarded by eth1, and nothing comes back
            from {client}: 1 connection, 1 SYN by eth0
            server nothing listens on the port";
        stage.expect(|stage| stage.client_to(beyond), 3, expected);
        stage.run("{iptables}-nft -A FORWARD -p tcp --dport 7000 -j DROP");
        let expected = "this host: the SYNs of 1 client are dropped
            by {iptables} (nft), table filter, chain FORWARD, rule 1 of 1 ({ip} filter FORWARD, handle 2)
            tcp dport 7000 counter drop
            from {client}: 1 connection, 1 SYN by eth0
            proof nft trace{events ; drop event NETFILTER_DROP|}
            try {iptables}-nft -S FORWARD 1";
        stage.expect(|stage| stage.client_to(beyond), 11, expected);
    }
}

/// Each cause has a block of its own, and the elements of sets differ from client to client.
#[test]
fn several_causes_with_their_clients() {
    lab!("nft", "socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        let others: Vec<_> =
            (11..=14).map(|n| at(family, &format!("10.77.0.{n}"), &format!("fd77::{n}"))).collect();
        for other in &others {
            let length = if family == Family::V4 { 24 } else { 64 };
            address(&stage.pair.peer, "eth0", &format!("{other}/{length}"));
        }
        let kind = if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
        nft(
            &stage.pair.host,
            &stage.words(&format!(
                "table inet fw {{ set bl {{ type {kind}; elements = {{ {}, {} }}; }};
                    chain in {{ type filter hook input priority 0;
                        {{ip}} saddr @bl drop; {{ip}} saddr {} tcp dport 7000 drop; }}; }}",
                others[0], others[1], others[2]
            )),
        );
        let expected = format!(
            "this host: the SYNs of 2 clients are dropped
            by nft inet fw, chain in, rule 1 of 2 (handle 3)
            {{ip}} saddr @bl drop
            from {}, {}: 2 connections, 2 SYNs by eth0
            proof nft trace; drop event NETFILTER_DROP
            try nft -a list chain inet fw in
            this host: the SYNs of 1 client are dropped
            by nft inet fw, chain in, rule 2 of 2 (handle 4)
            {{ip}} saddr {} tcp dport 7000 drop
            from {}: 1 connection, 1 SYN by eth0
            proof nft trace; drop event NETFILTER_DROP
            try nft -a list chain inet fw in
            answered: the SYNs of 1 client are answered
            from {}: 1 connection, 1 SYN by eth0
            server a process listens on [::]:7000",
            others[0], others[1], others[2], others[2], others[3]
        );
        let output = stage.watch("", |stage| {
            for from in &others {
                let to = stage.server().ip();
                stage.pair.peer.words(&format!("nc.openbsd -z -w 1 -s {from} {to} {PORT}")).run();
            }
        });
        check(&output, 11, &stage.words(&expected));
    }
}

/// ADDRESS, -i, -4 and -6 narrow the watch.
#[test]
fn a_narrow_watch() {
    lab!("socat", "nc.openbsd");
    let stage = Stage::new(Family::V4);
    let _server = stage.serve();
    address(&stage.pair.host, "eth0", "10.77.0.7/24");
    let other = "10.77.0.7".parse().expect("an address");
    let came = |flags: &str| stage.watch(flags, |stage| stage.client_to(other)).code();
    assert_eq!(came("10.77.0.7"), Some(0));
    assert_eq!(came("10.77.0.1"), Some(3));
    assert_eq!(came("-4"), Some(0));
    assert_eq!(came("-6"), Some(3));
    assert_eq!(came("-i eth0"), Some(0));
    assert_eq!(came("-i lo"), Some(3));
    // A client of this host's own comes by lo.
    let output = stage.watch("-i lo", |stage| {
        stage.pair.host.run(&format!("nc.openbsd -z -w 1 10.77.0.1 {PORT}"));
    });
    let expected = "answered: the SYNs of 1 client are answered
        from 10.77.0.1: 1 connection, 1 SYN by lo
        server a process listens on [::]:7000";
    check(&output, 0, expected);
}

/// Connections of this host's own to the same port elsewhere are no clients.
#[test]
fn own_connections_are_no_clients() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = serve(&stage.pair.peer, PORT);
        let out = |stage: &Stage| {
            let to = stage.pair.peer_address(family);
            stage.pair.host.words(&format!("nc.openbsd -z -w 1 {to} {PORT}")).run();
        };
        let nothing = "not here: no SYN for port 7000 came within T\nserver nothing listens on the port";
        stage.expect(out, 3, nothing);
        stage.run("{iptables}-nft -A OUTPUT -p tcp --dport 7000 -j DROP");
        stage.expect(out, 3, nothing);
    }
}

#[test]
fn a_queue_without_a_program() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    clients_in_both(
        |stage| stage.run("{iptables}-nft -A INPUT -p tcp --dport 7000 -j NFQUEUE --queue-num 9"),
        11,
        "this host: the SYNs of 1 client are handed to a program that does not answer
        by {iptables} (nft), table filter, chain INPUT, rule 1 of 1 ({ip} filter INPUT, handle 2)
        tcp dport 7000 counter -j NFQUEUE --queue-num 9
        which queue 9 has no listener
        from {client}: 1 connection, 1 SYN by eth0
        proof nft trace{events ; drop event at nf_queue|}
        try {iptables}-nft -S INPUT 1",
    );
}

/// A flood beyond all limits: 1000 connections are judged, the rest is counted, and the rule is named.
#[test]
fn many_clients_are_bounded() {
    lab!("nft", "socat");
    const CLIENTS: u16 = 3000;
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        nft(
            &stage.pair.host,
            "table inet fw { chain in { type filter hook input priority 0; tcp dport 7000 drop; }; }",
        );
        let to: SocketAddr = stage.server();
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let watch = stage.start("");
        // Each socket has a port of its own, and sends one SYN before it is closed.
        stage.pair.peer.inside(|| {
            for _ in 0..CLIENTS {
                let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
                socket.set_nonblocking(true).expect("non-blocking");
                let _ = socket.connect(&to.into());
            }
        });
        let memory = std::fs::read_to_string(format!("/proc/{}/status", watch.id())).expect("a process");
        watch.signal(nix::sys::signal::Signal::SIGINT);
        let output = watch.wait(crate::support::process::DEADLINE);
        let text = output.text();
        assert_eq!(output.code(), Some(11), "{output}");
        let block = text.split("\n\n").find(|block| block.contains("proof   nft trace")).unwrap_or_default();
        assert!(block.starts_with("this host: the SYNs of 1 client are dropped\n"), "{output}");
        assert!(block.contains("  by      nft inet fw, chain in, rule 1 of 1 (handle 2)\n"), "{output}");
        let beyond = text.lines().find(|line| line.starts_with("not judged: ")).unwrap_or_default();
        assert_eq!(beyond, "not judged: 2000 SYNs of connections beyond the first 1000", "{output}");
        // Those that the trace left out are in one block, which says so.
        assert!(text.contains("the packet was beyond the trace's limit"), "{output}");
        // Some may have lost their drop event as well.
        assert!(text.split("\n\n").count() <= 4, "{output}");
        let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a size");
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(kilobytes < 120_000, "{peak}");
    }
}

/// Of two texts, the one without drop events.
#[test]
fn texts_are_chosen() {
    assert_eq!(choose("a{events ; b|}c{events |d}", true), "a; bc");
    assert_eq!(choose("a{events ; b|}c{events |d}", false), "acd");
}
