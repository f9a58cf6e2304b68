//! A name with several addresses: netkat tries them side by side, one wins, and nothing of the
//! others is left.
use crate::support::{
    files::SystemFile,
    netkat::{GUARDS, netkat},
    payload::Payload,
    peers::Netcat,
    process::{DEADLINE, Output},
    requirements::lab,
    rules::nft,
    topology::{Family, Pair},
    traces::{settles, traces},
    witness::Witness,
};
use std::time::Duration;

fn hosts(text: &str) -> SystemFile {
    SystemFile::new("/etc/hosts", text)
}

fn report(output: &Output) -> serde_json::Value {
    let line =
        output.stderr.lines().rfind(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{output}"));
    serde_json::from_str(line).expect("JSON")
}

/// A firewall that drops one family costs a quarter of a second instead of the whole -w, and the
/// loser is silent from then on.
#[test]
fn a_family_that_is_dropped_does_not_delay_the_other() {
    lab!("nft", "socat", "tcpdump", "unshare");
    for (dropped, works) in [(Family::V6, Family::V4), (Family::V4, Family::V6)] {
        let pair = Pair::new();
        let before = traces(&pair.host);
        let out = Payload::short();
        let [dead, alive] = [dropped, works].map(|family| pair.peer_address(family));
        let names = format!("{dead} both\n{alive} both\n");
        let family = if dropped == Family::V6 { "ip6" } else { "ip" };
        nft(
            &pair.peer,
            &format!(
                "table {family} lab {{ chain c {{ type filter hook input priority 0; tcp dport 5000 drop; }}; }}"
            ),
        );
        let witness = Witness::incoming(&pair.host, "eth0", "tcp and port 5000");
        let server = Netcat::Socat.listen(&pair.peer, alive, 5000, |c| c.expect(&out));
        let hosts = hosts(&names);
        let client = hosts.netkat(&pair.host, "--json -w 20 both 5000").input(out.input()).run();
        assert_eq!(client.code(), Some(0), "{client}");
        assert!(client.elapsed < Duration::from_secs(5), "{client}");
        server.wait(DEADLINE).check(&out);
        let report = report(&client);
        let remote = std::net::SocketAddr::new(alive, 5000).to_string();
        assert_eq!(report["flow"]["remote"], remote, "{report}");
        let attempts = report["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 2, "{report}");
        let winner = attempts.iter().find(|attempt| attempt["remote"] == *remote).expect("the winner");
        assert_eq!(winner["verdict"], "done", "{report}");
        assert!(witness.finish().lines().count() > 2);
        settles(|| traces(&pair.host) == before, || traces(&pair.host));
    }
}

/// A late SYN-ACK of a losing address is reset, so the peer keeps no half-open connection.
#[test]
fn the_loser_is_reset() {
    lab!("socat", "nft", "tcpdump", "unshare", "ss");
    let pair = Pair::new();
    // The path loses the peer's first SYN-ACK over IPv6; the second comes a second later, when IPv4
    // has won.
    nft(
        &pair.peer,
        "table ip6 lab { chain c { type filter hook output priority 0; tcp sport 5000 limit rate 1/day burst 1 packets drop; }; }",
    );
    let _late = Netcat::Socat.listen(&pair.peer, pair.peer_address(Family::V6), 5000, |c| c);
    let mut early = pair
        .peer
        .command("socat")
        .args(["-t10", "TCP4-LISTEN:5000,fork,reuseaddr,bind=10.77.0.2", "EXEC:sleep 2.5"])
        .spawn();
    early.wait_until("both listen", |_| pair.peer.run("ss -Hltn sport = :5000").text().lines().count() == 2);
    let hosts = hosts("fd77::2 both\n10.77.0.2 both\n");
    let witness = Witness::all(&pair.peer, "eth0", "ip6 and tcp port 5000");
    let client = hosts.netkat(&pair.host, "--json both 5000").run();
    assert_eq!(client.code(), Some(0), "{client}");
    assert_eq!(report(&client)["flow"]["remote"], "10.77.0.2:5000", "{client}");
    let seen = witness.finish();
    assert!(seen.contains("Flags [S]") && seen.contains("Flags [R"), "{seen}");
    assert_eq!(pair.peer.run("ss -Htn6 state connected").text(), "", "{seen}");
}

/// Every address has its line and its object, and the verdict is that of the address that came
/// furthest.
#[test]
fn if_none_answers_each_address_is_told() {
    lab!("nft", "unshare");
    let pair = Pair::new();
    let hosts = hosts(
        "fd77::2 shut\n10.77.0.2 shut\n10.77.0.50 gone\nfd77::50 gone\n192.0.2.1 far\nfd99::1 far\nfd77::50 mixed\n10.77.0.2 mixed\n",
    );
    for (name, status, words) in
        [("shut", 4, "refused"), ("gone", 6, "no_neighbour"), ("far", 6, "no_route"), ("mixed", 4, "refused")]
    {
        for more in ["", "-4 "] {
            let output =
                hosts.netkat(&pair.host, &format!("--json --exit-verdict -w 2 {more}{name} 5000")).run();
            assert_eq!(output.code(), Some(status), "{output}");
            let report = report(&output);
            let plain = hosts.netkat(&pair.host, &format!("-w 2 {more}{name} 5000")).run();
            let lines: Vec<_> = plain.stderr.lines().collect();
            assert_eq!(
                (&report["verdict"], &report["asked"]["host"]),
                (&words.into(), &name.into()),
                "{output}"
            );
            assert_eq!(output.stderr.lines().count(), 1, "the object alone: {output}");
            match more {
                "" => {
                    assert_eq!(lines.len(), 3, "{plain}");
                    assert!(lines[2].contains("none of its 2 addresses"), "{plain}");
                    let attempts = report["attempts"].as_array().expect("attempts");
                    assert!(attempts.iter().all(|attempt| attempt["error"].is_string()), "{output}");
                    assert_eq!(attempts.len(), 2, "{output}");
                }
                // A single address has the error of an address.
                _ => {
                    assert_eq!(lines.len(), 1, "{plain}");
                    assert!(report.get("attempts").is_none(), "{output}");
                }
            }
        }
    }
    let output = hosts.netkat(&pair.host, "-u -w 1 gone 5000").text("x").run();
    assert_eq!(output.code(), Some(1), "{output}");
    assert!(output.stderr.contains("fd77::50") && output.stderr.contains("10.77.0.50"), "{output}");
    let output = hosts.netkat(&pair.host, "-z -w 1 far 5000").run();
    assert!(output.stderr.contains("fd99::1") && output.stderr.contains("192.0.2.1"), "{output}");
}

/// The race holds one port for all addresses, -p's as well, and a signal ends it like any other
/// wait.
#[test]
fn a_race_that_is_interrupted_leaves_nothing() {
    lab!("nft", "unshare");
    let pair = Pair::new();
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 5000 drop; }; }",
    );
    let hosts = hosts("fd77::2 both\n10.77.0.2 both\n");
    for guard in GUARDS {
        let before = traces(&pair.host);
        let mut client =
            hosts.netkat(&pair.host, &format!("-v --guard {guard} -p 4444 -w -1 both 5000")).spawn();
        client.wait_for_stderr("dialing 10.77.0.2");
        assert!(
            client.stderr().contains("dialing [fd77::2]:5000 from [fd77::1]:4444"),
            "{}",
            client.stderr()
        );
        client.signal(nix::sys::signal::Signal::SIGINT);
        assert_eq!(client.wait(DEADLINE).signal(), Some(2));
        settles(|| traces(&pair.host) == before, || traces(&pair.host));
    }
}

/// An assumed address resolves its next hops itself.
#[test]
fn another_host_has_its_race_too() {
    lab!("socat", "unshare");
    let pair = Pair::new();
    let out = Payload::short();
    let hosts = hosts("10.77.0.50 two\n10.77.0.2 two\n");
    let server = Netcat::Socat.listen(&pair.peer, pair.peer_address(Family::V4), 5000, |c| c.expect(&out));
    let client = hosts.netkat(&pair.host, "--as 10.77.0.9 -w 1 two 5000").input(out.input()).run();
    assert_eq!(client.code(), Some(0), "{client}");
    server.wait(DEADLINE).check(&out);
    let output = netkat(&pair.host, "-n 10.77.0.2 5001").run();
    assert_eq!(output.code(), Some(1), "{output}");
}
