//! UDP ports probed with -z -u: every state by its real cause, and hosts that send few errors or
//! none.
use crate::support::{
    netkat::netkat,
    process::Process,
    requirements::lab,
    rules::nft,
    scan::states,
    topology::{Family, Pair},
};
use std::{net::IpAddr, time::Duration};

/// The peer answers at 5000, receives at 5001 without an answer, drops 6001, rejects 6002, drops
/// 7000 to 7999.
fn peer(pair: &Pair, at: IpAddr) -> Process {
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0;
            udp dport 6001 drop; udp dport 6002 reject with icmpx admin-prohibited; udp dport 7000-7999 drop;
        }; }",
    );
    let inet = if at.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    let script = format!(
        "import socket\n\
         s, t = [socket.socket(socket.{inet}, socket.SOCK_DGRAM) for _ in range(2)]\n\
         s.bind(('{at}', 5000))\n\
         t.bind(('{at}', 5001))\n\
         print('up')\n\
         while True:\n\
         \x20   s.sendto(b'here', s.recvfrom(100)[1])"
    );
    let mut process = pair.peer.command("python3").args(["-u", "-c", &script]).spawn();
    process.wait_for_stdout("up");
    process
}

/// By default the kernel sends one peer only a few errors a second.
fn errors_flow(pair: &Pair, interval: &str) {
    pair.peer.sysctl("net.ipv4.icmp_ratelimit", interval);
    pair.peer.sysctl("net.ipv6.icmp.ratelimit", interval);
}

#[test]
fn every_state_of_a_port_is_told_in_order() {
    lab!("nft", "python3");
    for family in Family::ALL {
        let pair = Pair::new();
        errors_flow(&pair, "0");
        let at = pair.peer_address(family);
        let _peer = peer(&pair, at);
        let output = netkat(&pair.host, &format!("-z -u -w 400ms --json {at} 6002,6001,4999-5001")).run();
        let expected = format!(
            "{at} 6002/udp rejected: ICMP communication administratively prohibited from {at}\n\
             {at} 6001/udp open|filtered\n{at} 4999/udp closed\n{at} 5000/udp open\n{at} 5001/udp open|filtered\n"
        );
        assert_eq!((output.code(), states(&output.text())), (Some(0), expected), "{output}");
        let object: serde_json::Value =
            serde_json::from_str(output.stderr.lines().last().unwrap_or_default()).expect("an object");
        let ports = object["ports"].as_array().expect("ports");
        let states: Vec<_> = ports.iter().filter_map(|port| port["verdict"].as_str()).collect();
        assert_eq!(states, ["rejected", "timed_out", "refused", "done", "timed_out"], "{object}");
        let states: Vec<_> = ports.iter().filter_map(|port| port["state"].as_str()).collect();
        assert_eq!(
            states,
            ["rejected", "open_or_filtered", "closed", "open", "open_or_filtered"],
            "{object}"
        );
        assert_eq!((&ports[3]["state"], &ports[3]["protocol"]), (&"open".into(), &"udp".into()), "{object}");
        for (port, status, words) in
            [(4999, 4, "refused"), (6001, 3, "open or filtered: no answer to"), (6002, 5, "rejected")]
        {
            let output = netkat(&pair.host, &format!("-z -u -w 400ms --exit-verdict {at} {port}")).run();
            assert_eq!(output.code(), Some(status), "{output}");
            assert!(output.stderr.contains(words), "{output}");
        }
    }
}

#[test]
fn a_thousand_silent_ports_take_a_few_waits() {
    lab!("nft", "python3");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let _peer = peer(&pair, at);
    let output = netkat(&pair.host, &format!("-z -u -w 400ms {at} 7000-7999")).run();
    let silent = output.text().lines().filter(|line| line.ends_with("/udp open|filtered")).count();
    assert_eq!(silent, 1000, "{output}");
    assert!(output.elapsed < Duration::from_secs(4), "{output}");
}

/// Linux sends one peer six errors at once and then, here, ten a second: the scan finds all closed
/// ports anyhow.
#[test]
fn closed_ports_are_told_from_silent_ones_though_errors_are_limited() {
    lab!();
    let pair = Pair::new();
    errors_flow(&pair, "100");
    let at = pair.peer_address(Family::V4);
    let output = netkat(&pair.host, &format!("-z -u -w 300ms {at} 4000-4015")).run();
    let closed = output.text().lines().filter(|line| line.contains("/udp closed")).count();
    assert_eq!((output.code(), closed), (Some(1), 16), "{output}");
    assert!(output.stderr.contains("seems to limit its ICMP errors"), "{output}");
}

#[test]
fn what_our_own_egress_drops_is_no_silence() {
    lab!("nft");
    let pair = Pair::new();
    nft(
        &pair.host,
        "table netdev lab { chain c { type filter hook egress device \"eth0\" priority 0; udp dport 5000 drop; }; }",
    );
    let at = pair.peer_address(Family::V4);
    let output = netkat(&pair.host, &format!("-z -u -w 200ms --exit-verdict {at} 5000")).run();
    assert_eq!((output.code(), output.text()), (Some(8), format!("{at} 5000/udp dropped by own egress\n")));
}

#[test]
fn an_unreachable_port_on_loopback_is_closed() {
    lab!();
    let pair = Pair::new();
    for at in ["127.0.0.1", "::1"] {
        let output = netkat(&pair.host, &format!("-z -u -w 2s {at} 5000")).run();
        let closed = (Some(1), format!("{at} 5000/udp closed\n"));
        assert_eq!((output.code(), states(&output.text())), closed, "{output}");
    }
}
