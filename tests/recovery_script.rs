//! Packet scripts for the recovery layer: what it sends, and when, as the RFCs have it.
//!
//! Unless a script says otherwise a segment is 1000 bytes, the round trip 40 ms, and the sequence numbers wrap at
//! offset 2500 of the stream.
mod common;

use std::time::Duration;

use common::script::{ACK, FIN, PEER, RST, SYN, Script, Sent, Terms, segment};
use netkat::recovery::{Algorithm, Config, Disposition};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(change: impl FnOnce(&mut Config)) -> Terms {
    let mut terms = Terms::default();
    change(&mut terms.config);
    terms
}

/// A connection with a measured round trip that has just sent the segments `1..=count` of 1000 bytes.
fn flight(count: i64) -> Script {
    let mut script = Script::measured(Terms::default());
    send(&mut script, count);
    script
}

fn send(script: &mut Script, count: i64) {
    let start = script.written;
    for _ in 0..count {
        script.write(1000);
    }
    let expected: Vec<_> = (0..count).map(|n| (start + n * 1000, 1000)).collect();
    assert_eq!(script.data(), expected);
}

fn data(sent: &[Sent]) -> Vec<(Duration, i64, usize)> {
    sent.iter().filter(|s| s.len > 0 || s.flags & FIN != 0).map(|s| (s.at, s.offset, s.len)).collect()
}

mod handshake {
    use super::*;

    /// RFC 6691: the MSS option is the link's, whatever the stack wrote. RFC 7323: the rest passes.
    #[test]
    fn our_syn_carries_the_links_mss() {
        let mut script = Script::unconnected(Terms::default());
        let options = script.syn_options();
        script.stack_segment(77, 0, SYN, &options, &[]);
        let sent = script.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].seq, sent[0].flags), (77, SYN));
        assert_eq!(sent[0].header[20..24], [2, 4, 0x03, 0xf4]);
        assert_eq!(sent[0].header[24..], options[4..]);
        assert_eq!(sent[0].header[16..18], [0, 0], "the checksum is the IP layer's");
    }

    /// RFC 9293, section 3.7.1: without an MSS option, 536.
    #[test]
    fn a_peer_without_options_gets_small_plain_segments() {
        let mut script = Script::unconnected(Terms::default());
        script.terms.timestamps = false;
        let options = script.syn_options();
        script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
        script.sent();
        let shown = script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 5_000, &[], &[]);
        assert_eq!(shown, Disposition::Show);
        assert!(script.layer.is_established());
        script.stack_ack = PEER;
        script.write(600);
        let sent = script.sent();
        let lens: Vec<_> = sent.iter().map(|s| (s.len, s.header.len())).collect();
        assert_eq!(lens, [(536, 20), (64, 20)]);
    }

    /// RFC 7323, section 2.2: the window of a SYN is never scaled.
    #[test]
    fn the_first_window_is_not_scaled() {
        let mut script = Script::unconnected(config(|c| c.max_frame = 64_000));
        let options = script.syn_options();
        script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
        script.sent();
        script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 1_500, &options, &[]);
        script.stack_ack = PEER;
        script.write(4_000);
        assert_eq!(script.data(), [(0, 1500)]);
    }

    /// RFC 9293, section 3.5: passive open.
    #[test]
    fn a_listener_is_established_by_the_ack_of_its_syn() {
        let mut script = Script::unconnected(Terms::default());
        let options = script.syn_options();
        assert_eq!(script.peer_sends(PEER - 1, 0, SYN, 8_000, &options, &[]), Disposition::Show);
        script.stack_segment(script.terms.iss, PEER, SYN | ACK, &options, &[]);
        assert_eq!(script.sent()[0].flags, SYN | ACK);
        assert!(!script.layer.is_established());
        assert_eq!(script.ack(5), Disposition::Show, "an ACK for something else is the stack's to refuse");
        assert!(!script.layer.is_established());
        assert_eq!(script.ack(0), Disposition::Show);
        assert!(script.layer.is_established());
        script.stack_ack = PEER;
        script.write(1000);
        assert_eq!(script.data(), [(0, 1000)]);
    }

    /// RFC 9293, section 3.5: simultaneous open.
    #[test]
    fn both_sides_may_open() {
        let mut script = Script::unconnected(Terms::default());
        let options = script.syn_options();
        script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
        assert_eq!(script.peer_sends(PEER - 1, 0, SYN, 8_000, &options, &[]), Disposition::Show);
        script.stack_segment(script.terms.iss, PEER, SYN | ACK, &options, &[]);
        let flags: Vec<_> = script.sent().iter().map(|s| s.flags).collect();
        assert_eq!(flags, [SYN, SYN | ACK]);
        let shown = script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 8_000, &options, &[]);
        assert_eq!(shown, Disposition::Show);
        assert!(script.layer.is_established());
    }

    /// RFC 6298, section 3 (Karn): a SYN that was repeated measures nothing.
    #[test]
    fn the_handshake_measures_a_round_trip_if_the_syn_went_once() {
        for (times, expected) in [(1, Some(ms(40))), (2, None)] {
            let mut script = Script::unconnected(Terms::default());
            let options = script.syn_options();
            for _ in 0..times {
                script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
            }
            script.sent();
            script.advance(ms(40));
            script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 8_000, &options, &[]);
            assert_eq!(script.layer.stats().smoothed_rtt, expected);
        }
    }
}

