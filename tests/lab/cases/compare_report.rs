//! Promises of `--compare` beside its answers: JSON by its schema, statuses, privileges, harmless
//! foreign text, and nothing left.
use crate::support::{
    comparison::{PORT, Scene},
    netkat::{PROGRAM, netkat},
    process::DEADLINE,
    programs::{is_loaded, programs_of},
    requirements::lab,
    topology::Family,
    traces::settles,
};
use serde_json::Value;

/// Compares, and returns the object, which the harness has checked by its schema.
fn object(scene: &Scene, flags: &str) -> Value {
    let peer = scene.pair.peer_address(scene.family);
    let output = netkat(&scene.pair.host, &format!("--compare --json {flags} {peer} {PORT}")).run();
    let line = output.stderr.lines().last().unwrap_or_else(|| panic!("{output}"));
    let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"));
    object
}

#[test]
fn the_object_follows_its_schema() {
    lab!("iptables-nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        let same = object(&scene, "");
        assert_eq!((&same["difference"], &same["culprits"]), (&"same".into(), &Value::Array(Vec::new())));
        assert_eq!(same["kernel"]["local"], same["raw"]["flow"]["local"], "the same five-tuple");
        assert_eq!(same["sources"]["nft_trace"]["lost"], false);

        scene.run(
            "{iptables}-nft -t nat -A OUTPUT -p tcp --dport 7000 -j DNAT --to-destination {other}; \
             {iptables}-nft -A INPUT -p tcp -m comment --comment blk -j DROP",
        );
        let stopped = object(&scene, "--user 1337");
        assert_eq!(stopped["difference"], "this_host");
        assert_eq!(stopped["probe"]["user"], 1337);
        let rule = &stopped["culprits"][0];
        for (field, value) in [
            ("action", "drop"),
            ("packet", "syn_ack"),
            ("direction", "in"),
            ("hook", "input"),
            ("kind", "nft_rule"),
            ("table", "filter"),
            ("chain", "INPUT"),
            ("comment", "blk"),
            ("certainty", "proven"),
        ] {
            assert_eq!(rule[field], value, "{field}: {rule:#}");
        }
        assert_eq!((&rule["position"], &rule["rules"]), (&1.into(), &1.into()));
        assert_eq!(stopped["culprits"][1]["action"], "translate");
        assert_eq!(stopped["kernel"]["translated_to"], scene.words("{other}"));
    }
}

#[test]
fn without_exit_verdict_a_difference_is_one() {
    lab!("iptables-nft", "socat");
    let scene = Scene::new(Family::V4);
    let peer = scene.pair.peer_address(Family::V4);
    let status = || netkat(&scene.pair.host, &format!("--compare {peer} {PORT}")).run().code();
    assert_eq!(status(), Some(0));
    scene.run("iptables-nft -A OUTPUT -p tcp -j DROP");
    assert_eq!(status(), Some(1));
}

/// Two trials reveal a rule that stops every second packet; one does not.
#[test]
fn trials_are_counted() {
    lab!("nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        scene.nft(
            "table inet fw { chain out { type filter hook output priority 0;
                tcp dport 7000 tcp flags syn numgen inc mod 4 < 2 drop; }; }",
        );
        let output = scene.compare("--trials 4 -w 900ms");
        let sentence = output.text().lines().next().unwrap_or_default().to_owned();
        assert_eq!(sentence, "this host: our SYN is dropped, in 2 of 4 trials", "{output}");
        assert_eq!(output.code(), Some(11), "{output}");
        assert_eq!(object(&scene, "--trials 3 -w 900ms")["probe"]["trials"], 3);
    }
    let scene = Scene::new(Family::V4);
    assert_eq!(object(&scene, "")["probe"]["trials"], 1);
    let refused = netkat(&scene.pair.host, "--compare --trials 0 10.77.0.2 7000").run();
    assert_eq!(refused.code(), Some(2), "{refused}");
}

/// Before Linux 5.12 tables have no owner; the rules then look into a set that times out.
#[test]
fn without_owners_it_says_the_same_and_leaves_nothing() {
    lab!("iptables-nft", "nft", "socat");
    for family in Family::ALL {
        let scene = Scene::new(family);
        scene.run("{iptables}-nft -A OUTPUT -p tcp --dport 7000 -j DROP");
        let before = scene.pair.host.run("nft -s list ruleset").text();
        let with = scene.compare("");
        let without = scene.compare("--without owner");
        let place = |text: String| text.lines().take(3).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(place(with.text()), place(without.text()), "{without}");
        assert_eq!(without.code(), Some(11), "{without}");
        crate::support::comparison::wait_until_equal("the ruleset", &before, || {
            scene.pair.host.run("nft -s list ruleset").text()
        });
    }
}

