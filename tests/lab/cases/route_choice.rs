//! The route is that of the whole flow: ports, protocol, traffic class and user count in policy
//! rules, and ports in the choice among several paths.
use crate::support::{
    netkat::{listening, netkat},
    payload::Payload,
    peers::Netcat,
    process::DEADLINE,
    requirements::lab,
    scan::states,
    topology::{Family, Pair, address},
    traces::settles,
    witness::Witness,
};

/// Differences of the families: `ip`'s flag, next hops of both links, the far host and its prefix
/// length.
struct Net {
    v: &'static str,
    near: &'static str,
    far: &'static str,
    to: &'static str,
    bits: u8,
}

impl Net {
    fn of(family: Family) -> Net {
        match family {
            Family::V4 => Net { v: "-4", near: "10.77.0.2", far: "10.79.0.2", to: "10.80.0.1", bits: 32 },
            Family::V6 => Net { v: "-6", near: "fd77::2", far: "fd79::2", to: "fd80::1", bits: 128 },
        }
    }
}

/// Returns a pair whose far host is reached over two paths, chosen by the ports.
fn two_paths() -> Pair {
    let pair = Pair::with_two_links();
    for family in Family::ALL {
        let Net { v, near, far, to, bits } = Net::of(family);
        pair.host
            .ip(&format!("{v} route add {to}/{bits} nexthop via {near} dev eth0 nexthop via {far} dev eth1"));
    }
    for version in ["ipv4", "ipv6"] {
        pair.host.sysctl(&format!("net.{version}.fib_multipath_hash_policy"), "1");
    }
    pair
}

/// Returns a pair whose far host is reached by eth0, and by eth1 where a rule says so.
fn by_rule(rule: impl Fn(&Net) -> String) -> Pair {
    let pair = Pair::with_two_links();
    for net in Family::ALL.map(Net::of) {
        let Net { v, near, far, to, bits } = net;
        pair.host.ip(&format!("{v} route add {to}/{bits} via {near}"));
        pair.host.ip(&format!("{v} route add {to}/{bits} via {far} table 100"));
        pair.host.ip(&format!("{v} rule add {} lookup 100", rule(&net)));
    }
    pair
}

/// Returns the word behind `before` in netkat's output.
fn word<'a>(text: &'a str, before: &str) -> &'a str {
    let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no \"{before}\" in {text}"));
    // With --json the line is the message of an object.
    rest.split([' ', ',', '\n', '"']).next().unwrap_or_default()
}

/// Returns the interface that netkat names for a flow to a closed port.
fn interface(pair: &Pair, arguments: &str) -> String {
    let output = netkat(&pair.host, &format!("-v -w 2 {arguments}")).text("?").run();
    assert_eq!(output.code(), Some(1), "{output}");
    word(&output.stderr, ": interface ").to_owned()
}

#[test]
fn connections_spread_over_the_paths_and_leave_by_the_one_that_is_named() {
    lab!("tcpdump");
    let pair = two_paths();
    for (to, flags, says) in Family::ALL
        .map(|family| Net::of(family).to)
        .into_iter()
        .flat_map(|to| [(to, "", "dialing"), (to, "-u", "sending to")])
    {
        let mut seen =
            ["eth0", "eth1"].map(|name| (name, Witness::incoming(&pair.peer, name, "tcp or udp"), 0));
        for _ in 0..16 {
            let report =
                netkat(&pair.host, &format!("-v --json -w 2 {flags} {to} 9005")).text("?").run().stderr;
            let named = word(&report, ": interface ");
            assert!(report.contains(&format!("\"interface\":\"{named}\"")), "{report}");
            let from = report.split(says).nth(1).map(|rest| word(rest, " from ")).expect("a source");
            let port = from.rsplit(':').next().expect("a port");
            let (_, witness, count) =
                seen.iter_mut().find(|(name, ..)| *name == named).expect("a path's interface");
            *count += 1;
            witness.wait_for(&format!(".{port} > {to}.9005"));
        }
        let counts = seen.map(|(_, _, count)| count);
        assert!(!counts.contains(&0), "{flags} {to}: {counts:?} connections by either path");
    }
}

#[test]
fn probes_of_a_scan_take_the_paths_of_their_ports() {
    lab!("tcpdump");
    let pair = two_paths();
    for to in Family::ALL.map(|family| Net::of(family).to) {
        for flags in ["-z", "-z -u -w 5"] {
            let mut seen = ["eth0", "eth1"].map(|name| Witness::incoming(&pair.peer, name, "tcp or udp"));
            // At most six, since the peer limits its ICMP errors.
            let output = netkat(&pair.host, &format!("{flags} {to} 9001-9006")).run();
            assert!(!output.text().contains("timed out") && !output.text().contains("filtered"), "{output}");
            if flags == "-z" {
                let output = netkat(&pair.host, &format!("{flags} {to} 9101-9116")).run();
                assert_eq!(output.text().matches("refused").count(), 16, "{output}");
                seen.iter_mut().for_each(|witness| witness.wait_for(&format!(" > {to}.91")));
            }
        }
    }
}

#[test]
fn a_rule_for_a_local_port() {
    lab!("nc.openbsd");
    let pair = by_rule(|_| "ipproto tcp sport 40001-40002".into());
    for to in Family::ALL.map(|family| Net::of(family).to) {
        for (arguments, expected) in
            [("-p 40001", "eth1"), ("-p 40002", "eth1"), ("-p 40003", "eth0"), ("-u -p 40001", "eth0")]
        {
            assert_eq!(interface(&pair, &format!("{arguments} {to} 9005")), expected, "{arguments} {to}");
        }
    }
}

