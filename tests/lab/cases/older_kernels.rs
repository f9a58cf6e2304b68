//! Features that older kernels lack, switched off on this one: netkat falls back as it does there.
use crate::support::{
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Input, Output},
    programs::{self, Direction, TC_ACT_OK, TC_ACT_UNSPEC},
    requirements::lab,
    topology::{Family, Pair},
    traces::{settles, traces},
    witness::Witness,
};
use nix::sys::signal::Signal;
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Features that are switched off, and netkat's line about it.
const LACKING: [(&str, &str); 5] = [
    ("netfilter", "(Tcx)"),
    ("netfilter,tcx", "(Clsact)"),
    ("netfilter,before", "no position at tcx of eth0: First"),
    ("vnet-header", "no virtio-net header for packet sockets: no offloads"),
    ("netfilter,tcx,before,vnet-header", "(Clsact)"),
];

/// Checks that every byte came, that nothing else went wrong, and that the guard dropped our
/// packets for the kernel.
fn succeeded(netkat: &Output, received: &Payload, says: &str) {
    netkat.check(received);
    assert_eq!(netkat.code(), Some(0), "{netkat}");
    assert!(netkat.stderr.contains(says), "{netkat}");
    let report = netkat.stderr.lines().last().expect("a report");
    let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
    assert!(report["guard_dropped_packets"].as_u64().is_some_and(|packets| packets > 2), "{report}");
}

#[test]
fn what_an_older_kernel_lacks_is_done_without() {
    lab!("nc.openbsd", "socat", "tcpdump", "tc", "ss");
    let (out, back) = (Payload::new(40, 2 * MIB), Payload::new(41, 2 * MIB));
    for (missing, says) in LACKING {
        let pair = Pair::new();
        let before = traces(&pair.host);
        let witness = Witness::of_resets_and_errors(&pair.peer, 5000);
        let options = format!("-v --json --without {missing}");
        for family in Family::ALL {
            let at = pair.peer_address(family);
            let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()).expect(&out));
            let client =
                netkat(&pair.host, &format!("-v {options} {at} 5000")).input(out.input()).expect(&back);
            succeeded(&client.run(), &back, says);
            server.wait(DEADLINE).check(&out);

            let at = pair.host_address(family);
            let server = listening(&pair.host, &format!("{options} {at} 5000"), |c| {
                c.input(out.input()).expect(&back)
            });
            assert_ne!(traces(&pair.host), before, "{missing}: there is something to see while it runs");
            Netcat::Socat.connect(&pair.peer, at, 5000).input(back.input()).expect(&out).run().check(&out);
            succeeded(&server.wait(DEADLINE), &back, says);
            settles(
                || traces(&pair.host) == before,
                || format!("{missing}, {family:?}: {}", traces(&pair.host)),
            );
        }
        witness.saw_nothing();
    }
}

/// UDP uses the same guard; lo needs a second program.
#[test]
fn datagrams_and_loopback_do_without_it_too() {
    lab!("nc.openbsd", "tc", "ss");
    for (missing, _) in LACKING {
        let pair = Pair::new();
        let before = traces(&pair.host);
        let server =
            Netcat::OpenBsd.listen(&pair.host, "127.0.0.1".parse().expect("lo"), 5000, |c| c.text("b"));
        let client = netkat(&pair.host, &format!("--without {missing} 127.0.0.1 5000")).text("a").run();
        assert_eq!((client.code(), client.text().as_str()), (Some(0), "b"), "{missing}: {client}");
        assert_eq!(server.wait(DEADLINE).text(), "a", "{missing}");

        let at = pair.host_address(Family::V6);
        let mut server = listening(&pair.host, &format!("-u --without {missing} {at} 5000"), |c| c);
        pair.peer.words(&format!("nc.openbsd -u -q 0 {at} 5000")).text("datagram").run();
        server.wait_for_stdout("datagram");
        server.terminate();
        // Except for the remains of the kernel's own socket.
        let after: String =
            traces(&pair.host).split_inclusive('\n').filter(|line| !line.contains("TIME-WAIT")).collect();
        assert_eq!(after, before, "{missing}: nothing is left");
    }
}

