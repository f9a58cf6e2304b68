//! `--compare` on rules and policies rarer than those of firewalls.
use crate::support::{comparison::Scene, process::Output, requirements::lab, topology::Family};

/// Compares with and without drop events, and checks the rule and its proof.
fn names(rules: &str, sentence: &str, place: &str, text: &str) {
    for family in Family::ALL {
        let scene = Scene::new(family);
        scene.nft(rules);
        for (flags, event) in [("", "; drop event NETFILTER_DROP"), ("--without drop-events", "")] {
            let output = scene.compare(&format!("-w 900ms {flags}"));
            assert_eq!(output.code(), Some(11), "{output}");
            let conclusion = format!("this host: {sentence}\n  by      {place}\n");
            assert!(output.text().starts_with(&conclusion), "{conclusion}{output}");
            let text = if text.is_empty() { String::new() } else { format!("\n          {text}\n") };
            assert!(output.text().contains(&text), "{text}{output}");
            has(&output, &["  raw     connected", &format!("  proof   nft trace{event}\n")]);
        }
    }
}

fn has(output: &Output, lines: &[&str]) {
    for line in lines {
        assert!(output.text().contains(line), "{line}\n{output}");
    }
}

#[test]
fn a_tcp_option() {
    lab!("nft", "socat");
    names(
        "table inet fw { chain o { type filter hook output priority 0;
            tcp option timestamp exists tcp dport 7000 drop; }; }",
        "our SYN is dropped",
        "nft inet fw, chain o, rule 1 of 1 (handle 2)",
        "tcp option timestamp exists tcp dport 7000 drop",
    );
}

#[test]
fn a_quota() {
    lab!("nft", "socat");
    names(
        "table inet fw { chain o { type filter hook output priority 0; tcp dport 7000 quota over 1 bytes drop; }; }",
        "our SYN is dropped",
        "nft inet fw, chain o, rule 1 of 1 (handle 2)",
        "tcp dport 7000 quota over 1 bytes drop",
    );
}

#[test]
fn ingress_of_family_inet() {
    lab!("nft", "socat");
    names(
        "table inet fw { chain i { type filter hook ingress device \"eth0\" priority 0; tcp sport 7000 drop; }; }",
        "the answer (SYN-ACK) is dropped",
        "nft inet fw, chain i, rule 1 of 1 (handle 2)",
        "tcp sport 7000 drop",
    );
}

/// A packet that `goto` sends to another chain skips the rules behind.
#[test]
fn a_policy_after_goto() {
    lab!("nft", "socat");
    names(
        "table inet fw { chain sub { tcp dport 22 accept; };
            chain o { type filter hook output priority 0; policy drop; tcp dport 7000 goto sub; accept; }; }",
        "our SYN is dropped by the policy of a chain",
        "nft inet fw, chain o: policy drop, none of its 2 rules decided",
        "",
    );
}

#[test]
fn a_number_of_connections() {
    lab!("nft", "socat");
    names(
        "table inet fw { chain o { type filter hook output priority 0; tcp dport 7000 ct count over 0 drop; }; }",
        "our SYN is dropped",
        "nft inet fw, chain o, rule 1 of 1 (handle 2)",
        "tcp dport 7000 ct count over 0 drop",
    );
}

#[test]
fn a_rule_that_fills_a_set() {
    lab!("nft", "socat");
    names(
        "table inet fw { set m { type inet_service; flags dynamic; size 64; };
            chain o { type filter hook output priority 0;
                tcp dport 7000 tcp flags syn add @m { tcp dport } counter drop; }; }",
        "our SYN is dropped",
        "nft inet fw, chain o, rule 1 of 1 (handle 3)",
        "tcp dport 7000 tcp flags syn add @m { tcp dport } counter drop",
    );
}

#[test]
fn a_mark_of_the_connection() {
    lab!("nft", "socat");
    names(
        "table inet fw { chain o { type filter hook output priority 0;
            tcp dport 7000 ct state new ct mark set 1; ct mark 1 meta l4proto tcp drop; }; }",
        "our SYN is dropped",
        "nft inet fw, chain o, rule 2 of 2 (handle 3)",
        "ct mark 0x00000001 meta l4proto tcp drop",
    );
}

#[test]
fn a_look_up_of_the_answers_source() {
    lab!("nft", "socat");
    names(
        "table inet fw { chain i { type filter hook input priority 0; tcp sport 7000 fib saddr type unicast drop; }; }",
        "the answer (SYN-ACK) is dropped",
        "nft inet fw, chain i, rule 1 of 1 (handle 2)",
        "tcp sport 7000 fib saddr type unicast drop",
    );
}

#[test]
fn a_policy_rule_for_a_range_of_users() {
    lab!("socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        scene.run("ip {v} rule add uidrange 1337-1337 prohibit");
        assert_eq!(scene.compare("").code(), Some(0));
        let output = scene.compare("--user 1337");
        assert_eq!(output.code(), Some(11), "{output}");
        has(
            &output,
            &[
                "this host: no packet was made\n",
                "  by      policy rule \"from all uidrange 1337-1337 prohibit\"\n",
                "  proof   connect() says EACCES; route look-up\n",
            ],
        );
    }
}

/// The drop event alone proves a policy for incoming packets; one for outgoing packets fails
/// connect(2).
#[test]
fn an_ipsec_policy() {
    lab!("socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        scene.run("ip xfrm policy add dir in src {peer} dst {host} proto tcp action block");
        let output = scene.compare("-w 900ms");
        assert_eq!(output.code(), Some(11), "{output}");
        has(
            &output,
            &[
                "this host: the answer (SYN-ACK) is dropped\n",
                "  by      the kernel: an IPsec policy refuses it (XFRM_POLICY at tcp_v",
                "  proof   drop event XFRM_POLICY\n",
                "  try     ip xfrm policy\n",
            ],
        );
        let without = scene.compare("-w 900ms --without drop-events");
        assert_eq!(without.code(), Some(14), "{without}");
        scene.run(
            "ip xfrm policy flush; ip xfrm policy add dir out src {host} dst {peer} proto tcp action block",
        );
        let output = scene.compare("-w 900ms");
        assert_eq!(output.code(), Some(11), "{output}");
        has(&output, &["connect() is refused before any packet\n", "one of: ", ", an IPsec policy, "]);
    }
}
