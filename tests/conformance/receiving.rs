//! The receiver: order, SACK and D-SACK, windows, urgent data. On the whole stack.
use super::{
    common::script::{ACK, FIN, RST, segment},
    ms,
    wire::{OPTIONS, Sent, Wire, settings},
};
use netkat::stack::Settings;

/// Returns acknowledgment and SACK blocks of each bare ACK, as offsets of the peer's stream.
fn reports(wire: &Wire, sent: &[Sent]) -> Vec<(u32, Vec<(u32, u32)>)> {
    let offset = |seq: u32| seq.wrapping_sub(wire.their_seq(0));
    sent.iter()
        .map(|s| (offset(s.ack), s.sack().into_iter().map(|(l, r)| (offset(l), offset(r))).collect()))
        .collect()
}

/// RFC 2018, section 4: the first block holds the last segment, the others follow. RFC 5681,
/// section 4.2: data out of order is acknowledged at once.
#[test]
fn holes_are_reported_newest_first() {
    let mut wire = Wire::connected(settings());
    wire.peer_data(100, 0, &[1; 100]);
    let sent = wire.sent();
    assert_eq!(reports(&wire, &sent), [(0, vec![(100, 200)])]);
    wire.peer_data(300, 0, &[2; 100]);
    let sent = wire.sent();
    assert_eq!(reports(&wire, &sent), [(0, vec![(300, 400), (100, 200)])]);
    wire.peer_data(0, 0, &[0; 100]);
    let sent = wire.sent();
    assert_eq!(reports(&wire, &sent), [(200, vec![(300, 400)])]);
    assert_eq!(wire.read(), [[0; 100], [1; 100]].concat());
}

/// RFC 5681, section 3.2: three duplicate ACKs report a loss. RFC 2018, section 4: of further ones
/// that leave together, the last suffices.
#[test]
fn duplicate_acks_beyond_the_third_leave_as_one() {
    let mut wire = Wire::connected(settings());
    wire.peer_burst(&[100, 200, 300, 400, 500, 600, 700, 800], 100);
    let sent = wire.sent();
    let told = [200, 300, 400, 900].map(|right| (0, vec![(100, right)]));
    assert_eq!(reports(&wire, &sent), told);
    wire.peer_burst(&[1000, 900], 100);
    let sent = wire.sent();
    assert_eq!(reports(&wire, &sent), [(0, vec![(100, 1100)])], "a hole was filled");
}

/// RFC 2883, section 4: every duplicate is reported, however many ACKs wait, and so are more holes
/// than one ACK has room for.
#[test]
fn no_report_is_lost_among_duplicate_acks() {
    let mut wire = Wire::connected(settings());
    wire.peer_burst(&[100, 200, 300, 400, 500, 500, 600, 600, 700], 100);
    let sent = wire.sent();
    let told = reports(&wire, &sent);
    let twice: Vec<_> = told.iter().filter(|(_, b)| b.len() == 2).map(|(_, b)| b[0]).collect();
    assert_eq!(twice, [(500, 600), (600, 700)]);
    assert_eq!(told.last(), Some(&(0, vec![(100, 800)])));

    wire.peer_burst(&[1000, 2000, 3000, 4000, 5000, 6000], 100);
    let sent = wire.sent();
    let told = reports(&wire, &sent);
    for left in [1000, 2000, 3000, 4000, 5000, 6000] {
        let block = (left, left + 100);
        assert!(told.iter().any(|(_, blocks)| blocks.contains(&block)), "{block:?} in {told:?}");
    }
}

/// RFC 5681, section 3.2: the number of duplicate ACKs tells a sender without SACK how much has
/// arrived.
#[test]
fn without_sack_each_duplicate_ack_leaves() {
    let mut wire = Wire::dialling(settings(), 1500);
    wire.answer(&OPTIONS[..4]);
    wire.peer_burst(&[100, 200, 300, 400, 500, 600, 700, 800], 100);
    assert_eq!(wire.sent().len(), 8);
}

