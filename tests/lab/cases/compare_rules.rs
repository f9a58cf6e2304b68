//! `--compare` names the rule that stops the kernel's connection, in every place where firewalls put theirs.
use crate::support::{comparison::in_both, requirements::lab};

/// Report lines for a dropped SYN.
const SYN: &str =
    "kernel no answer in T 1 of 1 SYN stopped before it left\n{raw}\nproof nft trace{drop NETFILTER_DROP}";
/// Report lines for a dropped answer.
const ANSWER: &str =
    "kernel no answer in T SYN left eth0, SYN-ACK came back\n{raw}\nproof nft trace{drop NETFILTER_DROP}";

fn iptables(rules: &str, status: i32, expected: &str) {
    in_both(|scene| scene.run(rules), status, expected);
}

fn nft(rules: &str, status: i32, expected: &str) {
    in_both(|scene| scene.nft(rules), status, expected);
}

#[test]
fn iptables_output() {
    lab!("iptables-nft", "socat");
    iptables(
        "{iptables}-nft -A OUTPUT -p udp -j ACCEPT; \
         {iptables}-nft -A OUTPUT -p tcp --dport 7000 -m comment --comment blk -j DROP",
        11,
        &format!(
            "this host: our SYN is dropped
            by {{iptables}} (nft), table filter, chain OUTPUT, rule 2 of 2 ({{ip}} filter OUTPUT, handle 3)
            tcp dport 7000 -m comment --comment \"blk\" counter drop
            which comment \"blk\"
            {SYN}
            try {{iptables}}-nft -S OUTPUT 2"
        ),
    );
}

#[test]
fn iptables_input() {
    lab!("iptables-nft", "socat");
    iptables(
        "{iptables}-nft -A INPUT -p tcp --sport 7000 -j DROP",
        11,
        &format!(
            "this host: the answer (SYN-ACK) is dropped
            by {{iptables}} (nft), table filter, chain INPUT, rule 1 of 1 ({{ip}} filter INPUT, handle 2)
            tcp sport 7000 counter drop
            {ANSWER}
            try {{iptables}}-nft -S INPUT 1"
        ),
    );
}

#[test]
fn iptables_mangle_postrouting() {
    lab!("iptables-nft", "socat");
    iptables(
        "{iptables}-nft -t mangle -A POSTROUTING -p tcp --dport 7000 -j DROP",
        11,
        &format!(
            "this host: our SYN is dropped
            by {{iptables}} (nft), table mangle, chain POSTROUTING, rule 1 of 1 ({{ip}} mangle POSTROUTING, handle 2)
            tcp dport 7000 counter drop
            {SYN}
            try {{iptables}}-nft -t mangle -S POSTROUTING 1"
        ),
    );
}

#[test]
fn iptables_raw_prerouting() {
    lab!("iptables-nft", "socat");
    iptables(
        "{iptables}-nft -t raw -A PREROUTING -p tcp --sport 7000 -j DROP",
        11,
        &format!(
            "this host: the answer (SYN-ACK) is dropped
            by {{iptables}} (nft), table raw, chain PREROUTING, rule 1 of 1 ({{ip}} raw PREROUTING, handle 2)
            tcp sport 7000 counter drop
            {ANSWER}
            try {{iptables}}-nft -t raw -S PREROUTING 1"
        ),
    );
}

