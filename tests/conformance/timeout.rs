//! The retransmission timer (RFC 6298), its undoing (RFC 3522, RFC 3708), and the user timeout (RFC
//! 5482).
use super::*;

/// RFC 6298, section 5.5: the timeout is SRTT plus Linux's minimum of 200 ms, doubled each time.
#[test]
fn the_timeout_backs_off() {
    let mut script = Script::measured(Terms { sack: false, ..Terms::default() });
    send(&mut script, 3);
    let sent = data(&script.run(ms(4_000)));
    let times: Vec<_> = sent.iter().map(|(at, ..)| *at).collect();
    assert_eq!(times, [ms(240), ms(720), ms(1_680), ms(3_600)]);
    assert!(sent.iter().all(|(_, offset, _)| *offset == 1000));
    let stats = script.layer.stats();
    assert_eq!(stats.congestion_window, stats.segment_size, "RFC 5681, section 3.1: the loss window");
}

/// RFC 6298, section 2.5: the timeout has an upper bound of at least a minute; Linux's is two.
#[test]
fn the_timeout_is_at_most_two_minutes() {
    let mut script = Script::measured(Terms { sack: false, ..Terms::default() });
    send(&mut script, 1);
    let times: Vec<_> = data(&script.run(ms(1_200_000))).iter().map(|(at, ..)| *at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted(), "{gaps:?}");
    assert_eq!(gaps[gaps.len() - 3..], [ms(120_000); 3], "{gaps:?}");
}

/// RFC 6298, section 5.3: an ACK of new data restarts the timer; another ACK does not.
#[test]
fn progress_restarts_the_timer() {
    let mut script = Script::measured(Terms { sack: false, ..Terms::default() });
    send(&mut script, 3);
    let start = script.sent_at();
    script.advance(ms(100));
    script.ack(2000);
    let restarted = script.sent_at();
    script.advance(ms(100));
    script.ack(2000);
    let sent = data(&script.run(ms(1_000)));
    let waited = sent[0].0 - restarted;
    assert!((ms(240)..ms(400)).contains(&waited) && sent[0].1 == 2000, "{start:?}: {sent:?}");
}

/// RFC 6298, section 3 (Karn): a retransmitted segment measures no round trip, since its ACK may be
/// for either transmission.
#[test]
fn a_repeated_segment_measures_nothing() {
    for timestamps in [false, true] {
        let mut script = Script::measured(Terms { sack: false, timestamps, ..Terms::default() });
        send(&mut script, 1);
        assert_eq!(data(&script.run(ms(300))).len(), 1);
        script.ack(2000);
        script.sent();
        assert_eq!(script.layer.stats().smoothed_rtt, Some(ms(40)));
        send(&mut script, 1);
        script.advance(ms(80));
        script.ack(3000);
        script.sent();
        assert_eq!(script.layer.stats().smoothed_rtt, Some(ms(45)), "seven eighths of 40 ms, one of 80 ms");
    }
}

/// RFC 6298, section 2.1: the timeout is one second before the first measurement.
#[test]
fn without_a_measurement_it_is_a_second() {
    let mut script = Script::unconnected(Terms { sack: false, ..Terms::default() });
    let options = script.syn_options();
    script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
    script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
    script.sent();
    script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 8_000, &options, &[]);
    script.write(1000);
    let sent = data(&script.run(ms(1_100)));
    assert_eq!(sent.iter().map(|s| s.0).collect::<Vec<_>>(), [ms(0), ms(1_000)]);
}

/// RFC 5681: slow start repairs losses that the timeout found. RFC 6298, section 5.7: the backoff
/// ends.
#[test]
fn recovery_after_a_timeout_slow_starts() {
    let mut script = Script::measured(Terms { sack: false, ..Terms::default() });
    send(&mut script, 6);
    assert_eq!(data(&script.run(ms(250))).len(), 1);
    script.ack(2000);
    assert_eq!(script.data(), [(2000, 1000), (3000, 1000)]);
    script.advance(ms(40));
    script.ack(7000);
    assert_eq!(script.data(), []);
    send(&mut script, 1);
    let before = script.sent_at();
    assert_eq!(data(&script.run(ms(300)))[0].0 - before, ms(240));
}

