//! `--compare -u`: what stands between a datagram and its answer.
use crate::support::{
    comparison::{Scene, check, echo_datagrams},
    netkat::netkat,
    requirements::lab,
    topology::Family,
};

/// Report line of netkat's own datagram, and of its answer.
const RAW: &str = "raw answered after T {host:}:0 > {peer:7000} via {peer}, eth0";

fn in_both(set_up: impl Fn(&Scene), status: i32, expected: &str) {
    for family in Family::ALL {
        let scene = Scene::of_datagrams(family);
        set_up(&scene);
        scene.expect("-u", status, &expected.replace("{raw}", RAW));
    }
}

#[test]
fn nothing_in_the_way() {
    lab!("python3");
    in_both(
        |_| {},
        0,
        "same: nothing on this host stands between it and {peer:7000}
        kernel answered after T datagram left eth0, answer came back
        {raw}",
    );
}

#[test]
fn iptables_output() {
    lab!("iptables-nft", "python3");
    in_both(
        |scene| {
            scene.run(
                "{iptables}-nft -A OUTPUT -p tcp --dport 7000 -j DROP; \
                 {iptables}-nft -A OUTPUT -p udp --dport 7000 -j DROP",
            );
        },
        11,
        "this host: our datagram is dropped
        by {iptables} (nft), table filter, chain OUTPUT, rule 2 of 2 ({ip} filter OUTPUT, handle 3)
        udp dport 7000 counter drop
        kernel failed after T 1 of 1 datagram stopped before it left
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try {iptables}-nft -S OUTPUT 2",
    );
}

#[test]
fn iptables_input() {
    lab!("iptables-nft", "python3");
    in_both(
        |scene| scene.run("{iptables}-nft -A INPUT -p udp --sport 7000 -j DROP"),
        11,
        "this host: the answer is dropped
        by {iptables} (nft), table filter, chain INPUT, rule 1 of 1 ({ip} filter INPUT, handle 2)
        udp sport 7000 counter drop
        kernel no answer in T datagram left eth0, answer came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try {iptables}-nft -S INPUT 1",
    );
}

#[test]
fn a_rejection_by_ourselves() {
    lab!("iptables-nft", "python3");
    // ip6tables has another name for this code.
    for (family, code) in [(Family::V4, "icmp-port-unreachable"), (Family::V6, "icmp6-port-unreachable")] {
        let scene = Scene::of_datagrams(family);
        scene.run("{iptables}-nft -A OUTPUT -p udp --dport 7000 -j REJECT");
        let expected = "this host: our datagram is rejected
            by {iptables} (nft), table filter, chain OUTPUT, rule 1 of 1 ({ip} filter OUTPUT, handle 2)
            udp dport 7000 counter -j REJECT --reject-with {code}
            kernel rejected (ICMP port unreachable) after T 1 of 1 datagram stopped before it left
            {raw}
            proof nft trace{drop NETFILTER_DROP}
            try {iptables}-nft -S OUTPUT 1";
        scene.expect("-u", 11, &expected.replace("{code}", code).replace("{raw}", RAW));
    }
}

#[test]
fn a_service_answers_in_its_place() {
    lab!("nft", "python3");
    in_both(
        |scene| {
            scene.nft(
                "table inet z { chain o { type nat hook output priority -100; \
                    {ip} daddr {peer} udp dport 7000 dnat {ip} to {other} comment \"svc\"; }; }",
            );
        },
        10,
        "captured: this host answers for {peer:7000}, a client outside may get another answer
        by nft inet z, chain o, rule 1 of 1 (handle 2)
        {ip} daddr {peer} udp dport 7000 dnat {ip} to {other}
        which comment \"svc\"
        kernel answered after T to {other}
        {raw}
        proof nft trace; conntrack
        try nft -a list chain inet z o",
    );
}

/// A datagram whose source was translated is known by the end that conntrack tells.
#[test]
fn an_answer_to_a_translated_source() {
    lab!("nft", "python3");
    in_both(
        |scene| {
            scene.nft(
                "table inet z { chain p { type nat hook postrouting priority 100; \
                    udp dport 7000 masquerade to :40000-40010; }; \
                    chain i { type filter hook input priority 0; udp sport 7000 drop; }; }",
            );
        },
        11,
        "this host: the answer is dropped
        by nft inet z, chain i, rule 1 of 1 (handle 4)
        udp sport 7000 drop
        kernel no answer in T datagram left eth0, answer came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try nft -a list chain inet z i",
    );
}

