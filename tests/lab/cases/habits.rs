//! Flags that users know from nc and ncat: the effect of each, seen from the peer or by the script
//! that asks.
use crate::support::{
    namespace::Namespace,
    netkat::{listening, netkat},
    peers::Netcat,
    process::{DEADLINE, Input, Output},
    programs::{self, Direction, TC_ACT_SHOT},
    requirements::lab,
    rules::nft,
    scan::states,
    topology::{Family, Pair},
};
use std::time::Duration;

fn status(host: &Namespace, arguments: &str) -> Option<i32> {
    netkat(host, &format!("--exit-verdict {arguments}")).run().code()
}

/// Ports of the peer: 6001 is dropped, 6002 is rejected.
fn rule_out(pair: &Pair) {
    pair.peer.sysctl("net.ipv4.icmp_ratelimit", "0");
    pair.peer.sysctl("net.ipv6.icmp.ratelimit", "0");
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 6001 drop; tcp dport 6002 reject with icmpx admin-prohibited; tcp dport 7000-7999 drop; }; }",
    );
}

#[test]
fn a_scan_says_a_line_for_each_port_in_their_order() {
    lab!("nft", "ncat");
    let pair = Pair::new();
    rule_out(&pair);
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c);
        let output = netkat(&pair.host, &format!("-z -w 500ms {at} 6002,6001,4999-5000")).run();
        let expected = format!(
            "{at} 6002/tcp rejected: ICMP communication administratively prohibited from {at}\n\
             {at} 6001/tcp timed out\n{at} 4999/tcp refused\n{at} 5000/tcp open\n"
        );
        assert_eq!((output.code(), states(&output.text())), (Some(0), expected), "{output}");
        let output = netkat(&pair.host, &format!("-z -w 500ms {at} 4998-4999")).run();
        assert_eq!(output.code(), Some(1), "{output}");
        assert!(output.stderr.contains("none of 2 ports is known to be open"), "{output}");
    }
}

#[test]
fn a_thousand_silent_ports_take_a_few_waits() {
    lab!("nft");
    let pair = Pair::new();
    rule_out(&pair);
    let at = pair.peer_address(Family::V4);
    let output = netkat(&pair.host, &format!("-z -w 500ms {at} 7000-7999")).run();
    assert_eq!(
        output.text().lines().filter(|line| line.ends_with("/tcp timed out")).count(),
        1000,
        "{output}"
    );
    assert!(output.elapsed < Duration::from_secs(4), "{output}");
}

/// No connection is left half-open: a peer that does not close is reset, and its socket is gone.
#[test]
fn a_scan_leaves_no_connection_behind() {
    lab!("ncat", "ss");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let mut server = pair
        .peer
        .command("ncat")
        .args(["-k", "-l", &at.to_string(), "5000", "--sh-exec", "exec sleep 20"])
        .spawn();
    server.wait_listening(5000);
    assert_eq!(netkat(&pair.host, &format!("-z {at} 5000")).run().code(), Some(0));
    let sockets = pair.peer.run("ss -Htan state connected").text();
    assert_eq!(sockets, "", "what the peer still has");
}

#[test]
fn every_verdict_has_its_status() {
    lab!("nft", "ncat");
    let pair = Pair::new();
    rule_out(&pair);
    let at = pair.peer_address(Family::V4);
    let host = &pair.host;
    for mode in ["", "-z "] {
        assert_eq!(status(host, &format!("{mode}-w 300ms {at} 6001")), Some(3), "dropped");
        assert_eq!(status(host, &format!("{mode}{at} 5000")), Some(4), "reset");
        assert_eq!(status(host, &format!("{mode}{at} 6002")), Some(5), "ICMP");
        assert_eq!(status(host, &format!("{mode}192.0.2.1 80")), Some(6), "no route");
        assert_eq!(status(host, &format!("{mode}-w 300ms 10.77.0.50 80")), Some(6), "no neighbour");
    }
    assert_eq!(status(host, "-l -w 100ms 5000"), Some(3), "nobody came");
    assert_eq!(status(host, &format!("{at}")), Some(2), "usage");
    let dropper = programs::classifier("lab_drop", TC_ACT_SHOT);
    programs::attach_clsact(&dropper, host, "eth0", Direction::Egress, 1);
    assert_eq!(status(host, &format!("-w 300ms {at} 5000")), Some(8), "egress");
    host.run("tc qdisc del dev eth0 clsact");
    let bare = host.words(&format!(
        "setpriv --bounding-set -net_raw --inh-caps -net_raw {} --exit-verdict {at} 5000",
        crate::support::netkat::PROGRAM
    ));
    assert_eq!(bare.run().code(), Some(7), "privilege");
    assert_eq!(netkat(host, &format!("-w 300ms {at} 6001")).run().code(), Some(1), "without --exit-verdict");
}

