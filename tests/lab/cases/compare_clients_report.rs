//! Promises of `--compare -l` beside its answers: JSON by its schema, privileges, harmless foreign text, and nothing left.
use crate::support::{
    client_watch::Stage,
    comparison::{PORT, wait_until_equal},
    netkat::{PROGRAM, netkat},
    process::DEADLINE,
    programs::program_exists,
    requirements::lab,
    rules::nft,
    topology::Family,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

#[test]
fn the_object_follows_its_schema() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        let object = |flags: &str| {
            let output = stage.watch(&format!("--json {flags}"), Stage::client);
            let line = output.stderr.lines().last().unwrap_or_else(|| panic!("{output}"));
            let object: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"));
            object
        };
        let answered = object("");
        assert_eq!(answered["schema"], "netkat.reachability/1");
        assert_eq!(
            (&answered["outcome"], &answered["causes"][0]["culprit"]),
            (&"answered".into(), &Value::Null)
        );
        assert_eq!(
            (&answered["asked"]["mode"], &answered["asked"]["port"]),
            (&"compare".into(), &PORT.into())
        );
        assert_eq!(answered["listeners"][0]["address"], "[::]:7000");
        assert_eq!(answered["sources"]["nft_trace"]["lost"], false);

        stage.run("{iptables}-nft -A INPUT -p tcp --dport 7000 -m comment --comment blk -j DROP");
        let stopped = object(&stage.words("{server}"));
        assert_eq!(stopped["asked"]["host"], stage.words("{server}"));
        let cause = &stopped["causes"][0];
        assert_eq!((&stopped["outcome"], &cause["clients"]), (&"this_host".into(), &1.into()));
        assert_eq!(cause["addresses"][0], stage.words("{client}"));
        assert_eq!(cause["interfaces"][0], "eth0");
        for (field, value) in [
            ("action", "drop"),
            ("packet", "syn"),
            ("direction", "in"),
            ("interface", "eth0"),
            ("hook", "input"),
            ("kind", "nft_rule"),
            ("table", "filter"),
            ("chain", "INPUT"),
            ("comment", "blk"),
            ("certainty", "proven"),
        ] {
            assert_eq!(cause["culprit"][field], value, "{field}: {cause:#}");
        }
    }
}

#[test]
fn statuses_without_exit_verdict() {
    lab!("socat");
    let stage = Stage::new(Family::V4);
    let output = netkat(&stage.pair.host, &format!("--compare -l -w 300ms {PORT}")).run();
    assert_eq!(output.code(), Some(1), "{output}");
}

/// --once ends the watch after the first proof, long before -w.
#[test]
fn one_proof_is_enough() {
    lab!("iptables-nft", "socat", "nc.openbsd");
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        stage.run("{iptables}-nft -A INPUT -p tcp --dport 7000 -j DROP");
        let watch = stage.start("--once -w 10m");
        stage.client();
        let output = watch.wait(DEADLINE);
        assert_eq!(output.code(), Some(11), "{output}");
    }
}

/// No table stays, however a run ends. A killed run's table goes with its socket; one without an owner marks nothing 5 s
/// later, and the next run removes it.
#[test]
fn nothing_is_left_however_it_ends() {
    lab!("iptables-nft", "nft");
    let stage = Stage::new(Family::V4);
    let host = &stage.pair.host;
    stage.run("{iptables}-nft -A INPUT -p tcp --dport 7000 -j DROP");
    let rules = || host.run("nft -s list ruleset").text();
    let before = rules();
    let sockets = || host.run("ss -Htan").text() + &host.run("ss -H0").text();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let watch = stage.start("");
        assert!(rules().contains("netkat-trace-"), "{}", rules());
        watch.signal(signal);
        let output = watch.wait(DEADLINE);
        let killed = (signal == Signal::SIGKILL).then_some(signal as i32);
        assert_eq!(output.signal(), killed, "{output}");
        wait_until_equal("the ruleset", &before, rules);
        wait_until_equal("the sockets", "", sockets);
    }
    let watch = stage.start("--without owner");
    let marks = || host.run("nft list ruleset").text().contains("expires");
    assert!(marks(), "{}", rules());
    watch.signal(Signal::SIGKILL);
    watch.wait(DEADLINE);
    wait_until_equal("the element that keeps the rules in force", "false", || marks().to_string());
    assert!(rules().contains("netkat-trace-"), "{}", rules());
    assert_eq!(stage.watch("--without owner", |_| {}).code(), Some(3));
    wait_until_equal("the ruleset", &before, rules);
}

/// The rules of a table without an owner stay in force for as long as the watch lasts.
#[test]
fn a_long_watch_keeps_its_rules() {
    lab!("iptables-nft", "nft", "socat", "nc.openbsd");
    let stage = Stage::new(Family::V6);
    let _server = stage.serve();
    stage.run("{iptables}-nft -A INPUT -p tcp --dport 7000 -j DROP");
    let mut watch = stage.start("--without owner");
    // Longer than an element lives that nobody replaces.
    let start = Instant::now();
    watch.wait_until("more than an element's lifetime", |_| start.elapsed() > Duration::from_secs(6));
    stage.client();
    watch.signal(Signal::SIGINT);
    let output = watch.wait(DEADLINE);
    assert!(output.text().contains("  proof   nft trace; drop event NETFILTER_DROP\n"), "{output}");
}

