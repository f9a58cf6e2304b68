//! The classic socket filter for hosts that let netkat load no program, written in tcpdump's language.
//!
//! The filter lets all packets through that the matcher may find ours, and few others: it knows no table of flows,
//! no packet that an ICMP error quotes, and nothing behind IPv6 extension headers. The matcher then decides in this
//! process ([`Diversion::admits`](crate::kernel::Diversion::admits)).
use crate::{
    kernel::FlowFilter,
    net::Protocol,
    sniffer::filter::{Filter, FilterError, Program},
};
use std::net::IpAddr;

/// IPv6 extension headers that the matcher follows, as bpf/flow.h has them.
const EXTENSION_HEADERS: [u8; 6] = [0, 43, 44, 51, 60, 135];

/// Returns the socket filter of a flow.
///
/// # Errors
/// [`FilterError::TooComplex`] for too many addresses.
pub(super) fn program(filter: &FlowFilter) -> Result<Program, FilterError> {
    let (own, group) = (to_us(filter), to_groups(filter));
    if let Some(mac) = filter.assumed_mac {
        let assumed = format!("(ether dst {mac} and ({own})) or (ether multicast and ({group}))");
        return Filter::parse(&assumed)?.compile_arriving(None);
    }
    Filter::parse(&own)?.compile_arriving(Some(&Filter::parse(&group)?))
}

/// Returns the expression for frames to this host.
fn to_us(filter: &FlowFilter) -> String {
    let mut kinds =
        vec!["icmp[0] = 3 or icmp[0] = 11 or icmp[0] = 12 or (ip6[6] = 58 and ip6[40] < 5)".to_owned()];
    let local = any(&filter.local_addresses, "dst host");
    if !filter.groups_only {
        let remote =
            filter.remote_address.map_or_else(String::new, |remote| format!(" and src host {remote}"));
        let extended = EXTENSION_HEADERS.map(|number| format!("ip6[6] = {number}")).join(" or ");
        kinds.push(format!("({}{remote})", transport(filter)));
        kinds.push(format!("({extended})"));
        if filter.loopback_network {
            let transport = transport(filter);
            kinds.push(format!("(dst net 127.0.0.0/8 and {transport}{remote})"));
        }
    }
    let mut text = format!("(({local}) and ({}))", kinds.join(" or "));
    if filter.neighbour_discovery {
        text.push_str(" or ");
        text.push_str(NEIGHBOURS);
    }
    text
}

/// Returns the expression for frames to all hosts or to a group.
fn to_groups(filter: &FlowFilter) -> String {
    let mut kinds = Vec::new();
    if !filter.groups.is_empty() {
        kinds.push(format!("(({}) and ({}))", any(&filter.groups, "dst host"), transport(filter)));
    }
    if filter.neighbour_discovery {
        kinds.push(NEIGHBOURS.to_owned());
    }
    if kinds.is_empty() { "less 0".to_owned() } else { kinds.join(" or ") }
}

/// ARP, and neighbour solicitations and advertisements.
const NEIGHBOURS: &str = "arp or (ip6[6] = 58 and (ip6[40] = 135 or ip6[40] = 136))";

/// Returns the expression for segments or datagrams to our port, and for later fragments of any.
fn transport(filter: &FlowFilter) -> String {
    let protocol = match filter.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let from = filter.remote_port.map_or_else(String::new, |port| format!(" and {protocol} src port {port}"));
    let number = filter.protocol.number();
    format!(
        "(({protocol} dst port {}{from}) or (ip proto {number} and ip[6:2] & 0x1fff != 0))",
        filter.local_port
    )
}

fn any(addresses: &[IpAddr], word: &str) -> String {
    addresses.iter().map(|address| format!("{word} {address}")).collect::<Vec<_>>().join(" or ")
}
