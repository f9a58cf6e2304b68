//! Delivery-rate samples (draft-cheng-iccrg-delivery-rate-estimation; Linux's tcp_rate.c).
//!
//! Each record stores the amount delivered at its departure. On its own delivery, the difference
//! over the longer of the sending and the acknowledging time is a sample of the path's bandwidth.
//! Neither bursts nor compressed ACKs inflate the sample.
use std::time::Duration;

use super::{
    scoreboard::Record,
    time::{Instant, bytes_per_second},
};

/// The state of the connection when a record was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Snapshot {
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    application_limited: bool,
}

/// One sample of the delivery rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateSample {
    /// The rate, in bytes a second; zero if the sample is unusable.
    pub rate: u64,
    /// The application, not the network, limited this rate.
    pub application_limited: bool,
    /// [`RateEstimator::delivered`] at the departure of the newest delivered record; it counts
    /// round trips.
    pub prior_delivered: u64,
}

/// The estimator of the delivery rate.
#[derive(Debug, Default)]
pub(super) struct RateEstimator {
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    /// The amount delivered at which samples stop being limited by the application; zero if none
    /// is.
    limited_until: u64,
    /// The last-sent of the records that this batch of ACKs delivered.
    newest: Option<(Snapshot, Instant)>,
}

impl RateEstimator {
    /// Returns the bytes delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Starts a flight: the idle time before must not count.
    pub(crate) fn start(&mut self, now: Instant) {
        self.delivered_at = now;
        self.first_sent = now;
    }

    /// Returns the snapshot that a record sent now must store.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            application_limited: self.limited_until > 0,
        }
    }

    /// Notes that the window has room and there is nothing to send.
    pub(crate) fn application_limited(&mut self, in_flight: u64) {
        self.limited_until = (self.delivered + in_flight).max(1);
    }

    /// Adds a delivered record to the sample of this batch.
    pub(crate) fn on_delivered(&mut self, now: Instant, record: &Record) {
        self.delivered += record.len();
        self.delivered_at = now;
        let candidate = (record.snapshot.delivered, record.sent);
        if self.newest.is_none_or(|(newest, sent)| candidate >= (newest.delivered, sent)) {
            self.newest = Some((record.snapshot, record.sent));
        }
    }

    /// Returns the sample of a batch of ACKs, if the batch delivered anything.
    pub(crate) fn sample(&mut self, min_rtt: Option<Duration>) -> Option<RateSample> {
        if self.limited_until > 0 && self.delivered > self.limited_until {
            self.limited_until = 0;
        }
        let (snapshot, sent) = self.newest.take()?;
        let sending = sent.since(snapshot.first_sent);
        let acknowledging = self.delivered_at.since(snapshot.delivered_at);
        let interval = sending.max(acknowledging);
        self.first_sent = self.first_sent.max(sent);
        // A time below the minimum RTT is implausible (section 3.3 of the draft).
        let plausible = min_rtt.is_none_or(|min_rtt| interval >= min_rtt);
        let delivered = self.delivered - snapshot.delivered;
        let rate = if plausible { bytes_per_second(delivered, interval) } else { 0 };
        Some(RateSample {
            rate,
            application_limited: snapshot.application_limited,
            prior_delivered: snapshot.delivered,
        })
    }
}
