//! Pings of ports (--ping): round trips beside a capture's, losses beside the link emulator's, the kernel's path, ends.
use crate::support::{
    namespace::Namespace,
    netkat::netkat,
    peers::{Netcat, kernel_connects},
    process::{DEADLINE, Output, Process},
    requirements::lab,
    rules::nft,
    topology::{Family, Pair, address},
    witness::Witness,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{collections::HashMap, net::IpAddr};

/// Returns the objects on standard output: those of the pings, and the last one.
fn objects(output: &Output) -> (Vec<Value>, Value) {
    let text = output.text();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {output}"));
    let mut all: Vec<Value> = text.lines().map(parse).collect();
    let last = all.pop().unwrap_or_else(|| panic!("no object: {output}"));
    assert_eq!(last["schema"], "netkat.ping/1", "{output}");
    (all, last)
}

/// Starts a server that repeats datagrams, at port 7, after a while in seconds.
fn echo(peer: &Namespace, at: IpAddr, delay: f64) -> Process {
    let family = if at.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    let script = format!(
        "import socket, threading\n\
         s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n\
         s.bind(('{at}', 7))\n\
         print('ready', flush=True)\n\
         while True:\n\
         \x20   data, client = s.recvfrom(100)\n\
         \x20   threading.Timer({delay}, s.sendto, (data, client)).start()"
    );
    let mut server = peer.command("python3").args(["-c", &script]).spawn();
    server.wait_for_stdout("ready");
    server
}

/// Returns the times from each SYN to its first SYN-ACK in the lines of tcpdump -tt -S, in microseconds, by the SYN's
/// sequence number in their order.
fn round_trips(capture: &str) -> Vec<Option<f64>> {
    let number = |line: &str, name: &str| -> Option<u32> {
        line.split(name).nth(1)?.split([',', ' ']).next()?.parse().ok()
    };
    let (mut order, mut sent, mut times) = (Vec::new(), HashMap::new(), HashMap::new());
    for line in capture.lines() {
        let Some(time) = line.split(' ').next().and_then(|time| time.parse::<f64>().ok()) else { continue };
        if line.contains("Flags [S],") {
            let seq = number(line, "seq ").expect("a sequence number");
            if sent.insert(seq, time).is_none() {
                order.push(seq);
            }
        } else if line.contains("Flags [S.],") {
            let seq = number(line, "ack ").expect("an acknowledgment").wrapping_sub(1);
            let since = sent.get(&seq).expect("a SYN before it");
            times.entry(seq).or_insert((time - since) * 1e6);
        }
    }
    order.iter().map(|seq| times.get(seq).copied()).collect()
}

/// Starts tcpdump with absolute times and numbers.
fn capture(host: &Namespace) -> Process {
    let words = "-n -l --immediate-mode -Z root -tt -S -i eth0 tcp port 5000";
    let mut process = host.command("tcpdump").args(words.split(' ')).spawn();
    process.wait_for_stderr("listening on");
    process
}

/// Waits until tcpdump has printed as many SYNs, and ends it.
fn captured(mut process: Process, syns: usize) -> Vec<Option<f64>> {
    process.wait_until("all SYNs", |process| {
        String::from_utf8_lossy(&process.stdout()).matches("Flags [S],").count() >= syns
    });
    process.signal(Signal::SIGINT);
    round_trips(&process.wait(DEADLINE).text())
}

#[test]
fn round_trips_are_those_that_tcpdump_sees() {
    lab!("nc.openbsd", "tcpdump");
    for family in Family::ALL {
        let pair = Pair::over("--both delay=2ms,jitter=3ms --seed 3");
        let to = pair.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
        let tcpdump = capture(&pair.host);
        let output = netkat(&pair.host, &format!("--ping=40 --interval 20ms --json=- {to} 5000")).run();
        let (pings, last) = objects(&output);
        assert_eq!((output.code(), pings.len()), (Some(0), 40), "{output}");
        let seen = captured(tcpdump, 40);
        let mut differences: Vec<f64> = pings
            .iter()
            .zip(seen)
            .map(|(ping, seen)| {
                let ours = ping["round_trip_ms"].as_f64().expect("a round trip") * 1e3;
                (ours - seen.expect("an answer")).abs()
            })
            .collect();
        differences.sort_by(f64::total_cmp);
        assert!(differences[differences.len() / 2] <= 20.0, "{differences:?}");
        let target = &last["targets"][0];
        for (field, expected) in [
            ("sent_packets", json!(40)),
            ("open_packets", json!(40)),
            ("lost_packets", json!(0)),
            ("loss_percent", json!(0.0)),
            ("verdict", json!("done")),
        ] {
            assert_eq!(target[field], expected, "{field}: {last:#}");
        }
        let time = |name: &str| target["round_trip"][name].as_f64().expect("a time");
        let order = [4.0, time("min_ms"), time("p50_ms"), time("p95_ms"), time("p99_ms"), time("max_ms")];
        assert!(order.is_sorted() && time("jitter_ms") > 0.0, "{last:#}");
        let rows = target["histogram"].as_array().expect("rows");
        assert_eq!(rows.iter().filter_map(|row| row["count"].as_u64()).sum::<u64>(), 40, "{last:#}");
    }
}

#[test]
fn losses_are_counted_exactly() {
    lab!("python3", "tcpdump");
    for family in Family::ALL {
        let pair = Pair::over("--both loss=15% --seed 11");
        let to = pair.peer_address(family);
        let _server = echo(&pair.peer, to, 0.0);
        let witness = Witness::incoming(&pair.host, "eth0", "udp src port 7");
        let output =
            netkat(&pair.host, &format!("--ping=200 --interval 5ms -w 300ms -u --json=- {to} 7")).run();
        let (pings, last) = objects(&output);
        let came = witness.finish().lines().count() as u64;
        let target = &last["targets"][0];
        assert!(came < 170 && came > 120, "{came}");
        assert_eq!(target["open_packets"], json!(came), "{last:#}");
        assert_eq!(target["lost_packets"], json!(200 - came), "{last:#}");
        assert_eq!(target["loss_percent"].as_f64(), Some((200 - came) as f64 / 2.0), "{last:#}");
        let silent = pings.iter().filter(|ping| ping["state"] == "timed_out").count();
        assert_eq!((silent as u64, output.code()), (200 - came, Some(0)), "{output}");
    }
}

/// A SYN-ACK or a reset that is lost leaves the peer half open, which costs no further ping its answer.
#[test]
fn a_loss_is_that_of_its_own_ping() {
    lab!("nc.openbsd", "tcpdump");
    for family in Family::ALL {
        let pair = Pair::over("--both loss=10% --seed 5");
        let to = pair.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
        let peer = capture(&pair.peer);
        let output =
            netkat(&pair.host, &format!("--ping=150 --interval 10ms -w 200ms --json=- {to} 5000")).run();
        let (_, last) = objects(&output);
        peer.signal(Signal::SIGINT);
        let times = round_trips(&peer.wait(DEADLINE).text());
        let (arrived, answered) = (times.len(), times.iter().flatten().count());
        assert!(arrived < 145 && answered * 10 >= arrived * 9, "{answered} of {arrived} answered: {last:#}");
        let target = &last["targets"][0];
        let open = target["open_packets"].as_u64().expect("a number") as usize;
        assert!(open <= answered && open >= answered * 8 / 10, "{answered} answered: {last:#}");
        assert_eq!(target["refused_packets"], 0, "{last:#}");
    }
}

#[test]
fn states_and_statuses_are_those_of_the_answers() {
    lab!("nc.openbsd", "nft", "python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let to = pair.peer_address(family);
        nft(
            &pair.peer,
            "table inet lab { chain c { type filter hook input priority 0;
                tcp dport 6001 drop; tcp dport 6002 reject with icmpx admin-prohibited;
                udp dport 6001 drop; udp dport 6002 reject with icmpx admin-prohibited;
            }; }",
        );
        for name in ["net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"] {
            pair.peer.sysctl(name, "0");
        }
        let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
        let _echo = echo(&pair.peer, to, 0.0);
        for (arguments, state, verdict, answer, status) in [
            ("5000", "open", "done", json!("syn_ack"), 0),
            ("4999", "refused", "refused", json!("reset"), 4),
            ("6001", "timed_out", "timed_out", Value::Null, 3),
            ("6002", "rejected", "rejected", json!("communication administratively prohibited"), 5),
            ("-u 7", "open", "done", json!("datagram"), 0),
            ("-u 4999", "closed", "refused", json!("port_unreachable"), 4),
            ("-u 6001", "timed_out", "timed_out", Value::Null, 3),
            ("-u 6002", "rejected", "rejected", json!("communication administratively prohibited"), 5),
        ] {
            let words = arguments.rsplit_once(' ').unwrap_or(("", arguments));
            let line = format!("--ping=3 --interval 20ms -w 200ms {} {to} {}", words.0, words.1);
            let output = netkat(&pair.host, &format!("--exit-verdict --json=- {line}")).run();
            let (pings, last) = objects(&output);
            assert_eq!((output.code(), pings.len()), (Some(status), 3), "{output}");
            for (ping, number) in pings.iter().zip(1..) {
                assert_eq!(
                    (&ping["state"], &ping["verdict"], &ping["answer"], &ping["number"]),
                    (&json!(state), &json!(verdict), &answer, &json!(number)),
                    "{ping:#}"
                );
                assert_eq!(ping["round_trip_ms"].is_null(), state == "timed_out", "{ping:#}");
                let from = if state == "rejected" { json!(to.to_string()) } else { Value::Null };
                assert_eq!(ping["from"], from, "{ping:#}");
            }
            assert_eq!(
                (&last["verdict"], &last["targets"][0]["verdict"]),
                (&json!(verdict), &json!(verdict))
            );
            let plain = netkat(&pair.host, &line).run();
            assert_eq!(plain.code(), Some(i32::from(status != 0)), "{plain}");
        }
    }
}

