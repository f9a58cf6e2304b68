//! The ends of a connection, on the whole stack (RFC 9293, section 3.6).
use super::{
    common::script::{ACK, FIN, RST, SYN},
    ms,
    wire::{OPTIONS, Sent, Wire, settings},
};
use netkat::stack::{FlowFailure, Phase, Settings};
use std::time::Duration;

/// FIN and ACK, without PSH.
fn flags(sent: &[Sent]) -> Vec<u8> {
    sent.iter().map(|s| s.flags & !0x08).collect()
}

/// RFC 9293, section 3.6, case 1: netkat closes first; the peer sends more, then closes.
#[test]
fn our_close_is_a_half_close() {
    let mut wire = Wire::connected(settings());
    wire.write(b"bye");
    wire.flow().close();
    let sent = wire.sent();
    assert_eq!(sent.last().map(|s| s.flags & FIN), Some(FIN));
    wire.peer_data(0, 4, b"not so fast");
    assert_eq!(wire.read(), b"not so fast");
    assert_eq!(flags(&wire.sent()), [ACK]);
    wire.peer_sends(wire.their_seq(11), wire.our_seq(4), ACK | FIN, &[], &[]);
    assert_eq!(wire.sent().iter().map(|s| s.ack).collect::<Vec<_>>(), [wire.their_seq(12)]);
    assert!(wire.flow().in_time_wait());
    assert_eq!((wire.flow().phase(), wire.flow().failure()), (Phase::Closed, None));
}

/// RFC 9293, section 3.6, case 2: the peer closes first; netkat may send more.
#[test]
fn the_peers_close_is_a_half_close() {
    let mut wire = Wire::connected(settings());
    wire.peer_sends(wire.their_seq(0), wire.our_seq(0), ACK | FIN, &[], &[]);
    assert!(wire.flow().peer_finished());
    assert_eq!(wire.sent().iter().map(|s| s.ack).collect::<Vec<_>>(), [wire.their_seq(1)]);
    wire.write(b"still here");
    assert_eq!(wire.sent().iter().map(|s| s.payload.len()).collect::<Vec<_>>(), [10]);
    wire.flow().close();
    let sent = wire.run(ms(1));
    assert_eq!(sent.last().map(|s| (s.flags & FIN, s.seq)), Some((FIN, wire.our_seq(10))));
    wire.peer_sends(wire.their_seq(1), wire.our_seq(11), ACK, &[], &[]);
    assert_eq!((wire.flow().phase(), wire.flow().failure()), (Phase::Closed, None));
    assert!(!wire.flow().in_time_wait(), "who closes last need not wait");
}

/// RFC 9293, section 3.6, case 3: both ends close at once.
#[test]
fn both_may_close_at_once() {
    let mut wire = Wire::connected(settings());
    wire.flow().close();
    assert_eq!(flags(&wire.sent()), [ACK | FIN]);
    wire.peer_sends(wire.their_seq(0), wire.our_seq(0), ACK | FIN, &[], &[]);
    let sent = wire.run(ms(1));
    assert_eq!(sent.last().map(|s| s.ack), Some(wire.their_seq(1)));
    wire.peer_sends(wire.their_seq(1), wire.our_seq(1), ACK, &[], &[]);
    assert!(wire.flow().in_time_wait());
}

/// RFC 9293, section 3.10.7.4, TIME-WAIT: a repeated FIN is acknowledged.
#[test]
fn a_repeated_fin_is_acknowledged_again() {
    let mut wire = Wire::connected(settings());
    wire.flow().close();
    wire.sent();
    for _ in 0..3 {
        wire.peer_sends(wire.their_seq(0), wire.our_seq(1), ACK | FIN, &[], &[]);
        assert_eq!(wire.sent().iter().map(|s| s.ack).collect::<Vec<_>>(), [wire.their_seq(1)]);
        wire.run(ms(10));
    }
    assert!(wire.flow().in_time_wait());
}

/// RFC 6298: a lost FIN is retransmitted after the timeout, which begins at Linux's 200 ms for a
/// path this short.
#[test]
fn a_lost_fin_is_repeated_soon() {
    let mut wire = Wire::connected(settings());
    wire.flow().close();
    let sent = wire.run(ms(1000));
    assert!(
        sent.len() >= 3 && sent.iter().all(|s| s.flags & FIN != 0 && s.seq == wire.our_seq(0)),
        "{sent:?}"
    );
    assert!(sent[1].at - sent[0].at <= ms(210), "{sent:?}");
}

