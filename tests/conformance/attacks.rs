//! Segments that may be an attack (RFC 5961), and old duplicates (RFC 7323, section 5.3).
use super::*;

/// RFC 5961, section 3.2: a reset inside the window draws a challenge ACK (case 3) unless it has
/// the expected number (case 2).
#[test]
fn a_blind_reset_is_challenged() {
    let mut script = flight(1);
    assert_eq!(script.peer_sends(PEER + 5, 0, RST, 0, &[], &[]), SegmentOutcome::Processed);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.flags, s.ack)).collect::<Vec<_>>(), [(ACK, PEER)]);
    assert_eq!(script.peer_sends(PEER + 6, 0, RST, 0, &[], &[]), SegmentOutcome::Processed);
    assert_eq!(script.sent(), [], "section 7: limited");
    assert_eq!(script.peer_sends(PEER, 0, RST, 0, &[], &[]), SegmentOutcome::Reset);
}

/// RFC 5961, section 3.2, case 1: a reset outside the window is dropped in silence. The right edge
/// lies outside (RFC 9293, section 3.10.7.4, first).
#[test]
fn a_reset_outside_of_the_window_is_dropped() {
    let mut script = Script::measured(Terms::default());
    script.peer_data(1000, b"data");
    let last = script.sent().pop().expect("an ACK");
    // The buffer of 64,000 bytes needs no scaling.
    let edge = last.ack + u32::from(last.window);
    assert_eq!(edge, PEER + 64_000);
    for outside in [PEER - 1, last.ack - 1, edge, edge + 1, edge + (1 << 30), PEER ^ 1 << 31] {
        assert_eq!(script.peer_sends(outside, 0, RST, 0, &[], &[]), SegmentOutcome::Processed, "{outside}");
        assert_eq!(script.sent(), [], "{outside}");
        script.advance(ms(1_000));
    }
    for inside in [last.ack + 1, edge - 1] {
        assert_eq!(script.peer_sends(inside, 0, RST, 0, &[], &[]), SegmentOutcome::Processed, "{inside}");
        let acks: Vec<_> = script.sent().iter().map(|s| (s.flags, s.ack)).collect();
        assert_eq!(acks, [(ACK, last.ack)], "{inside}");
        script.advance(ms(1_000));
    }
    assert_eq!(script.peer_sends(last.ack, 0, RST, 0, &[], &[]), SegmentOutcome::Reset);
}

/// RFC 5961, section 4.2: a SYN on an open connection draws a challenge ACK.
#[test]
fn a_syn_is_challenged() {
    let mut script = flight(1);
    for seq in [PEER, PEER + 70_000, 1] {
        assert_eq!(script.peer_sends(seq, 0, SYN, 0, &[], &[]), SegmentOutcome::Processed);
    }
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.flags, s.ack)).collect::<Vec<_>>(), [(ACK, PEER)]);
}

/// RFC 5961, section 5.2: an ACK outside the acceptable range draws a challenge ACK.
#[test]
fn an_impossible_ack_is_challenged() {
    let mut script = flight(3);
    assert_eq!(script.ack(4001), SegmentOutcome::Processed);
    assert_eq!(script.sent().len(), 1);
    assert_eq!(script.layer.outstanding(), 3000);
    script.advance(ms(1_000));
    assert_eq!(script.ack(-2_000_000), SegmentOutcome::Processed);
}

/// RFC 7323, section 5.3: data with an old timestamp is an old duplicate, answered and dropped.
#[test]
fn old_timestamps_are_refused() {
    let mut script = Script::measured(Terms::default());
    script.ack(1000);
    script.peer_time -= 1;
    let mut options = vec![1, 1, 8, 10];
    options.extend(script.peer_time.to_be_bytes());
    options.extend([0; 4]);
    let (seq, ack) = (script.peer_seq, script.seq(1000));
    assert_eq!(script.peer_sends(seq, ack, ACK, 10_000, &options, b"old"), SegmentOutcome::Processed);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.len, s.ack)).collect::<Vec<_>>(), [(0, PEER)]);
}

/// RFC 7323, section 5.2: a reset is not tested for its timestamp, since its sender may have lost
/// its state.
#[test]
fn a_reset_with_an_old_timestamp_counts() {
    let mut script = flight(1);
    let mut options = vec![1, 1, 8, 10];
    options.extend((script.peer_time - 50_000).to_be_bytes());
    options.extend([0; 4]);
    assert_eq!(script.peer_sends(PEER, 0, RST, 0, &options, &[]), SegmentOutcome::Reset);
}

/// RFC 7323, section 5.5: after 24 days of silence the peer's clock may have wrapped, so PAWS drops
/// nothing.
#[test]
fn after_weeks_of_silence_no_timestamp_is_old() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    for (days, taken) in [(23, false), (25, true)] {
        let mut script = Script::measured(Terms::default());
        script.advance(days * DAY);
        let mut options = vec![1, 1, 8, 10];
        options.extend(script.peer_time.wrapping_sub(1 << 30).to_be_bytes());
        options.extend([0; 4]);
        let ack = script.seq(1000);
        script.peer_sends(PEER, ack, ACK, 10_000, &options, b"hello again");
        assert_eq!(script.read() == b"hello again", taken, "{days} days");
    }
}

/// RFC 7323, sections 4.3 and 5: timestamps never run backwards, so no peer drops a retransmission.
#[test]
fn timestamps_are_as_fresh_as_the_segment() {
    let mut script = flight(4);
    let mut all = script.run(ms(3_000));
    script.peer_data(1000, b"data");
    all.extend(script.sent());
    let stamps: Vec<_> = all.iter().map(|s| s.timestamp.expect("they were agreed")).collect();
    assert!(stamps.windows(2).all(|pair| pair[0] <= pair[1]), "{stamps:?}");
    assert!(stamps[stamps.len() - 1] - stamps[0] > 2_000, "milliseconds: {stamps:?}");
}

/// RFC 2018: invalid SACK blocks change nothing.
#[test]
fn senseless_sack_blocks_are_ignored() {
    let mut script = flight(4);
    script.sack(1000, &[(4000, 3000), (3000, 9000), (2000, 2000)]);
    let stats = script.layer.stats();
    assert_eq!((stats.in_flight, stats.reordered), (4000, 0));
    assert_eq!(script.data(), []);
}
