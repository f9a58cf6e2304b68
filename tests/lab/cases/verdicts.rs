//! Causes of a failed connection: each has its own words and status 1; a wrong command line has
//! status 2.
use crate::support::{
    netkat::{listening, netkat},
    payload::Payload,
    peers::Netcat,
    process::{DEADLINE, Input, Output},
    programs::{self, Direction, TC_ACT_SHOT},
    requirements::lab,
    topology::{Family, Pair},
};
use std::time::Duration;

/// Checks that the run failed, quickly, with these words.
fn failed(output: &Output, words: &[&str], within: Duration) {
    assert_eq!(output.code(), Some(1), "{output}");
    for word in words {
        assert!(output.stderr.contains(word), "\"{word}\" is not said: {output}");
    }
    assert_eq!(output.stderr.lines().count(), 1, "one line: {output}");
    assert_eq!(output.length, 0, "stdout is payload only: {output}");
    assert!(output.elapsed < within, "{output}");
}

/// Well before the 5 s of a connect's timeout.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn refused() {
    lab!();
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let output = netkat(&pair.host, &format!("{at} 5000")).run();
        failed(&output, &["refused", "RST", &at.to_string()], AT_ONCE);
    }
}

#[test]
fn timed_out() {
    lab!("nft");
    let pair = Pair::new();
    crate::support::rules::nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 5000 drop; }; }",
    );
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let output = netkat(&pair.host, &format!("-w 1500ms {at} 5000")).run();
        failed(&output, &["timed out", "2 SYNs", "1.5 s"], Duration::from_secs(3));
        assert!(output.elapsed >= Duration::from_millis(1500), "{output}");
    }
    let output = netkat(&pair.host, &format!("-w 200ms {} 5000", pair.peer_address(Family::V4))).run();
    failed(&output, &["timed out", "1 SYN "], AT_ONCE);
}

/// netkat tells a host that answers, though with nothing valid, from a silent one.
#[test]
fn what_came_and_was_no_answer_is_told() {
    lab!("nft");
    let pair = Pair::new();
    crate::support::rules::nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook output priority 0;
            tcp sport 5000 tcp ackseq set 77; tcp sport 5001 tcp flags set ack;
        }; }",
    );
    for (family, port, last) in [
        (Family::V4, 5000, "RST+ACK of something else than our SYN"),
        (Family::V6, 5000, "RST+ACK of something else than our SYN"),
        (Family::V4, 5001, "ACK, which is no answer to a SYN"),
        (Family::V6, 5001, "ACK, which is no answer to a SYN"),
    ] {
        let at = pair.peer_address(family);
        let output = netkat(&pair.host, &format!("-w 1500ms --exit-verdict --json {at} {port}")).run();
        assert_eq!(output.code(), Some(3), "{output}");
        let object: serde_json::Value =
            serde_json::from_str(output.stderr.lines().last().unwrap_or_default()).expect("an object");
        assert_eq!(object["discarded"], serde_json::json!({ "segments": 2, "last": last }), "{object}");
        let words = format!(
            "{}: timed out: no valid answer to 2 SYNs in 1.5 s; 2 segments came that make no sense, the last one: {last}",
            std::net::SocketAddr::new(at, port)
        );
        assert!(object["error"].as_str().is_some_and(|error| error.contains(&words)), "{object}");
        let scan = netkat(&pair.host, &format!("-z -w 300ms {at} {port}")).run();
        assert!(scan.stderr.contains(&format!("1 segment came that makes no sense: {last}")), "{scan}");
    }
}

/// RFC 9293, section 3.5.1: a server still has the connection of a client that died, and answers
/// the next one of that port with an ACK of the old one. The old connection is reset, and the new
/// one is established well before the SYN's timer.
#[test]
fn a_half_open_connection_of_the_servers_costs_no_second() {
    lab!("socat");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let (kind, address) = match family {
            Family::V4 => ("TCP4", at.to_string()),
            Family::V6 => ("TCP6", format!("[{at}]")),
        };
        let listen = format!("{kind}-LISTEN:5000,bind={address},reuseaddr,fork");
        let mut server = pair.peer.command("socat").args(["-t30", &listen, "EXEC:cat"]).spawn();
        server.wait_listening(5000);
        let line = format!("-v -p 40003 {at} 5000");
        let mut first = netkat(&pair.host, &line).input(Input::Open).spawn();
        first.wait_for_stderr("established");
        first.signal(nix::sys::signal::Signal::SIGKILL);
        first.wait(DEADLINE);
        let next = netkat(&pair.host, &format!("--json -q 300ms -p 40003 {at} 5000")).run();
        let object: serde_json::Value =
            serde_json::from_str(next.stderr.lines().last().unwrap_or_default()).expect("an object");
        assert_eq!(object["verdict"], "done", "{object}");
        assert!(object["timings"]["connect_ms"].as_f64().is_some_and(|ms| ms < 700.0), "{object}");
        assert_eq!(object["discarded"]["segments"], 1, "{object}");
    }
}

