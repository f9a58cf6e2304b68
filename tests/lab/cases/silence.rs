//! The host's kernel never answers the peer, from the first packet to the last retransmitted FIN.
use crate::support::{
    namespace::Namespace,
    netkat::{GUARDS, listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{Command, DEADLINE, Process},
    requirements::lab,
    topology::{Family, Pair, offloads_off},
    traces::{settles, traces},
    witness::Witness,
};
use std::fs;

/// A client whose packets all carry IP options (router alert, RFC 2113) or a hop-by-hop header (RFC
/// 2711).
fn client_with_options(pair: &Pair, family: Family) -> Command {
    let (host, option) = match family {
        Family::V4 => ("10.77.0.1", "s.setsockopt(0, 4, bytes([0x94, 4, 0, 0]))"),
        // IPV6_HOPOPTS: the kernel sets next header and length; PadN of 4 bytes.
        Family::V6 => ("fd77::1", "s.setsockopt(41, 54, bytes([0, 0, 1, 4, 0, 0, 0, 0]))"),
    };
    let inet = if family == Family::V4 { "AF_INET" } else { "AF_INET6" };
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.{inet})\n\
         {option}\n\
         s.connect(('{host}', 5000))\n\
         s.sendall(b'question')\n\
         s.shutdown(socket.SHUT_WR)\n\
         print(s.recv(100).decode(), end='')"
    );
    pair.peer.command("python3").args(["-c", &script])
}

#[test]
fn packets_with_ip_options_are_kept_from_the_kernel_and_understood() {
    lab!("python3", "tcpdump");
    for family in Family::ALL {
        for guard in GUARDS {
            let pair = Pair::new();
            let witness = Witness::of_resets_and_errors(&pair.peer, 5000);
            let options = Witness::all(&pair.peer, "eth0", "ip[0] & 15 > 5 or ip6[6] == 0");
            let at = pair.host_address(family);
            let server = listening(&pair.host, &format!("--guard {guard} {at} 5000"), |c| c.text("answer"));
            let client = client_with_options(&pair, family).succeed();
            assert_eq!(client.text(), "answer", "{client}");
            let server = server.wait(DEADLINE);
            assert_eq!((server.code(), server.text().as_str()), (Some(0), "question"), "{server}");
            assert_ne!(options.finish(), "", "the client's options were on the wire");
            witness.saw_nothing();
        }
    }
}

/// A lossy path also loses SYNs, FINs and their acknowledgments.
#[test]
fn short_connections_on_a_lossy_path_begin_and_end_well() {
    lab!("socat", "ethtool");
    let pair = Pair::over("--both loss=10%,delay=1ms --seed 11");
    offloads_off(&pair.host, "eth0");
    offloads_off(&pair.peer, "eth0");
    let (out, back) = (Payload::short(), Payload::short());
    for n in 0..20 {
        if n % 2 == 0 {
            let at = pair.peer_address(Family::V4);
            let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()).expect(&out));
            let client =
                netkat(&pair.host, &format!("-w 20 {at} 5000")).input(out.input()).expect(&back).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{client}");
            client.check(&back);
            server.wait(DEADLINE).check(&out);
        } else {
            let at = pair.host_address(Family::V6);
            let server = listening(&pair.host, &format!("{at} 5000"), |c| c.input(out.input()).expect(&back));
            Netcat::Socat.connect(&pair.peer, at, 5000).input(back.input()).expect(&out).run().check(&out);
            let server = server.wait(DEADLINE);
            server.check(&back);
            assert_eq!(server.code(), Some(0), "{server}");
        }
    }
}

