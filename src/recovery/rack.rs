//! Time-based loss detection (RACK, RFC 8985, section 6).
//!
//! A segment is lost if it left sufficiently long before another segment that has arrived. The
//! reordering window is that time, and adapts: zero before reordering is seen, then a quarter of
//! the minimum RTT, more with each round in which a D-SACK reports a needless retransmission.
use std::time::Duration;

use super::{scoreboard::Record, time::Instant};

/// Recoveries without D-SACK before the window shrinks back (RFC 8985, section 6.2, step 4).
const PERSIST: u32 = 16;
/// Maximum multiplier of the window, as in Linux; the window never exceeds SRTT anyway.
const MAX_MULTIPLIER: u32 = 255;
/// RFC 5681's duplicate-ACK threshold, in segments.
const DUP_THRESH: u64 = 3;

/// The state of RACK.
#[derive(Debug)]
pub(super) struct Rack {
    /// Send time and end of the delivered record that was sent last.
    newest: Option<(Instant, u64)>,
    /// The round-trip time of that record.
    rtt: Duration,
    /// The last-sent of the retransmissions delivered since the last call of [`Rack::weigh`].
    claim: Option<Claim>,
    reordering_seen: bool,
    multiplier: u32,
    persist: u32,
    dsack_round: Option<u64>,
}

/// The transmission of a record that an ACK confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transmission {
    /// An earlier transmission than the last.
    Earlier,
    /// The last transmission.
    Last,
    /// The ACK does not tell.
    Unknown,
}

/// A delivery that may be of an earlier transmission.
#[derive(Clone, Copy, Debug)]
struct Claim {
    order: (Instant, u64),
    rtt: Duration,
    /// SND.NXT at the last transmission.
    nxt: u64,
}

/// The inputs of the reordering window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub min_rtt: Duration,
    pub smoothed: Duration,
    pub in_recovery: bool,
    pub sacked: u64,
    pub mss: u64,
}

impl Default for Rack {
    fn default() -> Self {
        Rack {
            newest: None,
            rtt: Duration::ZERO,
            claim: None,
            reordering_seen: false,
            multiplier: 1,
            persist: 0,
            dsack_round: None,
        }
    }
}

impl Rack {
    /// Processes the delivery of `record` (steps 2 and 3). Returns whether it arrived after a
    /// record sent later.
    pub(crate) fn on_delivered(
        &mut self,
        now: Instant,
        record: &Record,
        highest: u64,
        min_rtt: Option<Duration>,
        transmission: Transmission,
    ) -> bool {
        let (order, rtt) = (record.order(), now.since(record.sent));
        if !record.retransmitted {
            self.note_newest(order, rtt);
            let reordered = record.end < highest;
            self.reordering_seen |= reordered;
            return reordered;
        }
        // An ACK faster than the path belongs to an earlier transmission.
        let too_early = min_rtt.is_some_and(|min_rtt| rtt < min_rtt);
        match transmission {
            Transmission::Last if !too_early => self.note_newest(order, rtt),
            Transmission::Unknown if !too_early && self.claim.is_none_or(|claim| order > claim.order) => {
                self.claim = Some(Claim { order, rtt, nxt: record.nxt });
            }
            _ => {}
        }
        false
    }

    fn note_newest(&mut self, order: (Instant, u64), rtt: Duration) {
        if self.newest.is_none_or(|newest| order > newest) {
            self.newest = Some(order);
            self.rtt = rtt;
        }
    }

    /// Decides which transmission a retransmitted record's delivery confirms. New data sent before
    /// the last retransmission should have been reported, too. If no data from offset `unreported`
    /// on was, the delivery is more likely that of an earlier transmission, for which SACK had no
    /// room. Counted as that of the last one, it would mark everything lost that was sent between
    /// the two.
    pub(crate) fn weigh(&mut self, unreported: u64, mss: u64) {
        if let Some(claim) = self.claim.take().filter(|claim| claim.nxt <= unreported + DUP_THRESH * mss) {
            self.note_newest(claim.order, claim.rtt);
        }
    }

    /// Widens the window after a D-SACK reported a needless retransmission (step 4).
    pub(crate) fn on_dsack(&mut self, una: u64, nxt: u64) {
        if self.dsack_round.is_some_and(|round| una >= round) {
            self.dsack_round = None;
        }
        if self.dsack_round.is_none() {
            self.dsack_round = Some(nxt);
            self.multiplier = (self.multiplier + 1).min(MAX_MULTIPLIER);
            self.persist = PERSIST;
            self.reordering_seen = true;
        }
    }

    /// Returns whether the path has reordered segments.
    pub(crate) fn has_seen_reordering(&self) -> bool {
        self.reordering_seen
    }

    /// Counts a recovery's end towards shrinking the window (step 4).
    pub(crate) fn on_recovery_end(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.multiplier = 1;
        }
    }

    /// Returns the reordering window (step 4).
    pub(crate) fn window(&self, conditions: Conditions) -> Duration {
        let Conditions { min_rtt, smoothed, in_recovery, sacked, mss } = conditions;
        if !self.reordering_seen && (in_recovery || sacked >= DUP_THRESH * mss) {
            return Duration::ZERO;
        }
        (min_rtt * self.multiplier / 4).min(smoothed)
    }

    /// Returns the time at which `record` counts as lost (step 5); `None` while nothing sent after
    /// it has arrived.
    pub(crate) fn deadline(&self, record: &Record, window: Duration) -> Option<Instant> {
        let newest = self.newest?;
        (record.order() <= newest).then(|| record.sent + self.rtt + window)
    }
}