#[test]
fn no_route_and_no_neighbour() {
    lab!();
    let pair = Pair::new();
    for nowhere in ["192.0.2.1", "2001:db8::1"] {
        failed(&netkat(&pair.host, &format!("{nowhere} 80")).run(), &["no route", nowhere], AT_ONCE);
    }
    for nobody in ["10.77.0.50", "fd77::50"] {
        let output = netkat(&pair.host, &format!("{nobody} 80")).run();
        failed(&output, &["no neighbour", nobody, "eth0"], Duration::from_secs(6));
    }
    pair.host.ip("route add blackhole 192.0.2.0/24");
    pair.host.ip("route add prohibit 198.51.100.0/24");
    pair.host.ip("route add unreachable 203.0.113.0/24");
    for (to, word) in
        [("192.0.2.1", "blackhole"), ("198.51.100.1", "prohibit"), ("203.0.113.1", "unreachable")]
    {
        failed(&netkat(&pair.host, &format!("{to} 80")).run(), &["no route", word], AT_ONCE);
    }
}

#[test]
fn rejected_by_icmp() {
    lab!("iptables-nft", "ip6tables-nft");
    let pair = Pair::new();
    // By default the kernel sends only a few errors a second.
    pair.peer.sysctl("net.ipv4.icmp_ratelimit", "0");
    pair.peer.sysctl("net.ipv6.icmp.ratelimit", "0");
    let v4 = [
        ("icmp-net-unreachable", "network"),
        ("icmp-host-unreachable", "host"),
        ("icmp-proto-unreachable", "protocol"),
        ("icmp-port-unreachable", "port"),
        ("icmp-net-prohibited", "prohibited"),
        ("icmp-host-prohibited", "prohibited"),
        ("icmp-admin-prohibited", "prohibited"),
    ];
    let v6 = [
        ("icmp6-no-route", "network"),
        ("icmp6-adm-prohibited", "prohibited"),
        ("icmp6-addr-unreachable", "host"),
        ("icmp6-port-unreachable", "port"),
        ("icmp6-policy-fail", "policy"),
        ("icmp6-reject-route", "reject route"),
    ];
    let cases = v4.iter().map(|c| (Family::V4, c)).chain(v6.iter().map(|c| (Family::V6, c)));
    for (port, (family, (kind, word))) in (6000..).zip(cases) {
        let program = if family == Family::V4 { "iptables-nft" } else { "ip6tables-nft" };
        pair.peer.run(&format!("{program} -w -A INPUT -p tcp --dport {port} -j REJECT --reject-with {kind}"));
        let at = pair.peer_address(family);
        let output = netkat(&pair.host, &format!("{at} {port}")).run();
        failed(&output, &["rejected", word, &at.to_string()], AT_ONCE);
    }
    for (family, program) in [(Family::V4, "iptables-nft"), (Family::V6, "ip6tables-nft")] {
        pair.peer
            .run(&format!("{program} -w -A INPUT -p tcp --dport 5999 -j REJECT --reject-with tcp-reset"));
        let output = netkat(&pair.host, &format!("{} 5999", pair.peer_address(family))).run();
        failed(&output, &["refused", "RST"], AT_ONCE);
    }
}

#[test]
fn dropped_by_our_own_egress() {
    lab!("tc", "nft");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let line = format!("-w 300ms {at} 5000");
    // The neighbour is known before packets are dropped.
    netkat(&pair.host, &line).run();
    let program = programs::classifier("lab_drop", TC_ACT_SHOT);
    if let Some(link) = programs::attach_tcx(&program, &pair.host, "eth0", Direction::Egress) {
        failed(&netkat(&pair.host, &line).run(), &["egress", "ENOBUFS", "eth0"], AT_ONCE);
        drop(link);
    }
    programs::attach_clsact(&program, &pair.host, "eth0", Direction::Egress, 1);
    failed(&netkat(&pair.host, &line).run(), &["egress", "ENOBUFS", "eth0"], AT_ONCE);
    pair.host.run("tc qdisc del dev eth0 clsact");
    crate::support::rules::nft(
        &pair.host,
        "table netdev lab { chain c { type filter hook egress device \"eth0\" priority 0; meta l4proto tcp drop; }; }",
    );
    failed(&netkat(&pair.host, &line).run(), &["egress", "ENOBUFS", "eth0"], AT_ONCE);
}

