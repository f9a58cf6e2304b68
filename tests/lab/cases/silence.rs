//! The host's kernel never answers the peer, from the first packet to the last retransmitted FIN.
use crate::support::{
    netkat::{GUARDS, listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{Command, DEADLINE},
    requirements::lab,
    topology::{Family, Pair, offloads_off},
    witness::Witness,
};

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