/// RFC 2018, section 2: no SACK without agreement.
#[test]
fn nothing_is_reported_to_a_peer_that_did_not_offer_to_listen() {
    let mut wire = Wire::dialling(settings(), 1500);
    wire.answer(&OPTIONS[..4]);
    wire.peer_data(100, 0, &[1; 100]);
    let sent = wire.sent();
    assert_eq!(reports(&wire, &sent), [(0, vec![])]);
}

/// RFC 2883, section 4: the first block reports a duplicate.
#[test]
fn duplicates_are_reported() {
    let mut wire = Wire::connected(settings());
    wire.peer_data(0, 0, &[0; 100]);
    wire.sent();
    wire.peer_data(0, 0, &[0; 100]);
    let sent = wire.sent();
    assert_eq!(reports(&wire, &sent), [(100, vec![(0, 100)])]);
}

/// RFC 2883, section 4.2: of a partial duplicate, the duplicated part is reported.
#[test]
fn a_part_that_came_twice_is_reported() {
    let mut wire = Wire::connected(settings());
    wire.peer_data(500, 0, &[0; 500]);
    assert_eq!(told(&mut wire), [(0, vec![(500, 1000)])]);
    wire.peer_data(0, 0, &[0; 1000]);
    assert_eq!(told(&mut wire), [(1000, vec![(500, 1000)])], "among what waited");
    wire.peer_data(600, 0, &[0; 800]);
    assert_eq!(told(&mut wire), [(1400, vec![(600, 1000)])], "no: below what is acknowledged");
    wire.peer_data(1400, 0, &[0; 100]);
    assert_eq!(told(&mut wire), [(1500, vec![])], "each once");
}

/// RFC 2883, section 4, rule 4: the block around a duplicate above the acknowledgment comes second.
/// Section 4.2: of several duplicates in one segment the first is reported.
#[test]
fn a_duplicate_inside_of_a_segment_is_reported_before_the_block_around_it() {
    let mut wire = Wire::connected(settings());
    for offset in [400, 800] {
        wire.peer_data(offset, 0, &[0; 100]);
    }
    wire.sent();
    wire.peer_data(300, 0, &[0; 700]);
    assert_eq!(told(&mut wire), [(0, vec![(400, 500), (300, 1000)])]);
    wire.peer_data(2000, 0, &[0; 100]);
    wire.sent();
    wire.peer_data(950, 0, &[0; 100]);
    assert_eq!(told(&mut wire), [(0, vec![(950, 1000), (300, 1050), (2000, 2100)])]);
    wire.peer_data(2000, 0, &[0; 100]);
    assert_eq!(told(&mut wire), [(0, vec![(2000, 2100), (2000, 2100), (300, 1050)])], "all of it");
}

/// RFC 2883, section 4: each segment of a super-frame may be a duplicate.
#[test]
fn each_duplicate_of_a_super_frame_is_reported() {
    let mut wire = Wire::connected(settings());
    wire.peer_data(0, 0, &[0; 1000]);
    for offset in [2000, 3000] {
        wire.peer_data(offset, 0, &[0; 500]);
    }
    wire.sent();
    wire.peer_data(0, 0, &[0; 4000]);
    assert_eq!(
        told(&mut wire),
        [(4000, vec![(0, 1000)]), (4000, vec![(2000, 2500)]), (4000, vec![(3000, 3500)])]
    );
    wire.peer_data(0, 0, &[0; 6000]);
    assert_eq!(told(&mut wire), [(6000, vec![(0, 4000)])], "old ones in front of new ones");
    assert_eq!(wire.read().len(), 6000);
}

/// RFC 2883, section 4: a FIN has a sequence number, too (Linux's tcp_send_dupack()).
#[test]
fn a_fin_that_came_twice_is_reported() {
    let mut wire = Wire::connected(settings());
    for (offset, data, expected) in [(3, &b""[..], (3, 4)), (0, b"all", (0, 4)), (2, b"l", (2, 4))] {
        wire.peer_sends(wire.their_seq(0), wire.our_seq(0), ACK | FIN, &[], b"all");
        wire.sent();
        wire.peer_sends(wire.their_seq(offset), wire.our_seq(0), ACK | FIN, &[], data);
        assert_eq!(told(&mut wire), [(4, vec![expected])]);
    }
}

