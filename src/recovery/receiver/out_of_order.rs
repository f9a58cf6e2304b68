//! The bytes out of order (Linux's out_of_order_queue). Each segment has a piece of its own, so
//! pieces cost only their length, however far apart they are.
use std::collections::BTreeMap;

/// Overhead of a piece, in bytes: its entries in the maps here and in [`super::Reassembly`], and
/// the allocator's rounding.
pub(super) const PIECE_COST: u64 = 128;

/// Pieces of the stream by their offsets, without overlap.
#[derive(Debug, Default)]
pub(super) struct OutOfOrder {
    pieces: BTreeMap<u64, Box<[u8]>>,
    bytes: u64,
}

impl OutOfOrder {
    /// Returns the number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Returns the memory that the pieces occupy, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        self.bytes + self.pieces.len() as u64 * PIECE_COST
    }

    /// Returns the offset of the last piece.
    pub(crate) fn last(&self) -> Option<u64> {
        self.pieces.last_key_value().map(|(start, _)| *start)
    }

    /// Keeps `bytes` at offset `start`. Replaces pieces that they cover; of an overlap, the older
    /// piece stays (as in net/ipv4/tcp_input.c, tcp_data_queue_ofo()). So a segment adds at most
    /// one piece, even if it fills several holes.
    pub(crate) fn insert(&mut self, start: u64, bytes: &[u8]) {
        let (mut from, mut to) = (start, start + bytes.len() as u64);
        if let Some((at, before)) = self.pieces.range(..=start).next_back() {
            from = from.max(at + before.len() as u64);
        }
        if from >= to {
            return;
        }
        while let Some((&at, other)) = self.pieces.range(from..to).next() {
            if at + other.len() as u64 > to {
                to = at;
            } else {
                self.remove(at);
            }
        }
        let piece = bytes.get((from - start) as usize..(to - start) as usize).unwrap_or_default();
        if !piece.is_empty() {
            self.bytes += piece.len() as u64;
            self.pieces.insert(from, piece.into());
        }
    }

    /// Removes and returns the first piece, if it begins at or before `next`.
    pub(crate) fn pop(&mut self, next: u64) -> Option<(u64, Box<[u8]>)> {
        let start = self.pieces.first_key_value().map(|(start, _)| *start).filter(|start| *start <= next)?;
        self.remove(start).map(|piece| (start, piece))
    }

    /// Drops the last piece and returns its offset.
    pub(crate) fn drop_last(&mut self) -> Option<u64> {
        let start = self.last()?;
        self.remove(start).map(|_| start)
    }

    fn remove(&mut self, start: u64) -> Option<Box<[u8]>> {
        let piece = self.pieces.remove(&start)?;
        self.bytes -= piece.len() as u64;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_segment_makes_one_piece_at_most() {
        let mut queue = OutOfOrder::default();
        for start in [10, 20, 30, 40] {
            queue.insert(start, b"ab");
        }
        assert_eq!(queue.cost(), 8 + 4 * PIECE_COST);
        queue.insert(11, &[b'c'; 30]);
        let pieces: Vec<_> = queue.pieces.iter().map(|(start, piece)| (*start, piece.len())).collect();
        assert_eq!(pieces, [(10, 2), (12, 28), (40, 2)]);
        queue.insert(10, &[b'd'; 32]);
        assert_eq!((queue.len(), queue.cost()), (2, 32 + 2 * PIECE_COST), "what it covers goes");
        queue.insert(10, b"xx");
        assert_eq!((queue.drop_last(), queue.last()), (Some(12), Some(10)));
        assert_eq!((queue.pop(9), queue.pop(10)), (None, Some((10, b"ab"[..].into()))));
    }

    proptest! {
        #[test]
        fn what_came_is_there_once(pieces in prop::collection::vec((1u64..200, 1usize..30), 1..60)) {
            let mut queue = OutOfOrder::default();
            let mut came = [false; 240];
            for (start, len) in &pieces {
                let bytes: Vec<u8> = (0..*len).map(|n| (*start as usize + n) as u8).collect();
                queue.insert(*start, &bytes);
                came[*start as usize..*start as usize + len].fill(true);
                let held: u64 = queue.pieces.values().map(|piece| piece.len() as u64).sum();
                prop_assert_eq!(queue.cost(), held + queue.len() as u64 * PIECE_COST);
            }
            prop_assert!(queue.len() <= pieces.len());
            while let Some((start, piece)) = queue.pop(u64::MAX) {
                for (n, byte) in piece.iter().enumerate() {
                    let at = start as usize + n;
                    prop_assert_eq!(*byte, at as u8);
                    prop_assert!(std::mem::take(&mut came[at]), "twice, or never sent");
                }
            }
            prop_assert!(came.iter().all(|missing| !missing));
        }
    }
}