/// The program of the drop events goes with netkat's last descriptor of it.
#[test]
fn no_program_stays_after_a_kill() {
    lab!("socat");
    let stage = Stage::new(Family::V4);
    for start in [
        Box::new(|| stage.start("")) as Box<dyn Fn() -> crate::support::process::Process>,
        Box::new(|| {
            // The client's half, which waits for a silent host.
            let line = format!("--compare -w 20s 10.77.0.77 {PORT}");
            stage.pair.host.ip("neigh replace 10.77.0.77 lladdr 02:00:77:00:00:77 dev eth0");
            netkat(&stage.pair.host, &line).spawn()
        }),
    ] {
        let mut run = start();
        let id = run.id();
        let mut programs = BTreeSet::new();
        run.wait_until("programs", |_| {
            programs = programs_of(id);
            !programs.is_empty()
        });
        assert!(programs.iter().all(|program| program_exists(*program)), "{programs:?}");
        run.signal(Signal::SIGKILL);
        assert_eq!(run.wait(DEADLINE).signal(), Some(Signal::SIGKILL as i32));
        wait_until_equal("the programs", "[]", || {
            let left: Vec<_> = programs.iter().filter(|program| program_exists(**program)).collect();
            format!("{left:?}")
        });
    }
}

/// Returns the ids of the programs that a process holds, as its descriptors name them (proc_pid_fdinfo(5)).
fn programs_of(process: u32) -> BTreeSet<u32> {
    let folder = fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten();
    let infos = folder.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let ids = |info: String| {
        let of_line = |line: &str| line.strip_prefix("prog_id:").and_then(|id| id.trim().parse().ok());
        info.lines().filter_map(of_line).collect::<Vec<u32>>()
    };
    infos.flat_map(ids).collect()
}

#[test]
fn foreign_text_is_harmless() {
    lab!("nft", "socat", "nc.openbsd");
    let stage = Stage::new(Family::V4);
    let _server = stage.serve();
    // nft takes any bytes but quotes in a comment.
    let comment = format!("\u{1b}]0;title\u{7}{}", "x".repeat(100));
    nft(
        &stage.pair.host,
        &format!(
            "table inet fw {{ chain in {{ type filter hook input priority 0; tcp dport 7000 drop comment \"{comment}\"; }}; }}"
        ),
    );
    let output = stage.watch("", Stage::client);
    let text = output.text();
    assert_eq!(output.code(), Some(11), "{output}");
    assert!(text.contains("which   comment"), "{output}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.lines().all(|line| line.chars().count() <= 200), "{text}");
}

#[test]
fn privileges_that_are_missing_and_those_that_are_kept() {
    lab!("iptables-nft", "setpriv", "socat", "nc.openbsd");
    let stage = Stage::new(Family::V4);
    let _server = stage.serve();
    for (held, missing) in [("net_raw,+bpf", "CAP_NET_ADMIN"), ("net_admin,+bpf", "CAP_NET_RAW")] {
        let line = format!("setpriv --bounding-set -all,+{held} {PROGRAM} --compare -l {PORT}");
        let refused = stage.pair.host.words(&line).run();
        assert_eq!(refused.code(), Some(1), "{refused}");
        assert!(refused.stderr.contains(&format!("needs {missing} to ")), "{refused}");
    }
    // Both are enough.
    stage.run("iptables-nft -A INPUT -p tcp --dport 7000 -j DROP");
    let line = format!(
        "setpriv --bounding-set -all,+net_raw,+net_admin {PROGRAM} --compare --exit-verdict -v -l {PORT}"
    );
    let mut watch = stage.pair.host.words(&line).spawn();
    watch.wait_for_stderr("watching port");
    stage.client();
    watch.signal(Signal::SIGINT);
    let output = watch.wait(DEADLINE);
    assert_eq!(output.code(), Some(11), "{output}");
    assert!(output.text().contains("  proof   nft trace\n"), "{output}");
    assert!(output.stderr.contains("drop events: needs CAP_"), "{output}");
    // The watch itself has CAP_NET_ADMIN (12) alone, and is nobody.
    let watch = stage.start("");
    let status = fs::read_to_string(format!("/proc/{}/status", watch.id())).expect("a process");
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned()
    };
    for name in ["CapEff:", "CapPrm:"] {
        assert_eq!(u64::from_str_radix(&field(name), 16), Ok(1 << 12), "{status}");
    }
    assert_ne!(field("Uid:").split_whitespace().next(), Some("0"), "{status}");
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), ("2".to_owned(), "1".to_owned()), "{status}");
}