/// No connection reaches the server, and none stays half open at it.
#[test]
fn the_peer_keeps_nothing() {
    lab!("nc.openbsd", "ss");
    for family in Family::ALL {
        let pair = Pair::new();
        let to = pair.peer_address(family);
        let server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
        let output = netkat(&pair.host, &format!("--ping=20 --interval 5ms {to} 5000")).run();
        assert_eq!(output.code(), Some(0), "{output}");
        let sockets = pair.peer.command("ss").args(["-Htan"]).succeed().text();
        assert!(!sockets.contains("SYN-RECV") && sockets.lines().count() == 1, "{sockets}");
        // The server, which takes one connection, still waits for it.
        let client = netkat(&pair.host, &format!("--send-only {to} 5000")).run();
        assert_eq!((client.code(), server.wait(DEADLINE).code()), (Some(0), Some(0)), "{client}");
    }
}

/// Answers that repeat a number count for its ping, however late they are.
#[test]
fn overlapping_answers_find_their_pings() {
    lab!("python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let to = pair.peer_address(family);
        let _server = echo(&pair.peer, to, 0.1);
        let output = netkat(&pair.host, &format!("--ping=10 --interval 20ms -u --json=- {to} 7")).run();
        let (pings, _) = objects(&output);
        assert_eq!(pings.len(), 10, "{output}");
        for ping in &pings {
            assert!(ping["round_trip_ms"].as_f64().is_some_and(|ms| ms >= 100.0), "{ping:#}");
        }
        let output =
            netkat(&pair.host, &format!("--ping=4 --interval 10ms -w 20ms -u --json=- {to} 7")).run();
        let (_, last) = objects(&output);
        assert_eq!(last["targets"][0]["lost_packets"], 4, "{last:#}");
    }
}