/// RFC 9293, section 3.10.4: data written before the close is delivered before the FIN.
#[test]
fn a_fin_follows_the_last_byte() {
    let mut wire = Wire::connected(Settings { send_buffer: 1 << 18, ..settings() });
    wire.write(&[7; 60_000]);
    wire.flow().close();
    let (mut arrived, mut fin) = (0, false);
    for _ in 0..100 {
        for sent in wire.run(ms(1)) {
            assert!(!fin, "nothing follows a FIN");
            assert_eq!(sent.seq, wire.our_seq(arrived));
            arrived += sent.payload.len() as u32;
            fin = sent.flags & FIN != 0;
        }
        wire.peer_data(0, arrived + u32::from(fin), &[]);
    }
    assert_eq!((arrived, fin), (60_000, true));
    assert_eq!(wire.flow().phase(), Phase::Open, "the peer has not closed");
}

/// RFC 9293, section 3.10.5: an abort sends one reset, with the number that the peer expects.
#[test]
fn an_abort_is_a_reset() {
    let mut wire = Wire::connected(settings());
    wire.write(b"data");
    wire.sent();
    wire.flow().abort();
    let sent = wire.run(Duration::from_secs(5));
    assert_eq!(sent.iter().map(|s| s.flags & RST).collect::<Vec<_>>(), [RST]);
}

/// RFC 9293, section 3.10.7.3: a reset that does not acknowledge our SYN is ignored.
#[test]
fn a_reset_must_acknowledge_the_syn() {
    let mut wire = Wire::dialling(settings(), 1500);
    let ours = wire.sent()[0].seq;
    wire.peer_sends(0, ours.wrapping_add(5), ACK | RST, &[], &[]);
    wire.peer_sends(0, 0, RST, &[], &[]);
    assert_eq!((wire.flow().phase(), wire.flow().failure()), (Phase::Opening, None));
    wire.peer_sends(0, ours.wrapping_add(1), ACK | RST, &[], &[]);
    assert_eq!(wire.flow().failure(), Some(&FlowFailure::Refused));
}

/// RFC 9293, section 3.10.7.3: a SYN-ACK with a wrong acknowledgment is reset, and the handshake
/// goes on.
#[test]
fn a_syn_ack_of_something_else_is_reset() {
    let mut wire = Wire::dialling(settings(), 1500);
    wire.ours = wire.sent()[0].seq;
    wire.peer_sends(wire.theirs, wire.ours.wrapping_add(9), SYN | ACK, &OPTIONS, &[]);
    let sent = wire.sent();
    assert_eq!(sent.iter().map(|s| (s.flags, s.seq)).collect::<Vec<_>>(), [(RST, wire.ours.wrapping_add(9))]);
    wire.peer_sends(wire.theirs, wire.ours.wrapping_add(1), SYN | ACK, &OPTIONS, &[]);
    assert_eq!(wire.flow().phase(), Phase::Open);
}

/// RFC 9293, section 3.5, figure 8: two SYNs that cross make one connection.
#[test]
fn two_syns_that_cross_make_one_connection() {
    let mut wire = Wire::dialling(settings(), 1500);
    wire.ours = wire.sent()[0].seq;
    wire.peer_sends(wire.theirs, 0, SYN, &OPTIONS, &[]);
    let sent = wire.sent();
    let answer = (SYN | ACK, wire.ours, wire.their_seq(0));
    assert_eq!(sent.iter().map(|s| (s.flags, s.seq, s.ack)).collect::<Vec<_>>(), [answer]);
    wire.peer_sends(wire.theirs, wire.our_seq(0), SYN | ACK, &OPTIONS, &[]);
    wire.peer_data(0, 0, b"hello");
    assert_eq!((wire.flow().phase(), wire.read()), (Phase::Open, b"hello".to_vec()));
    wire.write(b"hello, too");
    assert!(wire.run(ms(1)).iter().any(|s| s.payload == b"hello, too"));
}
