//! Where a flow's packets go, and what they may measure and look like there.
use super::{
    ip::{self, TCP, Template},
    next_hop::Neighbour,
};
use crate::{
    link::{MAX_LINK_HEADER, NextHop},
    net::FiveTuple,
    recovery::Algorithm,
    segment,
};
use std::{net::IpAddr, time::Duration};

/// The largest IP and TCP header together, in bytes.
pub const MAX_HEADERS: usize = ip::IPV6_HEADER + segment::MAX_HEADER_LEN;

/// What a flow's packets may measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The path's MTU as the route has it, in bytes.
    pub mtu: usize,
    /// The longest super-frame that the kernel cuts without falling back to software, link header included,
    /// in bytes.
    pub max_frame: usize,
    /// The most segments in a super-frame.
    pub max_segments: usize,
}

/// Where a flow's packets go, and what they may measure there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRoute {
    pub next_hop: NextHop,
    pub neighbour: Neighbour,
    pub path: Path,
}

/// What flows are made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An upper bound for the MSS, in bytes, below what the MTU gives.
    pub mss: Option<usize>,
    /// Buffer of each direction, in bytes.
    pub send_buffer: usize,
    pub receive_buffer: usize,
    /// TTL or hop limit, 1 to 255.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    pub congestion: Algorithm,
    /// How long data may stay unacknowledged (RFC 9293, section 3.8.3).
    pub user_timeout: Option<Duration>,
    /// Interval between keep-alive probes on an idle connection.
    pub keep_alive: Option<Duration>,
}

/// What every packet of a flow has in common.
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

/// The MSS that a flow announces: the path's MTU less the IP and TCP headers, in bytes.
pub fn mss(path: &Path, remote: IpAddr, settings: &Settings) -> usize {
    let ip_header = if remote.is_ipv4() { ip::IPV4_HEADER } else { ip::IPV6_HEADER };
    let mss = path.mtu.saturating_sub(ip_header + segment::MIN_HEADER_LEN);
    mss.min(settings.mss.unwrap_or(mss))
}

/// The most payload in one super-frame: whole segments only.
pub fn max_payload(path: &Path, mss: usize) -> usize {
    let room = path.max_frame.saturating_sub(MAX_LINK_HEADER + MAX_HEADERS);
    let segments = (room / mss.max(1)).min(path.max_segments).max(1);
    segments * mss
}
