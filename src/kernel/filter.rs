//! Filters: what the programs match, and its form as the constants in their read-only data.

use super::{error::KernelError, fast_path::FastPathSpec, flow_table::halves, skeleton::types};
use crate::net::{MacAddr, Protocol};
use std::net::IpAddr;

/// Maximum local addresses of one family in a [`FlowFilter`]: MAX_LOCAL in bpf/flow.h.
pub const MAX_LOCAL_ADDRESSES: usize = 64;
/// Maximum published ports in a [`CommandFilter`]: MAX_PUBLISHED in bpf/flow.h.
pub(crate) const MAX_PUBLISHED_PORTS: usize = 64;

/// Maximum groups of one family in a [`FlowFilter`]: MAX_GROUPS in bpf/flow.h.
pub(crate) const MAX_GROUPS: usize = 72;

/// The packets that the capture program lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Our own packets, of which the guard drops the kernel's copy.
    Flow(FlowFilter),
    /// A command's packets, of which the guard drops the kernel's copy.
    Command(CommandFilter),
}

/// Packets of one connection, of a listener, or of a scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowFilter {
    /// The packets' protocol.
    pub protocol: Protocol,
    /// Our addresses of either family: at least one, at most [`MAX_LOCAL_ADDRESSES`] of each, none
    /// unspecified. On a router, a guard without an address would drop forwarded packets.
    pub local_addresses: Vec<IpAddr>,
    /// Groups and broadcast addresses that we hear, of UDP: at most 72 of each family. The kernel gets
    /// their datagrams, too.
    pub groups: Vec<IpAddr>,
    /// Datagrams to the local addresses are not ours, only those to groups; ICMP errors still are.
    pub groups_only: bool,
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

/// Packets of a command: flows of any port and protocol that are in the [`FlowTable`](super::FlowTable), and
/// those that open a connection to a published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFilter {
    /// The command's addresses: at most [`MAX_LOCAL_ADDRESSES`] of each family, none unspecified.
    pub local_addresses: Vec<IpAddr>,
    /// Published ports, at most [`MAX_PUBLISHED_PORTS`].
    pub published: Vec<(Protocol, u16)>,
    /// Maximum flows.
    pub table: usize,
    /// The link address of an assumed address, as in [`FlowFilter::assumed_mac`].
    pub assumed_mac: Option<MacAddr>,
    /// The fast path, if flows may take it.
    pub fast_path: Option<FastPathSpec>,
}

impl Filter {
    /// Writes the filter into the programs' constants.
    ///
    /// # Errors
    /// [`KernelError::InvalidFilter`] and [`KernelError::TooManyAddresses`].
    pub(super) fn write(&self, config: &mut types::config) -> Result<(), KernelError> {
        config.table = self.flows().is_some().into();
        match self {
            Filter::Flow(flow) => flow.write(config),
            Filter::Command(command) => command.write(config),
        }
    }

    /// Returns the maximum number of flows where a flow table tells which are ours.
    pub(super) fn flows(&self) -> Option<usize> {
        match self {
            Filter::Flow(flow) => Some(flow.table).filter(|flows| *flows > 0),
            Filter::Command(command) => Some(command.table),
        }
    }

    /// Returns the fast path that the filter's flows may take.
    pub(super) fn fast_path(&self) -> Option<&FastPathSpec> {
        match self {
            Filter::Flow(_) => None,
            Filter::Command(command) => command.fast_path.as_ref(),
        }
    }
}

impl CommandFilter {
    fn write(&self, config: &mut types::config) -> Result<(), KernelError> {
        config.command = 1;
        config.neighbours = 1;
        config.assumed = self.assumed_mac.is_some().into();
        config.assumed_mac = self.assumed_mac.unwrap_or_default().0;
        if self.published.len() > MAX_PUBLISHED_PORTS {
            return Err(KernelError::InvalidFilter("more than 64 published ports"));
        }
        for (slot, (protocol, port)) in config.published.iter_mut().zip(&self.published) {
            (slot.protocol, slot.port) = (protocol.number(), port.to_be());
        }
        // At most MAX_PUBLISHED.
        config.published_count = self.published.len() as u32;
        if let Some(path) = &self.fast_path {
            path.write(config)?;
        }
        write_own(config, &self.local_addresses)
    }
}

impl FlowFilter {
    /// Checks what no back end can match.
    ///
    /// # Errors
    /// [`KernelError::InvalidFilter`].
    pub(super) fn check(&self) -> Result<(), KernelError> {
        if self.local_port == 0 {
            return Err(KernelError::InvalidFilter("the local port is 0"));
        }
        if self.remote_port == Some(0) {
            return Err(KernelError::InvalidFilter("the remote port is 0"));
        }
        if self.local_addresses.is_empty() {
            return Err(KernelError::InvalidFilter("there is no local address"));
        }
        if self.local_addresses.iter().any(IpAddr::is_unspecified) {
            return Err(KernelError::InvalidFilter("a local address is unspecified"));
        }
        Ok(())
    }

    fn write(&self, config: &mut types::config) -> Result<(), KernelError> {
        self.check()?;
        config.protocol = self.protocol.number();
        config.local_port = self.local_port.to_be();
        config.remote_port = self.remote_port.unwrap_or(0).to_be();
        config.loopback_net = self.loopback_network.into();
        config.neighbours = self.neighbour_discovery.into();
        config.assumed = self.assumed_mac.is_some().into();
        config.assumed_mac = self.assumed_mac.unwrap_or_default().0;
        write_remote(config, self.remote_address);
        config.groups_only = self.groups_only.into();
        self.write_groups(config)?;
        write_own(config, &self.local_addresses)
    }

    fn write_groups(&self, config: &mut types::config) -> Result<(), KernelError> {
        for group in &self.groups {
            let (count, written) = match group {
                IpAddr::V4(v4) => {
                    let slot = config.group4.get_mut(config.group4_count as usize);
                    (&mut config.group4_count, slot.map(|slot| *slot = u32::from_ne_bytes(v4.octets())))
                }
                IpAddr::V6(v6) => {
                    let slot = config.group6.get_mut(config.group6_count as usize);
                    (&mut config.group6_count, slot.map(|slot| *slot = halves(*v6)))
                }
            };
            written.ok_or(KernelError::TooManyAddresses { limit: MAX_GROUPS })?;
            *count += 1;
        }
        Ok(())
    }

    /// Returns whether the flow can use IPv4, which the loopback program is for.
    pub(super) fn has_ipv4(&self) -> bool {
        self.local_addresses.iter().any(IpAddr::is_ipv4)
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

/// Writes the addresses that a flow or a command has as its own.
fn write_own(config: &mut types::config, addresses: &[IpAddr]) -> Result<(), KernelError> {
    if addresses.iter().any(IpAddr::is_unspecified) {
        return Err(KernelError::InvalidFilter("a local address is unspecified"));
    }
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
