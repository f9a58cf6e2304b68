//! Acknowledgments: processes each ACK by itself, then a batch of them together.
//!
//! A burst of ACKs is read from the wire before anything is sent. So the costly conclusions
//! (losses, the congestion window) are drawn once for all of them, in the next call of
//! [`super::Recovery::poll_transmit`].
use std::time::Duration;

use super::{
    Instant,
    congestion::AckSample,
    prr::Prr,
    rack::{Conditions, Transmission},
    sender::{RecoveryPhase, Sender},
    tail_probe::ProbeOutcome,
    timestamps,
};
use crate::segment::{MAX_SACK_BLOCKS, Segment};

/// Duplicate ACKs that indicate a loss, for peers without SACK (RFC 5681, section 3.2).
const DUP_THRESH: u64 = 3;
/// Extension of the reordering timer beyond the window, for ACKs that have arrived and are not read
/// yet.
const REORDERING_TIMER_SLACK: Duration = Duration::from_micros(500);
/// Extension of the reordering timer where the path reorders: a busy host on the way, above all the
/// peer, may hold a late segment for a scheduling tick. Linux's TCP_TIMEOUT_MIN: two ticks at the
/// usual 250 Hz.
const REORDERING_TIMER_PATIENCE: Duration = Duration::from_millis(8);

/// The accumulated effect of a batch of ACKs.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckBatch {
    at: Instant,
    prior_in_flight: u64,
    prior_delivered: u64,
    prior_una: u64,
    /// Longest and shortest round trip of data delivered without retransmission.
    rtt: Option<(Duration, Duration)>,
    /// ACKs that measured a round trip.
    rtt_samples: u32,
    lost: u64,
    dsack: bool,
    duplicate: bool,
    spurious: bool,
}

impl Sender {
    /// Processes one acceptable ACK at offset `ack`. `pure` means that the segment carries nothing
    /// else.
    pub(super) fn on_ack(&mut self, now: Instant, segment: &Segment, ack: u64, pure: bool) {
        if !segment.options.sack.is_empty() && self.board.sacked() == 0 {
            // ACKs before the first sign of a loss belong to the time before: the window grows
            // first, and is reduced then.
            self.settle(now);
        }
        let advanced = ack > self.space.una;
        let window = self.space.window;
        if ack >= self.space.una && self.space.update_window(segment.seq, ack, segment.window, advanced) {
            self.on_window_opened(now);
        }
        // With nothing in flight, only a D-SACK or the answer to a tail probe is informative.
        if self.board.is_empty()
            && !advanced
            && segment.options.sack.is_empty()
            && self.timers.tail_probe.is_none()
        {
            return;
        }
        let mut batch = self.batch.unwrap_or(AckBatch {
            at: now,
            prior_in_flight: self.in_flight(),
            prior_delivered: self.rate.delivered(),
            prior_una: self.space.una,
            rtt: None,
            rtt_samples: 0,
            lost: 0,
            dsack: false,
            duplicate: false,
            spurious: false,
        });
        batch.at = now;
        let delivered = self.rate.delivered();
        if advanced {
            self.advance(now, ack, segment, &mut batch);
        }
        self.read_sack(now, ack, segment, &mut batch);
        if pure
            && !advanced
            && segment.options.sack.is_empty()
            && window == segment.window
            && !self.board.is_empty()
        {
            batch.duplicate = true;
            if !self.sack {
                self.duplicate_acks += 1;
            }
        }
        if self.rate.delivered() > delivered {
            self.timers.probe_from = now;
            self.timers.user_timeout.on_progress(now);
            self.path_mtu.on_progress(now);
        }
        self.batch = Some(batch);
    }

    /// Reacts to an opening window: a probe sent into the shut window is lost, and the backoff has
    /// lost its reason.
    fn on_window_opened(&mut self, now: Instant) {
        self.timers.persist.stop();
        if std::mem::take(&mut self.timers.head_probed) {
            self.board.mark_front_lost(self.mss);
            self.rtt.reset_backoff();
            self.timers.rto_from = now;
        }
    }

