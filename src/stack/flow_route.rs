//! A flow's route: next hop, path limits, and the headers that follow from them.
use super::ip::{self, TCP, Template};
use crate::{
    host::metrics::Metrics,
    link::{MAX_LINK_HEADER, NextHop},
    neighbour::Neighbour,
    net::FiveTuple,
    recovery::Algorithm,
    segment,
};
use std::{net::IpAddr, time::Duration};

/// Maximum length of the IP and TCP headers together, in bytes.
pub(crate) const MAX_HEADERS: usize = ip::IPV6_HEADER + segment::MAX_HEADER_LEN;

/// TTL and hop limit of datagrams to a group (RFC 1112, section 6.1).
const MULTICAST_HOP_LIMIT: u8 = 1;

/// The limits of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The route's MTU, in bytes.
    pub mtu: usize,
    /// Maximum length of a super-frame that the kernel segments without falling back to software,
    /// link header included, in bytes.
    pub max_frame: usize,
    /// Maximum segments in a super-frame.
    pub max_segments: usize,
    /// The interface's hop limit for IPv6 (net.ipv6.conf.*.hop_limit, which router advertisements set).
    pub ipv6_hop_limit: u8,
}

/// A flow's next hop and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRoute {
    /// The link address and interface that packets go to.
    pub next_hop: NextHop,
    /// The neighbour whose link address that is.
    pub neighbour: Neighbour,
    /// The limits of packets there.
    pub path: Path,
    /// The metrics of the host's route.
    pub metrics: Metrics,
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
    /// TTL or hop limit, 1 to 255, that wins over the route's and the host's.
    pub hop_limit: Option<u8>,
    /// TTL where the route names none, 1 to 255 (net.ipv4.ip_default_ttl).
    pub default_ttl: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// The congestion control algorithm that wins over the route's and the host's.
    pub congestion: Option<Algorithm>,
    /// The congestion control algorithm where the route names none
    /// (net.ipv4.tcp_congestion_control).
    pub default_congestion: Algorithm,
    /// Maximum time that sent data may stay unacknowledged (RFC 9293, section 3.8.3).
    pub user_timeout: Option<Duration>,
    /// Interval between keep-alive probes on an idle connection.
    pub keep_alive: Option<Duration>,
}

/// Returns the header fields that all packets of a flow have in common.
pub(crate) fn template(tuple: &FiveTuple, hop_limit: u8, settings: &Settings, seed: u64) -> Template {
    Template {
        source: tuple.local.ip(),
        destination: tuple.remote.ip(),
        protocol: TCP,
        hop_limit,
        traffic_class: settings.traffic_class,
        flow_label: seed as u32,
    }
}

impl Settings {
    /// Returns the TTL or hop limit of packets to `remote`: the user's, a group's, the route's, or the host's.
    /// As for a socket, no route raises a group's (IP_MULTICAST_TTL in ip(7),
    /// IPV6_MULTICAST_HOPS in ipv6(7)).
    pub(super) fn hop_limit(&self, remote: IpAddr, ipv6_hop_limit: u8, metrics: &Metrics) -> u8 {
        let of_group = remote.is_multicast().then_some(MULTICAST_HOP_LIMIT);
        self.hop_limit.or(of_group).or(metrics.hop_limit).unwrap_or(match remote {
            IpAddr::V4(_) => self.default_ttl,
            IpAddr::V6(_) => ipv6_hop_limit,
        })
    }

    /// Returns the congestion control of a route's flows: the user's, the route's if netkat has it, or
    /// the host's.
    pub(super) fn congestion(&self, metrics: &Metrics) -> Algorithm {
        let of_route = || metrics.congestion_control?.parse().ok();
        self.congestion.or_else(of_route).unwrap_or(self.default_congestion)
    }

    /// Returns the MSS to announce instead of the path's; `None` where the route names none. As in the
    /// kernel (tcp_connect_init() in net/ipv4/tcp_output.c), the route's does not depend on the MTU, limits
    /// only what the peer sends, and does not exceed the user's.
    pub(super) fn advertised_mss(&self, metrics: &Metrics) -> Option<u16> {
        let limit = self.mss.and_then(|mss| u16::try_from(mss).ok()).unwrap_or(u16::MAX);
        metrics.advertised_mss.map(|announced| announced.min(limit))
    }
}

impl Path {
    /// Returns this path with the MTU of a route that uses it.
    pub(super) fn with_mtu_of(self, metrics: &Metrics) -> Path {
        let mtu = metrics.mtu.map_or(self.mtu, |mtu| self.mtu.min(mtu as usize));
        Path { mtu, ..self }
    }
}

/// Returns the MSS that a path carries, in bytes: its MTU less the IP and TCP headers.
pub(crate) fn mss(path: &Path, remote: IpAddr, settings: &Settings) -> usize {
    let ip_header = if remote.is_ipv4() { ip::IPV4_HEADER } else { ip::IPV6_HEADER };
    let mss = path.mtu.saturating_sub(ip_header + segment::MIN_HEADER_LEN);
    mss.min(settings.mss.unwrap_or(mss))
}

/// Returns the maximum payload of one super-frame, in bytes: whole segments only.
pub(crate) fn max_payload(path: &Path, mss: usize) -> usize {
    let room = path.max_frame.saturating_sub(MAX_LINK_HEADER + MAX_HEADERS);
    let segments = (room / mss.max(1)).min(path.max_segments).max(1);
    segments * mss
}