/// Returns the line that the peer's tcpdump prints for our SYN.
fn syn(pair: &Pair, family: Family, arguments: &str) -> String {
    let at = pair.peer_address(family);
    let server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c);
    let capture = pair
        .peer
        .command("tcpdump")
        .args(["-Z", "root", "-n", "-v", "-i", "eth0", "-c", "1", "--immediate-mode", "-l"])
        .args(["ip6[6] == 6 and ip6[53] == 2 or tcp[tcpflags] == tcp-syn"]);
    let mut capture = capture.spawn();
    capture.wait_for_stderr("listening on");
    netkat(&pair.host, &format!("{arguments} {at} 5000")).text("x").succeed();
    server.wait(DEADLINE);
    capture.wait(DEADLINE).text()
}

#[test]
fn ttl_tos_and_mss_are_in_the_packets() {
    lab!("ncat", "tcpdump");
    let pair = Pair::new();
    let seen = syn(&pair, Family::V4, "--ttl 17 --tos ef --mss 700");
    for field in ["ttl 17,", "tos 0xb8,", "mss 700,"] {
        assert!(seen.contains(field), "{field} {seen}");
    }
    let seen = syn(&pair, Family::V6, "--ttl 18 --tos 0x28 --mss 701");
    for field in ["hlim 18,", "class 0x28,", "mss 701,"] {
        assert!(seen.contains(field), "{field} {seen}");
    }
    let seen = syn(&pair, Family::V4, "");
    for field in ["ttl 64,", "tos 0x0,", "mss 1460,"] {
        assert!(seen.contains(field), "{field} {seen}");
    }
}

