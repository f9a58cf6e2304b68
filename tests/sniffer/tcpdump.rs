//! Compares lines and dumps with those of tcpdump, if it is installed.
use super::captures::folder;
use std::{io::ErrorKind, process::Command};

/// Captures whose packets tcpdump shows in full. The others have malformed packets or IPv6 extension
/// headers.
const CAPTURES: [&str; 17] = [
    "arp.pcap",
    "cooked1.pcap",
    "fragments.pcap",
    "icmp-errors.pcap",
    "lo.pcap",
    "loop.pcap",
    "null.pcap",
    "null-swapped.pcap",
    "raw.pcap",
    "tcp-handshake.pcap",
    "tcp-handshake.pcapng",
    "tcp-handshake-nanoseconds.pcap",
    "tcp-ipv6.pcap",
    "tcp-reset.pcap",
    "tcp-sack.pcap",
    "udp.pcap",
    "vlan.pcap",
];

/// Returns standard output of a program that reads a capture, or `None` if it is not installed.
fn output(program: &str, name: &str, arguments: &[&str]) -> Option<String> {
    let file = folder().join(name);
    let mut command = Command::new(program);
    command.env("TZ", "UTC").args(arguments).arg("-r").arg(file);
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            crate::skipped::skipped(&format!("{program} is not installed: run scripts/setup"));
            return None;
        }
        output => output.expect("the program runs"),
    };
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

fn ours(name: &str, arguments: &[&str]) -> String {
    let arguments = [&["--sniff"], arguments].concat();
    output(env!("CARGO_BIN_EXE_netkat"), name, &arguments).expect("netkat is there")
}

/// Compares line by line, up to where tcpdump decodes an application's payload.
fn compare(name: &str, flags: &[&str]) -> Option<usize> {
    let theirs = output("tcpdump", name, &[&["-nn"], flags].concat())?;
    let ours = ours(name, &[&["-nn", "--line", "tcpdump"], flags].concat());
    let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.lines().collect(), ours.lines().collect());
    assert_eq!(theirs.len(), ours.len(), "{name} {flags:?}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        let rest = theirs.strip_prefix(ours);
        assert!(
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(": ")),
            "{name} {flags:?}:\n{theirs}\n{ours}"
        );
    }
    Some(ours.len())
}

#[test]
fn lines_are_those_of_tcpdump() {
    let mut lines = 0;
    for name in CAPTURES {
        let Some(compared) = compare(name, &[]) else { return };
        lines += compared;
    }
    assert!(lines > 150, "only {lines} lines were compared");
}

#[test]
fn lines_with_flags_are_those_of_tcpdump() {
    for name in CAPTURES.into_iter().filter(|name| !name.starts_with("cooked")) {
        for flags in [&["-S"][..], &["-t"], &["-tt"], &["-ttt"], &["-tttt"], &["-ttttt"]] {
            if compare(name, flags).is_none() {
                return;
            }
        }
    }
    for name in ["arp.pcap", "tcp-handshake.pcap", "tcp-ipv6.pcap", "vlan.pcap", "udp.pcap"] {
        compare(name, &["-e"]);
    }
}

#[test]
fn dumps_are_those_of_tcpdump() {
    let dump = |text: &str, is_line: fn(&str) -> bool| {
        text.lines().filter(|line| !is_line(line)).collect::<Vec<_>>().join("\n")
    };
    for name in ["tcp-handshake.pcap", "udp.pcap", "vlan.pcap", "raw.pcap", "arp.pcap"] {
        for flag in ["-x", "-X", "-A", "-xx", "-XX", "-AA"] {
            let Some(theirs) = output("tcpdump", name, &["-nn", "-tt", flag]) else { return };
            let ours = ours(name, &["-tt", flag]);
            let is_line = |line: &str| line.starts_with("1795391") || line.starts_with("1795392");
            let (theirs, ours) = (dump(&theirs, is_line), dump(&ours, is_line));
            assert!(!theirs.is_empty() && theirs == ours, "{name} {flag}:\n{theirs}\n{ours}");
        }
    }
}

/// The usual flags of a capture.
#[test]
fn flags_of_tcpdump_mean_what_they_mean_there() {
    let lines = |arguments: &[&str]| ours("tcp-handshake.pcap", arguments).lines().count();
    assert_eq!(lines(&["-nnvvc3"]), 3);
    assert_eq!(lines(&["-lUn", "-c", "2", "-s0"]), 2);
    let cut = ours("tcp-handshake.pcap", &["-s", "60", "--json", "-c", "1"]);
    assert!(cut.contains("\"captured_bytes\":60"), "{cut}");
    let file = std::env::temp_dir().join(format!("netkat-flags-{}.pcapng", std::process::id()));
    let path = file.to_str().expect("a path");
    assert_eq!(lines(&["-w", path, "tcp[tcpflags] & tcp-syn != 0"]), 0);
    let written = Command::new(env!("CARGO_BIN_EXE_netkat")).args(["--read", path]).output().expect("netkat");
    let _ = std::fs::remove_file(&file);
    assert_eq!(written.stdout.iter().filter(|byte| **byte == b'\n').count(), 2, "{written:?}");
}

#[test]
fn what_a_sniffer_cannot_do_is_refused_by_name() {
    for arguments in [
        &["-G", "60"][..],
        &["-C", "1"],
        &["-z", "gzip"],
        &["-Q", "in"],
        &["-k"],
        &["--exec", "cat"],
        &["--ttl", "3"],
        &["--line", "gvisor", "-e"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netkat"));
        let output = command.arg("--sniff").args(arguments).output().expect("netkat runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(arguments[0]) || arguments[0] == "--line", "{arguments:?}: {stderr}");
    }
}
