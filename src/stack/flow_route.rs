//! A flow's route: next hop, path limits, and the headers that follow from them.
use super::ip::{self, TCP, Template};
use crate::{
    link::{MAX_LINK_HEADER, NextHop},
    neighbour::Neighbour,
    net::FiveTuple,
    recovery::Algorithm,
    segment,
};
use std::{net::IpAddr, time::Duration};

/// Maximum length of the IP and TCP headers together, in bytes.
pub const MAX_HEADERS: usize = ip::IPV6_HEADER + segment::MAX_HEADER_LEN;

/// The size limits of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The route's MTU, in bytes.
    pub mtu: usize,
    /// Maximum length of a super-frame that the kernel segments without falling back to software,
    /// link header included, in bytes.
    pub max_frame: usize,
    /// Maximum segments in a super-frame.
    pub max_segments: usize,
}

/// A flow's next hop and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRoute {
    /// The link address and interface that packets go to.
    pub next_hop: NextHop,
    /// The neighbour whose link address that is.
    pub neighbour: Neighbour,
    /// The size limits of packets there.
    pub path: Path,
}

/// The settings of all flows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Upper bound of the MSS below the one that the MTU gives, in bytes.
    pub mss: Option<usize>,
    /// Size of the send buffer, in bytes.
    pub send_buffer: usize,
    /// Size of the receive buffer, in bytes.
    pub receive_buffer: usize,
    /// TTL or hop limit, 1 to 255.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// The congestion control algorithm.
    pub congestion: Algorithm,
    /// Maximum time that sent data may stay unacknowledged (RFC 9293, section 3.8.3).
    pub user_timeout: Option<Duration>,
    /// Interval between keep-alive probes on an idle connection.
    pub keep_alive: Option<Duration>,
}

/// Returns the header fields that all packets of a flow have in common.
pub fn template(tuple: &FiveTuple, settings: &Settings, seed: u64) -> Template {
    Template {
        source: tuple.local.ip(),
        destination: tuple.remote.ip(),
        protocol: TCP,
        hop_limit: settings.hop_limit,
        traffic_class: settings.traffic_class,
        flow_label: seed as u32,
    }
}

/// Returns the MSS that a flow announces, in bytes: the path's MTU less the IP and TCP headers.
pub fn mss(path: &Path, remote: IpAddr, settings: &Settings) -> usize {
    let ip_header = if remote.is_ipv4() { ip::IPV4_HEADER } else { ip::IPV6_HEADER };
    let mss = path.mtu.saturating_sub(ip_header + segment::MIN_HEADER_LEN);
    mss.min(settings.mss.unwrap_or(mss))
}

/// Returns the maximum payload of one super-frame, in bytes: whole segments only.
pub fn max_payload(path: &Path, mss: usize) -> usize {
    let room = path.max_frame.saturating_sub(MAX_LINK_HEADER + MAX_HEADERS);
    let segments = (room / mss.max(1)).min(path.max_segments).max(1);
    segments * mss
}
