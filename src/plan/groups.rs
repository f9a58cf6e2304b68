//! The broadcast addresses and groups that a UDP listener hears.
use super::{PlanError, flags::protocol, scope::zone_missing, usage};
use crate::{
    cli::Cli,
    host::interface::{Address, Interface},
    net::{Protocol, zone::needs_zone},
    runtime::Groups,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The groups that every host is a member of: RFC 1112, section 4; RFC 4291, section 2.8.
const ALL_HOSTS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))];

/// Returns what a UDP listener at all of its addresses hears beside them, as a socket that is bound to none does:
/// broadcasts, and the groups of all hosts.
pub(super) fn of_all(own: &[Address]) -> Groups {
    let mut addresses: Vec<IpAddr> = own.iter().flat_map(|address| address.broadcasts()).collect();
    let has = |v4| own.iter().any(|address| address.ip.is_ipv4() == v4);
    addresses.extend(Some(IpAddr::V4(Ipv4Addr::BROADCAST)).filter(|_| has(true)));
    addresses.extend(ALL_HOSTS.into_iter().filter(|group| has(group.is_ipv4())));
    addresses.sort_unstable();
    addresses.dedup();
    Groups { addresses, only: false, joined: Vec::new() }
}

/// Returns the group or broadcast address to listen at, if `address` is one.
///
/// # Errors
/// TCP has no groups; a group of the link needs an interface.
pub(super) fn at(
    cli: &Cli,
    address: IpAddr,
    own: &[Address],
    interface: Option<&Interface>,
) -> Result<Option<Groups>, PlanError> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST)
        || own.iter().any(|own| own.broadcasts().any(|broadcast| broadcast == address));
    if !broadcast && !address.is_multicast() {
        return Ok(None);
    }
    if protocol(cli) == Protocol::Tcp {
        let what = if broadcast { "a broadcast address" } else { "a group" };
        return usage(format!("-l {address}: TCP cannot listen at {what}; hear datagrams there with -u"));
    }
    if interface.is_none() && needs_zone(address) {
        return Err(zone_missing(address));
    }
    let mut joined = match interface {
        _ if broadcast => Vec::new(),
        Some(interface) => vec![interface.index],
        // A port of a bridge has no address, and its group's frames go to the bridge.
        None => {
            let can = |own: &&Address| own.ip.is_ipv4() == address.is_ipv4() && !own.ip.is_loopback();
            own.iter().filter(can).map(|own| own.interface).collect()
        }
    };
    joined.sort_unstable();
    joined.dedup();
    Ok(Some(Groups { addresses: vec![address], only: true, joined }))
}
