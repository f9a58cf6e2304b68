//! Decodes any bytes as a frame of any link type, in one piece or several, and formats a line, JSON
//! and a dump. None may panic or pass a control character on.
#![no_main]

use std::time::Duration;

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use netkat::sniffer::{
    CapturedFrame, FrameDirection, LinkType, VlanTag, decode::decode, hexdump, json, line::LineFormatter,
};

// The first bytes of the input choose the frame's metadata; the others are the frame.
fuzz_target!(|input: &[u8]| {
    let [link, flags, extra, first, second, frame @ ..] = input else { return };
    let link = match link % 9 {
        0 => LinkType::Ethernet,
        1 => LinkType::RawIp,
        2 => LinkType::LinuxCooked1,
        3 => LinkType::LinuxCooked2,
        4 => LinkType::Null,
        5 => LinkType::Loop,
        6 => LinkType::Nflog,
        7 => LinkType::Ppp,
        _ => LinkType::Other(u16::from(*extra)),
    };
    let (head, rest) = frame.split_at(usize::from(*first).min(frame.len()));
    let (middle, tail) = rest.split_at(usize::from(*second).min(rest.len()));
    let whole = CapturedFrame {
        ethertype: (flags & 1 != 0).then_some(0x86dd),
        vlan: (flags & 2 != 0).then_some(VlanTag { tpid: 0x8100, tci: u16::from(*extra) << 4 }),
        gso_size: (flags & 4 != 0).then_some(1448),
        checksum_partial: flags & 8 != 0,
        length: if flags & 16 != 0 { frame.len() + usize::from(*extra) } else { frame.len() },
        ..CapturedFrame::new(
            Duration::from_secs(u64::from(*extra) << 28),
            FrameDirection::Inbound,
            link,
            frame,
        )
    };
    let decoded = decode(&whole);
    let pieces = CapturedFrame { data: [head, middle, &[], tail], ..whole };
    if frame.len() <= 1024 {
        assert_eq!(decoded, decode(&pieces));
    }
    assert!(decoded.payload.end <= frame.len());
    let (mut packet, mut tunnels) = (&decoded, 0);
    while let Some(inner) = &packet.inner {
        assert!(inner.packet.payload.end <= frame.len());
        (packet, tunnels) = (&inner.packet, tunnels + 1);
    }
    assert!(tunnels < 10, "{tunnels} tunnels in one another");
    let mut out = Vec::new();
    LineFormatter::new(1, TimeZone::UTC).append(&mut out, &whole, &decoded, None);
    json::append(&mut out, &whole, &decoded, None, true);
    hexdump::append(&mut out, pieces.bytes(decoded.payload));
    let text = std::str::from_utf8(&out).expect("lines are UTF-8");
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
});