#[test]
fn hosts_and_ports_are_pinged_side_by_side() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let [v4, v6] = Family::ALL.map(|family| pair.peer_address(family));
    let _servers = [v4, v6].map(|to| Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c));
    let arguments = format!("--ping=2 --interval 100ms -w 300ms {v4},{v6},10.77.0.77 5000 4990-4992,4999");
    let output = netkat(&pair.host, &arguments).run();
    assert_eq!(output.code(), Some(0), "{output}");
    assert!(output.stderr.contains("no neighbour: 10.77.0.77"), "{output}");
    let text = output.text();
    for (to, port, state) in
        [(v4, 5000, "open"), (v6, 5000, "open"), (v4, 4999, "refused"), (v6, 4991, "refused")]
    {
        for number in 1..=2 {
            assert!(text.contains(&format!("{to} {port}/tcp #{number} {state} ")), "{output}");
        }
        assert!(text.contains(&format!("\n{to} {port}/tcp: 2 sent, 2 {state}, 0.0 % lost")), "{output}");
    }
    let (_, last) = objects(&netkat(&pair.host, &format!("--json=- {arguments}")).run());
    assert_eq!(last["targets"].as_array().map(Vec::len), Some(10), "{last:#}");
}

#[test]
fn a_rule_that_stops_the_kernel_alone_shows_beside_it() {
    lab!("nc.openbsd", "iptables-nft", "python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let to = pair.peer_address(family);
        // Connections that are complete end a server that takes one.
        let _server = pair.peer.command("nc.openbsd").args(["-lk", &to.to_string(), "5000"]).spawn();
        let mut ready = pair.peer.command("true").spawn();
        ready.wait_until("a listener", |_| kernel_connects(&pair.host, to, 5000));
        let _echo = echo(&pair.peer, to, 0.0);
        let run = |more: &str| {
            let (output, pings, last) = {
                let output = netkat(
                    &pair.host,
                    &format!("--ping=4 --interval 50ms -w 40ms --both --exit-verdict --json=- {more}"),
                )
                .run();
                let (pings, last) = objects(&output);
                (output, pings, last)
            };
            assert_eq!((output.code(), pings.len()), (Some(0), 8), "{output}");
            last["targets"][0].clone()
        };
        for arguments in [format!("{to} 5000"), format!("-u {to} 7")] {
            let target = run(&arguments);
            assert_eq!((&target["open_packets"], &target["kernel"]["open_packets"]), (&json!(4), &json!(4)));
            let difference = target["kernel_difference_ms"].as_f64().expect("a difference");
            assert!(difference.abs() < 50.0, "{target:#}");
        }
        let program = if family == Family::V4 { "iptables-nft" } else { "ip6tables-nft" };
        pair.host.run(&format!("{program} -w -A OUTPUT -p tcp --dport 5000 -j DROP"));
        pair.host.run(&format!("{program} -w -A INPUT -p udp --sport 7 -j DROP"));
        for arguments in [format!("{to} 5000"), format!("-u {to} 7")] {
            let target = run(&arguments);
            let kernel = &target["kernel"];
            assert_eq!(
                (&target["open_packets"], &kernel["lost_packets"]),
                (&json!(4), &json!(4)),
                "{target:#}"
            );
            assert_eq!(
                (&kernel["round_trip"], &target["kernel_difference_ms"]),
                (&Value::Null, &Value::Null)
            );
        }
        let output = netkat(&pair.host, &format!("--ping=2 --interval 50ms -w 40ms --both {to} 5000")).run();
        assert!(output.text().contains("#2 kernel no answer\n"), "{output}");
        assert!(output.text().contains("try --compare"), "{output}");
    }
}

