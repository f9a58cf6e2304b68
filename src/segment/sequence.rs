//! Sequence numbers (RFC 9293, section 3.4): 32 bits that wrap.
use std::ops::{Add, Sub};

/// A sequence number. The space is circular: a number lies before or after another one by less than
/// half of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// Returns the distance from `other` to this number; negative if this number lies before
    /// `other`.
    pub(crate) fn distance_from(self, other: SeqNumber) -> i32 {
        serial_distance(self.0, other.0)
    }

    /// Returns whether this number lies after `other`.
    pub(crate) fn is_after(self, other: SeqNumber) -> bool {
        self.distance_from(other) > 0
    }

    /// Returns whether this number lies before `other`.
    pub(crate) fn is_before(self, other: SeqNumber) -> bool {
        self.distance_from(other) < 0
    }
}

impl Add<u32> for SeqNumber {
    type Output = SeqNumber;

    fn add(self, len: u32) -> SeqNumber {
        SeqNumber(self.0.wrapping_add(len))
    }
}

impl Sub<u32> for SeqNumber {
    type Output = SeqNumber;

    fn sub(self, len: u32) -> SeqNumber {
        SeqNumber(self.0.wrapping_sub(len))
    }
}

/// Returns the distance from `b` to `a` modulo 2^32, negative if `a` lies before `b`. Sequence
/// numbers (RFC 9293, section 3.4) and timestamps (RFC 7323, section 3) compare this way.
pub(crate) fn serial_distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_wrap() {
        let last = SeqNumber(u32::MAX);
        assert_eq!((last + 2, SeqNumber(1) - 2), (SeqNumber(1), last));
        assert!(SeqNumber(1).is_after(last) && last.is_before(SeqNumber(1)));
        assert!(!last.is_after(last) && !last.is_before(last));
        assert_eq!(SeqNumber(3).distance_from(SeqNumber(u32::MAX - 1)), 5);
    }

    proptest! {
        #[test]
        fn what_is_added_is_the_distance(start: u32, len in 0..=i32::MAX as u32) {
            let start = SeqNumber(start);
            prop_assert_eq!((start + len).distance_from(start), len as i32);
            prop_assert_eq!((start + len) - len, start);
        }
    }
}