/// No table and no program stays, however a run ends: a killed run's go with their descriptors.
#[test]
fn nothing_is_left_however_it_ends() {
    lab!("iptables-nft", "nft", "socat");
    let scene = Scene::new(Family::V4);
    scene.run("iptables-nft -A INPUT -p tcp --sport 7000 -j DROP");
    let rules = || scene.pair.host.run("nft -s list ruleset").text();
    let before = rules();
    let sockets = || scene.pair.host.run("ss -Htan").text();
    for signal in [nix::sys::signal::SIGINT, nix::sys::signal::SIGTERM, nix::sys::signal::SIGKILL] {
        let peer = scene.pair.peer_address(Family::V4);
        let mut run = netkat(&scene.pair.host, &format!("--compare {peer} {PORT}")).spawn();
        run.wait_until("the trace table", |_| rules().contains("netkat-trace-"));
        let mut programs = Vec::new();
        run.wait_until("the program of drop events", |run| {
            programs = programs_of(run.id());
            !programs.is_empty()
        });
        assert!(programs.iter().all(|id| is_loaded(*id)), "{programs:?}");
        run.signal(signal);
        assert_eq!(run.wait(DEADLINE).signal(), Some(signal as i32));
        settles(|| !programs.iter().any(|id| is_loaded(*id)), || format!("{programs:?} are loaded"));
        crate::support::comparison::wait_until_equal("the ruleset", &before, rules);
        crate::support::comparison::wait_until_equal("the sockets", "", sockets);
    }
}

/// A table without an owner marks nothing soon after a kill, and the next run removes it.
#[test]
fn a_killed_run_without_owners_is_repaired_by_the_next() {
    lab!("iptables-nft", "nft", "socat");
    let scene = Scene::new(Family::V4);
    scene.run("iptables-nft -A INPUT -p tcp --sport 7000 -j DROP");
    let rules = || scene.pair.host.run("nft -s list ruleset").text();
    let before = rules();
    let peer = scene.pair.peer_address(Family::V4);
    let line = format!("--compare --without owner -w 1s {peer} {PORT}");
    let mut run = netkat(&scene.pair.host, &line).spawn();
    run.wait_until("the trace table", |_| rules().contains("netkat-trace-"));
    run.signal(nix::sys::signal::SIGKILL);
    run.wait(DEADLINE);
    assert!(rules().contains("timeout"), "{}", rules());
    assert_eq!(netkat(&scene.pair.host, &line).run().code(), Some(1));
    crate::support::comparison::wait_until_equal("the ruleset", &before, rules);
}

#[test]
fn foreign_text_is_harmless() {
    lab!("nft", "socat");
    let scene = Scene::new(Family::V4);
    // nft takes any bytes but quotes in a comment.
    let comment = format!("\u{1b}]0;title\u{7}{}", "x".repeat(100));
    scene.nft(&format!(
        "table inet fw {{ chain out {{ type filter hook output priority 0; tcp dport 7000 drop comment \"{comment}\"; }}; }}"
    ));
    let output = scene.compare("");
    let text = output.text();
    assert_eq!(output.code(), Some(11), "{output}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.lines().all(|line| line.chars().count() <= 200), "{text}");
    let culprit = object(&scene, "")["culprits"][0].clone();
    assert!(!culprit["comment"].as_str().expect("a comment").contains(char::is_control), "{culprit}");
}

#[test]
fn a_missing_capability_is_named() {
    lab!("iptables-nft", "setpriv", "socat");
    let scene = Scene::new(Family::V4);
    let peer = scene.pair.peer_address(Family::V4);
    for (held, missing) in [("net_raw,+bpf", "CAP_NET_ADMIN"), ("net_admin,+bpf", "CAP_NET_RAW")] {
        let refused = scene
            .pair
            .host
            .words(&format!("setpriv --bounding-set -all,+{held} {PROGRAM} --compare {peer} {PORT}"))
            .run();
        assert_eq!(refused.code(), Some(1), "{refused}");
        assert!(refused.stderr.contains(&format!("needs {missing} to ")), "{refused}");
    }
    // Without CAP_PERFMON there are no drop events; -v and the object say so.
    scene.run("iptables-nft -A OUTPUT -p tcp --dport 7000 -j DROP");
    let line = format!(
        "setpriv --bounding-set -all,+net_raw,+net_admin,+bpf {PROGRAM} --compare -v --json {peer} {PORT}"
    );
    let unprivileged = scene.pair.host.words(&line).run();
    assert!(unprivileged.text().contains("  proof   nft trace\n"), "{unprivileged}");
    assert!(unprivileged.stderr.contains("drop events: needs CAP_PERFMON"), "{unprivileged}");
    assert!(
        unprivileged.stderr.contains("\"drop_events\":{\"used\":false,\"why\":\"needs"),
        "{unprivileged}"
    );
    scene.run("iptables-nft -F OUTPUT");
    // Without CAP_BPF rules of nftables keep the kernel from netkat's own path.
    let without = scene
        .pair
        .host
        .words(&format!("setpriv --bounding-set -all,+net_raw,+net_admin {PROGRAM} --compare {peer} {PORT}"))
        .run();
    assert!(without.text().contains("  raw     connected after"), "{without}");
}
