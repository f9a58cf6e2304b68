//! `--compare` where no rule ends a packet: routes, policy rules, neighbours, filters by path, and what lies beyond
//! this host.
use crate::support::{
    comparison::{PORT, Scene, check, in_both, serve},
    netkat::netkat,
    requirements::lab,
    topology::{Family, address, at, veth},
};

#[test]
fn nothing_in_the_way() {
    lab!("socat");
    in_both(
        |_| {},
        0,
        "same: nothing on this host stands between it and {peer:7000}
        kernel connected after T SYN left eth0, SYN-ACK came back
        {raw}",
    );
}

#[test]
fn a_route_that_refuses() {
    lab!("socat");
    for (kind, errno, words) in [
        ("blackhole", "EINVAL", "the routing policy discards it (blackhole)"),
        ("prohibit", "EACCES", "the routing policy prohibits it"),
        ("unreachable", "EHOSTUNREACH", "the routing policy declares it unreachable"),
    ] {
        for family in Family::ALL {
            let scene = Scene::new(family);
            let to = at(family, "10.99.0.9", "fd99::9");
            scene.run(&format!("ip {{v}} route add {kind} {to}"));
            let output = netkat(&scene.pair.host, &format!("--compare --exit-verdict {to} {PORT}")).run();
            let expected = format!(
                "this host: no packet was made
                by route {kind} {to} (table main)
                kernel no route after T
                raw no route no route to {to}: {words}; see: ip route get {to}; ip rule
                proof connect() says {errno}; route look-up
                try ip {{v}} route show table main"
            );
            check(&output, 11, &scene.words(&expected));
        }
    }
}

#[test]
fn a_policy_rule_that_refuses() {
    lab!("socat");
    in_both(
        |scene| scene.run("ip {v} rule add to {peer} prohibit"),
        11,
        "this host: no packet was made
        by policy rule \"from all to {peer} prohibit\"
        kernel no route after T
        raw no route no route to {peer}: the routing policy prohibits it; see: ip route get {peer}; ip rule
        proof connect() says EACCES; route look-up
        try ip {v} rule",
    );
}

#[test]
fn no_route_at_all() {
    lab!("socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        let to = at(family, "192.0.2.9", "2001:db8::9");
        let output = netkat(&scene.pair.host, &format!("--compare --exit-verdict {to} {PORT}")).run();
        let text = output.text();
        assert_eq!(output.code(), Some(11), "{output}");
        assert!(text.starts_with("this host: no packet was made\n"), "{output}");
        assert!(
            text.contains(&format!("by      no route: no routing table has an entry for {to}\n")),
            "{output}"
        );
    }
}

/// A mark in OUTPUT makes the kernel route the packet again.
#[test]
fn a_mark_without_a_route() {
    lab!("nft", "socat");
    in_both(
        |scene| {
            scene.nft(
                "table inet fw { chain out { type route hook output priority -150;
                    tcp dport 7000 meta mark set 7; }; }",
            );
            scene.run("ip {v} rule add fwmark 7 blackhole");
        },
        11,
        "this host: our SYN is dropped, since its mark leads to no route
        by policy rule \"from all fwmark 0x7 blackhole\"
        which reached since nft inet fw, chain out, rule 1 of 1 (handle 2) sets mark 0x7
        kernel no answer in T SYN made, none left
        {raw}
        proof nft trace; route look-up with mark 0x7{drop NETFILTER_DROP}
        try ip {v} rule",
    );
}

#[test]
fn a_queue_without_a_program() {
    lab!("iptables-nft", "socat");
    in_both(
        |scene| scene.run("{iptables}-nft -A OUTPUT -p tcp --dport 7000 -j NFQUEUE --queue-num 9"),
        11,
        "this host: our SYN is handed to a program that does not answer
        by {iptables} (nft), table filter, chain OUTPUT, rule 1 of 1 ({ip} filter OUTPUT, handle 2)
        tcp dport 7000 counter -j NFQUEUE --queue-num 9
        which queue 9 has no listener
        kernel no answer in T 1 of 1 SYN stopped before it left
        {raw}
        proof nft trace{drop at nf_queue}
        try {iptables}-nft -S OUTPUT 1",
    );
}