/// RFC 2018, section 3: beside timestamps three blocks have room. RFC 7323, section 5.3: a segment
/// that PAWS drops is reported if it is a duplicate.
#[test]
fn a_duplicate_beside_timestamps_is_reported() {
    let mut wire = Wire::dialling(settings(), 1500);
    let stamp = |value: u32| [&[1, 1, 8, 10][..], &value.to_be_bytes(), &[0; 4]].concat();
    wire.answer(&[&OPTIONS[..], &stamp(1000)].concat());
    let send = |wire: &mut Wire, offset: u32, value: u32| {
        let (seq, ack) = (wire.their_seq(offset), wire.our_seq(0));
        wire.peer_sends(seq, ack, ACK, &stamp(value), &[0; 100]);
    };
    for offset in [0, 200, 400, 600, 800] {
        send(&mut wire, offset, 1001);
    }
    wire.sent();
    send(&mut wire, 200, 1001);
    assert_eq!(told(&mut wire), [(100, vec![(200, 300), (200, 300), (800, 900)])]);
    send(&mut wire, 0, 999);
    assert_eq!(told(&mut wire), [(100, vec![(0, 100), (200, 300), (800, 900)])]);
}

/// Returns acknowledgment and SACK blocks of the segments sent now.
fn told(wire: &mut Wire) -> Vec<(u32, Vec<(u32, u32)>)> {
    let sent = wire.sent();
    reports(wire, &sent)
}

/// RFC 9293, section 3.10.7.4, first, and RFC 7323, section 2.2: without scaling, the window field
/// bounds what is accepted, however large the buffer is.
#[test]
fn without_window_scaling_the_window_is_what_the_field_says() {
    let mut wire = Wire::dialling(Settings { receive_buffer: 4 << 20, ..settings() }, 1500);
    wire.answer(&OPTIONS[..8]);
    for (offset, len) in [(70_000, 1000), (65_535, 1), (3_000_000, 1000)] {
        wire.peer_data(offset, 0, &vec![0; len]);
        assert_eq!(told(&mut wire), [(0, vec![])], "{offset}");
    }
    for offset in [65_535, 3_000_000] {
        wire.peer_sends(wire.their_seq(offset), 0, RST, &[], &[]);
        assert_eq!(told(&mut wire), [], "{offset}");
    }
    wire.peer_data(65_534, 0, &[0; 2]);
    assert_eq!(told(&mut wire), [(0, vec![(65_534, 65_535)])], "the last byte that fits");
    // A window that no segment can express triggers no update.
    let mut acks = 0;
    for segment in 0..60 {
        wire.peer_data(segment * 1000, 0, &[0; 1000]);
        wire.read();
        let sent = wire.sent();
        acks += sent.len();
        assert!(sent.iter().all(|s| s.window == u16::MAX), "{sent:?}");
    }
    assert!(acks <= 60, "{acks}");
}

/// RFC 9293, section 3.1, MUST-7: an option of an impossible length ends the options, not the
/// segment.
#[test]
fn data_behind_malformed_options_is_taken() {
    let mut wire = Wire::connected(settings());
    for (offset, options) in
        [(0, &[254, 0, 0, 0][..]), (4, &[5, 9, 0, 0]), (8, &[8, 3, 1, 1]), (12, &[1, 1, 1, 2])]
    {
        wire.peer_sends(wire.their_seq(offset), wire.our_seq(0), ACK, options, b"data");
        assert_eq!(told(&mut wire), [(offset + 4, vec![])], "{options:?}");
    }
    assert_eq!(wire.read(), b"data".repeat(4));
}

/// RFC 9293, section 3.10.7.4: only the new part of overlapping data is accepted, once.
#[test]
fn overlapping_data_is_read_once() {
    let mut wire = Wire::connected(settings());
    wire.peer_data(0, 0, b"abcdef");
    wire.peer_data(3, 0, b"defghi");
    wire.peer_data(7, 0, b"h");
    wire.peer_data(20, 0, b"uvw");
    wire.peer_data(9, 0, b"jklmnopqrstuv");
    assert_eq!(wire.read(), b"abcdefghijklmnopqrstuvw");
}

