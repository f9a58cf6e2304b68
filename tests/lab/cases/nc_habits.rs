//! Small habits of nc's and ncat's users: values that mean for ever, results after a signal, a
//! file's progress.
use crate::support::{
    netkat::netkat,
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Input},
    requirements::lab,
    rules::nft,
    scan::states,
    topology::{Family, Pair},
};
use nix::sys::signal::Signal;
use std::{thread, time::Duration};

#[test]
fn minus_one_waits_for_ever() {
    lab!("socat", "nft");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let mut server =
        pair.peer.command("socat").args(["-t10", "TCP-LISTEN:5000,fork,reuseaddr", "EXEC:sleep 5"]).spawn();
    server.wait_listening(5000);
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 5001 drop; }; }",
    );
    for arguments in [
        format!("-q -1 {at} 5000"),
        format!("-q-1 {at} 5000"),
        format!("-u -q -1 {at} 5002"),
        format!("-w -1 {at} 5001"),
        "-l -w -1 5003".to_owned(),
    ] {
        let mut client = netkat(&pair.host, &arguments).spawn();
        thread::sleep(Duration::from_millis(1500));
        assert!(client.is_running(), "{arguments}: {}", client.stderr());
        client.signal(Signal::SIGTERM);
        client.wait(DEADLINE);
    }
}

/// A silent port holds back the lines behind it, and a signal prints them, in JSON, too.
#[test]
fn a_scan_that_is_interrupted_prints_what_it_knows() {
    lab!("nft", "ncat");
    let pair = Pair::new();
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 5001 drop; udp dport 5001 drop; }; }",
    );
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.args(["-k"]));
        for (udp, expected) in [
            ("", format!("{at} 4999/tcp refused\n{at} 5000/tcp open\n")),
            ("-u ", format!("{at} 4999/udp closed\n{at} 5000/udp closed\n")),
        ] {
            let mut scan =
                netkat(&pair.host, &format!("-v --json {udp}-z -w 20 {at} 4999,5001,5000")).spawn();
            scan.wait_for_stdout("4999");
            thread::sleep(Duration::from_millis(500));
            scan.signal(Signal::SIGINT);
            let output = scan.wait(DEADLINE);
            assert_eq!((output.signal(), states(&output.text())), (Some(2), expected), "{output}");
            let json = output.stderr.lines().last().expect("JSON");
            let report: serde_json::Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(report["ports"].as_array().map(Vec::len), Some(2), "{report}");
            assert_eq!(report["verdict"], "interrupted", "{report}");
        }
    }
}

/// The share of a file is that of its remaining part, and received bytes count separately.
#[test]
fn progress_of_a_file_has_a_share_and_a_time_left() {
    lab!("socat", "script", "bash");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let file = Payload::new(77, 8 * MIB);
    let Input::File(path) = file.input() else { panic!("a file") };
    let mut echo = pair.peer.words("socat TCP-LISTEN:5000,fork,reuseaddr EXEC:cat").spawn();
    echo.wait_listening(5000);
    let program = crate::support::netkat::PROGRAM;
    let line = format!(
        "{{ head -c {} >/dev/null; {program} --progress {at} 5000 >/dev/null; }} < {}",
        4 * MIB,
        path.display()
    );
    let shown = pair.host.command("script").args(["-qec", &line, "/dev/null"]).input(Input::Open).run();
    assert_eq!(shown.code(), Some(0), "{shown}");
    for words in ["4.00 MiB of 4.00 MiB sent (100%)", "4.00 MiB received", "ETA"] {
        assert!(shown.text().contains(words), "\"{words}\" is not shown: {shown}");
    }
}

/// A connection without data has sent no data segment, and one segment is singular.
#[test]
fn the_counts_of_v_are_those_of_the_data() {
    lab!("socat");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        for (input, segments, bytes) in
            [("", "0 segments with data", "0 bytes sent"), ("x", "1 segment with data", "1 byte sent")]
        {
            let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c);
            let client = netkat(&pair.host, &format!("-v {at} 5000")).text(input).run();
            server.wait(DEADLINE);
            assert!(client.stderr.contains(segments) && client.stderr.contains(bytes), "{client}");
        }
    }
}