/// A few bad paths, byte for byte; scripts/bench measures the paths' performance.
#[test]
fn transfers_on_bad_paths_stay_exact() {
    lab!("socat", "ethtool");
    let (out, back) = (Payload::new(30, 4 * MIB), Payload::new(31, 4 * MIB));
    for (family, impairments) in [
        (Family::V4, "--both loss=1%,delay=2ms"),
        (Family::V6, "--both loss=5%"),
        (Family::V4, "--both reorder=10%,delay=1ms,jitter=1ms"),
        (Family::V6, "--both duplicate=5%,reorder=5%,loss=1%"),
        (Family::V4, "--both rate=200mbit,queue=20ms,delay=5ms"),
    ] {
        let pair = Pair::over(impairments);
        offloads_off(&pair.host, "eth0");
        offloads_off(&pair.peer, "eth0");
        let at = pair.peer_address(family);
        let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()).expect(&out));
        let client = netkat(&pair.host, &format!("{at} 5000")).input(out.input()).expect(&back).run();
        assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{impairments}: {client}");
        client.check(&back);
        server.wait(DEADLINE).check(&out);
    }
}

/// Returns the processes of a namespace that stay in TIME-WAIT.
fn survivors(host: &Namespace) -> Vec<String> {
    let pids = host.words(&format!("ip netns pids {}", host.name())).run().text();
    let named = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "netkat-timewait")
    };
    pids.lines().filter(named).map(str::to_owned).collect()
}

/// A server that loses the acknowledgment of its FIN, which it repeats after 20 ms.
fn forgetful_server(peer: &Namespace, family: Family) -> Process {
    let (host, tables) = match family {
        Family::V4 => ("10.77.0.1", "iptables-nft"),
        Family::V6 => ("fd77::1", "ip6tables-nft"),
    };
    peer.ip(&format!("route add {host} dev eth0 rto_min 20ms"));
    let script = format!(
        "import socket, subprocess\n\
         def rule(what):\n \
         subprocess.run(['{tables}', '-w', what, 'INPUT', '-p', 'tcp', '--dport', '5000', '-j', 'DROP'], check=True)\n\
         s = socket.create_server(('', 5000), family=socket.AF_INET6, dualstack_ipv6=True)\n\
         c = s.accept()[0]\n\
         while c.recv(100): pass\n\
         rule('-A')\n\
         c.sendall(b'answer')\n\
         c.close()\n\
         rule('-D')"
    );
    let mut server = peer.command("python3").args(["-c", &script]).spawn();
    server.wait_listening(5000);
    server
}

#[test]
fn a_client_exits_at_its_end_and_a_copy_acknowledges_a_repeated_fin() {
    lab!("python3", "iptables-nft", "tcpdump", "ss");
    for (family, flags) in
        [(Family::V4, ""), (Family::V6, ""), (Family::V4, "-p 4000 "), (Family::V6, "--pcap /dev/null ")]
    {
        let pair = Pair::new();
        let before = traces(&pair.host);
        let witness = Witness::of_resets_and_errors(&pair.peer, 5000);
        let server = forgetful_server(&pair.peer, family);
        let line = format!("{flags}{} 5000", pair.peer_address(family));
        let client = netkat(&pair.host, &line).text("question").run();
        assert_eq!((client.code(), client.text().as_str()), (Some(0), "answer"), "{client}");
        // A port that was asked for is free again at the end, and a capture is complete.
        let stays = survivors(&pair.host);
        assert_eq!(stays.len(), usize::from(flags.is_empty()), "{line}");
        for pid in stays {
            // One pipe takes the place of all three streams, of which the input and output were two.
            let stream = |number| fs::read_link(format!("/proc/{pid}/fd/{number}")).ok();
            settles(|| stream(0) == stream(1) && stream(1) == stream(2), || format!("{:?}", stream(0)));
        }
        server.wait(DEADLINE);
        let closing = || pair.peer.run("ss -Htan state last-ack").text();
        settles(|| closing().is_empty(), || format!("{line}: the FIN is not acknowledged: {}", closing()));
        settles(|| survivors(&pair.host).is_empty(), || format!("{line}: the copy stays"));
        settles(|| traces(&pair.host) == before, || format!("{line}: left\n{}", traces(&pair.host)));
        witness.saw_nothing();
    }
}
