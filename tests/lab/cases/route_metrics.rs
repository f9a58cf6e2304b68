//! A route's metrics and the host's defaults hold for netkat's packets as for the kernel's; the user's choice wins.
use crate::support::{
    netkat::{listening, netkat},
    payload::Payload,
    peers::Netcat,
    process::DEADLINE,
    requirements::lab,
    topology::{Family, Pair, offloads_off},
    witness::Witness,
};

/// Addresses of a family: `ip`'s flag, the host, the next hop, the far host.
fn net(family: Family) -> (&'static str, &'static str, &'static str, &'static str) {
    match family {
        Family::V4 => ("-4", "10.77.0.1", "10.77.0.2", "10.80.0.1"),
        Family::V6 => ("-6", "fd77::1", "fd77::2", "fd80::1"),
    }
}

/// tcpdump's expression for packets with this TTL or hop limit.
fn hops(family: Family, limit: u8) -> String {
    match family {
        Family::V4 => format!("ip[8] = {limit}"),
        Family::V6 => format!("ip6[7] = {limit}"),
    }
}

/// Sends a SYN, a datagram and, as a listener, a SYN-ACK to the far host; each must match tcpdump's
/// expression and show this text.
fn every_packet(pair: &Pair, family: Family, flags: &str, expression: &str, text: &str) {
    let (_, here, _, to) = net(family);
    let mut witness =
        Witness::incoming(&pair.peer, "eth0", &format!("({expression}) and (tcp or udp or ip6)"));
    netkat(&pair.host, &format!("{flags} -w 1 {to} 9005")).text("").run();
    witness.wait_for(&format!(" > {to}.9005: Flags [S], "));
    if text.is_empty() {
        netkat(&pair.host, &format!("{flags} -u -w 1 {to} 9006")).text("?").run();
        witness.wait_for(&format!(" > {to}.9006: UDP"));
    }
    let server = listening(&pair.host, &format!("{flags} {here} 5000"), |c| c.text(""));
    pair.peer.command("nc.openbsd").args(["-N", "-w", "2", "-s", to, here, "5000"]).text("").run();
    witness.wait_for("Flags [S.], ");
    drop(server);
    let seen = witness.finish();
    let syns = seen.lines().filter(|line| line.contains("Flags [S"));
    assert!(syns.clone().count() >= 2 && syns.clone().all(|line| line.contains(text)), "{flags}: {seen}");
}

#[test]
fn a_route_limits_hops_and_the_peers_segments() {
    lab!("tcpdump", "nc.openbsd");
    let pair = Pair::with_two_links();
    for family in Family::ALL {
        let (v, _, via, to) = net(family);
        pair.host.ip(&format!("{v} route add {to} via {via} advmss 700 hoplimit 33"));
        every_packet(&pair, family, "", &hops(family, 33), "");
        every_packet(&pair, family, "", "tcp or ip6", "mss 700");
        every_packet(&pair, family, "--ttl 7", &hops(family, 7), "");
        every_packet(&pair, family, "--mss 600", "tcp or ip6", "mss 600");
        every_packet(&pair, family, "--mss 900", "tcp or ip6", "mss 700");
        pair.host.ip(&format!("{v} route change {to} via {via} mtu 1400"));
        let mss = if family == Family::V4 { "mss 1360" } else { "mss 1340" };
        every_packet(&pair, family, "", "tcp or ip6", mss);
    }
}

#[test]
fn the_hosts_default_holds_without_a_metric() {
    lab!("tcpdump", "nc.openbsd");
    let pair = Pair::with_two_links();
    pair.host.sysctl("net.ipv4.ip_default_ttl", "77");
    pair.host.sysctl("net.ipv6.conf.eth0.hop_limit", "78");
    for (family, limit) in [(Family::V4, 77), (Family::V6, 78)] {
        let (v, _, via, to) = net(family);
        pair.host.ip(&format!("{v} route add {to} via {via}"));
        every_packet(&pair, family, "", &hops(family, limit), "");
    }
}

/// The peer sends no more than the announced window, and receives no more than its own.
#[test]
fn an_announced_mss_limits_one_direction() {
    lab!("tcpdump", "nc.openbsd", "ethtool");
    let pair = Pair::with_two_links();
    for end in [&pair.host, &pair.peer] {
        offloads_off(end, "eth0");
    }
    for family in Family::ALL {
        let (v, _, via, to) = net(family);
        pair.host.ip(&format!("{v} route add {to} via {via} advmss 700"));
        let data = Payload::new(3, 100_000);
        let server = Netcat::OpenBsd.listen(&pair.peer, to.parse().expect("an address"), 5000, |c| {
            c.input(data.input()).expect(&data)
        });
        let witness = Witness::all(&pair.peer, "eth0", "tcp port 5000");
        // A listening nc exits at the client's FIN, with unsent data left.
        let flags = format!("--no-gso --no-shutdown {to} 5000");
        let client = netkat(&pair.host, &flags).input(data.input()).expect(&data).run();
        client.check(&data);
        server.wait(DEADLINE).check(&data);
        let seen = witness.finish();
        let longest = |from: &str| {
            let lines = seen.lines().filter(|line| line.contains(from));
            lines.filter_map(|line| line.rsplit("length ").next()?.parse::<u32>().ok()).max()
        };
        assert!(longest(&format!(" {to}.5000 > ")).is_some_and(|length| length <= 700), "{seen}");
        assert!(longest(&format!(" > {to}.5000: ")).is_some_and(|length| length > 1300), "{seen}");
    }
}

/// After one line the window is still near the initial one.
#[test]
fn a_route_sets_the_initial_window_and_the_congestion_control() {
    lab!("nc.openbsd");
    let pair = Pair::with_two_links();
    for family in Family::ALL {
        let (v, _, via, to) = net(family);
        pair.host.ip(&format!("{v} route add {to} via {via} congctl reno initcwnd 40 rto_min 50ms"));
        let out = Payload::short();
        for (flags, expected) in [("", "reno"), ("--congestion bbr", "bbr")] {
            let server =
                Netcat::OpenBsd.listen(&pair.peer, to.parse().expect("an address"), 5000, |c| c.expect(&out));
            let client = netkat(&pair.host, &format!("--json {flags} {to} 5000")).input(out.input()).run();
            server.wait(DEADLINE).check(&out);
            let named = format!("\"congestion_control\":\"{expected}\"");
            assert!(client.stderr.contains(&named), "{client}");
            let window = client.stderr.split("\"congestion_window_bytes\":").nth(1);
            let window: u32 =
                window.and_then(|rest| rest.split(',').next()?.parse().ok()).expect("a congestion window");
            assert!(!flags.is_empty() || (40 * 1400..44 * 1460).contains(&window), "{client}");
        }
    }
}
