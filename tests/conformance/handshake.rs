//! The agreement of the two SYNs, and the opening of a connection (RFC 9293, section 3.5; RFC 6691;
//! RFC 7323).
use super::{
    wire::{self, OPTIONS, Wire},
    *,
};
use netkat::{
    segment::{Options, Segment},
    stack::{Discard, Discards, Settings},
};

/// RFC 6691: the MSS option is the link's, whatever the stack wrote. RFC 7323: the other options
/// pass.
#[test]
fn our_syn_carries_the_links_mss() {
    let mut script = Script::unconnected(config(|c| c.receive_buffer = 5 << 20));
    let options = script.syn_options();
    script.stack_segment(77, 0, SYN, &options, &[]);
    let sent = script.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].seq, sent[0].flags), (77, SYN));
    assert_eq!(sent[0].header[20..24], [2, 4, 0x03, 0xf4]);
    let given = Segment::parse(&segment(77, 0, SYN, 64, &options, &[], (1000, 2000))).expect("a segment");
    let syn = Segment::parse(&sent[0].header).expect("our own");
    assert_eq!(syn.options, Options { mss: Some(0x03f4), ..given.options });
    assert_eq!(sent[0].header[16..18], [0, 0], "the checksum is the IP layer's");
}

/// RFC 9293, section 3.7.1: without an MSS option, the MSS is 536.
#[test]
fn a_peer_without_options_gets_small_plain_segments() {
    let mut script = Script::unconnected(Terms::default());
    script.terms.timestamps = false;
    let options = script.syn_options();
    script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
    script.sent();
    let shown = script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 5_000, &[], &[]);
    assert_eq!(shown, SegmentOutcome::Handshake);
    assert!(script.layer.is_established());
    script.write(600);
    let sent = script.sent();
    let lens: Vec<_> = sent.iter().map(|s| (s.len, s.header.len())).collect();
    assert_eq!(lens, [(536, 20), (64, 20)]);
}

/// RFC 7323, section 2.2: the window of a SYN is never scaled.
#[test]
fn the_first_window_is_not_scaled() {
    let mut script = Script::unconnected(config(|c| c.max_frame = 64_000));
    let options = script.syn_options();
    script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
    script.sent();
    script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 1_500, &options, &[]);
    script.write(4_000);
    assert_eq!(script.data(), [(0, 1500)]);
}

/// RFC 9293, section 3.5: passive open.
#[test]
fn a_listener_is_established_by_the_ack_of_its_syn() {
    let mut script = Script::unconnected(Terms::default());
    let options = script.syn_options();
    assert_eq!(script.peer_sends(PEER - 1, 0, SYN, 8_000, &options, &[]), SegmentOutcome::Handshake);
    script.stack_segment(script.terms.iss, PEER, SYN | ACK, &options, &[]);
    assert_eq!(script.sent()[0].flags, SYN | ACK);
    assert!(!script.layer.is_established());
    assert_eq!(
        script.ack(5),
        SegmentOutcome::Handshake,
        "an ACK for something else is the stack's to refuse"
    );
    assert!(!script.layer.is_established());
    assert_eq!(script.ack(0), SegmentOutcome::Processed);
    assert!(script.layer.is_established());
    assert_eq!(script.events(), [Event::Established]);
    script.write(1000);
    assert_eq!(script.data(), [(0, 1000)]);
}

/// RFC 9293, section 3.5: simultaneous open.
#[test]
fn both_sides_may_open() {
    let mut script = Script::unconnected(Terms::default());
    let options = script.syn_options();
    script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
    assert_eq!(script.peer_sends(PEER - 1, 0, SYN, 8_000, &options, &[]), SegmentOutcome::Handshake);
    script.stack_segment(script.terms.iss, PEER, SYN | ACK, &options, &[]);
    let flags: Vec<_> = script.sent().iter().map(|s| s.flags).collect();
    assert_eq!(flags, [SYN, SYN | ACK]);
    let shown = script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 8_000, &options, &[]);
    assert_eq!(shown, SegmentOutcome::Handshake);
    assert!(script.layer.is_established());
}

