//! The outcome of a run as data, for scripts (`--json`): one object, for success and failure alike.
use super::{Egress, Verdict, session::Summary};
use crate::net::FiveTuple;
use serde::{Serialize, Serializer};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// What is known at the end; what was not reached stays null. Times are in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    verdict: Option<Verdict>,
    /// The words of the failure.
    error: Option<String>,
    flow: Option<Ends>,
    route: Option<Way>,
    timings: Timings,
    traffic: Option<Traffic>,
    /// The results of -z, in the order of the ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Ends {
    /// Null until there is a port to send from.
    local: Option<SocketAddr>,
    remote: SocketAddr,
}

#[derive(Clone, Debug, Serialize)]
struct Way {
    interface: String,
    source: IpAddr,
    next_hop: String,
    mtu: u32,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Timings {
    /// Finding the next hop's link address, by ARP or neighbour discovery.
    #[serde(serialize_with = "milliseconds")]
    neighbour: Option<Duration>,
    /// From the first SYN to the end of the handshake.
    #[serde(serialize_with = "milliseconds")]
    connect: Option<Duration>,
    /// From the end of the handshake to the peer's first data.
    #[serde(serialize_with = "milliseconds")]
    first_byte: Option<Duration>,
    /// From the end of the handshake to the end of the connection.
    #[serde(serialize_with = "milliseconds")]
    close: Option<Duration>,
}

#[derive(Clone, Debug, Serialize)]
struct Traffic {
    bytes_sent: u64,
    bytes_received: u64,
    /// Segments with data, those sent again included.
    segments_sent: u64,
    segments_lost: u64,
    segments_retransmitted: u64,
    /// Those of them that the peer had already.
    spurious_retransmissions: u64,
    /// Times that the retransmission timer ran out.
    timeouts: u64,
    tail_probes: u64,
    #[serde(serialize_with = "milliseconds")]
    smoothed_rtt: Option<Duration>,
    #[serde(serialize_with = "milliseconds")]
    min_rtt: Option<Duration>,
    congestion_control: String,
    /// In bytes.
    congestion_window: u64,
    /// In bytes a second.
    bandwidth: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct Port {
    address: IpAddr,
    port: u16,
    /// Null for an open port.
    failure: Option<Verdict>,
    error: Option<String>,
}

impl Report {
    /// A connection is tried, this way.
    pub(super) fn attempt(&mut self, remote: SocketAddr, egress: &Egress) {
        self.flow = Some(Ends { local: None, remote });
        self.route = Some(Way {
            interface: egress.interface.name.clone(),
            source: egress.source,
            next_hop: egress.next_hop.to_string(),
            mtu: egress.mtu,
        });
    }

    pub(super) fn resolved(&mut self, time: Duration) {
        self.timings.neighbour = Some(time);
    }

    pub(super) fn flow(&mut self, tuple: &FiveTuple) {
        self.flow = Some(Ends { local: Some(tuple.local), remote: tuple.remote });
    }

    pub(super) fn connected(&mut self, time: Duration) {
        self.timings.connect = Some(time);
    }

    /// The connection is over.
    pub(super) fn summary(&mut self, summary: &Summary) {
        self.timings.first_byte = summary.first_byte;
        self.timings.close = Some(summary.duration);
        let (counters, stats) = (&summary.counters, &summary.stats);
        self.traffic = Some(Traffic {
            bytes_sent: counters.bytes_sent,
            bytes_received: counters.bytes_received,
            segments_sent: stats.segments_sent,
            segments_lost: stats.segments_lost(),
            segments_retransmitted: stats.segments_retransmitted,
            spurious_retransmissions: stats.duplicate_sacks,
            timeouts: stats.timeouts,
            tail_probes: stats.tail_probes,
            smoothed_rtt: stats.smoothed_rtt,
            min_rtt: stats.min_rtt,
            congestion_control: stats.algorithm.to_string(),
            congestion_window: stats.congestion_window,
            bandwidth: stats.bandwidth,
        });
    }

    pub(super) fn port(&mut self, at: SocketAddr, result: Result<(), &super::Error>) {
        self.ports.push(Port {
            address: at.ip(),
            port: at.port(),
            failure: result.err().map(Verdict::from),
            error: result.err().map(ToString::to_string),
        });
    }

    /// The run is over. Returns the object, on one line.
    ///
    /// # Errors
    /// None that can occur: everything here has a form in JSON.
    pub fn conclude(mut self, verdict: Verdict, error: Option<String>) -> serde_json::Result<String> {
        (self.verdict, self.error) = (Some(verdict), error);
        serde_json::to_string(&self)
    }
}

fn milliseconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: finer digits are noise.
    time.map(|time| time.as_micros() as f64 / 1e3).serialize(serializer)
}
