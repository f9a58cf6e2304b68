//! netkat over bad paths, as its user sees it: every byte, an end, and a report about a vanished
//! peer.
use crate::support::{
    namespace::Namespace,
    netkat::netkat,
    payload::Payload,
    peers::Netcat,
    process::{DEADLINE, Input, Process},
    requirements::lab,
    topology::{Family, Pair},
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// Starts a server that echoes to any number of clients.
fn echo(namespace: &Namespace, at: IpAddr) -> Process {
    let listen = match at {
        IpAddr::V4(at) => format!("TCP4-LISTEN:5000,bind={at},reuseaddr,fork,backlog=128"),
        IpAddr::V6(at) => format!("TCP6-LISTEN:5000,bind=[{at}],reuseaddr,fork,backlog=128"),
    };
    let mut server = namespace.command("socat").args(["-t30", &listen, "EXEC:cat"]).spawn();
    server.wait_listening(5000);
    server
}

/// Runs `count` clients of an echo at once, and checks each one's bytes.
fn echoes(pair: &Pair, arguments: &str, payload: &Payload, count: usize) {
    let client = || {
        let deadline = Duration::from_secs(90);
        netkat(&pair.host, arguments).input(payload.input()).expect(payload).deadline(deadline).spawn()
    };
    let clients: Vec<_> = (0..count).map(|_| client()).collect();
    for client in clients {
        let client = client.wait(Duration::from_secs(90));
        assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{client}");
        client.check(payload);
    }
}

#[test]
fn an_echo_at_twenty_percent_loss_is_exact() {
    lab!("socat");
    let payload = Payload::new(40, 96 << 10);
    for (family, congestion) in [(Family::V4, "bbr"), (Family::V6, "cubic")] {
        let pair = Pair::over("--both loss=20%,delay=1ms --seed 5");
        let at = pair.peer_address(family);
        let _server = echo(&pair.peer, at);
        // The path may lose all three SYNs of the usual five seconds.
        echoes(&pair, &format!("-w 60s --congestion {congestion} {at} 5000"), &payload, 4);
    }
}

#[test]
fn a_hundred_echoes_over_a_reordering_path_never_stall() {
    lab!("socat");
    let pair = Pair::over("--both loss=1%,reorder=10%,delay=5ms --seed 3");
    let payload = Payload::new(41, 200 << 10);
    let at = pair.peer_address(Family::V4);
    let _server = echo(&pair.peer, at);
    for _ in 0..5 {
        echoes(&pair, &format!("{at} 5000"), &payload, 20);
    }
}

/// netkat tells a peer that no longer answers from a silent one.
#[test]
fn a_vanished_peer_is_told() {
    lab!("nc.openbsd", "iptables-nft");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let connect = |arguments: &str, port: u16| {
        let server = Netcat::OpenBsd.listen(&pair.peer, at, port, |c| c.input(Input::Open));
        let line = format!("-v {arguments} {at} {port}");
        let mut client = netkat(&pair.host, &line).input(Input::Open).spawn();
        client.wait_for_stderr("established");
        (client, server)
    };
    let (mut talking, _a) = connect("--user-timeout 1s", 5000);
    let (silent, _b) = connect("--user-timeout 1s --keepalive 500ms", 5001);
    let (mut patient, _c) = connect("--user-timeout 1s", 5002);
    pair.peer.run("iptables-nft -w -I INPUT -j DROP");
    let gone = Instant::now();
    talking.write(b"anybody there?");
    for client in [talking, silent] {
        let client = client.wait(Duration::from_secs(20));
        assert_eq!(client.code(), Some(1), "{client}");
        assert!(client.stderr.contains("stopped answering"), "{client}");
        assert!(gone.elapsed() >= Duration::from_secs(1), "{:?}", gone.elapsed());
    }
    assert!(patient.is_running(), "nothing was asked of this peer");
}

/// netkat reports losses at the end. Its congestion control is the system's.
#[test]
fn losses_are_reported() {
    lab!("socat");
    let pair = Pair::over("--both loss=3%,delay=1ms --seed 9");
    let payload = Payload::new(42, 1 << 20);
    let at = pair.peer_address(Family::V4);
    for (system, flag, expected) in
        [("reno", "", "reno"), ("bbr", "", "bbr"), ("bbr", "--congestion cubic", "cubic")]
    {
        pair.host.sysctl("net.ipv4.tcp_congestion_control", system);
        let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.expect(&payload));
        let line = format!("-v --json {flag} {at} 5000");
        let client = netkat(&pair.host, &line).input(payload.input()).run();
        assert_eq!(client.code(), Some(0), "{client}");
        server.wait(DEADLINE).check(&payload);
        let object = client.stderr.lines().last().expect("an object");
        let report: serde_json::Value = serde_json::from_str(object).expect("JSON");
        let traffic = &report["traffic"];
        let count = |name: &str| traffic[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
        assert_eq!(traffic["congestion_control"], expected, "{report}");
        assert!(count("sent_segments") > 725, "{report}");
        assert!(count("retransmitted_segments") >= count("spurious_retransmissions"), "{report}");
        assert!(count("lost_segments") > 0 && count("retransmitted_segments") > 0, "{report}");
        let words = format!("{} retransmitted", count("retransmitted_segments"));
        assert!(
            client.stderr.contains(&words) && client.stderr.contains(&format!("({expected})")),
            "{client}"
        );
    }
}

/// RFC 4821: a path drops packets that exceed its MTU, and a firewall drops the ICMP messages about
/// them. The interface's MTU is 1500, the path's 1386; the transfer goes on, in segments almost as
/// large as fit.
#[test]
fn a_black_hole_is_found_and_filled_as_far_as_it_goes() {
    lab!("socat");
    let payload = Payload::new(43, 4 << 20);
    let transfers: Vec<_> = [(Family::V4, "bbr"), (Family::V6, "cubic")]
        .into_iter()
        .map(|(family, congestion)| {
            let pair = Pair::over("--both delay=1ms,largest=1400b --seed 1");
            let at = pair.peer_address(family);
            let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.expect(&payload));
            let line = format!("-v --json --congestion {congestion} {at} 5000");
            let client = netkat(&pair.host, &line).input(payload.input()).spawn();
            (pair, family, server, client)
        })
        .collect();
    for (pair, family, server, client) in transfers {
        let client = client.wait(DEADLINE);
        assert_eq!(client.code(), Some(0), "{client}");
        server.wait(DEADLINE).check(&payload);
        let counts = pair.finish();
        let swallowed = counts.lines().find_map(|line| count(line, "too_large")).expect("a counter");
        assert!((3..200).contains(&swallowed), "the first window, what repeats it, and probes: {counts}");
        let object = client.stderr.lines().last().expect("an object");
        let report: serde_json::Value = serde_json::from_str(object).expect("JSON");
        let sent = report["traffic"]["sent_segments"].as_u64().expect("a number");
        // MTU 1500 leaves 1428 bytes for a segment of IPv6; 1280, the first that gets through,
        // leaves 1208; 1386 leaves 1314.
        assert!(sent < payload.length() / 1240, "{family:?}: {sent} segments\n{report}");
    }
}

/// Returns one of the emulator's counters from its line of one direction: "too_large: 7,".
fn count(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(&format!("{name}: "))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
