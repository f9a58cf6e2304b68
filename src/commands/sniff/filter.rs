//! The sniffer's filter for frames of a file: the decisions that the capture program takes for live frames.
use crate::{
    kernel::{IpFamily, SniffFilter},
    sniffer::decode::{DecodedFrame, Ip, Network, Transport},
};

/// Returns whether a frame passes the filter (bpf/flow.h, `sniffed`).
pub(super) fn passes(filter: &SniffFilter, decoded: &DecodedFrame) -> bool {
    if *filter == SniffFilter::default() {
        return true;
    }
    let ip = match &decoded.network {
        Network::Ip(ip) => ip,
        Network::Arp(arp) => {
            let host = filter.hosts.iter().any(|host| *host == arp.sender || *host == arp.target);
            return host && filter.protocol.is_none() && filter.family.is_none() && filter.port.is_none();
        }
        Network::Unknown | Network::Malformed => return false,
    };
    let family = if ip.source.is_ipv4() { IpFamily::Ipv4 } else { IpFamily::Ipv6 };
    filter.family.is_none_or(|wanted| wanted == family)
        && filter.protocol.is_none_or(|protocol| protocol.number() == ip.protocol)
        && (filter.hosts.is_empty()
            || [ip.source, ip.destination].iter().any(|end| filter.hosts.contains(end)))
        && filter.port.is_none_or(|port| has_port(ip, port))
}

/// Returns whether a packet has this port. Fragments other than the first show no ports.
fn has_port(ip: &Ip, port: u16) -> bool {
    let ports = match &ip.transport {
        Transport::Tcp(tcp) => (tcp.source, tcp.destination),
        Transport::Udp(udp) => (udp.source, udp.destination),
        Transport::Malformed { ports: Some(ports) } => *ports,
        Transport::Fragment
        | Transport::Icmp(_)
        | Transport::Unknown
        | Transport::Malformed { ports: None } => return false,
    };
    ports.0 == port || ports.1 == port
}
