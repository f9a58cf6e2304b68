//! Delivery-rate samples (draft-cheng-iccrg-delivery-rate-estimation; Linux's tcp_rate.c).
//!
//! Each record remembers how much had been delivered when it was sent. When it is delivered itself, the
//! difference over the longer of the sending and the acknowledging time is a sample of the path's bandwidth that
//! neither bursts nor compressed ACKs inflate.
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
    /// Bytes a second; zero where the sample says nothing.
    pub rate: u64,
    /// The application, not the network, set this rate.
    pub application_limited: bool,
    /// [`RateEstimator::delivered`] when the newest delivered record was sent: it counts round trips.
    pub prior_delivered: u64,
}

#[derive(Debug, Default)]
pub(super) struct RateEstimator {
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    /// Until this much is delivered, samples are limited by the application; zero if none is.
    limited_until: u64,
    /// The most recently sent of the records that this batch of ACKs delivered.
    newest: Option<(Snapshot, Instant)>,
}

impl RateEstimator {
    /// Bytes delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// A flight begins: time before it must not count.
    pub fn start(&mut self, now: Instant) {
        self.delivered_at = now;
        self.first_sent = now;
    }

    /// What a record sent now has to remember.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            application_limited: self.limited_until > 0,
        }
    }

    /// There is room in the window and nothing to send.
    pub fn application_limited(&mut self, in_flight: u64) {
        self.limited_until = (self.delivered + in_flight).max(1);
    }

    pub fn on_delivered(&mut self, now: Instant, record: &Record) {
        self.delivered += record.len();
        self.delivered_at = now;
        let candidate = (record.snapshot.delivered, record.sent);
        if self.newest.is_none_or(|(newest, sent)| candidate >= (newest.delivered, sent)) {
            self.newest = Some((record.snapshot, record.sent));
        }
    }

    /// The sample that a batch of ACKs gives, if it delivered anything.
    pub fn sample(&mut self, min_rtt: Option<Duration>) -> Option<RateSample> {
        if self.limited_until > 0 && self.delivered > self.limited_until {
            self.limited_until = 0;
        }
        let (snapshot, sent) = self.newest.take()?;
        let sending = sent.since(snapshot.first_sent);
        let acknowledging = self.delivered_at.since(snapshot.delivered_at);
        let interval = sending.max(acknowledging);
        self.first_sent = self.first_sent.max(sent);
        // A time below the minimum RTT can't be right (section 3.3 of the draft).
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
