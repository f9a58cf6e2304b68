//! `--compare -l` says what becomes of a server's clients: rules, sockets, queues, filters by path, or nothing of this
//! host. Each with and without drop events.
use crate::support::{
    client_watch::{Stage, clients_in_both},
    comparison::PORT,
    netkat::netkat,
    requirements::lab,
    topology::{Family, Pair, at},
};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

/// The end of the report of a packet that a rule dropped.
const BY_RULE: &str =
    "from {client}: 1 connection, 1 SYN by eth0\nproof nft trace{events ; drop event NETFILTER_DROP|}";

#[test]
fn a_client_that_is_answered() {
    lab!("socat", "nc.openbsd");
    clients_in_both(
        |_| {},
        0,
        "answered: the SYNs of 1 client are answered
        from {client}: 1 connection, 1 SYN by eth0
        server a process listens on [::]:7000",
    );
}

#[test]
fn an_input_rule() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    clients_in_both(
        |stage| {
            stage.run(
                "{iptables}-nft -A INPUT -p udp -j ACCEPT; \
                 {iptables}-nft -A INPUT -p tcp --dport 7000 -m comment --comment blk -j DROP",
            );
        },
        11,
        &format!(
            "this host: the SYNs of 1 client are dropped
            by {{iptables}} (nft), table filter, chain INPUT, rule 2 of 2 ({{ip}} filter INPUT, handle 3)
            tcp dport 7000 -m comment --comment \"blk\" counter drop
            which comment \"blk\"
            {BY_RULE}
            try {{iptables}}-nft -S INPUT 2"
        ),
    );
}

#[test]
fn an_output_rule_for_the_answer() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    clients_in_both(
        |stage| stage.run("{iptables}-nft -A OUTPUT -p tcp --sport 7000 -j DROP"),
        11,
        &format!(
            "this host: the answers (SYN-ACK) to 1 client are dropped
            by {{iptables}} (nft), table filter, chain OUTPUT, rule 1 of 1 ({{ip}} filter OUTPUT, handle 2)
            tcp sport 7000 counter drop
            {BY_RULE}
            try {{iptables}}-nft -S OUTPUT 1"
        ),
    );
}

/// Before Linux 5.12 tables have no owner; the rules then look into a set that times out.
#[test]
fn rules_without_owners_of_tables() {
    lab!("iptables-nft", "socat", "nc.openbsd", "nft");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        stage.run("{iptables}-nft -A INPUT -p tcp --dport 7000 -j DROP");
        let before = stage.pair.host.run("nft -s list ruleset").text();
        let output = stage.watch("--without owner", Stage::client);
        let place = stage.words(
            "  by      {iptables} (nft), table filter, chain INPUT, rule 1 of 1 ({ip} filter INPUT, handle 2)\n",
        );
        assert!(output.text().contains(&place), "{output}");
        assert!(output.text().contains("  proof   nft trace; drop event NETFILTER_DROP\n"), "{output}");
        assert_eq!(output.code(), Some(11), "{output}");
        assert_eq!(stage.pair.host.run("nft -s list ruleset").text(), before);
    }
}

#[test]
fn nothing_listens() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        Stage::new(family).expect(
            Stage::client,
            11,
            "this host: the SYNs of 1 client are refused
            by the kernel: nothing listens on {server:7000}
            from {client}: 1 connection, 1 SYN by eth0
            proof {events drop event NO_SOCKET|reset of this host}; sock_diag{events | (inferred)}
            try ss -ltn 'sport = :7000'",
        );
    }
}

#[test]
fn a_server_on_another_address() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let loopback: IpAddr = match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let end = SocketAddr::from((loopback, PORT));
        let _listener = stage.pair.host.inside(|| TcpListener::bind(end)).expect("a listener");
        let expected = format!(
            "this host: the SYNs of 1 client are refused
            by the kernel: nothing listens on {{server:7000}}, only on {end}
            from {{client}}: 1 connection, 1 SYN by eth0
            proof {{events drop event NO_SOCKET|reset of this host}}; sock_diag{{events | (inferred)}}
            try ss -ltn 'sport = :7000'"
        );
        stage.expect(Stage::client, 11, &expected);
    }
}

