//! The runs of the stream that arrived out of order (RFC 9293, section 3.10.7.4), without their
//! bytes.
use std::collections::BTreeMap;

/// Maximum runs: a peer that leaves a hole after every byte must not exhaust memory. Beyond it, a
/// segment that would begin another run is dropped, which RFC 2018, section 8, permits.
const MAX_RUNS: usize = 16_384;

/// Disjoint runs of stream offsets, by their beginnings.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    runs: BTreeMap<u64, u64>,
}

impl Reassembly {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns the end of the last run.
    pub(crate) fn end(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, end)| *end)
    }

    /// Returns the runs within the bytes from `start` to `end`, in order.
    pub(crate) fn held(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let before = self.runs.range(..start).next_back();
        let all = before.into_iter().chain(self.runs.range(start..end.max(start)));
        let part = move |(from, to): (&u64, &u64)| (start.max(*from), end.min(*to));
        all.map(part).filter(|(from, to)| from < to)
    }

    /// Adds the bytes from `start` to `end` and returns the run that contains them now; `None` if
    /// the table of runs is full.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> Option<(u64, u64)> {
        let (mut left, mut right) = (start, end);
        // Every run that it touches, from the last one that begins in it.
        while let Some((&from, &to)) = self.runs.range(..=right).next_back()
            && to >= left
        {
            self.runs.remove(&from);
            left = left.min(from);
            right = right.max(to);
        }
        if self.runs.len() >= MAX_RUNS {
            return None;
        }
        self.runs.insert(left, right);
        Some((left, right))
    }

    /// Removes everything from `end` on.
    pub(crate) fn truncate(&mut self, end: u64) {
        while let Some(mut last) = self.runs.last_entry()
            && *last.get() > end
        {
            if *last.key() < end {
                *last.get_mut() = end;
                return;
            }
            last.remove();
        }
    }

    /// Advances the end of the in-order data from `next` over adjacent runs. Removes the runs and
    /// returns the new end.
    pub(crate) fn advance(&mut self, mut next: u64) -> u64 {
        while let Some(run) = self.runs.first_entry()
            && *run.key() <= next
        {
            next = next.max(run.remove());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_that_meet_are_one() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.insert(10, 20), Some((10, 20)));
        assert_eq!(reassembly.insert(30, 40), Some((30, 40)));
        assert_eq!(reassembly.insert(20, 25), Some((10, 25)));
        assert_eq!(reassembly.insert(24, 30), Some((10, 40)));
        assert_eq!((reassembly.advance(9), reassembly.end()), (9, Some(40)));
        assert_eq!((reassembly.advance(12), reassembly.is_empty()), (40, true));
    }

    #[test]
    fn what_is_held_is_told_run_by_run() {
        let mut reassembly = Reassembly::default();
        for (start, end) in [(10, 20), (30, 40), (50, 60)] {
            reassembly.insert(start, end);
        }
        for (asked, expected) in [
            ((0, 100), &[(10, 20), (30, 40), (50, 60)][..]),
            ((15, 55), &[(15, 20), (30, 40), (50, 55)]),
            ((20, 30), &[]),
            ((19, 31), &[(19, 20), (30, 31)]),
            ((10, 10), &[]),
            ((32, 35), &[(32, 35)]),
        ] {
            assert_eq!(reassembly.held(asked.0, asked.1).collect::<Vec<_>>(), expected, "{asked:?}");
        }
    }

    #[test]
    fn what_is_dropped_from_the_end_is_forgotten() {
        let mut reassembly = Reassembly::default();
        for start in [10, 20, 30] {
            reassembly.insert(start, start + 5);
        }
        reassembly.truncate(35);
        assert_eq!(reassembly.end(), Some(35));
        reassembly.truncate(22);
        assert_eq!((reassembly.end(), reassembly.insert(22, 30)), (Some(22), Some((20, 30))));
        reassembly.truncate(10);
        assert!(reassembly.is_empty());
    }

    #[test]
    fn there_are_never_too_many_runs() {
        let mut reassembly = Reassembly::default();
        for n in 0..MAX_RUNS as u64 {
            assert!(reassembly.insert(3 * n, 3 * n + 1).is_some());
        }
        assert_eq!(reassembly.insert(3_000_000, 3_000_001), None);
        assert_eq!(reassembly.insert(1, 3), Some((0, 4)), "what fills a hole is taken");
    }

    proptest! {
        #[test]
        fn it_knows_what_came(pieces in prop::collection::vec((1u64..200, 1u64..30), 1..40)) {
            let mut reassembly = Reassembly::default();
            let mut came = [false; 300];
            for (start, len) in pieces {
                came[start as usize..(start + len) as usize].fill(true);
                let (left, right) = reassembly.insert(start, start + len).expect("there is room");
                prop_assert!(came[left as usize..right as usize].iter().all(|byte| *byte));
                prop_assert!(!came[left as usize - 1] && !came[right as usize]);
            }
            prop_assert_eq!(reassembly.end(), came.iter().rposition(|byte| *byte).map(|last| last as u64 + 1));
            let first_gap = came.iter().skip(1).position(|byte| !byte).map_or(1, |at| at as u64 + 1);
            prop_assert_eq!(reassembly.advance(1), first_gap);
        }
    }
}
