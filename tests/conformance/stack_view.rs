//! What the stack above learns, and what its own segments become.
use super::*;

/// smoltcp's own retransmissions of its FIN, and its keep-alives while data is in flight, never reach the wire.
#[test]
fn what_the_layer_does_itself_is_absorbed() {
    let mut script = flight(3);
    script.keep_alive();
    script.fin();
    assert_eq!(script.data(), [(4000, 0)]);
    script.written -= 1;
    script.fin();
    script.keep_alive();
    assert_eq!(script.sent(), []);
}

/// RFC 9293, section 3.8.4.
#[test]
fn a_keep_alive_is_sent_without_data() {
    let mut script = Script::measured(Terms::default());
    script.keep_alive();
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.offset, s.len, s.flags)).collect::<Vec<_>>(), [(999, 0, ACK)]);
}

/// Keep-alives that nobody answers are noticed, too.
#[test]
fn unanswered_keep_alives_time_out() {
    let mut script = Script::measured(config(|c| c.user_timeout = Some(ms(5_000))));
    for answered in [true, false] {
        script.keep_alive();
        script.sent();
        script.advance(ms(40));
        if answered {
            assert_eq!(script.ack(1000), Disposition::Show, "the stack's timer must see it");
        }
        script.run(ms(5_000));
        assert_eq!(script.layer.timed_out(script.now), !answered);
    }
}

/// The stack, which has sent no data, needs to hear of its FIN only.
#[test]
fn acknowledgments_are_hidden_until_the_fin_is_acknowledged() {
    let mut script = flight(3);
    script.fin();
    assert_eq!(script.data(), [(4000, 0)]);
    for (offset, shown) in [(1000, false), (1000, false), (2000, false), (4000, false), (4001, true)] {
        let disposition = script.ack(offset);
        assert_eq!(disposition == Disposition::Show, shown, "{offset}");
    }
    assert_eq!(script.sack(4001, &[(2000, 3000)]), Disposition::Show, "a sign of life");
}

/// What the stack is shown has a sequence number that it accepts, and acknowledges nothing that it did not send.
#[test]
fn acks_are_shown_in_the_stacks_own_terms() {
    let mut script = flight(3);
    script.fin();
    script.sent();
    script.ack(3000);
    let mut old = segment(PEER, script.seq(1000), ACK, 500, &[], b"data", (2000, 1000));
    assert_eq!(script.layer.from_wire(script.now, &mut old), Disposition::Show);
    assert_eq!(old[8..12], script.seq(0).to_be_bytes(), "the SYN");
    let mut edge = segment(PEER + 64_000, script.seq(4001), ACK, 10_000, &[], &[], (2000, 1000));
    assert_eq!(script.layer.from_wire(script.now, &mut edge), Disposition::Show);
    assert_eq!(edge[8..12], script.seq(1).to_be_bytes(), "SYN and FIN");
    assert_eq!(edge[4..8], (PEER + 4).to_be_bytes(), "the data above is in order");
}

/// smoltcp ignores the ACK of a segment whose data it cannot take. Without this it might never hear that its FIN
/// has arrived.
#[test]
fn an_ack_on_refused_data_is_told_again() {
    let mut script = flight(3);
    script.stack_window = 0;
    script.fin();
    script.sent();
    let (seq, ack) = (script.peer_seq, script.seq(4001));
    assert_eq!(script.peer_sends(seq, ack, ACK, 10_000, &[], b"x"), Disposition::Show);
    assert_eq!(script.layer.poll_at(script.now), Some(script.now));
    assert_eq!(script.for_stack(), [(PEER, 1)]);
    assert_eq!(script.for_stack(), []);
}

/// A stack that repeats a FIN which is acknowledged has not heard of it.
#[test]
fn a_stack_that_lags_behind_is_told() {
    let mut script = flight(3);
    script.fin();
    script.sent();
    script.ack(4001);
    assert_eq!(script.for_stack(), []);
    script.fin();
    assert_eq!(script.data(), []);
    assert_eq!(script.for_stack(), [(PEER, 1)]);
}

/// While more is about to be written, an incomplete frame waits for it, but never on an idle path (send(2),
/// MSG_MORE).
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

/// The news rides on data; it goes out by itself if the data cannot.
#[test]
fn an_ack_does_not_wait_for_its_data() {
    let mut script = Script::measured(Terms::default());
    script.stack_ack += 100;
    script.write(1000);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.len, s.ack)).collect::<Vec<_>>(), [(1000, PEER + 100)]);
    script.advance(ms(40));
    script.ack_with(2000, &[], 0);
    script.sent();
    script.stack_ack += 400;
    script.write(1000);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.len, s.ack)).collect::<Vec<_>>(), [(0, PEER + 500)]);
    assert_eq!(script.sent(), []);
}

/// The stack's SACK option passes, and is repeated beside the next one (RFC 2018, section 4).
#[test]
fn sack_blocks_pass_and_are_repeated() {
    let mut script = Script::measured(Terms::default());
    let block = |from: u32| [(PEER + from).to_be_bytes(), (PEER + from + 500).to_be_bytes()].concat();
    for from in [1000, 3000] {
        let options = [vec![1, 1, 5, 10], block(from)].concat();
        script.stack_segment(script.seq(1000), PEER, ACK, &options, &[]);
    }
    let sent = script.sent();
    assert_eq!(sent[0].header[32..], [vec![1, 1, 5, 10], block(1000)].concat());
    assert_eq!(sent[1].header[32..], [vec![1, 1, 5, 18], block(3000), block(1000)].concat());
}

/// Data that comes twice is reported as such (RFC 2883, section 4).
#[test]
fn duplicate_data_is_reported() {
    let mut script = Script::measured(Terms::default());
    let (seq, ack) = (script.peer_seq, script.seq(1000));
    script.peer_sends(seq, ack, ACK, 10_000, &[], &[7; 100]);
    script.stack_ack = PEER + 100;
    script.write(0);
    assert_eq!(script.sent()[0].header.len(), 32, "new data is no duplicate");
    script.peer_sends(seq, ack, ACK, 10_000, &[], &[7; 100]);
    script.write(0);
    let report = [vec![1, 1, 5, 10], PEER.to_be_bytes().to_vec(), (PEER + 100).to_be_bytes().to_vec()];
    assert_eq!(script.sent()[0].header[32..], report.concat());
}

/// RFC 5961, section 3.2: a RST is believed where it is expected, so that is where ours goes.
#[test]
fn a_reset_ends_everything() {
    let mut script = flight(3);
    script.write(1000);
    script.stack_segment(script.seq(5000), PEER, RST | ACK, &[], &[]);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.offset, s.flags)).collect::<Vec<_>>(), [(4000, RST | ACK)]);
    assert_eq!(script.run(ms(60_000)), []);
}
