//! The sniffer's filter for frames of a file: the decisions that the capture program takes for live frames.
use crate::{
    kernel::{IpFamily, SniffFilter},
    net::Protocol,
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
            let host = filter.host.is_some_and(|host| host == arp.sender || host == arp.target);
            return host && filter.protocol.is_none() && filter.family.is_none() && filter.port.is_none();
        }
        Network::Unknown | Network::Malformed => return false,
    };
    let family = if ip.source.is_ipv4() { IpFamily::Ipv4 } else { IpFamily::Ipv6 };
    filter.family.is_none_or(|wanted| wanted == family)
        && filter.protocol.is_none_or(|protocol| protocol.number() == ip.protocol)
        && filter.host.is_none_or(|host| host == ip.source || host == ip.destination)
        && filter.port.is_none_or(|port| has_port(ip, port))
}

/// Returns whether a packet has this port. Fragments other than the first, which show no ports, pass.
fn has_port(ip: &Ip, port: u16) -> bool {
    let ports = match &ip.transport {
        Transport::Tcp(tcp) => (tcp.source, tcp.destination),
        Transport::Udp(udp) => (udp.source, udp.destination),
        Transport::Malformed { ports: Some(ports) } => *ports,
        Transport::Fragment => {
            return [Protocol::Tcp, Protocol::Udp].iter().any(|p| p.number() == ip.protocol);
        }
        Transport::Icmp(_) | Transport::Unknown | Transport::Malformed { ports: None } => return false,
    };
    ports.0 == port || ports.1 == port
}
