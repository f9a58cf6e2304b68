//! What the two SYNs agree on, and how a connection opens (RFC 9293, section 3.5; RFC 6691; RFC 7323).
use super::{
    wire::{self, Wire},
    *,
};
use netkat::stack::Settings;

/// RFC 6691: the MSS option is the link's, whatever the stack wrote. RFC 7323: the rest passes.
#[test]
fn our_syn_carries_the_links_mss() {
    let mut script = Script::unconnected(config(|c| c.receive_buffer = 5 << 20));
    let options = script.syn_options();
    script.stack_segment(77, 0, SYN, &options, &[]);
    let sent = script.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].seq, sent[0].flags), (77, SYN));
    assert_eq!(sent[0].header[20..24], [2, 4, 0x03, 0xf4]);
    assert_eq!(sent[0].header[24..], options[4..]);
    assert_eq!(sent[0].header[16..18], [0, 0], "the checksum is the IP layer's");
}

/// RFC 9293, section 3.7.1: without an MSS option, 536.
#[test]
fn a_peer_without_options_gets_small_plain_segments() {
    let mut script = Script::unconnected(Terms::default());
    script.terms.timestamps = false;
    let options = script.syn_options();
    script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
    script.sent();
    let shown = script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 5_000, &[], &[]);
    assert_eq!(shown, Disposition::Show);
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
    assert_eq!(script.peer_sends(PEER - 1, 0, SYN, 8_000, &options, &[]), Disposition::Show);
    script.stack_segment(script.terms.iss, PEER, SYN | ACK, &options, &[]);
    assert_eq!(script.sent()[0].flags, SYN | ACK);
    assert!(!script.layer.is_established());
    assert_eq!(script.ack(5), Disposition::Show, "an ACK for something else is the stack's to refuse");
    assert!(!script.layer.is_established());
    assert_eq!(script.ack(0), Disposition::Hide);
    assert!(script.layer.is_established());
    assert_eq!(script.for_stack(), [(ACK, PEER, 0)]);
    script.write(1000);
    assert_eq!(script.data(), [(0, 1000)]);
}

/// RFC 9293, section 3.5: simultaneous open.
#[test]
fn both_sides_may_open() {
    let mut script = Script::unconnected(Terms::default());
    let options = script.syn_options();
    script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
    assert_eq!(script.peer_sends(PEER - 1, 0, SYN, 8_000, &options, &[]), Disposition::Show);
    script.stack_segment(script.terms.iss, PEER, SYN | ACK, &options, &[]);
    let flags: Vec<_> = script.sent().iter().map(|s| s.flags).collect();
    assert_eq!(flags, [SYN, SYN | ACK]);
    let shown = script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 8_000, &options, &[]);
    assert_eq!(shown, Disposition::Show);
    assert!(script.layer.is_established());
}

/// RFC 6298, section 3 (Karn): a SYN that was repeated measures nothing.
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

/// RFC 9293, section 3.7.1, and RFC 6691: our MSS option is what the MTU leaves, or what the user set, if that is
/// less; RFC 7323, section 2.2: the window scale fits the buffer; RFC 2018, section 2.
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

/// RFC 9293, section 3.7.1: segments are as large as the smaller MSS; without the option 536 (IPv4).
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

/// RFC 9293, section 3.7.1, sets no least MSS; a peer that asks for next to nothing is not served byte by byte, which
/// would cost us a hundred times what it costs the peer. Linux's least is 48 bytes, too.
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

/// RFC 7323, section 2.2: no scaling unless both SYNs have it.
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

/// RFC 6298, section 5.5, and RFC 9293, section 3.8.1: a SYN is repeated after a second, then more and more rarely.
#[test]
fn a_lost_syn_is_repeated() {
    let mut wire = Wire::dialling(wire::settings(), 1500);
    let syns = wire.run(ms(16_000));
    assert!(syns.iter().all(|s| s.flags == SYN && s.seq == syns[0].seq), "{syns:?}");
    let gaps: Vec<_> = syns.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
    assert_eq!(gaps[0], 1000);
    assert!(gaps.windows(2).all(|pair| pair[1] == 2 * pair[0]), "{gaps:?}");
}
