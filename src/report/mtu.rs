//! The outcome of `--mtu`, as text and as JSON (docs/schema/mtu.json).
use super::Verdict;
use crate::{
    net::{
        FiveTuple, Protocol,
        zone::{ScopedIp, zone_of},
    },
    path::MtuFinding,
};
use serde::Serialize;
use std::{fmt::Write, net::IpAddr};

/// Length of IP and TCP header without options, in bytes, which an MSS leaves out (RFC 6691).
const HEADERS: (u32, u32) = (40, 60);

/// A measurement.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// The interface's MTU, in bytes.
    pub link: u32,
    /// The route's MTU, which the flow's packets keep to, in bytes.
    pub route: u32,
    pub finding: MtuFinding,
    /// The MSS options of both SYNs, in bytes.
    pub own_mss: Option<u16>,
    pub peer_mss: Option<u16>,
    /// The largest packet that came from the peer, in bytes.
    pub largest_received: Option<u32>,
    /// The last router that packets of a black hole reached, and its distance.
    pub lost_after: Option<(u8, IpAddr)>,
}

/// A measurement that is over.
#[derive(Debug, Serialize)]
pub(crate) struct MtuReport {
    verdict: Verdict,
    /// The conclusion in words.
    summary: String,
    link_mtu_bytes: u32,
    /// The route's limit: the link's MTU, a metric, or what the kernel has learned.
    route_mtu_bytes: u32,
    /// The largest packet that arrived at the peer; null if none did.
    path_mtu_bytes: Option<u32>,
    told: Vec<Told>,
    /// The smallest packet that was lost without a message.
    lost_bytes: Option<u32>,
    /// Packets that the connection may use are lost without a message.
    black_hole: bool,
    /// The last router that lost packets reached.
    lost_after_hop: Option<u8>,
    lost_after_address: Option<String>,
    /// The MSS that the peer announces, which limits what is sent to it.
    peer_mss_bytes: Option<u16>,
    /// The MSS that netkat announces, which limits what the peer sends.
    own_mss_bytes: Option<u16>,
    largest_received_bytes: Option<u32>,
    #[serde(skip)]
    text: String,
}

/// A router's message.
#[derive(Debug, Serialize)]
struct Told {
    address: String,
    /// 0 where the router does not say it.
    mtu_bytes: u32,
    packet_bytes: u32,
}

impl MtuReport {
    /// Returns a measurement in its printable forms. `interface` is the one that the packets leave by.
    pub(crate) fn new(tuple: &FiveTuple, interface: String, measured: Measurement) -> MtuReport {
        let Measurement { link, route, finding, own_mss, peer_mss, largest_received, lost_after } = measured;
        let zone = zone_of(&tuple.local).unwrap_or_default();
        let headers = if tuple.remote.is_ipv4() { HEADERS.0 } else { HEADERS.1 };
        let packet = |mss: Option<u16>| mss.map(|mss| u32::from(mss) + headers);
        let used = packet(peer_mss).map_or(route, |most| most.min(route));
        let black_hole = finding.is_black_hole(used);
        let scoped = |ip| ScopedIp::new(ip, zone).to_string();
        let mut parts = vec![format!("{link} here")];
        match (finding.mtu, finding.told.last()) {
            (None, _) => parts.push("nothing that was sent is acknowledged".to_owned()),
            (Some(mtu), Some(told)) if told.mtu == mtu => {
                parts.push(format!("{mtu} at {} (told)", scoped(told.from)))
            }
            (Some(mtu), _) if mtu < link => parts.push(format!("{mtu} on the path")),
            (Some(_), _) => parts.push("as much on the path".to_owned()),
        }
        if let Some(lost) = finding.lost.filter(|_| finding.mtu.is_some()) {
            let place =
                lost_after.map(|(hop, ip)| format!(" behind hop {hop} ({})", scoped(ip))).unwrap_or_default();
            parts.push(match black_hole {
                true => format!("a black hole: packets of {lost} and more are lost{place} without a word"),
                false => format!("packets of {lost} and more, which the flow does not use, are lost{place}"),
            });
        }
        if tuple.protocol == Protocol::Tcp {
            parts.push(match peer_mss {
                Some(mss) => format!("MSS {mss} announced by the peer"),
                None => "no MSS announced by the peer".to_owned(),
            });
        }
        let summary = parts.join(", ");
        let mut text = format!("path MTU of {tuple}\n");
        let mut line = |label: &str, words: String| {
            let _ = writeln!(text, "  {label:<10}  {words}");
        };
        line("link", format!("{link} on {interface}"));
        if route < link {
            line("route", format!("{route}, which this host's packets keep to"));
        }
        for told in &finding.told {
            let says = if told.mtu == 0 { "too big".to_owned() } else { told.mtu.to_string() };
            line("told", format!("{says} by {}, of a packet of {}", scoped(told.from), told.size));
        }
        if let Some(mtu) = finding.mtu {
            line("arrives", mtu.to_string());
        }
        if let Some(lost) = finding.lost {
            line("lost", format!("{lost} and more, without a word"));
        }
        if let (Some(mss), Some(most)) = (peer_mss, packet(peer_mss)) {
            line("to peer", format!("{most} at most, by its MSS of {mss}"));
        }
        if let (Some(mss), Some(most)) = (own_mss, packet(own_mss)) {
            let largest = largest_received
                .map_or("nothing came".to_owned(), |size| format!("the largest that came had {size}"));
            line("from peer", format!("{most} at most, by our MSS of {mss}; {largest}"));
        }
        let _ = writeln!(text, "{summary}");
        MtuReport {
            verdict: if black_hole || finding.mtu.is_none() { Verdict::TimedOut } else { Verdict::Done },
            summary,
            link_mtu_bytes: link,
            route_mtu_bytes: route,
            path_mtu_bytes: finding.mtu,
            told: finding
                .told
                .iter()
                .map(|told| Told { address: scoped(told.from), mtu_bytes: told.mtu, packet_bytes: told.size })
                .collect(),
            lost_bytes: finding.lost,
            black_hole,
            lost_after_hop: lost_after.map(|(hop, _)| hop),
            lost_after_address: lost_after.map(|(_, ip)| scoped(ip)),
            peer_mss_bytes: peer_mss,
            own_mss_bytes: own_mss,
            largest_received_bytes: largest_received,
            text,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the exit status: a black hole is an answer that does not come.
    pub(super) fn status(&self, detailed: bool) -> u8 {
        self.verdict.status(detailed)
    }
}
