//! `netkat --read` and `netkat --sniff` as they are run.
use std::process::{Command, Output};

use super::captures::{folder, names, text};

const NETKAT: &str = env!("CARGO_BIN_EXE_netkat");

fn read(name: &str, arguments: &[&str]) -> Output {
    Command::new(NETKAT)
        .arg("--read")
        .arg(folder().join(name))
        .args(arguments)
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

/// Lines without what differs between runs: the process id.
fn lines(output: &Output) -> Vec<String> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let process = |line: &str| {
        let (prefix, rest) = line.split_once(" sniffer] ").unwrap();
        format!("{} 4711 sniffer] {rest}", prefix.rsplit_once(' ').unwrap().0)
    };
    text.lines().map(process).collect()
}

fn expected(name: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    text(name).lines().filter(|line| wanted(line)).map(str::to_owned).collect()
}

#[test]
fn files_are_read() {
    for name in names() {
        let output = read(&name, &[]);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        assert_eq!(lines(&output), expected(&name, |_| true), "{name}");
    }
}

#[test]
fn files_are_filtered_as_interfaces_are() {
    type Wanted = fn(&str) -> bool;
    let cases: [(&str, &[&str], Wanted); 9] = [
        ("lo.pcap", &["-4"], |line| line.contains("127.0.0.1")),
        ("lo.pcap", &["-6"], |line| line.contains("::1")),
        ("lo.pcap", &["::1", "80"], |line| line.contains("::1")),
        ("lo.pcap", &["::1", "81"], |_| false),
        ("arp.pcap", &["192.0.2.2"], |_| true),
        ("arp.pcap", &["--tcp"], |_| false),
        ("icmp-errors.pcap", &["-u"], |line| line.contains("] recv udp")),
        ("icmp-errors.pcap", &["-p", "40007"], |line| line.contains("] recv udp")),
        ("fragments.pcap", &["-u", "2001:db8::1", "9"], |line| line.contains("] recv udp 2001:db8::1")),
    ];
    for (name, arguments, wanted) in cases {
        let output = read(name, arguments);
        assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
        assert_eq!(lines(&output), expected(name, wanted), "{name} {arguments:?}");
    }
}

#[test]
fn a_count_ends_the_reading() {
    let output = read("lo.pcap", &["--count", "3"]);
    assert_eq!(lines(&output), expected("lo.pcap", |_| true)[..3]);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let script = r#""$0" --read "$1" --payload | head -n 1; exit ${PIPESTATUS[0]}"#;
    let output =
        Command::new("bash").args(["-c", script, NETKAT]).arg(folder().join("lo.pcap")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_damaged_file_is_an_error_behind_its_packets() {
    let path = std::env::temp_dir().join(format!("netkat-damaged-{}.pcap", std::process::id()));
    let bytes = std::fs::read(folder().join("udp.pcap")).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let output = Command::new(NETKAT).arg("--read").arg(&path).env("TZ", "UTC").output().unwrap();
    let _ = std::fs::remove_file(path);
    assert_eq!(lines(&output), expected("udp.pcap", |_| true)[..2]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ends within a packet"), "{output:?}");
}

#[test]
fn flags_that_cannot_be_honoured_are_refused() {
    for arguments in
        [&["--count", "1", "192.0.2.1", "80"][..], &["--sniff", "--promiscuous"], &["--sniff", "-l", "1"]]
    {
        let output = Command::new(NETKAT).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

/// Two datagrams over lo, of which only the first goes to the port that is watched; SIGINT when both are through.
const LIVE: &str = r#"
set -e
ip link set lo up
TZ=UTC "$0" --sniff -i lo -v -u 127.0.0.1 7 >"$1" 2>"$1.log" &
sniffer=$!
until grep -q "listening on lo" "$1.log"; do sleep 0.05; done
printf one >/dev/udp/127.0.0.1/7
printf two >/dev/udp/127.0.0.1/8
sleep 0.5
kill -INT $sniffer
wait $sniffer
"#;

#[test]
fn an_interface_is_watched_until_interrupted() {
    let file = std::env::temp_dir().join(format!("netkat-sniff-{}", std::process::id()));
    let log = file.with_extension("log");
    let able = Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
    if !able {
        return eprintln!("SKIPPED: no network namespace to be had here (needs root)");
    }
    let output =
        Command::new("unshare").args(["-n", "bash", "-c", LIVE, NETKAT]).arg(&file).output().unwrap();
    let (shown, said) = (std::fs::read_to_string(&file).unwrap(), std::fs::read_to_string(&log).unwrap());
    let _ = std::fs::remove_file(file);
    let _ = std::fs::remove_file(log);
    assert!(output.status.success(), "{output:?} {said}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains("recv udp 127.0.0.1:") && shown.contains("-> 127.0.0.1:7 len:3"), "{shown}");
    assert!(said.contains("\n1 packets captured\n"), "{said}");
    assert!(said.contains("packets received by filter\n0 packets dropped by kernel\n"), "{said}");
}
