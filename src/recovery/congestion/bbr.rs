//! BBR version 1 (Cardwell et al., "BBR: Congestion-Based Congestion Control"; Linux's
//! net/ipv4/tcp_bbr.c).
//!
//! BBR models the path by the maximum delivery rate of ten round trips and the minimum round trip
//! of ten seconds. It sends at that rate and keeps a small multiple of their product in flight. A
//! loss limits it only during the round trip in which it shows. Linux's model of token-bucket
//! policers is left out.
use std::time::Duration;

use super::{AckSample, CongestionControl, INITIAL_WINDOW, window_filter::MaxFilter};
use crate::recovery::time::{Instant, bytes_in, bytes_per_second};

/// Pacing gain of Startup: 2/ln 2, the least that doubles the rate each round trip.
const HIGH_GAIN: f64 = 2.885;
/// Pacing gain of Drain: removes the queue that Startup built.
const DRAIN_GAIN: f64 = 1.0 / HIGH_GAIN;
const PROBE_GAINS: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const PROBE_WINDOW_GAIN: f64 = 2.0;
/// Span of the bandwidth filter, in round trips: bbr_bw_rtts.
const BANDWIDTH_ROUNDS: u64 = 10;
/// Lifetime of the minimum round trip: bbr_min_rtt_win_sec.
const MIN_RTT_LIFETIME: Duration = Duration::from_secs(10);
/// Duration of ProbeRTT: bbr_probe_rtt_mode_ms.
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);
/// Minimum window, in segments: bbr_cwnd_min_target.
const MIN_WINDOW: u64 = 4;
/// Growth of the bandwidth per round below which the pipe counts as full: bbr_full_bw_thresh.
const FULL_PIPE_GROWTH: f64 = 1.25;
/// Rounds without that growth after which Startup ends: bbr_full_bw_cnt.
const FULL_PIPE_ROUNDS: u32 = 3;
/// Pacing rate as a fraction of the bandwidth: bbr_pacing_margin_percent.
const PACING_MARGIN: f64 = 0.99;
/// Span of the aggregation filter, in round trips: bbr_extra_acked_win_rtts.
const EXTRA_ACKED_ROUNDS: u32 = 5;
/// Maximum aggregation, as time at the bandwidth: bbr_extra_acked_max_us.
const EXTRA_ACKED_MAX: Duration = Duration::from_millis(100);
/// Maximum super-frame, in bytes.
const MAX_QUANTUM: u64 = 65_000;

/// The phase of the state machine (bbr_mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt,
}

/// The state of BBR.
#[derive(Debug)]
pub(super) struct Bbr {
    mss: u64,
    window: u64,
    mode: Mode,
    pacing_gain: f64,
    window_gain: f64,
    rate: u64,
    rtt_seen: bool,

    bandwidth: MaxFilter,
    round: u64,
    round_end: u64,
    round_started: bool,
    full_bandwidth: u64,
    full_rounds: u32,
    pipe_full: bool,

    min_rtt: Option<(Duration, Instant)>,
    probe_rtt_until: Option<Instant>,
    probe_rtt_round_done: bool,
    restarted: bool,

    phase: usize,
    phase_started: Instant,

    /// The window to restore after a recovery or ProbeRTT, in bytes.
    prior_window: u64,
    recovering: bool,
    /// A recovery begins with the next ACK.
    entering: bool,
    /// Packet conservation, during a recovery's first round trip: sending equals delivery.
    conserving: bool,

    aggregation: Aggregation,
}

/// The amount by which ACKs run ahead of the bandwidth, because Wi-Fi, GRO and busy hosts batch
/// them.
#[derive(Debug, Default)]
struct Aggregation {
    since: Instant,
    acked: u64,
    extra: [u64; 2],
    slot: usize,
    rounds: u32,
}

