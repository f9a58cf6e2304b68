//! A port that rules of this host translate belongs to a service, although no socket holds it:
//! netkat names the rule and leaves the port alone.
use crate::support::{
    namespace::Namespace,
    netkat::{listening, netkat},
    process::{DEADLINE, Input},
    requirements::lab,
    rules::nft,
    topology::{Family, Pair, at},
};
use nix::sys::signal::Signal;

/// The tools that set rules.
const TOOLS: [&str; 3] = ["iptables-nft", "iptables-legacy", "nft"];

/// Translates a port at prerouting or output. Returns netkat's name for the rule.
fn translate(
    host: &Namespace,
    tool: &str,
    chain: &str,
    family: Family,
    protocol: &str,
    ports: &str,
) -> String {
    let elsewhere = at(family, "10.77.0.99", "fd77::99");
    if tool == "nft" {
        let (word, hook) = if family == Family::V4 { ("ip", chain) } else { ("ip6", chain) };
        let ports = ports.replace(':', "-");
        let rule = format!("{protocol} dport {ports} dnat {word} to {elsewhere}");
        let hook = format!("type nat hook {} priority -100", hook.to_lowercase());
        nft(host, &format!("table inet services {{ chain published {{ {hook}; {rule}; }}; }}"));
        return "nftables, table inet services, chain published, rule 1 (handle ".to_owned();
    }
    let program = if family == Family::V4 { tool.to_owned() } else { tool.replace("ip", "ip6") };
    let destination = format!("--to-destination {elsewhere}");
    host.run(&format!("{program} -w -t nat -A {chain} -p {protocol} --dport {ports} -j DNAT {destination}"));
    let (program, back_end) = program.split_once('-').expect("a back end");
    format!("{program} ({back_end}), table nat, chain {chain}, rule 1: DNAT to {elsewhere}.")
}

#[test]
fn a_translated_port_is_refused_and_the_rule_is_named() {
    lab!("nft", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft");
    for tool in TOOLS {
        for family in Family::ALL {
            for protocol in ["tcp", "udp"] {
                let pair = Pair::new();
                let rule = translate(&pair.host, tool, "PREROUTING", family, protocol, "5000:5009");
                let flag = if protocol == "udp" { "-u" } else { "" };
                let own = pair.host_address(family);
                for place in ["5000".to_owned(), format!("{own} 5009")] {
                    let refused = netkat(&pair.host, &format!("-l {flag} {place}")).run();
                    assert_eq!(refused.code(), Some(1), "{tool}, {family:?}: {refused}");
                    let port = place.split(' ').next_back().expect("a port");
                    let told = format!(
                        "port {port} of {own} is translated before it reaches this host's sockets: {rule}"
                    );
                    assert!(refused.stderr.contains(&told), "{tool}: {refused}, not {told}");
                    assert!(refused.stderr.contains("--force"), "{refused}");
                }
                // Other ports, the other protocol and the other family are free, and --force takes
                // the port itself.
                let other = if protocol == "udp" { "" } else { "-u" };
                let version = if family == Family::V4 { "-6" } else { "-4" };
                for line in [
                    format!("{flag} {own} 5010"),
                    format!("{other} {own} 5000"),
                    format!("{flag} {version} 5000"),
                    format!("{flag} --force {own} 5000"),
                ] {
                    let server = listening(&pair.host, &line, |c| c.input(Input::Open));
                    server.signal(Signal::SIGTERM);
                    server.wait(DEADLINE);
                }
            }
        }
    }
}

/// nat OUTPUT concerns only packets that this host sends, and no rule sees packets for an assumed
/// address.
#[test]
fn rules_that_do_not_see_our_clients_are_no_obstacle() {
    lab!("nft", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft");
    for tool in TOOLS {
        for family in Family::ALL {
            let pair = Pair::new();
            translate(&pair.host, tool, "OUTPUT", family, "tcp", "5000");
            let own = pair.host_address(family);
            let local = at(family, "127.0.0.1", "::1");
            let assumed = at(family, "10.77.0.50", "fd77::50");
            let all = pair.host.run("nft list ruleset").text();
            let pre = Pair::new();
            translate(&pre.host, tool, "PREROUTING", family, "tcp", "5000");
            for (pair, line) in [
                (&pair, format!("{own} 5000")),
                (&pre, format!("{local} 5000")),
                (&pre, format!("--as {assumed} 5000")),
            ] {
                let server = listening(&pair.host, &line, |c| c.input(Input::Open));
                server.signal(Signal::SIGTERM);
                server.wait(DEADLINE);
            }
            // A look changes nothing.
            assert_eq!(pair.host.run("nft list ruleset").text(), all);
        }
    }
}
