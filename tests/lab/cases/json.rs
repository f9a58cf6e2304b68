//! The contract for scripts: the places of JSON objects, their frame, and the meaning of a lost
//! report. The harness checks every object by its schema.
use crate::support::{
    files::SystemFile,
    netkat::{PROGRAM, netkat},
    peers::Netcat,
    process::Output,
    requirements::lab,
    rules::nft,
    topology::{Family, Pair},
};
use serde_json::Value;
use std::fs;

/// Returns the objects of a text, each of which is a line.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Returns the only line on standard error.
fn object(output: &Output) -> Value {
    let [object] = &objects(&output.stderr)[..] else { panic!("not one object: {output}") };
    object.clone()
}

#[test]
fn an_object_says_what_was_asked_and_when() {
    lab!("ncat", "unshare");
    let pair = Pair::new();
    let hosts = SystemFile::new("/etc/hosts", "10.77.0.2 srv.test\nfd77::2 srv.test\n");
    for (family, flag) in [(Family::V4, "-4"), (Family::V6, "-6")] {
        let at = pair.peer_address(family);
        let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.text("answer"));
        let done = object(&hosts.netkat(&pair.host, &format!("--json {flag} srv.test 5000")).text("?").run());
        let asked = serde_json::json!({
            "mode": "connect", "host": "srv.test", "address": at.to_string(), "port": 5000, "protocol": "tcp"
        });
        assert_eq!((&done["schema"], &done["asked"]), (&"netkat.outcome/1".into(), &asked), "{done}");
        assert_eq!(done["version"], env!("CARGO_PKG_VERSION"));
        let time: jiff::Timestamp = done["time"].as_str().and_then(|time| time.parse().ok()).expect("a time");
        assert!(time.duration_until(jiff::Timestamp::now()).as_secs() < 60, "{done}");
        assert!(done["timings"]["name_ms"].is_f64(), "{done}");
        // An address needs no look-up.
        let refused = object(&netkat(&pair.host, &format!("--json {at} 4999")).run());
        assert_eq!((&refused["verdict"], &refused["timings"]["name_ms"]), (&"refused".into(), &Value::Null));
    }
}

#[test]
fn a_name_without_an_address_has_its_own_verdict() {
    lab!("unshare");
    let pair = Pair::new();
    let hosts = SystemFile::new("/etc/hosts", "10.77.0.2 srv.test\n");
    for arguments in ["-6 srv.test 80", "-n srv.test 80", "-z -6 srv.test 80", "-u -6 srv.test 80"] {
        let output = hosts.netkat(&pair.host, &format!("--json --exit-verdict {arguments}")).run();
        assert_eq!((output.code(), &object(&output)["verdict"]), (Some(9), &"name".into()), "{output}");
    }
}

/// A silent port is asked first and known last. On a path of 60 ms there and back, each answer
/// comes alone.
#[test]
fn a_scan_tells_each_port_as_soon_as_it_is_known() {
    lab!("ncat", "nft");
    let pair = Pair::over("--both delay=30ms --seed 1");
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 6001 drop; }; }",
    );
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c);
        let output = netkat(&pair.host, &format!("-z -w 1500ms --json=- {at} 6001,5000,4999")).run();
        assert_eq!((output.code(), output.stderr.as_str()), (Some(0), ""), "{output}");
        let objects = objects(&output.text());
        let [ports @ .., scan] = &objects[..] else { panic!("{output}") };
        let numbers: Vec<_> = ports.iter().filter_map(|port| port["port"].as_u64()).collect();
        assert!(numbers.len() == 3 && numbers[2] == 6001, "{output}");
        for port in ports {
            let (state, round_trip) = (port["state"].as_str(), port["round_trip_ms"].as_f64());
            match port["port"].as_u64() {
                Some(6001) => assert_eq!((state, round_trip), (Some("timed_out"), None), "{output}"),
                Some(5000) => assert_eq!(state, Some("open"), "{output}"),
                _ => assert_eq!(state, Some("refused"), "{output}"),
            }
            assert!(
                state == Some("timed_out") || round_trip.is_some_and(|ms| (60.0..600.0).contains(&ms)),
                "{output}"
            );
        }
        let asked: Vec<_> =
            scan["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_u64()).collect();
        assert_eq!((&scan["schema"], asked), (&"netkat.scan/1".into(), vec![6001, 5000, 4999]), "{output}");
    }
}

#[test]
fn a_number_is_a_descriptor_that_was_open() {
    lab!();
    let pair = Pair::new();
    let file = std::env::temp_dir().join(format!("netkat-json-{}", std::process::id()));
    let to = pair.peer_address(Family::V4);
    let run = |redirection: &str, flag: &str| {
        let line = format!("exec {PROGRAM} --json={flag} {to} 4999 {redirection}");
        pair.host.command("/bin/sh").args(["-c", &line]).run()
    };
    let output = run(&format!("7>{}", file.display()), "7");
    let text = fs::read_to_string(&file).expect("the report");
    fs::remove_file(&file).expect("the report");
    assert_eq!(objects(&text)[0]["verdict"], "refused", "{output}");
    assert!(output.stderr.starts_with("netkat: ") && output.stderr.lines().count() == 1, "{output}");
    assert_eq!(object(&run("", "2"))["verdict"], "refused");
    // netkat has descriptors of its own by then, which are no place for a report.
    for number in ["3", "4", "5", "99"] {
        let output = run("", number);
        assert_eq!(output.code(), Some(1), "{output}");
        assert!(
            output.stderr.contains(&format!("cannot write the report to descriptor {number}")),
            "{output}"
        );
    }
}

#[test]
fn a_report_that_cannot_be_written_is_a_failure() {
    lab!("ncat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.args(["-k"]));
    for (arguments, status) in [
        (format!("{at} 5000"), 1),
        (format!("-z {at} 5000"), 1),
        (format!("--exit-verdict {at} 4999"), 4),
        ("--no-such-flag".to_owned(), 2),
    ] {
        let output = netkat(&pair.host, &format!("--json=/dev/full {arguments}")).run();
        assert_eq!(output.code(), Some(status), "{output}");
        let words = "netkat: cannot write the report to /dev/full: No space left on device";
        assert!(output.stderr.lines().last().is_some_and(|line| line.starts_with(words)), "{output}");
    }
}

/// Log lines and warnings are objects, too.
#[test]
fn standard_error_has_nothing_but_objects() {
    lab!();
    let pair = Pair::new();
    let to = pair.peer_address(Family::V6);
    let output = netkat(&pair.host, &format!("-v --json {to} 4999")).run();
    let objects = objects(&output.stderr);
    let [lines @ .., outcome] = &objects[..] else { panic!("{output}") };
    assert_eq!(outcome["verdict"], "refused", "{output}");
    assert!(!lines.is_empty() && lines.iter().all(|line| line["schema"] == "netkat.log/1"), "{output}");
}
