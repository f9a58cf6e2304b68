//! The command line as a user meets it: help, manual, completions, and the answer to every wrong usage, none of
//! which needs privileges or a network.
mod completions;
mod flags;
mod manual;

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

fn netkat(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netkat"))
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("RUST_LOG")
        .env("COLUMNS", "100")
        .output()
        .expect("netkat runs")
}

/// Returns whether a program is there. Without it a test says SKIPPED aloud, or fails under
/// NETKAT_LAB=required.
fn available(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(found || std::env::var("NETKAT_LAB").as_deref() != Ok("required"), "{program} is not installed");
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

fn printed(arguments: &[&str]) -> String {
    let output = netkat(arguments);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn help_in_short_and_in_long() {
    insta::assert_snapshot!("short_help", printed(&["-h"]));
    insta::assert_snapshot!("long_help", printed(&["--help"]));
}

/// A terminal of the usual size shows the whole short help.
#[test]
fn short_help_fits_into_80_columns_and_24_lines() {
    let output = Command::new(env!("CARGO_BIN_EXE_netkat"))
        .arg("-h")
        .env("COLUMNS", "80")
        .output()
        .expect("netkat runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(text.lines().count() <= 24 && widest <= Some(80), "{widest:?}\n{text}");
}

#[test]
fn the_manual() {
    // The title line has the version.
    insta::assert_snapshot!(
        "manual",
        printed(&["--generate", "man"]).replace(env!("CARGO_PKG_VERSION"), "VERSION")
    );
}

/// Each shell's completions know every flag.
#[test]
fn completions() {
    for shell in ["bash", "zsh", "fish"] {
        let text = printed(&["--generate", shell]);
        for flag in ["exit-verdict", "keep-open", "user-timeout", "generate"] {
            assert!(text.contains(flag), "{shell} lacks {flag}");
        }
    }
}

#[test]
fn wrong_usage_is_told_and_has_status_two() {
    let long = "a".repeat(100_000);
    let cases: &[&[&str]] = &[
        &[],
        &["host"],
        &["host", "80", "81"],
        &["192.0.2.1:80"],
        &["-u", "-l", "--reject", "80"],
        &["-u", "--buffer", "1M", "192.0.2.1", "80"],
        &["[2001:db8::1]:80"],
        &["-z", "192.0.2.1"],
        &["", "80"],
        &["-n", "10.0.0.1", ""],
        &["10.0.0.1", "0"],
        &["10.0.0.1", "65536"],
        &["10.0.0.1", "99999999999999999999"],
        &["10.0.0.1", "no-such-service"],
        &["10.0.0.1", "80,81"],
        &["-z", "10.0.0.1", "80-"],
        &["-z", "10.0.0.1", "1-65536"],
        &["-z", "10.0.0.1", "22", "80"],
        &["-z", "10.0.0.1,,10.0.0.2", "80"],
        &["-z", "10.0.0.0/33", "80"],
        &["-z", "10.0.0.0/15", "80"],
        &["-z", "fd00::/112,10.0.0.1", "80"],
        &["-z", "10.0.0.0/16", "80,81"],
        &["-z", "--rate", "0", "10.0.0.1", "80"],
        &["--rate", "10", "10.0.0.1", "80"],
        &["-z", "-l", "80"],
        &["-l"],
        &["-l", "10.0.0.1", "80", "-p", "81"],
        &["-l", "10.0.0.1", "80", "-s", "10.0.0.2"],
        &["-4", "-6", "10.0.0.1", "80"],
        &["-w", "never", "10.0.0.1", "80"],
        &["-w", "0", "10.0.0.1", "80"],
        &["-w", "-x", "10.0.0.1", "80"],
        &["-w"],
        &["--listn", "80"],
        &["--tls", "10.0.0.1", "443"],
        &["-z", "-q", "3", "10.0.0.1", "80"],
        &["-z", "-k", "10.0.0.1", "80"],
        &["--payload", "10.0.0.1", "80"],
        &["--sniff", "-o", "file"],
        &["--sniff", "--output", "file"],
        &["--sniff", "--wait", "3"],
        &["--sniff", "-G", "60"],
        &["--read", "file", "-i", "lo"],
        &["-u", "--exec", "cat", "10.0.0.1", "80"],
        &["-l", "--via", "10.0.0.1", "80"],
        &["-l", "--max-conns", "3", "80"],
        &["--exit-verdict", "--generate", "man"],
        &["--idle-timeout", "0", "10.0.0.1", "80"],
        &["--idle-timeout", "-1", "10.0.0.1", "80"],
        &["--ttl", "-1", "10.0.0.1", "80"],
        &["--ttl", "0", "10.0.0.1", "80"],
        &["--ttl", "256", "10.0.0.1", "80"],
        &["--tos", "256", "10.0.0.1", "80"],
        &["--mss", "87", "10.0.0.1", "80"],
        &["--mss", "1000", "-u", "10.0.0.1", "80"],
        &["--buffer", "1", "10.0.0.1", "80"],
        &["--congestion", "vegas", "10.0.0.1", "80"],
        &["--send-only", "--recv-only", "10.0.0.1", "80"],
        &["-N", "--no-shutdown", "10.0.0.1", "80"],
        &["-k", "10.0.0.1", "80"],
        &["-i", "5", "10.0.0.1", "80"],
        &["-x", "10.0.0.1:8080", "10.0.0.2", "80"],
        &["--append-output", "192.0.2.1", "80"],
        &["-U", "/tmp/socket"],
        &["-lp", "80", "-e", "/bin/sh"],
        &["--proxy", "10.0.0.1:80", "10.0.0.2", "80"],
        &["--proxy-protocol", "10.0.0.1", "80"],
        &["--proxy-protocol", "3", "10.0.0.1", "80"],
        &["--proxy-protocol=3", "10.0.0.1", "80"],
        &["--proxy-protocol", "2:2001:db8::7:4000", "10.0.0.1", "80"],
        &["--proxy-protocol", "1,2", "10.0.0.1", "80"],
        &["-l", "--proxy-protocol", "2:192.0.2.7:4000", "80"],
        &["-l", "--proxy-protocol", "2"],
        &["-u", "--proxy-protocol", "2", "10.0.0.1", "53"],
        &["-z", "--proxy-protocol", "2", "10.0.0.1", "80"],
        &["--ssl", "10.0.0.1", "443"],
        &["--no-such-flag"],
        &["--generate", "csh"],
    ];
    let mut told = String::new();
    for arguments in cases {
        let output = netkat(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}: {output:?}");
        let message = String::from_utf8(output.stderr).expect("UTF-8");
        told += &format!("$ netkat {}\n{}\n", arguments.join(" "), message.trim_end());
    }
    insta::assert_snapshot!("wrong_usage", told);
    let output = netkat(&["10.0.0.1", &long]);
    assert_eq!(output.status.code(), Some(2), "a very long port");
}

/// Every line of wrong usage begins with the program's name.
#[test]
fn wrong_usage_is_one_line_with_the_programs_name() {
    for arguments in
        [["--no-such-flag"].as_slice(), &[], &["-w", "x", "a", "1"], &["-4", "-6", "a", "1"], &["-e", "x"]]
    {
        let stderr = String::from_utf8(netkat(arguments).stderr).expect("UTF-8");
        assert!(stderr.starts_with("netkat: ") && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
    }
}

/// A script that reads the report gets one for wrong usage, too, whichever part finds it.
#[test]
fn wrong_usage_has_its_report() {
    let cases: [&[&str]; 4] =
        [&["--no-such-flag"], &["-z", "-k", "192.0.2.1", "80"], &["host"], &["-w", "x", "a", "1"]];
    for arguments in cases {
        let output = netkat(&[&["--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        let [report] = stderr.lines().collect::<Vec<_>>()[..] else { panic!("{arguments:?}: {stderr}") };
        let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
        assert_eq!(report["verdict"], "usage", "{arguments:?}");
        assert_eq!(report["schema"], "netkat.outcome/1", "{arguments:?}");
        let plain = String::from_utf8(netkat(arguments).stderr).expect("UTF-8");
        assert_eq!(format!("netkat: {}\n", report["error"].as_str().expect("a text")), plain);
    }
}

/// Bytes that are no text are refused without a panic.
#[test]
fn arguments_that_are_not_utf8() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let output = Command::new(env!("CARGO_BIN_EXE_netkat"))
        .args([OsStr::from_bytes(b"\xff\xfe"), OsStr::new("80")])
        .output()
        .expect("netkat runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("invalid UTF-8"));
}

/// A long or strange name is answered in a line of bounded length, without control characters.
#[test]
fn names_that_are_no_names() {
    let long = "a".repeat(100_000);
    for name in [long.as_str(), "\u{1b}[2J", "a b", "..", "%", "fe80::1%"] {
        let output = netkat(&[name, "80"]);
        assert_eq!(output.status.code(), Some(1), "{name:.20}: {output:?}");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(text.len() < 1000, "{} bytes about {name:.20}", text.len());
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

/// Output that cannot be printed is a failure and no panic (101).
#[test]
fn a_standard_output_that_cannot_be_written_is_a_failure() {
    for arguments in
        [["--help"].as_slice(), &["-h"], &["--version"], &["--generate", "man"], &["--generate", "zsh"]]
    {
        let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
        let (reader, gone) = std::io::pipe().expect("a pipe");
        drop(reader);
        for (stdout, reason) in [(full().into(), "No space left"), (Stdio::from(gone), "Broken pipe")] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_netkat"));
            let output = command.args(arguments).stdout(stdout).output().expect("netkat runs");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
            assert!(stderr.starts_with("netkat: cannot write to standard output: "), "{stderr}");
            assert!(stderr.contains(reason) && stderr.lines().count() == 1, "{stderr}");
        }
        let mut closed = Command::new("/bin/sh");
        closed.args(["-c", "exec \"$@\" >&-", "sh", env!("CARGO_BIN_EXE_netkat")]).args(arguments);
        let closed = closed.output().expect("a shell");
        let stderr = String::from_utf8_lossy(&closed.stderr);
        assert_eq!(closed.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("Bad file descriptor"), "{stderr}");
        // An error that cannot be printed either is no panic.
        let mut command = Command::new(env!("CARGO_BIN_EXE_netkat"));
        let status = command.args(arguments).stdout(full()).stderr(full()).status().expect("netkat runs");
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn wrong_usage_keeps_its_status_whatever_becomes_of_standard_error() {
    for arguments in [["--no-such-flag"].as_slice(), &[], &["host"]] {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut command = Command::new(env!("CARGO_BIN_EXE_netkat"));
        // An unreadable filter is reported, too.
        let status =
            command.args(arguments).env("RUST_LOG", "a=b=c").stderr(full).status().expect("netkat runs");
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
}