/// RFC 9293, section 3.10.7.4: data beyond the window is dropped, and an ACK tells the window.
#[test]
fn data_beyond_the_window_is_refused() {
    let mut wire = Wire::connected(settings());
    wire.peer_data(1 << 16, 0, b"too far");
    let sent = wire.sent();
    assert_eq!(reports(&wire, &sent), [(0, vec![])]);
    assert_eq!(wire.flow().received(), 0);
}

/// RFC 9293, section 3.8.6.1: a probe of a zero window is answered, with data or without. Reading
/// opens the window and tells the peer.
#[test]
fn probes_of_a_shut_window_are_answered() {
    let mut wire = Wire::connected(Settings { receive_buffer: 4000, ..settings() });
    for offset in 0..4 {
        wire.peer_data(offset * 1000, 0, &[0; 1000]);
    }
    assert_eq!(wire.sent().last().map(|s| (s.window, s.ack)), Some((0, wire.their_seq(4000))));
    for probe in [&b""[..], b"x"] {
        let seq = wire.their_seq(4000 - 1 + probe.len() as u32);
        wire.peer_sends(seq, wire.our_seq(0), ACK, &[], probe);
        let sent = wire.sent();
        assert_eq!(sent.iter().map(|s| (s.window, s.ack)).collect::<Vec<_>>(), [(0, wire.their_seq(4000))]);
    }
    wire.read();
    let sent = wire.sent();
    assert_eq!(sent.iter().map(|s| (s.window, s.ack)).collect::<Vec<_>>(), [(4000, wire.their_seq(4000))]);
}

/// RFC 9293, section 3.8.6: the window's right edge never moves back.
#[test]
fn the_window_never_shrinks() {
    let mut wire = Wire::connected(Settings { receive_buffer: 1 << 20, ..settings() });
    let shift = 5;
    let mut edge = wire.their_seq(0);
    for round in 0..300u32 {
        wire.peer_data(round * 1460, 0, &[0; 1460]);
        if round % 7 == 0 {
            wire.read_up_to(4000);
        }
        for sent in wire.sent() {
            let next = sent.ack.wrapping_add(u32::from(sent.window) << shift);
            assert!(next.wrapping_sub(edge) as i32 > -(1 << shift), "round {round}: less by {}", edge - next);
            edge = next;
        }
    }
}

/// RFC 9293, section 3.8.6.3: at least every second full segment is acknowledged, and each within
/// half a second.
#[test]
fn acknowledgments_are_not_late() {
    let mut wire = Wire::connected(settings());
    for segment in 0..10u32 {
        let before = wire.run(ms(0)).len();
        wire.peer_data(segment * 1460, 0, &[0; 1460]);
        let sent = wire.sent();
        assert_eq!(before, 0);
        if segment % 2 == 1 {
            assert_eq!(sent.last().map(|s| s.ack), Some(wire.their_seq(1460 * (segment + 1))), "{sent:?}");
        }
        wire.read();
        wire.sent();
    }
    wire.peer_data(14_600, 0, b"x");
    let sent = wire.run(ms(500));
    assert_eq!(sent.last().map(|s| s.ack), Some(wire.their_seq(14_601)), "{sent:?}");
}

/// RFC 6093, section 6: urgent data is ordinary data, wherever the pointer points.
#[test]
fn urgent_data_stays_in_line() {
    const URG: u8 = 0x20;
    let mut wire = Wire::connected(settings());
    for (offset, pointer) in [(0, 1u16), (4, 4), (8, 0), (12, 60_000)] {
        let (seq, ack) = (wire.their_seq(offset), wire.our_seq(0));
        let mut bytes = segment(seq, ack, ACK | URG, 1000, &[], b"data", (80, 40_000));
        bytes[18..20].copy_from_slice(&pointer.to_be_bytes());
        wire.peer_sends_raw(bytes);
    }
    assert_eq!(wire.read(), b"data".repeat(4));
}