    fn advance(&mut self, now: Instant, ack: u64, segment: &Segment, batch: &mut AckBatch) {
        let (rate, rack, stats) = (&mut self.rate, &mut self.rack, &mut self.stats);
        let minimum = self.rtt.minimum();
        let echo = segment.options.timestamps.filter(|_| self.use_timestamps).map(|stamp| stamp.echo);
        let clock = &self.clock;
        let mut round_trips: Option<(Duration, Duration)> = None;
        let mut ambiguous = !self.sack && self.phase != RecoveryPhase::Open;
        let una = self.space.una;
        self.board.acknowledge(ack, |record, highest| {
            rate.on_delivered(now, record);
            // RFC 7323, section 4.3: the echo is that of the segment at the left edge, even if the
            // ACK covers more.
            let transmission = match echo.filter(|_| record.start <= una) {
                Some(echo) if clock.is_before(echo, record.sent) => Transmission::Earlier,
                // A retransmission leaves at least one round trip after the original.
                Some(_) if minimum.is_some_and(|rtt| rtt >= timestamps::TICK) => Transmission::Last,
                _ => Transmission::Unknown,
            };
            stats.reordered += u64::from(rack.on_delivered(now, record, highest, minimum, transmission));
            ambiguous |= !record.timed;
            round_trips = Some(widen(round_trips, now.since(record.sent)));
        });
        // Karn's algorithm (RFC 6298, section 3): an ACK that covers a retransmission may be late
        // for the rest, too.
        if let Some((longest, shortest)) = round_trips.filter(|_| !ambiguous) {
            batch.rtt = Some(widen(Some(widen(batch.rtt, longest)), shortest));
            batch.rtt_samples += 1;
        }
        self.space.una = ack;
        self.timers.idle_since = self.board.is_empty().then_some(now);
        self.duplicate_acks = 0;
        self.rtt.reset_backoff();
        self.timers.head_probe = false;
        self.timers.head_probed = false;
        self.timers.persist.stop();
        // RFC 6298, section 5.3.
        self.timers.rto_from = now;
        self.timers.probe_from = now;
        batch.spurious |= self.phase != RecoveryPhase::Open && self.undo.on_advance(una, echo);
    }

    /// Processes the SACK option (RFC 2018), and a D-SACK in its first block (RFC 2883).
    fn read_sack(&mut self, now: Instant, ack: u64, segment: &Segment, batch: &mut AckBatch) {
        if !self.sack || segment.options.sack.is_empty() {
            return;
        }
        let mut blocks = [(0, 0); MAX_SACK_BLOCKS];
        let mut count = 0;
        for (index, (left, right)) in segment.options.sack.iter().enumerate() {
            let (left, right) = (self.space.offset(left), self.space.offset(right));
            if left >= right || right > self.space.nxt {
                continue;
            }
            let duplicate = index == 0 && (right <= ack || self.is_inside_second(segment, left, right));
            if duplicate {
                self.on_dsack(left, right, batch);
            }
            let left = left.max(self.space.una);
            if let Some(slot) = blocks.get_mut(count).filter(|_| left < right) {
                *slot = (left, right);
                count += 1;
            }
        }
        let (rate, rack, stats) = (&mut self.rate, &mut self.rack, &mut self.stats);
        let minimum = self.rtt.minimum();
        if let Some(blocks) = blocks.get_mut(..count) {
            self.board.sack(blocks, self.mss, |record, highest| {
                rate.on_delivered(now, record);
                // The echo is that of the last segment in order, which came long before this one.
                let transmission = Transmission::Unknown;
                stats.reordered += u64::from(rack.on_delivered(now, record, highest, minimum, transmission));
                if record.timed {
                    batch.rtt = Some(widen(batch.rtt, now.since(record.sent)));
                }
            });
        }
    }

    /// Returns whether a first block lies inside the second, and so reports a duplicate above the
    /// acknowledgment (RFC 2883, section 4).
    fn is_inside_second(&self, segment: &Segment, left: u64, right: u64) -> bool {
        segment
            .options
            .sack
            .iter()
            .nth(1)
            .is_some_and(|(start, end)| self.space.offset(start) <= left && right <= self.space.offset(end))
    }