impl Bbr {
    pub(crate) fn new(mss: u64, initial: u32) -> Self {
        Bbr {
            mss,
            window: u64::from(initial) * mss,
            mode: Mode::Startup,
            pacing_gain: HIGH_GAIN,
            window_gain: HIGH_GAIN,
            rate: 0,
            rtt_seen: false,
            bandwidth: MaxFilter::new(BANDWIDTH_ROUNDS),
            round: 0,
            round_end: 0,
            round_started: false,
            full_bandwidth: 0,
            full_rounds: 0,
            pipe_full: false,
            min_rtt: None,
            probe_rtt_until: None,
            probe_rtt_round_done: false,
            restarted: false,
            phase: 0,
            phase_started: Instant::ZERO,
            prior_window: 0,
            recovering: false,
            entering: false,
            conserving: false,
            aggregation: Aggregation::default(),
        }
    }

    fn bandwidth_delay_product(&self, gain: f64) -> u64 {
        match self.min_rtt {
            None => u64::from(INITIAL_WINDOW) * self.mss,
            Some((min_rtt, _)) => (bytes_in(self.bandwidth.get(), min_rtt) as f64 * gain) as u64,
        }
    }

    /// Returns the bytes in flight that `gain` needs, with room for whole super-frames at both
    /// ends.
    fn target(&self, gain: f64) -> u64 {
        self.quantize(self.bandwidth_delay_product(gain))
    }

    /// Rounds `bytes` up to whole super-frames: bbr_quantization_budget().
    fn quantize(&self, bytes: u64) -> u64 {
        let quantum = (self.rate >> 10).clamp(2 * self.mss, MAX_QUANTUM.max(2 * self.mss));
        let probing_up = self.mode == Mode::ProbeBandwidth && self.phase == 0;
        bytes + 3 * quantum + if probing_up { 2 * self.mss } else { 0 }
    }

    fn update_bandwidth(&mut self, sample: &AckSample) {
        self.round_started = false;
        let Some(rate) = sample.rate else { return };
        if rate.prior_delivered >= self.round_end {
            self.round_end = sample.total_delivered;
            self.round += 1;
            self.round_started = true;
            self.conserving = false;
        }
        if rate.rate > 0 && (!rate.application_limited || rate.rate >= self.bandwidth.get()) {
            self.bandwidth.update(self.round, rate.rate);
        }
    }

    fn update_aggregation(&mut self, sample: &AckSample) {
        let aggregation = &mut self.aggregation;
        if self.round_started {
            aggregation.rounds += 1;
            if aggregation.rounds >= EXTRA_ACKED_ROUNDS {
                aggregation.rounds = 0;
                aggregation.slot ^= 1;
                aggregation.extra[aggregation.slot] = 0;
            }
        }
        if sample.delivered == 0 {
            return;
        }
        let mut expected = bytes_in(self.bandwidth.get(), sample.now.since(aggregation.since));
        if aggregation.acked <= expected {
            aggregation.acked = 0;
            aggregation.since = sample.now;
            expected = 0;
        }
        aggregation.acked += sample.delivered;
        let extra = aggregation.acked.saturating_sub(expected).min(self.window);
        let slot = &mut aggregation.extra[aggregation.slot];
        *slot = extra.max(*slot);
    }

    fn aggregation_allowance(&self) -> u64 {
        if !self.pipe_full {
            return 0;
        }
        let [a, b] = self.aggregation.extra;
        a.max(b).min(bytes_in(self.bandwidth.get(), EXTRA_ACKED_MAX))
    }

    fn update_phase(&mut self, sample: &AckSample) {
        if self.mode != Mode::ProbeBandwidth {
            return;
        }
        let min_rtt = self.min_rtt.map_or(Duration::ZERO, |(min_rtt, _)| min_rtt);
        let full_length = sample.now.since(self.phase_started) > min_rtt;
        let in_flight = sample.prior_in_flight;
        let next = if self.pacing_gain > 1.0 {
            full_length && (sample.lost > 0 || in_flight >= self.target(self.pacing_gain))
        } else if self.pacing_gain < 1.0 {
            full_length || in_flight <= self.target(1.0)
        } else {
            full_length
        };
        if next {
            self.enter_phase((self.phase + 1) % PROBE_GAINS.len(), sample.now);
        }
    }

