//! The byte streams of a connection: loss recovery, congestion control, reassembly.
//!
//! # Theory of operation
//!
//! A [`Recovery`] holds one connection's two streams. It does no I/O and has no clock. The TCP
//! state machine of RFC 9293 (LISTEN to TIME-WAIT) lives elsewhere and sees no data. There are five
//! kinds of methods:
//!
//! - *State machine*: [`send_syn`](Recovery::send_syn), [`send_fin`](Recovery::send_fin) and
//!   [`send_reset`](Recovery::send_reset) request segments without data.
//! - *Wire*: [`handle_segment`](Recovery::handle_segment) processes a segment: acknowledgments take
//!   effect, data is kept. The [`SegmentOutcome`] says whether the state machine must act on the
//!   segment, for a handshake or a reset, or whether the user may read the payload in place; then
//!   [`keep`](Recovery::keep) keeps the rest. Then, or later, the caller calls
//!   [`poll_event`](Recovery::poll_event) until it returns `None`, and passes the events to the
//!   state machine.
//! - *User*: [`write`](Recovery::write) fills a ring, which holds the only copy of unacknowledged
//!   data. [`read`](Recovery::read) delivers data in order.
//! - *Event loop*: after any of these, the loop calls [`poll_transmit`](Recovery::poll_transmit)
//!   until it returns `None`, and again at the latest at [`poll_at`](Recovery::poll_at). Until
//!   [`quantum_at`](Recovery::quantum_at) it may let received segments wait.
//! - *Getters* change nothing. They may be called at any time.
//!
//! The state machine retransmits a SYN (after a second, as in RFC 6298). This module retransmits
//! everything else.
//!
//! RACK (RFC 8985) detects losses on a scoreboard of SACKed runs, tail loss probes cover the end of
//! a flight, and the timer of RFC 6298 is the last resort. A congestion controller limits the bytes
//! in flight and their rate. Proportional rate reduction (RFC 9937) governs a recovery; a recovery
//! that proves spurious is undone. The persist timer probes a shut window (RFC 9293, section
//! 3.8.6.1), and path MTU discovery finds a path that drops large segments (RFC 4821).
//!
//! | file | job |
//! |---|---|
//! | `negotiation`, `sender`, `receiver` | the three parts of a connection, each with the data that it owns |
//! | `send_space`, `timestamps` | the sequence space, the timestamp clock |
//! | `memory_pool` | the memory that all connections' buffers share |
//! | `send_buffer`, `ring`, `scoreboard` | the user's bytes, and the state of each |
//! | `rack`, `tail_probe`, `rtt`, `undo` | detection of losses, and of spurious ones |
//! | `rate`, `congestion`, `prr`, `pacing` | how much to send, and how fast |
//! | `path_mtu` | the size of segments |
//! | `egress` | segments that the state machine requests |
//! | `opening`, `ingress`, `ack_batch` | received segments before and after the handshake, and acknowledgments |
//! | `timers`, `transmit` | when to send, and what |
mod ack_batch;
mod congestion;
mod egress;
mod ingress;
mod memory_pool;
mod negotiation;
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

use crate::segment::{MAX_HEADER_LEN, Options, SeqNumber};
use std::{collections::VecDeque, fmt, time::Duration};

pub use congestion::{Algorithm, INITIAL_WINDOW};
pub use memory_pool::MemoryPool;
pub(crate) use receiver::{is_acceptable, window_shift};
pub use rtt::RTO_MIN;
pub use time::Instant;

use egress::Control;
use ingress::Reported;
use negotiation::Negotiation;
use receiver::Receiver;
use sender::Sender;

/// The parameters of a new connection.
#[derive(Clone, Debug)]
pub struct Config {
    /// Maximum bytes that wait to be sent and acknowledged. The buffer grows up to this.
    pub send_buffer: usize,
    /// Maximum bytes that wait to be read, and so the largest window. The buffer grows up to this.
    pub receive_buffer: usize,
    /// Maximum payload of a segment without options, in bytes: the link's MTU less the IP header and 20.
    pub link_mss: u16,
    /// The MSS option of our SYN, in bytes; `None` for `link_mss`.
    pub advertised_mss: Option<u16>,
    /// Maximum payload of one super-frame, in bytes. At or below the MSS, every frame is one
    /// segment.
    pub max_frame: usize,
    /// The congestion control algorithm.
    pub algorithm: Algorithm,
    /// Initial congestion window, in segments.
    pub initial_window: u32,
    /// Minimum of the retransmission timeout's variance term.
    pub rto_min: Duration,
    /// Time for which data may stay unacknowledged before [`Recovery::timed_out`] reports it (RFC
    /// 9293, section 3.8.3; RFC 5482).
    pub user_timeout: Option<Duration>,
    /// Silence after which keep-alives probe the peer (RFC 9293, section 3.8.4).
    pub keep_alive: Option<Duration>,
}

