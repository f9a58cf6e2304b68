//! The scoreboard of data in flight: one record for each run of bytes sent at one time (RFC 6675).
//!
//! A record is a super-frame, or a part of one that SACK split off. Records lie in sequence order
//! without gaps from SND.UNA to SND.NXT, so a binary search finds them. Sums (bytes in flight,
//! lost, SACKed) follow each change of state. RACK needs the order of transmission instead, which
//! two queues provide:
//!
//! - `fresh` is the offset below which no record that was sent once is undecided, since those
//!   records lie in the order of transmission already;
//! - `resent` notes every retransmission at its end, and stale notes are skipped.
//!
//! A heap holds the lost records, lowest first. So each record is visited a constant number of
//! times per transmission, and an ACK costs a binary search at most besides.
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{rate::Snapshot, time::Instant};

/// Maximum records that SACK may always create by splitting (sending creates more, at times). A
/// peer that SACKs every other byte must not exhaust memory, nor make each ACK walk through all
/// records (CVE-2019-11478 in Linux).
const MAX_CUT_RECORDS: usize = 8192;

/// The state of a run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In flight: neither acknowledged nor marked lost.
    InFlight,
    /// Marked lost, and not retransmitted yet.
    Lost,
    /// Reported by SACK.
    Sacked,
}

/// A run of bytes that was sent at one time. A FIN counts as a byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub start: u64,
    pub end: u64,
    pub state: State,
    pub retransmitted: bool,
    /// The delivery yields a round trip: the record was neither retransmitted nor ever marked lost
    /// (Karn's algorithm, and ACKs that are late because of other losses).
    pub timed: bool,
    /// The time of the last transmission.
    pub sent: Instant,
    /// SND.NXT at that time.
    pub nxt: u64,
    /// The delivery state at that time.
    pub snapshot: Snapshot,
}

impl Record {
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Returns the order of transmission, by time and then by sequence (RFC 8985, section 6.2, step
    /// 2).
    pub(crate) fn order(&self) -> (Instant, u64) {
        (self.sent, self.end)
    }
}

/// A note of a retransmission: its time and its bytes.
#[derive(Clone, Copy)]
struct Resent {
    sent: Instant,
    start: u64,
    end: u64,
}

/// Memory of a record, in bytes.
pub(super) const RECORD_COST: u64 = size_of::<Record>() as u64;
/// Minimum of records that SACK may split, and the capacity that an idle scoreboard keeps.
const LEAST_CUT_RECORDS: usize = 256;

/// The records of all data between SND.UNA and SND.NXT.
#[derive(Default)]
pub(super) struct Scoreboard {
    records: VecDeque<Record>,
    in_flight: u64,
    lost: u64,
    sacked: u64,
    /// The highest byte ever acknowledged, cumulatively or by SACK (RFC 8985's RACK.fack).
    highest_delivered: u64,
    /// Below this offset no record that was sent once is in flight.
    fresh: u64,
    resent: VecDeque<Resent>,
    /// Starts of lost records, lowest first; some may be stale.
    lost_starts: BinaryHeap<Reverse<u64>>,
    /// The blocks of the last SACK option, in order. Their content is marked already and skipped.
    settled: [(u64, u64); crate::segment::MAX_SACK_BLOCKS],
    /// Maximum records that SACK may create by splitting.
    cut_limit: usize,
}

impl Scoreboard {
    /// Returns an empty scoreboard; the first byte will be `start`.
    pub(crate) fn new(start: u64) -> Self {
        Scoreboard {
            records: VecDeque::with_capacity(LEAST_CUT_RECORDS),
            highest_delivered: start,
            fresh: start,
            cut_limit: MAX_CUT_RECORDS,
            ..Scoreboard::default()
        }
    }

    /// Returns the number of records.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Limits splitting by SACK to this many records, within fixed bounds.
    pub(crate) fn limit_cuts(&mut self, records: u64) {
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        self.cut_limit = records.clamp(LEAST_CUT_RECORDS, MAX_CUT_RECORDS);
    }

