//! CUBIC (RFC 9438) with HyStart++.
//!
//! Windows are in segments, as in the RFC; `f64` is exact far beyond any window.
use std::time::Duration;

use super::{
    AckSample, CongestionControl, MIN_SSTHRESH,
    hystart::{self, Growth, HyStart},
    restart_window,
};
use crate::recovery::time::Instant;

/// C: the aggressiveness of the cubic curve (RFC 9438, section 5.1).
const C: f64 = 0.4;
/// beta_cubic: the factor of the window after a loss (section 4.6).
const BETA: f64 = 0.7;
/// alpha of section 4.3: makes the Reno-friendly estimate as aggressive as Reno.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The state of CUBIC.
#[derive(Debug)]
pub(super) struct Cubic {
    mss: u64,
    /// The congestion window, in segments.
    window: f64,
    ssthresh: f64,
    w_max: f64,
    epoch: Option<Epoch>,
    hystart: Option<HyStart>,
    delay: Delay,
    /// Window, ssthresh and W_max before the last reduction.
    prior: (f64, f64, f64),
}

/// A period of congestion avoidance.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds from the start until the window is W_max again.
    k: f64,
    /// The Reno-friendly window, in segments.
    w_est: f64,
    /// The window at the start, in segments.
    start_window: f64,
    /// The plateau of the curve, in segments: W_max, or the window at the start if that is larger.
    plateau: f64,
}

impl Cubic {
    pub(crate) fn new(mss: u64, initial: u32) -> Self {
        let window = f64::from(initial);
        Cubic {
            mss,
            window,
            ssthresh: f64::INFINITY,
            w_max: 0.0,
            epoch: None,
            hystart: Some(HyStart::default()),
            delay: Delay::default(),
            prior: (window, f64::INFINITY, 0.0),
        }
    }

    fn slow_start(&mut self, sample: &AckSample) {
        let segments = |bytes: u64| bytes as f64 / self.mss as f64;
        let growth = match &mut self.hystart {
            Some(hystart) => hystart.on_ack(sample),
            None => Growth::By(sample.delivered),
        };
        match growth {
            Growth::By(bytes) => self.window += segments(bytes),
            Growth::Exit => self.ssthresh = self.window,
        }
    }

    fn avoid_congestion(&mut self, sample: &AckSample) {
        let (now, window) = (sample.now, self.window);
        let acked = sample.delivered as f64 / self.mss as f64;
        let plateau = self.w_max.max(window);
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: now,
            k: ((plateau - window) / C).cbrt(),
            w_est: window,
            start_window: window,
            plateau,
        });
        // Section 4.3: once W_max is regained, grow as Reno does.
        let alpha = if epoch.w_est >= self.prior.0.max(epoch.start_window) { 1.0 } else { ALPHA };
        epoch.w_est += alpha * acked / window;
        // Sections 4.4 and 4.5: the cubic curve's value one round trip from now, at most 1.5
        // windows.
        let ahead = now.since(epoch.start) + sample.smoothed_rtt.unwrap_or_default();
        let target = C * (ahead.as_secs_f64() - epoch.k).powi(3) + epoch.plateau;
        // If HyStart, and not a loss, ended slow start, the path may carry far more (Linux's
        // bictcp_update()), unless a queue has formed.
        let far_to_go = self.w_max == 0.0 && !self.delay.has_risen();
        let least = if far_to_go { 1.05 * window } else { window };
        let target = target.clamp(least, 1.5 * window);
        let cubic = window + (target - window) / window * acked;
        self.window = cubic.max(epoch.w_est);
    }

    fn reduce(&mut self) {
        self.prior = (self.window, self.ssthresh, self.w_max);
        // Section 4.7, fast convergence: release bandwidth for new flows.
        self.w_max = if self.window < self.w_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.ssthresh = (self.window * BETA).max(MIN_SSTHRESH as f64);
        self.window = self.ssthresh;
        self.epoch = None;
        self.hystart = None;
    }

    fn bytes(&self, segments: f64) -> u64 {
        (segments * self.mss as f64) as u64
    }
}

impl CongestionControl for Cubic {
    fn on_ack(&mut self, sample: &AckSample) {
        self.delay.note(sample);
        if sample.in_recovery || !sample.may_grow {
            return;
        }
        if self.window < self.ssthresh { self.slow_start(sample) } else { self.avoid_congestion(sample) }
    }

    fn on_congestion(&mut self, _now: Instant, _in_flight: u64) {
        self.reduce();
    }

    fn on_timeout(&mut self, _now: Instant, _in_flight: u64, first: bool) {
        if first {
            self.reduce();
        }
        self.window = 1.0;
    }

    fn on_recovery_end(&mut self, _now: Instant) {}

    fn on_spurious(&mut self, _now: Instant) {
        let (window, ssthresh, w_max) = self.prior;
        self.window = self.window.max(window);
        self.ssthresh = self.ssthresh.max(ssthresh);
        self.w_max = w_max;
        self.epoch = None;
    }

    /// RFC 9438, section 5.8: the window does not grow while idle.
    fn on_restart(&mut self, _now: Instant, idle: Duration, timeouts: u32) {
        if let Some(epoch) = &mut self.epoch {
            epoch.start += idle;
        }
        if timeouts > 0 {
            self.ssthresh = self.ssthresh.max(self.window * 0.75);
            self.window = restart_window(self.window(), self.mss, timeouts) as f64 / self.mss as f64;
        }
    }

    fn set_mss(&mut self, mss: u64) {
        // The window keeps its number of segments: the path carries fewer bytes in each.
        self.mss = mss;
    }

    fn window(&self) -> u64 {
        self.bytes(self.window)
    }

    fn ssthresh(&self) -> u64 {
        self.bytes(self.ssthresh)
    }

    fn pacing_rate(&self) -> Option<u64> {
        None
    }
}

/// The shortest round trip of the connection, of the current period of one round trip, and of the
/// period before. A minimum ignores the delays that a busy host adds now and then.
#[derive(Debug, Default)]
struct Delay {
    least: Option<Duration>,
    current: Option<Duration>,
    last: Option<Duration>,
    since: Instant,
}

impl Delay {
    fn note(&mut self, sample: &AckSample) {
        let Some(rtt) = sample.rtt else { return };
        if sample.now.since(self.since) >= sample.smoothed_rtt.unwrap_or(rtt) {
            self.since = sample.now;
            self.last = self.current.take();
        }
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        self.current = Some(self.current.map_or(rtt, |current| current.min(rtt)));
    }

    /// Returns whether round trips have grown by the threshold that ends slow start: a queue has
    /// formed.
    fn has_risen(&self) -> bool {
        let (Some(least), Some(last)) = (self.least, self.last) else { return false };
        last >= least + hystart::delay_threshold(least)
    }
}