mod detection {
    use super::*;

    /// RFC 8985, section 6.2, step 4: three SACKed segments, no reordering seen: no waiting.
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

    /// RFC 8985, section 6.2, step 5: one SACKed segment is enough after a quarter of the minimum RTT.
    #[test]
    fn one_sacked_segment_proves_a_loss_after_the_reordering_window() {
        let mut script = flight(2);
        script.advance(ms(40));
        script.sack(1000, &[(2000, 3000)]);
        assert_eq!(data(&script.run(ms(30))), [(ms(50), 1000, 1000)]);
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
        assert_eq!(data(&script.run(ms(20))), [(ms(90), 4000, 1000)], "a quarter of 40 ms later");
    }

    /// RFC 8985, section 6.2, step 4: each round with a D-SACK adds a quarter of the minimum RTT.
    #[test]
    fn d_sack_widens_the_reordering_window() {
        let mut script = flight(3);
        script.advance(ms(40));
        script.sack(1000, &[(2000, 3000)]);
        assert_eq!(data(&script.run(ms(12))), [(ms(50), 1000, 1000)], "needless, as it turns out");
        script.ack(4000);
        script.run(ms(30));
        script.sack(4000, &[(1000, 2000)]);
        script.sent();
        send(&mut script, 6);
        let sent_at = script.sent_at();
        script.advance(ms(40));
        script.sack(4000, &[(5000, 10_000)]);
        assert_eq!(data(&script.run(ms(40))), [(sent_at + ms(60), 4000, 1000)], "two quarters");
    }

    /// RFC 8985, section 6.2: a lost retransmission is found by what was sent after it.
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

    /// RFC 6582: without SACK, the third duplicate ACK, then one segment for each partial ACK.
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
}

mod tail {
    use super::*;

    /// RFC 8985, section 7.2: two round trips (and Linux's 2 ms) after the last of several segments.
    #[test]
    fn a_silent_tail_is_probed_with_its_last_segment() {
        let mut script = flight(3);
        assert_eq!(data(&script.run(ms(100))), [(ms(82), 3000, 1000)]);
        assert_eq!(script.layer.stats().tail_probes, 1);
        script.advance(ms(22));
        script.sack(1000, &[(3000, 4000)]);
        assert_eq!(script.data(), [(1000, 1000)], "RFC 9937: one at first");
        script.sack(2000, &[(3000, 4000)]);
        assert_eq!(script.data(), [(2000, 1000)]);
        assert_eq!(script.layer.stats().timeouts, 0);
    }

    /// RFC 8985, section 7.2: a lone segment's ACK may be delayed; the timeout comes first then.
    #[test]
    fn a_lone_segment_is_probed_no_later_than_the_timeout() {
        let mut script = flight(1);
        let sent = script.run(ms(241));
        assert_eq!(data(&sent), [(ms(240), 1000, 1000)]);
        assert_eq!(script.layer.stats().tail_probes, 1);
    }

    /// RFC 8985, section 7.3: new data is the better probe.
    #[test]
    fn waiting_data_is_the_probe() {
        let mut script = Script::measured(Terms::default());
        let window = script.layer.stats().congestion_window as i64 / 1000;
        send(&mut script, window);
        script.write(1000);
        assert_eq!(data(&script.run(ms(100))), [(ms(82), 1000 + window * 1000, 1000)]);
    }

    /// RFC 8985, section 7.3: one probe, then the retransmission timer, restarted by the probe.
    #[test]
    fn one_probe_and_then_the_timeout() {
        let mut script = flight(3);
        let times: Vec<_> = data(&script.run(ms(900)));
        assert_eq!(times, [(ms(82), 3000, 1000), (ms(322), 1000, 1000), (ms(802), 1000, 1000)]);
    }