    fn on_dsack(&mut self, left: u64, right: u64, batch: &mut AckBatch) {
        self.stats.duplicate_sacks += 1;
        // More duplicates than retransmissions: the network creates them.
        if self.stats.duplicate_sacks > self.stats.segments_retransmitted {
            return;
        }
        batch.dsack = true;
        batch.spurious |= self.undo.on_dsack(left, right);
        // RFC 8985, section 6.2: a duplicate caused by a tail probe is no sign of reordering.
        if self.timers.tail_probe.is_none() {
            self.rack.on_dsack(self.space.una, self.space.nxt);
        }
    }

    /// Draws the conclusions of a batch: losses, round trip, congestion window.
    pub(super) fn settle(&mut self, now: Instant) {
        let Some(mut batch) = self.batch.take() else { return };
        let delivered = self.rate.delivered() - batch.prior_delivered;
        if let Some((longest, shortest)) = batch.rtt {
            self.rtt.sample(batch.at, longest, shortest);
        }
        self.judge_tail_probe(now, &batch);
        if let Some(link_mss) = self.path_mtu.on_acknowledged(now, self.space.una, self.link_mss) {
            self.resize_segments(now, link_mss);
        }
        if batch.spurious {
            self.undo_recovery(now, batch.dsack);
        }
        let partial = matches!(self.phase, RecoveryPhase::Recovery { until } if self.space.una > batch.prior_una && self.space.una < until);
        self.end_recovery(now);
        if self.sack {
            if delivered > 0 {
                // The ACKs' arrival time: on a busy host the time since then may exceed the
                // reordering window.
                batch.lost = self.detect_losses(batch.at, delivered);
            }
        } else {
            batch.lost = self.detect_losses_without_sack(now, delivered, partial);
        }

        let in_recovery = matches!(self.phase, RecoveryPhase::Recovery { .. });
        let sample = self.rate.sample(self.rtt.minimum());
        if let Some(sample) = sample.filter(|sample| sample.rate > 0) {
            self.delivery_rate = sample.rate;
            if let Some(rtt) = self.rtt.minimum() {
                self.buffer.budget.note(sample.rate, rtt, in_recovery);
            }
        }
        self.buffer.budget.note_sacked(self.board.sacked());
        let in_flight = self.in_flight();
        self.congestion.on_ack(&AckSample {
            now: batch.at,
            delivered,
            lost: batch.lost,
            in_flight,
            prior_in_flight: batch.prior_in_flight,
            rtt: batch.rtt.map(|(_, shortest)| shortest),
            rtt_samples: batch.rtt_samples,
            smoothed_rtt: self.rtt.smoothed(),
            rate: sample,
            total_delivered: self.rate.delivered(),
            in_recovery,
            may_grow: self.space.una > batch.prior_una
                && self.usage.is_limited(
                    self.congestion.window() < self.congestion.ssthresh(),
                    self.congestion.window(),
                ),
        });
        if self.congestion.holds_back() {
            self.rate.application_limited(in_flight);
        }
        if let Some(prr) = self.prr.as_mut().filter(|_| delivered > 0) {
            let safe = self.space.una > batch.prior_una && batch.lost == 0;
            prr.on_ack(delivered, in_flight, self.congestion.ssthresh(), self.mss, safe);
        }
    }

    fn judge_tail_probe(&mut self, now: Instant, batch: &AckBatch) {
        let Some(probe) = self.timers.tail_probe else { return };
        match probe.outcome(self.space.una, batch.dsack, batch.duplicate) {
            ProbeOutcome::Pending => return,
            ProbeOutcome::Needless => {}
            // RFC 8985, section 7.4: no other ACK reported this loss.
            ProbeOutcome::Repaired if self.phase == RecoveryPhase::Open => {
                self.congestion.on_congestion(now, self.in_flight());
                self.congestion.on_recovery_end(now);
            }
            ProbeOutcome::Repaired => {}
        }
        self.timers.tail_probe = None;
    }

    fn undo_recovery(&mut self, now: Instant, dsack: bool) {
        self.stats.spurious_recoveries += 1;
        self.undo.end();
        if !dsack {
            // For a peer that reports no duplicates, this proof counts as a D-SACK.
            self.rack.on_dsack(self.space.una, self.space.nxt);
        }
        self.congestion.on_spurious(now);
        self.board.unmark_lost();
        self.leave_recovery(now);
    }

