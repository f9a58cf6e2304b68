//! Filters: what the programs match, and its form as the constants in their read-only data.

use super::{error::KernelError, flow_table::halves, skeleton::types};
use crate::net::{MacAddr, Protocol};
use std::net::IpAddr;

/// Maximum local addresses of one family in a [`FlowFilter`]: MAX_LOCAL in bpf/flow.h.
pub const MAX_LOCAL_ADDRESSES: usize = 64;

/// The packets that the capture program lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Our own packets, of which the guard drops the kernel's copy.
    Flow(FlowFilter),
    /// Others' packets, which the kernel gets, too.
    Sniff(SniffFilter),
}

/// Packets of one connection, of a listener, or of a scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowFilter {
    /// The packets' protocol.
    pub protocol: Protocol,
    /// Our addresses of either family: at least one, at most [`MAX_LOCAL_ADDRESSES`] of each, none
    /// unspecified. On a router, a guard without an address would drop forwarded packets.
    pub local_addresses: Vec<IpAddr>,
    /// Our port; not 0.
    pub local_port: u16,
    /// The only peer; `None` for a listener.
    pub remote_address: Option<IpAddr>,
    /// The peer's only port; `None` for a listener, and for a scanner that probes many from one port of ours.
    pub remote_port: Option<u16>,
    /// All of 127.0.0.0/8 is ours, too, as for a wildcard listener.
    pub loopback_network: bool,
    /// Capture ARP and neighbour discovery for the local addresses, too. The kernel does not answer for an
    /// assumed address.
    pub neighbour_discovery: bool,
    /// Maximum flows in the [`FlowTable`](super::FlowTable). With a table, the programs match a TCP segment
    /// if it is a SYN or belongs to a flow in the table, and a UDP datagram if it belongs to one. 0 for no
    /// table, which suits a connection whose peer's address and port are known.
    pub table: usize,
    /// The link address of an assumed local address: only frames to it match. `None` matches frames that
    /// the kernel takes for this host's (PACKET_HOST).
    pub assumed_mac: Option<MacAddr>,
}

/// Packets that a sniffer shows; [`SniffFilter::default`] means everything, IP or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SniffFilter {
    /// TCP or UDP only.
    pub protocol: Option<Protocol>,
    /// IPv4 or IPv6 only.
    pub family: Option<IpFamily>,
    /// Source or destination address: one of these, or any if there are none; at most
    /// [`MAX_LOCAL_ADDRESSES`] of each family.
    pub hosts: Vec<IpAddr>,
    /// Source or destination port, of TCP or UDP. Later fragments, which carry no ports, do not match.
    pub port: Option<u16>,
}

/// A version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// Version 4.
    Ipv4,
    /// Version 6.
    Ipv6,
}

impl IpFamily {
    fn number(self) -> u8 {
        match self {
            IpFamily::Ipv4 => 4,
            IpFamily::Ipv6 => 6,
        }
    }
}

impl Filter {
    /// Writes the filter into the programs' constants.
    ///
    /// # Errors
    /// [`KernelError::InvalidFilter`] and [`KernelError::TooManyAddresses`].
    pub(super) fn write(&self, config: &mut types::config) -> Result<(), KernelError> {
        match self {
            Filter::Flow(flow) => flow.write(config),
            Filter::Sniff(sniff) => sniff.write(config),
        }
    }
}

impl FlowFilter {
    fn write(&self, config: &mut types::config) -> Result<(), KernelError> {
        if self.local_port == 0 {
            return Err(KernelError::InvalidFilter("the local port is 0"));
        }
        if self.remote_port == Some(0) {
            return Err(KernelError::InvalidFilter("the remote port is 0"));
        }
        if self.local_addresses.is_empty() {
            return Err(KernelError::InvalidFilter("there is no local address"));
        }
        config.protocol = self.protocol.number();
        config.local_port = self.local_port.to_be();
        config.remote_port = self.remote_port.unwrap_or(0).to_be();
        config.loopback_net = self.loopback_network.into();
        config.neighbours = self.neighbour_discovery.into();
        config.table = self.has_table().into();
        config.assumed = self.assumed_mac.is_some().into();
        config.assumed_mac = self.assumed_mac.unwrap_or_default().0;
        write_remote(config, self.remote_address);
        if self.local_addresses.iter().any(IpAddr::is_unspecified) {
            return Err(KernelError::InvalidFilter("a local address is unspecified"));
        }
        write_local(config, &self.local_addresses)
    }

    /// Returns whether a flow table tells which flows are ours.
    pub(super) fn has_table(&self) -> bool {
        self.table > 0
    }

    /// Returns whether the flow can use IPv4, which the loopback program is for.
    pub(super) fn has_ipv4(&self) -> bool {
        self.local_addresses.iter().any(IpAddr::is_ipv4)
    }
}

impl SniffFilter {
    fn write(&self, config: &mut types::config) -> Result<(), KernelError> {
        config.sniff = 1;
        config.protocol = self.protocol.map_or(0, Protocol::number);
        config.family = self.family.map_or(0, IpFamily::number);
        config.remote_port = self.port.unwrap_or(0).to_be();
        write_local(config, &self.hosts)
    }
}

fn write_remote(config: &mut types::config, address: Option<IpAddr>) {
    match address {
        None => config.remote_family = 0,
        Some(IpAddr::V4(a)) => {
            config.remote_family = 4;
            config.remote = [u32::from_ne_bytes(a.octets()).into(), 0];
        }
        Some(IpAddr::V6(a)) => {
            config.remote_family = 6;
            config.remote = halves(a);
        }
    }
}

/// Writes the addresses that a flow has as its own, or that a sniffer looks for.
fn write_local(config: &mut types::config, addresses: &[IpAddr]) -> Result<(), KernelError> {
    let (mut count4, mut count6) = (0, 0);
    for address in addresses {
        let slot = match address {
            IpAddr::V4(a) => config.local4.get_mut(count4).map(|slot| {
                *slot = u32::from_ne_bytes(a.octets());
                count4 += 1;
            }),
            IpAddr::V6(a) => config.local6.get_mut(count6).map(|slot| {
                *slot = halves(*a);
                count6 += 1;
            }),
        };
        if slot.is_none() {
            return Err(KernelError::TooManyAddresses { limit: MAX_LOCAL_ADDRESSES });
        }
    }
    // Both are at most MAX_LOCAL.
    (config.local4_count, config.local6_count) = (count4 as u32, count6 as u32);
    Ok(())
}
