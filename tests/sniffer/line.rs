//! Tests the line of single packets byte by byte, since users grep for its fields.
use std::time::Duration;

use jiff::tz::TimeZone;
use netkat::sniffer::{
    CapturedFrame, FrameDirection, LinkType, VlanTag, decode::decode, line::LineFormatter,
};

/// 1689472711.206864: 16 July 2023, 01:58:31 UTC.
const TIME: Duration = Duration::new(1_689_472_711, 206_864_000);

fn line(frame: &CapturedFrame<'_>) -> String {
    let mut out = Vec::new();
    LineFormatter::new(22926, TimeZone::UTC).append(&mut out, frame, &decode(frame), None);
    String::from_utf8(out).unwrap()
}

/// Returns an IPv4 packet without options. Checksums stay zero: the decoder does not verify them.
fn ipv4(id: u16, protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend([0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

struct Segment<'a> {
    ports: (u16, u16),
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    checksum: u16,
    options: &'a [u8],
}

fn tcp(segment: &Segment<'_>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(segment.ports.0.to_be_bytes());
    bytes.extend(segment.ports.1.to_be_bytes());
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgement.to_be_bytes());
    bytes.extend([((20 + segment.options.len()) as u8 / 4) << 4, segment.flags]);
    bytes.extend(segment.window.to_be_bytes());
    bytes.extend(segment.checksum.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(segment.options);
    bytes.extend(payload);
    bytes
}

fn lo(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0]);
    frame.extend(packet);
    frame
}

fn syn() -> Vec<u8> {
    let mut options = vec![2, 4, 0xff, 0xd7, 4, 2, 8, 10];
    options.extend(2715804214u32.to_be_bytes());
    options.extend([0, 0, 0, 0, 1, 3, 3, 7]);
    let segment = Segment {
        ports: (44644, 80),
        sequence: 1321663292,
        acknowledgement: 0,
        flags: 2,
        window: 65495,
        checksum: 0xfe30,
        options: &options,
    };
    lo(&ipv4(0xa5ee, 6, [127, 0, 0, 1], [127, 0, 0, 1], &tcp(&segment, b"")))
}

#[test]
fn a_syn_reads_as_in_gvisor() {
    let frame = syn();
    assert_eq!(
        line(&CapturedFrame::new(TIME, FrameDirection::Inbound, LinkType::Ethernet, &frame)),
        "I0716 01:58:31.206864 22926 sniffer] recv tcp 127.0.0.1:44644 -> 127.0.0.1:80 len:0 id:a5ee flags:  S     \
         seqnum: 1321663292 ack: 0 win: 65495 xsum:0xfe30 options: {MSS:65495 WS:7 TS:true TSVal:2715804214 TSEcr:0 \
         SACKPermitted:true}\n"
    );
}

#[test]
fn a_sent_segment_shows_timestamps_and_sack_blocks() {
    let mut options = vec![1, 1, 8, 10];
    options.extend(1u32.to_be_bytes());
    options.extend(2715804214u32.to_be_bytes());
    let mut segment = Segment {
        ports: (80, 44644),
        sequence: 1,
        acknowledgement: 1321663293,
        flags: 0x10,
        window: 64240,
        checksum: 0x1c46,
        options: &options,
    };
    let (source, destination) = ([127, 0, 0, 1], [127, 0, 0, 1]);
    let packet = ipv4(1, 6, source, destination, &tcp(&segment, b""));
    let expected = "I0716 01:58:31.206864 22926 sniffer] send tcp 127.0.0.1:80 -> 127.0.0.1:44644 len:0 id:0001 \
                    flags:     A  seqnum: 1 ack: 1321663293 win: 64240 xsum:0x1c46 options: {TS:true TSVal:1 \
                    TSEcr:2715804214 SACKBlocks:[]}\n";
    assert_eq!(line(&CapturedFrame::new(TIME, FrameDirection::Outbound, LinkType::RawIp, &packet)), expected);

    let mut options = options.clone();
    options.extend([1, 1, 5, 18, 0, 0, 0, 10, 0, 0, 0, 20, 0, 0, 0, 30, 0, 0, 0, 40]);
    segment.options = &options;
    let packet = ipv4(1, 6, source, destination, &tcp(&segment, b""));
    assert_eq!(
        line(&CapturedFrame::new(TIME, FrameDirection::Outbound, LinkType::RawIp, &packet)),
        expected.replace("[]", "[{Start:10 End:20} {Start:30 End:40}]")
    );
}

#[test]
fn a_super_frame_in_pieces_shows_its_length_and_gso_size() {
    let segment = Segment {
        ports: (5, 6),
        sequence: 7,
        acknowledgement: 8,
        flags: 0x18,
        window: 9,
        checksum: 0x10,
        options: &[],
    };
    let payload = vec![0; 60_000];
    let packet = lo(&ipv4(2, 6, [10, 0, 0, 1], [10, 0, 0, 2], &tcp(&segment, &payload)));
    let (headers, payload) = packet.split_at(54);
    let (payload, wrapped) = payload.split_at(1000);
    let frame = CapturedFrame {
        data: [&headers[..14], &headers[14..], payload, wrapped],
        gso_size: Some(1448),
        checksum_partial: true,
        length: packet.len(),
        vlan: Some(VlanTag { tpid: 0x8100, tci: 0x6005 }),
        ..CapturedFrame::new(TIME, FrameDirection::Outbound, LinkType::Ethernet, &[])
    };
    assert_eq!(
        line(&frame),
        "I0716 01:58:31.206864 22926 sniffer] send tcp 10.0.0.1:5 -> 10.0.0.2:6 len:60000 id:0002 flags:    PA  \
         seqnum: 7 ack: 8 win: 9 xsum:0x10 options: {TS:false TSVal:0 TSEcr:0 SACKBlocks:[]} gso:1448 csum:partial \
         vlan:5\n"
    );
    assert_eq!(decode(&frame).payload, 54..60_054);
}

#[test]
fn a_small_data_offset_is_an_invalid_packet() {
    let mut frame = syn();
    frame[14 + 20 + 12] = 0x30;
    assert_eq!(
        line(&CapturedFrame::new(TIME, FrameDirection::Inbound, LinkType::Ethernet, &frame)),
        "I0716 01:58:31.206864 22926 sniffer] recv tcp 127.0.0.1:44644 -> 127.0.0.1:80 len:40 id:a5ee invalid packet: \
         tcp data offset too small 3\n"
    );
}
