//! The byte streams of a connection, between its states and the wire: loss recovery, congestion control, reassembly.
//!
//! # Theory of operation
//!
//! A [`Recovery`] is one connection's two streams; it does no I/O and has no clock. Another keeps the states of RFC 9293
//! (LISTEN to TIME-WAIT), which know nothing of data. There are five kinds of methods:
//!
//! - *The states'* say what is to be sent beside data: [`send_syn`](Recovery::send_syn),
//!   [`send_fin`](Recovery::send_fin), [`send_reset`](Recovery::send_reset).
//! - *The wire's* take what has come: [`handle_segment`](Recovery::handle_segment) digests acknowledgments and keeps data.
//!   Its [`Outcome`] says whether the states must act on the segment, for a handshake or a reset, or whether the user may
//!   read the payload where it lies; then [`keep`](Recovery::keep) takes the rest. Then, or later,
//!   [`poll_event`](Recovery::poll_event) is called until it has nothing more to tell the states.
//! - *The user's* move data: [`write`](Recovery::write) fills a ring, the one copy of what is not acknowledged;
//!   [`read`](Recovery::read) hands out what came in order.
//! - *The loop's* come after all of these: [`poll_transmit`](Recovery::poll_transmit) is called until it has nothing
//!   more to send, and again at the latest at [`poll_at`](Recovery::poll_at).
//! - *Getters* change nothing, and may be called at any time.
//!
//! A SYN is repeated by the keeper of the states (after a second, as RFC 6298 has it), everything else here.
//!
//! Loss is detected by RACK (RFC 8985) on a scoreboard of SACKed runs, tails are probed (TLP), and the timer of
//! RFC 6298 is the last resort. A congestion controller says how much may be in flight and how fast it may go;
//! proportional rate reduction (RFC 9937) governs a recovery, and one that proves needless is undone. A shut
//! window is probed (RFC 9293, section 3.8.6.1), a path that swallows large segments found (RFC 4821).
//!
//! | file | job |
//! |---|---|
//! | `handshake`, `send_space`, `timestamps` | what the connection has agreed on, its sequence space, its clock |
//! | `memory_pool` | what all connections' buffers may occupy together |
//! | `send_buffer`, `ring`, `scoreboard` | the user's bytes, and what is known of them |
//! | `rack`, `tail_probe`, `rtt`, `undo` | when something is lost, and when it was not |
//! | `rate`, `congestion`, `prr`, `pacing` | how much and how fast |
//! | `path_mtu` | how large |
//! | `receiver` | the peer's bytes, the window, and when to acknowledge |
//! | `egress` | what the states want sent |
//! | `opening`, `ingress`, `digest` | the peer's segments: before and after the handshake, and what acknowledgments mean |
//! | `timers`, `transmit` | what is sent, and when |
mod congestion;
mod digest;
mod egress;
mod handshake;
mod ingress;
mod memory_pool;
mod opening;
mod pacing;
mod path_mtu;
mod prr;
mod rack;
mod rate;
mod receiver;
mod ring;
mod rtt;
mod scoreboard;
mod send_buffer;
mod send_space;
mod tail_probe;
mod time;
mod timers;
mod timestamps;
mod transmit;
mod undo;

use crate::segment::{MAX_HEADER_LEN, SeqNumber};
use std::{collections::VecDeque, fmt, time::Duration};

pub use congestion::{Algorithm, UnknownAlgorithm};
pub use memory_pool::MemoryPool;
pub use receiver::{is_acceptable, window_shift};
pub use time::Instant;

use congestion::CongestionControl;
use digest::Batch;
use egress::Control;
use handshake::Handshake;
use ingress::Reported;
use memory_pool::Charge;
use pacing::Pacer;
use path_mtu::PathMtu;
use prr::Prr;
use rack::Rack;
use rate::RateEstimator;
use receiver::Receiver;
use ring::Ring;
use rtt::RttEstimator;
use scoreboard::Scoreboard;
use send_buffer::Budget;
use send_space::SendSpace;
use tail_probe::TailProbe;
use timers::{Persist, UserTimeout};
use timestamps::TimestampClock;
use undo::SpuriousDetector;