    fn enter_phase(&mut self, phase: usize, now: Instant) {
        self.phase = phase;
        self.phase_started = now;
        self.pacing_gain = PROBE_GAINS[phase];
    }

    fn probe_bandwidth(&mut self, now: Instant) {
        self.mode = Mode::ProbeBandwidth;
        self.window_gain = PROBE_WINDOW_GAIN;
        // Any phase but the draining one, so that flows do not probe in step. Linux picks it at
        // random; the arrival time in microseconds is as good, and a simulation can repeat it.
        let lot = (now.nanos() / 1000 % 7) as usize;
        self.enter_phase(if lot == 0 { 0 } else { lot + 1 }, now);
    }

    fn check_full_pipe(&mut self, sample: &AckSample) {
        let limited = sample.rate.is_some_and(|rate| rate.application_limited);
        if self.pipe_full || !self.round_started || limited {
            return;
        }
        if self.bandwidth.get() as f64 >= self.full_bandwidth as f64 * FULL_PIPE_GROWTH {
            self.full_bandwidth = self.bandwidth.get();
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        self.pipe_full = self.full_rounds >= FULL_PIPE_ROUNDS;
    }

    fn check_drain(&mut self, sample: &AckSample) {
        if self.mode == Mode::Startup && self.pipe_full {
            self.mode = Mode::Drain;
            self.pacing_gain = DRAIN_GAIN;
            self.window_gain = HIGH_GAIN;
        }
        if self.mode == Mode::Drain && sample.in_flight <= self.target(1.0) {
            self.probe_bandwidth(sample.now);
        }
    }

    fn update_min_rtt(&mut self, sample: &AckSample) {
        let now = sample.now;
        let expired = self.min_rtt.is_some_and(|(_, at)| now > at + MIN_RTT_LIFETIME);
        if let Some(rtt) = sample.rtt
            && (expired || self.min_rtt.is_none_or(|(min_rtt, _)| rtt < min_rtt))
        {
            self.min_rtt = Some((rtt, now));
        }
        if expired && !self.restarted && self.mode != Mode::ProbeRtt {
            self.save_window();
            self.mode = Mode::ProbeRtt;
            self.pacing_gain = 1.0;
            self.window_gain = 1.0;
            self.probe_rtt_until = None;
        }
        if self.mode == Mode::ProbeRtt {
            match self.probe_rtt_until {
                None if sample.in_flight <= MIN_WINDOW * self.mss => {
                    self.probe_rtt_until = Some(now + PROBE_RTT_TIME);
                    self.probe_rtt_round_done = false;
                    self.round_end = sample.total_delivered;
                }
                None => {}
                Some(_) => {
                    self.probe_rtt_round_done |= self.round_started;
                    self.check_probe_rtt_done(now);
                }
            }
        }
        if sample.delivered > 0 {
            self.restarted = false;
        }
    }

    fn check_probe_rtt_done(&mut self, now: Instant) {
        if !self.probe_rtt_round_done || self.probe_rtt_until.is_none_or(|until| now <= until) {
            return;
        }
        if let Some((_, at)) = &mut self.min_rtt {
            *at = now;
        }
        self.window = self.window.max(self.prior_window);
        if self.pipe_full {
            self.probe_bandwidth(now);
        } else {
            self.mode = Mode::Startup;
            self.pacing_gain = HIGH_GAIN;
            self.window_gain = HIGH_GAIN;
        }
    }

    fn save_window(&mut self) {
        let keep = self.recovering || self.mode == Mode::ProbeRtt;
        self.prior_window = if keep { self.prior_window.max(self.window) } else { self.window };
    }

    fn set_rate(&mut self, sample: &AckSample) {
        if !self.rtt_seen
            && let Some(smoothed) = sample.smoothed_rtt
        {
            self.rtt_seen = true;
            self.rate = (bytes_per_second(self.window, smoothed) as f64 * HIGH_GAIN) as u64;
        }
        let rate = (self.bandwidth.get() as f64 * self.pacing_gain * PACING_MARGIN) as u64;
        if rate > 0 && (self.pipe_full || rate > self.rate) {
            self.rate = rate;
        }
    }

    fn set_window(&mut self, sample: &AckSample) {
        if sample.delivered > 0 {
            self.window = self.window.saturating_sub(sample.lost).max(self.mss);
            if self.entering {
                self.entering = false;
                self.conserving = true;
                self.round_end = sample.total_delivered;
                self.window = sample.in_flight + sample.delivered;
            }
            if self.conserving {
                self.window = self.window.max(sample.in_flight + sample.delivered);
            } else {
                let target = self
                    .quantize(self.bandwidth_delay_product(self.window_gain) + self.aggregation_allowance());
                if self.pipe_full {
                    self.window = (self.window + sample.delivered).min(target);
                } else if self.window < target
                    || sample.total_delivered < u64::from(INITIAL_WINDOW) * self.mss
                {
                    self.window += sample.delivered;
                }
                self.window = self.window.max(MIN_WINDOW * self.mss);
            }
        }
        if self.mode == Mode::ProbeRtt {
            self.window = self.window.min(MIN_WINDOW * self.mss);
        }
    }
}

impl CongestionControl for Bbr {
    fn on_ack(&mut self, sample: &AckSample) {
        self.update_bandwidth(sample);
        self.update_aggregation(sample);
        self.update_phase(sample);
        self.check_full_pipe(sample);
        self.check_drain(sample);
        self.update_min_rtt(sample);
        self.set_rate(sample);
        self.set_window(sample);
    }