#[test]
fn an_interface_that_is_down_or_absent() {
    lab!();
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    failed(&netkat(&pair.host, &format!("-i eth9 {at} 80")).run(), &["eth9"], AT_ONCE);
    pair.host.ip("link set eth0 down");
    failed(&netkat(&pair.host, &format!("{at} 80")).run(), &["no route"], AT_ONCE);
}

#[test]
fn command_lines_that_make_no_sense_are_status_two() {
    lab!();
    let pair = Pair::new();
    for line in [
        "",
        "10.77.0.2",
        "-z -u 10.77.0.2 0",
        "-z 10.77.0.2 1-65536",
        "--delay 0 10.77.0.2 80",
        "10.77.0.2 0",
        "10.77.0.2 65536",
        "10.77.0.2 no-such-service",
        "10.77.0.2 80 90",
        "-4 -6 10.77.0.2 80",
        "-w never 10.77.0.2 80",
        "--no-such-flag 10.77.0.2 80",
        "-l",
        "-l 10.77.0.1 80 -p 81",
    ] {
        let output = netkat(&pair.host, line).run();
        assert_eq!((output.code(), output.length), (Some(2), 0), "\"{line}\": {output}");
        assert!(!output.stderr.is_empty(), "\"{line}\"");
    }
    for arguments in [["", "80"], ["-l", ""], ["10.77.0.2", ""], ["10.77.0.2", " "]] {
        let output = pair.host.command(crate::support::netkat::PROGRAM).args(arguments).run();
        assert_eq!(output.code(), Some(2), "{arguments:?}: {output}");
    }
}

#[test]
fn addresses_that_are_not_ours_are_refused() {
    lab!();
    let pair = Pair::new();
    failed(&netkat(&pair.host, "-l 10.77.0.99 80").run(), &["10.77.0.99", "10.77.0.1"], AT_ONCE);
    failed(&netkat(&pair.host, "-s 10.77.0.99 10.77.0.2 80").run(), &["10.77.0.99"], AT_ONCE);
}

/// Every way to name the listening address, and the connecting one.
#[test]
fn all_spellings_of_a_listener_and_a_source_are_one() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let out = Payload::short();
    for arguments in ["5000", "10.77.0.1 5000", "-p 5000", "-s 10.77.0.1 -p 5000", "-n -4 -i eth0 5000"] {
        let server = listening(&pair.host, arguments, |c| c.expect(&out));
        Netcat::OpenBsd.connect(&pair.peer, at, 5000).input(out.input()).succeed();
        server.wait(DEADLINE).check(&out);
    }
    address_seen(&pair, "-s 10.77.0.1 -p 4321", "10.77.0.1", 4321);
    pair.host.ip("address add 10.77.0.11/24 dev eth0");
    address_seen(&pair, "-s 10.77.0.11 -i eth0", "10.77.0.11", 0);
}

/// Panics unless a kernel server sees the connection come from this address (and port, unless 0).
fn address_seen(pair: &Pair, arguments: &str, address: &str, port: u16) {
    let to = pair.peer_address(Family::V4);
    let mut server = pair.peer.command("ncat").args(["-v", "-n", "-l", &to.to_string(), "5000"]).spawn();
    server.wait_listening(5000);
    netkat(&pair.host, &format!("{arguments} {to} 5000")).text("x").succeed();
    let seen = server.wait(DEADLINE).stderr;
    let wanted = if port == 0 { format!("from {address}:") } else { format!("from {address}:{port}") };
    assert!(seen.contains(&wanted), "{seen}");
}

#[test]
fn verbose_tells_the_steps_and_stdout_stays_payload() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let _server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.text("answer"));
    let output = netkat(&pair.host, &format!("-v {at} 5000")).text("question").run();
    assert_eq!((output.code(), output.text().as_str()), (Some(0), "answer"), "{output}");
    let steps = [
        "route to 10.77.0.2: interface eth0, source 10.77.0.1, on link, MTU 1500",
        "raw socket: eth0",
        "guard attached: eth0",
        "dialing 10.77.0.2:5000",
        "established",
        "closed 10.77.0.2:5000: 8 bytes sent, 6 received",
    ];
    let mut rest = output.stderr.as_str();
    for step in steps {
        let at = rest.find(step).unwrap_or_else(|| panic!("\"{step}\" is not said, or not then: {output}"));
        rest = &rest[at..];
    }
}