/// What a connection is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The most bytes that wait to be sent and acknowledged; the buffer grows up to it.
    pub send_buffer: usize,
    /// The most bytes that wait to be read: the largest window. The buffer grows up to it.
    pub receive_buffer: usize,
    /// The link's MTU less the IP header and 20: the MSS option of our SYN, in bytes.
    pub link_mss: u16,
    /// The most payload bytes of one super-frame; at or below the MSS, every frame is one segment.
    pub max_frame: usize,
    /// The congestion control algorithm.
    pub algorithm: Algorithm,
    /// How long data may stay unacknowledged before [`Recovery::timed_out`] says so (RFC 9293, section 3.8.3;
    /// RFC 5482).
    pub user_timeout: Option<Duration>,
    /// After how long a silence the peer is asked whether it is still there (RFC 9293, section 3.8.4).
    pub keep_alive: Option<Duration>,
}

/// The outcome of [`Recovery::handle_segment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The segment is done with.
    Digested,
    /// A SYN that opens the connection, or, in SYN-RECEIVED, an ACK of something else than our SYN: the keeper of the
    /// states is to act on its flags and numbers. Its payload and FIN are done with.
    Handshake,
    /// A reset that is to be believed.
    Reset,
    /// The payload is in order and has not been taken: the user may read it where it lies, then [`Recovery::keep`] takes
    /// the rest.
    InOrder,
}

/// A step in the life of a connection; see [`Recovery::poll_event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both SYNs are acknowledged.
    Established,
    /// The peer has all of ours, our FIN included.
    FinAcknowledged,
    /// All of the peer's has come, its FIN included.
    PeerFinished,
}

/// What to put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The TCP header with its options; the checksum field is zero.
    pub header: &'a [u8],
    /// The payload, in two pieces where it crosses the ring's end.
    pub payload: [&'a [u8]; 2],
    /// For a super-frame: payload bytes of each segment but the last on the wire.
    pub gso_size: Option<u16>,
}

impl Transmit<'_> {
    /// Payload bytes.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(|piece| piece.len()).sum()
    }
}

/// Counters since the connection began, and what is known of the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Payload bytes sent, those sent again included.
    pub bytes_sent: u64,
    /// Segments on the wire that carried them; bare ACKs do not count.
    pub segments_sent: u64,
    /// Payload bytes sent again.
    pub bytes_retransmitted: u64,
    /// Segments sent again.
    pub segments_retransmitted: u64,
    /// Recoveries begun because RACK, or three duplicate ACKs, found a loss.
    pub fast_recoveries: u64,
    /// Bytes found lost, by any means.
    pub bytes_lost: u64,
    /// Recoveries that proved needless and were undone.
    pub spurious_recoveries: u64,
    /// Blocks that the peer reported to have got twice (RFC 2883).
    pub duplicate_sacks: u64,
    /// Records that arrived later than something sent after them.
    pub reordered: u64,
    /// Times that the retransmission timer ran out.
    pub timeouts: u64,
    /// Tail loss probes.
    pub tail_probes: u64,
    /// Window probes.
    pub window_probes: u64,
    /// Times that the peer took back what it had SACKed.
    pub reneged: u64,
    /// Smoothed round-trip time.
    pub smoothed_rtt: Option<Duration>,
    /// Minimum round-trip time of the last minute.
    pub min_rtt: Option<Duration>,
    pub algorithm: Algorithm,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Slow-start threshold in bytes, once there is one.
    pub slow_start_threshold: Option<u64>,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Bandwidth in bytes a second, where the algorithm estimates it; else the last delivery rate.
    pub bandwidth: Option<u64>,
    /// Pacing rate in bytes a second.
    pub pacing_rate: Option<u64>,
    /// Payload bytes of a full segment.
    pub segment_size: u64,
}

impl Stats {
    /// Segments found lost, by any means.
    pub fn segments_lost(&self) -> u64 {
        self.bytes_lost.div_ceil(self.segment_size.max(1))
    }
}

/// Where a loss has brought us (RFC 8985, RFC 6298).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Fast recovery, until this offset is acknowledged.
    Recovery {
        until: u64,
    },
    /// After a timeout.
    Loss {
        until: u64,
    },
}

/// The layer for one connection.
pub struct Recovery {
    config: Config,
    handshake: Handshake,
    established: bool,
    /// A reset was sent: nothing else follows.
    aborted: bool,
    sack: bool,
    use_timestamps: bool,
    /// Payload bytes of a full segment.
    mss: u64,
    link_mss: u64,

