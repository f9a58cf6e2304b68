//! UDP: questions and answers with the kernel's own tools, past rules that drop, in bursts and in pieces.
use crate::support::{
    netkat::{listening, netkat},
    process::{Command, DEADLINE, Input, Process},
    requirements::lab,
    rules::nft,
    topology::{Family, Pair},
    witness::Witness,
};
use std::{net::IpAddr, time::Duration};

/// Stops the kernel's own UDP in both directions.
fn drop_udp(pair: &Pair) {
    nft(
        &pair.host,
        "table inet lab {
            chain i { type filter hook input priority 0; meta l4proto udp drop; }
            chain o { type filter hook output priority 0; meta l4proto udp drop; }
        }",
    );
}

/// A Python program at the peer; `{at}` in it stands for the address and `{inet}` for its family.
fn python(pair: &Pair, at: IpAddr, script: &str) -> Command {
    let inet = if at.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    let script = script.replace("{at}", &at.to_string()).replace("{inet}", inet);
    pair.peer.command("python3").args(["-u", "-c", &format!("import socket, time\n{script}")])
}

/// A socket at the peer that prints the length of each datagram and echoes it.
fn echo(pair: &Pair, at: IpAddr) -> Process {
    let mut server = python(
        pair,
        at,
        "s = socket.socket(socket.{inet}, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)\n\
         s.bind(('{at}', 5000))\n\
         print('up')\n\
         while True:\n\
         \x20   data, peer = s.recvfrom(1 << 16)\n\
         \x20   print(len(data))\n\
         \x20   s.sendto(data, peer)",
    )
    .spawn();
    server.wait_for_stdout("up");
    server
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 256) as u8).collect()
}

/// Returns the last line at -v, with the counters.
fn closing_line(stderr: &str) -> &str {
    stderr.lines().find(|line| line.contains("closed:")).unwrap_or_default()
}

#[test]
fn a_question_is_answered_past_rules_that_drop() {
    lab!("nft", "python3");
    let pair = Pair::new();
    drop_udp(&pair);
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let server = echo(&pair, at);
        for offload in ["", "--no-gso", "--no-vnet-header"] {
            let client = netkat(&pair.host, &format!("-v -u {offload} {at} 5000")).text("question").run();
            assert_eq!((client.code(), client.text().as_str()), (Some(0), "question"), "{client}");
            assert!(
                client.stderr.contains("1 datagram sent (8 bytes), 1 datagram received (8 bytes)"),
                "{client}"
            );
            assert!(client.elapsed >= Duration::from_secs(1), "it waits for more answers: {client}");
        }
        drop(server);
    }
}

#[test]
fn datagrams_of_any_size_go_and_come_whole() {
    lab!("python3");
    let pair = Pair::new();
    for (family, largest) in [(Family::V4, 65_507), (Family::V6, 65_527)] {
        let at = pair.peer_address(family);
        let server = echo(&pair, at);
        for len in [1, 1452, 1472, 1473, 16_385, largest] {
            let data = bytes(len);
            let client =
                netkat(&pair.host, &format!("-u -q 300ms {at} 5000")).input(Input::Bytes(data.clone())).run();
            assert!(client.stdout == data, "{len} bytes: {client}");
        }
        let lens = String::from_utf8(server.stdout()).expect("numbers");
        assert_eq!(lens, format!("up\n1\n1452\n1472\n1473\n16385\n{largest}\n"));
    }
}

#[test]
fn a_long_stream_is_cut_as_nc_cuts_it() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let server = echo(&pair, at);
    let path = std::env::temp_dir().join(format!("netkat-udp-{}", std::process::id()));
    std::fs::write(&path, bytes(3 << 16)).expect("a temporary file");
    let client = netkat(&pair.host, &format!("-u {at} 5000")).input(Input::File(path.clone())).run();
    std::fs::remove_file(path).expect("it was there");
    assert_eq!(client.stdout, bytes(3 << 16), "{client}");
    assert_eq!(server.stdout(), format!("up\n{}", "16384\n".repeat(12)).into_bytes());
}

