//! Proportional rate reduction (RFC 9937): the amount to send during a fast recovery.
//!
//! The sender sends in proportion to what the network delivers, so that the window is at ssthresh
//! when the recovery ends. Below ssthresh, the amount grows up to slow start's pace while ACKs
//! report no further loss.

/// The amounts of one recovery.
#[derive(Debug)]
pub(super) struct Prr {
    /// Bytes outstanding when the recovery began (RecoverFS).
    flight_size: u64,
    delivered: u64,
    sent: u64,
    allowance: u64,
}

impl Prr {
    /// Starts a recovery with `flight_size` bytes outstanding. The fast retransmit may send
    /// `allowance` bytes at once.
    pub(crate) fn new(flight_size: u64, allowance: u64) -> Self {
        Prr { flight_size: flight_size.max(1), delivered: 0, sent: 0, allowance }
    }

    /// Processes an ACK that delivered `bytes`; it is `safe` if it advanced SND.UNA and reported no
    /// further loss.
    pub(crate) fn on_ack(&mut self, bytes: u64, in_flight: u64, ssthresh: u64, mss: u64, safe: bool) {
        self.delivered += bytes;
        self.allowance = if in_flight > ssthresh {
            let share = u128::from(self.delivered) * u128::from(ssthresh);
            let target = share.div_ceil(u128::from(self.flight_size));
            u64::try_from(target).unwrap_or(u64::MAX).saturating_sub(self.sent)
        } else {
            let conservation = self.delivered.saturating_sub(self.sent).max(bytes);
            let growth = if safe { mss } else { 0 };
            (conservation + growth).min(ssthresh - in_flight)
        };
        // The fast retransmit itself must never wait (RFC 9937, section 6.2).
        if self.sent == 0 {
            self.allowance = self.allowance.max(mss);
        }
    }

    /// Records that `bytes` were sent.
    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
    }

    /// Returns the bytes that may be sent before the next ACK.
    pub(crate) fn allowance(&self) -> u64 {
        self.allowance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1000;

    #[test]
    fn it_sends_in_proportion_while_above_ssthresh() {
        // RFC 9937, section 6: 100 segments outstanding, ssthresh 70: seven sent for ten delivered.
        let mut prr = Prr::new(100 * MSS, MSS);
        prr.on_sent(MSS);
        let mut sent = 1;
        for delivered in 1..=20u64 {
            prr.on_ack(MSS, 99 * MSS - delivered * MSS + sent * MSS, 70 * MSS, MSS, false);
            while prr.allowance() >= MSS {
                prr.on_sent(MSS);
                sent += 1;
            }
            assert!(sent.abs_diff(delivered * 7 / 10) <= 1, "{sent} sent, {delivered} delivered");
        }
    }

    #[test]
    fn below_ssthresh_it_conserves_packets_or_grows_when_safe() {
        let mut prr = Prr::new(100 * MSS, MSS);
        prr.on_sent(MSS);
        prr.on_ack(10 * MSS, 20 * MSS, 70 * MSS, MSS, false);
        assert_eq!(prr.allowance(), 10 * MSS, "not safe: one for one");
        prr.on_sent(10 * MSS);
        prr.on_ack(MSS, 20 * MSS, 70 * MSS, MSS, true);
        assert_eq!(prr.allowance(), 2 * MSS, "safe: one more");
    }

    #[test]
    fn the_fast_retransmit_is_never_withheld() {
        let mut prr = Prr::new(100 * MSS, 0);
        prr.on_ack(0, 70 * MSS, 70 * MSS, MSS, false);
        assert_eq!(prr.allowance(), MSS);
    }
}