/// Silence ends both a client and a listener, as a failure; bytes keep them.
#[test]
fn silence_ends_an_idle_connection() {
    lab!("ncat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.input(Input::Open));
    let mut client = netkat(&pair.host, &format!("--exit-verdict --idle-timeout 400ms {at} 5000"))
        .input(Input::Open)
        .spawn();
    client.write(b"x");
    let output = client.wait(DEADLINE);
    idle(&output);
    let server = listening(&pair.host, "--exit-verdict --idle-timeout 400ms 5001", |c| c.input(Input::Open));
    let at = pair.host_address(Family::V4);
    let _client = Netcat::Ncat.connect(&pair.peer, at, 5001).input(Input::Open).spawn();
    idle(&server.wait(DEADLINE));
}

fn idle(output: &Output) {
    assert_eq!(output.code(), Some(3), "{output}");
    assert!(output.stderr.contains("nothing came or went for 0.4 s"), "{output}");
}

#[test]
fn one_way_connections_carry_one_way() {
    lab!("ncat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.text("ignored"));
    let output = netkat(&pair.host, &format!("--send-only {at} 5000")).text("sent").run();
    assert_eq!((output.code(), output.length), (Some(0), 0), "{output}");
    assert_eq!(server.wait(DEADLINE).text(), "sent");
    let server = Netcat::OpenBsd.listen(&pair.peer, at, 5001, |c| c.text("received"));
    let output = netkat(&pair.host, &format!("--recv-only {at} 5001")).text("kept").run();
    assert_eq!((output.code(), output.text().as_str()), (Some(0), "received"), "{output}");
    assert_eq!(server.wait(DEADLINE).text(), "");
}

/// Probes of an idle connection come as often as demanded, and are answered.
#[test]
fn keepalives_are_sent() {
    lab!("ncat", "tcpdump");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.input(Input::Open));
    let mut client =
        netkat(&pair.host, &format!("-v --keepalive 200ms {at} 5000")).input(Input::Open).spawn();
    client.wait_for_stderr("established");
    let capture =
        pair.peer.command("tcpdump").args(["-Z", "root", "-n", "-i", "eth0", "-c", "3", "-Q", "in"]);
    let output = capture.args(["--immediate-mode", "tcp dst port 5000"]).run();
    assert_eq!(output.text().lines().count(), 3, "{output}");
}

fn report(output: &Output) -> serde_json::Value {
    let line = output.stderr.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[test]
fn the_outcome_is_an_object_for_scripts() {
    lab!("ncat", "nft");
    let pair = Pair::new();
    rule_out(&pair);
    let at = pair.peer_address(Family::V4);
    let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.text("answer"));
    let done = report(&netkat(&pair.host, &format!("--json {at} 5000")).text("question").run());
    assert_eq!((&done["verdict"], &done["error"]), (&"done".into(), &serde_json::Value::Null), "{done}");
    assert_eq!(done["flow"]["remote"], "10.77.0.2:5000", "{done}");
    assert!(done["flow"]["local"].as_str().is_some_and(|local| local.starts_with("10.77.0.1:")), "{done}");
    assert_eq!(
        (&done["route"]["interface"], &done["route"]["mtu_bytes"]),
        (&"eth0".into(), &1500.into()),
        "{done}"
    );
    for time in ["neighbour_ms", "connect_ms", "first_byte_ms", "close_ms"] {
        assert!(
            done["timings"][time].as_f64().is_some_and(|ms| (0.0..5000.0).contains(&ms)),
            "{time}: {done}"
        );
    }
    let traffic = &done["traffic"];
    assert_eq!((&traffic["sent_bytes"], &traffic["received_bytes"]), (&8.into(), &6.into()), "{done}");
    for count in
        ["lost_segments", "retransmitted_segments", "spurious_retransmissions", "timeouts", "tail_probes"]
    {
        assert_eq!(traffic[count], 0, "{count}: {done}");
    }
    for value in ["smoothed_rtt_ms", "min_rtt_ms", "congestion_window_bytes", "bandwidth_bytes_per_second"] {
        assert!(traffic[value].as_f64().is_some_and(|value| value > 0.0), "{value}: {done}");
    }

    let rejected = report(&netkat(&pair.host, &format!("--json {at} 6002")).run());
    assert_eq!(rejected["verdict"], "rejected", "{rejected}");
    assert!(rejected["error"].as_str().is_some_and(|e| e.contains("administratively")), "{rejected}");
    assert!(rejected["timings"]["connect_ms"].is_null() && rejected["traffic"].is_null(), "{rejected}");
    let nowhere = report(&netkat(&pair.host, "--json 192.0.2.1 80").run());
    assert_eq!((&nowhere["verdict"], &nowhere["flow"]), (&"no_route".into(), &serde_json::Value::Null));

    let file = std::env::temp_dir().join(format!("netkat-habits-{}.json", std::process::id()));
    let output = netkat(&pair.host, &format!("--json={} -z {at} 4998-4999", file.display())).run();
    let text = std::fs::read_to_string(&file).expect("the report");
    std::fs::remove_file(&file).expect("the report");
    let last = text.lines().last().unwrap_or_default();
    let scan: serde_json::Value = serde_json::from_str(last).expect("an object");
    assert_eq!((&scan["verdict"], &scan["ports"][1]["port"]), (&"refused".into(), &4999.into()), "{output}");
}

#[test]
fn line_ends_are_translated_and_what_goes_by_is_recorded() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let folder = std::env::temp_dir().join(format!("netkat-habits-{}-record", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let (copy, dump) = (folder.join("copy"), folder.join("dump"));
    let files = format!("-o {} -x {}", copy.display(), dump.display());
    for (more, times) in [("", 1), ("", 1), ("--append-output", 2)] {
        let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.input(Input::Open));
        let mut client =
            netkat(&pair.host, &format!("-C {files} {more} {at} 5000")).input(Input::Open).spawn();
        client.write(b"one\ntwo\r\n");
        let mut server = server;
        server.wait_for_stdout("two");
        server.write(b"hi");
        client.wait_for_stdout("hi");
        client.close_stdin();
        server.close_stdin();
        assert_eq!(client.wait(DEADLINE).code(), Some(0));
        assert_eq!(server.wait(DEADLINE).text(), "one\r\ntwo\r\n", "what the peer got");
        let copied = std::fs::read_to_string(&copy).expect("the copy");
        assert_eq!(copied, "one\r\ntwo\r\nhi".repeat(times));
        let dumped = std::fs::read_to_string(&dump).expect("the dump");
        let sent = format!("> 00000000 {:<48}# one..two..\n", "6f 6e 65 0d 0a 74 77 6f 0d 0a");
        let received = format!("< 00000000 {:<48}# hi\n", "68 69");
        assert_eq!(dumped, format!("{sent}{received}").repeat(times));
    }
    std::fs::remove_dir_all(&folder).expect("the folder");
    let output = netkat(&pair.host, &format!("-o /nowhere/copy {at} 5000")).run();
    assert_eq!(output.code(), Some(1), "{output}");
    assert!(output.stderr.contains("cannot write to /nowhere/copy: No such file"), "{output}");
}

/// --delay spaces lines; over UDP each is a datagram. Text without a line end is not held back.
#[test]
fn lines_are_sent_one_by_one() {
    lab!("python3", "ncat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c);
    let output = netkat(&pair.host, &format!("--delay 250ms -C {at} 5000")).text("one\ntwo\nthree").run();
    assert_eq!(output.code(), Some(0), "{output}");
    assert!(output.elapsed >= Duration::from_millis(500), "{output}");
    assert_eq!(server.wait(DEADLINE).text(), "one\r\ntwo\r\nthree");

    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('{at}', 5000))\n\
         print('up')\n\
         while True:\n\
         \x20   print(s.recv(100))"
    );
    let mut server = pair.peer.command("python3").args(["-u", "-c", &script]).spawn();
    server.wait_for_stdout("up");
    let output =
        netkat(&pair.host, &format!("-u -q 0 --delay 250ms {at} 5000")).text("one\ntwo\nthree").run();
    assert_eq!(output.code(), Some(0), "{output}");
    assert!(output.elapsed >= Duration::from_millis(500), "{output}");
    server.wait_for_stdout("three");
    assert_eq!(server.terminate().text(), "up\nb'one\\n'\nb'two\\n'\nb'three'\n");

    let mut server = listening(&pair.host, "-k --delay 100ms 5001", |c| c.text("one\ntwo\n"));
    let mut client =
        Netcat::Socat.connect(&pair.peer, pair.host_address(Family::V4), 5001).input(Input::Open).spawn();
    client.wait_for_stdout("one\ntwo\n");
    assert!(server.is_running());
}