    /// Conserves packets for one round trip: bbr_set_cwnd_to_recover_or_restore().
    fn on_congestion(&mut self, _now: Instant, _in_flight: u64) {
        self.save_window();
        self.recovering = true;
        self.entering = true;
    }

    fn on_timeout(&mut self, _now: Instant, in_flight: u64, _first: bool) {
        self.save_window();
        self.recovering = true;
        self.entering = false;
        self.conserving = false;
        self.full_bandwidth = 0;
        self.round_started = true;
        self.window = in_flight + self.mss;
    }

    fn on_recovery_end(&mut self, _now: Instant) {
        self.window = self.window.max(self.prior_window);
        self.recovering = false;
        self.entering = false;
        self.conserving = false;
    }

    fn on_spurious(&mut self, now: Instant) {
        self.full_bandwidth = 0;
        self.full_rounds = 0;
        self.on_recovery_end(now);
    }

    fn on_restart(&mut self, now: Instant, _idle: Duration, _timeouts: u32) {
        self.restarted = true;
        self.aggregation.since = now;
        self.aggregation.acked = 0;
        if self.mode == Mode::ProbeBandwidth {
            self.rate = (self.bandwidth.get() as f64 * PACING_MARGIN) as u64;
        } else if self.mode == Mode::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn ssthresh(&self) -> u64 {
        u64::MAX
    }

    fn pacing_rate(&self) -> Option<u64> {
        (self.rate > 0).then_some(self.rate)
    }

    fn reduces_proportionally(&self) -> bool {
        false
    }

    /// ProbeRTT may last longer than the bandwidth filter's span (bbr_update_min_rtt()).
    fn holds_back(&self) -> bool {
        self.mode == Mode::ProbeRtt
    }

    fn bandwidth(&self) -> Option<u64> {
        Some(self.bandwidth.get()).filter(|bandwidth| *bandwidth > 0)
    }
}
