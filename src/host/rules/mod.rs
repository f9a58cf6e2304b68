//! netfilter's NAT rules, read natively: whether a rule translates packets for a port before they reach a
//! socket.
//!
//! The readers return rules as data: [`nftables`] over nfnetlink, and [`xtables`] for the legacy back ends
//! of iptables, whose tables come by getsockopt(2). The walks over them are pure. A walk follows a packet
//! of which only protocol, destination and possible ingress interfaces are known. So a condition is met,
//! not met, or may be met ([`Truth`]), and the walk follows every branch that the packet may take.
//!
//! The readers ask only for what such a packet can reach: base chains of type nat at prerouting, the chains
//! to which rules lead, and of a set the element with the packet's key. A request loads nothing into the
//! kernel.
//!
//! IPVS services, eBPF programs, rules of family netdev, and TPROXY, which keeps the destination, are not
//! read.

pub mod nftables;
pub mod xtables;

use crate::net::Protocol;
use nftables::Reader;
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};
pub use xtables::table::LegacyTable;

/// Attempts at a consistent view of rules that change.
const ATTEMPTS: usize = 4;
/// Maximum rules and elements of sets to look at for one port.
const STEPS: usize = 1_000_000;
/// Maximum length of a printed name or comment, in characters.
const NAME: usize = 64;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The answer to whether a packet meets a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// For no packet.
    No,
    /// For some packets, or unknown.
    Maybe,
    /// For all packets.
    Yes,
}

impl Truth {
    /// Returns whether both conditions are met.
    pub(crate) fn and(self, other: Truth) -> Truth {
        match (self, other) {
            (Truth::No, _) | (_, Truth::No) => Truth::No,
            (Truth::Yes, Truth::Yes) => Truth::Yes,
            _ => Truth::Maybe,
        }
    }

    /// Returns Yes, or Maybe if there are `more` conditions.
    fn unless(more: bool) -> Truth {
        if more { Truth::Maybe } else { Truth::Yes }
    }

    /// Joins the answers for several interfaces; No without any.
    fn of(answers: impl Iterator<Item = Truth>) -> Truth {
        answers.reduce(|all, next| if all == next { all } else { Truth::Maybe }).unwrap_or(Truth::No)
    }
}

impl From<bool> for Truth {
    fn from(met: bool) -> Truth {
        if met { Truth::Yes } else { Truth::No }
    }
}

impl std::ops::Not for Truth {
    type Output = Truth;

    fn not(self) -> Truth {
        match self {
            Truth::No => Truth::Yes,
            Truth::Maybe => Truth::Maybe,
            Truth::Yes => Truth::No,
        }
    }
}

/// The first packet of a new client, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The destination, before a translation.
    pub destination: SocketAddr,
    /// Index and name of the interfaces that it may arrive by.
    pub interfaces: &'a [(u32, String)],
}

impl Packet<'_> {
    fn family(&self) -> Family {
        if self.destination.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn destination_bytes(&self) -> Vec<u8> {
        match self.destination.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    /// Returns whether a condition is met for all interfaces, some, or none.
    fn any_interface(&self, holds: impl Fn(u32, &[u8]) -> bool) -> Truth {
        Truth::of(self.interfaces.iter().map(|(index, name)| holds(*index, name.as_bytes()).into()))
    }
}

/// A bound on a walk: the rules and elements of sets that it may still look at.
#[derive(Debug)]
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Budget(STEPS)
    }
}

impl Budget {
    /// Returns a budget of this many steps.
    pub fn of(steps: usize) -> Budget {
        Budget(steps)
    }

    /// Takes a step. Returns false if none is left.
    fn spend(&mut self) -> bool {
        self.spend_for(1)
    }

    fn spend_for(&mut self, steps: usize) -> bool {
        self.0 = self.0.saturating_sub(steps);
        self.0 > 0
    }
}

/// The location of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLocation {
    /// The chain's name.
    pub chain: Vec<u8>,
    /// The rule's number in its chain, from 1.
    pub number: usize,
    /// nf_tables' handle of it.
    pub handle: Option<u64>,
    /// Its comment.
    pub comment: Option<Vec<u8>>,
    /// The rule compares the destination port.
    pub names_port: bool,
}

