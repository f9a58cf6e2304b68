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
//! | `handshake`, `sender`, `receiver` | the three parts of a connection, each with the data that it owns |
//! | `send_space`, `timestamps` | the sequence space, the clock |
//! | `memory_pool` | what all connections' buffers may occupy together |
//! | `send_buffer`, `ring`, `scoreboard` | the user's bytes, and what is known of them |
//! | `rack`, `tail_probe`, `rtt`, `undo` | when something is lost, and when it was not |
//! | `rate`, `congestion`, `prr`, `pacing` | how much and how fast |
//! | `path_mtu` | how large |
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
mod sender;
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

use egress::Control;
use handshake::Handshake;
use ingress::Reported;
use receiver::Receiver;
use sender::Sender;

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

/// The layer for one connection.
pub struct Recovery {
    handshake: Handshake,
    sender: Sender,
    receiver: Receiver,
    /// Our port and the peer's.
    ports: (u16, u16),
    /// Segments without data that wait to be sent.
    control: VecDeque<Control>,
    /// The header that was sent last.
    header: [u8; MAX_HEADER_LEN],
    established: bool,
    /// A reset was sent: nothing else follows.
    aborted: bool,
    challenged_at: Option<Instant>,
    reported: Reported,
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery")
            .field("sender", &self.sender)
            .field("control", &self.control.len())
            .field("reported", &self.reported)
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
        Recovery {
            handshake: Handshake::default(),
            receiver: Receiver::new(config.receive_buffer, pool),
            sender: Sender::new(config, pool),
            ports: (0, 0),
            control: VecDeque::new(),
            header: [0; MAX_HEADER_LEN],
            established: false,
            aborted: false,
            challenged_at: None,
            reported: Reported::default(),
        }
    }

    /// Sets the timestamp clock to the `value` that it had at `at`, when a SYN-ACK was sent for this layer (RFC 7323,
    /// section 5.4).
    pub fn set_clock(&mut self, at: Instant, value: u32) {
        self.sender.clock.start(at, value);
    }

    /// Counters and estimates, as of the last call.
    pub fn stats(&self) -> Stats {
        self.sender.stats()
    }

    /// Bytes that [`Recovery::write`] takes now.
    pub fn room(&self) -> usize {
        if self.established && !self.aborted { self.sender.room() } else { 0 }
    }

    /// Lets `fill` write into a contiguous part of the free buffer, at most `limit` bytes; it returns how much it
    /// wrote. If that was all it could, more is expected to follow at once: an incomplete super-frame waits for it
    /// while anything is in flight (send(2), MSG_MORE).
    ///
    /// # Errors
    /// `fill`'s.
    pub fn write<E>(
        &mut self,
        limit: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.sender.write(limit.min(self.room()), fill)
    }

    /// Gives back what the buffers have allocated and do not use. A busy connection allocates it again.
    pub fn reclaim(&mut self) {
        self.sender.reclaim();
        self.receiver.reclaim();
    }

    /// Bytes that the user handed over and the peer has not acknowledged, a FIN included.
    pub fn outstanding(&self) -> u64 {
        self.sender.space.outstanding()
    }

    /// The same without a FIN.
    pub fn unacknowledged(&self) -> u64 {
        let space = &self.sender.space;
        space.fin.unwrap_or(space.end).saturating_sub(space.una)
    }

    /// Bytes that the user handed over and that have not been sent yet, a FIN included.
    pub fn unsent(&self) -> u64 {
        self.sender.space.end - self.sender.space.nxt
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
        let space = &self.sender.space;
        match self.established {
            true => (space.una..space.nxt).contains(&space.offset(seq)),
            false => self.handshake.ours.is_some() && seq == space.iss,
        }
    }

    /// Limits the payload of further frames, in bytes: the link no longer cuts super-frames, say.
    pub fn set_max_frame(&mut self, max_frame: usize) {
        self.sender.config.max_frame = max_frame;
    }

    /// The path carries no more than `link_mss` (its MTU less the IP header and 20): what is in flight in larger
    /// segments is lost, and is sent again in smaller ones at once (RFC 1191, section 6.5; no congestion).
    pub fn set_mss(&mut self, now: Instant, link_mss: u16) {
        self.sender.path_mtu.learn(u64::from(link_mss));
        self.sender.resize_segments(now, u64::from(link_mss));
    }

    /// The shortest round trip of late, if any was measured.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.sender.rtt.minimum()
    }
}
