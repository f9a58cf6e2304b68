//! Martians: addresses that no honest packet carries on the wire.
//!
//! The rule is static and needs no table of this host. Martians that only the routing table can
//! tell (another address of this host as a source, a subnet's broadcast address, a source without a
//! route) are left to the `source_validation` module.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Index of the loopback device in every network namespace (net/flow.h, LOOPBACK_IFINDEX;
/// drivers/net/loopback.c, loopback_net_init).
pub(crate) const LOOPBACK_INTERFACE: u32 = 1;

/// The reason to drop a packet without an answer (RFC 1122, sections 3.2.1.3 and 4.2.3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Martian {
    /// 0.0.0.0/8 means this network, and is a source only before a host has an address (RFC 1122,
    /// section 3.2.1.3, a and b); `::` means no address (RFC 4291, section 2.5.2).
    #[error("the unspecified address")]
    Unspecified,
    /// A multicast address: RFC 1122, section 3.2.1.3, e (Linux: ip_route_input_slow); RFC 4291,
    /// section 2.7 (Linux: ip6_rcv_core).
    #[error("a multicast address")]
    Multicast,
    /// 255.255.255.255 (RFC 1122, section 3.2.1.3, c), and the rest of 240.0.0.0/4 (RFC 6890, table
    /// 15).
    #[error("a broadcast or reserved address")]
    Reserved,
    /// 127.0.0.0/8 (RFC 1122, section 3.2.1.3, g) and `::1` (RFC 4291, section 2.5.3) stay on lo.
    #[error("a loopback address from outside")]
    Loopback,
    /// ::ffff:0:0/96 is never on a wire (RFC 6890, table 20; Linux: ip6_rcv_core).
    #[error("an IPv4-mapped address")]
    Mapped,
    /// The source equals the destination.
    #[error("our own address as the source")]
    Ours,
}

/// Checks the addresses of a packet that came in by `interface`. On lo, the host's own addresses
/// are legal.
///
/// The documentation prefixes (RFC 5737, RFC 3849) are left to the routing table: test networks use
/// them.
///
/// # Errors
/// The reason to drop the packet.
pub(crate) fn check(interface: u32, source: IpAddr, destination: IpAddr) -> Result<(), Martian> {
    let on_host = interface == LOOPBACK_INTERFACE;
    check_address(interface, source)?;
    check_address(interface, destination)?;
    if source == destination && !on_host { Err(Martian::Ours) } else { Ok(()) }
}

/// Checks one address of a packet that came in by `interface`: the source of a datagram to a group
/// that we hear.
///
/// # Errors
/// The reason to drop the packet.
pub(crate) fn check_address(interface: u32, source: IpAddr) -> Result<(), Martian> {
    let on_host = interface == LOOPBACK_INTERFACE;
    match source {
        IpAddr::V4(v4) => check_v4(v4, on_host),
        IpAddr::V6(v6) => check_v6(v6, on_host),
    }
}

fn check_v4(address: Ipv4Addr, on_host: bool) -> Result<(), Martian> {
    match address.octets()[0] {
        0 => Err(Martian::Unspecified),
        127 if !on_host => Err(Martian::Loopback),
        224..=239 => Err(Martian::Multicast),
        240..=255 => Err(Martian::Reserved),
        _ => Ok(()),
    }
}

fn check_v6(address: Ipv6Addr, on_host: bool) -> Result<(), Martian> {
    match address {
        Ipv6Addr::UNSPECIFIED => Err(Martian::Unspecified),
        Ipv6Addr::LOCALHOST if !on_host => Err(Martian::Loopback),
        _ if address.is_multicast() => Err(Martian::Multicast),
        _ if address.to_ipv4_mapped().is_some() => Err(Martian::Mapped),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: u32 = 2;

    fn judge(interface: u32, source: &str, destination: &str) -> Result<(), Martian> {
        let ip = |text: &str| text.parse().expect("an address");
        check(interface, ip(source), ip(destination))
    }

    #[test]
    fn sources_and_destinations() {
        let table = [
            ("10.0.0.2", Ok(()), Ok(())),
            ("192.0.2.1", Ok(()), Ok(())),
            ("169.254.7.7", Ok(()), Ok(())),
            ("223.255.255.255", Ok(()), Ok(())),
            ("0.0.0.0", Err(Martian::Unspecified), Err(Martian::Unspecified)),
            ("0.1.2.3", Err(Martian::Unspecified), Err(Martian::Unspecified)),
            ("127.0.0.1", Err(Martian::Loopback), Ok(())),
            ("127.255.255.254", Err(Martian::Loopback), Ok(())),
            ("224.0.0.1", Err(Martian::Multicast), Err(Martian::Multicast)),
            ("239.255.255.255", Err(Martian::Multicast), Err(Martian::Multicast)),
            ("240.0.0.1", Err(Martian::Reserved), Err(Martian::Reserved)),
            ("255.255.255.255", Err(Martian::Reserved), Err(Martian::Reserved)),
            ("fd00::2", Ok(()), Ok(())),
            ("fe80::2", Ok(()), Ok(())),
            ("2001:db8::2", Ok(()), Ok(())),
            ("::", Err(Martian::Unspecified), Err(Martian::Unspecified)),
            ("::1", Err(Martian::Loopback), Ok(())),
            ("ff02::1", Err(Martian::Multicast), Err(Martian::Multicast)),
            ("ff0e::5", Err(Martian::Multicast), Err(Martian::Multicast)),
            ("::ffff:10.0.0.2", Err(Martian::Mapped), Err(Martian::Mapped)),
        ];
        for (address, wire, lo) in table {
            let other = if address.contains(':') { "fd00::1" } else { "10.0.0.1" };
            assert_eq!(judge(WIRE, address, other), wire, "from {address}");
            assert_eq!(judge(WIRE, other, address), wire, "to {address}");
            assert_eq!(judge(LOOPBACK_INTERFACE, address, other), lo, "from {address} on lo");
            assert_eq!(judge(LOOPBACK_INTERFACE, other, address), lo, "to {address} on lo");
        }
    }

    #[test]
    fn our_own_address_comes_by_lo_only() {
        for own in ["10.0.0.1", "fd00::1", "fe80::1"] {
            assert_eq!(judge(WIRE, own, own), Err(Martian::Ours));
            assert_eq!(judge(LOOPBACK_INTERFACE, own, own), Ok(()));
        }
    }
}
