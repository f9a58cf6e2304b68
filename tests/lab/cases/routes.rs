//! The kernel's routing decision is netkat's: policy rules, next-hop objects, several paths; -i and -s change it.
use crate::support::{
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::DEADLINE,
    requirements::lab,
    topology::{Family, Pair, address, at},
};

/// Checks that netkat reaches the address, and that it reports this interface and this source.
fn reaches(pair: &Pair, to: &str, arguments: &str, route: &str) {
    let out = Payload::short();
    let server =
        Netcat::OpenBsd.listen(&pair.peer, to.parse().expect("an address"), 5000, |c| c.expect(&out));
    let client = netkat(&pair.host, &format!("-v {arguments} {to} 5000")).input(out.input()).run();
    assert_eq!(client.code(), Some(0), "{client}");
    assert!(client.stderr.contains(route), "\"{route}\" is not said: {client}");
    server.wait(DEADLINE).check(&out);
}

#[test]
fn policy_rules_next_hop_objects_and_several_paths() {
    lab!("nc.openbsd");
    let pair = Pair::with_two_links();
    for (v, first, second, net, bits) in
        [("-4", "10.77.0", "10.79.0", "10.80.0.", 32), ("-6", "fd77:", "fd79:", "fd80::", 128)]
    {
        let dot = if v == "-4" { "." } else { ":" };
        let (near, far) = (format!("{first}{dot}2"), format!("{second}{dot}2"));
        let by_eth1 = format!("interface eth1, source {second}{dot}1, gateway {far}");
        // The main table leads to eth0, and a rule sends this address elsewhere.
        pair.host.ip(&format!("{v} route add {net}1/{bits} via {near}"));
        pair.host.ip(&format!("{v} route add {net}1/{bits} via {far} table 100"));
        reaches(
            &pair,
            &format!("{net}1"),
            "",
            &format!("interface eth0, source {first}{dot}1, gateway {near}"),
        );
        pair.host.ip(&format!("{v} rule add to {net}1 lookup 100"));
        reaches(&pair, &format!("{net}1"), "", &by_eth1);

        let id = if v == "-4" { 7 } else { 8 };
        pair.host.ip(&format!("nexthop add id {id} via {far} dev eth1"));
        pair.host.ip(&format!("{v} route add {net}2/{bits} nhid {id}"));
        reaches(&pair, &format!("{net}2"), "", &by_eth1);

        pair.host.ip(&format!(
            "{v} route add {net}3/{bits} nexthop via {near} dev eth0 nexthop via {far} dev eth1"
        ));
        reaches(&pair, &format!("{net}3"), "", "interface eth");
        reaches(&pair, &format!("{net}3"), "-i eth1", &by_eth1);

        // A route that names its source.
        let preferred = format!("{first}{dot}aa").replace(".aa", ".170");
        address(&pair.host, "lo", &format!("{preferred}/{bits}"));
        pair.peer.ip(&format!("{v} route add {preferred}/{bits} via {first}{dot}1"));
        pair.host.ip(&format!("{v} route add {net}4/{bits} via {near} src {preferred}"));
        reaches(
            &pair,
            &format!("{net}4"),
            "",
            &format!("interface eth0, source {preferred}, gateway {near}"),
        );
    }
}

/// The host announces its own address over two uplinks: whichever is chosen, answers arrive by
/// either.
#[test]
fn answers_may_come_by_another_path_of_the_route() {
    lab!("nc.openbsd", "iptables-nft", "ip6tables-nft");
    let pair = Pair::with_two_links();
    pair.host.run("iptables-nft -w -A INPUT -p tcp -j REJECT --reject-with tcp-reset");
    pair.host.run("ip6tables-nft -w -A INPUT -p tcp -j REJECT --reject-with tcp-reset");
    for (v, own, first, second, to, bits) in [
        ("-4", "10.81.0.1", "10.77.0", "10.79.0", "10.80.0.1", 32),
        ("-6", "fd81::1", "fd77:", "fd79:", "fd80::1", 128),
    ] {
        let dot = if v == "-4" { "." } else { ":" };
        address(&pair.host, "lo", &format!("{own}/{bits}"));
        pair.host.ip(&format!(
            "{v} route add {to}/{bits} src {own} nexthop via {first}{dot}2 dev eth0 \
             nexthop via {second}{dot}2 dev eth1"
        ));
        for back in [first, second] {
            pair.peer.ip(&format!("{v} route replace {own}/{bits} via {back}{dot}1"));
            reaches(&pair, to, "", &format!("source {own}"));
        }
    }
}