/// The outcome of [`Recovery::handle_segment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentOutcome {
    /// The segment is processed.
    Processed,
    /// The segment is a SYN that opens the connection or, in SYN-RECEIVED, an ACK of something else
    /// than our SYN. The state machine must act on its flags and numbers; its payload and FIN are
    /// processed.
    Handshake,
    /// The segment is an acceptable reset.
    Reset,
    /// The payload is in order and not consumed. The user may read it in place; [`Recovery::keep`]
    /// then keeps the rest.
    InOrder,
}

/// A step in the life of a connection; see [`Recovery::poll_event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both SYNs are acknowledged.
    Established,
    /// The peer has acknowledged all our data and our FIN.
    FinAcknowledged,
    /// All data of the peer and its FIN have arrived.
    PeerFinished,
}

/// A segment or super-frame to put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The TCP header with its options; the checksum field is zero.
    pub header: &'a [u8],
    /// The payload, in two pieces where it crosses the ring's end.
    pub payload: [&'a [u8]; 2],
    /// Payload of each segment of a super-frame but the last, in bytes; `None` for one segment.
    pub gso_size: Option<u16>,
}

impl Transmit<'_> {
    /// Returns the length of the payload, in bytes.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(|piece| piece.len()).sum()
    }
}

/// Counters since the connection began, and estimates of the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Payload bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Segments sent with payload; pure ACKs do not count.
    pub segments_sent: u64,
    /// Payload bytes retransmitted.
    pub bytes_retransmitted: u64,
    /// Segments retransmitted.
    pub segments_retransmitted: u64,
    /// Recoveries begun because RACK or three duplicate ACKs detected a loss.
    pub fast_recoveries: u64,
    /// Bytes marked lost, by any means.
    pub bytes_lost: u64,
    /// Recoveries that proved spurious and were undone.
    pub spurious_recoveries: u64,
    /// Blocks that the peer reported as duplicates (RFC 2883).
    pub duplicate_sacks: u64,
    /// Records that arrived after a record sent later.
    pub reordered: u64,
    /// Expirations of the retransmission timer.
    pub timeouts: u64,
    /// Tail loss probes sent.
    pub tail_probes: u64,
    /// Window probes sent.
    pub window_probes: u64,
    /// Times that the peer reneged: discarded data that it had SACKed.
    pub reneged: u64,
    /// Smoothed round-trip time.
    pub smoothed_rtt: Option<Duration>,
    /// Minimum round-trip time of the last minute.
    pub min_rtt: Option<Duration>,
    /// The congestion control algorithm.
    pub algorithm: Algorithm,
    /// Congestion window, in bytes.
    pub congestion_window: u64,
    /// Slow-start threshold, in bytes; `None` before the first loss.
    pub slow_start_threshold: Option<u64>,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Bandwidth, in bytes a second: the algorithm's estimate, or else the last delivery rate.
    pub bandwidth: Option<u64>,
    /// Pacing rate, in bytes a second; `None` where the ACKs set the pace.
    pub pacing_rate: Option<u64>,
    /// Payload of a full segment, in bytes.
    pub segment_size: u64,
}

impl Stats {
    /// Returns the segments marked lost, by any means.
    pub(crate) fn segments_lost(&self) -> u64 {
        self.bytes_lost.div_ceil(self.segment_size.max(1))
    }
}

/// The byte streams of one connection; see the [module](self).
pub struct Recovery {
    negotiation: Negotiation,
    sender: Sender,
    receiver: Receiver,
    /// Our port and the peer's.
    ports: (u16, u16),
    /// Segments without data that wait to be sent.
    control: VecDeque<Control>,
    /// The header sent last.
    header: [u8; MAX_HEADER_LEN],
    established: bool,
    /// A reset was sent: nothing follows.
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
    /// Returns the recovery state of a connection that [`Recovery::send_syn`] or the peer's SYN
    /// will open.
    pub fn new(config: Config) -> Self {
        Recovery::sharing(config, &MemoryPool::unlimited())
    }

