//! Filters of flows, for the tests of the programs and of the guard.
use netkat::{kernel::FlowFilter, net::Protocol};
use std::net::IpAddr;

/// Returns the filter of a listener at these addresses and this port, without a table of flows.
pub fn listener(protocol: Protocol, local_addresses: Vec<IpAddr>, local_port: u16) -> FlowFilter {
    FlowFilter {
        protocol,
        local_addresses,
        groups: Vec::new(),
        groups_only: false,
        local_port,
        remote_address: None,
        remote_port: None,
        loopback_network: false,
        neighbour_discovery: false,
        table: 0,
        assumed_mac: None,
    }
}
