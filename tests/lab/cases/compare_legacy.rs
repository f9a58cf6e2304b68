//! `--compare` names rules of iptables-legacy by their counters: no trace tells them.
use crate::support::{comparison::in_both, requirements::lab};

#[test]
fn a_chain_of_output() {
    lab!("iptables-legacy", "socat");
    in_both(
        |scene| {
            scene.run(
                "{iptables}-legacy -A OUTPUT -p udp -j DROP; {iptables}-legacy -N BLK; \
                 {iptables}-legacy -A OUTPUT -p tcp -j BLK; \
                 {iptables}-legacy -A BLK -p tcp --dport 7000 -m comment --comment blk -j DROP",
            );
        },
        11,
        "this host: our SYN is dropped
        by {iptables}-legacy -t filter, chain BLK, rule 1
        -A BLK -p tcp -m tcp --dport 7000 -m comment --comment \"blk\" -j DROP
        kernel no answer in T SYN made, none left
        {raw}
        proof counters: 1 of 2 rules that stop packets moved with each round of 3, 7 connections{drop NETFILTER_DROP} (inferred)
        try {iptables}-legacy -t filter -S BLK 1",
    );
}

#[test]
fn an_answer_in_raw_prerouting() {
    lab!("iptables-legacy", "socat");
    in_both(
        |scene| scene.run("{iptables}-legacy -t raw -A PREROUTING -p tcp --sport 7000 -j DROP"),
        11,
        "this host: the answer (SYN-ACK) is dropped
        by {iptables}-legacy -t raw, chain PREROUTING, rule 1
        -A PREROUTING -p tcp -m tcp --sport 7000 -j DROP
        kernel no answer in T SYN left eth0, SYN-ACK came back
        {raw}
        proof counters: 1 of 1 rules that stop packets moved with each round of 3, 7 connections{drop NETFILTER_DROP} (inferred)
        try {iptables}-legacy -t raw -S PREROUTING 1",
    );
}

#[test]
fn a_policy() {
    lab!("iptables-legacy", "socat");
    in_both(
        |scene| {
            if scene.words("{v}") == "-6" {
                scene.run("{iptables}-legacy -A OUTPUT -p icmpv6 -j ACCEPT");
            }
            scene.run("{iptables}-legacy -P OUTPUT DROP");
        },
        11,
        "this host: our SYN is dropped by the policy of a chain
        by {iptables}-legacy -t filter, chain OUTPUT: its policy
        kernel no answer in T SYN made, none left
        {raw}
        proof counters: 1 of 1 rules that stop packets moved with each round of 3, 7 connections{drop NETFILTER_DROP} (inferred)
        try {iptables}-legacy -t filter -S OUTPUT",
    );
}

#[test]
fn a_rejection() {
    lab!("iptables-legacy", "socat");
    in_both(
        |scene| {
            scene.run("{iptables}-legacy -A OUTPUT -p tcp --dport 7000 -j REJECT --reject-with tcp-reset")
        },
        11,
        "this host: our SYN is rejected
        by {iptables}-legacy -t filter, chain OUTPUT, rule 1
        -A OUTPUT -p tcp -m tcp --dport 7000 -j REJECT --reject-with tcp-reset
        kernel refused after T SYN made, none left
        {raw}
        proof counters: 1 of 1 rules that stop packets moved with each round of 3, 7 connections{drop NETFILTER_DROP} (inferred)
        try {iptables}-legacy -t filter -S OUTPUT 1",
    );
}

#[test]
fn a_service() {
    lab!("iptables-legacy", "socat");
    in_both(
        |scene| {
            scene.run(
                "{iptables}-legacy -t nat -N KUBE-SEP-XYZ; \
                 {iptables}-legacy -t nat -A OUTPUT -d {peer} -p tcp --dport 7000 -j KUBE-SEP-XYZ; \
                 {iptables}-legacy -t nat -A KUBE-SEP-XYZ -p tcp -j DNAT --to-destination {other}",
            );
        },
        10,
        "captured: this host answers for {peer:7000}, a client outside may get another answer
        by {iptables}-legacy -t nat, chain KUBE-SEP-XYZ, rule 1
        -A KUBE-SEP-XYZ -p tcp -j DNAT --to-destination {other}
        which kube-proxy
        kernel connected after T to {other}
        {raw}
        proof counters; conntrack (inferred)
        try {iptables}-legacy -t nat -S KUBE-SEP-XYZ 1",
    );
}
