//! Receiving by a ring, where frames arrive segment by segment.
use crate::support::{
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Input, Output, Process},
    requirements::lab,
    topology::{Family, Pair, address, offloads_off},
};
use std::{thread::sleep, time::Duration};

const PORT: u16 = 5000;
const SAYS: &str = "frames arrive segment by segment on ";

/// Returns a pair whose host coalesces nothing, and its peer neither unless super-frames are wanted.
fn pair(super_frames: bool) -> Pair {
    let pair = Pair::new();
    offloads_off(&pair.host, "eth0");
    if !super_frames {
        offloads_off(&pair.peer, "eth0");
    }
    pair
}

/// Returns how many packets of the transfer the guard has dropped for the kernel.
fn packets(output: &Output) -> u64 {
    let report = output.stderr.lines().last().expect("a report");
    let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
    report["guard_dropped_packets"].as_u64().expect("a number")
}

/// Receives 8 MiB and sends `out`, connecting and listening, in both families, and returns what netkat says.
fn transfers(pair: &Pair, flags: &str, out: &Payload) -> Vec<Output> {
    let back = Payload::new(21, 8 * MIB);
    let mut outputs = Vec::new();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let server = Netcat::Socat.listen(&pair.peer, at, PORT, |c| c.input(back.input()).expect(out));
        let client = netkat(&pair.host, &format!("-v --json {flags} {at} {PORT}"));
        let client = client.input(out.input()).expect(&back).run();
        client.check(&back);
        server.wait(DEADLINE).check(out);

        let at = pair.host_address(family);
        let server = listening(&pair.host, &format!("--json {flags} {at} {PORT}"), |c| {
            c.input(out.input()).expect(&back)
        });
        Netcat::Socat.connect(&pair.peer, at, PORT).input(back.input()).expect(out).run().check(out);
        let server = server.wait(DEADLINE);
        server.check(&back);
        for output in [client, server] {
            assert_eq!(output.code(), Some(0), "{output}");
            outputs.push(output);
        }
    }
    outputs
}

#[test]
fn segments_come_by_a_ring() {
    lab!("socat", "ethtool");
    for output in transfers(&pair(false), "", &Payload::new(20, 8 * MIB)) {
        assert!(output.stderr.contains(SAYS), "{output}");
        assert!(packets(&output) > 8 * MIB / 1460, "{output}");
    }
}

/// Both offloads of the peer are on, so its frames are longer than a slot.
#[test]
fn super_frames_pass_the_slots() {
    lab!("socat", "ethtool");
    for output in transfers(&pair(true), "", &Payload::short()) {
        assert!(output.stderr.contains(SAYS), "{output}");
        assert!(packets(&output) < 8 * MIB / 1460 / 2, "{output}");
    }
}

#[test]
fn only_one_connection_that_is_not_shown_has_a_ring() {
    lab!("socat", "ethtool", "nc.openbsd");
    let bare = pair(false);
    let short = Payload::short();
    let without = transfers(&bare, "--without ring", &short);
    for output in without.into_iter().chain(transfers(&Pair::new(), "", &short)) {
        assert!(!output.stderr.contains(SAYS), "{output}");
    }
    let file = std::env::temp_dir().join(format!("netkat-ring-{}.pcap", std::process::id()));
    for flags in ["-d".to_owned(), "-k".to_owned(), "-u".to_owned(), format!("--pcap {}", file.display())] {
        let at = bare.host_address(Family::V4);
        let server = listening(&bare.host, &format!("{flags} {at} {PORT}"), |c| c);
        let server = server.terminate();
        assert!(server.stderr.contains("guard attached") && !server.stderr.contains(SAYS), "{server}");
    }
    std::fs::remove_file(&file).expect("the capture file");
}

/// An open conversation by a ring, whose first words have been heard.
fn talk(pair: &Pair, family: Family) -> [Process; 2] {
    let at = pair.peer_address(family);
    let server = Netcat::Socat.listen(&pair.peer, at, PORT, |c| c.input(Input::Open));
    let client = netkat(&pair.host, &format!("-v {at} {PORT}")).input(Input::Open).spawn();
    let mut ends = [client, server];
    say(&mut ends, "first ");
    ends
}

fn say(ends: &mut [Process; 2], words: &str) {
    for (from, to) in [(0, 1), (1, 0)] {
        ends[from].write(words.as_bytes());
        ends[to].wait_for_stdout(words);
    }
}

#[test]
fn the_loss_of_a_link_is_noticed() {
    lab!("socat", "ethtool");
    for family in Family::ALL {
        let pair = pair(false);
        let mut ends = talk(&pair, family);
        pair.host.ip("link set eth0 down");
        ends[0].write(b"second ");
        ends[0].wait_for_stderr("is down");
        sleep(Duration::from_millis(300));
        pair.host.ip("link set eth0 up");
        if family == Family::V6 {
            // The kernel has removed the address with the link; netkat asks for the peer's.
            address(&pair.host, "eth0", "fd77::1/64");
        }
        ends[1].wait_for_stdout("second ");
        say(&mut ends, "third ");
        pair.host.ip("link delete eth0");
        let [client, _server] = ends;
        let client = client.wait(DEADLINE);
        assert_eq!((client.code(), client.text().as_str()), (Some(1), "first third "), "{client}");
        assert!(client.stderr.contains(SAYS) && client.stderr.contains("eth0 disappeared"), "{client}");
    }
}
