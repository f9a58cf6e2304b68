//! `--compare -l` where the way through this host is the cause: translations, routes back, neighbours, control groups.
use crate::support::{
    client_watch::{Stage, clients_in_both},
    comparison::{OTHER_PORT, PORT, check},
    control_group::Group,
    programs::{self, Direction},
    requirements::{lab, lacking},
    rules::nft,
    topology::{Family, Pair, at},
};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv6Addr, SocketAddr};

/// A DNAT to a host that does not answer.
#[test]
fn a_translation_to_a_silent_end() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::of(Pair::with_two_links(), family);
        let (host, peer) = (&stage.pair.host, &stage.pair.peer);
        let _server = stage.serve();
        host.sysctl("net.ipv4.ip_forward", "1");
        host.sysctl("net.ipv6.conf.all.forwarding", "1");
        let beyond = at(family, "10.81.0.9", "fd81::9");
        host.ip(&format!("route add {beyond} via {} dev eth1", at(family, "10.79.0.2", "fd79::2")));
        // The peer has the address, and drops what comes to it.
        peer.ip(&format!("address add {beyond} dev lo"));
        peer.run(&stage.words(&format!("{{iptables}}-nft -A INPUT -p tcp --dport {OTHER_PORT} -j DROP")));
        let end = SocketAddr::from((beyond, OTHER_PORT));
        stage.run(&format!(
            "{{iptables}}-nft -t nat -A PREROUTING -p tcp --dport 7000 -m comment --comment svc -j DNAT \
             --to-destination {end}"
        ));
        let expected = format!(
            "this host: the SYNs of 1 client are sent on to {end}, and nothing comes back
            by {{iptables}} (nft), table nat, chain PREROUTING, rule 1 of 1 ({{ip}} nat PREROUTING, handle 2)
            tcp dport 7000 -m comment --comment \"svc\" counter -j DNAT --to-destination {end}
            which comment \"svc\"
            from {{client}}: 1 connection, 1 SYN by eth0
            proof nft trace
            try {{iptables}}-nft -t nat -S PREROUTING 1"
        );
        stage.expect(Stage::client, 11, &expected);
        // A drop behind the translation comes first.
        stage.run("{iptables}-nft -A FORWARD -p tcp -j DROP");
        let expected = "this host: the SYNs of 1 client are dropped
            by {iptables} (nft), table filter, chain FORWARD, rule 1 of 1 ({ip} filter FORWARD, handle 2)
            meta l4proto tcp counter drop
            from {client}: 1 connection, 1 SYN by eth0
            proof nft trace{events ; drop event NETFILTER_DROP|}
            try {iptables}-nft -S FORWARD 1";
        let output = stage.watch("--without drop-events", Stage::client);
        check(&output, 11, &stage.words(&crate::support::client_watch::choose(expected, false)));
    }
}

/// A redirection to a port of this host where nothing listens.
#[test]
fn a_redirection_to_a_closed_port() {
    lab!("nft", "socat", "nc.openbsd");
    clients_in_both(
        |stage| {
            nft(
                &stage.pair.host,
                "table inet z { chain p { type nat hook prerouting priority -100;
                    tcp dport 7000 redirect to :7001; }; }",
            );
        },
        11,
        "this host: the SYNs of 1 client are sent on to {server:7001}, and refused there
        by nft inet z, chain p, rule 1 of 1 (handle 2)
        tcp dport 7000 redirect to :7001
        from {client}: 1 connection, 1 SYN by eth0
        proof nft trace
        try nft -a list chain inet z p",
    );
}

/// The SYN comes in, and no route leads back.
#[test]
fn no_route_back() {
    lab!("socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        for scope in ["all", "eth0"] {
            stage.pair.host.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0");
        }
        let (length, from) =
            (if family == Family::V4 { 32 } else { 128 }, at(family, "10.99.0.1", "fd99::1"));
        stage.pair.peer.ip(&format!("address add {from}/{length} dev lo"));
        stage
            .pair
            .peer
            .ip(&format!("neigh replace {} lladdr 02:00:77:00:00:01 dev eth0", stage.server().ip()));
        let client = |stage: &Stage| {
            let to = stage.server().ip();
            stage.pair.peer.words(&format!("nc.openbsd -z -w 1 -s {from} {to} {PORT}")).run();
        };
        let expected = format!(
            "this host: the answers (SYN-ACK) to 1 client are not made: they have no route
            by no route: no routing table has an entry for {from}
            from {from}: 1 connection, 1 SYN by eth0
            proof route look-up; positions (own chains, tap) (inferred)
            try ip route get {from}"
        );
        stage.expect(client, 11, &expected);
        stage.run(&format!("ip {{v}} route add {from} via {{client}} dev eth0"));
        let answered = stage.watch("", client);
        assert_eq!(answered.code(), Some(0), "{answered}");
        // A rule that refuses what leaves the server's port; packets to it are looked up another way round.
        stage.run("ip {v} rule add ipproto tcp sport 7000 iif lo prohibit");
        let expected = format!(
            "this host: the answers (SYN-ACK) to 1 client are not made: they have no route
            by policy rule \"from all iif lo sport 7000 ipproto tcp prohibit\"
            from {from}: 1 connection, 1 SYN by eth0
            proof route look-up; positions (own chains, tap) (inferred)
            try ip {{v}} rule"
        );
        stage.expect(client, 11, &expected);
    }
}

