//! The receiver's side of a connection: the stream in order, the window, and when to acknowledge.
//!
//! In-order data is read from where it was put; a buffer that has been read empty begins anew at its front, so a fast
//! reader's bytes never leave the processor's cache. The buffer grows with what it must hold; what comes out of order
//! waits elsewhere, segment by segment, and costs what it is. A long piece that comes in order is not copied at all: the
//! user reads it where it lies, and only the rest is kept.
//!
//! The window begins small and opens by twice of what has come (Linux's tcp_grow_window(), net/ipv4/tcp_input.c), so it
//! stays ahead of a slow start, and an idle connection holds little; while a connection waits to be accepted, it does not
//! open at all. It ends at the limit, and below that at the connection's share of a memory pool, to which it is charged
//! with all that the peer has been allowed to send.
//!
//! An ACK rides on data where there is some to send. By itself it goes at once, except in a dialogue, where an answer
//! may be expected: there it waits a little for it (RFC 1122, section 4.2.3.2, which allows half a second).
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

pub use space::is_acceptable;

/// How long an ACK waits for an answer to ride on. A peer with Nagle's algorithm may wait for the ACK (RFC 9293,
/// section 3.7.4): Linux makes it wait for 40 ms and more, and this is not worth that much. Less than a tick of the
/// kernel's clock (4 ms at 250 a second) would cost a timer interrupt of its own.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// The smallest buffer, in bytes.
const LEAST: u64 = 4096;
/// Payload from which on a write of its own costs less than a copy, in bytes.
const WORTH_OFFERING: usize = 16 << 10;

/// The window that a connection begins with, in bytes: what the field of a SYN can say.
const INITIAL_WINDOW: u64 = u16::MAX as u64;
/// The smallest window, however short memory is, in bytes: half of the first one. A peer cuts its segments for half of
/// the largest window that it was ever offered, and would wait for its persist timer below that (Linux's
/// tcp_bound_to_half_wnd(), include/net/tcp.h).
const LEAST_WINDOW: u64 = 32 << 10;
/// A window takes a piece out of order for so many bytes of it, and some in any case: a peer that leaves a hole after
/// each byte must not fill our memory by what each of them costs.
const BYTES_PER_PIECE: u64 = 512;
const LEAST_PIECES: u64 = 64;

/// The window scale for a receive buffer of so many bytes (RFC 7323, section 2.2).
pub fn window_shift(receive_buffer: usize) -> u8 {
    (usize::BITS - receive_buffer.leading_zeros()).saturating_sub(16).min(14) as u8
}

/// What to say about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What is said about all of a batch: see [`Receiver::ack_at`].
    Cumulative,
    /// An ACK of its own, with these SACK blocks.
    AtOnce(SackBlocks),
}

pub(super) struct Receiver {
    space: ReceiveSpace,
    reassembly: Reassembly,
    report: SackReport,
    recent: RecentTimestamp,
    /// What came in order.
    ring: Ring,
    /// What did not: the bytes of what `reassembly` knows.
    pieces: OutOfOrder,
    charge: Charge,
    /// The user has accepted the connection, and will read.
    accepted: bool,
    /// The offset that the user reads next.
    read: u64,
    /// The most bytes that wait to be read.
    limit: u64,
    /// The right edge of the window as it was promised: it never moves left.
    edge: u64,
    /// The shift of our window field.
    shift: u8,
    /// RCV.NXT and the right edge as they were announced last (RFC 7323's Last.ACK.sent), 0 before the first time; and what
    /// had been read by then.
    acknowledged: u64,
    announced_edge: u64,
    read_when_announced: u64,
    /// How many ACKs in a row repeated RCV.NXT.
    repeats: u32,
    /// When data came last.
    last_data_at: Option<Instant>,
    /// The user answers what comes: data and answers alternate.
    interactive: bool,
    /// When the ACK that is owed must be sent, if it may wait for an answer.
    ack_deadline: Option<Instant>,
}