    /// Frees the memory of removed records.
    pub(crate) fn reclaim(&mut self) {
        if self.records.is_empty() {
            self.records.shrink_to(LEAST_CUT_RECORDS);
            self.resent.shrink_to(0);
            self.lost_starts.shrink_to(0);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the bytes believed to be in the network (RFC 6675's pipe).
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Returns the bytes marked lost and not retransmitted yet.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the bytes that SACK reported and the peer has not acknowledged.
    pub(crate) fn sacked(&self) -> u64 {
        self.sacked
    }

    /// Returns the offset from which on everything was sent once and no ACK reported anything.
    pub(crate) fn unreported_from(&self) -> u64 {
        self.fresh.max(self.highest_delivered)
    }

    pub(crate) fn front(&self) -> Option<&Record> {
        self.records.front()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Record> {
        self.records.get(index)
    }

    /// Adds new data as sent.
    pub(crate) fn push(&mut self, record: Record) {
        self.in_flight += record.len();
        self.records.push_back(record);
    }

    /// Removes everything below `ack`, which has arrived. Calls `delivered` for parts that were not
    /// SACKed before.
    pub(crate) fn acknowledge(&mut self, ack: u64, mut delivered: impl FnMut(&Record, u64)) {
        while let Some(front) = self.records.front_mut() {
            if front.start >= ack {
                break;
            }
            let mut part = *front;
            part.end = part.end.min(ack);
            match part.state {
                State::InFlight => self.in_flight -= part.len(),
                State::Lost => self.lost -= part.len(),
                State::Sacked => self.sacked -= part.len(),
            }
            if front.end > ack {
                front.start = ack;
                if front.state == State::Lost {
                    self.lost_starts.push(Reverse(ack));
                }
            } else {
                self.records.pop_front();
            }
            if part.state != State::Sacked {
                delivered(&part, self.highest_delivered);
            }
        }
        self.highest_delivered = self.highest_delivered.max(ack);
        self.fresh = self.fresh.max(ack);
        if self.records.is_empty() {
            self.resent.clear();
            self.lost_starts.clear();
        }
    }

    /// Marks the `blocks` of one ACK as SACKed (RFC 2018; RFC 6675, section 4). Calls `delivered`
    /// for newly SACKed parts.
    ///
    /// The blocks lie between SND.UNA and SND.NXT; full segments carry `mss` bytes. With more
    /// records than segments need, parts of records stay unmarked (RFC 2018 lets a sender ignore
    /// SACK).
    pub(crate) fn sack(
        &mut self,
        blocks: &mut [(u64, u64)],
        mss: u64,
        mut delivered: impl FnMut(&Record, u64),
    ) {
        let segments = (self.in_flight + self.lost + self.sacked) / mss.max(1);
        let most = self.cut_limit.max(2 * segments as usize);
        blocks.sort_unstable();
        let settled = std::mem::take(&mut self.settled);
        for (&(start, end), slot) in blocks.iter().zip(0..) {
            let mut at = start;
            let mut marked = true;
            for (from, to) in settled {
                if to > at && from < end {
                    marked &= self.sack_range(at, from, most, &mut delivered);
                    at = to;
                }
            }
            marked &= self.sack_range(at, end, most, &mut delivered);
            if let Some(slot) = self.settled.get_mut(slot).filter(|_| marked) {
                *slot = (start, end);
            }
        }
    }

    /// Marks the bytes from `start` to `end`, as far as this leaves no more than `most` records.
    /// Returns whether everything is marked.
    fn sack_range(
        &mut self,
        start: u64,
        end: u64,
        most: usize,
        delivered: &mut impl FnMut(&Record, u64),
    ) -> bool {
        if start >= end {
            return true;
        }
        let mut marked = true;
        let mut index = self.records.partition_point(|record| record.end <= start);
        while let Some(record) = self.records.get(index).copied().filter(|record| record.start < end) {
            let cut = record.start < start || record.end > end;
            if record.state == State::Sacked {
                index += 1;
                continue;
            }
            if cut && self.records.len() >= most {
                marked = false;
                index += 1;
                continue;
            }
            if record.start < start {
                self.split(index, start);
                index += 1;
                continue;
            }
            let mut part = record;
            part.end = part.end.min(end);
            match part.state {
                State::InFlight => self.in_flight -= part.len(),
                _ => self.lost -= part.len(),
            }
            self.sacked += part.len();
            delivered(&part, self.highest_delivered);
            self.highest_delivered = self.highest_delivered.max(part.end);
            if part.end < record.end {
                self.shift_or_split(index, part.end);
            }
            if let Some(record) = self.records.get_mut(index).filter(|record| record.end <= end) {
                record.state = State::Sacked;
            }
            index += 1;
        }
        marked
    }

    /// Gives the part of record `index` below `at` to a SACKed left neighbour, or splits it off.
    fn shift_or_split(&mut self, index: usize, at: u64) {
        let left = index.checked_sub(1).and_then(|left| self.records.get_mut(left));
        match left.filter(|left| left.state == State::Sacked) {
            Some(left) => {
                left.end = at;
                if let Some(record) = self.records.get_mut(index) {
                    record.start = at;
                    if record.state == State::Lost {
                        self.lost_starts.push(Reverse(at));
                    }
                }
            }
            None => self.split(index, at),
        }
    }

    /// Splits record `index` in two at offset `at`, which lies inside it.
    pub(crate) fn split(&mut self, index: usize, at: u64) {
        let Some(left) = self.records.get_mut(index) else { return };
        if at <= left.start || at >= left.end {
            return;
        }
        let mut right = *left;
        left.end = at;
        right.start = at;
        if right.state == State::Lost {
            self.lost_starts.push(Reverse(at));
        }
        self.records.insert(index + 1, right);
    }

    /// Marks data in flight lost, in the order of transmission, as far as `is_lost` returns true
    /// (RFC 8985, section 6.2, step 5). Returns the bytes marked, and the first record not lost.
    pub(crate) fn detect_losses(&mut self, is_lost: impl Fn(&Record) -> bool) -> (u64, Option<Record>) {
        let before = self.lost;
        let mut spared: Option<Record> = None;

        let mut index = self.records.partition_point(|record| record.end <= self.fresh);
        while let Some(record) = self.records.get(index).copied() {
            if record.state == State::InFlight && !record.retransmitted {
                if !is_lost(&record) {
                    spared = Some(record);
                    break;
                }
                self.mark_lost(index);
            }
            self.fresh = record.end;
            index += 1;
        }

        while let Some(note) = self.resent.front().copied() {
            let mut index = self.records.partition_point(|record| record.end <= note.start);
            let mut undecided = None;
            while let Some(record) = self.records.get(index).copied().filter(|r| r.start < note.end) {
                if record.state == State::InFlight && record.retransmitted && record.sent == note.sent {
                    if !is_lost(&record) {
                        undecided = Some(record);
                        break;
                    }
                    self.mark_lost(index);
                }
                index += 1;
            }
            if let Some(record) = undecided {
                if spared.is_none_or(|other| record.order() < other.order()) {
                    spared = Some(record);
                }
                break;
            }
            self.resent.pop_front();
        }
        (self.lost - before, spared)
    }

    fn mark_lost(&mut self, index: usize) {
        let Some(record) = self.records.get_mut(index) else { return };
        match record.state {
            State::InFlight => self.in_flight -= record.len(),
            State::Sacked => self.sacked -= record.len(),
            State::Lost => return,
        }
        record.state = State::Lost;
        record.timed = false;
        self.lost += record.len();
        self.lost_starts.push(Reverse(record.start));
    }

    /// Marks everything in flight lost after a timeout (RFC 6298, section 5). Returns the bytes
    /// marked.
    pub(crate) fn mark_in_flight_lost(&mut self) -> u64 {
        let before = self.lost;
        for index in 0..self.records.len() {
            if self.records.get(index).is_some_and(|record| record.state == State::InFlight) {
                self.mark_lost(index);
            }
        }
        self.resent.clear();
        self.fresh = self.records.back().map_or(self.fresh, |record| record.end);
        self.lost - before
    }

    /// Marks lost data that was not retransmitted yet as in flight again: the timeout was spurious.
    pub(crate) fn unmark_lost(&mut self) {
        self.in_flight += std::mem::take(&mut self.lost);
        self.lost_starts.clear();
        self.resent.clear();
        for record in &mut self.records {
            if record.state == State::Lost {
                record.state = State::InFlight;
            }
            if record.state == State::InFlight && record.retransmitted {
                self.resent.push_back(Resent { sent: record.sent, start: record.start, end: record.end });
            }
        }
        self.resent.make_contiguous().sort_by_key(|note| note.sent);
        self.fresh = self.records.front().map_or(self.fresh, |front| front.start);
    }

    /// Marks records in flight lost that are longer than `len`: their segments are too large.
    /// Returns the bytes marked.
    pub(crate) fn mark_longer_lost(&mut self, len: u64) -> u64 {
        let before = self.lost;
        for index in 0..self.records.len() {
            if self.records.get(index).is_some_and(|r| r.state == State::InFlight && r.len() > len) {
                self.mark_lost(index);
            }
        }
        self.lost - before
    }

    /// Marks at most `len` bytes at the front lost, if they are in flight (for peers without SACK).
    /// Returns the bytes marked.
    pub(crate) fn mark_front_lost(&mut self, len: u64) -> u64 {
        let Some(front) = self.records.front().copied().filter(|r| r.state == State::InFlight) else {
            return 0;
        };
        self.split(0, front.start + len);
        self.mark_lost(0);
        front.len().min(len)
    }

    /// Forgets all SACK information (RFC 2018, section 8: the receiver may discard SACKed data).
    pub(crate) fn forget_sacks(&mut self) {
        for index in 0..self.records.len() {
            if self.records.get(index).is_some_and(|record| record.state == State::Sacked) {
                self.mark_lost(index);
            }
        }
        self.settled = Default::default();
        self.highest_delivered = self.records.front().map_or(self.highest_delivered, |front| front.start);
    }

    /// Returns the index of the lost record with the lowest sequence number.
    pub(crate) fn first_lost(&mut self) -> Option<usize> {
        while let Some(&Reverse(start)) = self.lost_starts.peek() {
            let index = self.records.partition_point(|record| record.end <= start);
            if self.records.get(index).is_some_and(|r| r.start == start && r.state == State::Lost) {
                return Some(index);
            }
            self.lost_starts.pop();
        }
        None
    }

    /// Returns the index of the record in flight with the highest sequence number.
    pub(crate) fn last_in_flight(&self) -> Option<usize> {
        self.records.iter().rposition(|record| record.state == State::InFlight)
    }

    /// Records that record `index` was retransmitted.
    pub(crate) fn resend(&mut self, index: usize, now: Instant, nxt: u64, snapshot: Snapshot) {
        let Some(record) = self.records.get_mut(index) else { return };
        if record.state == State::Lost {
            self.lost -= record.len();
            self.in_flight += record.len();
        }
        record.state = State::InFlight;
        record.retransmitted = true;
        record.timed = false;
        record.sent = now;
        record.nxt = nxt;
        record.snapshot = snapshot;
        self.resent.push_back(Resent { sent: now, start: record.start, end: record.end });
    }

    /// Merges lost records that follow record `index`, up to `most` bytes: the content of one
    /// super-frame. Returns the end.
    pub(crate) fn merge_lost(&mut self, index: usize, most: u64) -> u64 {
        while let (Some(record), Some(next)) = (self.records.get(index), self.records.get(index + 1)) {
            if next.state != State::Lost || record.len() >= most {
                break;
            }
            let end = next.end;
            self.records.remove(index + 1);
            if let Some(record) = self.records.get_mut(index) {
                record.end = end;
            }
        }
        self.records.get(index).map_or(0, |record| record.end)
    }
}

#[cfg(test)]
mod tests;
