//! The receiver of a connection: the stream in order, the window, and the timing of ACKs.
//!
//! The user reads in-order data from the receive buffer. An emptied buffer restarts at its front,
//! so a fast reader's bytes stay in the CPU's cache. The buffer grows with its content. Data out of
//! order waits elsewhere, segment by segment, and costs only its own length. A large in-order
//! payload is not copied at all: the user reads it in place, and only the rest is kept.
//!
//! The window begins small and opens by twice of what arrives (Linux's tcp_grow_window(),
//! net/ipv4/tcp_input.c). So it stays ahead of a slow start, and an idle connection holds little;
//! before the connection is accepted, it does not open at all. The window ends at the limit, and
//! below that at the connection's share of a memory pool. The pool is charged with everything that
//! the peer may send.
//!
//! An ACK rides on data where there is some to send. A separate ACK leaves at once, except in a
//! request-response exchange, where it waits briefly for a response to ride on (RFC 1122, section
//! 4.2.3.2, allows half a second).
mod out_of_order;
mod reassembly;
mod sack_report;
mod space;
#[cfg(test)]
mod tests;

use super::{Instant, MemoryPool, memory_pool::Charge, ring::Ring, timestamps::RecentTimestamp};
use crate::segment::{SackBlocks, SeqNumber};
use out_of_order::OutOfOrder;
use reassembly::Reassembly;
use sack_report::SackReport;
use space::ReceiveSpace;
use std::time::Duration;

pub(crate) use space::is_acceptable;

/// Maximum wait of an ACK for a response to ride on. A peer with Nagle's algorithm may wait for the
/// ACK (RFC 9293, section 3.7.4); Linux delays ACKs by 40 ms and more, too costly for such a peer.
/// Less than a tick of the kernel's clock (4 ms at 250 Hz) would cost a timer interrupt of its own.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Smallest buffer, in bytes.
const LEAST: u64 = 4096;
/// Minimum payload for which an extra write(2) costs less than a copy, in bytes.
const WORTH_OFFERING: usize = 16 << 10;

/// Initial window, in bytes: the maximum of a SYN's window field.
const INITIAL_WINDOW: u64 = u16::MAX as u64;
/// Minimum window, in bytes, even when memory is short: half of the initial one. A peer sizes its
/// segments for half of the largest window ever offered, and would wait for its persist timer below
/// that (Linux's tcp_bound_to_half_wnd(), include/net/tcp.h).
const LEAST_WINDOW: u64 = 32 << 10;
/// Window bytes per piece out of order. A peer that leaves a hole after each byte must not exhaust
/// memory by the overhead of pieces.
const BYTES_PER_PIECE: u64 = 512;
/// Pieces out of order that any window admits.
const LEAST_PIECES: u64 = 64;

/// Returns the window scale for a receive buffer of this many bytes (RFC 7323, section 2.2).
pub(crate) fn window_shift(receive_buffer: usize) -> u8 {
    (usize::BITS - receive_buffer.leading_zeros()).saturating_sub(16).min(14) as u8
}

/// The acknowledgment of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind {
    /// A cumulative ACK for the whole batch; see [`Receiver::ack_at`].
    Cumulative,
    /// An immediate ACK of its own, with these SACK blocks.
    Immediate(SackBlocks),
}

/// The receiver of one connection.
pub(super) struct Receiver {
    space: ReceiveSpace,
    reassembly: Reassembly,
    report: SackReport,
    recent: RecentTimestamp,
    /// The bytes in order.
    ring: Ring,
    /// The bytes out of order, whose runs `reassembly` knows.
    pieces: OutOfOrder,
    charge: Charge,
    /// A user has accepted the connection, and will read.
    accepted: bool,
    /// The offset of the next byte that the user reads.
    read: u64,
    /// Maximum bytes that wait to be read.
    limit: u64,
    /// The promised right edge of the window: it never moves left.
    edge: u64,
    /// The shift of our window field.
    shift: u8,
    /// RCV.NXT as announced last (RFC 7323's Last.ACK.sent); 0 before the first announcement.
    acknowledged: u64,
    /// The right edge as announced last.
    announced_edge: u64,
    /// The offset that the user had read up to by the last announcement.
    read_when_announced: u64,
    /// Consecutive ACKs that repeated RCV.NXT.
    repeats: u32,
    /// The time of the last in-order data.
    last_data_at: Option<Instant>,
    /// The user responds to received data: data and responses alternate.
    interactive: bool,
    /// The deadline of an ACK that may wait for a response.
    ack_deadline: Option<Instant>,
}