impl Receiver {
    /// A receiver of at most `limit` bytes that wait to be read, which it takes from `pool`.
    pub fn new(limit: usize, pool: &MemoryPool) -> Self {
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

    /// The window field of our SYN, which is never scaled.
    pub fn syn_window(&self) -> u16 {
        u16::try_from(self.limit).unwrap_or(u16::MAX)
    }

    /// The shift that our SYN offers.
    pub fn offered_shift(&self) -> u8 {
        window_shift(self.limit as usize)
    }

    /// The peer's SYN has come.
    pub fn synchronize(&mut self, irs: SeqNumber) {
        self.space = ReceiveSpace::new(irs);
        self.edge = self.space.nxt + u64::from(self.syn_window());
        self.announced_edge = self.edge;
        self.charge_pool();
    }

    /// Our SYN-ACK acknowledged it.
    pub fn on_syn_acknowledged(&mut self) {
        self.acknowledged = self.space.nxt;
    }

    /// Both SYNs are known, and our window field is shifted by so much.
    pub fn establish(&mut self, shift: u8) {
        self.shift = shift;
    }

    /// The peer's timestamp to echo.
    pub fn timestamp(&self) -> u32 {
        self.recent.value()
    }

    /// Notes the timestamp of a segment that begins at or before the last ACK sent (RFC 7323, section 4.3).
    pub fn note_timestamp(&mut self, now: Instant, value: u32) {
        self.recent.note(now, value);
    }

    /// Whether a timestamp belongs to an old duplicate (RFC 7323, section 5.3).
    pub fn is_old_timestamp(&self, now: Instant, value: u32) -> bool {
        self.recent.is_old(now, value)
    }

    /// RCV.NXT.
    pub fn expected(&self) -> SeqNumber {
        self.space.seq(self.space.nxt)
    }

    /// Whether the peer's FIN, and so everything before it, has come.
    pub fn is_finished(&self) -> bool {
        self.space.is_finished()
    }

    /// Whether `seq` is at or before the last acknowledgment sent (RFC 7323's Last.ACK.sent).
    pub fn was_acknowledged(&self, seq: SeqNumber) -> bool {
        self.space.distance(seq) <= self.acknowledged as i64 - self.space.nxt as i64
    }

    /// Whether `seq` is what we expect, or what the wire has heard that we do: a peer without a connection answers to
    /// the latter (RFC 5961, section 3.2).
    pub fn is_expected(&self, seq: SeqNumber) -> bool {
        let distance = self.space.distance(seq);
        distance == 0 || self.acknowledged > 0 && distance == self.acknowledged as i64 - self.space.nxt as i64
    }

    /// Whether `seq` is acceptable, as that of a segment of no length (RFC 9293, section 3.10.7.4, first).
    pub fn admits(&self, seq: SeqNumber) -> bool {
        self.admits_segment(seq, 0)
    }

    /// Whether a segment is acceptable that begins at `seq` and takes up `len` sequence numbers (RFC 9293, section
    /// 3.10.7.4, first).
    pub fn admits_segment(&self, seq: SeqNumber, len: u64) -> bool {
        is_acceptable(self.space.distance(seq), len, self.window())
    }

    /// Whether `seq` lies in the window or at its right edge, where a peer is that has filled it, part of which was lost
    /// (Linux's tcp_sequence(), net/ipv4/tcp_input.c); or as far before it as an honest peer's segment that is late may
    /// (RFC 9293, section 3.10.7.4, first). Nothing is to be believed of a segment elsewhere, its acknowledgment neither.
    pub fn is_near(&self, seq: SeqNumber) -> bool {
        let behind = i64::try_from(self.limit).unwrap_or(i64::MAX).max(1 << 16);
        (-behind..=self.window() as i64).contains(&self.space.distance(seq))
    }

    /// Whether `seq` is that of a keep-alive or of a window probe without data, which are to be answered.
    pub fn is_probe(&self, seq: SeqNumber) -> bool {
        self.space.distance(seq) == -1
    }

    fn window(&self) -> u64 {
        self.edge.saturating_sub(self.space.nxt)
    }

    /// Returns whether a payload of `len` bytes at `seq` is in order, fits into the window, and is worth reading where
    /// it lies.
    pub fn is_worth_offering(&self, seq: SeqNumber, len: usize) -> bool {
        let known_end = self.space.fin.unwrap_or(u64::MAX);
        let room = self.window().min(known_end.saturating_sub(self.space.nxt));
        len >= WORTH_OFFERING && self.space.distance(seq) == 0 && len as u64 <= room
    }

    /// Takes the payload and the FIN of a segment, at least one of which there is (RFC 9293, section 3.10.7.4).
    /// `segment` is the payload of a full one, in bytes. The user has read the first `taken` bytes of the payload
    /// already: more than 0 only for a payload that [`Receiver::is_worth_offering`], with nothing left to read
    /// before it.
    pub fn on_segment(
        &mut self,
        now: Instant,
        seq: SeqNumber,
        payload: &[u8],
        fin: bool,
        segment: u64,
        taken: usize,
    ) -> Answer {
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
        // A FIN takes no room, even where there is none.
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
                news = self.keep_aside(from, to, piece);
            }
            self.charge_pool();
        }
        if self.space.fin == Some(self.space.nxt) {
            self.space.nxt += 1;
        }
        if payload.len() as u64 <= segment {
            self.report.keep_first();
        }
        // RFC 5681, section 4.2: out of order, again, or into a hole.
        if holes || refused || self.space.nxt == next || self.report.has_duplicate() {
            return Answer::AtOnce(self.report(news));
        }
        self.last_data_at = Some(now);
        let full = self.space.nxt - self.acknowledged >= 2 * segment;
        self.ack_deadline = match self.interactive && !full && !self.is_finished() {
            true => self.ack_deadline.or(Some(now + ACK_DELAY)),
            false => None,
        };
        Answer::Cumulative
    }

    /// Takes note of what lies below RCV.NXT of a segment that reaches from `start` to `end`, in bytes from there; a FIN
    /// counts.
    fn note_duplicate(&mut self, start: i64, end: i64) {
        let end = end.min(0);
        if start < end {
            let expected = self.expected();
            let seq = |distance: i64| expected + distance as u32;
            self.report.on_duplicate(seq(start), seq(end));
        }
    }

    /// The report about a segment that is not taken, which begins at `seq` and takes up `len` sequence numbers.
    pub fn refuse(&mut self, seq: SeqNumber, len: u64) -> SackBlocks {
        let start = self.space.distance(seq);
        self.note_duplicate(start, start.saturating_add_unsigned(len));
        self.report(None)
    }

    /// A further ACK that the last segment calls for, if it does.
    pub fn further_report(&mut self) -> Option<SackBlocks> {
        self.report.has_duplicate().then(|| self.report(None))
    }

    /// Puts bytes that come in order into the buffer, which grows as it must; `to` is RCV.NXT from now on.
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

    /// Makes room for what is in order, up to `end`.
    fn reserve(&mut self, end: u64) {
        let wanted = end - self.read;
        if wanted > self.ring.capacity() {
            let capacity = wanted.next_power_of_two().max(LEAST).min(self.limit.max(wanted));
            self.ring.grow(capacity, self.read, self.space.nxt);
        }
    }

    /// Adds to what is in order up to `to` what had come before.
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

    /// Keeps a piece that came out of order, and returns the run that it belongs to. When there are too many, the last
    /// of them goes, as in net/ipv4/tcp_input.c, tcp_prune_ofo_queue(); RFC 2018, section 8, lets a receiver drop what
    /// it has SACKed, if no later block reports it.
    fn keep_aside(&mut self, from: u64, to: u64, bytes: &[u8]) -> Option<(u64, u64)> {
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
        // Memory is taken once: an idle buffer has no use for what waits elsewhere.
        if self.readable() == 0 && self.ring.capacity() + self.pieces.cost() > self.edge - self.read {
            self.ring.release(self.space.nxt);
        }
        Some(run)
    }

    /// Charges the pool: with what the peer may send and the user has not read, or with what that occupies, if it is more.
    fn charge_pool(&mut self) {
        let end = self.space.fin.map_or(self.edge, |fin| fin.min(self.edge));
        let promised = end.saturating_sub(self.read) + self.pieces.len() as u64 * out_of_order::PIECE_COST;
        self.charge.set(promised.max(self.ring.capacity() + self.pieces.cost()));
    }

    /// Says whether the connection has been accepted.
    pub fn set_accepted(&mut self, accepted: bool) {
        self.accepted = accepted;
    }

    /// Gives back what is allocated and not used.
    pub fn reclaim(&mut self) {
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

    /// Bytes that can be read.
    pub fn readable(&self) -> usize {
        self.space.data_end().saturating_sub(self.read) as usize
    }

    /// Hands `drain` a contiguous part of what came in order, at most `limit` bytes; it returns how much it took.
    pub fn read<E>(
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

    /// How far the window may reach beyond what was read.
    fn allowance(&self) -> u64 {
        let came = if self.accepted { self.space.nxt.saturating_sub(1) } else { 0 };
        let opened = INITIAL_WINDOW + 2 * came;
        opened.min(self.charge.share().max(LEAST_WINDOW)).min(self.limit)
    }

    /// The right edge that we would promise now, as far as the window field can say it. It moves by a segment, or by half
    /// of the buffer at least: a peer that took smaller offers would send ever smaller segments (RFC 9293, section
    /// 3.8.6.2.2).
    fn right_edge(&self, segment: u64) -> u64 {
        let allowance = self.allowance();
        let free = self.read + allowance;
        let enough = segment.min(allowance / 2).max(1);
        let edge = if free >= self.edge + enough { free } else { self.edge };
        edge.min(self.space.nxt + (u64::from(u16::MAX) << self.shift))
    }

    /// Acknowledgment and window field of a segment that leaves now.
    pub fn advertise(&mut self, segment: u64) -> (SeqNumber, u16) {
        let window = self.right_edge(segment).saturating_sub(self.space.nxt) >> self.shift;
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        self.repeats = if self.acknowledged == self.space.nxt { self.repeats.saturating_add(1) } else { 0 };
        self.acknowledged = self.space.nxt;
        self.announced_edge = self.acknowledged + (u64::from(window) << self.shift);
        // What the field says is what is taken, no more.
        self.edge = self.edge.max(self.announced_edge);
        self.read_when_announced = self.read;
        self.ack_deadline = None;
        self.charge_pool();
        (self.expected(), window)
    }

    /// How many acknowledgments in a row were those of the one before.
    pub fn repeats(&self) -> u32 {
        self.repeats
    }

    /// Data of the user leaves.
    pub fn on_data_sent(&mut self, now: Instant) {
        if self.last_data_at.is_some_and(|at| now.since(at) <= ACK_DELAY) {
            self.interactive = true;
        }
    }

    /// No data has come to ride on.
    pub fn on_ack_sent(&mut self) {
        if self.ack_deadline.is_some() {
            self.interactive = false;
        }
    }

    /// When an ACK must leave, if one is owed: [`Instant::ZERO`] for at once.
    pub fn ack_at(&self, segment: u64) -> Option<Instant> {
        if self.acknowledged != self.space.nxt {
            return self.space.is_synchronized().then(|| self.ack_deadline.unwrap_or(Instant::ZERO));
        }
        // A window that has become twice as large by what was read is news (Linux's tcp_cleanup_rbuf()).
        let edge = self.right_edge(segment);
        let announced = self.announced_edge.saturating_sub(self.acknowledged);
        let opened = self.read > self.read_when_announced
            && edge > self.edge
            && edge - self.acknowledged >= 2 * announced;
        opened.then_some(Instant::ZERO)
    }
}
