//! The sender of a connection: the user's data, the part of it in the network, and the capacity of
//! the path.
//!
//! [`Sender`] owns the parts and the estimates of the path. The files beside it act on it, in the
//! order of a byte's life: `send_buffer` accepts it from the user, `transmit` sends it, `ack_batch`
//! processes its acknowledgment, and `timers` acts when the peer stays silent.
use super::{
    Config, Instant, Stats, ack_batch::AckBatch, congestion::CongestionControl, memory_pool::MemoryPool,
    negotiation::Negotiated, pacing::Pacer, path_mtu::PathMtu, prr::Prr, rack::Rack, rate::RateEstimator,
    rtt::RttEstimator, scoreboard::Scoreboard, send_buffer::SendBuffer, send_space::SendSpace,
    timers::Timers, timestamps::TimestampClock, transmit::WindowUsage, undo::SpuriousDetector,
};
use crate::segment::{Segment, SeqNumber};
use std::{fmt, time::Duration};

/// The phase of loss recovery (RFC 8985, RFC 6298).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecoveryPhase {
    Open,
    /// Fast recovery, which ends when this offset is acknowledged.
    Recovery {
        until: u64,
    },
    /// After a retransmission timeout.
    Loss {
        until: u64,
    },
}

/// The sender of one connection.
pub(super) struct Sender {
    pub config: Config,
    /// The negotiated of both SYNs, once they are known.
    pub negotiated: Option<Negotiated>,
    pub sack: bool,
    pub use_timestamps: bool,
    /// Payload of a full segment, in bytes.
    pub mss: u64,
    /// The path's MTU less the IP header and 20.
    pub link_mss: u64,
    pub clock: TimestampClock,

    pub space: SendSpace,
    pub buffer: SendBuffer,
    pub board: Scoreboard,

    pub phase: RecoveryPhase,
    pub rtt: RttEstimator,
    pub rack: Rack,
    pub undo: SpuriousDetector,
    /// The effect of the current batch of ACKs.
    pub batch: Option<AckBatch>,
    /// Consecutive duplicate ACKs, for peers without SACK.
    pub duplicate_acks: u64,
    pub timers: Timers,

    pub congestion: Box<dyn CongestionControl>,
    pub rate: RateEstimator,
    pub delivery_rate: u64,
    pub usage: WindowUsage,
    pub prr: Option<Prr>,
    pub pacer: Pacer,
    /// Pacing delayed the last frame.
    pub pacing_blocked: bool,
    pub path_mtu: PathMtu,

    pub stats: Stats,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("space", &self.space)
            .field("phase", &self.phase)
            .field("lost", &self.board.lost())
            .field("sacked", &self.board.sacked())
            .field("rtt", &self.rtt)
            .field("rack", &self.rack)
            .field("prr", &self.prr)
            .field("congestion", &self.congestion)
            .field("timers", &self.timers)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Returns the sender of a connection that is about to be opened.
    pub(crate) fn new(config: Config, pool: &MemoryPool) -> Sender {
        let link_mss = u64::from(config.link_mss);
        let mut sender = Sender {
            negotiated: None,
            sack: false,
            use_timestamps: false,
            mss: link_mss,
            link_mss,
            clock: TimestampClock::default(),
            space: SendSpace::default(),
            buffer: SendBuffer::new(config.send_buffer, pool),
            board: Scoreboard::default(),
            phase: RecoveryPhase::Open,
            rtt: RttEstimator::new(config.rto_min),
            rack: Rack::default(),
            undo: SpuriousDetector::default(),
            batch: None,
            duplicate_acks: 0,
            timers: Timers::default(),
            congestion: config.algorithm.start(link_mss, config.initial_window),
            rate: RateEstimator::default(),
            delivery_rate: 0,
            usage: WindowUsage::default(),
            prr: None,
            pacer: Pacer::default(),
            pacing_blocked: false,
            path_mtu: PathMtu::new(link_mss),
            stats: Stats::default(),
            config,
        };
        sender.charge_pool();
        sender
    }

    /// Resets to this initial sequence number and, where the SYN has one, this timestamp.
    pub(crate) fn synchronize(&mut self, now: Instant, iss: SeqNumber, timestamp: Option<u32>) {
        self.space = SendSpace::new(iss);
        self.board = Scoreboard::new(self.space.una);
        if let Some(value) = timestamp {
            self.clock.start(now, value);
        }
    }

    /// Applies the negotiated of both SYNs.
    pub(crate) fn agree(&mut self, negotiated: Negotiated) {
        self.negotiated = Some(negotiated);
        self.sack = negotiated.sack;
        self.use_timestamps = negotiated.timestamps;
    }

    /// Starts sending data. `segment` acknowledges our SYN and carries the peer's window, scaled by
    /// `shift`. `rtt` is the round trip of the handshake, if it measures one.
    pub(crate) fn establish(
        &mut self,
        now: Instant,
        segment: &Segment,
        shift: u8,
        negotiated: Negotiated,
        rtt: Option<Duration>,
    ) {
        self.mss = negotiated.segment_payload(self.link_mss);
        self.space.shift = negotiated.peer_shift;
        // Converted to a later segment's scale, since the field will be compared with those.
        let field = segment.window >> (negotiated.peer_shift - shift);
        self.space.set_window(segment.seq, field, u64::from(segment.window) << shift);
        self.congestion = self.config.algorithm.start(self.mss, self.config.initial_window);
        if let Some(rtt) = rtt {
            self.rtt.sample(now, rtt, rtt);
        }
        self.board = Scoreboard::new(self.space.una);
        self.rate.start(now);
        self.timers.start(now);
    }

    /// Returns counters and estimates.
    pub(crate) fn stats(&self) -> Stats {
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

    /// Changes the size of segments to that of a path for `link_mss`.
    pub(crate) fn resize_segments(&mut self, now: Instant, link_mss: u64) {
        let before = self.mss;
        self.link_mss = link_mss;
        let Some(negotiated) = self.negotiated else {
            self.mss = link_mss;
            return;
        };
        self.mss = negotiated.segment_payload(link_mss);
        self.congestion.set_mss(self.mss);
        if self.mss < before && !self.board.is_empty() {
            self.stats.bytes_lost += self.board.mark_longer_lost(self.mss);
            self.timers.rto_from = now;
            self.pacer.reset(now);
        }
    }

    /// Returns the bytes in flight. Without SACK, each duplicate ACK stands for a segment that has
    /// left the network (RFC 6582).
    pub(crate) fn in_flight(&self) -> u64 {
        self.board.in_flight().saturating_sub(self.duplicate_acks * self.mss)
    }
}