    fn end_recovery(&mut self, now: Instant) {
        if let RecoveryPhase::Recovery { until } | RecoveryPhase::Loss { until } = self.phase
            && self.space.una >= until
        {
            self.rack.on_recovery_end();
            self.leave_recovery(now);
        }
    }

    fn leave_recovery(&mut self, now: Instant) {
        if self.phase != RecoveryPhase::Open {
            self.phase = RecoveryPhase::Open;
            self.timers.tail_probe = None;
            self.congestion.on_recovery_end(now);
        }
        self.prr = None;
        self.timers.head_probe = false;
    }

    /// Detects losses after `delivered` bytes arrived (RFC 8985, section 6.2, step 5). Returns the
    /// bytes marked lost.
    pub(super) fn detect_losses(&mut self, now: Instant, delivered: u64) -> u64 {
        self.rack.weigh(self.board.unreported_from(), self.mss);
        let window = self.rack.window(Conditions {
            min_rtt: self.rtt.minimum().unwrap_or_default(),
            smoothed: self.rtt.smoothed().unwrap_or_default(),
            in_recovery: self.phase != RecoveryPhase::Open,
            sacked: self.board.sacked(),
            mss: self.mss,
        });
        let rack = &self.rack;
        let deadline = |record: &_| rack.deadline(record, window);
        let (lost, spared) = self.board.detect_losses(|record| deadline(record).is_some_and(|at| at <= now));
        let ends = spared.and_then(|record| self.rack.deadline(&record, window));
        let slack = match self.rack.has_seen_reordering() {
            true => REORDERING_TIMER_PATIENCE,
            false => REORDERING_TIMER_SLACK,
        };
        self.timers.reordering_ends = ends.map(|ends| ends + slack);
        self.on_losses(now, delivered, lost);
        lost
    }

    /// Detects losses for a peer without SACK: the third duplicate ACK, or a partial ACK in a
    /// recovery, marks the head lost (RFC 6582).
    fn detect_losses_without_sack(&mut self, now: Instant, delivered: u64, partial: bool) -> u64 {
        let third = self.duplicate_acks >= DUP_THRESH && self.phase == RecoveryPhase::Open;
        if !third && !partial {
            return 0;
        }
        let lost = self.board.mark_front_lost(self.mss);
        self.on_losses(now, delivered, lost);
        lost
    }

    /// Returns whether `lost` is the loss of a path MTU probe alone, which is no sign of congestion
    /// (RFC 4821, section 7.2).
    fn is_lost_probe(&mut self, lost: u64) -> bool {
        let Some((start, end)) = self.path_mtu.probe_in_flight().filter(|(start, end)| lost <= end - start)
        else {
            return false;
        };
        let first = self.board.first_lost().and_then(|index| self.board.get(index));
        first.is_some_and(|record| (start..end).contains(&record.start))
    }

    fn on_losses(&mut self, now: Instant, delivered: u64, lost: u64) {
        if lost == 0 {
            return;
        }
        self.stats.bytes_lost += lost;
        if self.phase != RecoveryPhase::Open || self.is_lost_probe(lost) {
            return;
        }
        self.stats.fast_recoveries += 1;
        self.timers.tail_probe = None;
        self.phase = RecoveryPhase::Recovery { until: self.space.nxt };
        self.undo.begin(self.space.una);
        // RFC 9937's RecoverFS: the bytes in flight before this ACK.
        let flight = self.board.in_flight() + self.board.lost() + delivered;
        self.congestion.on_congestion(now, self.in_flight());
        let proportional = self.sack && self.congestion.reduces_proportionally();
        self.prr = proportional.then(|| Prr::new(flight, self.mss));
    }
}

/// Extends a range of longest and shortest round trip by `rtt`.
fn widen(range: Option<(Duration, Duration)>, rtt: Duration) -> (Duration, Duration) {
    range.map_or((rtt, rtt), |(longest, shortest)| (longest.max(rtt), shortest.min(rtt)))
}