/// The SYN-ACK waits for the client's link address.
#[test]
fn a_silent_neighbour() {
    lab!("socat", "nc.openbsd", "nft");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        let (host, peer) = (&stage.pair.host, &stage.pair.peer);
        peer.ip(&format!("neigh replace {} lladdr 02:00:77:00:00:01 dev eth0", stage.server().ip()));
        // The peer does not answer questions for its link address.
        nft(
            peer,
            "table netdev nd { chain in { type filter hook ingress device \"eth0\" priority 0;
                ether type arp drop; icmpv6 type nd-neighbor-solicit drop; }; }",
        );
        let client = stage.pair.peer_address(family);
        host.ip(&format!("neigh flush to {client}"));
        let protocol = if family == Family::V4 { "ARP" } else { "neighbour discovery" };
        let expected = format!(
            "unknown: the answers (SYN-ACK) to 1 client do not leave: {client} does not answer {protocol} on eth0, or a rule \
             here drops its answer
            from {client}: 1 connection, 1 SYN by eth0
            server a process listens on [::]:7000"
        );
        stage.expect(Stage::client, 14, &expected);
    }
}

#[test]
fn programs_of_the_servers_control_group() {
    lab!("socat", "nc.openbsd");
    let Some(group) = Group::new("clients") else {
        return lacking("programs_of_the_servers_control_group", "no control groups of version 2");
    };
    for family in Family::ALL {
        let stage = Stage::new(family);
        let server = format!(
            "echo $$ > {}/cgroup.procs && exec socat TCP6-LISTEN:{PORT},fork,reuseaddr,ipv6-v6only=0 PIPE",
            group.folder().display()
        );
        let mut server = stage.pair.host.command("sh").args(["-c", &server]).spawn();
        server.wait_listening(PORT);
        for (direction, sentence, place) in [
            (
                Direction::Ingress,
                "this host: the SYNs of 1 client are dropped\n",
                "  by      cgroup_skb ingress program lab_cgroup_drop (id ",
            ),
            (
                Direction::Egress,
                "this host: the answers (SYN-ACK) to 1 client are dropped\n",
                "  by      cgroup_skb egress program lab_cgroup_drop (id ",
            ),
        ] {
            let _drop = programs::drop_by_cgroup(group.folder(), direction);
            for (flags, proof) in [("", "  proof   drop event "), ("--without drop-events", " (inferred)\n")]
            {
                let output = stage.watch(flags, Stage::client);
                assert_eq!(output.code(), Some(11), "{output}");
                for line in [sentence, place, proof] {
                    assert!(output.text().contains(line), "{line}\n{output}");
                }
            }
        }
    }
}

/// A server for IPv6 alone does not take what comes over IPv4.
#[test]
fn a_server_for_ipv6_alone() {
    lab!("nc.openbsd");
    let stage = Stage::new(Family::V4);
    let _listener = stage.pair.host.inside(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
        socket.set_only_v6(true).expect("IPv6 alone");
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into()).expect("binding");
        socket.listen(5).expect("listening");
        socket
    });
    let expected = "this host: the SYNs of 1 client are refused
        by the kernel: nothing listens on {server:7000}, only on [::]:7000 for IPv6
        from {client}: 1 connection, 1 SYN by eth0
        proof {events drop event NO_SOCKET|reset of this host}; sock_diag{events | (inferred)}
        try ss -ltn 'sport = :7000'";
    stage.expect(Stage::client, 11, expected);
    assert_eq!(Stage { family: Family::V6, ..stage }.watch("", Stage::client).code(), Some(0));
}