    /// Returns the recovery state of one of many connections, whose buffers share `pool`.
    pub fn sharing(config: Config, pool: &MemoryPool) -> Self {
        Recovery {
            negotiation: Negotiation::default(),
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

    /// Sets the timestamp clock to the `value` that a SYN-ACK sent for this connection carried at
    /// `at` (RFC 7323, section 5.4).
    pub fn set_clock(&mut self, at: Instant, value: u32) {
        self.sender.clock.start(at, value);
    }

    /// Returns the MSS options of our SYN and of the peer's, in bytes.
    pub(crate) fn announced_mss(&self) -> (Option<u16>, Option<u16>) {
        let mss = |options: Option<Options>| options.and_then(|options| options.mss);
        (mss(self.negotiation.ours), mss(self.negotiation.theirs))
    }

    /// Returns whether full segments were lost so persistently that smaller ones are sent.
    pub(crate) fn suspects_black_hole(&self) -> bool {
        self.sender.path_mtu.is_searching()
    }

    /// Returns counters and estimates, as of the last call.
    pub fn stats(&self) -> Stats {
        self.sender.stats()
    }

    /// Returns the bytes that [`Recovery::write`] accepts now.
    pub fn room(&self) -> usize {
        if self.established && !self.aborted { self.sender.room() } else { 0 }
    }

    /// Lets `fill` write into a contiguous part of the free buffer, at most `limit` bytes. `fill`
    /// returns the length that it wrote. If `fill` writes all that it was offered, more data is
    /// expected at once: an incomplete super-frame waits for it while anything is in flight
    /// (send(2), MSG_MORE).
    ///
    /// # Errors
    /// Fails when `fill` does.
    pub fn write<E>(
        &mut self,
        limit: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.sender.write(limit.min(self.room()), fill)
    }

    /// Frees buffer memory that is allocated and unused. A busy connection allocates it again.
    pub(crate) fn reclaim(&mut self) {
        self.sender.reclaim();
        self.receiver.reclaim();
    }

    /// Returns the bytes written and not acknowledged, a FIN included.
    pub fn outstanding(&self) -> u64 {
        self.sender.space.outstanding()
    }

    /// Returns the bytes written and not acknowledged, without a FIN.
    pub(crate) fn unacknowledged(&self) -> u64 {
        let space = &self.sender.space;
        space.fin.unwrap_or(space.end).saturating_sub(space.una)
    }

    /// Returns the bytes written and not sent yet, a FIN included.
    pub fn unsent(&self) -> u64 {
        self.sender.space.end - self.sender.space.nxt
    }

    /// Returns the sequence number expected next from the peer (RCV.NXT).
    pub(crate) fn expected(&self) -> SeqNumber {
        self.receiver.expected()
    }

    /// Returns whether `seq` lies between the sequence number expected next and the end of our
    /// window.
    pub(crate) fn admits(&self, seq: SeqNumber) -> bool {
        self.receiver.admits(seq)
    }

    /// Returns the bytes that [`Recovery::read`] can deliver now.
    pub fn readable(&self) -> usize {
        self.receiver.readable()
    }

    /// Hands `drain` a contiguous part of the received data, at most `limit` bytes. `drain` returns
    /// the length that it consumed.
    ///
    /// # Errors
    /// Fails when `drain` does.
    pub fn read<E>(
        &mut self,
        limit: usize,
        drain: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.receiver.read(limit, drain)
    }

    /// Sets whether a user has accepted the connection; true by default. Before that, the window
    /// stays at that of the SYN.
    pub(crate) fn set_accepted(&mut self, accepted: bool) {
        self.receiver.set_accepted(accepted);
    }

    /// Returns whether both SYNs are acknowledged.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Returns whether `seq`, quoted by an ICMP error, lies in our data in flight. The caller must
    /// ignore an error for which it does not (RFC 5927, section 4.1).
    pub fn quotes(&self, seq: SeqNumber) -> bool {
        let space = &self.sender.space;
        match self.established {
            true => (space.una..space.nxt).contains(&space.offset(seq)),
            false => self.negotiation.ours.is_some() && seq == space.iss,
        }
    }

    /// Limits the payload of further frames, in bytes, for example when the link stops segmenting
    /// super-frames.
    pub(crate) fn set_max_frame(&mut self, max_frame: usize) {
        self.sender.config.max_frame = max_frame;
    }

    /// Adapts to a path that carries only `link_mss` (its MTU less the IP header and 20). Data in
    /// flight in larger segments is lost; smaller segments retransmit it at once (RFC 1191, section
    /// 6.5; this is no congestion).
    pub fn set_mss(&mut self, now: Instant, link_mss: u16) {
        self.sender.path_mtu.learn(u64::from(link_mss));
        self.sender.resize_segments(now, u64::from(link_mss));
    }

    /// Returns the shortest recent round trip, once one was measured.
    pub(crate) fn min_rtt(&self) -> Option<Duration> {
        self.sender.rtt.minimum()
    }
}
