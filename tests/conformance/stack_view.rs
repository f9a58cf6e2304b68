//! The state machine's view: the segments that it is told of, and the fate of its own segments.
use super::*;

/// The state machine's own retransmissions of its FIN never reach the wire.
#[test]
fn what_the_layer_does_itself_is_absorbed() {
    let mut script = flight(3);
    script.fin();
    assert_eq!(script.data(), [(4000, 0)]);
    script.written -= 1;
    script.fin();
    assert_eq!(script.sent(), []);
}

/// RFC 9293, section 3.8.4: a keep-alive follows each silence in which no data was outstanding.
#[test]
fn a_silent_peer_is_asked_whether_it_is_there() {
    let mut script = Script::measured(config(|c| c.keep_alive = Some(ms(3_000))));
    let asked = script.run(ms(7_000));
    let expected = [(ms(3_000), 999, 0, ACK), (ms(6_000), 999, 0, ACK)];
    assert_eq!(asked.iter().map(|s| (s.at, s.offset, s.len, s.flags)).collect::<Vec<_>>(), expected);
    script.ack(1000);
    assert_eq!(script.run(ms(2_900)), [], "a word is enough");
    script.write(1000);
    let sent = script.run(ms(9_000));
    assert!(sent.iter().all(|s| s.len > 0), "what waits for its ACK asks by itself: {sent:?}");
}

/// Unanswered keep-alives end the connection.
#[test]
fn unanswered_keep_alives_time_out() {
    let mut script = Script::measured(config(|c| {
        c.keep_alive = Some(ms(2_000));
        c.user_timeout = Some(ms(5_000));
    }));
    script.run(ms(2_500));
    script.ack(1000);
    script.run(ms(6_000));
    assert!(!script.layer.timed_out(script.now));
    script.run(ms(1_000));
    assert!(script.layer.timed_out(script.now));
}

/// The state machine, which knows no data, hears of the acknowledgment of its FIN only.
#[test]
fn acknowledgments_are_hidden_until_the_fin_is_acknowledged() {
    let mut script = flight(3);
    script.fin();
    assert_eq!(script.data(), [(4000, 0)]);
    for offset in [1000, 1000, 2000, 4000] {
        assert_eq!((script.ack(offset), script.events().len()), (SegmentOutcome::Processed, 0), "{offset}");
    }
    script.ack(4001);
    assert_eq!(script.events(), [Event::FinAcknowledged]);
    script.sack(4001, &[(2000, 3000)]);
    assert_eq!(script.events(), []);
}

/// The state machine hears of the peer's FIN once all data before it has arrived, and of a reset.
#[test]
fn the_peers_end_is_told_after_its_data() {
    let mut script = flight(1);
    let ack = script.seq(2000);
    script.peer_sends(PEER + 4, ack, ACK | FIN, 10_000, &[], b"last");
    assert_eq!(script.events(), []);
    script.peer_data(2000, b"all ");
    assert_eq!(script.events(), [Event::PeerFinished]);
    assert_eq!(script.read(), b"all last");
    assert_eq!(script.peer_sends(PEER + 9, ack, RST, 0, &[], &[]), SegmentOutcome::Reset);
}

/// A repeated FIN means that the peer has not received its acknowledgment.
#[test]
fn a_keeper_that_lags_behind_is_told() {
    let mut script = flight(3);
    script.fin();
    script.sent();
    script.ack(4001);
    script.events();
    assert_eq!(script.events(), []);
    script.fin();
    assert_eq!(script.data(), []);
    assert_eq!(script.events(), [Event::FinAcknowledged]);
}

/// While more data is about to be written, an incomplete frame waits for it, but never on an idle
/// path (send(2), MSG_MORE).
#[test]
fn an_incomplete_frame_waits_for_what_follows_at_once() {
    let mut script = Script::measured(Terms::default());
    script.write_and_more(1500);
    assert_eq!(script.data(), [(1000, 1000)]);
    script.write_and_more(200);
    assert_eq!(script.data(), []);
    script.write(300);
    assert_eq!(script.data(), [(2000, 1000)]);
    script.advance(ms(40));
    script.ack(3000);
    script.write_and_more(10);
    assert_eq!(script.data(), [(3000, 10)]);
    script.write_and_more(20);
    assert_eq!(script.data(), []);
    script.fin();
    assert_eq!(script.data(), [(3010, 20)]);
}

/// A window update rides on data. In a dialogue it waits a little for data, and leaves alone if
/// none comes.
#[test]
fn an_ack_does_not_wait_for_its_data() {
    let mut script = Script::measured(Terms::default());
    script.peer_data(1000, &[7; 100]);
    script.write(1000);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.len, s.ack)).collect::<Vec<_>>(), [(1000, PEER + 100)]);
    script.advance(ms(40));
    script.ack_with(2000, &[], 0);
    script.sent();
    script.terms.window = 0;
    script.peer_data(2000, &[7; 400]);
    script.write(1000);
    assert_eq!(script.sent(), []);
    let sent = script.run(ms(5));
    assert_eq!(sent.iter().map(|s| (s.len, s.ack)).collect::<Vec<_>>(), [(0, PEER + 500)]);
    script.peer_data(2000, &[7; 400]);
    let sent = script.sent();
    assert_eq!(
        sent.iter().map(|s| (s.len, s.ack)).collect::<Vec<_>>(),
        [(0, PEER + 900)],
        "it is none any more"
    );
}

/// RFC 5961, section 3.2: a peer accepts a RST with the number it expects, so ours has that number.
#[test]
fn a_reset_ends_everything() {
    let mut script = flight(3);
    script.write(1000);
    script.stack_segment(script.seq(5000), PEER, RST | ACK, &[], &[]);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.offset, s.flags)).collect::<Vec<_>>(), [(4000, RST | ACK)]);
    assert_eq!(script.run(ms(60_000)), []);
}
