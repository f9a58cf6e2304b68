//! Tail loss probes (RFC 8985, section 7).
use super::*;

/// RFC 8985, section 7.2: the probe follows the last of several segments after two round trips and
/// a millisecond.
#[test]
fn a_silent_tail_is_probed_with_its_last_segment() {
    let mut script = flight(3);
    assert_eq!(data(&script.run(ms(100))), [(ms(81), 3000, 1000)]);
    assert_eq!(script.layer.stats().tail_probes, 1);
    script.advance(ms(22));
    script.sack(1000, &[(3000, 4000)]);
    assert_eq!(script.data(), [(1000, 1000)], "RFC 9937: one at first");
    script.sack(2000, &[(3000, 4000)]);
    assert_eq!(script.data(), [(2000, 1000)]);
    assert_eq!(script.layer.stats().timeouts, 0);
}

/// RFC 8985, section 7.2: a lone segment's ACK may be delayed, so the timeout comes first.
#[test]
fn a_lone_segment_is_probed_no_later_than_the_timeout() {
    let mut script = flight(1);
    let sent = script.run(ms(241));
    assert_eq!(data(&sent), [(ms(240), 1000, 1000)]);
    assert_eq!(script.layer.stats().tail_probes, 1);
}

/// RFC 8985, section 7.3: a probe carries new data where there is any.
#[test]
fn waiting_data_is_the_probe() {
    let mut script = Script::measured(Terms::default());
    let window = script.layer.stats().congestion_window as i64 / 1000;
    send(&mut script, window);
    script.write(1000);
    assert_eq!(data(&script.run(ms(100))), [(ms(81), 1000 + window * 1000, 1000)]);
}

/// RFC 8985, section 7.3: a probe restarts the retransmission timer. RFC 9002, section 6.2.1: a
/// second one follows after twice the time.
#[test]
fn two_probes_and_then_the_timeout() {
    let mut script = flight(3);
    let probes = [(ms(81), 3000, 1000), (ms(81 + 2 * 81), 3000, 1000)];
    let timeouts = [(ms(81 + 240), 1000, 1000), (ms(81 + 3 * 240), 1000, 1000)];
    assert_eq!(data(&script.run(ms(900))), [probes, timeouts].concat());
    let stats = script.layer.stats();
    assert_eq!((stats.tail_probes, stats.timeouts), (2, 2));
}

/// On a long path the timeout comes before a second probe.
#[test]
fn a_second_probe_does_not_put_off_the_timeout() {
    let mut script = flight(1);
    let times: Vec<_> = data(&script.run(ms(500))).iter().map(|s| s.0).collect();
    assert_eq!(times, [ms(240), ms(480)]);
    assert_eq!(script.layer.stats().timeouts, 1);
}

/// RFC 8985, section 7.4.2: a repair by the second probe counts like one by the first.
#[test]
fn a_second_probe_repairs_the_loss_of_the_first() {
    let mut script = flight(3);
    let before = script.layer.stats().congestion_window;
    script.run(ms(260));
    script.advance(ms(40));
    script.sack(1000, &[(3000, 4000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    let stats = script.layer.stats();
    assert_eq!((stats.tail_probes, stats.timeouts), (2, 0));
    assert!(stats.congestion_window < before);
}

/// RFC 8985, section 7.4.2: the congestion controller reacts to a loss that a probe repaired.
#[test]
fn a_repaired_loss_shrinks_the_window() {
    let mut script = flight(3);
    let before = script.layer.stats().congestion_window;
    script.run(ms(100));
    script.ack(4000);
    script.sent();
    assert_eq!(script.layer.stats().congestion_window, before, "either copy may have come");
    send(&mut script, 1);
    script.advance(ms(40));
    script.ack(5000);
    script.sent();
    assert!(script.layer.stats().congestion_window < before);
}

/// RFC 8985, section 7.4.2: a D-SACK for the probe tells that nothing was lost.
#[test]
fn a_needless_probe_costs_nothing() {
    let mut script = flight(3);
    let before = script.layer.stats().congestion_window;
    script.run(ms(100));
    script.ack(4000);
    script.sack(4000, &[(3000, 4000)]);
    script.sent();
    send(&mut script, 1);
    script.advance(ms(40));
    script.ack(5000);
    script.sent();
    assert!(script.layer.stats().congestion_window >= before);
}

/// RFC 9293, section 3.10.4: a FIN is part of the tail.
#[test]
fn a_lost_fin_is_sent_again() {
    let mut script = flight(2);
    script.fin();
    assert_eq!(script.data(), [(3000, 0)]);
    let sent = script.run(ms(100));
    assert_eq!(data(&sent), [(ms(81), 3000, 0)]);
    assert_eq!(sent[0].flags & FIN, FIN);
    script.ack(3000);
    let again = script.run(ms(400));
    assert!(again.iter().any(|s| s.offset == 3000 && s.flags & FIN != 0), "{again:?}");
    script.ack(3001);
    assert_eq!(script.layer.outstanding(), 0);
    assert_eq!(script.run(ms(5_000)), []);
}

/// RFC 9002, section 6.2, where RFC 8985, section 7.2, waits for the timeout: retransmissions of a
/// recovery are a tail, too. A probe fills the hole at once if it is still there; the timeout
/// covers the probe.
#[test]
fn a_silent_recovery_is_probed_with_its_hole() {
    let mut script = flight(4);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 5000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    let window = script.layer.stats().congestion_window;
    let hole = |at| (ms(at), 1000, 1000);
    assert_eq!(data(&script.run(ms(400))), [hole(121), hole(121 + 2 * 81), hole(121 + 240)]);
    let stats = script.layer.stats();
    assert_eq!((stats.tail_probes, stats.timeouts), (2, 1));
    assert!(stats.congestion_window < window, "only the timeout shrinks it");
}

/// RFC 2883: the answer to such a probe, where only the ACK was lost, ends the recovery, and is no
/// sign of reordering.
#[test]
fn a_needless_probe_of_a_recovery_ends_it() {
    let mut script = flight(4);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 5000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    assert_eq!(data(&script.run(ms(100))).len(), 1);
    script.sack(5000, &[(1000, 2000)]);
    assert_eq!(script.layer.outstanding(), 0);
    let stats = script.layer.stats();
    assert_eq!((stats.timeouts, stats.duplicate_sacks), (0, 1));
    assert_eq!(script.run(ms(2_000)), []);
}