#[test]
fn errors_have_names() {
    lab!("nft");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let client = netkat(&pair.host, &format!("-u {at} 5000")).text("x").run();
        assert_eq!(client.code(), Some(1), "{client}");
        assert!(
            client.stderr.contains("refused") && client.stderr.contains("port is unreachable"),
            "{client}"
        );
        assert!(client.elapsed < Duration::from_secs(1), "at once: {client}");
    }
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0;
            udp dport 5001 reject with icmpx type host-unreachable;
            udp dport 5002 reject with icmpx type admin-prohibited;
        }
        }",
    );
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let host = if family == Family::V4 { "host unreachable" } else { "unreachable" };
        for (port, name) in [(5001, host), (5002, "administratively prohibited")] {
            let client = netkat(&pair.host, &format!("-u {at} {port}")).text("x").run();
            assert_eq!(client.code(), Some(1), "{client}");
            assert!(client.stderr.contains("rejected") && client.stderr.contains(name), "{client}");
        }
    }
}

#[test]
fn an_egress_rule_of_our_own_is_the_verdict_when_it_drops_everything() {
    lab!("nft");
    let pair = Pair::new();
    nft(
        &pair.host,
        "table netdev lab {
            chain c { type filter hook egress device \"eth0\" priority 0; udp dport 5000 drop; }
        }",
    );
    let at = pair.peer_address(Family::V4);
    let client = netkat(&pair.host, &format!("-u {at} 5000")).text("x").run();
    assert_eq!((client.code(), client.stderr.lines().count()), (Some(1), 1), "{client}");
    assert!(client.stderr.contains("egress") && client.stderr.contains("1 datagram met ENOBUFS"), "{client}");
}

#[test]
fn a_server_answers_who_spoke_first_and_the_kernel_says_nothing() {
    lab!("nft", "python3", "tcpdump");
    for family in Family::ALL {
        let pair = Pair::new();
        drop_udp(&pair);
        let witness =
            Witness::incoming(&pair.peer, "eth0", "(icmp and icmp[0] == 3) or (icmp6 and ip6[40] == 1)");
        let at = pair.host_address(family);
        let server = listening(&pair.host, &format!("-u {at} 5000"), |c| c.text("answer"));
        let peer = python(
            &pair,
            at,
            "first, other = [socket.socket(socket.{inet}, socket.SOCK_DGRAM) for _ in range(2)]\n\
             first.sendto(b'one ', ('{at}', 5000))\n\
             first.settimeout(5)\n\
             print(first.recvfrom(100)[0].decode())\n\
             other.sendto(b'not heard ', ('{at}', 5000))\n\
             first.sendto(b'', ('{at}', 5000))\n\
             first.sendto(b'two ' + bytes(5000), ('{at}', 5000))",
        )
        .succeed();
        assert_eq!(peer.text(), "answer\n");
        let mut server = server;
        server.wait_until("everything received", |p| p.received() == 4 + 5004);
        let server = server.terminate();
        let closing = closing_line(&server.stderr);
        assert!(closing.contains("3 datagrams received"), "an empty one counts: {server}");
        assert!(server.stderr.contains("1 datagram of others ignored"), "{server}");
        assert_eq!(server.stdout[..8], *b"one two ");
        witness.saw_nothing();
    }
}

#[test]
fn a_server_that_stays_open_hears_everybody_and_answers_the_last() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = listening(&pair.host, &format!("-u -k {at} 5000"), |c| c.input(Input::Open));
    for name in ["ann", "bob", "ann"] {
        let mut peer = python(
            &pair,
            at,
            &format!(
                "s = socket.socket(socket.{{inet}}, socket.SOCK_DGRAM)\n\
                 s.sendto(b'{name} ', ('{{at}}', 5000))\n\
                 s.settimeout(5)\n\
                 print(s.recvfrom(100)[0].decode())"
            ),
        )
        .spawn();
        let before = server.received();
        server.wait_until("the question", |p| p.received() == before + 4);
        server.write(format!("hello {name}").as_bytes());
        peer.wait_for_stdout(&format!("hello {name}"));
        assert_eq!(peer.wait(DEADLINE).code(), Some(0));
    }
    assert_eq!(server.stdout(), b"ann bob ann ");
}