/// RFC 9293, section 3.10.7.4: a FIN is processed after the data before it.
#[test]
fn an_early_fin_waits_for_the_data_before_it() {
    let mut wire = Wire::connected(settings());
    wire.peer_sends(wire.their_seq(4), wire.our_seq(0), ACK | FIN, &[], b"last");
    assert!(!wire.flow().peer_finished());
    wire.peer_data(0, 0, b"all ");
    assert_eq!(wire.read(), b"all last");
    assert!(wire.flow().peer_finished());
    assert_eq!(wire.run(ms(10)).last().map(|s| s.ack), Some(wire.their_seq(9)));
}

/// RFC 9293, section 3.10.7.4: the new part of a segment counts, even the FIN alone.
#[test]
fn a_fin_behind_data_that_was_there_is_taken() {
    let mut wire = Wire::connected(settings());
    wire.peer_data(0, 0, b"all");
    wire.peer_sends(wire.their_seq(0), wire.our_seq(0), ACK | FIN, &[], b"all");
    assert_eq!(wire.read(), b"all");
    assert!(wire.flow().peer_finished());
    assert_eq!(wire.run(ms(10)).last().map(|s| s.ack), Some(wire.their_seq(4)));
}

/// RFC 9293, section 3.10.7.4: data behind a FIN is dropped, and a known FIN stays at its place.
#[test]
fn nothing_follows_a_fin() {
    let mut wire = Wire::connected(settings());
    let ack = wire.our_seq(0);
    wire.peer_sends(wire.their_seq(4), ack, ACK | FIN, &[], b"");
    wire.peer_sends(wire.their_seq(2), ack, ACK, &[], b"cdef");
    wire.peer_sends(wire.their_seq(0), ack, ACK | FIN, &[], b"abcdefgh");
    assert_eq!(wire.read(), b"abcd");
    assert!(wire.flow().peer_finished());
    wire.sent();
    wire.peer_sends(wire.their_seq(5), ack, ACK, &[], b"more");
    assert_eq!(wire.sent().last().map(|s| s.ack), Some(wire.their_seq(5)));
    assert_eq!(wire.read(), b"");
}

/// RFC 7323, section 5.3 (PAWS), on the whole stack: an old duplicate is acknowledged and kept out
/// of the stream.
#[test]
fn old_duplicates_do_not_get_into_the_stream() {
    let mut wire = Wire::dialling(settings(), 1500);
    let stamp = |value: u32| {
        let mut option = vec![1, 1, 8, 10];
        option.extend(value.to_be_bytes());
        option.extend([0; 4]);
        option
    };
    wire.answer(&[&OPTIONS[..], &stamp(1000)].concat());
    let ack = wire.our_seq(0);
    wire.peer_sends(wire.their_seq(0), ack, ACK, &stamp(1001), b"new ");
    wire.sent();
    wire.peer_sends(wire.their_seq(4), ack, ACK, &stamp(999), b"old ");
    assert_eq!(wire.sent().iter().map(|s| s.ack).collect::<Vec<_>>(), [wire.their_seq(4)]);
    wire.peer_sends(wire.their_seq(4), ack, ACK, &stamp(1001), b"data");
    assert_eq!(wire.read(), b"new data");
}

/// RFC 9293, section 3.8.6.2.2: a window opens by a segment or by half of the buffer, not by each
/// byte read.
#[test]
fn no_silly_window_is_offered() {
    for buffer in [2000usize, 8000] {
        let mut wire = Wire::connected(Settings { receive_buffer: buffer, ..settings() });
        let mut offset = 0;
        while offset < buffer {
            let len = (buffer - offset).min(1000);
            wire.peer_data(offset as u32, 0, &vec![0; len]);
            offset += len;
        }
        assert_eq!(wire.sent().last().map(|s| s.window), Some(0));
        let mut opened = Vec::new();
        for _ in 0..buffer {
            wire.read_up_to(1);
            opened.extend(wire.sent().iter().map(|s| usize::from(s.window)).filter(|window| *window > 0));
        }
        let least = 1460.min(buffer / 2);
        assert!(!opened.is_empty() && opened.iter().all(|window| *window >= least), "{buffer}: {opened:?}");
    }
}
