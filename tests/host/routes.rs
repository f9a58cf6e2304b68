//! Routes of flows, and reasons for having none.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use netkat::{
    host::{
        interface,
        metrics::Metrics,
        resolve::{self, Family, Names},
        route::{Kind, Query, RouteError},
    },
    net::Protocol,
};

use crate::lab::{Lab, address, set, skipped, to};

#[test]
fn a_neighbour_on_the_link_is_its_own_next_hop() {
    let Some(lab) = Lab::new() else { return };
    for (destination, source) in [("10.0.0.2", "10.0.0.1"), ("2001:db8:0::2", "2001:db8:0::1")] {
        let route = lab.route(destination);
        assert_eq!(route.kind, Kind::Unicast);
        assert_eq!(route.interface, lab.index("eth0"));
        assert_eq!(route.source, address(source));
        assert_eq!(route.gateway, None);
        assert_eq!(route.next_hop(), address(destination));
        assert_eq!((route.mtu, route.metrics.hop_limit), (1500, None));
    }
}

#[test]
fn gateways_metrics_and_preferred_sources_come_from_the_route() {
    let Some(lab) = Lab::new() else { return };
    lab.us("addr add 10.1.0.77/24 dev eth1");
    let metrics = "mtu 1300 hoplimit 7 advmss 700 initcwnd 30 rto_min 50ms congctl cubic";
    lab.us(&format!("route add default via 10.1.0.2 src 10.1.0.77 {metrics}"));
    lab.us("-6 addr add 2001:db8:1::77/64 dev eth1 nodad");
    lab.us(&format!("-6 route add default via 2001:db8:1::2 src 2001:db8:1::77 {metrics}"));
    for (destination, source, gateway) in
        [("192.0.2.9", "10.1.0.77", "10.1.0.2"), ("2001:db8:99::9", "2001:db8:1::77", "2001:db8:1::2")]
    {
        let route = lab.route(destination);
        assert_eq!(route.interface, lab.index("eth1"));
        assert_eq!(route.source, address(source));
        assert_eq!(route.gateway, Some(address(gateway)));
        assert_eq!(route.next_hop(), address(gateway));
        let expected = Metrics {
            mtu: Some(1300),
            advertised_mss: Some(700),
            hop_limit: Some(7),
            initial_window: Some(30),
            rto_min: Some(Duration::from_millis(50)),
            congestion_control: "cubic".parse().ok(),
        };
        assert_eq!((route.mtu, route.metrics), (1300, expected));
    }
}

#[test]
fn a_gateway_outside_the_subnet_works() {
    let Some(lab) = Lab::new() else { return };
    // A pod as Calico sets it up.
    lab.us("addr flush dev eth0 scope global");
    lab.us("addr add 10.244.1.7/32 dev eth0");
    lab.us("route add 169.254.1.1 dev eth0 scope link");
    lab.us("route add default via 169.254.1.1 dev eth0 onlink");
    lab.peer("addr add 169.254.1.1/32 dev eth0");
    lab.peer("route add 10.244.1.7 dev eth0");
    let route = lab.route("10.96.0.1");
    assert_eq!(route.source, address("10.244.1.7"));
    assert_eq!(route.gateway, Some(address("169.254.1.1")));
    let mac = lab.resolve("eth0", "169.254.1.1", Duration::from_secs(3)).expect("resolved");
    assert_eq!(mac.to_string(), "02:00:00:00:00:02");
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let Some(lab) = Lab::new() else { return };
    lab.us("route add 192.0.2.0/24 via inet6 2001:db8:0::2 dev eth0");
    let route = lab.route("192.0.2.1");
    assert_eq!(route.source, address("10.0.0.1"));
    assert_eq!(route.gateway, Some(address("2001:db8:0::2")));
    let mac = lab.resolve("eth0", "2001:db8:0::2", Duration::from_secs(3)).expect("resolved");
    assert_eq!(mac.to_string(), "02:00:00:00:00:02");
}

