//! Tests the line of every packet in testdata/captures.
use std::{fs, path::PathBuf};

use jiff::tz::TimeZone;
use netkat::sniffer::{
    CapturedFrame,
    capture_file::{CaptureError, CaptureReader, CaptureRecord},
    decode::decode,
    line::LineFormatter,
};

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/captures")
}

/// Returns the captures' names in alphabetical order.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".pcap") || name.ends_with(".pcapng"));
    names.sort();
    names
}

/// Passes every frame of a file to `each`.
pub fn frames(path: &std::path::Path, mut each: impl FnMut(&CapturedFrame<'_>)) -> Result<(), CaptureError> {
    let mut reader = CaptureReader::open(path)?;
    while let Some(record) = reader.read()? {
        if let CaptureRecord::Frame(frame) = record {
            each(&frame);
        }
    }
    Ok(())
}

pub fn text(name: &str) -> String {
    let mut out = Vec::new();
    let mut lines = LineFormatter::new(4711, TimeZone::UTC);
    frames(&folder().join(name), |frame| lines.append(&mut out, frame, &decode(frame), None)).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn captures_read_as_expected() {
    let names = names();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        insta::assert_snapshot!(name.as_str(), text(&name));
    }
}

#[test]
fn a_file_reads_the_same_in_every_format() {
    let expected = text("tcp-handshake.pcap");
    assert_eq!(text("tcp-handshake-big-endian.pcap"), expected);
    assert_eq!(text("tcp-handshake-nanoseconds.pcap"), expected);
    assert_eq!(text("tcp-handshake-big-endian-nanoseconds.pcap"), expected);
    assert_eq!(text("tcp-handshake.pcapng"), expected);
}

#[test]
fn loopback_and_bare_packets_read_the_same_without_ethernet() {
    let expected = text("lo.pcap");
    for name in ["raw.pcap", "null.pcap", "null-swapped.pcap", "loop.pcap"] {
        assert_eq!(text(name), expected, "{name}");
    }
}

#[test]
fn nanoseconds_are_kept() {
    let nanoseconds = |name| {
        let mut times = Vec::new();
        frames(&folder().join(name), |frame| times.push(frame.time.subsec_nanos() % 1000)).unwrap();
        times
    };
    for name in [
        "tcp-handshake-nanoseconds.pcap",
        "tcp-handshake-big-endian-nanoseconds.pcap",
        "tcp-handshake.pcapng",
    ] {
        let times = nanoseconds(name);
        assert!(!times.is_empty() && times.iter().all(|time| *time == 789), "{name}: {times:?}");
    }
}