#[test]
fn a_signal_ends_the_pings_with_their_sums() {
    lab!("nc.openbsd", "nft");
    let pair = Pair::new();
    let to = pair.peer_address(Family::V4);
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 6001 drop; }; }",
    );
    let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
    for (arguments, seen, signal, code, sums) in [
        ("5000", "#5 open", Signal::SIGINT, Some(0), "5000/tcp: "),
        ("-w 30ms 6001", "#3 no answer", Signal::SIGINT, Some(1), "6001/tcp: "),
        ("5000", "#5 open", Signal::SIGTERM, None, "5000/tcp: "),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        let (port, flags) = words.split_last().expect("a port");
        let mut run =
            netkat(&pair.host, &format!("--ping --interval 20ms {} {to} {port}", flags.join(" "))).spawn();
        run.wait_for_stdout(seen);
        run.signal(signal);
        let output = run.wait(DEADLINE);
        assert_eq!(output.code(), code, "{output}");
        assert_eq!(output.signal(), code.is_none().then_some(signal as i32), "{output}");
        assert!(output.text().contains(sums) && output.text().contains(" sent, "), "{output}");
        assert_eq!(output.stderr, "", "{output}");
    }
}

/// The flow is the user's: source address and port, TOS, next hop, an assumed address.
#[test]
fn the_flow_is_that_of_the_flags() {
    lab!("nc.openbsd", "tcpdump");
    let pair = Pair::new();
    address(&pair.host, "eth0", "10.77.0.11/24");
    let to = pair.peer_address(Family::V4);
    let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
    let mac = crate::support::frames::PEER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    for (flags, seen) in [
        ("-s 10.77.0.11 -p 4000 --tos 0xb8", "IP (tos 0xb8, "),
        ("-s 10.77.0.11 -p 4000 --ttl 9", "ttl 9, "),
        ("-s 10.77.0.11 -p 4000", "10.77.0.11.4000 > 10.77.0.2.5000: Flags [S]"),
        ("--as 10.77.0.50 -i eth0", "10.77.0.50."),
        (&format!("--via {mac} -i eth0"), "10.77.0.1."),
        ("--past-egress", "10.77.0.1."),
    ] {
        let words =
            "-n -l -v --immediate-mode -Z root -c 1 -i eth0 tcp[tcpflags] == tcp-syn and dst port 5000";
        let (options, filter) = words.split_at(words.find("tcp[").expect("a filter"));
        let mut tcpdump = pair.peer.command("tcpdump").args(options.split_whitespace()).arg(filter).spawn();
        tcpdump.wait_for_stderr("listening on");
        let output = netkat(&pair.host, &format!("--ping=2 --interval 20ms {flags} {to} 5000")).run();
        assert_eq!((output.code(), output.stderr.as_str()), (Some(0), ""), "{output}");
        assert!(output.text().contains("2 sent, 2 open, 0.0 % lost"), "{output}");
        let packet = tcpdump.wait(DEADLINE);
        assert!(packet.text().contains(seen), "{seen}: {packet}");
    }
}

