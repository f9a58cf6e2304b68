//! Parses any text as a filter, compiles it for every kind of frames, checks each program as the kernel
//! does, and runs it on a frame.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netkat::{
    host::resolve::{Family, Names},
    sniffer::{
        CapturedFrame, FrameDirection, LinkType,
        filter::{Filter, Frames},
    },
};

const LINK_TYPES: [LinkType; 6] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::LinuxCooked1,
    LinkType::LinuxCooked2,
    LinkType::Null,
    LinkType::Loop,
];

/// The kernel's checks (net/core/filter.c, bpf_check_classic): length, jumps, memory, the end.
fn check(program: &[libc::sock_filter]) {
    assert!((1..=4096).contains(&program.len()));
    for (at, instruction) in program.iter().enumerate() {
        let rest = program.len() - at - 1;
        match instruction.code & 0xff {
            0x05 => assert!((instruction.k as usize) < rest, "a jump beyond the end"),
            code if code & 7 == 5 => {
                let farthest = instruction.jt.max(instruction.jf);
                assert!(usize::from(farthest) < rest, "a branch beyond the end");
            }
            0x02 | 0x60 => assert!(instruction.k < 16, "memory has 16 words"),
            0x34 | 0x94 => assert_ne!(instruction.k, 0, "a division by zero"),
            0x64 | 0x74 => assert!(instruction.k < 32, "a shift by more than 31"),
            _ => {}
        }
    }
    assert_eq!(program.last().map(|last| last.code), Some(0x06), "a program ends by returning");
}

// The text, a zero byte, the frame.
fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (text, frame) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(text) = std::str::from_utf8(text) else { return };
    let filter =
        Filter::parse(text).and_then(|filter| filter.resolve(Family::Any, Names::Numeric, &|_| Vec::new()));
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return assert!(!error.to_string().contains(char::is_control)),
    };
    let live = LINK_TYPES.map(|link_type| Frames::Live { link_type, netmask: 0xffff_ff00 });
    for frames in live.into_iter().chain([Frames::Any]) {
        if let Ok(program) = filter.compile(frames) {
            check(program.instructions());
        }
    }
    for link_type in LINK_TYPES {
        let Ok(program) = filter.compile(Frames::Recorded(link_type)) else { continue };
        check(program.instructions());
        program.passes(&CapturedFrame::new(Duration::ZERO, FrameDirection::Inbound, link_type, frame));
    }
});