/// RFC 6298, section 3 (Karn): a retransmitted SYN measures no round trip.
#[test]
fn the_handshake_measures_a_round_trip_if_the_syn_went_once() {
    for (times, expected) in [(1, Some(ms(40))), (2, None)] {
        let mut script = Script::unconnected(Terms::default());
        let options = script.syn_options();
        for _ in 0..times {
            script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
        }
        script.sent();
        script.advance(ms(40));
        script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 8_000, &options, &[]);
        assert_eq!(script.layer.stats().smoothed_rtt, expected);
    }
}

/// RFC 9293, section 3.7.1, and RFC 6691: our MSS option is the smaller of the MTU's and the
/// user's. RFC 7323, section 2.2: the window scale fits the buffer. RFC 2018, section 2: SACK is
/// permitted.
#[test]
fn our_syn_offers_what_we_can_take() {
    for (mtu, mss, expected) in
        [(1500, None, 1460u16), (9000, None, 8960), (1500, Some(1200), 1200), (576, Some(1200), 536)]
    {
        let settings = Settings { mss, receive_buffer: 4 << 20, ..wire::settings() };
        let syn = Wire::dialling(settings, mtu).sent().remove(0);
        assert_eq!(syn.option(2), Some(&expected.to_be_bytes()[..]), "MTU {mtu}");
        assert_eq!(syn.option(3), Some(&[7][..]), "4 MiB is 65535 shifted by 7, just about");
        assert_eq!(syn.option(4), Some(&[][..]), "SACK permitted");
        assert!(syn.option(8).is_some(), "timestamps");
        assert_eq!(syn.window, u16::MAX, "unscaled");
    }
}

/// RFC 9293, section 3.7.1: segments have the smaller MSS of both; without the option 536 (IPv4).
#[test]
fn segments_fit_both_sides() {
    for (option, expected) in
        [(&[2, 4, 0x05, 0xb4][..], 1460), (&[2, 4, 0x02, 0x00], 512), (&[2, 4, 0xff, 0xff], 1460), (&[], 536)]
    {
        let mut wire = Wire::dialling(wire::settings(), 1500);
        wire.answer(option);
        wire.write(&[1; 4000]);
        let lens: Vec<_> = wire.sent().iter().map(|s| s.payload.len()).collect();
        assert_eq!((lens[0], lens.iter().max()), (expected, Some(&expected)), "{option:?}: {lens:?}");
    }
}

/// RFC 9293, section 3.7.1, sets no least MSS. A peer that asks for a tiny one is not served byte
/// by byte, which would cost us a hundred times the peer's cost. Linux's least is 48 bytes, too.
#[test]
fn a_tiny_segment_size_is_raised() {
    for mss in [0u16, 1, 40] {
        let mut wire = Wire::dialling(wire::settings(), 1500);
        let [high, low] = mss.to_be_bytes();
        wire.answer(&[2, 4, high, low]);
        wire.write(&[1; 4000]);
        let lens: Vec<_> = wire.sent().iter().map(|s| s.payload.len()).collect();
        assert!(!lens.is_empty() && lens.iter().all(|len| (48..=536).contains(len)), "{mss}: {lens:?}");
    }
}

/// RFC 7323, section 2.3: a shift above 14 counts as 14.
#[test]
fn a_shift_is_at_most_fourteen() {
    let mut wire = Wire::dialling(Settings { send_buffer: 1 << 20, ..wire::settings() }, 1500);
    wire.answer(&[2, 4, 0x05, 0xb4, 1, 3, 3, 200]);
    wire.window = 1;
    wire.peer_data(0, 0, &[]);
    wire.write(&[1; 100_000]);
    // The congestion window is ten segments; the peer's is 1 << 14.
    let sent: usize = wire.sent().iter().map(|s| s.payload.len()).sum();
    assert_eq!(sent, 10 * 1460);
    wire.peer_data(0, sent as u32, &[]);
    let more: usize = wire.sent().iter().map(|s| s.payload.len()).sum();
    assert_eq!(more, (1 << 14) / 1460 * 1460, "the whole segments that the window holds");
}

