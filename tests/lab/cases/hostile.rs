//! Attacks on a real listener, and their cost to others.
use crate::support::{
    frames::syn,
    netkat::listening,
    packet_socket::{Mode, PacketSocket},
    process::{DEADLINE, Input, Process},
    requirements::lab,
    topology::{Family, Pair},
};
use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 5000;
/// Maximum growth of memory by a flood, in KiB: 4096 half-open records, and the content of the
/// socket's buffer.
const GROWTH: u64 = 8 << 10;

/// Rate and length of the flood. The full measure: `NETKAT_FLOOD=100000:10 cargo test --test lab
/// a_flood`.
fn flood() -> (u64, Duration) {
    let text = std::env::var("NETKAT_FLOOD").unwrap_or("20000:2".to_owned());
    let (rate, seconds) = text.split_once(':').expect("RATE:SECONDS");
    (rate.parse().expect("a rate"), Duration::from_secs(seconds.parse().expect("seconds")))
}

fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

/// Serves one client of the kernel's. Returns the time of question and answer.
fn served(pair: &Pair, family: Family) -> Duration {
    let start = Instant::now();
    let at = pair.host_address(family);
    let output = pair.peer.words(&format!("nc.openbsd -N -w 20 {at} {PORT}")).text("question").run();
    assert_eq!(output.text(), "question", "{output}");
    start.elapsed()
}

#[test]
fn a_flood_of_forged_syns_keeps_no_client_out_and_leaves_memory_flat() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        flooded(family);
    }
}

fn flooded(family: Family) {
    let (rate, time) = flood();
    let pair = Pair::new();
    // A return route leads to the forged sources, none of which answers.
    pair.host.ip(&format!("route add default via {}", pair.peer_address(family)));
    pair.peer.sysctl("net.ipv4.ip_forward", "0");
    pair.peer.sysctl("net.ipv6.conf.all.forwarding", "0");
    let server = listening(&pair.host, &format!("-k --exec cat {PORT}"), |c| c.input(Input::Null));
    served(&pair, family);
    let before = resident(&server);
    let socket = pair.peer.inside(|| PacketSocket::open("eth0", Mode::default())).expect("a packet socket");
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let due = Duration::from_nanos(u64::from(number) * 1_000_000_000 / rate);
                if let Some(early) = due.checked_sub(start.elapsed()).filter(|early| early.as_millis() > 0) {
                    thread::sleep(early);
                }
                // A full queue drops the packet, as a wire would.
                let _ = socket.send(&syn(family, number, PORT));
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        let start = Instant::now();
        while start.elapsed() < time {
            slowest = slowest.max(served(&pair, family));
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
    });
    let sent = sent.into_inner();
    let grown = resident(&server).saturating_sub(before);
    println!(
        "{family:?}: {sent} SYNs in {time:?}; the slowest client took {slowest:?}; memory grew by {grown} KiB"
    );
    assert!(sent > rate / 4 * time.as_secs(), "only {sent} SYNs were sent");
    assert!(grown < GROWTH, "memory grew by {grown} KiB");
    // The limit is a second; a loaded machine gets more.
    assert!(slowest < Duration::from_secs(5), "a client took {slowest:?}");
    assert!(served(&pair, family) < DEADLINE);
}

/// RFC 6056 and RFC 6528: a connection's port and sequence number tell nothing about the next.
#[test]
fn ports_and_sequence_numbers_of_runs_are_not_in_a_row() {
    lab!();
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let mut ports = Vec::new();
    let mut sequences = Vec::new();
    for _ in 0..12 {
        let run = crate::support::netkat::netkat(&pair.host, &format!("-d --json {at} 5000")).run();
        // A frame of neighbour discovery may come first.
        let mut frames =
            run.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let syn = frames.find(|frame| frame["tcp"].is_object());
        let syn = syn.unwrap_or_else(|| panic!("no SYN: {run}"));
        ports.push(syn["tcp"]["source"].as_i64().expect("a port"));
        sequences.push(syn["tcp"]["sequence"].as_i64().expect("a number"));
    }
    for numbers in [ports, sequences] {
        let steps: std::collections::BTreeSet<i64> = numbers.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(steps.len() > 8, "{numbers:?}");
        assert!(!numbers.is_sorted(), "{numbers:?}");
    }
}
