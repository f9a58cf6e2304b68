use super::*;

fn bytes(flags: u8, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; MIN_HEADER_LEN + payload];
    bytes[..2].copy_from_slice(&1000u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&80u16.to_be_bytes());
    bytes[4..8].copy_from_slice(&0xffff_fffe_u32.to_be_bytes());
    bytes[8..12].copy_from_slice(&77u32.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    bytes
}

fn written(segment: &Segment) -> Vec<u8> {
    let mut out = [0xff; MAX_HEADER_LEN];
    let len = segment.write(&mut out);
    out[..len].to_vec()
}

fn blocks(pairs: &[(u32, u32)]) -> SackBlocks {
    let mut blocks = SackBlocks::default();
    pairs.iter().for_each(|(left, right)| blocks.push(SeqNumber(*left), SeqNumber(*right)));
    blocks
}

#[test]
fn what_is_written_reads_back() {
    let options = Options {
        timestamps: Some(Timestamps { value: 6, echo: 7 }),
        sack: blocks(&[(10, 20), (u32::MAX - 5, 3)]),
        ..Options::default()
    };
    let segment = Segment {
        source: 1,
        destination: 2,
        seq: SeqNumber(3),
        ack: SeqNumber(4),
        flags: ACK | PSH,
        window: 5,
        options,
        payload_len: 0,
    };
    let header = written(&segment);
    assert_eq!(header.len(), 20 + 12 + 4 + 16);
    assert_eq!(header[20..24], [1, 1, 8, 10], "RFC 7323, appendix A");
    assert_eq!(Segment::parse(&header), Some(segment));
    assert_eq!(header[16..20], [0; 4]);
}

/// Covers the order of smoltcp's options, and those of a SYN without timestamps.
#[test]
fn a_syn_reads_back() {
    for (timestamps, expected) in [
        (
            Some(Timestamps { value: 99, echo: 2 }),
            &[2, 4, 5, 180, 3, 3, 9, 4, 2, 8, 10, 0, 0, 0, 99, 0, 0, 0, 2, 0][..],
        ),
        (None, &[2, 4, 5, 180, 3, 3, 9, 4, 2, 0, 0, 0]),
    ] {
        let options = Options {
            mss: Some(1460),
            window_scale: Some(9),
            sack_permitted: true,
            timestamps,
            ..Options::default()
        };
        let syn = Segment { flags: SYN, window: 77, options, ..Segment::default() };
        let header = written(&syn);
        assert_eq!(header[20..], *expected);
        assert_eq!(Segment::parse(&header), Some(syn));
    }
}

#[test]
fn four_blocks_beside_timestamps_are_cut_to_three() {
    let sack = blocks(&[(0, 1), (1, 2), (2, 3), (3, 4)]);
    for (timestamps, count) in [(None, 4), (Some(Timestamps::default()), 3)] {
        let options = Options { timestamps, sack, ..Options::default() };
        let header = written(&Segment { options, ..Segment::default() });
        assert_eq!(Segment::parse(&header).map(|segment| segment.options.sack.iter().count()), Some(count));
    }
}

#[test]
fn lying_data_offsets_are_refused() {
    for words in [0, 4, 6, 7, 15] {
        let mut segment = bytes(ACK, 0);
        segment[12] = words << 4;
        assert_eq!(Segment::parse(&segment), None, "{words}");
    }
    assert_eq!(Segment::parse(&bytes(ACK, 0)[..19]), None);
    assert_eq!(Segment::split(&bytes(ACK, 3)).map(|(_, payload)| payload.len()), Some(3));
}

/// RFC 9293, section 3.1, MUST-7. Each row: the options, and the MSS and timestamp that are
/// understood.
#[test]
fn a_malformed_option_costs_no_more_than_itself() {
    let stamp = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let mss = [2, 4, 5, 180];
    for (options, expected) in [
        ([&mss[..], &stamp].concat(), (Some(1460), true)),
        // A length that does not fit the kind: skipped.
        ([&[2, 3, 5][..], &stamp].concat(), (None, true)),
        ([&[2, 3, 5][..], &mss, &[5, 9, 0, 0, 0, 0, 0, 0, 0]].concat(), (Some(1460), false)),
        ([&[3, 2][..], &[4, 3, 0], &[8, 9, 0, 0, 0, 1, 0, 0, 0], &mss].concat(), (Some(1460), false)),
        // An impossible length: the options end.
        ([&mss[..], &[254, 0], &stamp].concat(), (Some(1460), false)),
        ([&mss[..], &[254, 1], &stamp].concat(), (Some(1460), false)),
        ([&[254, 40][..], &mss].concat(), (None, false)),
        ([&mss[..], &[1, 1, 1, 8]].concat(), (Some(1460), false)),
        // An unknown kind: skipped (MUST-6).
        ([&[254, 3, 0][..], &mss].concat(), (Some(1460), false)),
    ] {
        let mut header = vec![0; MIN_HEADER_LEN];
        header.extend(&options);
        header.resize(header.len().next_multiple_of(4), 1);
        header[12] = (header.len() / 4 * 16) as u8;
        let segment = Segment::parse(&header).expect("its lengths add up");
        assert_eq!((segment.options.mss, segment.options.timestamps.is_some()), expected, "{options:?}");
        assert_eq!(Segment::parse(&written(&segment)), Some(segment), "{options:?}");
    }
}

#[test]
fn timestamps_are_found_behind_other_options() {
    let mut segment = bytes(SYN, 0);
    segment[12] = 10 << 4;
    segment.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 7, 1, 3, 3, 7]);
    let timestamps = |bytes: &[u8]| Segment::parse(bytes).and_then(|segment| segment.options.timestamps);
    assert_eq!(timestamps(&segment), Some(Timestamps { value: 256, echo: 7 }));
    for (at, byte) in [(20, 0), (21, 1), (21, 0), (21, 40), (27, 9)] {
        let mut broken = segment.clone();
        broken[at] = byte;
        assert_eq!(timestamps(&broken), None, "{at}");
    }
    assert_eq!(timestamps(&segment[..30]), None);
}

fn reset(flags: u8, payload: usize) -> Option<Segment> {
    Segment::parse(&written(&Segment::parse(&bytes(flags, payload))?.reset()?))
}

#[test]
fn resets_take_their_numbers_from_what_they_answer() {
    let answer = reset(SYN, 0).expect("a SYN to nobody is reset");
    assert_eq!((answer.source, answer.destination), (80, 1000));
    assert_eq!((answer.flags, answer.seq.0, answer.ack.0), (RST | ACK, 0, 0xffff_ffff));
    let answer = reset(ACK | FIN, 3).expect("so is data");
    assert_eq!((answer.flags, answer.seq.0), (RST, 77));
    assert_eq!(reset(FIN | SYN, 3).map(|segment| segment.ack.0), Some(3));
    assert_eq!(reset(RST, 0), None);
}