/// rp_filter drops the answer, which arrives by another interface than the route back. IPv6 has no
/// such filter.
#[test]
fn a_strict_reverse_path_filter() {
    lab!("socat");
    let scene = Scene::new(Family::V4);
    let (host, peer) = (&scene.pair.host, &scene.pair.peer);
    veth(host, "eth1", peer, "eth1");
    address(host, "eth1", "10.78.0.1/24");
    address(peer, "eth1", "10.78.0.2/24");
    for namespace in [host, peer] {
        for scope in ["all", "default", "eth0", "eth1"] {
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0");
        }
    }
    peer.ip("address add 10.79.0.9/32 dev lo");
    host.ip("route add 10.79.0.9 via 10.77.0.2");
    peer.ip("route add 10.77.0.1/32 via 10.78.0.1 dev eth1");
    // The filter would drop the peer's ARP, too.
    host.ip("link set eth1 address 02:00:78:00:00:01");
    peer.ip("neigh replace 10.78.0.1 lladdr 02:00:78:00:00:01 dev eth1");
    host.sysctl("net.ipv4.conf.eth1.rp_filter", "1");
    // The answer may be repeated.
    for (flags, before, behind) in [
        ("", "drop event IP_RPFILTER; ", "\n"),
        ("--without drop-events", "", "; positions (own chains, tap) (inferred)\n"),
    ] {
        let line = format!("--compare --exit-verdict -w 900ms {flags} 10.79.0.9 {PORT}");
        let output = netkat(host, &line).run();
        assert_eq!(output.code(), Some(11), "{output}");
        let text = output.text();
        for line in [
            "this host: the answer (SYN-ACK) is dropped\n",
            "  by      rp_filter (strict) on eth1: the answer came in by eth1, the way to 10.79.0.9 leads by eth0\n",
            "  try     sysctl net.ipv4.conf.eth1.rp_filter=2\n",
        ] {
            assert!(text.contains(line), "{line}\n{output}");
        }
        let (_, proof) = text.split_once("  proof   ").expect("a proof");
        let (start, counted) = proof.split_once("counter IPReversePathFilter +").expect("the counter");
        assert_eq!(start, before, "{output}");
        assert!(
            counted.trim_start_matches(|digit: char| digit.is_ascii_digit()).starts_with(behind),
            "{output}"
        );
    }
}

#[test]
fn the_far_end_is_silent_rejects_or_refuses() {
    lab!("iptables-nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        let peer = |rule: &str| scene.pair.peer.run(&scene.words(&format!("{{iptables}}-nft {rule}")));
        peer("-A INPUT -p tcp --dport 7000 -j DROP");
        scene.expect(
            "-w 1200ms",
            3,
            "not here: SYN left eth0 unchanged, and nothing came back
            kernel no answer in T SYN left eth0, nothing came back
            raw timed out after T {host:}:0 > {peer:7000} via {peer}, eth0",
        );
        peer("-R INPUT 1 -p tcp --dport 7000 -j REJECT");
        scene.expect(
            "",
            5,
            "not here: {peer} rejected it (ICMP port unreachable)
            kernel rejected (ICMP port unreachable) after T SYN left eth0, ICMP error came back
            raw rejected (ICMP port unreachable) after T {host:}:0 > {peer:7000} via {peer}, eth0",
        );
        peer("-R INPUT 1 -p tcp --dport 7000 -j REJECT --reject-with tcp-reset");
        scene.expect(
            "",
            4,
            "not here: {peer} itself refused (RST)
            kernel refused after T SYN left eth0, reset came back
            raw refused after T {host:}:0 > {peer:7000} via {peer}, eth0",
        );
    }
}

#[test]
fn a_silent_neighbour() {
    lab!("socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        let (to, protocol) = match family {
            Family::V4 => ("10.77.0.50", "ARP"),
            Family::V6 => ("fd77::50", "neighbour discovery"),
        };
        let output = netkat(&scene.pair.host, &format!("--compare --exit-verdict {to} {PORT}")).run();
        let text = output.text();
        assert_eq!(output.code(), Some(6), "{output}");
        assert!(
            text.starts_with(&format!("not here: {to} does not answer {protocol} on eth0\n")),
            "{output}"
        );
    }
}