/// Behind a program that lets every packet pass the guard has no effect: the lease keeps the kernel
/// silent, and the log names the program.
#[test]
fn without_a_place_in_front_the_guard_is_behind_others_and_says_so() {
    lab!("nc.openbsd", "socat", "tcpdump");
    let pair = Pair::new();
    for (verdict, harmless) in [(TC_ACT_UNSPEC, true), (TC_ACT_OK, false)] {
        let first = programs::classifier("lab_first", verdict);
        let Some(_link) = programs::attach_tcx(&first, &pair.host, "eth0", Direction::Ingress) else {
            return;
        };
        let theirs = programs::tcx_programs(&pair.host, "eth0", Direction::Ingress);
        let witness = Witness::of_resets_and_errors(&pair.peer, 5000);
        let at = pair.peer_address(Family::V4);
        let mut server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(Input::Open));
        let mut client =
            netkat(&pair.host, &format!("-v --without before {at} 5000")).input(Input::Open).spawn();
        client.wait_for_stderr("established");
        let during = programs::tcx_programs(&pair.host, "eth0", Direction::Ingress);
        assert_eq!((during.len(), &during[..1]), (2, &theirs[..]), "the guard is there, as the last");
        if !harmless {
            for _ in 0..20 {
                client.write(b"something to acknowledge");
            }
            client.wait_for_stderr("lab_first, ahead of the guard, lets our packets reach the kernel");
        }
        client.close_stdin();
        server.close_stdin();
        assert_eq!(client.wait(DEADLINE).code(), Some(0));
        witness.saw_nothing();
        let left = || programs::tcx_programs(&pair.host, "eth0", Direction::Ingress);
        settles(|| left() == theirs, || format!("left: {:?}", left()));
    }
}

#[test]
fn what_is_demanded_and_missing_is_an_error() {
    lab!();
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let refused = netkat(&pair.host, &format!("--guard tcx --without tcx {at} 5000")).run();
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("this kernel does not have it"), "{refused}");
}

#[test]
fn a_sniffer_does_without_the_virtio_net_header() {
    lab!("socat");
    let pair = Pair::new();
    let line = "-vv --sniff -i eth0 --tcp --count 5 --without vnet-header";
    let mut sniffer = netkat(&pair.host, line).spawn();
    sniffer.wait_for_stderr("listening on");
    let (at, out) = (pair.peer_address(Family::V4), Payload::short());
    let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.expect(&out));
    Netcat::Socat.connect(&pair.host, at, 5000).input(out.input()).succeed();
    server.wait(DEADLINE).check(&out);
    let seen = sniffer.wait(DEADLINE);
    assert_eq!(seen.code(), Some(0), "{seen}");
    assert!(seen.stderr.contains("no virtio-net header"), "{seen}");
    assert!(seen.text().contains(&format!("{at}")), "{seen}");
}

/// Before Linux 5.12 tables have no owner: netkat keeps its rules active, and a killed netkat's
/// rules soon match nothing.
#[test]
fn rules_without_an_owner_match_nothing_after_a_kill() {
    lab!("nc.openbsd", "nft", "tcpdump");
    let tables = |pair: &Pair| pair.host.run("nft list tables").text();
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.host_address(family);
        let line = format!("-k --guard nft --without owner --exec cat {at} 5000");
        let listener = listening(&pair.host, &line, |c| c.input(Input::Null));
        // Longer than the rules stay active by themselves.
        sleep(Duration::from_millis(1500));
        let witness = Witness::of_resets_and_errors(&pair.peer, 5000);
        let out = Payload::short();
        let client =
            Netcat::OpenBsd.connect(&pair.peer, at, 5000).args(["-q", "1"]).input(out.input()).expect(&out);
        client.run().check(&out);
        witness.saw_nothing();

        listener.signal(Signal::SIGKILL);
        listener.wait(DEADLINE);
        assert!(tables(&pair).contains("netkat-guard-"), "{}", tables(&pair));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !pair.peer.words(&format!("nc.openbsd -z -v -w 1 {at} 5000")).run().stderr.contains("refused") {
            assert!(Instant::now() < deadline, "the dead netkat's rules still drop");
        }
        let next = listening(&pair.host, &format!("--guard nft --without owner {at} 5001"), |c| c);
        assert_eq!(tables(&pair).matches("netkat-guard-").count(), 1, "{}", tables(&pair));
        next.terminate();
        assert_eq!(tables(&pair).matches("netkat-guard-").count(), 0, "{}", tables(&pair));
    }
}