impl Receiver {
    /// Returns a receiver that buffers at most `limit` bytes, taken from `pool`.
    pub(crate) fn new(limit: usize, pool: &MemoryPool) -> Self {
        Receiver {
            space: ReceiveSpace::default(),
            reassembly: Reassembly::default(),
            report: SackReport::default(),
            recent: RecentTimestamp::default(),
            ring: Ring::default(),
            pieces: OutOfOrder::default(),
            charge: pool.charge(),
            accepted: true,
            read: 1,
            limit: (limit as u64).max(1),
            edge: 0,
            shift: 0,
            acknowledged: 0,
            announced_edge: 0,
            read_when_announced: 1,
            repeats: 0,
            last_data_at: None,
            interactive: false,
            ack_deadline: None,
        }
    }

    /// Returns the window field of our SYN, which is never scaled.
    pub(crate) fn syn_window(&self) -> u16 {
        u16::try_from(self.limit).unwrap_or(u16::MAX)
    }

    /// Returns the shift that our SYN offers.
    pub(crate) fn offered_shift(&self) -> u8 {
        window_shift(self.limit as usize)
    }

    /// Starts the sequence space at the peer's SYN.
    pub(crate) fn synchronize(&mut self, irs: SeqNumber) {
        self.space = ReceiveSpace::new(irs);
        self.edge = self.space.nxt + u64::from(self.syn_window());
        self.announced_edge = self.edge;
        self.charge_pool();
    }

    /// Records that our SYN-ACK acknowledged the peer's SYN.
    pub(crate) fn on_syn_acknowledged(&mut self) {
        self.acknowledged = self.space.nxt;
    }

    /// Establishes the connection: our window field is scaled by `shift` from now on.
    pub(crate) fn establish(&mut self, shift: u8) {
        self.shift = shift;
    }

    /// Returns the peer's timestamp to echo.
    pub(crate) fn timestamp(&self) -> u32 {
        self.recent.value()
    }

    /// Records the timestamp of a segment that begins at or before the last ACK sent (RFC 7323,
    /// section 4.3).
    pub(crate) fn note_timestamp(&mut self, now: Instant, value: u32) {
        self.recent.note(now, value);
    }

    /// Returns whether a timestamp belongs to an old duplicate (RFC 7323, section 5.3).
    pub(crate) fn is_old_timestamp(&self, now: Instant, value: u32) -> bool {
        self.recent.is_old(now, value)
    }

    /// Returns RCV.NXT.
    pub(crate) fn expected(&self) -> SeqNumber {
        self.space.seq(self.space.nxt)
    }

    /// Returns whether the peer's FIN has arrived in order.
    pub(crate) fn is_finished(&self) -> bool {
        self.space.is_finished()
    }

    /// Returns whether `seq` is at or before the last acknowledgment sent (RFC 7323's
    /// Last.ACK.sent).
    pub(crate) fn was_acknowledged(&self, seq: SeqNumber) -> bool {
        self.space.distance(seq) <= self.acknowledged as i64 - self.space.nxt as i64
    }

    /// Returns whether `seq` is RCV.NXT or the last acknowledgment sent. A peer without a
    /// connection resets at the latter (RFC 5961, section 3.2).
    pub(crate) fn is_expected(&self, seq: SeqNumber) -> bool {
        let distance = self.space.distance(seq);
        distance == 0 || self.acknowledged > 0 && distance == self.acknowledged as i64 - self.space.nxt as i64
    }

    /// Returns whether a segment of no length at `seq` is acceptable (RFC 9293, section 3.10.7.4,
    /// first check).
    pub(crate) fn admits(&self, seq: SeqNumber) -> bool {
        self.admits_segment(seq, 0)
    }

