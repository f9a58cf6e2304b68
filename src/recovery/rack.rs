//! Time-based loss detection (RACK, RFC 8985 section 6).
//!
//! What was sent sufficiently long before something that has arrived is lost. How long is sufficient, the
//! reordering window, adapts: nothing until reordering is seen, then a quarter of the minimum RTT, more with each
//! round in which D-SACK tells that a retransmission was needless.
use std::time::Duration;

use super::{scoreboard::Record, time::Instant};

/// RFC 8985, section 6.2, step 4: recoveries without D-SACK until the window shrinks back.
const PERSIST: u32 = 16;
/// A bound to the growth, Linux's; the window never exceeds SRTT anyway.
const MAX_MULTIPLIER: u32 = 255;
/// RFC 5681's duplicate-ACK threshold, in segments.
const DUP_THRESH: u64 = 3;

#[derive(Debug)]
pub(super) struct Rack {
    /// When the most recently sent of the delivered records was sent, and its end.
    newest: Option<(Instant, u64)>,
    /// Its round-trip time.
    rtt: Duration,
    /// Of what was sent again and delivered since it was last weighed, the most recently sent.
    claim: Option<Claim>,
    reordering_seen: bool,
    multiplier: u32,
    persist: u32,
    dsack_round: Option<u64>,
}

/// Which of a record's transmissions has arrived, as far as the ACK tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transmission {
    Earlier,
    Last,
    Unknown,
}

/// A delivery that may be of an earlier transmission.
#[derive(Clone, Copy, Debug)]
struct Claim {
    order: (Instant, u64),
    rtt: Duration,
    /// SND.NXT when it was sent last.
    nxt: u64,
}

/// What the reordering window depends on.
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
    /// Steps 2 and 3: `record` was delivered. Returns whether it came later than something sent after it.
    pub fn on_delivered(
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

    /// Weighs what was sent again: new data that had left before it should have been heard of, too. If from offset
    /// `unheard` on none was, the delivery is more likely that of an earlier transmission, of which SACK had no room
    /// to tell. Taken for the last one, it would make lost all that was sent between the two.
    pub fn weigh(&mut self, unheard: u64, mss: u64) {
        if let Some(claim) = self.claim.take().filter(|claim| claim.nxt <= unheard + DUP_THRESH * mss) {
            self.note_newest(claim.order, claim.rtt);
        }
    }

    /// Step 4: D-SACK reported a needless retransmission.
    pub fn on_dsack(&mut self, una: u64, nxt: u64) {
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

    pub fn has_seen_reordering(&self) -> bool {
        self.reordering_seen
    }

    /// Step 4: a recovery ended.
    pub fn on_recovery_end(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.multiplier = 1;
        }
    }

    /// Step 4: the reordering window.
    pub fn window(&self, conditions: Conditions) -> Duration {
        let Conditions { min_rtt, smoothed, in_recovery, sacked, mss } = conditions;
        if !self.reordering_seen && (in_recovery || sacked >= DUP_THRESH * mss) {
            return Duration::ZERO;
        }
        (min_rtt * self.multiplier / 4).min(smoothed)
    }

    /// Step 5: when `record` counts as lost; `None` while nothing sent after it has arrived.
    pub fn deadline(&self, record: &Record, window: Duration) -> Option<Instant> {
        let newest = self.newest?;
        (record.order() <= newest).then(|| record.sent + self.rtt + window)
    }
}