/// Packets sent from another interface's address are answered there, as for a kernel socket.
#[test]
fn answers_may_come_by_the_interface_that_has_the_source_address() {
    lab!("nc.openbsd", "iptables-nft", "ip6tables-nft");
    let pair = Pair::with_two_links();
    pair.host.run("iptables-nft -w -A INPUT -p tcp -j REJECT --reject-with tcp-reset");
    pair.host.run("ip6tables-nft -w -A INPUT -p tcp -j REJECT --reject-with tcp-reset");
    for (v, source, by, to, bits) in
        [("-4", "10.79.0.1", "10.77.0.2", "10.80.0.1", 32), ("-6", "fd79::1", "fd77::2", "fd80::1", 128)]
    {
        pair.host.ip(&format!("{v} route add {to}/{bits} via {by}"));
        reaches(&pair, to, &format!("-s {source}"), &format!("interface eth0, source {source}"));
    }
}

#[test]
fn an_interface_that_has_no_route_is_refused_by_name() {
    lab!();
    let pair = Pair::with_two_links();
    for (v, near, to) in [("-4", "10.77.0.2", "10.80.0.1"), ("-6", "fd77::2", "fd80::1")] {
        pair.host.ip(&format!("{v} route add {to} via {near}"));
        let output = netkat(&pair.host, &format!("-i eth1 {to} 5000")).run();
        assert_eq!(output.code(), Some(1), "{output}");
        assert!(output.stderr.contains("eth1") && output.stderr.contains("eth0"), "{output}");
    }
}

#[test]
fn names_are_looked_up_and_their_addresses_tried_in_turn() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let out = Payload::short();
    // Where localhost is ::1, too, that address is tried first and refused.
    let own = at(Family::V4, "127.0.0.1", "::1");
    for flag in ["", "-4"] {
        let server = Netcat::OpenBsd.listen(&pair.host, own, 5000, |c| c.expect(&out));
        let client = netkat(&pair.host, &format!("{flag} localhost 5000")).input(out.input()).run();
        assert_eq!(client.code(), Some(0), "{client}");
        server.wait(DEADLINE).check(&out);
    }
    let output = netkat(&pair.host, "-n localhost 5000").run();
    assert_eq!(output.code(), Some(1), "{output}");
    assert!(output.stderr.contains("localhost"), "{output}");
}

/// Each offload can be switched off, and netkat works without it.
#[test]
fn transfers_without_offloads() {
    lab!("socat");
    let pair = Pair::new();
    let (out, back) = (Payload::new(20, 8 * MIB), Payload::new(21, 8 * MIB));
    for family in Family::ALL {
        for flags in ["--no-gso", "--no-vnet-header", "--buffer 64K", "--buffer 16M"] {
            let to = pair.peer_address(family);
            let server = Netcat::Socat.listen(&pair.peer, to, 5000, |c| c.input(back.input()).expect(&out));
            let client =
                netkat(&pair.host, &format!("{flags} {to} 5000")).input(out.input()).expect(&back).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{flags}: {client}");
            client.check(&back);
            server.wait(DEADLINE).check(&out);

            let here = pair.host_address(family);
            let server = listening(&pair.host, &format!("{flags} {here} 5000"), |c| {
                c.input(out.input()).expect(&back)
            });
            Netcat::Socat.connect(&pair.peer, here, 5000).input(back.input()).expect(&out).run().check(&out);
            let server = server.wait(DEADLINE);
            server.check(&back);
            assert_eq!(server.code(), Some(0), "{flags}: {server}");
        }
    }
}