#[test]
fn a_burst_arrives_without_loss() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = listening(&pair.host, &format!("-u {at} 5000"), |c| c);
    python(
        &pair,
        at,
        "s = socket.socket(socket.{inet}, socket.SOCK_DGRAM)\n\
         s.connect(('{at}', 5000))\n\
         start, data = time.monotonic(), bytes(1024)\n\
         for i in range(1000):\n\
         \x20   for _ in range(100):\n\
         \x20       s.send(data)\n\
         \x20   time.sleep(max(0, start + (i + 1) * 100 / 50000 - time.monotonic()))",
    )
    .succeed();
    server.wait_until("all of it", |p| p.received() == 100_000 * 1024);
    let server = server.terminate();
    assert!(closing_line(&server.stderr).contains("100000 datagrams received"), "{server}");
    assert!(!server.stderr.contains("lost"), "{server}");
}

#[test]
fn what_the_receive_buffer_cannot_hold_is_told() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    // The pipe that netkat writes to has no reader.
    let (_unread, full) = nix::unistd::pipe().expect("a pipe");
    let server = listening(&pair.host, &format!("-u {at} 5000"), |c| c.stdout(full.into()));
    python(
        &pair,
        at,
        "s = socket.socket(socket.{inet}, socket.SOCK_DGRAM)\n\
         for _ in range(8000):\n\
         \x20   s.sendto(bytes(65000), ('{at}', 5000))",
    )
    .succeed();
    let server = server.terminate();
    assert!(server.stderr.contains("received frames lost: the receive buffer was full"), "{server}");
}

#[test]
fn it_works_on_loopback() {
    lab!();
    let pair = Pair::new();
    for at in ["127.0.0.1", "::1"] {
        let server = listening(&pair.host, &format!("-u {at} 5000"), |c| c.text("answer"));
        let client = netkat(&pair.host, &format!("-u {at} 5000")).text("question").run();
        assert_eq!((client.code(), client.text().as_str()), (Some(0), "answer"), "{client}");
        assert_eq!(server.terminate().text(), "question");
    }
}

/// Both directions, IPv4 and IPv6, without rules and with rules that stop the kernel's own UDP.
#[test]
fn the_kernels_netcats_are_understood() {
    lab!("nft", "nc.openbsd", "ncat");
    for ruled in [false, true] {
        let pair = Pair::new();
        if ruled {
            drop_udp(&pair);
        }
        for family in Family::ALL {
            for (port, tool) in (5000..).zip(["nc.openbsd", "ncat"]) {
                let at = pair.peer_address(family);
                let mut server =
                    pair.peer.words(&format!("{tool} -u -l {at} {port}")).input(Input::Open).spawn();
                server.wait_listening(port);
                let mut client =
                    netkat(&pair.host, &format!("-u -q 100ms {at} {port}")).input(Input::Open).spawn();
                client.write(b"question\n");
                server.wait_for_stdout("question\n");
                server.write(b"answer\n");
                client.wait_for_stdout("answer\n");
                client.close_stdin();
                let output = client.wait(DEADLINE);
                assert_eq!(output.code(), Some(0), "{tool}: {output}");
                drop(server);

                let at = pair.host_address(family);
                let mut server = listening(&pair.host, &format!("-u {at} {port}"), |c| c.input(Input::Open));
                let mut client =
                    pair.peer.words(&format!("{tool} -u {at} {port}")).input(Input::Open).spawn();
                client.write(b"question\n");
                server.wait_for_stdout("question\n");
                server.write(b"answer\n");
                client.wait_for_stdout("answer\n");
            }
        }
    }
}