/// RFC 7323, section 2.2: windows are scaled only if both SYNs have the option.
#[test]
fn windows_are_not_scaled_for_one_side_alone() {
    let mut wire = Wire::dialling(Settings { receive_buffer: 1 << 20, ..wire::settings() }, 1500);
    wire.answer(&[2, 4, 0x05, 0xb4]);
    wire.window = 3000;
    wire.peer_data(0, 0, &[0; 1460]);
    assert_eq!(wire.sent().iter().map(|s| s.window).collect::<Vec<_>>(), [u16::MAX]);
    wire.write(&[1; 5000]);
    assert_eq!(wire.sent().iter().map(|s| s.payload.len()).sum::<usize>(), 2920);
}

/// RFC 6298, section 5.5, and RFC 9293, section 3.8.1: a SYN is retransmitted after a second, then
/// with backoff.
#[test]
fn a_lost_syn_is_repeated() {
    let mut wire = Wire::dialling(wire::settings(), 1500);
    let syns = wire.run(ms(16_000));
    assert!(syns.iter().all(|s| s.flags == SYN && s.seq == syns[0].seq), "{syns:?}");
    let gaps: Vec<_> = syns.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
    assert_eq!(gaps[0], 1000);
    assert!(gaps.windows(2).all(|pair| pair[1] == 2 * pair[0]), "{gaps:?}");
}

/// RFC 9293, section 3.1, MUST-7: an invalid option costs only itself.
#[test]
fn malformed_options_do_not_cost_the_connection() {
    for options in [
        &[2, 3, 5, 1][..],
        &[2, 4, 5, 0xb4, 254, 0],
        &[2, 4, 5, 0xb4, 5, 9, 1, 1, 1, 1, 1, 1, 1],
        &[2, 4, 5, 0xb4, 3, 2, 4, 3, 0, 8, 9],
        &[1, 1, 1, 2],
        &[0, 2, 1, 255],
    ] {
        let mut wire = Wire::dialling(wire::settings(), 1500);
        wire.answer(options);
        wire.peer_data(0, 0, b"hello");
        assert_eq!(wire.read(), b"hello", "{options:?}");

        let mut wire = Wire::listening(wire::settings());
        wire.peer_sends(wire.theirs, 0, SYN, options, &[]);
        let answer = wire.sent().remove(0);
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, wire.their_seq(0)), "{options:?}");
        wire.ours = answer.seq;
        wire.peer_data(0, 0, b"hello");
        assert_eq!(wire.read(), b"hello", "{options:?}");
    }
}

/// RFC 9293, section 3.10.7.3, fourth: data in a SYN-ACK counts, with malformed options, too.
#[test]
fn a_syn_ack_may_bring_data_and_a_fin() {
    let mut wire = Wire::dialling(wire::settings(), 1500);
    wire.ours = wire.sent()[0].seq;
    let ack = wire.our_seq(0);
    wire.peer_sends(wire.theirs, ack, SYN | ACK | FIN, &[2, 3, 5, 1], b"all");
    assert_eq!(wire.sent().last().map(|s| (s.flags, s.ack)), Some((ACK, wire.their_seq(4))));
    assert_eq!(wire.read(), b"all");
    assert!(wire.flow().peer_finished());
    wire.write(b"answer");
    assert!(wire.run(ms(1)).iter().any(|s| s.payload == b"answer"));
}

/// RFC 9293, section 3.5.1, figure 9: the peer's half-open connection of an earlier life is reset,
/// and the SYN does not wait for its timer. That happens once, so that no stranger makes us send
/// more than the stranger does.
#[test]
fn a_half_open_connection_of_the_peers_costs_no_second() {
    let mut wire = Wire::dialling(wire::settings(), 1500);
    let syn = wire.sent().remove(0);
    wire.ours = syn.seq;
    wire.peer_sends(4_000, wire.ours.wrapping_sub(77), ACK, &[], &[]);
    let sent = wire.run(ms(20));
    let told: Vec<_> = sent.iter().map(|s| (s.flags, s.seq)).collect();
    assert_eq!(told, [(RST, wire.ours.wrapping_sub(77)), (SYN, wire.ours)]);
    assert_eq!(sent[1].options.len(), syn.options.len());
    assert_eq!(sent[1].option(2), syn.option(2));
    wire.peer_sends(4_000, wire.ours.wrapping_sub(77), ACK, &[], &[]);
    assert_eq!(wire.run(ms(500)).iter().map(|s| s.flags).collect::<Vec<_>>(), [RST]);
    assert_eq!(wire.run(ms(1000)).iter().map(|s| s.flags).collect::<Vec<_>>(), [SYN]);
    wire.peer_sends(wire.theirs, wire.our_seq(0), SYN | ACK, &OPTIONS, &[]);
    assert_eq!(wire.flow().phase(), netkat::stack::Phase::Open);
}

