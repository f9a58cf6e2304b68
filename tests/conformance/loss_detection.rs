//! Loss detection: RACK (RFC 8985, section 6), and NewReno for peers without SACK (RFC 6582).
use super::*;

/// Margin of the reordering timer beyond its window, for ACKs that have arrived and are not read
/// yet.
const SLACK: Duration = Duration::from_micros(500);
/// Margin after reordering was seen.
const PATIENCE: Duration = ms(8);

/// RFC 8985, section 6.2, step 4: three SACKed segments without reordering mark a loss at once.
#[test]
fn three_sacked_segments_prove_a_loss() {
    let mut script = flight(5);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 3000)]);
    assert_eq!(script.data(), []);
    script.sack(1000, &[(2000, 4000)]);
    assert_eq!(script.data(), []);
    script.sack(1000, &[(2000, 5000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    assert_eq!(script.layer.stats().fast_recoveries, 1);
}

/// RFC 8985, section 6.2, step 5: one SACKed segment marks a loss after a quarter of the minimum
/// RTT.
#[test]
fn one_sacked_segment_proves_a_loss_after_the_reordering_window() {
    let mut script = flight(2);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 3000)]);
    assert_eq!(data(&script.run(ms(30))), [(ms(50) + SLACK, 1000, 1000)]);
}

/// RFC 8985, section 6.2, step 3: once reordering was seen, three SACKed segments prove nothing.
#[test]
fn reordering_makes_it_patient() {
    let mut script = flight(3);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 3000)]);
    script.sent();
    script.ack(4000);
    assert_eq!(script.data(), []);
    assert_eq!(script.layer.stats().reordered, 1);
    send(&mut script, 6);
    script.advance(ms(40));
    script.sack(4000, &[(5000, 10_000)]);
    assert_eq!(script.data(), [], "five SACKed segments");
    assert_eq!(data(&script.run(ms(20))), [(ms(90) + PATIENCE, 4000, 1000)], "a quarter of 40 ms later");
}

/// RFC 8985, section 6.2, step 4: each round with a D-SACK adds a quarter of the minimum RTT.
#[test]
fn d_sack_widens_the_reordering_window() {
    let mut script = flight(3);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 3000)]);
    assert_eq!(data(&script.run(ms(12))), [(ms(50) + SLACK, 1000, 1000)], "needless, as it turns out");
    script.ack(4000);
    script.run(ms(30));
    script.sack(4000, &[(1000, 2000)]);
    script.sent();
    send(&mut script, 6);
    let sent_at = script.sent_at();
    script.advance(ms(40));
    script.sack(4000, &[(5000, 10_000)]);
    assert_eq!(data(&script.run(ms(40))), [(sent_at + ms(60) + PATIENCE, 4000, 1000)], "two quarters");
}

/// RFC 8985, section 6.2: data sent after a retransmission reveals the loss of the retransmission.
#[test]
fn a_lost_retransmission_is_sent_again() {
    let mut script = flight(5);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 6000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    script.advance(ms(1));
    script.write(1000);
    assert_eq!(script.data(), [(6000, 1000)]);
    script.advance(ms(41));
    script.sack(1000, &[(2000, 7000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    assert_eq!(script.layer.stats().timeouts, 0);
}

/// Two retransmissions are all that is in flight. RFC 7323, section 4.3: a peer echoes the last
/// segment in order, so the echo does not tell which transmission a SACK block is for.
#[test]
fn a_lost_retransmission_is_found_by_a_later_one() {
    let mut script = flight(5);
    script.echo = Some(script.timestamp());
    script.advance(ms(40));
    script.sack(1000, &[(2000, 3000), (4000, 6000)]);
    assert_eq!(script.data(), [(1000, 1000), (3000, 1000)]);
    script.advance(ms(41));
    script.sack(1000, &[(2000, 6000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    assert_eq!(script.layer.stats().timeouts, 0);
}

/// RFC 8985, section 6.2, step 2: a delivery may be that of an earlier transmission, for which SACK
/// had no room (RFC 2018: three blocks beside timestamps). The delivery counts for the earlier
/// transmission until data sent before the last one is acknowledged.
#[test]
fn a_retransmission_counts_as_arrived_only_with_what_left_before_it() {
    let mut script = flight(5);
    script.advance(ms(40));
    script.write(4000);
    assert_eq!(script.data().len(), 4);
    script.advance(ms(1));
    script.sack(1000, &[(3000, 6000)]);
    assert_eq!(script.data(), [(1000, 1000), (2000, 1000)]);
    script.advance(ms(41));
    script.sack(1000, &[(2000, 6000)]);
    assert_eq!(script.data(), [], "of the four nothing was heard");
    script.sack(1000, &[(6000, 7000), (8000, 10_000)]);
    script.write(1000);
    script.data();
    assert_eq!(
        script.layer.stats().bytes_lost,
        3000,
        "the first two, and the one that is missing between the others"
    );
}

/// RFC 7323, section 4.3: timestamps tell that the last transmission arrived, so the end of the
/// flight, which nothing follows, is marked lost at once.
#[test]
fn timestamps_tell_which_transmission_has_arrived() {
    let mut script = flight(10);
    script.advance(ms(40));
    script.sack(1000, &[(2000, 6000)]);
    assert_eq!(script.data(), [(1000, 1000)]);
    script.echo = Some(script.timestamp());
    script.advance(ms(41));
    script.ack(6000);
    assert_eq!(script.data().first(), Some(&(6000, 1000)));
    assert_eq!(script.layer.stats().tail_probes, 0);
}

/// RFC 3042, limited transmit: SACKed segments make room for new ones.
#[test]
fn new_data_flows_while_a_loss_is_suspected() {
    let mut script = flight(10);
    let window = script.layer.stats().congestion_window as i64 / 1000;
    send(&mut script, window - 10);
    script.write(5000);
    assert_eq!(script.data(), [], "the window is full");
    script.advance(ms(40));
    script.sack(1000, &[(2000, 3000)]);
    assert_eq!(script.data().len(), 1);
    script.sack(1000, &[(2000, 4000)]);
    assert_eq!(script.data().len(), 1);
}

/// RFC 6582: without SACK, the third duplicate ACK, then each partial ACK retransmits one segment.
#[test]
fn a_peer_without_sack_is_served_by_newreno() {
    let mut script = Script::measured(Terms { sack: false, ..Terms::default() });
    send(&mut script, 8);
    script.advance(ms(40));
    script.ack(1000);
    script.ack(1000);
    assert_eq!(script.data(), []);
    script.ack(1000);
    assert_eq!(script.data(), [(1000, 1000)]);
    script.ack(1000);
    script.ack(1000);
    script.data();
    script.advance(ms(40));
    script.ack(4000);
    assert_eq!(script.data(), [(4000, 1000)]);
    script.advance(ms(40));
    script.ack(9000);
    assert_eq!(script.data(), []);
    let stats = script.layer.stats();
    assert_eq!((stats.fast_recoveries, stats.timeouts, stats.segments_retransmitted), (1, 0, 2));
}
