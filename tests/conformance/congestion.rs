//! Congestion control: PRR (RFC 9937), cubic (RFC 9438), pacing, idle windows (RFC 5681).
use super::*;

/// RFC 9937: cubic's window decreases to 0.7 in proportion to the delivered data.
#[test]
fn a_recovery_reduces_proportionally() {
    let mut script = Script::measured(Terms { window: 60_000, ..Terms::default() });
    script.write(60_000);
    let mut acked = 1000;
    while script.layer.stats().in_flight < 40_000 {
        script.data();
        script.advance(ms(40));
        acked = 1000 + acked + script.layer.stats().in_flight as i64 - 1000;
        script.ack(acked);
        script.write(60_000);
        script.data();
    }
    let flight = script.layer.stats().in_flight as i64;
    let window = script.layer.stats().congestion_window;
    script.advance(ms(40));
    let mut sent = 0;
    let count = flight / 1000;
    for n in 2..=count {
        script.sack(acked, &[(acked + 1000, acked + n * 1000)]);
        sent += script.data().len() as i64;
    }
    let expected = count * 7 / 10;
    assert!((sent - expected).abs() <= 3, "{sent} segments sent for {count} delivered");
    let after = script.layer.stats().slow_start_threshold.expect("a loss sets it");
    assert!(after.abs_diff(window * 7 / 10) <= 1000, "RFC 9438, section 4.6: {window} -> {after}");
}

/// RFC 5681, section 4.1: an idle connection does not burst its old window.
#[test]
fn an_idle_window_decays() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno] {
        let mut script = Script::measured(config(|c| c.algorithm = algorithm));
        while script.layer.stats().congestion_window < 40_000 {
            script.write(script.layer.stats().congestion_window as usize);
            script.data();
            script.advance(ms(40));
            script.ack(script.written);
            script.sent();
        }
        script.run(ms(500));
        script.write(60_000);
        script.sent();
        let window = script.layer.stats().congestion_window;
        assert!((10_000..=25_000).contains(&window), "{algorithm}: two timeouts of 240 ms left {window}");
    }
}

/// bbr paces from the first measured round trip on; cubic and reno are clocked by ACKs.
#[test]
fn bbr_is_paced() {
    let mut script = Script::measured(config(|c| c.algorithm = Algorithm::Bbr));
    script.write(50_000);
    let first = script.data().len();
    let sent = script.run(ms(30));
    assert!((1..5).contains(&first), "{first}");
    let times: std::collections::BTreeSet<_> = sent.iter().map(|s| s.at).collect();
    assert!(times.len() > 2, "{times:?}");
    let window = script.layer.stats().congestion_window as usize / 1000;
    assert!(first + sent.len() <= window);
}

/// RFC 7661; RFC 9438, section 5.8: a window that the application does not fill does not grow.
#[test]
fn an_unused_window_does_not_grow() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno] {
        let mut script = Script::measured(config(|c| c.algorithm = algorithm));
        let mut offset = 1000;
        let before = script.layer.stats().congestion_window;
        for _ in 0..50 {
            send(&mut script, 1);
            script.advance(ms(40));
            offset += 1000;
            script.ack(offset);
            script.sent();
        }
        assert_eq!(script.layer.stats().congestion_window, before, "{algorithm}");
    }
}

/// RFC 5681, section 3.1, and RFC 9438, section 4.6: ACKs that arrive in one burst with the report
/// of a loss enlarge the window before the loss reduces it.
#[test]
fn growth_comes_before_the_loss_that_follows_it() {
    let mut script = flight(10);
    let window = script.layer.stats().congestion_window;
    script.advance(ms(40));
    script.ack(6000);
    script.sack(6000, &[(7000, 10_000)]);
    script.data();
    let stats = script.layer.stats();
    assert_eq!((stats.fast_recoveries, stats.slow_start_threshold), (1, Some((window + 5000) * 7 / 10)));
}

/// A window sent as one frame returns as one ACK, which may be lost, so a frame takes half of it
/// (Linux's tcp_cwnd_test()).
#[test]
fn no_frame_takes_more_than_half_the_window() {
    let mut script = short_path();
    let window = script.layer.stats().congestion_window;
    script.write(window as usize);
    let sent = script.data();
    assert_eq!(sent.iter().map(|&(_, len)| len as u64).sum::<u64>(), window);
    assert!(sent.iter().all(|&(_, len)| len as u64 <= window / 2), "{sent:?}");
}

/// RFC 8985, section 6.2: only data sent after a retransmission tells that the retransmission was
/// lost, so a recovery does not wait for a larger frame.
#[test]
fn a_recovery_sends_what_it_may_at_once() {
    let mut script = short_path();
    while script.layer.stats().congestion_window < 16_000 {
        script.write(script.layer.stats().congestion_window as usize);
        script.sent();
        script.advance(script.terms.rtt);
        script.ack(script.written);
        script.sent();
    }
    let end = script.written + script.layer.stats().congestion_window as i64;
    script.write(100_000);
    script.sent();
    script.advance(script.terms.rtt);
    script.ack(end - 4000);
    script.sack(end - 4000, &[(end - 3000, end)]);
    let sent = script.data();
    assert_eq!(sent.first(), Some(&(end - 4000, 1000)));
    assert_eq!(
        sent[1..].iter().map(|&(_, len)| len).sum::<usize>(),
        2000,
        "for three that were delivered: {sent:?}"
    );
}

/// Sets up a path on which a frame may be as large as the window.
fn short_path() -> Script {
    let terms = Terms { window: 60_000, rtt: Duration::from_micros(200), ..config(|c| c.max_frame = 64_000) };
    Script::measured(terms)
}
