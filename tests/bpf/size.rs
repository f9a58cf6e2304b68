//! The programs stay small: the verifier of an old kernel gives up on large ones, and every packet of the
//! interface pays for each instruction.

use crate::{
    filters::listener,
    run::{instructions, is_root, load},
};
use netkat::{
    kernel::{FlowFilter, MAX_LOCAL_ADDRESSES},
    net::Protocol,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
        ("one IPv4 address", one(), 0, [320, 190, 190], [440, 260, 300]),
        ("all addresses", all(), 0, [3_800, 2_900, 1_150], [9_000, 9_000, 1_200]),
        ("a flow table", one(), 1000, [610, 440, 190], [800, 560, 300]),
        ("all addresses and a flow table", all(), 1000, [4_200, 3_200, 1_150], [9_600, 9_600, 1_200]),
    ];
    for (name, local, table, translated, verified) in cases {
        let programs = load(&FlowFilter { table, ..flow(local) });
        let fds = [programs.capture_fd(), programs.guard_fd(), programs.loopback_fd().unwrap()];
        for ((fd, translated), verified) in fds.into_iter().zip(translated).zip(verified) {
            let used = instructions(fd);
            eprintln!("{name}: {used:?}");
            assert!(used.translated <= translated, "{name}: {used:?} > {translated}");
            assert!(used.verified <= verified, "{name}: {used:?} > {verified}");
        }
    }
}
