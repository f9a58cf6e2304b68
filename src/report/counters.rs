//! Times and counters of a run, as its JSON objects have them. Each name ends in its unit.
use crate::session::{PathSize, Summary, datagrams::DatagramSummary};
use serde::{Serialize, Serializer};
use std::time::Duration;

/// The times of a run's steps, in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Timings {
    /// Look-up of the host's name; null for an address.
    #[serde(rename = "name_ms", serialize_with = "milliseconds")]
    pub name: Option<Duration>,
    /// Resolution of the next hop's link address, by ARP or neighbour discovery.
    #[serde(rename = "neighbour_ms", serialize_with = "milliseconds")]
    pub neighbour: Option<Duration>,
    /// From the first SYN to the end of the handshake.
    #[serde(rename = "connect_ms", serialize_with = "milliseconds")]
    pub connect: Option<Duration>,
    /// From the end of the handshake, or from the start where there is none, to the peer's first data.
    #[serde(rename = "first_byte_ms", serialize_with = "milliseconds")]
    pub first_byte: Option<Duration>,
    /// From the end of the handshake, or from the start where there is none, to the end.
    #[serde(rename = "close_ms", serialize_with = "milliseconds")]
    pub close: Option<Duration>,
}

/// The counters of a TCP connection.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Traffic {
    sent_bytes: u64,
    received_bytes: u64,
    /// Segments with a wrong checksum or header length.
    invalid_segments: u64,
    /// Segments with data, retransmissions included.
    sent_segments: u64,
    lost_segments: u64,
    retransmitted_segments: u64,
    /// Retransmissions that the peer reported as duplicates (DSACK).
    spurious_retransmissions: u64,
    /// Expiries of the retransmission timer.
    timeouts: u64,
    tail_probes: u64,
    #[serde(rename = "smoothed_rtt_ms", serialize_with = "milliseconds")]
    smoothed_rtt: Option<Duration>,
    #[serde(rename = "min_rtt_ms", serialize_with = "milliseconds")]
    min_rtt: Option<Duration>,
    congestion_control: String,
    congestion_window_bytes: u64,
    bandwidth_bytes_per_second: Option<u64>,
}

/// The packet sizes of a TCP connection's path.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PathSizes {
    link_mtu_bytes: Option<u32>,
    /// By the route and what routers said.
    path_mtu_bytes: usize,
    peer_mss_bytes: Option<u16>,
    own_mss_bytes: Option<u16>,
    /// The last router that said "too big".
    too_big_from: Option<String>,
    too_big_mtu_bytes: Option<u32>,
    black_hole: bool,
}

impl From<&PathSize> for PathSizes {
    fn from(size: &PathSize) -> PathSizes {
        PathSizes {
            link_mtu_bytes: size.link,
            path_mtu_bytes: size.path,
            peer_mss_bytes: size.peer_mss,
            own_mss_bytes: size.own_mss,
            too_big_from: size.too_big.map(|(from, _)| from.to_string()),
            too_big_mtu_bytes: size.too_big.map(|(_, mtu)| mtu),
            black_hole: size.black_hole,
        }
    }
}

/// The counters of a UDP port.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Datagrams {
    sent_datagrams: u64,
    sent_bytes: u64,
    received_datagrams: u64,
    received_bytes: u64,
    /// Frames that the kernel dropped because the receive buffer was full.
    lost_frames: u64,
    /// Datagrams that this host's own egress dropped.
    egress_dropped_datagrams: u64,
    /// Datagrams from other hosts than the peer.
    stranger_datagrams: u64,
    /// Datagrams with a wrong checksum or length.
    invalid_datagrams: u64,
}

impl From<&Summary> for Timings {
    /// Returns the times of a connection that was accepted.
    fn from(summary: &Summary) -> Timings {
        let close = Some(summary.duration);
        Timings { first_byte: summary.first_byte, close, ..Timings::default() }
    }
}

impl From<&Summary> for Traffic {
    fn from(summary: &Summary) -> Traffic {
        let (counters, stats) = (&summary.counters, &summary.stats);
        Traffic {
            sent_bytes: counters.bytes_sent,
            received_bytes: counters.bytes_received,
            invalid_segments: counters.invalid,
            sent_segments: stats.segments_sent,
            lost_segments: stats.segments_lost(),
            retransmitted_segments: stats.segments_retransmitted,
            spurious_retransmissions: stats.duplicate_sacks,
            timeouts: stats.timeouts,
            tail_probes: stats.tail_probes,
            smoothed_rtt: stats.smoothed_rtt,
            min_rtt: stats.min_rtt,
            congestion_control: stats.algorithm.to_string(),
            congestion_window_bytes: stats.congestion_window,
            bandwidth_bytes_per_second: stats.bandwidth,
        }
    }
}

impl From<&DatagramSummary> for Datagrams {
    fn from(summary: &DatagramSummary) -> Datagrams {
        let counters = &summary.counters;
        Datagrams {
            sent_datagrams: counters.datagrams_sent,
            sent_bytes: counters.bytes_sent,
            received_datagrams: counters.datagrams_received,
            received_bytes: counters.bytes_received,
            lost_frames: summary.lost,
            egress_dropped_datagrams: counters.egress_drops,
            stranger_datagrams: counters.strangers,
            invalid_datagrams: counters.invalid,
        }
    }
}

/// Writes a time in milliseconds.
pub(super) fn milliseconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(in_milliseconds).serialize(serializer)
}

/// Returns a time in milliseconds, to whole microseconds: finer digits are noise.
pub(super) fn in_milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