#[test]
fn a_rule_for_ephemeral_ports() {
    lab!();
    let pair = by_rule(|_| "sport 50000-50100".into());
    pair.host.sysctl("net.ipv4.ip_local_port_range", "50000 50100");
    for to in Family::ALL.map(|family| Net::of(family).to) {
        for flags in ["", "-u"] {
            assert_eq!(interface(&pair, &format!("{flags} {to} 9005")), "eth1", "{flags} {to}");
        }
    }
}

#[test]
fn a_rule_for_remote_ports() {
    lab!("tcpdump");
    let pair = by_rule(|_| "dport 9010-9019".into());
    for to in Family::ALL.map(|family| Net::of(family).to) {
        for (port, expected) in [(9005, "eth0"), (9012, "eth1")] {
            for flags in ["", "-u"] {
                assert_eq!(
                    interface(&pair, &format!("{flags} {to} {port}")),
                    expected,
                    "{flags} {to} {port}"
                );
            }
        }
        let [mut near, mut far] =
            ["eth0", "eth1"].map(|name| Witness::incoming(&pair.peer, name, "tcp[13] = 2 or ip6[53] = 2"));
        let output = netkat(&pair.host, &format!("-z {to} 9009,9010,9019,9020")).run();
        assert_eq!(output.text().matches("refused").count(), 4, "{output}");
        for port in [9009, 9020] {
            near.wait_for(&format!(" > {to}.{port}"));
        }
        for port in [9010, 9019] {
            far.wait_for(&format!(" > {to}.{port}"));
        }
    }
}

/// Ports that a rule refuses fail alone.
#[test]
fn a_scan_goes_on_beside_a_port_without_a_route() {
    lab!();
    let pair = Pair::with_two_links();
    for net in Family::ALL.map(Net::of) {
        let Net { v, near, to, bits, .. } = net;
        pair.host.ip(&format!("{v} route add {to}/{bits} via {near}"));
        pair.host.ip(&format!("{v} rule add dport 9001-9002 prohibit"));
        for flags in ["-z", "-z -u"] {
            let output = netkat(&pair.host, &format!("{flags} {to} 9001-9003")).run();
            let lines: Vec<_> = states(&output.text()).lines().map(str::to_owned).collect();
            let ends = ["no route", "no route", if flags == "-z" { "refused" } else { "closed" }];
            assert!(lines.iter().zip(ends).all(|(line, end)| line.ends_with(end)), "{flags}: {output}");
            assert_eq!(lines.len(), 3, "{flags}: {output}");
        }
    }
}

#[test]
fn a_rule_for_a_traffic_class() {
    lab!();
    let pair = by_rule(|_| "tos 0x10".into());
    for to in Family::ALL.map(|family| Net::of(family).to) {
        for flags in ["", "-u"] {
            for (class, expected) in [("", "eth0"), ("--tos 0x10", "eth1"), ("--tos 0x08", "eth0")] {
                let arguments = format!("{flags} {class} {to} 9005");
                assert_eq!(interface(&pair, &arguments), expected, "{arguments}");
            }
        }
    }
}

/// A listener gives up its identity, and answers by the routes of the user who started it, as a
/// socket does.
#[test]
fn a_rule_for_a_user() {
    lab!("nc.openbsd");
    let pair = by_rule(|_| "uidrange 0-0".into());
    let line = Payload::short();
    for family in Family::ALL {
        let Net { v, near, to, bits, .. } = Net::of(family);
        assert_eq!(interface(&pair, &format!("{to} 9005")), "eth1", "{to}");
        // Only root's table leads back to the client.
        pair.host.ip(&format!("{v} route del {to}/{bits} via {near}"));
        let here = if family == Family::V4 { "10.79.0.1" } else { "fd79::1" };
        let server = listening(&pair.host, &format!("{here} 5000"), |c| c.input(line.input()));
        let client = pair.peer.command("nc.openbsd").args(["-s", to, "-w", "5", here, "5000"]).run();
        client.check(&line);
        server.wait(DEADLINE);
    }
}

/// netkat takes a port of the user's choice before it asks for the route.
#[test]
fn a_port_that_is_taken_at_the_source_is_drawn_again() {
    lab!("nc.openbsd", "ss");
    let pair = Pair::new();
    let held = || pair.host.run("ss -Htan").text();
    address(&pair.host, "eth0", "10.77.0.9/24");
    // Two ports: one is taken at the source alone.
    pair.host.sysctl("net.ipv4.ip_local_port_range", "50000 50001");
    let out = Payload::short();
    let taken = Netcat::OpenBsd.listen(&pair.host, "10.77.0.1".parse().expect("an address"), 50000, |c| c);
    for _ in 0..4 {
        let to = pair.peer_address(Family::V4);
        let server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c.expect(&out));
        let client = netkat(&pair.host, &format!("{to} 5000")).input(out.input()).run();
        assert_eq!(client.code(), Some(0), "{client}");
        server.wait(DEADLINE).check(&out);
        // The copy in TIME-WAIT holds the only free port.
        settles(|| !held().contains(":50001 "), held);
    }
    drop(taken);
}