    /// RFC 8985, section 7.4.2: a probe that repaired a loss is answered by the congestion controller.
    #[test]
    fn a_repaired_loss_shrinks_the_window() {
        let mut script = flight(3);
        let before = script.layer.stats().congestion_window;
        script.run(ms(100));
        script.ack(4000);
        script.sent();
        assert_eq!(script.layer.stats().congestion_window, before, "either copy may have come");
        send(&mut script, 1);
        script.advance(ms(40));
        script.ack(5000);
        script.sent();
        assert!(script.layer.stats().congestion_window < before);
    }

    /// RFC 8985, section 7.4.2: a D-SACK for the probe tells that nothing was lost.
    #[test]
    fn a_needless_probe_costs_nothing() {
        let mut script = flight(3);
        let before = script.layer.stats().congestion_window;
        script.run(ms(100));
        script.ack(4000);
        script.sack(4000, &[(3000, 4000)]);
        script.sent();
        send(&mut script, 1);
        script.advance(ms(40));
        script.ack(5000);
        script.sent();
        assert!(script.layer.stats().congestion_window >= before);
    }

    /// RFC 9293, section 3.10.4: a FIN is part of the tail.
    #[test]
    fn a_lost_fin_is_sent_again() {
        let mut script = flight(2);
        script.fin();
        assert_eq!(script.data(), [(3000, 0)]);
        let sent = script.run(ms(100));
        assert_eq!(data(&sent), [(ms(82), 3000, 0)]);
        assert_eq!(sent[0].flags & FIN, FIN);
        script.ack(3000);
        let again = script.run(ms(400));
        assert!(again.iter().any(|s| s.offset == 3000 && s.flags & FIN != 0), "{again:?}");
        script.ack(3001);
        assert_eq!(script.layer.outstanding(), 0);
        assert_eq!(script.run(ms(5_000)), []);
    }
}

mod timeout {
    use super::*;

    /// RFC 6298, section 5.5, from Linux's minimum: SRTT + 200 ms, doubled each time.
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

    /// RFC 6298, section 2.1: one second before anything was measured.
    #[test]
    fn without_a_measurement_it_is_a_second() {
        let mut script = Script::unconnected(Terms { sack: false, ..Terms::default() });
        let options = script.syn_options();
        script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
        script.stack_segment(script.terms.iss, 0, SYN, &options, &[]);
        script.sent();
        script.peer_sends(PEER - 1, script.seq(0), SYN | ACK, 8_000, &options, &[]);
        script.stack_ack = PEER;
        script.write(1000);
        let sent = data(&script.run(ms(1_100)));
        assert_eq!(sent.iter().map(|s| s.0).collect::<Vec<_>>(), [ms(0), ms(1_000)]);
    }

    /// RFC 5681: slow start repairs what the timeout found lost, and RFC 6298, section 5.7: no more backoff.
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

    /// RFC 2018, section 8: a peer that takes back what it SACKed gets all of it again.
    #[test]
    fn reneging_is_survived() {
        let mut script = flight(4);
        script.advance(ms(40));
        script.sack(1000, &[(2000, 5000)]);
        assert_eq!(script.data(), [(1000, 1000)]);
        script.advance(ms(40));
        // The head arrives, and the queue behind it is gone.
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

    /// RFC 3708: D-SACKs for everything that was sent again undo a recovery.
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

    /// RFC 9293, section 3.8.3; RFC 5482.
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
}

mod window {
    use super::*;

    /// RFC 9293, section 3.8.6.1: a shut window is probed, ever more rarely, with what must be answered.
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

    /// The same for a FIN: it occupies sequence space (RFC 9293, section 3.4).
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

    /// RFC 9293, section 3.8.6: a window that shrinks below what is in flight. The head probes it.
    #[test]
    fn a_window_that_shrinks_is_probed_by_the_head_and_nothing_else() {
        let mut script = flight(4);
        script.advance(ms(10));
        script.ack_with(1000, &[], 0);
        let sent = data(&script.run(ms(1_000)));
        assert!(sent.len() >= 2 && sent.iter().skip(1).all(|s| (s.1, s.2) == (1000, 1000)), "{sent:?}");
        script.ack_with(1000, &[], 2 * 1000 / 128 + 1);
        let open = script.data();
        assert_eq!(open.first(), Some(&(1000, 1000)));
        script.ack(5000);
        assert_eq!(script.layer.outstanding(), 0);
    }

    /// Our own ACKs must lie inside the peer's window, or it refuses them and what they carry.
    #[test]
    fn acks_stay_inside_a_window_that_shrinks() {
        let mut script = flight(4);
        script.ack_with(1000, &[], 0);
        script.sent();
        script.stack_ack += 10;
        script.write(0);
        let acks = script.sent();
        assert_eq!(acks.iter().map(|s| (s.offset, s.ack)).collect::<Vec<_>>(), [(1000, PEER + 10)]);
    }

