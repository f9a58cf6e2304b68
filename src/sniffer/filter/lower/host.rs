//! Turns `host` and `net` into tests of the addresses of IP, IPv6, ARP and RARP.
use super::ends;
use crate::sniffer::filter::{
    condition::{Condition, Size::Word},
    layout::Layout,
    syntax::{Addresses, Direction, Network, Scope},
    words::ethertype,
};
use std::{net::Ipv6Addr, slice};

/// Returns the condition that an end of the packet, or both, is in one of the networks.
pub(super) fn lower(
    layout: &Layout,
    scope: Scope,
    direction: Direction,
    addresses: &Addresses,
) -> Result<Condition, String> {
    let networks = match addresses {
        Addresses::Networks(networks) => networks,
        Addresses::Name(name) => return Err(format!("\"{name}\" was not looked up")),
    };
    let hosts = Hosts { layout, direction, networks };
    if direction != Direction::Both {
        return hosts.within(scope);
    }
    // Both ends are in the same network.
    let each = networks.iter().map(|one| Hosts { networks: slice::from_ref(one), ..hosts }.within(scope));
    Ok(Condition::any(each.collect::<Result<Vec<_>, _>>()?))
}

#[derive(Clone, Copy)]
struct Hosts<'a> {
    layout: &'a Layout,
    direction: Direction,
    networks: &'a [Network],
}

impl Hosts<'_> {
    fn within(&self, scope: Scope) -> Result<Condition, String> {
        let has_v4 = self.networks.iter().any(|network| matches!(network, Network::V4 { .. }));
        let has_v6 = self.networks.iter().any(|network| matches!(network, Network::V6 { .. }));
        let [ip, arp, rarp] = match scope {
            _ if !has_v4 => [false; 3],
            // Behind MPLS labels nothing tells packets that are not IP.
            Scope::All => [true, !self.layout.is_in_mpls(), !self.layout.is_in_mpls()],
            Scope::Ip => [true, false, false],
            Scope::Arp => [false, true, false],
            Scope::Rarp => [false, false, true],
            Scope::Ip6 => [false; 3],
        };
        let headers = [
            (ip, ethertype::IP, 12, 16),
            (arp, ethertype::ARP, 14, 24),
            (rarp, ethertype::RARP, 14, 24),
            (has_v6, ethertype::IP6, 8, 24),
        ];
        let wanted = headers.into_iter().filter(|(wanted, ..)| *wanted);
        let tests = wanted.map(|(_, protocol, source, destination)| {
            let end = |at| self.at(at, protocol == ethertype::IP6);
            let ends = ends(self.direction, end(source), end(destination));
            Ok(Condition::all([self.layout.is_protocol(protocol)?, ends]))
        });
        Ok(Condition::any(tests.collect::<Result<Vec<_>, String>>()?))
    }

    /// Tests an address at a place in the network header.
    fn at(&self, at: u32, v6: bool) -> Condition {
        Condition::any(self.networks.iter().filter_map(|network| match *network {
            Network::V4 { address, mask } if !v6 => {
                Some(Condition::masked(Word, self.layout.network(at), mask, address))
            }
            Network::V6 { address, prefix } if v6 => Some(self.is_ip6(at, address, prefix)),
            _ => None,
        }))
    }

    fn is_ip6(&self, start: u32, address: Ipv6Addr, prefix: u32) -> Condition {
        let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix)).unwrap_or(0);
        let word = |number: u128, at: u32| (number >> (96 - 8 * at)) as u32;
        Condition::all([0, 4, 8, 12].map(|at| {
            let place = self.layout.network(start + at);
            Condition::masked(Word, place, word(mask, at), word(address.into(), at))
        }))
    }
}