#[test]
fn a_full_accept_queue() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let end = stage.server();
        let _listener = stage.pair.host.inside(|| {
            let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
            socket.bind(&end.into()).expect("binding");
            socket.listen(0).expect("listening");
            socket
        });
        // The queue is full with one connection more than its backlog.
        let _first = stage.pair.peer.inside(|| TcpStream::connect(end)).expect("a connection");
        let expected = "this host: the SYNs of 1 client are dropped
            by the listener on {server:7000}: its accept queue is full (1 connection in a backlog of 0)
            which its process does not call accept() often enough
            from {client}: 1 connection, 1 SYN by eth0
            proof counter ListenOverflows; sock_diag (inferred)
            try ss -ltnp 'sport = :7000'";
        stage.expect(Stage::client, 11, expected);
    }
}

/// IPv6 has no such filter.
#[test]
fn a_strict_reverse_path_filter() {
    lab!("socat", "nc.openbsd");
    let stage = Stage::of(Pair::with_two_links(), Family::V4);
    let (host, peer) = (&stage.pair.host, &stage.pair.peer);
    let _server = stage.serve();
    peer.ip("address add 10.99.0.1/32 dev lo");
    host.ip("route add 10.99.0.1/32 via 10.79.0.2 dev eth1");
    for (scope, value) in [("all", "0"), ("eth1", "0"), ("eth0", "1")] {
        host.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), value);
    }
    // The filter would drop the peer's ARP, too.
    peer.ip("neigh replace 10.77.0.1 lladdr 02:00:77:00:00:01 dev eth0");
    for (flags, proof) in [
        ("", "drop event IP_RPFILTER; counter IPReversePathFilter +N"),
        ("--without drop-events", "counter IPReversePathFilter +N; positions (own chains, tap) (inferred)"),
    ] {
        let output = stage.watch(flags, |stage| {
            stage.pair.peer.words("nc.openbsd -z -w 1 -s 10.99.0.1 10.77.0.1 7000").run();
        });
        let text = output.text();
        for line in [
            "this host: the SYNs of 1 client are dropped\n",
            "  by      rp_filter (strict) on eth0: the SYN came in by eth0, the way to 10.99.0.1 leads by eth1\n",
            "  from    10.99.0.1: 1 connection, ",
            "  try     sysctl net.ipv4.conf.eth0.rp_filter=2\n",
        ] {
            assert!(text.contains(line), "{line}\n{output}");
        }
        // The SYN may be repeated.
        let found = text.lines().find_map(|line| line.trim().strip_prefix("proof   ")).expect("a proof");
        let (before, behind) = found.split_once('+').expect("a counter");
        let behind = behind.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let found = format!("{before}+N{behind}");
        assert_eq!(found, proof, "{output}");
        assert_eq!(output.code(), Some(11), "{output}");
    }
}

#[test]
fn an_address_of_another_host() {
    lab!("socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        let elsewhere = at(family, "10.77.0.9", "fd77::9");
        stage.pair.peer.ip(&format!("neigh replace {elsewhere} lladdr 02:00:77:00:00:01 dev eth0"));
        let setting =
            if family == Family::V4 { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
        let expected = format!(
            "this host: the SYNs of 1 client are dropped
            by the kernel: {elsewhere} is no address of this host, and forwarding is off ({setting})
            from {{client}}: 1 connection, 1 SYN by eth0
            proof {{events drop event IP_INADDRERRORS; |}}route look-up{{events |; positions (own chains, tap) (inferred)}}
            try ip {{v}} address show to {elsewhere}"
        );
        stage.expect(|stage| stage.client_to(elsewhere), 11, &expected);
    }
}

#[test]
fn nothing_comes() {
    lab!("socat");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let server = stage.serve();
        stage.expect(
            |_| {},
            3,
            "not here: no SYN for port 7000 came within T
            server a process listens on [::]:7000",
        );
        drop(server);
        // The time of -w ends it, too.
        let line = format!("--compare --exit-verdict -l -w 300ms {} {PORT}", stage.pair.host_address(family));
        let output = netkat(&stage.pair.host, &line).run();
        let expected = "not here: no SYN for {server:7000} came within T
            server nothing listens on the port";
        crate::support::comparison::check(&output, 3, &stage.words(expected));
    }
}
