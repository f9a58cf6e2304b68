//! Segment size: packet-too-big (RFC 1191) and probing (RFC 4821).
use super::*;
use netkat::segment::SeqNumber;

/// RFC 1191: data in flight is retransmitted in segments that fit, and the window stays.
#[test]
fn a_packet_too_big_cuts_what_is_in_flight() {
    let mut script = flight(3);
    assert!(script.layer.quotes(SeqNumber(script.seq(2000))));
    assert!(!script.layer.quotes(SeqNumber(script.seq(999))), "RFC 5927, section 4.1: acknowledged");
    assert!(!script.layer.quotes(SeqNumber(script.seq(4000))), "never sent");
    script.layer.set_mss(script.now, 612);
    let sent = script.data();
    assert!(sent.iter().all(|s| s.1 <= 600), "{sent:?}");
    assert_eq!(sent.iter().map(|s| s.1).sum::<usize>(), 3000, "{sent:?}");
    let stats = script.layer.stats();
    assert_eq!((stats.timeouts, stats.fast_recoveries, stats.segment_size), (0, 0, 600));
    assert_eq!(stats.slow_start_threshold, None);
    script.ack(4000);
    assert_eq!(script.layer.outstanding(), 0);
}

/// RFC 4821, sections 7.2 and 7.3: a size that was given up is probed again, by single segments of
/// new data, and their loss is no congestion.
#[test]
fn the_old_size_is_probed_for() {
    let mut script = Script::established(config(|c| c.link_mss = 1460));
    script.write(1_448);
    script.run(ms(8_000));
    assert_eq!(script.layer.stats().segment_size, 1208);
    script.ack(1_448);
    // Small writes open the window and hold too little for a probe.
    while script.layer.stats().congestion_window < 8_000 {
        for _ in 0..script.layer.stats().congestion_window / 600 {
            script.write(600);
            script.sent();
        }
        script.advance(ms(40));
        script.ack(script.written);
        script.sent();
    }
    // The path drops the first probe and delivers the next.
    let start = script.written;
    script.write(5_000);
    let sent = script.sent();
    assert_eq!((sent[0].offset, sent[0].len, sent[0].gso), (start, 1_448, None));
    assert!(sent[1..].iter().all(|s| s.len <= 1_208), "{sent:?}");
    let window = script.layer.stats().congestion_window;
    script.advance(ms(40));
    script.sack(start, &[(start + 1_448, start + 5_000)]);
    let again: Vec<_> = script.run(ms(15)).iter().map(|s| s.len).collect();
    assert_eq!(again, [1_208, 240]);
    let stats = script.layer.stats();
    assert!(stats.congestion_window >= window && stats.fast_recoveries == 0, "{stats:?}");
    script.ack(script.written);
    script.sent();
    script.write(5_000);
    let probe = script.sent()[0].clone();
    assert_eq!((probe.len, probe.gso), (1_448, None));
    script.ack(script.written);
    script.sent();
    assert_eq!(script.layer.stats().segment_size, 1_448);
}

/// RFC 4821, section 7.7: only full segments vanish.
#[test]
fn a_black_hole_is_found() {
    let mut script = Script::established(config(|c| c.link_mss = 1460));
    script.write(5_000);
    script.sent();
    let sent = script.run(ms(3_000));
    let lens: Vec<_> = sent.iter().map(|s| s.len).collect();
    assert_eq!(lens.last(), Some(&1208), "1220 less timestamps: {lens:?}");
    assert_eq!(script.layer.stats().segment_size, 1208);
}