#[test]
fn refusals_are_told_apart() {
    let Some(lab) = Lab::new() else { return };
    for (kind, v4, v6) in [
        ("unreachable", "192.0.2.1", "2001:db8:91::1"),
        ("prohibit", "192.0.2.2", "2001:db8:92::1"),
        ("blackhole", "192.0.2.3", "2001:db8:93::1"),
    ] {
        for destination in [v4, v6] {
            lab.us(&format!("route add {kind} {destination}"));
            let error = lab.refusal(&to(destination));
            let right = match kind {
                "unreachable" => matches!(error, RouteError::Unreachable(_)),
                "prohibit" => matches!(error, RouteError::Prohibited(_)),
                _ => matches!(error, RouteError::Blackhole(_)),
            };
            assert!(right, "{kind} {destination}: {error}");
            assert!(error.to_string().contains(destination), "{error}");
        }
    }
    for destination in ["192.0.2.4", "2001:db8:94::1"] {
        assert!(matches!(lab.refusal(&to(destination)), RouteError::None(_)));
    }
    lab.us("rule add to 192.0.2.5 prohibit");
    assert!(matches!(lab.refusal(&to("192.0.2.5")), RouteError::Prohibited(_)));
    for destination in ["0.0.0.0", "::"] {
        assert!(matches!(lab.refusal(&to(destination)), RouteError::Unspecified(_)));
    }
}

