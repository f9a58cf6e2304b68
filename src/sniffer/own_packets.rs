//! The classic socket filter for hosts that let netkat load no program, written in tcpdump's language.
//!
//! The filter lets all packets through that the matcher may find ours, and few others: it knows no table of flows,
//! no packet that an ICMP error quotes, and nothing behind IPv6 extension headers. The matcher then decides in this
//! process ([`matcher`](crate::kernel::matcher)).
use super::filter::{Filter, FilterError, Program};
use crate::{kernel::FlowFilter, net::Protocol};
use std::net::IpAddr;

/// IPv6 extension headers that the matcher follows, as bpf/flow.h has them.
const EXTENSION_HEADERS: [u8; 6] = [0, 43, 44, 51, 60, 135];

/// Maximum addresses of a list in the filter, which the kernel limits to 4096 instructions. The filter does not compare
/// longer lists; the matcher does.
const MAX_COMPARED: usize = 24;

/// Returns the socket filter of a flow.
///
/// # Errors
/// Those of the filter language; none for a filter that the programs take.
pub fn program(filter: &FlowFilter) -> Result<Program, FilterError> {
    let (own, group) = (to_us(filter), to_groups(filter));
    if let Some(mac) = filter.assumed_mac {
        let assumed = format!("(ether dst {mac} and ({own})) or (ether multicast and ({group}))");
        return Filter::parse(&assumed)?.compile_arriving(None);
    }
    Filter::parse(&own)?.compile_arriving(Some(&Filter::parse(&group)?))
}

/// Returns the expression for frames to this host. ICMP errors may be for any address of it.
fn to_us(filter: &FlowFilter) -> String {
    let errors = "icmp[0] = 3 or icmp[0] = 11 or icmp[0] = 12 or (ip6[6] = 58 and ip6[40] < 5)";
    let mut kinds = vec![errors.to_owned(), extended(), own(&filter.groups, filter)];
    if !filter.groups_only {
        let loopback = if filter.loopback_network { " or dst net 127.0.0.0/8" } else { "" };
        let remote =
            filter.remote_address.map_or_else(String::new, |remote| format!(" and src host {remote}"));
        let local = any(&filter.local_addresses);
        kinds.push(format!("(({local}{loopback}) and {}{remote})", transport(filter)));
    }
    if filter.neighbour_discovery {
        kinds.push(NEIGHBOURS.to_owned());
    }
    kinds.join(" or ")
}

/// Returns the expression for frames to all hosts or to a group.
fn to_groups(filter: &FlowFilter) -> String {
    let mut kinds = vec![own(&filter.groups, filter)];
    if filter.neighbour_discovery {
        kinds.extend([NEIGHBOURS.to_owned(), extended()]);
    }
    kinds.join(" or ")
}

/// Returns the expression for what follows IPv6 extension headers.
fn extended() -> String {
    let numbers = EXTENSION_HEADERS.map(|number| format!("ip6[6] = {number}"));
    format!("({})", numbers.join(" or "))
}

/// Returns the expression for our packets to groups; false without a group.
fn own(groups: &[IpAddr], filter: &FlowFilter) -> String {
    match groups {
        [] => "less 0".to_owned(),
        groups => format!("(({}) and ({} or {}))", any(groups), transport(filter), extended()),
    }
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

/// Returns the expression for any of these destinations; true for more than the filter compares.
fn any(addresses: &[IpAddr]) -> String {
    if addresses.len() > MAX_COMPARED {
        return "greater 0".to_owned();
    }
    addresses.iter().map(|address| format!("dst host {address}")).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The most addresses that the programs take fit into the filter, too.
    #[test]
    fn every_filter_of_the_programs_fits() {
        let addresses = |count: u32, v4: u32, v6: u128| -> Vec<IpAddr> {
            (0..count)
                .flat_map(|n| {
                    [Ipv4Addr::from_bits(v4 + n).into(), Ipv6Addr::from_bits(v6 + u128::from(n)).into()]
                })
                .collect()
        };
        for count in [1, 12, 13, 64] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let filter = FlowFilter {
                    protocol,
                    local_addresses: addresses(count, 0x0a00_0001, 0xfd << 120 | 1),
                    groups: addresses(count, 0xe800_0001, 0xff02 << 112 | 1),
                    groups_only: false,
                    local_port: 5000,
                    remote_address: None,
                    remote_port: Some(7),
                    loopback_network: true,
                    neighbour_discovery: true,
                    table: 16,
                    assumed_mac: None,
                };
                let program = program(&filter).expect("a program");
                assert!(program.instructions().len() <= 4096, "{count}: {}", program.instructions().len());
            }
        }
    }
}
