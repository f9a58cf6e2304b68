//! The place of a connection's guard: netfilter, unless a foreign program, a rule or a bridge comes before it.
use crate::support::{
    namespace::Namespace,
    netkat::netkat,
    payload::{MIB, Payload},
    peers::Netcat,
    process::DEADLINE,
    programs::{self, Direction, TC_ACT_UNSPEC},
    requirements::lab,
    rules::nft,
    topology::{Family, Pair, address, veth},
    witness::Witness,
};
use std::net::IpAddr;

/// Connects from `host` to a kernel server in `peer` with this flag and exchanges data. Returns the guard's name.
fn guard(host: &Namespace, peer: &Namespace, at: IpAddr, flag: &str) -> String {
    let (out, back) = (Payload::new(60, MIB), Payload::new(61, MIB));
    let witness = Witness::of_resets_and_errors(peer, 5000);
    let server = Netcat::Socat.listen(peer, at, 5000, |c| c.input(back.input()).expect(&out));
    let client = netkat(host, &format!("-v {flag} {at} 5000")).input(out.input()).expect(&back).run();
    assert_eq!(client.code(), Some(0), "{client}");
    client.check(&back);
    server.wait(DEADLINE).check(&out);
    witness.saw_nothing();
    let line = client.stderr.lines().find_map(|line| line.split_once("guard attached: "));
    let name = line.and_then(|(_, line)| line.split_once(" (")).map(|(_, name)| name.trim_end_matches(')'));
    name.unwrap_or_else(|| panic!("no guard is named: {client}")).to_owned()
}

#[test]
fn one_connection_is_guarded_at_netfilter() {
    lab!("socat", "tcpdump");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        for (flag, expected) in
            [("", "Netfilter"), ("--guard netfilter", "Netfilter"), ("--guard tcx", "Tcx")]
        {
            assert_eq!(guard(&pair.host, &pair.peer, at, flag), expected, "{at} {flag}");
        }
    }
}

/// A rule that rejects would answer with a reset before PREROUTING.
#[test]
fn behind_rules_at_ingress_it_is_guarded_before_them() {
    lab!("socat", "tcpdump", "nft");
    for table in ["netdev", "inet"] {
        let pair = Pair::new();
        let rules =
            "type filter hook ingress device \"eth0\" priority 0; meta l4proto tcp reject with tcp reset;";
        nft(&pair.host, &format!("table {table} lab {{ chain c {{ {rules} }}; }}"));
        for family in Family::ALL {
            let at = pair.peer_address(family);
            assert!(!crate::support::peers::kernel_connects(&pair.host, at, 4000), "{table}");
            assert_eq!(guard(&pair.host, &pair.peer, at, ""), "Tcx", "{table} {at}");
        }
    }
}

#[test]
fn behind_a_foreign_program_it_is_guarded_before_it() {
    lab!("socat", "tcpdump");
    let pair = Pair::new();
    let program = programs::classifier("lab_foreign", TC_ACT_UNSPEC);
    let Some(link) = programs::attach_tcx(&program, &pair.host, "eth0", Direction::Ingress) else { return };
    let at = pair.peer_address(Family::V4);
    assert_eq!(guard(&pair.host, &pair.peer, at, ""), "Tcx");
    drop(link);
    assert_eq!(guard(&pair.host, &pair.peer, at, ""), "Netfilter");
    programs::attach_clsact(&program, &pair.host, "eth0", Direction::Ingress, 1);
    assert_eq!(guard(&pair.host, &pair.peer, at, ""), "Tcx");
}

/// A bridge of this host shows its packets to PREROUTING before they come to the interface behind it.
#[test]
fn behind_a_bridge_of_this_host_packets_still_arrive() {
    lab!("socat", "tcpdump");
    let pair = Pair::new();
    for call in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        if pair.host.words(&format!("sysctl -qw net.bridge.{call}=1")).run().code() != Some(0) {
            return crate::support::requirements::lacking("guard_choice", "this kernel has no br_netfilter");
        }
    }
    for v in ["-4", "-6"] {
        pair.host.ip(&format!("{v} address flush dev eth0"));
    }
    pair.host.ip("link add br0 type bridge");
    veth(&pair.host, "own0", &pair.host, "port0");
    for port in ["eth0", "port0"] {
        pair.host.ip(&format!("link set {port} master br0"));
    }
    pair.host.ip("link set br0 up");
    address(&pair.host, "own0", "10.77.0.1/24");
    address(&pair.host, "own0", "fd77::1/64");
    for family in Family::ALL {
        assert_eq!(guard(&pair.host, &pair.peer, pair.peer_address(family), ""), "Tcx");
    }
    for arguments in ["10.77.0.2", "-l 10.77.0.1"] {
        let refused = netkat(&pair.host, &format!("--guard netfilter {arguments} 5000")).run();
        assert_eq!(refused.code(), Some(1), "{refused}");
        assert!(refused.stderr.contains("it is for one connection to a known peer"), "{refused}");
    }
}