#[test]
fn our_own_addresses_are_local() {
    let Some(lab) = Lab::new() else { return };
    // A node that holds a load balancer's address.
    lab.us("addr add 10.111.111.129/32 dev lo");
    for (destination, source) in [
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.111.111.129", "10.111.111.129"),
        ("::1", "::1"),
        ("2001:db8:0::1", "2001:db8:0::1"),
    ] {
        let route = lab.route(destination);
        assert_eq!(route.kind, Kind::Local, "{destination}");
        assert_eq!(route.interface, lab.index("lo"), "{destination}");
        assert_eq!(Some(route.source), lab.source_of_kernel(&to(destination)), "{destination}");
        assert_eq!(route.source, address(source), "{destination}");
        assert_eq!(route.mtu, 65535);
    }
    lab.us("-6 addr add 2001:db8:111::129/128 dev lo");
    for destination in ["10.111.111.129", "2001:db8:111::129"] {
        let bound = Query { interface: Some(lab.index("eth0")), ..to(destination) };
        let is_local = || lab.lookup(&bound).is_ok_and(|route| route.kind == Kind::Local);
        // The kernel adds the route of an IPv6 address a moment after the address.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !is_local() {
            assert!(Instant::now() < deadline, "{destination}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn an_interface_override_keeps_to_real_routes() {
    let Some(lab) = Lab::new() else { return };
    lab.us("route add default via 10.0.0.2 dev eth0 metric 10");
    lab.us("route add default via 10.1.0.2 dev eth1 metric 20");
    lab.us("-6 route add default via 2001:db8:0::2 dev eth0 metric 10");
    lab.us("-6 route add default via 2001:db8:1::2 dev eth1 metric 20");
    for (destination, source, gateway, longer) in [
        ("192.0.2.9", "10.1.0.1", "10.1.0.2", "192.0.2.0/24"),
        ("2001:db8:99::9", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:99::/48"),
    ] {
        assert_eq!(lab.route(destination).interface, lab.index("eth0"));
        let bound = Query { interface: Some(lab.index("eth1")), ..to(destination) };
        let route = lab.lookup(&bound).expect("through eth1");
        assert_eq!(route.interface, lab.index("eth1"));
        assert_eq!(route.gateway, Some(address(gateway)));
        assert_eq!(route.source, address(source));
        assert_eq!(Some(route.source), lab.source_of_kernel(&bound));
        // With a source as well, the longer prefix elsewhere must not win.
        lab.us(&format!("route add {longer} dev eth0"));
        let both = Query { source: Some(address(source)), ..bound };
        let route = lab.lookup(&both).expect("through eth1 still");
        assert_eq!((route.interface, route.source), (lab.index("eth1"), address(source)));
    }
}

#[test]
fn an_on_link_route_that_the_kernel_invents_is_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.us("route add 192.0.2.0/24 via 10.0.0.2");
    lab.us("-6 route add 2001:db8:99::/48 via 2001:db8:0::2");
    let through_eth1 = |destination| Query { interface: Some(lab.index("eth1")), ..to(destination) };
    for destination in ["192.0.2.9", "2001:db8:99::9"] {
        assert_eq!(
            lab.refusal(&through_eth1(destination)).to_string(),
            format!(
                "no route to {destination} through eth1: the routing table sends it through eth0; \
                 leave the interface out, or name the next hop"
            )
        );
    }
    for destination in ["203.0.113.1", "2001:db8:77::1"] {
        let error = lab.refusal(&through_eth1(destination));
        assert!(matches!(error, RouteError::InterfaceMismatch { chosen: None, .. }), "{error}");
    }
    lab.us("link set eth1 down");
    for destination in ["192.0.2.9", "2001:db8:99::9"] {
        let error = lab.refusal(&through_eth1(destination));
        assert!(matches!(error, RouteError::InterfaceDown { .. }), "{error}");
    }
}

#[test]
fn a_source_must_be_the_hosts_own() {
    let Some(lab) = Lab::new() else { return };
    let from = |source: &str, destination: &str| Query { source: Some(address(source)), ..to(destination) };
    for (source, destination) in [
        ("10.0.0.1", "10.0.0.2"),
        ("10.1.0.1", "10.0.0.2"),
        ("127.0.0.5", "127.0.0.1"),
        ("2001:db8:1::1", "2001:db8:0::2"),
    ] {
        assert_eq!(lab.lookup(&from(source, destination)).expect(source).source, address(source));
    }
    for (source, destination) in [("10.0.0.9", "10.0.0.2"), ("2001:db8:0::9", "2001:db8:0::2")] {
        let error = lab.refusal(&from(source, destination));
        assert!(matches!(error, RouteError::ForeignSource { .. }), "{error}");
    }
    lab.us("route add local 10.33.0.0/16 dev lo");
    assert_eq!(lab.lookup(&from("10.33.4.5", "10.0.0.2")).expect("AnyIP").source, address("10.33.4.5"));
    let error = lab.refusal(&from("10.0.0.1", "2001:db8:0::2"));
    assert!(matches!(error, RouteError::FamilyMismatch { .. }), "{error}");
    // Duplicate address detection takes a second.
    lab.us("-6 addr add 2001:db8:0::5/64 dev eth0");
    let error = lab.refusal(&from("2001:db8:0::5", "2001:db8:0::2"));
    assert!(matches!(error, RouteError::UnusableSource { .. }), "{error}");
}

#[test]
fn policy_rules_see_the_real_flow() {
    let Some(lab) = Lab::new() else { return };
    lab.us("addr add 10.0.0.50/24 dev eth0");
    lab.us("route add default via 10.0.0.2");
    lab.us("route add default via 10.1.0.2 table 100");
    let base = to("192.0.2.1");
    let eth1 = lab.index("eth1");
    for (rule, query) in [
        ("from 10.0.0.50", Query { source: Some(address("10.0.0.50")), ..base }),
        ("ipproto tcp dport 443", Query { destination_port: Some(443), ..base }),
        ("ipproto tcp sport 4000-4010", Query { source_port: Some(4005), ..base }),
        ("ipproto udp", Query { protocol: Protocol::Udp, ..base }),
    ] {
        assert_ne!(lab.lookup(&query).expect(rule).interface, eth1, "{rule}: too early");
        lab.us(&format!("rule add {rule} lookup 100"));
        assert_eq!(lab.lookup(&query).expect(rule).interface, eth1, "{rule}");
        assert_ne!(lab.lookup(&base).expect(rule).interface, eth1, "{rule}: too much");
        lab.us(&format!("rule del {rule} lookup 100"));
    }
    // The user is the process's own.
    lab.us("rule add uidrange 0-0 lookup 100");
    assert_eq!(lab.lookup(&base).expect("by user").interface, eth1);
    lab.us("rule del uidrange 0-0 lookup 100");
    // A rule that looks at the source of the first answer.
    lab.us("rule add from 10.0.0.1 lookup 100");
    let route = lab.lookup(&base).expect("by chosen source");
    assert_eq!((route.interface, route.source), (eth1, address("10.0.0.1")));
    assert_eq!(Some(route.source), lab.source_of_kernel(&base));
}

#[test]
fn a_route_for_one_source_only_is_found_where_the_kernel_finds_it() {
    let Some(lab) = Lab::new() else { return };
    lab.us("-6 rule add from 2001:db8:0::/64 lookup 100");
    lab.us("-6 route add default via 2001:db8:0::2 table 100");
    let query = to("2001:db8:99::1");
    let kernel = lab.source_of_kernel(&query);
    let ours = lab.lookup(&query);
    assert_eq!(ours.as_ref().ok().map(|route| route.source), kernel, "{ours:?}");
}

#[test]
fn a_vrf_device_stands_for_its_ports() {
    let Some(lab) = Lab::new() else { return };
    if let Err(error) = lab.try_us("link add vrf0 type vrf table 100") {
        return skipped(&format!("no VRF in this kernel: {error}"));
    }
    lab.us("link set vrf0 up");
    lab.us("link set eth1 master vrf0");
    lab.us("-6 addr replace 2001:db8:1::1/64 dev eth1 nodad");
    lab.us("route add default via 10.1.0.2 vrf vrf0");
    let eth1 = lab.index("eth1");
    for asked in ["vrf0", "eth1"] {
        let route = lab
            .lookup(&Query { interface: Some(lab.index(asked)), ..to("192.0.2.1") })
            .unwrap_or_else(|error| panic!("{asked}: {error}"));
        assert_eq!((route.interface, route.source), (eth1, address("10.1.0.1")), "{asked}");
        assert_eq!(route.gateway, Some(address("10.1.0.2")), "{asked}");
    }
    let v6 = Query { interface: Some(lab.index("vrf0")), ..to("2001:db8:1::2") };
    assert_eq!(lab.lookup(&v6).expect("IPv6").source, address("2001:db8:1::1"));
    let master = lab.inside(|| interface::by_name("eth1")).expect("eth1").master;
    assert_eq!(master, Some(lab.index("vrf0")));
}

#[test]
fn link_local_destinations_need_a_zone() {
    let Some(lab) = Lab::new() else { return };
    for name in ["eth0", "eth1"] {
        lab.us(&format!("-6 addr flush dev {name} scope link"));
        lab.us(&format!("-6 addr add fe80::1/64 dev {name} nodad"));
    }
    assert!(matches!(lab.refusal(&to("fe80::2")), RouteError::ZoneMissing(_)));
    for zone in ["eth0".to_owned(), "eth1".to_owned(), lab.index("eth1").to_string()] {
        let index = zone.parse().unwrap_or_else(|_| lab.index(&zone));
        let host = format!("fe80::2%{zone}");
        let found = lab.inside(|| resolve::addresses(&host, 80, Family::Any, Names::Numeric)).expect("zone");
        let route = lab.lookup(&Query::to(found[0], Protocol::Tcp)).expect("route");
        assert_eq!(route.interface, index);
        assert_eq!(route.source, address("fe80::1"));
        assert_eq!(route.gateway, None);
    }
}

#[test]
fn learned_path_mtus_are_used() {
    let Some(lab) = Lab::new() else { return };
    lab.inside_peer(|| {
        set("ipv4.ip_forward", "1");
        set("ipv6.conf.all.forwarding", "1");
    });
    lab.peer("link add narrow type bridge");
    lab.peer("link set narrow mtu 1280 up");
    lab.peer("addr add 192.0.2.1/24 dev narrow");
    lab.peer("-6 addr add 2001:db8:99::1/64 dev narrow nodad");
    lab.us("route add 192.0.2.0/24 via 10.0.0.2");
    lab.us("-6 route add 2001:db8:99::/64 via 2001:db8:0::2");
    for (destination, any) in [("192.0.2.9", "0.0.0.0"), ("2001:db8:99::9", "::")] {
        assert_eq!(lab.route(destination).mtu, 1500);
        let started = Instant::now();
        while lab.route(destination).mtu != 1280 {
            assert!(started.elapsed() < Duration::from_secs(5), "{destination}: never learned");
            lab.inside(|| {
                let socket = UdpSocket::bind((any, 0)).expect("bind");
                // Once the kernel has learned the reason it refuses by itself.
                let _ = socket.send_to(&[0; 1400], (destination, 9));
            });
            thread::sleep(Duration::from_millis(20));
        }
    }
    lab.inside(|| set("ipv6.conf.eth1.mtu", "1400"));
    assert_eq!(lab.route("2001:db8:1::2").mtu, 1400);
    assert_eq!(lab.route("10.1.0.2").mtu, 1500);
}

#[test]
fn macvlan_has_routes_and_neighbours_of_its_own() {
    let Some(lab) = Lab::new() else { return };
    lab.us("link add mv0 link eth0 type macvlan mode bridge");
    lab.us("addr add 10.0.0.40/24 dev mv0");
    lab.us("link set mv0 up");
    let route = lab.lookup(&Query { interface: Some(lab.index("mv0")), ..to("10.0.0.2") }).expect("route");
    assert_eq!((route.interface, route.source), (lab.index("mv0"), address("10.0.0.40")));
    let mac = lab.resolve("mv0", "10.0.0.2", Duration::from_secs(3)).expect("resolved");
    assert_eq!(mac.to_string(), "02:00:00:00:00:02");
}

#[test]
fn group_destinations_are_told_from_hosts() {
    let Some(lab) = Lab::new() else { return };
    let eth1 = lab.index("eth1");
    for (destination, kind, mac) in [
        ("224.0.0.251", Kind::Multicast, "01:00:5e:00:00:fb"),
        ("10.1.0.255", Kind::Broadcast, "ff:ff:ff:ff:ff:ff"),
        ("255.255.255.255", Kind::Broadcast, "ff:ff:ff:ff:ff:ff"),
        ("ff02::fb", Kind::Multicast, "33:33:00:00:00:fb"),
    ] {
        let route = lab.lookup(&Query { interface: Some(eth1), ..to(destination) }).expect(destination);
        assert_eq!((route.kind, route.interface, route.gateway), (kind, eth1, None), "{destination}");
        let resolved = lab.resolve("eth1", destination, Duration::from_secs(1)).expect(destination);
        assert_eq!(resolved.to_string(), mac, "{destination}");
    }
}

#[test]
fn routes_that_encapsulate_are_refused() {
    let Some(lab) = Lab::new() else { return };
    for (encapsulation, destination) in [
        ("192.0.2.0/24 encap ip id 1 dst 10.0.0.2", "192.0.2.1"),
        ("2001:db8:aa::/48 encap seg6 mode encap segs fc00::1", "2001:db8:aa::1"),
    ] {
        if let Err(error) = lab.try_us(&format!("route add {encapsulation} dev eth0")) {
            skipped(&format!("{encapsulation}: {error}"));
            continue;
        }
        let error = lab.refusal(&to(destination));
        assert!(matches!(error, RouteError::Encapsulated { .. }), "{error}");
    }
}