#[test]
fn iptables_legacy_output() {
    lab!("iptables-legacy", "python3");
    in_both(
        |scene| {
            scene.run(
                "{iptables}-legacy -A OUTPUT -p tcp -j DROP; {iptables}-legacy -A OUTPUT -p udp --dport 7000 -j DROP",
            );
        },
        11,
        "this host: our datagram is dropped
        by {iptables}-legacy -t filter, chain OUTPUT, rule 2
        -A OUTPUT -p udp -m udp --dport 7000 -j DROP
        kernel failed after T datagram made, none left
        {raw}
        proof counters: 1 of 2 rules that stop packets moved with each round of 3, 7 connections{drop NETFILTER_DROP} (inferred)
        try {iptables}-legacy -t filter -S OUTPUT 2",
    );
}

#[test]
fn beyond_this_host() {
    lab!("iptables-nft", "python3");
    for family in Family::ALL {
        let scene = Scene::of_datagrams(family);
        let program = scene.words("{iptables}");
        scene.pair.peer.run(&format!("{program}-nft -A INPUT -p udp --dport 7000 -j DROP"));
        let silent = "not here: datagram left eth0 unchanged, and nothing came back
            kernel no answer in T datagram left eth0, nothing came back
            raw no answer after T {host:}:0 > {peer:7000} via {peer}, eth0";
        check(&scene.compare("-u -w 1.2s"), 3, &scene.words(silent));
        scene.pair.peer.run(&format!("{program}-nft -F INPUT"));
        scene.pair.peer.run(&format!("{program}-nft -A INPUT -p udp --dport 7000 -j REJECT"));
        let rejected = "not here: {peer} rejected it (ICMP port unreachable)
            kernel rejected (ICMP port unreachable) after T datagram left eth0, ICMP error came back
            raw rejected (ICMP port unreachable) after T {host:}:0 > {peer:7000} via {peer}, eth0";
        check(&scene.compare("-u"), 5, &scene.words(rejected));
    }
}

#[test]
fn nothing_listens_at_our_own_address() {
    lab!();
    for family in Family::ALL {
        let scene = Scene::of_datagrams(family);
        let own = scene.words("{host}");
        let line = format!("--compare -u --exit-verdict -n --without drop-events {own} 7000");
        let compared = netkat(&scene.pair.host, &line).run();
        assert!(compared.text().starts_with("this host: nothing listens there\n"), "{compared}");
        assert!(compared.text().contains("try     ss -lun 'sport = :7000'"), "{compared}");
        assert_eq!(compared.code(), Some(11), "{compared}");
    }
}

/// A server with several addresses may answer from another one.
#[test]
fn an_answer_from_another_address() {
    lab!("python3");
    for family in Family::ALL {
        let scene = Scene::of_datagrams(family);
        let [asked, other] = ["{peer}", "{third}"].map(|name| scene.words(name));
        let _server = echo_datagrams(&scene.pair.peer, &asked, &other, 7002);
        let line = format!("--compare -u -w 1.2s --exit-verdict -n {asked} 7002");
        let compared = netkat(&scene.pair.host, &line).run();
        let end = std::net::SocketAddr::new(other.parse().expect("an address"), 7002);
        let expected =
            format!("not here: the answer comes from {end}, not from the address that was asked\n");
        assert!(compared.text().starts_with(&expected), "{compared}");
        assert_eq!(compared.code(), Some(3), "{compared}");
    }
}

#[test]
fn the_object_counts_datagrams() {
    lab!("iptables-nft", "python3");
    let scene = Scene::of_datagrams(Family::V4);
    scene.run("iptables-nft -A OUTPUT -p udp --dport 7000 -j DROP");
    let object = scene.compare("-u --json=-").text();
    let object: serde_json::Value = serde_json::from_str(&object).expect("an object");
    assert_eq!(object["asked"]["protocol"], "udp", "{object}");
    assert_eq!(object["culprits"][0]["packet"], "datagram", "{object}");
    assert_eq!(
        (&object["kernel"]["sent_datagrams"], &object["kernel"]["left_datagrams"]),
        (&1.into(), &0.into()),
        "{object}"
    );
    assert_eq!(object["kernel"].get("sent_syns"), None, "{object}");
}
