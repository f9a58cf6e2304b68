//! Nothing is left in the kernel, however a netkat ends.
use crate::support::{
    namespace::Namespace,
    netkat::{GUARDS, listening, netkat},
    payload::{MIB, Payload},
    peers::{Netcat, kernel_connects},
    process::{Input, Process},
    requirements::lab,
    topology::{Family, Pair},
    traces::{settles, traces},
};
use nix::sys::signal::Signal;
use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// Starts a netkat in each role on `at`, connected where it connects.
fn running(pair: &Pair, role: &str, arguments: &str) -> (Process, Option<Process>) {
    if role == "listen" {
        let at = pair.host_address(Family::V4);
        return (listening(&pair.host, &format!("{arguments} {at} 5000"), |c| c.input(Input::Open)), None);
    }
    let at = pair.peer_address(Family::V4);
    let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.input(Input::Open));
    let mut client = netkat(&pair.host, &format!("-v {arguments} {at} 5000")).input(Input::Open).spawn();
    client.wait_for_stderr("established");
    (client, Some(server))
}

#[test]
fn signals_end_it_and_leave_nothing() {
    lab!("nc.openbsd", "tc", "ss");
    for guard in GUARDS {
        for role in ["connect", "listen"] {
            let pair = Pair::new();
            let before = traces(&pair.host);
            for signal in [Signal::SIGINT, Signal::SIGTERM] {
                let (netkat, server) = running(&pair, role, &format!("--guard {guard}"));
                assert_ne!(traces(&pair.host), before, "there is something to see while it runs");
                netkat.signal(signal);
                let ended = netkat.wait(Duration::from_secs(5));
                assert_eq!(ended.signal(), Some(signal as i32), "{guard}, {role}: {ended}");
                assert_eq!(traces(&pair.host), before, "{guard}, {role}, {signal}");
                drop(server);
            }
        }
    }
}

#[test]
fn a_normal_exit_leaves_nothing() {
    lab!("nc.openbsd", "tc", "ss");
    for guard in GUARDS {
        let pair = Pair::new();
        let before = traces(&pair.host);
        let (mut netkat, server) = running(&pair, "connect", &format!("--guard {guard}"));
        drop(server);
        netkat.close_stdin();
        assert_eq!(netkat.wait(Duration::from_secs(5)).code(), Some(0));
        assert_eq!(traces(&pair.host), before, "{guard}");
    }
}

/// Returns moments at which to kill (SplitMix64).
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Kills a netkat at this moment of its life: start-up, dialing, transfer.
fn kill_at_random(pair: &Pair, guard: &str, n: u64) {
    let out = Payload::large();
    let (here, there) = (pair.host_address(Family::V4), pair.peer_address(Family::V4));
    let line = match n % 3 {
        0 => format!("--guard {guard} {there} 5000"),
        1 => format!("--guard {guard} -l {here} 5000"),
        // IPv4 over lo takes a program.
        _ => format!("--guard {guard} -l ::1 5000"),
    };
    let netkat = netkat(&pair.host, &line).input(out.input()).spawn();
    sleep(Duration::from_micros(random(n) % 60_000));
    netkat.signal(Signal::SIGKILL);
    netkat.wait(Duration::from_secs(5));
}

#[test]
fn fifty_kills_leave_nothing_that_the_kernel_undoes() {
    lab!("ncat", "tc", "ss");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let before = traces(&pair.host);
    let mut sink =
        pair.peer.command("ncat").args(["-l", "-k", "--recv-only", &at.to_string(), "5000"]).spawn();
    sink.wait_listening(5000);
    for n in 0..50 {
        kill_at_random(&pair, ["tcx", "nft"][n as usize % 2], n);
        // The kernel frees a dead process's last references a little after its parent has learned
        // of the end.
        settles(|| traces(&pair.host) == before, || format!("kill {n} left\n{}", traces(&pair.host)));
    }
}

#[test]
fn the_next_start_removes_what_a_killed_listener_left_at_clsact() {
    lab!("tc", "ss");
    let pair = Pair::new();
    let before = traces(&pair.host);
    for at in ["10.77.0.1", "127.0.0.1"] {
        let listener = listening(&pair.host, &format!("--guard clsact {at} 5000"), |c| c);
        listener.signal(Signal::SIGKILL);
        listener.wait(Duration::from_secs(5));
        assert!(host_filters(&pair.host).contains("netkat"), "clsact filters outlive their process");
        listening(&pair.host, &format!("--guard clsact {at} 5001"), |c| c).terminate();
        settles(|| traces(&pair.host) == before, || format!("{at}: left\n{}", traces(&pair.host)));
    }
}