/// On lo, answers and errors depart from this host, too, and repeat what a ping holds.
#[test]
fn this_host_itself_is_pinged() {
    lab!("nc.openbsd", "python3");
    let host = Namespace::new("host");
    for to in ["127.0.0.1", "::1"] {
        let at = to.parse().expect("an address");
        let _server = Netcat::OpenBsd.listen(&host, at, 5000, |c| c);
        let _echo = echo(&host, at, 0.05);
        for (arguments, state, least) in [
            ("5000", "open", 0.0),
            ("4999", "refused", 0.0),
            ("-u 7", "open", 50.0),
            ("-u 4999", "closed", 0.0),
        ] {
            let (flags, port) = arguments.rsplit_once(' ').unwrap_or(("", arguments));
            let line = format!("--ping=3 --interval 20ms --json=- {flags} {to} {port}");
            let output = netkat(&host, &line).run();
            let (pings, _) = objects(&output);
            assert_eq!(pings.len(), 3, "{output}");
            for ping in pings {
                let time = ping["round_trip_ms"].as_f64().unwrap_or_default();
                assert!(ping["state"] == state && time > least, "{ping:#}");
            }
        }
    }
}

/// The kernel's own stack sees no answer, and resets nothing.
#[test]
fn the_kernel_answers_nothing() {
    lab!("nc.openbsd", "tcpdump");
    for family in Family::ALL {
        let pair = Pair::new();
        let to = pair.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
        // Its resets would answer the SYN-ACKs with the same numbers as netkat's: one of each ping is netkat's.
        let witness = Witness::incoming(&pair.peer, "eth0", "tcp dst port 5000");
        let output = netkat(&pair.host, &format!("--ping=10 --interval 10ms {to} 5000")).run();
        assert_eq!(output.code(), Some(0), "{output}");
        let seen = witness.finish();
        let count = |flags: &str| seen.matches(flags).count();
        assert_eq!((count("Flags [S],"), count("Flags [R],")), (10, 10), "{seen}");
    }
}

