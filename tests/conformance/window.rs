//! The peer's window: zero, shrinking, silly, scaled (RFC 9293, section 3.8.6; RFC 7323).
use super::*;

/// RFC 9293, section 3.8.6.1: a zero window is probed with backoff, by segments that the peer must
/// answer.
#[test]
fn a_shut_window_is_probed() {
    let mut script = Script::measured(Terms::default());
    script.ack_with(1000, &[], 0);
    script.write(3000);
    let probes = script.run(ms(2_000));
    let times: Vec<_> = probes.iter().map(|p| p.at).collect();
    assert_eq!(times, [ms(240), ms(720), ms(1_680)]);
    assert!(probes.iter().all(|p| p.offset == 999 && p.len == 0 && p.flags == ACK), "{probes:?}");
    script.ack(1000);
    assert_eq!(script.data(), [(1000, 1000), (2000, 1000), (3000, 1000)]);
    assert_eq!(script.layer.stats().window_probes, 3);
}

/// RFC 9293, section 3.4: a FIN occupies sequence space, so a zero window holds it back, too.
#[test]
fn a_fin_waits_for_the_window() {
    let mut script = Script::measured(Terms::default());
    script.ack_with(1000, &[], 0);
    script.fin();
    let probes = script.run(ms(800));
    assert!(probes.len() == 2 && probes.iter().all(|p| p.flags & FIN == 0), "{probes:?}");
    script.ack(1000);
    assert_eq!(script.data(), [(1000, 0)]);
}

/// RFC 9293, section 3.8.6: the head probes a window that has shrunk below the data in flight.
#[test]
fn a_window_that_shrinks_is_probed_by_the_head_and_nothing_else() {
    let mut script = flight(4);
    script.advance(ms(10));
    script.ack_with(1000, &[], 0);
    let sent = data(&script.run(ms(1_000)));
    let after = sent.get(script.layer.stats().tail_probes as usize..).unwrap_or_default();
    assert!(!after.is_empty() && after.iter().all(|s| (s.1, s.2) == (1000, 1000)), "{sent:?}");
    script.ack_with(1000, &[], 2 * 1000 / 128 + 1);
    let open = script.data();
    assert_eq!(open.first(), Some(&(1000, 1000)));
    script.ack(5000);
    assert_eq!(script.layer.outstanding(), 0);
}

/// Our own ACKs lie inside the peer's window; outside, the peer would drop them with their data.
#[test]
fn acks_stay_inside_a_window_that_shrinks() {
    let mut script = flight(4);
    script.ack_with(1000, &[], 0);
    script.sent();
    script.terms.window = 0;
    script.peer_data(1000, &[7; 10]);
    let acks = script.sent();
    assert_eq!(acks.iter().map(|s| (s.offset, s.ack)).collect::<Vec<_>>(), [(1000, PEER + 10)]);
}

/// RFC 9293, section 3.8.6.2.1: a little room in the window draws no small segment.
#[test]
fn a_silly_window_is_not_used() {
    let mut script = flight(4);
    script.advance(ms(40));
    script.ack_with(3000, &[], 3); // room for 384 bytes from 3000, all of it in flight
    script.write(4000);
    assert_eq!(script.data(), []);
    script.ack_with(5000, &[], 3);
    assert_eq!(script.data(), [], "384 bytes of room");
    let sent = data(&script.run(ms(300)));
    assert_eq!(sent.iter().map(|s| (s.1, s.2)).collect::<Vec<_>>(), [(5000, 384)], "the override timeout");
}

/// RFC 7323, section 2.3: windows are scaled by the shift of the peer's SYN.
#[test]
fn the_window_is_a_limit() {
    for (window, expected) in [(20, 2000), (40, 5000)] {
        let mut script = Script::measured(Terms { window, ..Terms::default() });
        script.write(10_000);
        let total: usize = script.data().iter().map(|s| s.1).sum();
        assert_eq!(total, expected, "as many whole segments as {window} times 128 bytes hold");
    }
}

/// A window that is zero since the handshake is probed like one that shuts later.
#[test]
fn a_window_that_never_was_open_is_probed() {
    let mut script = Script::unconnected(Terms::default());
    let iss = script.terms.iss;
    let options = script.syn_options();
    script.stack_segment(iss, 0, SYN, &options, &[]);
    script.sent();
    script.peer_sends(PEER - 1, iss.wrapping_add(1), SYN | ACK, 0, &options, &[]);
    script.write(1000);
    assert!(script.sent().len() <= 1, "the handshake's ACK, and nothing else");
    let probes = script.run(Duration::from_secs(10));
    assert!((1..20).contains(&probes.len()) && probes.iter().all(|sent| sent.len <= 1), "{probes:?}");
    script.ack_with(0, &[], 10_000);
    let sent: usize = script.data().iter().map(|(_, len)| len).sum();
    assert!(sent >= 999, "{sent}");
}
