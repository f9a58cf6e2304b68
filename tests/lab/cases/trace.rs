//! The hops of a flow (--trace): where it dies, who rejects it, what happens to it on the way.
use crate::support::{
    files::SystemFile,
    namespace::Namespace,
    netkat::netkat,
    peers::Netcat,
    process::{DEADLINE, Input, Output},
    requirements::lab,
    routers::Row,
    rules::nft,
    topology::{Family, address, at, veth},
};
use serde_json::Value;
use std::net::IpAddr;

/// Returns the trace's object, from standard output.
fn object(output: &Output) -> Value {
    let text = output.text();
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {output}"))
}

/// Traces with the object on standard output.
fn traced(row: &Row, arguments: &str) -> (Output, Value) {
    let output = netkat(&row.host, &format!("--trace --exit-verdict --json=- {arguments}")).run();
    let object = object(&output);
    (output, object)
}

/// Returns the first address of each hop of a path; an empty text for a silent hop.
fn addresses(path: &Value) -> Vec<String> {
    let hops = path["hops"].as_array().expect("hops");
    hops.iter().map(|hop| hop["addresses"][0]["address"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Returns the changes that a hop, counted from 1, shows: "field sent quoted".
fn changes(object: &Value, hop: usize) -> Vec<String> {
    let changes = object["paths"][0]["hops"][hop - 1]["changes"].as_array().expect("changes");
    let text = |change: &Value, name: &str| change[name].as_str().expect("a text").to_owned();
    changes.iter().map(|c| [text(c, "field"), text(c, "sent"), text(c, "quoted")].join(" ")).collect()
}

#[test]
fn every_hop_is_shown_up_to_the_far_end() {
    lab!("nc.openbsd");
    let row = Row::new(6);
    for family in Family::ALL {
        let to = row.peer_address(family);
        let mut hops: Vec<String> = (1..=6).map(|number| row.hop(family, number).to_string()).collect();
        hops.push(to.to_string());
        for (arguments, end, status) in [
            (format!("{to} 5000"), "syn_ack", 0),
            (format!("{to} 4999"), "reset", 4),
            (format!("-u {to} 4999"), "port_unreachable", 4),
        ] {
            let server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
            let (output, object) = traced(&row, &arguments);
            let path = &object["paths"][0];
            assert_eq!((output.code(), output.stderr.as_str()), (Some(status), ""), "{output}");
            assert_eq!(
                (&path["end"], &path["answer"], &path["end_hop"]),
                (&"reached".into(), &end.into(), &7.into()),
                "{object:#}"
            );
            assert_eq!(addresses(path), hops, "{object:#}");
            for hop in path["hops"].as_array().expect("hops") {
                let times = hop["round_trips_ms"].as_array().expect("times");
                assert!(times.iter().all(|time| time.as_f64().is_some_and(|ms| ms < 1000.0)), "{object:#}");
                assert_eq!((times.len(), &hop["state"]), (3, &"answers".into()), "{object:#}");
                assert_eq!(hop["changes"], Value::Array(Vec::new()), "{object:#}");
            }
            // The server saw a connection that carried nothing, whatever the probes repeated.
            match status {
                0 => assert_eq!(server.wait(DEADLINE).text(), ""),
                _ => drop(server),
            }
        }
    }
}

#[test]
fn what_happens_on_the_way_stands_at_the_hop_that_shows_it() {
    lab!("nc.openbsd", "nft");
    let row = Row::new(6);
    nft(
        row.router(1),
        "table inet lab { chain c { type filter hook postrouting priority 0; oifname east ip dscp set cs5; \
         oifname east ip6 dscp set cs5; }; }",
    );
    nft(
        row.router(2),
        "table inet lab { chain c { type filter hook forward priority 0; tcp flags syn tcp option maxseg size set 1360; \
         }; }",
    );
    // Stateless, so that the quotes stay as they are.
    nft(
        row.router(3),
        "table inet lab { chain c { type filter hook forward priority 0; iifname west ip saddr 10.60.0.1 ip saddr set \
         10.60.2.77; iifname west ip6 saddr fd60::1 ip6 saddr set fd60:2::77; }; \
         chain d { type filter hook prerouting priority -400; iifname east ip daddr 10.60.2.77 notrack ip daddr set \
         10.60.0.1; iifname east ip6 daddr fd60:2::77 notrack ip6 daddr set fd60::1; }; }",
    );
    // One error a minute; the other is silent.
    nft(
        row.router(5),
        "table inet lab { chain c { type filter hook output priority 0; \
         icmp type time-exceeded limit rate over 1/minute burst 1 packets drop; \
         icmpv6 type time-exceeded limit rate over 1/minute burst 1 packets drop; }; }",
    );
    nft(
        row.router(6),
        "table inet lab { chain c { type filter hook output priority 0; icmp type time-exceeded drop; \
         icmpv6 type time-exceeded drop; }; }",
    );
    for family in Family::ALL {
        let to = row.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
        let (output, object) = traced(&row, &format!("-p 4000 {to} 5000"));
        assert_eq!(output.code(), Some(0), "{output}");
        assert_eq!(changes(&object, 1), [""; 0]);
        assert_eq!(changes(&object, 2), ["dscp 0 40"]);
        let mss = if family == Family::V4 { "mss 1460 1360" } else { "mss 1440 1360" };
        assert_eq!(changes(&object, 3), ["dscp 0 40", mss]);
        let source = match family {
            Family::V4 => "source 10.60.0.1:4000 10.60.2.77:4000",
            Family::V6 => "source [fd60::1]:4000 [fd60:2::77]:4000",
        };
        assert_eq!(changes(&object, 4), [source, "dscp 0 40", mss]);
        let states: Vec<_> = (0..7).map(|at| object["paths"][0]["hops"][at]["state"].clone()).collect();
        assert_eq!(
            states,
            ["answers", "answers", "answers", "answers", "limits_icmp", "silent", "answers"],
            "{object:#}"
        );
        assert_eq!(object["paths"][0]["end_hop"], 7);
    }
}

/// Linux sends one host six ICMP errors at once and then, as a rule, one a second; what was sent got there all the same.
#[test]
fn a_host_that_limits_its_errors_loses_nothing() {
    lab!();
    let row = Row::new(1);
    row.peer.sysctl("net.ipv4.icmp_ratelimit", "1000");
    let (output, object) = traced(&row, "-u 10.60.1.2 4999");
    let hop = &object["paths"][0]["hops"][1];
    assert_eq!((output.code(), &hop["state"]), (Some(4), &"limits_icmp".into()), "{object:#}");
}

#[test]
fn who_ends_a_flow_is_named() {
    lab!("nft");
    let row = Row::new(4);
    let rule = |what: &str| {
        format!(
            "flush ruleset; table inet lab {{ chain c {{ type filter hook forward priority 0; \
             tcp dport 5000 {what}; udp dport 5000 drop; }}; }}"
        )
    };
    for family in Family::ALL {
        let (to, router) = (row.peer_address(family), row.hop(family, 3));
        for (what, end, status, words) in [
            (
                "reject with icmpx admin-prohibited",
                "rejected",
                5,
                format!("rejected by hop 3 ({router}): communication administratively prohibited"),
            ),
            ("reject with tcp reset", "reset_by_hop", 4, format!("refused by hop 3 ({router}), it seems")),
            ("drop", "dies_after_hop", 3, format!("dies after hop 3 ({router})")),
        ] {
            nft(row.router(3), &rule(what));
            let (output, object) = traced(&row, &format!("-w 1500ms {to} 5000"));
            let path = &object["paths"][0];
            assert_eq!(output.code(), Some(status), "{output}");
            assert_eq!(
                (&path["end"], &path["end_hop"], &path["end_address"]),
                (&end.into(), &3.into(), &router.to_string().into()),
                "{object:#}"
            );
            assert!(object["summary"].as_str().is_some_and(|text| text.starts_with(&words)), "{object:#}");
        }
        let (output, object) = traced(&row, &format!("-u -w 1s {to} 5000"));
        assert_eq!((output.code(), &object["paths"][0]["end_hop"]), (Some(3), &3.into()), "{output}");
        // The far end's own refusal is its own.
        nft(row.router(3), "flush ruleset");
        let (_, object) = traced(&row, &format!("{to} 5000"));
        assert_eq!(
            (&object["paths"][0]["end"], &object["paths"][0]["end_hop"]),
            (&"reached".into(), &5.into()),
            "{object:#}"
        );
        let (output, object) = traced(&row, &format!("--ttl 2 {to} 4999"));
        // SYNs with a hop limit of 2 reach no server; the flow's own segments would.
        assert_eq!((output.code(), &object["paths"][0]["end"]), (Some(3), &"too_far".into()), "{output}");
    }
}

/// A firewall that drops SYNs with few hops left hides what is behind it from traceroute, not from the connection.
#[test]
fn hops_behind_a_filter_of_syns_are_found_by_the_connection() {
    lab!("nc.openbsd", "nft");
    let row = Row::new(4);
    nft(
        row.router(2),
        "table inet lab { chain c { type filter hook prerouting priority 0; tcp flags & (syn|ack) == syn ip ttl < 20 drop; \
         tcp flags & (syn|ack) == syn ip6 hoplimit < 20 drop; }; }",
    );
    // And a stateful one, which takes the repeats for what they are.
    nft(
        row.router(3),
        "table inet lab { chain c { type filter hook forward priority 0; policy drop; ct state invalid drop; \
         ct state established,related accept; tcp flags syn ct state new accept; meta l4proto ipv6-icmp accept; }; }",
    );
    for family in Family::ALL {
        let to = row.peer_address(family);
        let server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
        let (output, object) = traced(&row, &format!("{to} 5000"));
        let path = &object["paths"][0];
        assert_eq!((output.code(), &path["answer"]), (Some(0), &"syn_ack".into()), "{object:#}");
        let states: Vec<_> = (0..5).map(|at| path["hops"][at]["state"].clone()).collect();
        let only = "only_established";
        assert_eq!(states, ["answers", only, only, only, only], "{object:#}");
        assert_eq!((path["end_hop"].clone(), server.wait(DEADLINE).text()), (5.into(), String::new()));
    }
}

/// Neither timestamps nor SACK are needed.
#[test]
fn peers_without_options_are_traced_and_measured_all_the_same() {
    lab!("nc.openbsd");
    for (sack, timestamps) in [("0", "0"), ("0", "1"), ("1", "0")] {
        let row = Row::new(3);
        row.router(2).ip("link set dev east mtu 1400");
        row.peer.sysctl("net.ipv4.tcp_sack", sack);
        row.peer.sysctl("net.ipv4.tcp_timestamps", timestamps);
        for family in Family::ALL {
            let to = row.peer_address(family);
            let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c.args(["-k"]));
            let (output, object) = traced(&row, &format!("{to} 5000"));
            let path = &object["paths"][0];
            assert_eq!((output.code(), &path["end_hop"]), (Some(0), &4.into()), "{object:#}");
            assert!(addresses(path).iter().all(|address| !address.is_empty()), "{object:#}");
            let output = netkat(&row.host, &format!("--mtu {to} 5000")).run();
            let words = format!("1500 here, 1400 at {} (told)", row.hop(family, 2));
            assert!(output.text().contains(&words), "{output}");
        }
    }
}

/// A DNAT translates the errors of the routers behind it, too: they come in the name of the address asked for.
#[test]
fn a_translated_destination_shows_in_the_errors_behind_it() {
    lab!("nc.openbsd", "nft");
    let row = Row::new(3);
    for family in Family::ALL {
        let to = row.peer_address(family);
        let asked = at(family, "10.60.3.99", "fd60:3::99");
        let (v, ip) = if family == Family::V4 { ("ip", "ip") } else { ("ip6", "ip6") };
        nft(
            row.router(2),
            &format!(
                "table {v} lab {{ chain c {{ type nat hook prerouting priority -100; {ip} daddr {asked} dnat to {to}; \
                 }}; }}"
            ),
        );
        let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
        let (output, object) = traced(&row, &format!("{asked} 5000"));
        assert_eq!(output.code(), Some(0), "{output}");
        assert_eq!(addresses(&object["paths"][0])[0], row.hop(family, 1).to_string(), "{object:#}");
        assert_eq!(changes(&object, 3), [format!("reporter a router {asked}")], "{object:#}");
    }
}

/// Two routers side by side, which the first of the row chooses between by the ports.
#[test]
fn paths_part_where_routers_choose_by_ports() {
    lab!("nc.openbsd");
    let row = Row::new(3);
    let other = Namespace::new("other");
    for (name, value) in
        [("net.ipv4.ip_forward", "1"), ("net.ipv4.icmp_ratelimit", "0"), ("net.ipv6.icmp.ratelimit", "0")]
    {
        other.sysctl(name, value);
    }
    other.sysctl("net.ipv6.conf.all.forwarding", "1");
    veth(row.router(1), "east2", &other, "west");
    veth(&other, "east", row.router(3), "west2");
    for (node, interface, end) in [
        (row.router(1), "east2", "8.1"),
        (&other, "west", "8.2"),
        (&other, "east", "9.1"),
        (row.router(3), "west2", "9.2"),
    ] {
        address(node, interface, &format!("10.60.{end}/24"));
        address(node, interface, &format!("fd60:{}/64", end.replace('.', "::")));
    }
    for (v, host, peer, first, back, hops) in [
        ("-4", "10.60.0.0/24", "10.60.3.0/24", "10.60.8.1", "10.60.9.2", ["10.60.1.2", "10.60.8.2"]),
        ("-6", "fd60:0::/64", "fd60:3::/64", "fd60:8::1", "fd60:9::2", ["fd60:1::2", "fd60:8::2"]),
    ] {
        let sysctl = if v == "-4" { "net.ipv4" } else { "net.ipv6" };
        row.router(1).sysctl(&format!("{sysctl}.fib_multipath_hash_policy"), "1");
        let [one, two] = hops;
        row.router(1).ip(&format!("{v} route replace {peer} nexthop via {one} nexthop via {two}"));
        other.ip(&format!("{v} route add {host} via {first}"));
        other.ip(&format!("{v} route add {peer} via {back}"));
    }
    for family in Family::ALL {
        let to = row.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c.args(["-k"]));
        let (output, object) = traced(&row, &format!("--paths 12 -p 4000 {to} 5000"));
        assert_eq!((output.code(), &object["parts_at_hop"]), (Some(0), &2.into()), "{object:#}");
        let paths = object["paths"].as_array().expect("paths");
        let mut hops: Vec<String> = paths.iter().map(|path| addresses(path)[1].clone()).collect();
        hops.sort();
        hops.dedup();
        let expected = at(family, "10.60.8.2", "fd60:8::2");
        assert_eq!(hops, [row.hop(family, 2).to_string(), expected.to_string()]);
        let ports: Vec<_> =
            paths.iter().filter_map(|path| path["local"].as_str()?.rsplit(':').next()).collect();
        assert_eq!((ports.len(), ports[0], ports[11]), (12, "4000", "4011"));
        let text = netkat(&row.host, &format!("--trace --paths 12 -p 4000 {to} 5000")).run().text();
        assert!(text.contains("paths part at hop 2:\n"), "{text}");
    }
    let wrong = netkat(&row.host, "--trace --paths 3 -p 65534 10.60.3.2 5000").run();
    assert_eq!(wrong.code(), Some(2), "{wrong}");
}

/// --via, --as, -s, -p and --tos choose the flow, whose hops are shown with their names.
#[test]
fn the_flow_is_the_one_that_the_flags_describe() {
    lab!("nc.openbsd", "unshare");
    let row = Row::new(3);
    let hosts = SystemFile::new("/etc/hosts", "10.60.1.2 two.test\nfd60:1::2 two.test\n");
    for family in Family::ALL {
        let (to, via) = (row.peer_address(family), row.hop(family, 1));
        let own: IpAddr = at(family, "10.60.0.9", "fd60::9");
        let second = at(family, "10.60.0.3", "fd60::3");
        address(&row.host, "east", &format!("{second}/{}", if family == Family::V4 { 24 } else { 64 }));
        for (flags, source) in [
            (format!("--via {via} --as {own} -p 4000"), own),
            (format!("-s {second} -p 4000 --tos ef"), second),
        ] {
            let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
            let arguments = format!("-v --trace --json {flags} {to} 5000");
            let output = hosts.netkat(&row.host, &arguments).run();
            assert_eq!(output.code(), Some(0), "{output}");
            let line = output.stderr.lines().last().unwrap_or_default();
            let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {output}"));
            let path = &object["paths"][0];
            let local = netkat::net::FiveTuple {
                protocol: netkat::net::Protocol::Tcp,
                local: (source, 4000).into(),
                remote: (to, 5000).into(),
            };
            assert!(output.text().starts_with(&format!("trace of {local}\n")), "{output}");
            assert_eq!(path["hops"][1]["addresses"][0]["name"], "two.test", "{object:#}");
            assert!(output.text().contains(" (two.test)  "), "{output}");
            assert_eq!(path["end_hop"], 4, "{object:#}");
        }
    }
}

/// An interrupted trace leaves no connection behind, at neither end.
#[test]
fn a_signal_resets_the_connection() {
    lab!("nc.openbsd", "ss");
    let row = Row::new(2);
    // A silent router makes the rounds last.
    nft(
        row.router(1),
        "table inet lab { chain c { type filter hook output priority 0; icmp type time-exceeded drop; }; }",
    );
    let to = row.peer_address(Family::V4);
    let mut server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c.args(["-k"]).input(Input::Open));
    let established = || row.peer.run("ss -Htn state established").text();
    let mut trace = netkat(&row.host, &format!("--trace --paths 30 {to} 5000")).spawn();
    trace.wait_until("a connection", |_| !established().is_empty());
    let output = trace.terminate();
    assert_eq!(output.signal(), Some(15), "{output}");
    server.wait_until("the end of the peer's connection", |_| established().is_empty());
}
