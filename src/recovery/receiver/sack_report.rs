//! The SACK blocks of our ACKs (RFC 2018; RFC 2883).
//!
//! If an ACK reported only the run of the last segment and were lost, the peer would retransmit
//! data that arrived long ago. So later ACKs repeat earlier blocks. They also report duplicates,
//! from which the peer learns that a retransmission was needless.
//!
//! A D-SACK block (RFC 2883) is the contiguous part of a segment that had arrived before, either
//! below the acknowledgment or among the data out of order. An ACK has room for one. Of several
//! such parts in a segment, the first is reported (section 4.2). A super-frame is many segments,
//! and each part has an ACK of its own.
use crate::segment::{MAX_SACK_BLOCKS, SackBlocks, SeqNumber};
use arrayvec::ArrayVec;

/// Maximum duplicate parts of one frame that are reported.
const MAX_DUPLICATES: usize = 4;

/// Blocks of sequence numbers, the most recent first.
#[derive(Debug, Default)]
pub(super) struct SackReport {
    blocks: [Option<(SeqNumber, SeqNumber)>; MAX_SACK_BLOCKS],
    duplicates: ArrayVec<(SeqNumber, SeqNumber), MAX_DUPLICATES>,
}

impl SackReport {
    /// Records a duplicate from `left` to `right`, in stream order.
    pub(crate) fn on_duplicate(&mut self, left: SeqNumber, right: SeqNumber) {
        // A duplicate beyond the capacity is not reported.
        let _ = self.duplicates.try_push((left, right));
    }

    /// Drops all duplicates but the first.
    pub(crate) fn keep_first(&mut self) {
        self.duplicates.truncate(1);
    }

    /// Returns whether duplicates wait to be reported.
    pub(crate) fn has_duplicate(&self) -> bool {
        !self.duplicates.is_empty()
    }

    /// Returns the blocks for an ACK of `ack`, where `news` is the run that has just changed: a
    /// duplicate first (RFC 2883, section 4), then the run around it or else the newest, then the
    /// older ones (RFC 2018, section 4).
    pub(crate) fn on_ack(&mut self, ack: SeqNumber, news: &SackBlocks) -> SackBlocks {
        for (left, right) in news.iter() {
            let apart =
                |&(start, end): &(SeqNumber, SeqNumber)| end.is_before(left) || right.is_before(start);
            let older = self.blocks.into_iter().flatten().filter(apart);
            let mut blocks = std::iter::once((left, right)).chain(older);
            self.blocks = std::array::from_fn(|_| blocks.next());
        }
        let mut report = SackBlocks::default();
        if let Some((left, right)) = self.duplicates.pop_at(0) {
            report.push(left, right);
        }
        for block in &mut self.blocks {
            *block = block.filter(|(left, _)| ack.is_before(*left));
            if let Some((left, right)) = *block {
                report.push(left, right);
            }
        }
        report
    }

    /// Removes blocks from `end` on, whose data was dropped: RFC 2018, section 8, forbids reporting
    /// it again.
    pub(crate) fn truncate(&mut self, end: SeqNumber) {
        for block in &mut self.blocks {
            *block = block.filter(|(left, _)| left.is_before(end)).map(|(left, right)| {
                let right = if end.is_before(right) { end } else { right };
                (left, right)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(pairs: &[(u32, u32)]) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        pairs.iter().for_each(|(left, right)| blocks.push(SeqNumber(*left), SeqNumber(*right)));
        blocks
    }

    #[test]
    fn earlier_blocks_are_repeated_until_they_are_acknowledged() {
        let mut report = SackReport::default();
        assert_eq!(report.on_ack(SeqNumber(0), &blocks(&[(10, 20)])), blocks(&[(10, 20)]));
        assert_eq!(report.on_ack(SeqNumber(0), &blocks(&[(30, 40)])), blocks(&[(30, 40), (10, 20)]));
        assert_eq!(
            report.on_ack(SeqNumber(0), &blocks(&[(10, 25)])),
            blocks(&[(10, 25), (30, 40)]),
            "it has grown"
        );
        assert_eq!(report.on_ack(SeqNumber(0), &blocks(&[(10, 40)])), blocks(&[(10, 40)]), "they have met");
        assert_eq!(report.on_ack(SeqNumber(40), &blocks(&[])), blocks(&[]));
        assert_eq!(
            report.on_ack(SeqNumber(0), &blocks(&[])),
            blocks(&[]),
            "what was acknowledged is forgotten"
        );
    }

    #[test]
    fn duplicates_are_reported_once_each_and_first() {
        let mut report = SackReport::default();
        report.on_duplicate(SeqNumber(5), SeqNumber(9));
        assert_eq!(report.on_ack(SeqNumber(9), &blocks(&[(20, 30)])), blocks(&[(5, 9), (20, 30)]));
        report.on_duplicate(SeqNumber(22), SeqNumber(25));
        assert_eq!(report.on_ack(SeqNumber(9), &blocks(&[])), blocks(&[(22, 25), (20, 30)]));
        assert_eq!(report.on_ack(SeqNumber(9), &blocks(&[])), blocks(&[(20, 30)]));
        report.on_duplicate(SeqNumber(5), SeqNumber(9));
        report.on_duplicate(SeqNumber(20), SeqNumber(22));
        assert_eq!(report.on_ack(SeqNumber(9), &blocks(&[])), blocks(&[(5, 9), (20, 30)]));
        assert_eq!(report.on_ack(SeqNumber(9), &blocks(&[])), blocks(&[(20, 22), (20, 30)]));
        assert!(!report.has_duplicate());
    }

    #[test]
    fn what_was_dropped_is_not_reported_again() {
        let mut report = SackReport::default();
        report.on_ack(SeqNumber(0), &blocks(&[(10, 20)]));
        report.on_ack(SeqNumber(0), &blocks(&[(30, 40)]));
        report.truncate(SeqNumber(35));
        assert_eq!(report.on_ack(SeqNumber(0), &blocks(&[])), blocks(&[(30, 35), (10, 20)]));
        report.truncate(SeqNumber(30));
        assert_eq!(report.on_ack(SeqNumber(0), &blocks(&[])), blocks(&[(10, 20)]));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut report = SackReport::default();
        let top = u32::MAX - 4;
        assert_eq!(report.on_ack(SeqNumber(top - 10), &blocks(&[(top, 5)])), blocks(&[(top, 5)]));
        assert_eq!(report.on_ack(SeqNumber(top - 10), &blocks(&[(9, 12)])), blocks(&[(9, 12), (top, 5)]));
        assert_eq!(report.on_ack(SeqNumber(6), &blocks(&[])), blocks(&[(9, 12)]));
    }
}