/// Segments that arrive and are no answer are counted, for the report about an attempt that times
/// out.
#[test]
fn what_is_no_answer_is_remembered() {
    let mut wire = Wire::dialling(wire::settings(), 1500);
    wire.ours = wire.sent()[0].seq;
    assert_eq!(wire.flow().discards(), None);
    let (right, wrong) = (wire.our_seq(0), wire.our_seq(9));
    let mut heard = Vec::new();
    for (flags, ack) in [(ACK, right), (SYN | ACK, wrong), (RST | ACK, wrong), (RST, 0), (FIN, 0), (0, 0)] {
        wire.peer_sends(wire.theirs, ack, flags, &[], &[]);
        heard.push(wire.flow().discards().expect("something came").last);
    }
    let acknowledgment = |flags| Discard::Acknowledgment(flags);
    let expected = [
        Discard::Flags(ACK),
        acknowledgment(SYN | ACK),
        acknowledgment(RST | ACK),
        Discard::Flags(RST),
        Discard::Flags(FIN),
        Discard::Flags(0),
    ];
    assert_eq!(heard, expected);
    let mut segment = segment(wire.theirs, right, SYN | ACK, 1000, &[], &[], (80, 40_000));
    segment[12] = 0xf0;
    wire.peer_sends_raw(segment);
    assert_eq!(wire.flow().discards(), Some(Discards { count: 7, last: Discard::Header }));
    wire.peer_sends(wire.theirs, right, SYN | ACK, &OPTIONS, &[]);
    wire.peer_sends(wire.theirs, wrong, ACK, &[], &[]);
    assert_eq!(wire.flow().discards().map(|discards| discards.count), Some(7), "it stands");
}

/// RFC 7323, section 5.4: a listener's clock goes on from its SYN-ACK, also after retransmissions
/// of it.
#[test]
fn the_timestamps_of_a_listener_do_not_leap() {
    let mut wire = Wire::listening(wire::settings());
    let stamp = |value: u32, echo: u32| {
        let mut option = vec![1, 1, 8, 10];
        option.extend(value.to_be_bytes());
        option.extend(echo.to_be_bytes());
        option
    };
    let value = |sent: &[wire::Sent]| {
        let bytes = sent.last().and_then(|s| s.option(8)).expect("a timestamp")[..4].try_into();
        u32::from_be_bytes(bytes.expect("four bytes"))
    };
    wire.peer_sends(wire.theirs, 0, SYN, &[&OPTIONS[..], &stamp(100, 0)].concat(), &[]);
    let first = wire.sent();
    wire.ours = first[0].seq;
    let origin = value(&first);
    // The SYN-ACK is retransmitted after a second.
    let sent = wire.run(ms(1500));
    assert_eq!(sent.iter().map(|s| s.flags).collect::<Vec<_>>(), [SYN | ACK]);
    assert_eq!(value(&sent), origin + 1000);
    let (ack, options) = (wire.our_seq(0), stamp(1600, origin));
    wire.peer_sends(wire.their_seq(0), ack, ACK, &options, &[]);
    wire.peer_sends(wire.their_seq(0), ack, ACK, &options, b"data");
    assert_eq!(value(&wire.sent()), origin + 1500);
    wire.run(ms(1000));
    wire.peer_sends(wire.their_seq(4), ack, ACK, &stamp(2600, origin), b"data");
    assert_eq!(value(&wire.sent()), origin + 2500);
}
