//! Tests captures and outputs on standard streams and pipes.
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{captures::folder, files::Temporary};

fn netkat() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netkat"));
    command.env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    netkat().args(arguments).output().unwrap()
}

fn capture(name: &str) -> String {
    folder().join(name).to_str().unwrap().to_owned()
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Returns lines without the process id in their prefix.
fn without_pid(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once(" sniffer] ")).map(|(_, line)| line).collect()
}

#[test]
fn a_dash_is_standard_input() {
    for name in ["lo.pcap", "tcp-handshake.pcapng"] {
        let expected = run(&["--read", &capture(name)]);
        let input = File::open(capture(name)).unwrap();
        let output = netkat().args(["--read", "-"]).stdin(input).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(without_pid(text(&output)), without_pid(text(&expected)), "{name}");
        assert!(!text(&output).is_empty());
    }
    let output = run(&["--read", "-"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("standard input is not a capture"),
        "{output:?}"
    );
}

#[test]
fn a_dash_is_standard_output() {
    let output = run(&["--read", &capture("lo.pcap"), "--pcap", "-"]);
    assert!(output.status.success(), "{output:?}");
    let expected = run(&["--read", &capture("lo.pcap")]);
    let mut again = netkat();
    let mut again = again.args(["--read", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    again.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    let again = again.wait_with_output().unwrap();
    assert_eq!(without_pid(text(&again)), without_pid(text(&expected)));
    // --json=- is the packets' place in any case.
    let output = run(&["--read", &capture("lo.pcap"), "--json=-"]);
    assert_eq!(text(&output), text(&run(&["--read", &capture("lo.pcap"), "--json"])));
    assert!(!Path::new("-").exists(), "a file called -");
}

/// A reader that exits ends the recording without a message.
#[test]
fn a_reader_of_a_recording_may_leave() {
    let script = r#""$0" --read "$1" --pcap - | head -c 100 >/dev/null; exit ${PIPESTATUS[0]}"#;
    let netkat = env!("CARGO_BIN_EXE_netkat");
    let output = Command::new("bash").args(["-c", script, netkat, &capture("lo.pcap")]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Every record of a pipe is shown before the next one is written, in each form of output.
#[test]
fn a_pipe_is_shown_as_it_comes() {
    for (name, header) in [("udp.pcap", 24), ("tcp-handshake.pcapng", 0)] {
        for arguments in [&["-d"][..], &["--json"], &["--payload"]] {
            let file = fs::read(capture(name)).unwrap();
            let mut netkat = netkat();
            netkat.args(["--read", "-"]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut netkat = netkat.spawn().unwrap();
            let (sender, lines) = mpsc::channel();
            let output = BufReader::new(netkat.stdout.take().unwrap());
            let reader = thread::spawn(move || {
                output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
            });
            let mut input = netkat.stdin.take().unwrap();
            input.write_all(&file[..header]).unwrap();
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
            let (mut at, mut packets) = (header, 0);
            while at < file.len() {
                let (length, packet) =
                    if header > 0 { (16 + word(at + 8), true) } else { (word(at + 4), word(at) == 6) };
                input.write_all(&file[at..at + length]).unwrap();
                at += length;
                if packet {
                    packets += 1;
                    let shown = lines.recv_timeout(Duration::from_secs(20));
                    assert!(shown.is_ok(), "{name} {arguments:?}: packet {packets} is not shown");
                    // The dump below its line.
                    while lines.recv_timeout(Duration::from_millis(1)).is_ok() {}
                }
            }
            assert!(packets > 1, "{name}");
            drop(input);
            assert!(netkat.wait().unwrap().success());
            reader.join().unwrap();
        }
    }
}

#[test]
fn standard_output_takes_one_output() {
    let file = capture("lo.pcap");
    for (arguments, expected) in [
        (&["--read", &file, "--pcap", "-", "-d"][..], "--pcap - and the packets' text"),
        (&["--read", &file, "--pcap", "-", "--json"], "--pcap - and the packets' text"),
        (&["--read", &file, "--pcap", "-", "--json=-"], "--pcap - and the packets' text"),
        (&["--pcap", "-", "127.0.0.1", "9"], "--pcap - and the received data"),
        (&["-o", "-", "127.0.0.1", "9"], "-o - and the received data"),
        (&["-x", "-", "-l", "9"], "-x - and the received data"),
        (&["--json=-", "-u", "127.0.0.1", "9"], "--json=- and the received data"),
        (&["-o", "-", "--json=1", "--send-only", "127.0.0.1", "9"], "-o - and --json=1"),
        (&["--send-only", "-o", "-", "-x", "-", "127.0.0.1", "9"], "-o - and -x -"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("{expected} cannot share standard output; name a file")), "{said}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    // A refused report still says so, where --json alone would.
    let output = run(&["--json=-", "127.0.0.1", "9"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(r#""verdict":"usage""#), "{output:?}");
    assert!(!Path::new("-").exists(), "a file called -");
}

/// Neither the file itself nor a second name of it is emptied before it is read.
#[test]
fn the_file_that_is_read_is_not_written() {
    let (file, link) = (Temporary::new("read-and-written.pcap"), Temporary::new("second-name.pcap"));
    let content = fs::read(capture("lo.pcap")).unwrap();
    fs::write(&file.0, &content).unwrap();
    symlink(&file.0, &link.0).unwrap();
    let (name, second) = (file.0.to_str().unwrap(), link.0.to_str().unwrap());
    let refused = |output: Output, expected: &str| {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
        assert_eq!(fs::read(&file.0).unwrap(), content, "the file changed");
    };
    refused(run(&["--read", name, "--pcap", name]), "is the file that is read");
    refused(run(&["--read", name, "--pcap", second]), "is the file that is read");
    let input = || File::open(name).unwrap();
    refused(
        netkat().args(["--read", "-", "--pcap", second]).stdin(input()).output().unwrap(),
        "is the file that",
    );
    refused(
        netkat().args(["-o", name, "127.0.0.1", "9"]).stdin(input()).output().unwrap(),
        "is the file that",
    );
    let append = || File::options().append(true).open(name).unwrap();
    refused(
        netkat().args(["--read", name]).stdout(append()).output().unwrap(),
        "standard output is the file",
    );
    let onto = netkat().args(["--read", name, "--pcap", "-"]).stdout(append()).output().unwrap();
    refused(onto, "is the file that is read");
    refused(run(&["-o", name, "-x", second, "127.0.0.1", "9"]), "are one file");
    // Any number of outputs may go to /dev/null.
    let output = run(&["--read", "/dev/null", "--pcap", "/dev/null"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
