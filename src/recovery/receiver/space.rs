//! The receive sequence space (RFC 9293, section 3.4), in 64-bit offsets from the peer's initial
//! sequence number.
//!
//! Offset 0 is the peer's SYN, data begins at 1, a FIN counts one, as in the send space.
use crate::segment::SeqNumber;

/// Returns whether a segment is acceptable (RFC 9293, section 3.10.7.4, first check). The segment
/// of `len` sequence numbers begins `start` after RCV.NXT; the receive window is `window` bytes.
pub(crate) fn is_acceptable(start: i64, len: u64, window: u64) -> bool {
    let admitted = |number: i64| number >= 0 && number.unsigned_abs() < window;
    match (len, window) {
        (0, 0) => start == 0,
        (0, _) => admitted(start),
        (_, 0) => false,
        _ => admitted(start) || admitted(start.saturating_add_unsigned(len - 1)),
    }
}

/// The receive sequence space of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReceiveSpace {
    irs: SeqNumber,
    /// RCV.NXT; 0 before the peer's SYN arrives.
    pub nxt: u64,
    /// The offset of the peer's FIN, once it has arrived, in order or not.
    pub fin: Option<u64>,
}

impl ReceiveSpace {
    pub(crate) fn new(irs: SeqNumber) -> Self {
        ReceiveSpace { irs, nxt: 1, fin: None }
    }

    /// Returns whether the peer's SYN has arrived.
    pub(crate) fn is_synchronized(&self) -> bool {
        self.nxt > 0
    }

    /// Returns the sequence number of `offset`.
    pub(crate) fn seq(&self, offset: u64) -> SeqNumber {
        self.irs + offset as u32
    }

    /// Returns the distance from RCV.NXT to `seq`.
    pub(crate) fn distance(&self, seq: SeqNumber) -> i64 {
        i64::from(seq.distance_from(self.seq(self.nxt)))
    }

    /// Returns whether the FIN has arrived in order.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.nxt > fin)
    }

    /// Returns the end of the data in order.
    pub(crate) fn data_end(&self) -> u64 {
        self.fin.unwrap_or(self.nxt).min(self.nxt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9293, section 3.10.7.4: the four cases, and the numbers at each edge.
    #[test]
    fn the_four_cases_of_acceptability() {
        for (len, window, acceptable, not) in [
            (0, 0, &[0][..], &[-1, 1][..]),
            (0, 10, &[0, 1, 9], &[-1, 10, 11]),
            (5, 0, &[], &[-5, -1, 0, 1]),
            (5, 10, &[-4, -1, 0, 9], &[-5, -6, 10, 11]),
            (1, 10, &[0, 9], &[-1, 10]),
        ] {
            for start in acceptable {
                assert!(is_acceptable(*start, len, window), "{start} {len} {window}");
            }
            for start in not {
                assert!(!is_acceptable(*start, len, window), "{start} {len} {window}");
            }
        }
    }

    #[test]
    fn distances_survive_the_wrap() {
        let mut space = ReceiveSpace::new(SeqNumber(u32::MAX - 2));
        assert_eq!((space.distance(SeqNumber(u32::MAX - 2)), space.distance(SeqNumber(7))), (-1, 9));
        space.nxt = (5 << 32) + 3;
        assert_eq!((space.distance(space.seq(5 << 32)), space.distance(SeqNumber(10))), (-3, 10));
    }

    #[test]
    fn a_fin_is_no_data() {
        let mut space = ReceiveSpace { fin: Some(11), nxt: 5, ..ReceiveSpace::new(SeqNumber(0)) };
        assert_eq!((space.is_finished(), space.data_end()), (false, 5));
        space.nxt = 12;
        assert_eq!((space.is_finished(), space.data_end()), (true, 11));
    }
}