#[test]
fn kills_leave_only_inert_filters_at_clsact_and_the_next_start_removes_them() {
    lab!("ncat", "nc.openbsd", "tc", "ss");
    let pair = Pair::new();
    let (here, there) = (pair.host_address(Family::V4), pair.peer_address(Family::V4));
    let before = traces(&pair.host);
    let mut sink =
        pair.peer.command("ncat").args(["-l", "-k", "--recv-only", &there.to_string(), "5000"]).spawn();
    sink.wait_listening(5000);
    for n in 50..62 {
        kill_at_random(&pair, "clsact", n);
    }
    // A kill that surely leaves the filter.
    let listener = listening(&pair.host, &format!("--guard clsact {here} 6000"), |c| c);
    listener.signal(Signal::SIGKILL);
    listener.wait(Duration::from_secs(5));
    assert!(host_filters(&pair.host).contains("netkat"), "clsact filters outlive their process");
    // The port serves the kernel again.
    let _server = Netcat::OpenBsd.listen(&pair.host, here, 6000, |c| c);
    let deadline = Instant::now() + Duration::from_secs(3);
    while !kernel_connects(&pair.peer, here, 6000) {
        assert!(Instant::now() < deadline, "a dead netkat's filter still blackholes its port");
    }
    drop(_server);
    // The next start removes leftovers, on eth0 and on lo.
    for at in [here.to_string(), "127.0.0.1".to_owned()] {
        let next = listening(&pair.host, &format!("--guard clsact {at} 6001"), |c| c);
        next.terminate();
    }
    drop(sink);
    settles(|| !host_filters(&pair.host).contains("netkat"), || host_filters(&pair.host));
    // A kill between making the qdisc and adding the filter leaves an empty qdisc, whose owner is
    // unknown. The kernel's own server may have left its connection in TIME-WAIT.
    let foreign = |line: &&str| !line.contains("qdisc clsact") && !line.contains("TIME-WAIT");
    let listing = |text: &str| text.lines().filter(foreign).collect::<Vec<_>>().join("\n");
    settles(
        || listing(&traces(&pair.host)) == listing(&before),
        || format!("left:\n{}\nbefore:\n{before}", traces(&pair.host)),
    );
}

fn host_filters(host: &Namespace) -> String {
    ["eth0 ingress", "eth0 egress", "lo ingress", "lo egress"]
        .iter()
        .map(|place| host.words(&format!("tc filter show dev {place}")).run().text())
        .collect()
}

#[test]
fn an_interface_that_goes_mid_transfer_is_an_error() {
    lab!("nc.openbsd");
    for guard in GUARDS {
        for role in ["connect", "listen"] {
            let pair = Pair::new();
            let (mut netkat, mut server) = running(&pair, role, &format!("--guard {guard}"));
            if role == "listen" {
                let at = pair.host_address(Family::V4);
                server = Some(Netcat::OpenBsd.connect(&pair.peer, at, 5000).input(Input::Open).spawn());
                netkat.wait_for_stderr("established");
            }
            netkat.write(&vec![7; MIB as usize]);
            pair.host.ip("link delete eth0");
            let ended = netkat.wait(Duration::from_secs(5));
            assert_eq!(ended.code(), Some(1), "{guard}, {role}: {ended}");
            assert!(ended.stderr.contains("eth0"), "{ended}");
            drop(server);
        }
    }
}

/// Returns the CPU time of a process so far, in clock ticks of 10 ms (man 5 proc).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living process");
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_netkat_that_waits_does_not_spin() {
    lab!("nc.openbsd");
    for guard in GUARDS {
        for role in ["connect", "listen"] {
            let pair = Pair::new();
            let (netkat, _server) = running(&pair, role, &format!("--guard {guard}"));
            let before = ticks(netkat.id());
            sleep(Duration::from_millis(500));
            let spent = ticks(netkat.id()) - before;
            assert!(spent <= 5, "{guard}, {role}: {spent} ticks in half a second");
        }
    }
}

#[test]
fn the_peers_end_closes_standard_output_while_input_goes_on() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.text("hello\n"));
    // cat ends when netkat's output does, and netkat's input ends only then.
    let pipeline =
        "f=$(mktemp -u); mkfifo $f; \"$0\" \"$@\" <$f | (cat; echo over) | tee $f >/dev/null; rm -f $f";
    let output = pair
        .host
        .command("sh")
        .args(["-c", pipeline, env!("CARGO_BIN_EXE_netkat"), &at.to_string(), "5000"])
        .deadline(Duration::from_secs(10))
        .run();
    assert_eq!(output.code(), Some(0), "{output}");
    drop(server);
}
