//! When it is worth staying awake for an ACK.
use super::*;

const US: Duration = Duration::from_micros(1);

/// A connection with this round trip whose user has written more than the window takes.
fn waiting(rtt: Duration) -> Script {
    let mut script = Script::measured(Terms { rtt, ..Terms::default() });
    let window = script.layer.stats().congestion_window as usize;
    script.write(window + 100_000);
    assert_eq!(script.sent().len(), window / 1000);
    script
}

/// How long from now an ACK is worth staying awake for.
fn awake(script: &Script) -> Option<Duration> {
    script.layer.ack_awaited_until().map(|until| until.since(script.now))
}

#[test]
fn data_that_waits_for_an_ack_on_a_short_path_keeps_us_awake_for_two_round_trips() {
    let mut script = waiting(200 * US);
    assert_eq!(awake(&script), Some(400 * US));
    script.advance(300 * US);
    assert_eq!(awake(&script), Some(100 * US));
    script.ack(2000);
    script.sent();
    assert_eq!(awake(&script), Some(2 * script.layer.stats().smoothed_rtt.expect("measured")));
}

#[test]
fn a_sleep_is_little_of_a_long_round_trip() {
    assert!(awake(&waiting(500 * US)).is_some());
    assert_eq!(awake(&waiting(501 * US)), None);
}

#[test]
fn nothing_waits_for_the_ack_of_the_last_data() {
    let mut script = Script::measured(Terms { rtt: 200 * US, ..Terms::default() });
    assert_eq!(awake(&script), None);
    send(&mut script, 3);
    assert_eq!(awake(&script), None);
}

#[test]
fn in_a_large_window_some_ack_comes_all_the_time() {
    let mut script = waiting(200 * US);
    let mut acknowledged = 1000;
    while script.layer.stats().congestion_window <= 128 << 10 {
        assert!(awake(&script).is_some());
        script.advance(200 * US);
        acknowledged += script.layer.stats().in_flight as i64;
        script.ack(acknowledged);
        script.write(100_000);
        script.sent();
    }
    assert_eq!(awake(&script), None);
}
