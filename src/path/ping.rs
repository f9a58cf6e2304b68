//! Pings of a target: what became of each, and their sums.
use super::{Reached, RoundTrips};
use crate::stack::icmp::Reason;
use std::{net::IpAddr, time::Duration};

/// The result of a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pinged {
    /// The far end answered.
    Reached(Reached),
    /// A router or firewall answered by an ICMP error.
    Rejected { reason: Reason, from: IpAddr },
    /// No answer came in time.
    Silent,
    /// This host's own egress dropped the packet.
    EgressDropped,
    /// The kernel's own system call failed, with this message.
    Failed(&'static str),
}

impl Pinged {
    /// Returns whether the port is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Pinged::Reached(Reached::SynAck | Reached::Acknowledged | Reached::Datagram))
    }

    /// Returns whether an answer came, of whomever.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Pinged::Reached(_) | Pinged::Rejected { .. })
    }
}

/// The pings of a target by one path.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Packets sent, or connections begun.
    pub sent: u64,
    pub open: u64,
    /// Resets, and port unreachables.
    pub refused: u64,
    pub rejected: u64,
    pub silent: u64,
    pub egress_dropped: u64,
    pub failed: u64,
    /// Answers that came after the wait; their pings count as silent.
    pub late: u64,
    /// Further answers to one ping.
    pub duplicates: u64,
    pub round_trips: RoundTrips,
    /// The last result that was no silence.
    pub last: Option<Pinged>,
}

impl Tally {
    /// Returns a tally of no pings, which keeps at most `limit` round trips.
    pub(crate) fn new(limit: usize) -> Tally {
        Tally {
            sent: 0,
            open: 0,
            refused: 0,
            rejected: 0,
            silent: 0,
            egress_dropped: 0,
            failed: 0,
            late: 0,
            duplicates: 0,
            round_trips: RoundTrips::new(limit),
            last: None,
        }
    }

    /// Counts a result.
    pub(crate) fn note(&mut self, pinged: &Pinged, round_trip: Option<Duration>) {
        let count = match pinged {
            pinged if pinged.is_open() => &mut self.open,
            Pinged::Reached(_) => &mut self.refused,
            Pinged::Rejected { .. } => &mut self.rejected,
            Pinged::Silent => &mut self.silent,
            Pinged::EgressDropped => &mut self.egress_dropped,
            Pinged::Failed(_) => &mut self.failed,
        };
        *count += 1;
        if *pinged != Pinged::Silent {
            self.last = Some(pinged.clone());
        }
        if let Some(time) = round_trip.filter(|_| pinged.is_answer()) {
            self.round_trips.add(time);
        }
    }

    /// Returns the number of pings that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.open + self.refused + self.rejected
    }

    /// Returns the number of pings that were not answered in time.
    pub(crate) fn lost(&self) -> u64 {
        self.silent + self.egress_dropped + self.failed
    }

    /// Returns the number of pings whose wait was not over at the end of the run.
    pub(crate) fn pending(&self) -> u64 {
        self.sent.saturating_sub(self.answered() + self.lost())
    }

    /// Returns the share of lost pings in percent, of those whose result is known.
    pub(crate) fn loss_percent(&self) -> f64 {
        match self.answered() + self.lost() {
            0 => 0.0,
            known => self.lost() as f64 * 100.0 / known as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_an_answer_and_a_pending_ping_is_no_loss() {
        let mut tally = Tally::new(10);
        tally.sent = 6;
        let ms = |ms| Some(Duration::from_millis(ms));
        let rejected = Pinged::Rejected { reason: Reason::HostUnreachable, from: [10, 0, 0, 9].into() };
        tally.note(&Pinged::Reached(Reached::SynAck), ms(1));
        tally.note(&Pinged::Reached(Reached::Reset), ms(2));
        tally.note(&rejected, ms(3));
        tally.note(&Pinged::Silent, None);
        assert_eq!((tally.answered(), tally.lost(), tally.pending()), (3, 1, 2));
        assert_eq!((tally.loss_percent(), tally.last.clone()), (25.0, Some(rejected)));
        assert_eq!(tally.round_trips.distribution().expect("round trips").max, Duration::from_millis(3));
        assert_eq!(Tally::new(1).loss_percent(), 0.0);
    }
}
