//! Filters: what the programs match, and its form as the constants in their read-only data.

use super::{error::KernelError, fast_path::FastPathSpec, flow_table::halves, skeleton::types};
use crate::net::{MacAddr, Protocol};
use std::net::IpAddr;

/// Maximum local addresses of one family in a filter.
pub const MAX_LOCAL_ADDRESSES: usize = 64;
/// Maximum published ports in a [`CommandFilter`].
const MAX_PUBLISHED_PORTS: usize = 64;
/// Maximum groups of one family in a [`FlowFilter`].
const MAX_GROUPS: usize = 72;

/// An entry of the programs' lists: `struct entry` in bpf/flow.h, its list and its value.
pub(super) type Entry = [u64; 3];

/// The programs' lists: `enum list` in bpf/flow.h.
const LOCAL4: u64 = 0;
const LOCAL6: u64 = 1;
const GROUP4: u64 = 2;
const GROUP6: u64 = 3;
const PUBLISHED: u64 = 4;

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
    /// Writes the filter into the programs' constants. Returns the entries of their lists.
    ///
    /// # Errors
    /// [`KernelError::InvalidFilter`] and [`KernelError::TooManyAddresses`].
    pub(super) fn write(&self, config: &mut types::config) -> Result<Vec<Entry>, KernelError> {
        config.table = self.flows().is_some().into();
        match self {
            Filter::Flow(flow) => flow.write(config),
            Filter::Command(command) => command.write(config),
        }
    }

    /// Returns whether the packets are those of one connection by IPv4 or, second, by IPv6.
    pub(super) fn only_family(&self) -> (bool, bool) {
        match self {
            Filter::Flow(flow) if flow.is_one_connection() => (flow.has_ipv4(), !flow.has_ipv4()),
            _ => (false, false),
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
    fn write(&self, config: &mut types::config) -> Result<Vec<Entry>, KernelError> {
        config.neighbours = 1;
        config.assumed = self.assumed_mac.is_some().into();
        config.assumed_mac = self.assumed_mac.unwrap_or_default().0;
        if self.published.len() > MAX_PUBLISHED_PORTS {
            return Err(KernelError::InvalidFilter("more than 64 published ports"));
        }
        let published = self.published.iter();
        let mut entries: Vec<Entry> = published
            .map(|(protocol, port)| [PUBLISHED, protocol.number().into(), port.to_be().into()])
            .collect();
        // At most MAX_PUBLISHED_PORTS.
        config.published_count = entries.len() as u32;
        if let Some(path) = &self.fast_path {
            path.write(config)?;
        }
        write_own(config, &self.local_addresses, &mut entries)?;
        Ok(entries)
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

    fn write(&self, config: &mut types::config) -> Result<Vec<Entry>, KernelError> {
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
        let mut entries = Vec::new();
        let (v4, v6) = list(&self.groups, [GROUP4, GROUP6], MAX_GROUPS, &mut entries)?;
        (config.group4_count, config.group6_count) = (v4, v6);
        write_own(config, &self.local_addresses, &mut entries)?;
        Ok(entries)
    }

    /// Returns whether the packets are those of one connection between two known ends.
    pub(super) fn is_one_connection(&self) -> bool {
        self.local_addresses.len() == 1
            && self.remote_address.is_some()
            && self.remote_port.is_some()
            && self.table == 0
            && self.assumed_mac.is_none()
            && self.groups.is_empty()
            && !self.groups_only
    }

    /// Returns whether the flow can use IPv4, which the loopback program is for.
    pub(super) fn has_ipv4(&self) -> bool {
        self.local_addresses.iter().any(IpAddr::is_ipv4)
    }
}

fn write_remote(config: &mut types::config, address: Option<IpAddr>) {
    config.remote_family = match address {
        None => 0,
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 6,
    };
    config.remote = address.map(value).unwrap_or_default();
}

/// Writes the addresses that a flow or a command has as its own: into the constants if there is one of its family,
/// else into the lists.
fn write_own(
    config: &mut types::config,
    addresses: &[IpAddr],
    entries: &mut Vec<Entry>,
) -> Result<(), KernelError> {
    if addresses.iter().any(IpAddr::is_unspecified) {
        return Err(KernelError::InvalidFilter("a local address is unspecified"));
    }
    let (v4, v6) = list(addresses, [LOCAL4, LOCAL6], MAX_LOCAL_ADDRESSES, entries)?;
    (config.local4_count, config.local6_count) = (v4, v6);
    for address in addresses {
        match address {
            IpAddr::V4(a) => config.local4 = u32::from_ne_bytes(a.octets()),
            IpAddr::V6(a) => config.local6 = halves(*a),
        }
    }
    entries.retain(|[list, ..]| !(*list == LOCAL4 && v4 == 1 || *list == LOCAL6 && v6 == 1));
    Ok(())
}

/// Adds addresses to the lists of IPv4 and of IPv6. Returns how many of each there are.
fn list(
    addresses: &[IpAddr],
    [list4, list6]: [u64; 2],
    limit: usize,
    entries: &mut Vec<Entry>,
) -> Result<(u32, u32), KernelError> {
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    let v6 = addresses.len() - v4;
    if v4.max(v6) > limit {
        return Err(KernelError::TooManyAddresses { limit });
    }
    entries.extend(addresses.iter().map(|address| {
        let [first, second] = value(*address);
        [if address.is_ipv4() { list4 } else { list6 }, first, second]
    }));
    Ok((v4 as u32, v6 as u32))
}

/// Returns an address in the form of `struct packet` in bpf/flow.h.
fn value(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(a) => [u32::from_ne_bytes(a.octets()).into(), 0],
        IpAddr::V6(a) => halves(a),
    }
}
