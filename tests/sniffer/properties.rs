//! Tests with random input: every frame renders as one line, without control characters.
use std::{sync::LazyLock, time::Duration};

use jiff::tz::TimeZone;
use netkat::sniffer::{
    CapturedFrame, FrameDirection, LinkType, VlanTag,
    capture_file::{CaptureReader, CaptureRecord},
    decode::decode,
    hexdump, json,
    line::LineFormatter,
};
use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::{
    captures::{folder, frames, names},
    json_schema,
};

/// The frames of all captures, with their link types.
static GOLDEN: LazyLock<Vec<(LinkType, Vec<u8>)>> = LazyLock::new(|| {
    let mut golden = Vec::new();
    for name in names() {
        frames(&folder().join(name), |frame| golden.push((frame.link_type, frame.data[0].to_vec()))).unwrap();
    }
    golden
});

/// Renders a frame in every form.
fn show(frame: &CapturedFrame<'_>) {
    let decoded = decode(frame);
    assert!(decoded.payload.start <= decoded.payload.end && decoded.payload.end <= frame.captured());
    let mut out = Vec::new();
    LineFormatter::new(1, TimeZone::UTC).append(&mut out, frame, &decoded, Some("eth0\x1b[31m\n\u{9b}2J"));
    let one_line = out.iter().filter(|byte| **byte == b'\n').count() == 1;
    assert!(one_line && out.ends_with(b"\n"), "{out:?}");
    let mut object = Vec::new();
    json::append(&mut object, frame, &decoded, Some("eth0\x1b[31m\n\u{9b}2J"), true);
    assert_eq!(json_schema::check_lines(&String::from_utf8_lossy(&object)), 1);
    out.append(&mut object);
    hexdump::append(&mut out, frame.bytes(decoded.payload));
    let text = String::from_utf8(out).unwrap();
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
}

fn link_type() -> impl Strategy<Value = LinkType> {
    prop_oneof![
        4 => Just(LinkType::Ethernet),
        2 => Just(LinkType::RawIp),
        1 => Just(LinkType::LinuxCooked1),
        1 => Just(LinkType::LinuxCooked2),
        1 => Just(LinkType::Null),
        1 => Just(LinkType::Loop),
        1 => Just(LinkType::Nflog),
        1 => Just(LinkType::Ppp),
        1 => any::<u16>().prop_map(LinkType::Other),
    ]
}

/// Generates the metadata of a frame, valid or not.
fn metadata(link_type: impl Strategy<Value = LinkType>) -> impl Strategy<Value = CapturedFrame<'static>> {
    let tag = (any::<u16>(), any::<u16>()).prop_map(|(tpid, tci)| VlanTag { tpid, tci });
    let rest =
        (option::of(tag), option::of(any::<u16>()), option::of(any::<u16>()), any::<bool>(), any::<usize>());
    (link_type, any::<u64>(), 0..1_000_000_000u32, rest).prop_map(|(link_type, seconds, nanos, rest)| {
        let (vlan, ethertype, gso_size, checksum_partial, length) = rest;
        let mut frame =
            CapturedFrame::new(Duration::new(seconds, nanos), FrameDirection::Outbound, link_type, &[]);
        frame.vlan = vlan;
        frame.ethertype = ethertype;
        frame.gso_size = gso_size;
        frame.checksum_partial = checksum_partial;
        frame.length = length;
        frame
    })
}

/// Cuts a frame's bytes into four pieces.
fn pieces(frame: &[u8], cuts: [Index; 3]) -> [&[u8]; 4] {
    let [first, second, third] = cuts;
    let (head, rest) = frame.split_at(first.index(frame.len() + 1));
    let (middle, tail) = rest.split_at(second.index(rest.len() + 1));
    let (tail, end) = tail.split_at(third.index(tail.len() + 1));
    [head, middle, tail, end]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_are_shown(metadata in metadata(link_type()), bytes in vec(any::<u8>(), 0..2000)) {
        show(&CapturedFrame { data: [&bytes, &[], &[], &[]], ..metadata });
        show(&CapturedFrame { data: [&bytes, &[], &[], &[]], length: bytes.len(), ..metadata });
    }

    #[test]
    fn changed_frames_are_shown(
        metadata in metadata(Just(LinkType::Ethernet)),
        golden in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..8),
        cut in any::<Index>(),
        cuts in any::<[Index; 3]>(),
    ) {
        let (link_type, bytes) = &GOLDEN[golden.index(GOLDEN.len())];
        let mut bytes = bytes.clone();
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let kept = &bytes[..cut.index(bytes.len() + 1)];
        for bytes in [&bytes, kept] {
            show(&CapturedFrame { link_type: *link_type, data: pieces(bytes, cuts), ..metadata });
            show(&CapturedFrame { link_type: *link_type, data: [bytes, &[], &[], &[]], length: bytes.len(), ..metadata });
        }
    }

    #[test]
    fn pieces_do_not_change_what_is_read(golden in any::<Index>(), cuts in any::<[Index; 3]>()) {
        let (link_type, bytes) = &GOLDEN[golden.index(GOLDEN.len())];
        let whole = CapturedFrame::new(Duration::ZERO, FrameDirection::Outbound, *link_type, bytes);
        let pieces = CapturedFrame { data: pieces(bytes, cuts), ..whole };
        prop_assert_eq!(decode(&whole), decode(&pieces));
    }

    #[test]
    fn damaged_files_end_with_an_error_or_an_end(
        name in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..8),
        cut in any::<Index>(),
    ) {
        let names = names();
        let mut bytes = std::fs::read(folder().join(name.get(&names))).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(mut reader) = CaptureReader::new(std::io::Cursor::new(bytes), "damaged") {
            while let Ok(Some(record)) = reader.read() {
                if let CaptureRecord::Frame(frame) = record {
                    show(&frame);
                }
            }
        }
    }
}