impl fmt::Display for RuleLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {}, rule {}", printable(&self.chain), self.number)?;
        if let Some(handle) = self.handle {
            write!(f, " (handle {handle})")?;
        }
        match self.comment.as_deref().filter(|comment| !comment.is_empty()) {
            Some(comment) => write!(f, " \"{}\"", printable(comment)),
            None => Ok(()),
        }
    }
}

/// A translation of packets for our port to another destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The back end, as users call it: "nftables", "iptables (nft)".
    pub back_end: &'static str,
    /// nf_tables' family, where the back end's name does not tell it.
    pub family: Option<&'static str>,
    /// The table's name.
    pub table: Vec<u8>,
    /// The rules that lead to the translation; the last one translates.
    pub places: Vec<RuleLocation>,
    /// The action: "DNAT to 10.244.2.2:80".
    pub action: String,
    /// All packets are translated. If unset, the rule has conditions that cannot be judged beforehand.
    pub certain: bool,
}

impl fmt::Display for Translation {
    /// Names the rule that compares the port, if another one translates, and the one that translates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family.map(|family| format!("{family} ")).unwrap_or_default();
        write!(f, "{}, table {family}{}, ", self.back_end, printable(&self.table))?;
        let Some((last, way)) = self.places.split_last() else { return f.write_str(&self.action) };
        if let Some(named) = way.iter().rev().find(|place| place.names_port) {
            write!(f, "{named}, then ")?;
        }
        write!(f, "{last}: {}", self.action)
    }
}

/// Returns foreign text cut to a bounded length, without control characters.
pub(crate) fn printable(text: &[u8]) -> String {
    crate::text::beginning(&String::from_utf8_lossy(text), NAME)
}

/// Returns the first rule that translates a packet for one of `destinations` away from it, with that
/// destination. `legacy` holds the tables of iptables' legacy back end.
///
/// Rules that cannot be read are logged and count as absent.
pub fn translation(
    protocol: Protocol,
    destinations: &[SocketAddr],
    interfaces: &[(u32, String)],
    legacy: &[LegacyTable],
) -> Option<(SocketAddr, Translation)> {
    let packets: Vec<_> = destinations
        .iter()
        .filter(|destination| !destination.ip().is_loopback())
        .map(|destination| Packet { protocol, destination: *destination, interfaces })
        .collect();
    if packets.is_empty() || interfaces.is_empty() {
        return None;
    }
    let mut budget = Budget::default();
    let found = packets.iter().find_map(|packet| {
        let found = legacy.iter().find_map(|table| xtables::walk::translation(table, packet, &mut budget));
        found.map(|translation| (packet.destination, translation))
    });
    let found = found.or_else(|| {
        from_nftables(&packets, &mut budget).unwrap_or_else(|error| {
            log::debug!("rules: nf_tables cannot be read: {error}");
            None
        })
    });
    if budget.0 == 0 {
        log::debug!("rules: too many to look at all of them");
    }
    found
}

/// Looks for a translation in one consistent view of nf_tables.
fn from_nftables(packets: &[Packet], budget: &mut Budget) -> io::Result<Option<(SocketAddr, Translation)>> {
    let Some(mut reader) = Reader::open()? else {
        log::debug!("rules: nf_tables is not loaded");
        return Ok(None);
    };
    let mut result = Ok(None);
    for _ in 0..ATTEMPTS {
        let before = reader.generation()?;
        result = reader.chains().and_then(|chains| {
            for packet in packets {
                if let Some(found) = nftables::translation(&mut reader, &chains, packet, budget)? {
                    return Ok(Some((packet.destination, found)));
                }
            }
            Ok(None)
        });
        if reader.generation()? == before {
            return result;
        }
        log::debug!("rules: nf_tables changed while it was read");
        reader.forget();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_short_and_harmless() {
        assert_eq!(printable(b"KUBE-SVC-\x1b]0;x\x07\xff"), "KUBE-SVC-\u{fffd}]0;x\u{fffd}\u{fffd}");
        let long = printable("ä".repeat(300).as_bytes());
        assert_eq!(long.chars().count(), NAME + 1);
    }

    #[test]
    fn truth_is_three_valued() {
        use Truth::{Maybe, No, Yes};
        assert_eq!([Yes.and(Maybe), Maybe.and(No), Yes.and(Yes), !Maybe, !Yes], [Maybe, No, Yes, Maybe, No]);
        assert_eq!(Truth::of([Yes, No].into_iter()), Maybe);
        assert_eq!(Truth::of([].into_iter()), No);
    }
}