/// RFC 2018, section 8: a peer that discards SACKed data gets all of it again.
#[test]
fn reneging_is_survived() {
    let mut script = flight(4);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 5000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    script.advance(ms(40));
    // The head arrives; the queue behind it is gone.
    script.ack(2000);
    let sent: Vec<_> = data(&script.run(ms(60)));
    assert_eq!(sent.first().map(|s| (s.1, s.2)), Some((2000, 1000)));
    assert_eq!(script.layer.stats().reneged, 1);
    script.ack(3000);
    assert_eq!(script.data(), [(3000, 1000), (4000, 1000)]);
    script.ack(5000);
    assert_eq!(script.layer.outstanding(), 0);
}

/// RFC 3522: an ACK that echoes a time from before the retransmission undoes the timeout.
#[test]
fn a_spurious_timeout_is_undone_by_timestamps() {
    let mut script = Script::measured(Terms::default());
    send(&mut script, 8);
    let before = script.layer.stats().congestion_window;
    script.run(ms(100));
    let original = script.clock();
    let late = script.run(ms(300));
    assert!(late.iter().any(|s| s.offset == 1000), "the timeout: {late:?}");
    assert_eq!(script.layer.stats().congestion_window, 1000);
    script.echo = Some(original - 50);
    script.ack(2000);
    assert_eq!(script.data(), [], "the rest is only late, too");
    let stats = script.layer.stats();
    assert_eq!(stats.spurious_recoveries, 1);
    assert!(stats.congestion_window >= before, "{} < {before}", stats.congestion_window);
}

/// RFC 3708: D-SACKs for every retransmission undo a recovery.
#[test]
fn a_spurious_recovery_is_undone_by_d_sack() {
    let mut script = Script::measured(Terms { timestamps: false, ..Terms::default() });
    script.layer.set_mss(script.now, 1000);
    send(&mut script, 6);
    let before = script.layer.stats().congestion_window;
    script.advance(ms(40));
    script.sack(1000, &[(2000, 6000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    script.ack(7000);
    script.sent();
    assert!(script.layer.stats().congestion_window < before);
    script.advance(ms(40));
    script.sack(7000, &[(1000, 2000)]);
    script.sent();
    assert_eq!(script.layer.stats().spurious_recoveries, 1);
    assert!(script.layer.stats().congestion_window >= before);
}

/// RFC 9293, section 3.8.3; RFC 5482: unacknowledged data ends the connection after the user
/// timeout.
#[test]
fn a_vanished_peer_is_noticed() {
    let mut script = Script::measured(config(|c| c.user_timeout = Some(ms(5_000))));
    script.run(ms(60_000));
    assert!(!script.layer.timed_out(script.now), "nothing is owed");
    send(&mut script, 1);
    script.run(ms(4_990));
    assert!(!script.layer.timed_out(script.now));
    script.run(ms(20));
    assert!(script.layer.timed_out(script.now));
}

/// RFC 9293, section 3.8.6.1: a peer that answers window probes is alive.
#[test]
fn a_shut_window_is_no_vanished_peer() {
    let mut script = Script::measured(config(|c| c.user_timeout = Some(ms(5_000))));
    script.ack_with(1000, &[], 0);
    script.write(1000);
    for _ in 0..20 {
        script.run(ms(1_000));
        script.ack_with(1000, &[], 0);
        assert!(!script.layer.timed_out(script.now));
    }
    script.run(ms(5_100));
    assert!(script.layer.timed_out(script.now));
}

/// Data in flight at our reset arrives all the same; the layer ignores it.
#[test]
fn after_our_reset_nothing_is_due() {
    let mut script = Script::established(Terms::default());
    script.write(1000);
    script.sent();
    let reset = script.seq(0);
    script.stack_segment(reset, PEER, RST | ACK, &[], &[]);
    script.ack(1000);
    assert!(script.sent().iter().any(|sent| sent.flags & RST != 0));
    script.ack(1000);
    script.sent();
    assert_eq!(script.layer.poll_at(script.now), None);
}