/// Another next hop and another source hold for netkat's path alone.
#[test]
fn a_chosen_way_is_netkats_alone() {
    lab!("iptables-nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        scene.run("{iptables}-nft -A OUTPUT -p tcp --dport 7000 -j DROP");
        let assumed = at(family, "10.77.0.200", "fd77::200");
        for flags in [format!("--as {assumed}"), "--via 02:00:77:00:00:02 -i eth0".to_owned()] {
            let output = scene.compare(&flags);
            assert_eq!(output.code(), Some(11), "{output}");
            let text = output.text();
            assert!(text.starts_with("this host: our SYN is dropped\n"), "{output}");
            assert!(text.contains("  raw     connected"), "{output}");
            assert_eq!(text.contains("(another source port: --as)"), flags.starts_with("--as"), "{output}");
        }
    }
}

/// A neighbour whose answer this host drops does not count as silent.
#[test]
fn a_neighbours_answer_that_a_rule_drops() {
    lab!("nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        let (rules, place) = match family {
            Family::V4 => (
                "table arp fw { chain in { type filter hook input priority 0; policy drop; }; }",
                "nft arp fw, chain in: policy drop, it has no rules",
            ),
            Family::V6 => (
                "table ip6 fw { chain in { type filter hook input priority 0; icmpv6 type nd-neighbor-advert drop; }; }",
                "nft ip6 fw, chain in, rule 1 of 1 (handle 2)",
            ),
        };
        scene.nft(rules);
        scene.pair.host.ip("neigh flush all");
        let output = scene.compare("-w 1s");
        assert_eq!(output.code(), Some(11), "{output}");
        let text = output.text();
        assert!(text.starts_with("this host: the neighbour's answer is dropped"), "{output}");
        assert!(text.contains(&format!("  by      {place}\n")), "{output}");
    }
}

/// The rule looks at the socket's owner: another user's connection passes.
#[test]
fn a_rule_for_one_user() {
    lab!("iptables-nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        scene.run("{iptables}-nft -A OUTPUT -m owner --uid-owner 1337 -p tcp --dport 7000 -j DROP");
        assert_eq!(scene.compare("").code(), Some(0));
        scene.expect(
            "--user 1337",
            11,
            "this host: our SYN is dropped
            by {iptables} (nft), table filter, chain OUTPUT, rule 1 of 1 ({ip} filter OUTPUT, handle 2)
            -m owner --uid-owner 1337 tcp dport 7000 counter drop
            which the rule looks at the socket's owner: see --user
            kernel no answer in T 1 of 1 SYN stopped before it left
            {raw}
            proof nft trace{drop NETFILTER_DROP}
            try {iptables}-nft -S OUTPUT 1",
        );
    }
}

/// Packets to an own address pass lo, and both hooks.
#[test]
fn an_own_address() {
    lab!("iptables-nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        let own = scene.pair.host_address(family);
        let _server = serve(&scene.pair.host, PORT);
        scene.run("{iptables}-nft -A INPUT -i lo -p tcp --dport 7000 -j DROP");
        let line = format!("--compare --exit-verdict -w 1s {own} {PORT}");
        let text = netkat(&scene.pair.host, &line).run().text();
        let place = "  by      {iptables} (nft), table filter, chain INPUT, rule 1 of 1 ({ip} filter INPUT, handle 2)\n";
        assert!(text.starts_with("this host: our SYN is dropped\n"), "{text}");
        assert!(text.contains(&scene.words(place)), "{text}");
        scene.run("{iptables}-nft -F INPUT");
        let output = netkat(&scene.pair.host, &format!("--compare --exit-verdict -w 1s {own} 7999")).run();
        assert_eq!(output.code(), Some(11), "{output}");
        assert!(output.text().starts_with("this host: nothing listens there\n"), "{output}");
    }
}