    /// RFC 9293, section 3.8.6.2.1: no small segment only because the window has a little room.
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
        assert_eq!(
            sent.iter().map(|s| (s.1, s.2)).collect::<Vec<_>>(),
            [(5000, 384)],
            "the override timeout"
        );
    }

    /// RFC 7323, section 2.3: windows are scaled by the shift of the peer's SYN.
    #[test]
    fn the_window_is_a_limit() {
        let mut script = Script::measured(Terms { window: 20, ..config(|c| c.max_frame = 64_000) });
        script.write(10_000);
        let total: usize = script.data().iter().map(|s| s.1).sum();
        assert_eq!(total, 2560);
    }
}

mod rate {
    use super::*;

    /// RFC 9937: cubic's window comes down to 0.7 in proportion to what is delivered.
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

    /// bbr paces from the first measured round trip on; cubic and reno go by ACKs.
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

    /// A window that the application does not fill must not grow (RFC 7661; RFC 9438, section 5.8).
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
}

mod path_mtu {
    use super::*;

    /// RFC 1191: what is in flight goes again in segments that fit, and the window stays.
    #[test]
    fn a_packet_too_big_cuts_what_is_in_flight() {
        let mut script = flight(3);
        assert!(script.layer.quotes(script.seq(2000)));
        assert!(!script.layer.quotes(script.seq(999)), "RFC 5927, section 4.1: acknowledged");
        assert!(!script.layer.quotes(script.seq(4000)), "never sent");
        script.layer.set_mss(script.now, 612);
        let sent = script.data();
        assert!(sent.iter().all(|s| s.1 <= 600), "{sent:?}");
        assert_eq!(sent.iter().map(|s| s.1).sum::<usize>(), 3000, "{sent:?}");
        let stats = script.layer.stats();
        assert_eq!((stats.timeouts, stats.fast_recoveries, stats.segment_size), (0, 0, 600));
        assert_eq!(stats.slow_start_threshold, None);
        script.ack(4000);
        assert_eq!(script.layer.outstanding(), 0);
    }

    /// RFC 4821, section 7.2 and 7.3: what was given up is looked for again, by single segments of new data, and
    /// their loss is no congestion.
    #[test]
    fn the_old_size_is_probed_for() {
        let mut script = Script::established(config(|c| c.link_mss = 1460));
        script.write(1_448);
        script.run(ms(8_000));
        assert_eq!(script.layer.stats().segment_size, 1208);
        script.ack(1_448);
        // Small writes open the window; there is not enough in them for a probe.
        while script.layer.stats().congestion_window < 8_000 {
            for _ in 0..script.layer.stats().congestion_window / 600 {
                script.write(600);
                script.sent();
            }
            script.advance(ms(40));
            script.ack(script.written);
            script.sent();
        }
        // One probe is lost, the next one arrives.
        let start = script.written;
        script.write(5_000);
        let sent = script.sent();
        assert_eq!((sent[0].offset, sent[0].len, sent[0].gso), (start, 1_448, None));
        assert!(sent[1..].iter().all(|s| s.len <= 1_208), "{sent:?}");
        let window = script.layer.stats().congestion_window;
        script.advance(ms(40));
        script.sack(start, &[(start + 1_448, start + 5_000)]);
        let again: Vec<_> = script.run(ms(15)).iter().map(|s| s.len).collect();
        assert_eq!(again, [1_208, 240]);
        let stats = script.layer.stats();
        assert!(stats.congestion_window >= window && stats.fast_recoveries == 0, "{stats:?}");
        script.ack(script.written);
        script.sent();
        script.write(5_000);
        let probe = script.sent()[0].clone();
        assert_eq!((probe.len, probe.gso), (1_448, None));
        script.ack(script.written);
        script.sent();
        assert_eq!(script.layer.stats().segment_size, 1_448);
    }

    /// RFC 4821, section 7.7: full segments that vanish while nothing else does.
    #[test]
    fn a_black_hole_is_found() {
        let mut script = Script::established(config(|c| c.link_mss = 1460));
        script.write(5_000);
        script.sent();
        let sent = script.run(ms(3_000));
        let lens: Vec<_> = sent.iter().map(|s| s.len).collect();
        assert_eq!(lens.last(), Some(&1208), "1220 less timestamps: {lens:?}");
        assert_eq!(script.layer.stats().segment_size, 1208);
    }
}

mod stack {
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
}

mod attacks {
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
        script.write(0);
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
}