/// --progress shows itself on a terminal only.
#[test]
fn progress_is_shown_on_a_terminal() {
    lab!("ncat", "script");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let file = std::env::temp_dir().join(format!("netkat-habits-{}-progress", std::process::id()));
    std::fs::write(&file, vec![0; 3 << 20]).expect("a file");
    let line = format!("{} --progress {at} 5000 < {} 2>&1", crate::support::netkat::PROGRAM, file.display());
    let server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.input(Input::Null));
    let shown = pair.host.command("script").args(["-qec", &line, "/dev/null"]).input(Input::Open).run();
    assert_eq!(shown.code(), Some(0), "{shown}");
    for word in ["3.00 MiB", "/s", "00:00:0"] {
        assert!(shown.text().contains(word), "\"{word}\" is not shown: {shown}");
    }
    assert_eq!(server.wait(DEADLINE).length, 3 << 20);
    let server = Netcat::Ncat.listen(&pair.peer, at, 5001, |c| c.input(Input::Null));
    let silent = netkat(&pair.host, &format!("--progress {at} 5001")).input(Input::File(file.clone())).run();
    assert_eq!((silent.code(), silent.stderr.as_str()), (Some(0), ""), "{silent}");
    server.wait(DEADLINE);
    std::fs::remove_file(&file).expect("the file");
}