    /// Returns whether a segment at `seq` of `len` sequence numbers is acceptable (RFC 9293,
    /// section 3.10.7.4, first check).
    pub(crate) fn admits_segment(&self, seq: SeqNumber, len: u64) -> bool {
        is_acceptable(self.space.distance(seq), len, self.window())
    }

    /// Returns whether the acknowledgment of a segment at `seq` is credible.
    ///
    /// `seq` must lie in the window, or at the window's right edge, as after a filled window of
    /// which a part was lost (Linux's tcp_sequence(), net/ipv4/tcp_input.c), or at most as far
    /// before the window as a late segment of an honest peer (RFC 9293, section 3.10.7.4, first
    /// check).
    pub(crate) fn is_near(&self, seq: SeqNumber) -> bool {
        let behind = i64::try_from(self.limit).unwrap_or(i64::MAX).max(1 << 16);
        (-behind..=self.window() as i64).contains(&self.space.distance(seq))
    }

    /// Returns whether `seq` is that of a keep-alive or of a window probe without data, which
    /// require an ACK.
    pub(crate) fn is_probe(&self, seq: SeqNumber) -> bool {
        self.space.distance(seq) == -1
    }

    fn window(&self) -> u64 {
        self.edge.saturating_sub(self.space.nxt)
    }

    /// Returns whether a payload of `len` bytes at `seq` is in order, fits into the window, and is
    /// large enough to read in place.
    pub(crate) fn is_worth_offering(&self, seq: SeqNumber, len: usize) -> bool {
        let known_end = self.space.fin.unwrap_or(u64::MAX);
        let room = self.window().min(known_end.saturating_sub(self.space.nxt));
        len >= WORTH_OFFERING && self.space.distance(seq) == 0 && len as u64 <= room
    }

