//! The link addresses of next hops.

use std::time::{Duration, Instant};

use netkat::{
    host::{
        neighbour::{self, NeighbourError, NeighbourState},
        route,
    },
    net::MacAddr,
    process::capability,
};

use crate::lab::{Lab, address, set, to};

#[test]
fn known_neighbours_answer_at_once() {
    let Some(lab) = Lab::new() else { return };
    lab.us("neigh add 10.0.0.66 lladdr 02:00:00:00:00:66 dev eth0 nud permanent");
    lab.us("neigh add 10.0.0.67 lladdr 02:00:00:00:00:67 dev eth0 nud stale");
    for (neighbour, mac) in [("10.0.0.66", "02:00:00:00:00:66"), ("10.0.0.67", "02:00:00:00:00:67")] {
        let found = lab.resolve("eth0", neighbour, Duration::ZERO).expect(neighbour);
        assert_eq!(found.to_string(), mac);
    }
    let eth0 = lab.index("eth0");
    let state = |neighbour| {
        lab.inside(|| neighbour::lookup(eth0, address(neighbour))).expect("read").map(|entry| entry.state)
    };
    assert_eq!(state("10.0.0.66"), Some(NeighbourState::Permanent), "resolving must not make it perishable");
    assert_eq!(state("10.0.0.67"), Some(NeighbourState::Delay), "the kernel was not made to verify it");
    assert_eq!(state("10.0.0.99"), None);
}

#[test]
fn unknown_neighbours_are_asked() {
    let Some(lab) = Lab::new() else { return };
    for (name, neighbour) in [("eth0", "10.0.0.2"), ("eth1", "10.1.0.2"), ("eth0", "2001:db8:0::2")] {
        let mac = lab.resolve(name, neighbour, Duration::from_secs(3)).expect(neighbour);
        assert_eq!(mac, MacAddr([2, 0, 0, 0, u8::from(name == "eth1"), 2]), "{neighbour}");
    }
}

#[test]
fn a_neighbour_that_fails_is_named() {
    let Some(lab) = Lab::new() else { return };
    lab.inside(|| {
        set("ipv4.neigh.eth0.retrans_time_ms", "50");
        set("ipv6.neigh.eth0.retrans_time_ms", "50");
    });
    for (neighbour, protocol) in [("10.0.0.9", "ARP"), ("2001:db8::9", "neighbour discovery")] {
        // The second attempt finds a failed entry of the first, which must not be the answer at
        // once.
        for _ in 0..2 {
            let started = Instant::now();
            let error = lab.resolve("eth0", neighbour, Duration::from_secs(10)).expect_err("nobody there");
            let said = format!("no neighbour: {neighbour} did not answer {protocol} on eth0;");
            assert!(error.to_string().starts_with(&said), "{error}");
            assert!(started.elapsed() >= Duration::from_millis(100), "asked nobody");
            assert!(started.elapsed() < Duration::from_secs(5), "waited too long");
        }
    }
    // The neighbour comes up meanwhile.
    lab.peer("addr add 10.0.0.9/24 dev eth0");
    lab.resolve("eth0", "10.0.0.9", Duration::from_secs(3)).expect("there now");
}

#[test]
fn the_deadline_holds() {
    let Some(lab) = Lab::new() else { return };
    let started = Instant::now();
    let error = lab.resolve("eth0", "10.0.0.9", Duration::from_millis(200)).expect_err("nobody there");
    assert!(matches!(error, NeighbourError::TimedOut { .. }), "{error}");
    assert!((200..2000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

#[test]
fn an_interface_that_is_down_is_named() {
    let Some(lab) = Lab::new() else { return };
    lab.us("link set eth0 down");
    let error = lab.resolve("eth0", "10.0.0.2", Duration::from_secs(2)).expect_err("link down");
    assert!(matches!(error, NeighbourError::InterfaceDown { .. }), "{error}");
}

#[test]
fn devices_without_arp_have_neighbours_without_asking() {
    let Some(lab) = Lab::new() else { return };
    lab.us("link set eth0 arp off");
    let started = Instant::now();
    let mac = lab.resolve("eth0", "10.0.0.9", Duration::from_secs(2)).expect("needs no answer");
    // As in the kernel: the device's own address (arp_constructor in net/ipv4/arp.c).
    assert_eq!(mac.to_string(), "02:00:00:00:00:01");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn only_asking_the_segment_takes_a_privilege() {
    let Some(lab) = Lab::new() else { return };
    let eth0 = lab.index("eth0");
    let (route, before, refused) = lab.inside(|| {
        capability::drop_all(&[]).expect("dropped");
        (
            route::lookup(&to("10.0.0.2")),
            neighbour::lookup(eth0, address("10.0.0.2")),
            neighbour::resolve(eth0, address("10.0.0.2"), Duration::from_secs(1)),
        )
    });
    assert_eq!(route.expect("route").interface, eth0);
    assert_eq!(before.expect("readable"), None);
    let error = refused.expect_err("needs CAP_NET_ADMIN");
    assert!(matches!(error, NeighbourError::NotPermitted { .. }), "{error}");
    assert!(error.to_string().contains("needs CAP_NET_ADMIN"), "{error}");
    // A privileged process has it resolved; then an unprivileged one may learn it.
    lab.resolve("eth0", "10.0.0.2", Duration::from_secs(3)).expect("resolved");
    let known = lab.inside(|| {
        capability::drop_all(&[]).expect("dropped");
        neighbour::resolve(eth0, address("10.0.0.2"), Duration::ZERO)
    });
    assert_eq!(known.expect("known").to_string(), "02:00:00:00:00:02");
}