#[test]
fn iptables_reject() {
    lab!("iptables-nft", "socat");
    // ip6tables has another name for this code.
    for (with, outcome, code) in [
        ("", "rejected (ICMP port unreachable)", "port-unreachable"),
        ("--reject-with tcp-reset", "refused", ""),
    ] {
        for family in crate::support::topology::Family::ALL {
            let scene = crate::support::comparison::Scene::new(family);
            scene.run(&format!("{{iptables}}-nft -A OUTPUT -p tcp --dport 7000 -j REJECT {with}"));
            let v4 = family == crate::support::topology::Family::V4;
            let code = match code {
                "" => "tcp-reset".to_owned(),
                code => format!("{}-{code}", if v4 { "icmp" } else { "icmp6" }),
            };
            scene.expect(
                "",
                11,
                &format!(
                    "this host: our SYN is rejected
                    by {{iptables}} (nft), table filter, chain OUTPUT, rule 1 of 1 ({{ip}} filter OUTPUT, handle 2)
                    tcp dport 7000 counter -j REJECT --reject-with {code}
                    kernel {outcome} after T 1 of 1 SYN stopped before it left
                    {{raw}}
                    proof nft trace{{drop NETFILTER_DROP}}
                    try {{iptables}}-nft -S OUTPUT 1"
                ),
            );
        }
    }
}

#[test]
fn nft_inet_input() {
    lab!("nft", "socat");
    nft(
        "table inet fw { chain in { type filter hook input priority 0; policy accept;
            ct state invalid accept; tcp sport 7000 counter drop comment \"no replies\"; }; }",
        11,
        &format!(
            "this host: the answer (SYN-ACK) is dropped
            by nft inet fw, chain in, rule 2 of 2 (handle 3)
            tcp sport 7000 counter drop
            which comment \"no replies\"
            {ANSWER}
            try nft -a list chain inet fw in"
        ),
    );
}

#[test]
fn a_policy() {
    lab!("nft", "socat");
    nft(
        "table inet fw { chain out { type filter hook output priority 0; policy drop;
            tcp dport 22 accept; icmpv6 type nd-neighbor-solicit accept; icmpv6 type nd-neighbor-advert accept; }; }",
        11,
        &format!(
            "this host: our SYN is dropped by the policy of a chain
            by nft inet fw, chain out: policy drop, none of its 3 rules matched
            {SYN}
            try nft -a list chain inet fw out"
        ),
    );
}

#[test]
fn a_verdict_map() {
    lab!("nft", "socat");
    nft(
        "table inet fw {
            chain o2 { tcp dport vmap { 22 : accept, 7000 : drop, 8000-8010 : accept }; };
            chain out { type filter hook output priority 0; policy accept; jump o2; }; }",
        11,
        &format!(
            "this host: our SYN is dropped
            by nft inet fw, chain o2, rule 1 of 1 (handle 4), jumped to from out
            tcp dport vmap {{ 22 : accept, 7000 : drop, 8000-8010 : accept }}
            which element 7000 : drop
            {SYN}
            try nft -a list chain inet fw o2"
        ),
    );
}

#[test]
fn a_named_set() {
    lab!("nft", "socat");
    let rules = |kind: &str| {
        format!(
            "table inet fw {{ set bl {{ type {kind}; elements = {{ {{peer}} }}; }};
                chain out {{ type filter hook output priority 0; policy accept; {{ip}} daddr @bl counter drop; }}; }}"
        )
    };
    in_both(
        |scene| {
            let kind = if scene.words("{v}") == "-4" { "ipv4_addr" } else { "ipv6_addr" };
            scene.nft(&rules(kind));
        },
        11,
        &format!(
            "this host: our SYN is dropped
            by nft inet fw, chain out, rule 1 of 1 (handle 3)
            {{ip}} daddr @bl counter drop
            which element {{peer}} of set bl
            {SYN}
            try nft -a list chain inet fw out"
        ),
    );
}

#[test]
fn nft_netdev_ingress_and_egress() {
    lab!("nft", "socat");
    nft(
        "table netdev nd { chain in { type filter hook ingress device \"eth0\" priority 0; tcp sport 7000 drop; }; }",
        11,
        &format!(
            "this host: the answer (SYN-ACK) is dropped
            by nft netdev nd, chain in, rule 1 of 1 (handle 2)
            tcp sport 7000 drop
            {ANSWER}
            try nft -a list chain netdev nd in"
        ),
    );
    nft(
        "table netdev nd { chain eg { type filter hook egress device \"eth0\" priority 0; tcp dport 7000 drop; }; }",
        11,
        "this host: our SYN is dropped
        by nft netdev nd, chain eg, rule 1 of 1 (handle 2)
        tcp dport 7000 drop
        kernel no answer in T 1 of 1 SYN stopped before it left
        raw dropped by this host's own egress after T {host:}:0 > {peer:7000} via {peer}, eth0
        proof nft trace{drop NETFILTER_DROP}
        try nft -a list chain netdev nd eg",
    );
}