    space: SendSpace,
    ring: Ring,
    budget: Budget,
    /// For what the user's bytes, and what is known of them, occupy.
    charge: Charge,
    /// The user is about to write more.
    more: bool,
    board: Scoreboard,
    clock: TimestampClock,
    reported: Reported,
    receiver: Receiver,

    /// Our port and the peer's.
    ports: (u16, u16),
    control: VecDeque<Control>,
    header: [u8; MAX_HEADER_LEN],

    phase: Phase,
    rtt: RttEstimator,
    rack: Rack,
    undo: SpuriousDetector,
    rate: RateEstimator,
    prr: Option<Prr>,
    pacer: Pacer,
    /// Pacing held back what would have been sent.
    pacing_blocked: bool,
    congestion: Box<dyn CongestionControl>,
    usage: transmit::WindowUsage,
    batch: Option<Batch>,
    /// Duplicate ACKs in a row, for peers without SACK.
    duplicate_acks: u64,

    /// The retransmission timer runs from here.
    rto_from: Instant,
    /// The head may be sent once into a shut window.
    head_probe: bool,
    /// It was.
    head_probed: bool,
    /// The probe timer runs from here.
    probe_from: Instant,
    tail_probe: Option<TailProbe>,
    /// When the reordering window of what RACK suspects ends.
    reordering_ends: Option<Instant>,
    persist: Persist,
    user_timeout: UserTimeout,
    path_mtu: PathMtu,
    idle_since: Option<Instant>,
    challenged_at: Option<Instant>,
    delivery_rate: u64,
    stats: Stats,
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery")
            .field("space", &self.space)
            .field("phase", &self.phase)
            .field("lost", &self.board.lost())
            .field("sacked", &self.board.sacked())
            .field("control", &self.control.len())
            .field("rtt", &self.rtt)
            .field("rack", &self.rack)
            .field("prr", &self.prr)
            .field("congestion", &self.congestion)
            .field("reported", &self.reported)
            .field("persist", &self.persist)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Recovery {
    /// A layer for a connection that is about to be opened by [`Recovery::send_syn`], or by the peer's SYN.
    pub fn new(config: Config) -> Self {
        Recovery::sharing(config, &MemoryPool::unlimited())
    }

    /// The same, for one of many connections, whose buffers together shall not exceed `pool`.
    pub fn sharing(config: Config, pool: &MemoryPool) -> Self {
        let link_mss = u64::from(config.link_mss);
        let mut layer = Recovery {
            handshake: Handshake::default(),
            established: false,
            aborted: false,
            sack: false,
            use_timestamps: false,
            mss: link_mss,
            link_mss,
            space: SendSpace::default(),
            ring: Ring::default(),
            budget: Budget::new(config.send_buffer),
            charge: pool.charge(),
            more: false,
            board: Scoreboard::default(),
            clock: TimestampClock::default(),
            reported: Reported::default(),
            receiver: Receiver::new(config.receive_buffer, pool),
            ports: (0, 0),
            control: VecDeque::new(),
            header: [0; MAX_HEADER_LEN],
            phase: Phase::Open,
            rtt: RttEstimator::default(),
            rack: Rack::default(),
            undo: SpuriousDetector::default(),
            rate: RateEstimator::default(),
            prr: None,
            pacer: Pacer::default(),
            pacing_blocked: false,
            congestion: config.algorithm.start(link_mss),
            usage: transmit::WindowUsage::default(),
            batch: None,
            duplicate_acks: 0,
            rto_from: Instant::ZERO,
            head_probe: false,
            head_probed: false,
            probe_from: Instant::ZERO,
            tail_probe: None,
            reordering_ends: None,
            persist: Persist::default(),
            user_timeout: UserTimeout::default(),
            path_mtu: PathMtu::new(link_mss),
            idle_since: None,
            challenged_at: None,
            delivery_rate: 0,
            stats: Stats::default(),
            config,
        };
        layer.charge_pool();
        layer
    }

    /// The timestamp clock said `value` at `at`, in a SYN-ACK that somebody else has sent for this layer, and goes on from
    /// there (RFC 7323, section 5.4).
    pub fn set_clock(&mut self, at: Instant, value: u32) {
        self.clock.start(at, value);
    }

    /// Counters and estimates, as of the last call.
    pub fn stats(&self) -> Stats {
        Stats {
            smoothed_rtt: self.rtt.smoothed(),
            min_rtt: self.rtt.minimum(),
            algorithm: self.config.algorithm,
            congestion_window: self.congestion.window(),
            slow_start_threshold: Some(self.congestion.ssthresh()).filter(|ssthresh| *ssthresh < u64::MAX),
            in_flight: self.in_flight(),
            bandwidth: self.congestion.bandwidth().or(Some(self.delivery_rate).filter(|rate| *rate > 0)),
            pacing_rate: self.congestion.pacing_rate(),
            segment_size: self.mss,
            ..self.stats
        }
    }

    /// Bytes that the user handed over and the peer has not acknowledged, a FIN included.
    pub fn outstanding(&self) -> u64 {
        self.space.outstanding()
    }

    /// The same without a FIN.
    pub fn unacknowledged(&self) -> u64 {
        self.space.fin.unwrap_or(self.space.end).saturating_sub(self.space.una)
    }

    /// Bytes that the user handed over and that have not been sent yet, a FIN included.
    pub fn unsent(&self) -> u64 {
        self.space.end - self.space.nxt
    }

    /// The sequence number that we expect of the peer next.
    pub fn expected(&self) -> SeqNumber {
        self.receiver.expected()
    }

    /// Whether `seq` is at or beyond what we expect next, and not beyond our window.
    pub fn admits(&self, seq: SeqNumber) -> bool {
        self.receiver.admits(seq)
    }

    /// Bytes that [`Recovery::read`] has.
    pub fn readable(&self) -> usize {
        self.receiver.readable()
    }

    /// Hands `drain` a contiguous part of what the peer sent, at most `limit` bytes; it returns how much it took.
    ///
    /// # Errors
    /// `drain`'s.
    pub fn read<E>(
        &mut self,
        limit: usize,
        drain: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.receiver.read(limit, drain)
    }

    /// Says whether there is a user already, as there is by default: until one has accepted the connection, its window
    /// does not open beyond that of the SYN.
    pub fn set_accepted(&mut self, accepted: bool) {
        self.receiver.set_accepted(accepted);
    }

    /// Whether both SYNs are acknowledged.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the sequence number of a segment quoted by an ICMP error is one of ours in flight (RFC 5927,
    /// section 4.1). An error that quotes another must be ignored.
    pub fn quotes(&self, seq: SeqNumber) -> bool {
        let offset = self.space.offset(seq);
        if !self.established {
            return self.handshake.ours.is_some() && seq == self.space.iss;
        }
        (self.space.una..self.space.nxt).contains(&offset)
    }

    /// Frames carry at most so many payload bytes from now on: the link no longer cuts super-frames, say.
    pub fn set_max_frame(&mut self, max_frame: usize) {
        self.config.max_frame = max_frame;
    }

    /// The path carries no more than `link_mss` (its MTU less the IP header and 20): what is in flight in larger
    /// segments is lost, and is sent again in smaller ones at once (RFC 1191, section 6.5; no congestion).
    pub fn set_mss(&mut self, now: Instant, link_mss: u16) {
        self.path_mtu.learn(u64::from(link_mss));
        self.resize_segments(now, u64::from(link_mss));
    }

    fn resize_segments(&mut self, now: Instant, link_mss: u64) {
        let before = self.mss;
        self.link_mss = link_mss;
        let Some(agreement) = self.handshake.agreement() else {
            self.mss = link_mss;
            return;
        };
        self.mss = agreement.segment_payload(link_mss);
        self.congestion.set_mss(self.mss);
        if self.mss < before && !self.board.is_empty() {
            self.stats.bytes_lost += self.board.mark_longer_lost(self.mss);
            self.rto_from = now;
            self.pacer.reset(now);
        }
    }

    /// The shortest round trip of late, if any was measured.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.rtt.minimum()
    }

    fn seq(&self, offset: u64) -> SeqNumber {
        self.space.seq(offset)
    }

    /// Bytes in the network; without SACK, each duplicate ACK stands for a segment that has left it (RFC 6582).
    fn in_flight(&self) -> u64 {
        self.board.in_flight().saturating_sub(self.duplicate_acks * self.mss)
    }
}
