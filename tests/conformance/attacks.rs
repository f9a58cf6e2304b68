//! Segments that may be an attack (RFC 5961), and old duplicates (RFC 7323, section 5.3).
use super::*;

/// RFC 5961, section 3.2.
#[test]
fn a_blind_reset_is_challenged() {
    let mut script = flight(1);
    assert_eq!(script.peer_sends(PEER + 5, 0, RST, 0, &[], &[]), Disposition::Hide);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.flags, s.ack)).collect::<Vec<_>>(), [(ACK, PEER)]);
    assert_eq!(script.peer_sends(PEER + 6, 0, RST, 0, &[], &[]), Disposition::Hide);
    assert_eq!(script.sent(), [], "section 7: limited");
    assert_eq!(script.peer_sends(PEER - 5, 0, RST, 0, &[], &[]), Disposition::Hide);
    assert_eq!(script.peer_sends(PEER, 0, RST, 0, &[], &[]), Disposition::Show);
}

/// RFC 5961, section 4.2.
#[test]
fn a_syn_is_challenged() {
    let mut script = flight(1);
    for seq in [PEER, PEER + 70_000, 1] {
        assert_eq!(script.peer_sends(seq, 0, SYN, 0, &[], &[]), Disposition::Hide);
    }
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.flags, s.ack)).collect::<Vec<_>>(), [(ACK, PEER)]);
}

/// RFC 5961, section 5.2.
#[test]
fn an_impossible_ack_is_challenged() {
    let mut script = flight(3);
    assert_eq!(script.ack(4001), Disposition::Hide);
    assert_eq!(script.sent().len(), 1);
    assert_eq!(script.layer.outstanding(), 3000);
    script.advance(ms(1_000));
    assert_eq!(script.ack(-2_000_000), Disposition::Hide);
}

/// RFC 7323, section 5.3: data with an old timestamp is an old duplicate; it is answered and dropped.
#[test]
fn old_timestamps_are_refused() {
    let mut script = Script::measured(Terms::default());
    script.ack(1000);
    script.peer_time -= 1;
    let mut options = vec![1, 1, 8, 10];
    options.extend(script.peer_time.to_be_bytes());
    options.extend([0; 4]);
    let (seq, ack) = (script.peer_seq, script.seq(1000));
    assert_eq!(script.peer_sends(seq, ack, ACK, 10_000, &options, b"old"), Disposition::Hide);
    let sent = script.sent();
    assert_eq!(sent.iter().map(|s| (s.len, s.ack)).collect::<Vec<_>>(), [(0, PEER)]);
}

/// RFC 7323, section 4.3 and 5: our timestamps never run backwards, so that no peer drops what is repeated.
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

/// RFC 2018 blocks that make no sense change nothing.
#[test]
fn senseless_sack_blocks_are_ignored() {
    let mut script = flight(4);
    script.sack(1000, &[(4000, 3000), (3000, 9000), (2000, 2000)]);
    let stats = script.layer.stats();
    assert_eq!((stats.in_flight, stats.reordered), (4000, 0));
    assert_eq!(script.data(), []);
}
