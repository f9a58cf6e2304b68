//! The lab's own instruments, checked with the kernel at both ends: peers that talk, rules that
//! stop, a link emulator that loses as told.
use crate::support::{
    payload::{MIB, Payload},
    peers::Netcat,
    process::DEADLINE,
    requirements::lab,
    topology::{Family, Pair, offloads_off},
};

fn transfer(pair: &Pair, family: Family, netcat: Netcat, payload: &Payload) {
    let back = Payload::short();
    let at = pair.peer_address(family);
    let server = netcat.listen(&pair.peer, at, 5000, |c| c.expect(payload).input(back.input()));
    let client = netcat.connect(&pair.host, at, 5000).input(payload.input()).expect(&back).run();
    client.check(&back);
    server.wait(DEADLINE).check(payload);
}

#[test]
fn the_kernels_netcats_exchange_payloads() {
    lab!("nc.openbsd", "ncat", "socat");
    let pair = Pair::new();
    for family in Family::ALL {
        for netcat in Netcat::ALL {
            transfer(&pair, family, netcat, &Payload::short());
            transfer(&pair, family, netcat, &Payload::new(2, 8 * MIB));
        }
    }
}

#[test]
fn an_impaired_path_delivers_what_tcp_repairs() {
    lab!("nc.openbsd", "ethtool");
    let impairments = "--both loss=1%,delay=1ms,jitter=1ms,reorder=2%,duplicate=1%";
    let payload = Payload::new(2, 8 * MIB);
    for (family, offloads) in [(Family::V4, false), (Family::V4, true), (Family::V6, true)] {
        let pair = Pair::over(impairments);
        if !offloads {
            offloads_off(&pair.host, "eth0");
            offloads_off(&pair.peer, "eth0");
        }
        transfer(&pair, family, Netcat::OpenBsd, &payload);
        let counts = pair.finish();
        for counter in ["lost", "duplicated", "overtaken"] {
            assert!(!counts.contains(&format!("{counter}: 0,")), "{counts}");
        }
        // The emulator counts segments, not super-frames.
        assert!(offered(&counts) >= payload.length() / 1448, "{counts}");
    }
}

/// Returns the count of arrived packets in the first direction.
fn offered(counts: &str) -> u64 {
    let count = counts.split("offered: ").nth(1).and_then(|c| c.split(',').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no count in {counts}"))
}

#[test]
fn an_unimpaired_path_passes_large_segments_whole() {
    lab!("nc.openbsd");
    let pair = Pair::over("");
    let payload = Payload::large();
    transfer(&pair, Family::V6, Netcat::OpenBsd, &payload);
    let counts = pair.finish();
    let frames_of_an_mtu = payload.length() / 1440;
    assert!(offered(&counts) < frames_of_an_mtu / 4, "{frames_of_an_mtu} against {counts}");
}

#[test]
fn an_emulated_delay_is_the_round_trip_time() {
    lab!("nc.openbsd", "ss");
    let pair = Pair::over("--both delay=25ms");
    let at = pair.peer_address(Family::V4);
    let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c);
    let started = std::time::Instant::now();
    Netcat::OpenBsd.connect(&pair.host, at, 5000).text("x").run();
    let elapsed = started.elapsed().as_millis();
    // A handshake and the FINs: two round trips of 50 ms.
    assert!((100..3000).contains(&elapsed), "{elapsed} ms");
    server.wait(DEADLINE);
}
