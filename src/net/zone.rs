//! Zones (RFC 4007): the interface that a link-local or multicast address belongs to, and its name in texts.
use crate::text::escape_control;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

thread_local! {
    /// Names of interfaces by index, as the kernel last gave them. The sandbox forbids asking for a name when a
    /// text needs it.
    static NAMES: RefCell<BTreeMap<u32, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// Remembers an interface's name, for the texts of this thread.
pub(crate) fn remember(interface: u32, name: &str) {
    NAMES.with_borrow_mut(|names| names.insert(interface, escape_control(name).into_owned()));
}

/// Returns whether addresses of this kind may have a zone: link-local ones and groups of IPv6.
pub(crate) fn may_have_zone(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

/// Returns whether an address means nothing without its zone (`__ipv6_addr_needs_scope_id` in
/// include/net/ipv6.h): link-local ones, and groups of the interface (ff?1::/16) and of the link (ff?2::/16).
pub(crate) fn needs_zone(ip: IpAddr) -> bool {
    let IpAddr::V6(v6) = ip else { return false };
    let narrow = v6.is_multicast() && matches!(v6.segments()[0] & 0xf, 1 | 2);
    v6.is_unicast_link_local() || narrow
}

/// Returns the socket address of an address at this interface; the interface becomes the zone of an address that
/// may have one.
pub(crate) fn scoped(ip: IpAddr, port: u16, interface: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if may_have_zone(ip) => SocketAddrV6::new(v6, port, 0, interface).into(),
        _ => SocketAddr::new(ip, port),
    }
}

/// Returns an address's zone, the index of an interface.
pub(crate) fn zone_of(address: &SocketAddr) -> Option<u32> {
    match address {
        SocketAddr::V6(v6) => Some(v6.scope_id()).filter(|zone| *zone != 0),
        SocketAddr::V4(_) => None,
    }
}

/// An IP address with its zone, printed as `fe80::1%eth0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopedIp(SocketAddr);

impl ScopedIp {
    /// Returns an address at this interface, which counts only for an address that may have a zone.
    pub(crate) fn new(ip: IpAddr, interface: u32) -> ScopedIp {
        ScopedIp(scoped(ip, 0, interface))
    }
}

impl From<SocketAddr> for ScopedIp {
    fn from(address: SocketAddr) -> ScopedIp {
        ScopedIp(address)
    }
}

impl fmt::Display for ScopedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.ip())?;
        let Some(zone) = zone_of(&self.0) else { return Ok(()) };
        NAMES.with_borrow(|names| match names.get(&zone) {
            Some(name) => write!(f, "%{name}"),
            None => write!(f, "%{zone}"),
        })
    }
}

/// Returns address and port as `[fe80::1%eth0]:80`.
pub(crate) fn endpoint(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(_) => address.to_string(),
        SocketAddr::V6(_) => format!("[{}]:{}", ScopedIp::from(*address), address.port()),
    }
}

/// Returns an address with the name of its interface as zone, if it may have one.
pub(crate) fn on_interface(ip: IpAddr, interface: &str) -> String {
    match may_have_zone(ip) {
        true => format!("{ip}%{}", escape_control(interface)),
        false => ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn zones_have_names_where_they_are_known() {
        remember(7, "eth0");
        assert_eq!(ScopedIp::new(ip("fe80::1"), 7).to_string(), "fe80::1%eth0");
        assert_eq!(ScopedIp::new(ip("fe80::1"), 8).to_string(), "fe80::1%8");
        assert_eq!(ScopedIp::new(ip("ff05::1"), 7).to_string(), "ff05::1%eth0");
        assert_eq!(ScopedIp::new(ip("2001:db8::1"), 7).to_string(), "2001:db8::1");
        assert_eq!(endpoint(&scoped(ip("fe80::1"), 80, 7)), "[fe80::1%eth0]:80");
        assert_eq!(endpoint(&scoped(ip("10.0.0.1"), 80, 7)), "10.0.0.1:80");
        assert_eq!(on_interface(ip("fe80::1"), "a\u{1b}b"), "fe80::1%a\\u{1b}b");
    }

    #[test]
    fn link_local_addresses_and_narrow_groups_need_a_zone() {
        for (text, needs) in [
            ("fe80::1", true),
            ("febf::1", true),
            ("ff01::1", true),
            ("ff02::fb", true),
            ("ff12::1", true),
            ("ff05::1", false),
            ("fd00::1", false),
            ("::1", false),
            ("169.254.0.1", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(needs_zone(ip(text)), needs, "{text}");
        }
    }
}