/// A target that moves to another link address is found again.
#[test]
fn a_next_hop_that_moves_is_followed() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let to = pair.peer_address(Family::V4);
    let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
    let mut run = netkat(&pair.host, &format!("--ping --interval 50ms -w 40ms {to} 5000")).spawn();
    run.wait_for_stdout(" open ");
    pair.peer.ip("link set dev eth0 address 02:00:00:00:00:77");
    run.wait_for_stdout("no answer");
    pair.host.ip("neighbour replace 10.77.0.2 lladdr 02:00:00:00:00:77 dev eth0");
    let before = String::from_utf8_lossy(&run.stdout()).matches(" open ").count();
    run.wait_until("an answer from there", |run| {
        String::from_utf8_lossy(&run.stdout()).matches(" open ").count() > before
    });
    run.signal(Signal::SIGINT);
    assert_eq!(run.wait(DEADLINE).code(), Some(0));
}

/// On a terminal, the sums so far stand below the lines.
#[test]
fn a_terminal_shows_the_sums_so_far() {
    lab!("nc.openbsd", "script");
    let pair = Pair::new();
    let to = pair.peer_address(Family::V4);
    let _server = Netcat::OpenBsd.listen(&pair.peer, to, 5000, |c| c);
    let program = crate::support::netkat::PROGRAM;
    let line = format!("{program} --ping=8 --interval 50ms {to} 5000");
    let output = pair.host.command("script").args(["-qec", &line, "/dev/null"]).run();
    assert_eq!(output.code(), Some(0), "{output}");
    let text = output.text();
    assert!(text.contains("sent, ") && text.contains(" answered, 0.0 % lost, last "), "{output}");
    assert!(text.contains("8 sent, 8 open, 0.0 % lost"), "{output}");
}

#[test]
fn what_cannot_be_pinged_is_an_error() {
    lab!();
    let pair = Pair::new();
    let output = netkat(&pair.host, "--ping=1 -w 200ms --exit-verdict 10.77.0.77 80").run();
    assert_eq!((output.code(), output.text().as_str()), (Some(6), ""), "{output}");
    assert!(output.stderr.contains("no neighbour: 10.77.0.77 did not answer ARP"), "{output}");
    let output = netkat(&pair.host, "--ping=1 --exit-verdict 198.51.100.1,203.0.113.1 80").run();
    assert_eq!((output.code(), output.text().as_str()), (Some(6), ""), "{output}");
    let output = netkat(&pair.host, "--ping 10.77.0.2,10.77.0.3 1-5001").run();
    assert_eq!(output.code(), Some(2), "{output}");
    assert!(output.stderr.contains("10002 targets are too many; at most 10000"), "{output}");
}