#[test]
fn nft_bridge() {
    lab!("nft", "socat");
    in_both(
        |scene| {
            scene.pair.bridge_host();
            scene.nft(
                "table bridge fw { chain in { type filter hook input priority 0; tcp sport 7000 drop; }; }",
            );
        },
        11,
        // The guard stands behind the bridge, as the kernel does.
        "this host: the answer (SYN-ACK) is dropped
        by nft bridge fw, chain in, rule 1 of 1 (handle 2)
        tcp sport 7000 drop
        kernel no answer in T SYN left br0, SYN-ACK came back
        raw timed out after T {host:}:0 > {peer:7000} via {peer}, br0
        proof nft trace{drop NETFILTER_DROP}
        try nft -a list chain bridge fw in",
    );
}

#[test]
fn a_rule_that_may_decide_otherwise() {
    lab!("nft", "nc.openbsd", "socat");
    in_both(
        |scene| {
            scene.nft(
                "table inet fw { chain out { type filter hook output priority 0;
                    tcp dport 7000 limit rate over 1/hour burst 1 packets drop; }; }",
            );
            scene.run("nc.openbsd -z -w1 {peer} 7000");
        },
        11,
        &format!(
            "this host: our SYN is dropped
            by nft inet fw, chain out, rule 1 of 1 (handle 2)
            tcp dport 7000 limit rate over 1/hour burst 1 packets drop
            which the rule may decide otherwise next time
            {SYN}
            try nft -a list chain inet fw out"
        ),
    );
}

#[test]
fn answers_without_a_connection() {
    lab!("nft", "iptables-nft", "socat");
    nft(
        "table inet fw {
            chain raw { type filter hook output priority -300; tcp dport 7000 notrack; };
            chain in { type filter hook input priority 0; ct state invalid drop; }; }",
        11,
        &format!(
            "this host: the answer (SYN-ACK) is dropped
            by nft inet fw, chain in, rule 1 of 1 (handle 4)
            ct state invalid drop
            {ANSWER}
            try nft -a list chain inet fw in"
        ),
    );
    nft(
        "table inet fw {
            chain raw { type filter hook output priority -300; tcp dport 7000 notrack; };
            chain in { type filter hook input priority 0; policy drop;
                ct state established,related accept; iif lo accept; meta l4proto { icmp, ipv6-icmp } accept; }; }",
        11,
        &format!(
            "this host: the answer (SYN-ACK) is dropped by the policy of a chain
            by nft inet fw, chain in: policy drop, none of its 3 rules matched
            {ANSWER}
            try nft -a list chain inet fw in"
        ),
    );
    iptables(
        "{iptables}-nft -t raw -A OUTPUT -p tcp --dport 7000 -j CT --notrack; \
         {iptables}-nft -A INPUT -m conntrack --ctstate INVALID -j DROP",
        11,
        &format!(
            "this host: the answer (SYN-ACK) is dropped
            by {{iptables}} (nft), table filter, chain INPUT, rule 1 of 1 ({{ip}} filter INPUT, handle 2)
            -m conntrack --ctstate INVALID counter drop
            {ANSWER}
            try {{iptables}}-nft -S INPUT 1"
        ),
    );
}

