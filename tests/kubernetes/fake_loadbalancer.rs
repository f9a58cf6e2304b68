//! The controller that gives Services of type LoadBalancer an address.
use super::*;

#[test]
fn gives_the_first_free_address_to_those_that_ask_and_no_other() {
    let cluster = Cluster::new();
    cluster.write("nodes/edge.json", &node("edge", "10.111.111.129"));
    cluster.add_service("a-internal", json!({"type": "ClusterIP", "clusterIP": "10.111.111.130"}));
    cluster.add_service(
        "b-foreign",
        json!({"type": "LoadBalancer", "loadBalancerClass": "example.org/other", "externalIPs": ["10.111.111.131"]}),
    );
    cluster.add_service("c", balanced());
    cluster.add_service("d", balanced());
    let output = cluster.set_right(&["10.111.111.128/29"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(cluster.addresses("c"), ["10.111.111.132"]);
    assert_eq!(cluster.addresses("d"), ["10.111.111.133"]);
    assert!(cluster.addresses("a-internal").is_empty() && cluster.addresses("b-foreign").is_empty());
    // Only the status is written, nothing is written twice. The stub refuses a Service that has changed since.
    let writes = || cluster.calls().into_iter().filter(|c| c[0] == "replace").collect::<Vec<_>>();
    assert!(writes().iter().all(|c| c.iter().any(|w| w.ends_with("/status"))), "{:?}", writes());
    assert!(cluster.set_right(&["10.111.111.128/29"]).status.success());
    assert_eq!(writes().len(), 2);
}

/// Six hosts in a /29: neither 10.0.0.0 nor 10.0.0.7 is ever given.
#[test]
fn a_full_range_gives_no_more_until_something_goes() {
    let cluster = Cluster::new();
    for n in 1..=7 {
        cluster.add_service(&format!("s{n}"), balanced());
    }
    let output = cluster.set_right(&["10.0.0.0/29"]);
    for n in 1..=6 {
        assert_eq!(cluster.addresses(&format!("s{n}")), [format!("10.0.0.{n}")]);
    }
    assert!(cluster.addresses("s7").is_empty());
    assert!(stderr(&output).contains("default/s7: no free IPv4 address"), "{}", stderr(&output));
    cluster.remove("services/default.s3.json");
    cluster.set_right(&["10.0.0.0/29"]);
    assert_eq!(cluster.addresses("s7"), ["10.0.0.3"]);
}

#[test]
fn an_address_is_taken_back_when_the_type_changes() {
    let cluster = Cluster::new();
    cluster.add_service("s", balanced());
    cluster.set_right(&["10.0.0.0/29"]);
    assert_eq!(cluster.addresses("s"), ["10.0.0.1"]);
    cluster.change_service("s", |s| s["spec"]["type"] = json!("NodePort"));
    cluster.set_right(&["10.0.0.0/29"]);
    assert!(cluster.addresses("s").is_empty());
}

#[test]
fn addresses_of_others_are_left_alone() {
    let cluster = Cluster::new();
    let given = |ip| move |s: &mut Value| s["status"] = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
    cluster.add_service("elsewhere", json!({"type": "NodePort"}));
    cluster.change_service("elsewhere", given("192.0.2.1"));
    cluster.add_service("class", json!({"type": "LoadBalancer", "loadBalancerClass": "example.org/other"}));
    cluster.change_service("class", given("10.0.0.1"));
    cluster.add_service("ours", balanced());
    cluster.set_right(&["10.0.0.0/29"]);
    assert_eq!(cluster.addresses("elsewhere"), ["192.0.2.1"]);
    assert_eq!(cluster.addresses("class"), ["10.0.0.1"]);
    assert_eq!(cluster.addresses("ours"), ["10.0.0.2"]);
}

#[test]
fn a_wish_is_granted_or_told() {
    let cluster = Cluster::new();
    for (name, wish) in [("a", "10.0.0.4"), ("b", "10.0.0.4"), ("c", "10.0.0.7"), ("d", "192.0.2.1")] {
        cluster.add_service(name, json!({"type": "LoadBalancer", "loadBalancerIP": wish}));
    }
    let output = cluster.set_right(&["10.0.0.0/29"]);
    assert_eq!(cluster.addresses("a"), ["10.0.0.4"]);
    for (name, wish) in [("b", "10.0.0.4"), ("c", "10.0.0.7"), ("d", "192.0.2.1")] {
        assert!(cluster.addresses(name).is_empty(), "{name}");
        let told = format!("default/{name}: no free IPv4 address, it asks for {wish}");
        assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    }
}

#[test]
fn ipv6_and_dual_stack() {
    let cluster = Cluster::new();
    cluster.add_service("six", json!({"type": "LoadBalancer", "ipFamilies": ["IPv6"]}));
    cluster.add_service("two", json!({"type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"]}));
    cluster.set_right(&["fd00:1::/64"]);
    assert_eq!(cluster.addresses("six"), ["fd00:1::1"]);
    assert_eq!(cluster.addresses("two"), ["fd00:1::2"]);
    cluster.set_right(&["fd00:1::/64", "10.0.0.0/30"]);
    assert_eq!(cluster.addresses("six"), ["fd00:1::1"]);
    assert_eq!(cluster.addresses("two"), ["fd00:1::2", "10.0.0.1"]);
}

#[test]
fn the_smallest_ranges_are_hosts_all_through() {
    for (range, addresses) in [("10.0.0.6/31", &["10.0.0.6", "10.0.0.7"][..]), ("10.0.0.6/32", &["10.0.0.6"])]
    {
        let cluster = Cluster::new();
        cluster.add_service("a", balanced());
        cluster.add_service("b", balanced());
        cluster.set_right(&[range]);
        assert_eq!([cluster.addresses("a"), cluster.addresses("b")].concat(), addresses);
    }
}

#[test]
fn one_service_that_cannot_be_written_does_not_hold_up_the_others() {
    let cluster = Cluster::new();
    cluster.add_service("a", balanced());
    cluster.add_service("b", balanced());
    // The stub finds its files by name and namespace: this one is never found.
    cluster.change_service("a", |s| s["metadata"]["namespace"] = json!("away"));
    let output = cluster.set_right(&["10.0.0.0/29"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("away/a: "), "{}", stderr(&output));
    assert_eq!(cluster.addresses("b"), ["10.0.0.2"]);
}

/// kubectl's hint at its help comes last and hides the reason.
#[test]
fn the_reason_of_a_failed_write_is_told() {
    let cluster = Cluster::new();
    cluster.add_service("a", balanced());
    cluster.put("fail-replace", "error: unknown flag: --raw\nSee 'kubectl replace --help' for usage.");
    let output = cluster.set_right(&["10.0.0.0/29"]);
    assert!(stderr(&output).contains("default/a: error: unknown flag: --raw"), "{}", stderr(&output));
}

#[test]
fn follows_the_cluster_through_restarts_and_a_vanished_api_server() {
    let cluster = Cluster::new();
    cluster.put("down", "");
    let controller = cluster.controller("10.0.0.0/29");
    until("it asks in vain", || {
        cluster.calls().iter().any(|c| c[0] == "get" && c.contains(&"json".to_owned()))
    });
    cluster.add_service("a", balanced());
    cluster.remove("down");
    until("a has its address", || cluster.addresses("a") == ["10.0.0.1"]);
    cluster.add_service("b", balanced());
    until("b has its address", || cluster.addresses("b") == ["10.0.0.2"]);

    // Killed and started again, it continues from the cluster's state.
    drop(controller);
    cluster.remove("services/default.a.json");
    cluster.add_service("c", balanced());
    cluster.add_service("d", balanced());
    let mut controller = cluster.controller("10.0.0.0/29");
    until("c and d have theirs", || {
        cluster.addresses("c") == ["10.0.0.1"] && cluster.addresses("d") == ["10.0.0.3"]
    });
    assert_eq!(cluster.addresses("b"), ["10.0.0.2"]);

    cluster.put("down", "");
    cluster.change_service("b", |s| s["spec"]["type"] = json!("ClusterIP"));
    let asked = cluster.calls().len();
    until("it asks in vain again", || cluster.calls().len() > asked);
    cluster.remove("down");
    until("b's address is taken back", || cluster.addresses("b").is_empty());

    controller.signal(Signal::SIGTERM);
    assert_eq!(controller.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_bad_range_is_refused() {
    for range in ["10.0.0.1/29", "10.0.0.0/33", "here"] {
        let output = Cluster::new().set_right(&[range]);
        assert_eq!(output.status.code(), Some(2), "{range}");
        assert!(stderr(&output).contains("--iprange"), "{}", stderr(&output));
    }
}
