//! The interfaces and their addresses.

use std::time::Duration;

use netkat::{
    host::{
        interface::{self, Framing, Interface, InterfaceError},
        neighbour::NeighbourError,
        route::Query,
    },
    net::MacAddr,
};

use crate::lab::{Lab, address, to};

#[test]
fn interfaces_are_described() {
    let Some(lab) = Lab::new() else { return };
    lab.us("link add br0 type bridge");
    lab.us("link set eth1 master br0");
    lab.us("link set eth0 mtu 1400 gso_max_size 40000 gso_max_segs 20");
    let all = lab.inside(interface::all).expect("all");
    let named = |name: &str| all.iter().find(|interface| interface.name == name).expect(name);
    let (lo, eth0, eth1, br0) = (named("lo"), named("eth0"), named("eth1"), named("br0"));
    assert_eq!((lo.framing().expect("lo"), lo.loopback, lo.mtu), (Framing::Loopback, true, 65536));
    assert_eq!(eth0.framing().expect("eth0"), Framing::Ethernet);
    assert_eq!((eth0.mtu, eth0.gso_max_size, eth0.gso_max_segs), (1400, 40000, 20));
    assert_eq!(eth0.mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
    assert!(eth0.up && eth0.running && !eth0.loopback && !eth0.no_arp);
    assert_eq!(eth1.master, Some(br0.index));
    assert_eq!((eth0.kind.as_deref(), br0.kind.as_deref(), &lo.kind), (Some("veth"), Some("bridge"), &None));
    assert!(!br0.up);
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    let Some(lab) = Lab::new() else { return };
    let error = lab.inside(|| interface::by_name("eth7")).expect_err("not there").to_string();
    let present = error.strip_prefix("there is no interface \"eth7\" here; there are: ").expect(&error);
    // Some kernels put tunnel devices into each namespace, so there may be more.
    for name in ["lo", "eth0", "eth1"] {
        assert!(present.split(", ").any(|there| there == name), "{name}: {error}");
    }
    for name in ["", "a-name-that-is-longer-than-any"] {
        let error = lab.inside(|| interface::by_name(name)).expect_err(name);
        assert!(matches!(error, InterfaceError::UnknownName { .. }), "{error}");
    }
    assert!(matches!(
        lab.inside(|| interface::by_index(9999)),
        Err(InterfaceError::UnknownIndex { index: 9999, .. })
    ));
}

#[test]
fn strange_hardware_is_refused_by_name() {
    let Some(lab) = Lab::new() else { return };
    let eth0 = lab.inside(|| interface::by_name("eth0")).expect("eth0");
    for (hardware, kind) in [(32, "infiniband"), (801, "ieee80211"), (778, "ipgre")] {
        let strange = Interface { hardware, ..eth0.clone() };
        let error = strange.framing().expect_err(kind).to_string();
        let start = format!("interface eth0 is of hardware type {hardware} ({kind}), whose frames");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn tun_devices_have_no_link_header_and_no_next_hop() {
    let Some(lab) = Lab::new() else { return };
    lab.us("tuntap add tun0 mode tun");
    lab.us("addr add 10.8.0.1 peer 10.8.0.2 dev tun0");
    lab.us("link set tun0 up");
    let tun = lab.inside(|| interface::by_name("tun0")).expect("tun0");
    assert_eq!(tun.framing().expect("framing"), Framing::None);
    assert_eq!((tun.mac, tun.kind.as_deref()), (None, Some("tun")));
    assert!(tun.no_arp);
    let route = lab.route("10.8.0.2");
    assert_eq!((route.interface, route.source), (tun.index, address("10.8.0.1")));
    // No next hop: none is invented when the user insists on the interface.
    let bound = lab.lookup(&Query { interface: Some(tun.index), ..to("192.0.2.1") }).expect("through tun0");
    assert_eq!((bound.interface, bound.source), (tun.index, address("10.8.0.1")));
    let error = lab.resolve("tun0", "10.8.0.2", Duration::from_secs(2)).expect_err("no link addresses");
    assert!(matches!(error, NeighbourError::NoLinkAddress { .. }), "{error}");
}

#[test]
fn addresses_tell_their_state() {
    let Some(lab) = Lab::new() else { return };
    lab.us("-6 addr add 2001:db8:0::7/64 dev eth0 nodad preferred_lft 0");
    lab.us("-6 addr add 2001:db8:0::8/64 dev eth0");
    let eth0 = lab.index("eth0");
    let (one, all) = lab.inside(|| (interface::addresses(Some(eth0)), interface::addresses(None)));
    let (one, all) = (one.expect("eth0"), all.expect("all"));
    assert!(one.iter().all(|address| address.interface == eth0));
    let find = |ip: &str| one.iter().find(|known| known.ip == address(ip)).unwrap_or_else(|| panic!("{ip}"));
    assert_eq!(find("10.0.0.1").prefix, 24);
    assert!(find("2001:db8:0::7").deprecated && !find("2001:db8:0::1").deprecated);
    assert!(find("2001:db8:0::7").usable() && !find("2001:db8:0::8").usable());
    assert!(all.iter().any(|known| known.ip == address("127.0.0.1")));
    assert!(all.len() > one.len());
}

#[test]
fn a_source_is_chosen_without_a_route() {
    let Some(lab) = Lab::new() else { return };
    lab.us("addr add 172.18.0.9/16 dev eth0");
    lab.us("-6 addr add 2001:db8:5::9/64 dev eth0 nodad preferred_lft 0");
    lab.us("-6 addr add fe80::9/64 dev eth0 nodad");
    let source = |name: &str, peer: &str| {
        let index = lab.index(name);
        lab.inside(|| interface::source_towards(index, address(peer))).expect("readable")
    };
    for (peer, ours) in [
        ("10.0.0.2", "10.0.0.1"),
        ("172.18.3.4", "172.18.0.9"),
        ("192.0.2.1", "10.0.0.1"),
        ("2001:db8:0::2", "2001:db8:0::1"),
        ("2001:db8:5::2", "2001:db8:5::9"),
        ("2001:db8:77::2", "2001:db8:0::1"),
    ] {
        assert_eq!(source("eth0", peer), Some(address(ours)), "{peer}");
    }
    let link_local = source("eth0", "fe80::2").expect("link-local");
    assert!(link_local.to_string().starts_with("fe80::"), "{link_local}");
    lab.us("addr flush dev eth1 scope global");
    assert_eq!(source("eth1", "10.1.0.2"), None);
}
