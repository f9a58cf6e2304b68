//! Reno (RFC 5681): slow start, one segment a round trip, half the window on loss.
use std::time::Duration;

use super::{AckSample, CongestionControl, MIN_SSTHRESH, restart_window};
use crate::recovery::time::Instant;

/// The state of Reno.
#[derive(Debug)]
pub(super) struct Reno {
    mss: u64,
    window: u64,
    ssthresh: u64,
    /// Bytes delivered towards the next segment of growth (RFC 3465).
    credit: u64,
    /// Window and ssthresh before the last reduction, in bytes.
    prior: (u64, u64),
}

impl Reno {
    pub(crate) fn new(mss: u64, initial: u32) -> Self {
        let window = u64::from(initial) * mss;
        Reno { mss, window, ssthresh: u64::MAX, credit: 0, prior: (window, u64::MAX) }
    }
}

impl CongestionControl for Reno {
    fn on_ack(&mut self, sample: &AckSample) {
        if sample.in_recovery || !sample.may_grow {
            return;
        }
        if self.window < self.ssthresh {
            self.window += sample.delivered;
            return;
        }
        self.credit += sample.delivered;
        if self.credit >= self.window {
            self.credit -= self.window;
            self.window += self.mss;
        }
    }

    fn on_congestion(&mut self, _now: Instant, _in_flight: u64) {
        self.prior = (self.window, self.ssthresh);
        self.ssthresh = (self.window / 2).max(MIN_SSTHRESH * self.mss);
        self.window = self.ssthresh;
        self.credit = 0;
    }

    fn on_timeout(&mut self, now: Instant, in_flight: u64, first: bool) {
        if first {
            self.on_congestion(now, in_flight);
        }
        self.window = self.mss;
    }

    fn on_recovery_end(&mut self, _now: Instant) {}

    fn on_spurious(&mut self, _now: Instant) {
        self.window = self.window.max(self.prior.0);
        self.ssthresh = self.ssthresh.max(self.prior.1);
    }

    fn on_restart(&mut self, _now: Instant, _idle: Duration, timeouts: u32) {
        self.credit = 0;
        if timeouts > 0 {
            self.ssthresh = self.ssthresh.max(self.window / 4 * 3);
            self.window = restart_window(self.window, self.mss, timeouts);
        }
    }

    fn set_mss(&mut self, mss: u64) {
        self.window = (u128::from(self.window) * u128::from(mss) / u128::from(self.mss.max(1))) as u64;
        self.mss = mss;
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn ssthresh(&self) -> u64 {
        self.ssthresh
    }

    fn pacing_rate(&self) -> Option<u64> {
        None
    }
}
