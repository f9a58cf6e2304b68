//! The programs stay small: the verifier of an old kernel gives up on large ones, and every packet of the
//! interface pays for each instruction.

use crate::{
    filters::listener,
    run::{instructions, is_root, load},
};
use netkat::{
    kernel::{FlowFilter, MAX_LOCAL_ADDRESSES, Programs},
    net::Protocol,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::BorrowedFd,
};

fn flow(local_addresses: Vec<IpAddr>) -> FlowFilter {
    FlowFilter { neighbour_discovery: true, ..listener(Protocol::Tcp, local_addresses, 8080) }
}

fn addresses(count: usize) -> Vec<IpAddr> {
    let v4 = (0..count).map(|i| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0001 + i as u32)));
    let v6 = (0..count).map(|i| IpAddr::from(Ipv6Addr::from_bits(0xfd00 << 112 | (i as u128 + 1))));
    v4.chain(v6).collect()
}

#[test]
fn programs_stay_small() {
    if !is_root() {
        return;
    }
    // Bounds are about a third above the measured sizes (clang 14, Linux 6.1, 6.12 and 6.18).
    let one = || vec![IpAddr::from([10, 0, 0, 1])];
    let all = || addresses(MAX_LOCAL_ADDRESSES);
    let cases = [
        ("one IPv4 address", one(), 0, [320, 190, 190], [620, 260, 300]),
        ("all addresses", all(), 0, [1_860, 880, 210], [4_000, 2_030, 330]),
        ("a flow table", one(), 1000, [610, 440, 190], [800, 560, 300]),
        ("all addresses and a flow table", all(), 1000, [2_200, 1_220, 210], [4_450, 2_460, 330]),
    ];
    for (name, local, table, translated, verified) in cases {
        let programs = load(&FlowFilter { table, ..flow(local) });
        let fds = [programs.capture_fd(), programs.guard_fd(), programs.loopback_fd().unwrap()];
        check(name, fds, translated, verified);
    }
    for (near, far, translated, verified) in
        [("10.0.0.1", "10.0.0.2", [310, 130], [435, 156]), ("fd00::1", "fd00::2", [1_510, 700], [3_330, 985])]
    {
        let filter = listener(Protocol::Tcp, vec![near.parse().unwrap()], 8080);
        let peer = (Some(far.parse().unwrap()), Some(80));
        let filter = FlowFilter { remote_address: peer.0, remote_port: peer.1, ..filter };
        let programs = Programs::load_for_netfilter(&filter).unwrap();
        let fds = [programs.capture_fd(), programs.guard_fd()];
        check(&format!("the connection to {far}"), fds, translated, verified);
    }
}

fn check<const N: usize>(name: &str, programs: [BorrowedFd; N], translated: [u32; N], verified: [u32; N]) {
    for ((fd, translated), verified) in programs.into_iter().zip(translated).zip(verified) {
        let used = instructions(fd);
        eprintln!("{name}: {used:?}");
        assert!(used.translated <= translated, "{name}: {used:?} > {translated}");
        assert!(used.verified <= verified, "{name}: {used:?} > {verified}");
    }
}
