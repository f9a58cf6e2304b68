//! `--compare` on a node with many rules.
use crate::support::{comparison::Scene, process::Output, requirements::lab, topology::Family};
use std::{
    fmt::Write,
    time::{Duration, Instant},
};

const RULES: usize = 10_000;
const SERVICES: usize = 5_000;
/// Maximum time that these rules may cost.
const MOST: Duration = Duration::from_secs(1);

/// Returns rules as kube-proxy and a careless firewall write them, none of which meets the attempt but the last.
fn rules() -> String {
    let mut text = "*nat\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n".to_owned();
    let mut line = |arguments: std::fmt::Arguments<'_>| writeln!(text, "{arguments}").expect("a string");
    for number in 0..SERVICES {
        line(format_args!(":KUBE-SVC-{number:X} - [0:0]\n:KUBE-SEP-{number:X} - [0:0]"));
    }
    line(format_args!("-A OUTPUT -j KUBE-SERVICES"));
    for number in 0..SERVICES {
        let (high, low) = (number / 250, number % 250 + 1);
        line(format_args!(
            "-A KUBE-SERVICES -d 10.96.{high}.{low}/32 -p tcp -m comment --comment \"default/s{number}:http cluster IP\" \
             -m tcp --dport 80 -j KUBE-SVC-{number:X}"
        ));
        line(format_args!(
            "-A KUBE-SVC-{number:X} -m comment --comment \"default/s{number}:http\" -j KUBE-SEP-{number:X}"
        ));
        line(format_args!(
            "-A KUBE-SEP-{number:X} -p tcp -m tcp -j DNAT --to-destination 10.244.{high}.{low}:8080"
        ));
    }
    line(format_args!("COMMIT\n*filter\n:OUTPUT ACCEPT [0:0]"));
    for number in 1..RULES {
        let (high, low) = (number / 250, number % 250 + 1);
        line(format_args!("-A OUTPUT -d 198.18.{high}.{low}/32 -p tcp -m tcp --dport 7000 -j DROP"));
    }
    line(format_args!("-A OUTPUT -p tcp -m tcp --dport 7000 -j DROP\nCOMMIT"));
    text
}

/// Returns the shortest time of three comparisons, and the last one.
fn shortest(scene: &Scene) -> (Duration, Output) {
    let once = || {
        let start = Instant::now();
        let output = scene.compare("");
        (start.elapsed(), output)
    };
    let (times, mut outputs): (Vec<_>, Vec<_>) = (0..3).map(|_| once()).unzip();
    (times.into_iter().min().expect("three"), outputs.pop().expect("three"))
}

/// Loads the rules, and checks that the last one is named.
fn check_many(scene: &Scene) -> Duration {
    scene.pair.host.command("iptables-nft-restore").text(&rules()).succeed();
    let (time, output) = shortest(scene);
    assert_eq!(output.code(), Some(11), "{output}");
    let place = format!("table filter, chain OUTPUT, rule {RULES} of {RULES} (");
    assert!(output.text().contains(&place), "{output}");
    time
}

#[test]
fn a_rule_among_many_is_named() {
    lab!("iptables-nft-restore", "socat");
    check_many(&Scene::new(Family::V4));
}

#[test]
#[ignore = "measures time: run it alone, on a quiet machine"]
fn many_rules_cost_at_most_a_second() {
    lab!("iptables-nft", "iptables-nft-restore", "socat");
    let scene = Scene::new(Family::V4);
    scene.run("iptables-nft -A OUTPUT -p tcp --dport 7000 -j DROP");
    let (few, _) = shortest(&scene);
    let many = check_many(&scene);
    eprintln!("{few:?} with one rule, {many:?} with {RULES} rules and {SERVICES} Services");
    assert!(many.saturating_sub(few) < MOST, "{few:?} with one rule, {many:?} with many");
}
