//! `--compare` names the rule that redirects the kernel's connection, and its owner.
use crate::support::{
    comparison::{in_both, serve},
    netkat::netkat,
    requirements::lab,
    rules::nft,
    topology::Pair,
};

#[test]
fn a_service_of_iptables() {
    lab!("iptables-nft", "socat");
    in_both(
        |scene| {
            scene.run(
                "{iptables}-nft -t nat -N KUBE-SERVICES; {iptables}-nft -t nat -N KUBE-SVC-ABC; \
                 {iptables}-nft -t nat -N KUBE-SEP-XYZ; {iptables}-nft -t nat -A OUTPUT -j KUBE-SERVICES; \
                 {iptables}-nft -t nat -A KUBE-SERVICES -d {peer} -p tcp --dport 7000 \
                    -m comment --comment default/web:http -j KUBE-SVC-ABC; \
                 {iptables}-nft -t nat -A KUBE-SVC-ABC -j KUBE-SEP-XYZ; \
                 {iptables}-nft -t nat -A KUBE-SEP-XYZ -p tcp -j DNAT --to-destination {other}",
            );
        },
        10,
        "captured: this host answers for {peer:7000}, a client outside may get another answer
        by {iptables} (nft), table nat, chain KUBE-SEP-XYZ, rule 1 of 1 ({ip} nat KUBE-SEP-XYZ, handle 8), \
         jumped OUTPUT > KUBE-SERVICES > KUBE-SVC-ABC > KUBE-SEP-XYZ
        meta l4proto tcp counter -j DNAT --to-destination {other}
        which Kubernetes Service default/web, port http
        kernel connected after T to {other}
        {raw}
        proof nft trace; conntrack
        try {iptables}-nft -t nat -S KUBE-SEP-XYZ 1",
    );
}

#[test]
fn a_rule_of_nft() {
    lab!("nft", "socat");
    in_both(
        |scene| {
            scene.nft(
                "table inet z { chain o { type nat hook output priority -100;
                    {ip} daddr {peer} tcp dport 7000 dnat {ip} to {other} comment \"svc\"; }; }",
            );
        },
        10,
        "captured: this host answers for {peer:7000}, a client outside may get another answer
        by nft inet z, chain o, rule 1 of 1 (handle 2)
        {ip} daddr {peer} tcp dport 7000 dnat {ip} to {other}
        which comment \"svc\"
        kernel connected after T to {other}
        {raw}
        proof nft trace; conntrack
        try nft -a list chain inet z o",
    );
}

#[test]
fn a_drop_behind_a_translation_comes_first() {
    lab!("iptables-nft", "socat");
    in_both(
        |scene| {
            scene.run(
                "{iptables}-nft -t nat -A OUTPUT -p tcp --dport 7000 -j DNAT --to-destination {other}; \
                 {iptables}-nft -A INPUT -p tcp --sport 7000 -j DROP; \
                 {iptables}-nft -A INPUT -p tcp --sport 7001 -j DROP",
            );
        },
        11,
        "this host: the answer (SYN-ACK) is dropped
        by {iptables} (nft), table filter, chain INPUT, rule 2 of 2 ({ip} filter INPUT, handle 3)
        tcp sport 7001 counter drop
        which translated to {other} before, by {iptables} (nft), table nat, chain OUTPUT, rule 1 of 1 \
         ({ip} nat OUTPUT, handle 2)
        kernel no answer in T SYN left eth0, SYN-ACK came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}; conntrack
        try {iptables}-nft -S INPUT 2",
    );
}

/// Answers carry the translated port until conntrack translates them back.
#[test]
fn an_answer_to_a_translated_source() {
    lab!("iptables-nft", "socat");
    in_both(
        |scene| {
            scene.run(
                "{iptables}-nft -t nat -A POSTROUTING -p tcp --dport 7000 -j SNAT --to-source {host:}:2222-2232; \
                 {iptables}-nft -A INPUT -p tcp --sport 7000 -j DROP",
            );
        },
        11,
        "this host: the answer (SYN-ACK) is dropped
        by {iptables} (nft), table filter, chain INPUT, rule 1 of 1 ({ip} filter INPUT, handle 2)
        tcp sport 7000 counter drop
        kernel no answer in T SYN left eth0, SYN-ACK came back
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try {iptables}-nft -S INPUT 1",
    );
}

/// A ruleset of kube-proxy 1.33 in nftables mode.
#[test]
fn a_service_of_nftables() {
    lab!("nft", "socat");
    let pair = Pair::new();
    pair.peer.ip("address add 10.244.2.2/32 dev lo");
    pair.host.ip("route add 10.244.2.2 via 10.77.0.2");
    pair.host.ip("route add 10.111.111.129 via 10.77.0.2");
    let _server = serve(&pair.peer, 8080);
    nft(&pair.host, include_str!("../../../testdata/kube-proxy/nodeport-nftables.nft"));
    let output = netkat(&pair.host, "--compare --exit-verdict -w 1s 10.111.111.129 80").run();
    let text = output.text();
    assert_eq!(output.code(), Some(10), "{output}");
    for line in [
        "captured: this host answers for 10.111.111.129:80, a client outside may get another answer",
        "  by      kube-proxy (nftables), ip kube-proxy, chain service-F4ORZTNV-default/clientip/tcp/http, rule 1 of 1 (",
        "jumped nat-output > services > external-F4ORZTNV-default/clientip/tcp/http >",
        "  which   Kubernetes Service default/clientip, port http; the rule may decide otherwise next time\n",
        "to 10.244.2.2:8080\n",
    ] {
        assert!(text.contains(line), "{line}\n{output}");
    }
    // A Service without an endpoint.
    nft(
        &pair.host,
        "delete element ip kube-proxy service-ips { 10.111.111.129 . tcp . 80 }
        add element ip kube-proxy no-endpoint-services { 10.111.111.129 . tcp . 80 : goto reject-chain }",
    );
    let output = netkat(&pair.host, "--compare --exit-verdict -w 1s 10.111.111.129 80").run();
    let text = output.text();
    assert_eq!(output.code(), Some(11), "{output}");
    for line in [
        "this host: our SYN is rejected\n",
        "  by      kube-proxy (nftables), ip kube-proxy, chain reject-chain, rule 1 of 1 (",
        "jumped filter-output > service-endpoints-check > reject-chain\n",
        "  which   kube-proxy\n",
    ] {
        assert!(text.contains(line), "{line}\n{output}");
    }
}