    /// Accepts payload and FIN of a segment that has at least one of them (RFC 9293, section
    /// 3.10.7.4). `segment` is the payload of a full segment, in bytes. The user has read the first
    /// `taken` bytes of the payload; more than 0 only if [`Receiver::is_worth_offering`] and
    /// nothing before it is unread.
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        seq: SeqNumber,
        payload: &[u8],
        fin: bool,
        segment: u64,
        taken: usize,
    ) -> AckKind {
        let next = self.space.nxt;
        // In bytes from RCV.NXT.
        let start = self.space.distance(seq);
        let end = start + payload.len() as i64;
        self.note_duplicate(start, end + i64::from(fin));
        let mut admitted = self.window() as i64;
        if let Some(known) = self.space.fin {
            admitted = admitted.min(known as i64 - next as i64);
        }
        let refused = end > admitted || start > admitted;
        // A FIN fits even into a shut window.
        let fin =
            fin && !refused && end >= 0 && self.reassembly.end().is_none_or(|last| last <= next + end as u64);
        if fin {
            self.space.fin = Some(next + end as u64);
        }
        let (from, to) = (start.max(0), end.min(admitted));
        let holes = !self.reassembly.is_empty();
        let mut news = None;
        if from < to {
            let skipped = (from - start) as usize;
            let piece = payload.get(skipped..skipped + (to - from) as usize).unwrap_or_default();
            let (from, to) = (next + from as u64, next + to as u64);
            if holes {
                let held = self.reassembly.held(from, to);
                held.for_each(|(l, r)| self.report.on_duplicate(self.space.seq(l), self.space.seq(r)));
            }
            if from == next {
                debug_assert!(taken == 0 || self.readable() == 0 && skipped == 0, "the user reads in order");
                let taken = taken.min(piece.len());
                self.read += taken as u64;
                self.keep(from + taken as u64, to, piece.get(taken..).unwrap_or_default());
                if holes {
                    self.fill_holes(to);
                }
            } else {
                news = self.keep_out_of_order(from, to, piece);
            }
            self.charge_pool();
        }
        if self.space.fin == Some(self.space.nxt) {
            self.space.nxt += 1;
        }
        if payload.len() as u64 <= segment {
            self.report.keep_first();
        }
        // RFC 5681, section 4.2: out of order, a duplicate, or the fill of a hole.
        if holes || refused || self.space.nxt == next || self.report.has_duplicate() {
            return AckKind::Immediate(self.report(news));
        }
        self.last_data_at = Some(now);
        let full = self.space.nxt - self.acknowledged >= 2 * segment;
        self.ack_deadline = match self.interactive && !full && !self.is_finished() {
            true => self.ack_deadline.or(Some(now + ACK_DELAY)),
            false => None,
        };
        AckKind::Cumulative
    }

    /// Records the part below RCV.NXT of a segment that reaches from `start` to `end`, relative to
    /// RCV.NXT; a FIN counts.
    fn note_duplicate(&mut self, start: i64, end: i64) {
        let end = end.min(0);
        if start < end {
            let expected = self.expected();
            let seq = |distance: i64| expected + distance as u32;
            self.report.on_duplicate(seq(start), seq(end));
        }
    }

    /// Returns the SACK blocks for a dropped segment at `seq` of `len` sequence numbers.
    pub(crate) fn refuse(&mut self, seq: SeqNumber, len: u64) -> SackBlocks {
        let start = self.space.distance(seq);
        self.note_duplicate(start, start.saturating_add_unsigned(len));
        self.report(None)
    }

    /// Returns the SACK blocks of another ACK, if the last segment requires one.
    pub(crate) fn further_report(&mut self) -> Option<SackBlocks> {
        self.report.has_duplicate().then(|| self.report(None))
    }

    /// Appends in-order bytes to the buffer, which grows as needed; `to` becomes RCV.NXT.
    fn keep(&mut self, from: u64, to: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            if self.read == from {
                self.ring.restart(from);
            }
            self.reserve(to);
            self.ring.put(self.read, from, bytes);
        }
        self.space.nxt = to;
    }

    /// Makes room for in-order data up to `end`.
    fn reserve(&mut self, end: u64) {
        let wanted = end - self.read;
        if wanted > self.ring.capacity() {
            let capacity = wanted.next_power_of_two().max(LEAST).min(self.limit.max(wanted));
            self.ring.grow(capacity, self.read, self.space.nxt);
        }
    }

    /// Appends earlier pieces that continue the data in order up to `to`.
    fn fill_holes(&mut self, to: u64) {
        let next = self.reassembly.advance(to);
        self.reserve(next);
        while let Some((start, piece)) = self.pieces.pop(self.space.nxt) {
            let (from, to) = (self.space.nxt, start + piece.len() as u64);
            if from < to {
                self.keep(from, to, piece.get((from - start) as usize..).unwrap_or_default());
            }
        }
        debug_assert_eq!(self.space.nxt, next, "every run has its bytes");
    }

    /// Keeps a piece out of order, and returns its run. Above the limit, drops the last pieces, as
    /// tcp_prune_ofo_queue() does (net/ipv4/tcp_input.c). RFC 2018, section 8, lets a receiver drop
    /// SACKed data if no later block reports it.
    fn keep_out_of_order(&mut self, from: u64, to: u64, bytes: &[u8]) -> Option<(u64, u64)> {
        let most = LEAST_PIECES.max((self.edge - self.read) / BYTES_PER_PIECE);
        while self.pieces.len() as u64 >= most {
            if self.pieces.last().is_none_or(|last| last <= from) {
                return None;
            }
            let end = self.pieces.drop_last()?;
            self.reassembly.truncate(end);
            self.report.truncate(self.space.seq(end));
        }
        let run = self.reassembly.insert(from, to)?;
        self.pieces.insert(from, bytes);
        // Take memory once: an idle buffer is of no use to pieces that wait elsewhere.
        if self.readable() == 0 && self.ring.capacity() + self.pieces.cost() > self.edge - self.read {
            self.ring.release(self.space.nxt);
        }
        Some(run)
    }

    /// Charges the pool with the bytes that the peer may send or the user has not read, or with the
    /// memory they occupy, if that is more.
    fn charge_pool(&mut self) {
        let end = self.space.fin.map_or(self.edge, |fin| fin.min(self.edge));
        let promised = end.saturating_sub(self.read) + self.pieces.len() as u64 * out_of_order::PIECE_COST;
        self.charge.set(promised.max(self.ring.capacity() + self.pieces.cost()));
    }

    /// Sets whether a user has accepted the connection.
    pub(crate) fn set_accepted(&mut self, accepted: bool) {
        self.accepted = accepted;
    }

    /// Frees memory that is allocated and unused.
    pub(crate) fn reclaim(&mut self) {
        if self.readable() == 0 {
            self.ring.release(self.space.data_end());
        }
        self.charge_pool();
    }

    fn report(&mut self, news: Option<(u64, u64)>) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if let Some((left, right)) = news {
            blocks.push(self.space.seq(left), self.space.seq(right));
        }
        self.report.on_ack(self.expected(), &blocks)
    }

    /// Returns the bytes that can be read.
    pub(crate) fn readable(&self) -> usize {
        self.space.data_end().saturating_sub(self.read) as usize
    }

    /// Hands `drain` a contiguous part of the data in order, at most `limit` bytes. `drain` returns
    /// the length that it consumed.
    ///
    /// # Errors
    /// Fails when `drain` does.
    pub(crate) fn read<E>(
        &mut self,
        limit: usize,
        drain: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let end = self.space.data_end();
        let (front, _) = self.ring.slices(self.read, end.max(self.read));
        let offered = front.get(..limit).unwrap_or(front);
        let took = drain(offered)?.min(offered.len());
        self.read += took as u64;
        if self.read == end {
            self.ring.restart(end);
        }
        Ok(took)
    }

    /// Returns the maximum distance of the window's edge from the last byte read.
    fn allowance(&self) -> u64 {
        let came = if self.accepted { self.space.nxt.saturating_sub(1) } else { 0 };
        let opened = INITIAL_WINDOW + 2 * came;
        opened.min(self.charge.share().max(LEAST_WINDOW)).min(self.limit)
    }

    /// Returns the right edge to promise now, as far as the window field can express it. The edge
    /// moves by at least a segment or half of the buffer: smaller offers would make the peer send
    /// ever smaller segments (RFC 9293, section 3.8.6.2.2).
    fn right_edge(&self, segment: u64) -> u64 {
        let allowance = self.allowance();
        let free = self.read + allowance;
        let enough = segment.min(allowance / 2).max(1);
        let edge = if free >= self.edge + enough { free } else { self.edge };
        edge.min(self.space.nxt + (u64::from(u16::MAX) << self.shift))
    }

    /// Returns acknowledgment and window field of a segment that leaves now.
    pub(crate) fn advertise(&mut self, segment: u64) -> (SeqNumber, u16) {
        let window = self.right_edge(segment).saturating_sub(self.space.nxt) >> self.shift;
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        self.repeats = if self.acknowledged == self.space.nxt { self.repeats.saturating_add(1) } else { 0 };
        self.acknowledged = self.space.nxt;
        self.announced_edge = self.acknowledged + (u64::from(window) << self.shift);
        // Only the window that the field expresses is accepted.
        self.edge = self.edge.max(self.announced_edge);
        self.read_when_announced = self.read;
        self.ack_deadline = None;
        self.charge_pool();
        (self.expected(), window)
    }

    /// Returns how many consecutive ACKs repeated the acknowledgment of the one before.
    pub(crate) fn repeats(&self) -> u32 {
        self.repeats
    }

    /// Records that user data leaves.
    pub(crate) fn on_data_sent(&mut self, now: Instant) {
        if self.last_data_at.is_some_and(|at| now.since(at) <= ACK_DELAY) {
            self.interactive = true;
        }
    }

    /// Records that an ACK leaves without data to ride on.
    pub(crate) fn on_ack_sent(&mut self) {
        if self.ack_deadline.is_some() {
            self.interactive = false;
        }
    }

    /// Returns the time at which an ACK must leave, if one is due; [`Instant::ZERO`] for at once.
    pub(crate) fn ack_at(&self, segment: u64) -> Option<Instant> {
        if self.acknowledged != self.space.nxt {
            return self.space.is_synchronized().then(|| self.ack_deadline.unwrap_or(Instant::ZERO));
        }
        // A window that reading has doubled is worth an ACK (Linux's tcp_cleanup_rbuf()).
        let edge = self.right_edge(segment);
        let announced = self.announced_edge.saturating_sub(self.acknowledged);
        let opened = self.read > self.read_when_announced
            && edge > self.edge
            && edge - self.acknowledged >= 2 * announced;
        opened.then_some(Instant::ZERO)
    }
}