#[test]
fn an_icmp_error_from_beyond() {
    lab!("iptables-nft", "socat");
    in_both(
        |scene| {
            let peer = scene.words("{iptables}-nft -A INPUT -p tcp --dport 7000 -j REJECT");
            scene.pair.peer.run(&peer);
            let v4 = scene.words("{v}") == "-4";
            scene.run(if v4 {
                "iptables-nft -A INPUT -p icmp --icmp-type 3 -j DROP"
            } else {
                "ip6tables-nft -A INPUT -p icmpv6 --icmpv6-type 1 -j DROP"
            });
            let rule = match v4 {
                true => "meta l4proto icmp -m icmp --icmp-type 3",
                false => "meta l4proto ipv6-icmp -m icmp6 --icmpv6-type 1",
            };
            let expected = format!(
                "this host: the ICMP error is dropped
                by {{iptables}} (nft), table filter, chain INPUT, rule 1 of 1 ({{ip}} filter INPUT, handle 2)
                {rule} counter drop
                kernel no answer in T SYN left eth0, ICMP error came back
                raw rejected (ICMP port unreachable) after T {{host:}}:0 > {{peer:7000}} via {{peer}}, eth0
                proof nft trace{{drop NETFILTER_DROP}}
                try {{iptables}}-nft -S INPUT 1"
            );
            scene.expect("-w 2s", 11, &expected);
            scene.run("{iptables}-nft -F INPUT");
        },
        5,
        "not here: {peer} rejected it (ICMP port unreachable)
        kernel rejected (ICMP port unreachable) after T SYN left eth0, ICMP error came back
        raw rejected (ICMP port unreachable) after T {host:}:0 > {peer:7000} via {peer}, eth0",
    );
}

#[test]
fn firewalld_and_ufw_are_known_by_their_names() {
    lab!("nft", "iptables-nft", "socat");
    nft(
        "table inet firewalld {
            chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept;
                ct state { established, related } accept; oifname \"lo\" accept; jump filter_OUTPUT_POLICIES_pre; }
            chain filter_OUTPUT_POLICIES_pre { jump filter_OUTPUT_policy_egress; }
            chain filter_OUTPUT_policy_egress { jump filter_OUTPUT_policy_deny; }
            chain filter_OUTPUT_policy_deny {
                tcp dport 7000 ct state { new, untracked } reject with icmpx type admin-prohibited; }; }",
        11,
        "this host: our SYN is rejected
        by nft inet firewalld, chain filter_OUTPUT_policy_deny, rule 1 of 1 (handle 12), jumped filter_OUTPUT > \
         filter_OUTPUT_POLICIES_pre > filter_OUTPUT_policy_egress > filter_OUTPUT_policy_deny
        tcp dport 7000 ct state { new, untracked } reject with icmpx admin-prohibited
        which firewalld
        kernel rejected (ICMP communication administratively prohibited) after T 1 of 1 SYN stopped before it left
        {raw}
        proof nft trace{drop NETFILTER_DROP}
        try nft -a list chain inet firewalld filter_OUTPUT_policy_deny",
    );
    in_both(
        |scene| {
            let ufw = if scene.words("{v}") == "-4" { "ufw" } else { "ufw6" };
            for chain in ["before-output", "user-output", "after-output"] {
                scene.run(&format!(
                    "{{iptables}}-nft -N {ufw}-{chain}; {{iptables}}-nft -A OUTPUT -j {ufw}-{chain}"
                ));
            }
            scene.run(&format!(
                "{{iptables}}-nft -A {ufw}-user-output -p tcp --dport 7000 -m comment --comment dapp_Deny -j DROP"
            ));
            let expected = format!(
                "this host: our SYN is dropped
                by {{iptables}} (nft), table filter, chain {ufw}-user-output, rule 1 of 1 \
                 ({{ip}} filter {ufw}-user-output, handle 8), jumped to from OUTPUT
                tcp dport 7000 -m comment --comment \"dapp_Deny\" counter drop
                which ufw; comment \"dapp_Deny\"
                {SYN}
                try {{iptables}}-nft -S {ufw}-user-output 1"
            );
            scene.expect("", 11, &expected);
            scene.run("{iptables}-nft -F OUTPUT");
        },
        0,
        "same: nothing on this host stands between it and {peer:7000}
        kernel connected after T SYN left eth0, SYN-ACK came back
        {raw}",
    );
}