#[test]
fn the_outcome_of_datagrams_is_an_object_too() {
    lab!("python3");
    let pair = Pair::new();
    pair.peer.sysctl("net.ipv4.icmp_ratelimit", "0");
    let at = pair.host_address(Family::V4);
    let mut server = listening(&pair.host, &format!("-u --json {at} 5000"), |c| c.text("answer"));
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.sendto(b'question', ('{at}', 5000))\n\
         s.settimeout(5)\n\
         print(s.recv(100))"
    );
    pair.peer.command("python3").args(["-c", &script]).succeed();
    server.wait_for_stdout("question");
    let output = server.terminate();
    assert_eq!(output.signal(), Some(15), "{output}");
    let object = report(&output);
    assert_eq!(object["verdict"], "interrupted", "{object}");
    assert_eq!(object["flow"]["local"], "10.77.0.1:5000", "{object}");
    for (field, number) in [
        ("sent_datagrams", 1),
        ("sent_bytes", 6),
        ("received_datagrams", 1),
        ("received_bytes", 8),
        ("lost_frames", 0),
        ("egress_dropped_datagrams", 0),
    ] {
        assert_eq!(object["datagrams"][field], number, "{field}: {object}");
    }
    assert!(
        object["timings"]["first_byte_ms"].is_f64() && object["guard_dropped_packets"].as_u64() >= Some(1),
        "{object}"
    );

    let to = pair.peer_address(Family::V4);
    let output = netkat(&pair.host, &format!("-u --json --exit-verdict {to} 5000")).text("x").run();
    let object = report(&output);
    assert_eq!((output.code(), &object["verdict"]), (Some(4), &"refused".into()), "{object}");
    assert_eq!(
        (&object["route"]["interface"], &object["datagrams"]["sent_datagrams"]),
        (&"eth0".into(), &1.into())
    );
}

/// --json writes an object for each client at its end, then one for the run.
#[test]
fn each_client_of_many_has_an_object() {
    lab!("ncat");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let file = std::env::temp_dir().join(format!("netkat-habits-{}-clients.json", std::process::id()));
    let arguments = format!("-k --exec cat --json={} 5000", file.display());
    let mut server = listening(&pair.host, &arguments, |c| c);
    let objects = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).expect("the reports");
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    };
    for (number, text) in ["one", "three"].iter().enumerate() {
        Netcat::Ncat.connect(&pair.peer, at, 5000).text(text).succeed();
        server.wait_until("its object", |_| objects().len() > number);
    }
    let output = server.terminate();
    let objects = objects();
    std::fs::remove_file(&file).expect("the reports");
    let bytes: Vec<_> = objects.iter().map(|object| object["traffic"]["received_bytes"].as_u64()).collect();
    assert_eq!(bytes, [Some(3), Some(5), None], "{output}");
    assert!(objects.iter().take(2).all(|object| object["verdict"] == "done"), "{objects:?}");
    assert_eq!((&objects[2]["verdict"], &objects[2]["clients"]), (&"interrupted".into(), &2.into()));
}

/// One long line, and bytes that end strings elsewhere.
#[test]
fn what_is_not_text_goes_through_whatever_is_done_to_it() {
    lab!("socat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let mut data = vec![0; 10 << 20];
    for (place, byte) in data.iter_mut().enumerate() {
        *byte = if place % 3 == 0 { 0 } else { b'x' };
    }
    data.push(b'\n');
    for flags in ["-C", "--delay 1ms", "-C --delay 1ms"] {
        let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c);
        let output =
            netkat(&pair.host, &format!("{flags} {at} 5000")).input(Input::Bytes(data.clone())).run();
        assert_eq!(output.code(), Some(0), "{output}");
        let mut expected = data.clone();
        if flags.contains("-C") {
            expected.insert(10 << 20, b'\r');
        }
        assert!(server.wait(DEADLINE).stdout == expected, "{flags}");
    }
    for line in ["--json=/nowhere/file 10.77.0.2 80", "-l -k --json=/nowhere/file 80"] {
        let output = netkat(&pair.host, line).run();
        assert!(output.stderr.contains("cannot write the report to /nowhere/file: No such"), "{output}");
    }
}

/// The peer counts as gone after --user-timeout where all our packets are lost.
#[test]
fn a_peer_that_stops_answering_is_given_up() {
    lab!("nft", "ncat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.input(Input::Open));
    let arguments = format!("-v --exit-verdict --user-timeout 600ms {at} 5000");
    let mut client = netkat(&pair.host, &arguments).input(Input::Open).spawn();
    client.wait_for_stderr("established");
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 5000 drop; }; }",
    );
    client.write(b"x");
    let output = client.wait(DEADLINE);
    assert_eq!(output.code(), Some(3), "{output}");
    assert!(output.stderr.contains("stopped answering"), "{output}");
}
