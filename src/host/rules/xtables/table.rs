//! The legacy table that getsockopt(2) returns: a sequence of entries, each with matches and a target
//! (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h; layouts of 64-bit machines).
use super::{Match, Target, half};
use crate::host::nfnetlink::until_zero;
use crate::host::rules::Family;
use std::collections::HashMap;

/// Size of struct xt_entry_match and xt_entry_target, in bytes: size, name, revision; then the data.
const EXTENSION_HEADER: usize = 32;
/// XT_EXTENSION_MAXNAMELEN.
const NAME: usize = 29;
/// IFNAMSIZ.
const INTERFACE_NAME: usize = 16;

/// Offsets of an entry's fields, in bytes.
struct Layout {
    address: usize,
    interface: usize,
    interface_mask: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    target_offset: usize,
    /// The flag that makes a jump a goto.
    goto: u8,
    header: usize,
}

/// struct ipt_entry.
const IPV4: Layout = Layout {
    address: 4,
    interface: 16,
    interface_mask: 48,
    protocol: 80,
    flags: 82,
    inverted: 83,
    target_offset: 88,
    goto: 2,
    header: 112,
};

/// struct ip6t_entry.
const IPV6: Layout = Layout {
    address: 16,
    interface: 64,
    interface_mask: 96,
    protocol: 128,
    flags: 131,
    inverted: 132,
    target_offset: 140,
    goto: 4,
    header: 168,
};

/// A legacy nat table.
#[derive(Clone, Debug)]
pub struct LegacyTable {
    family: Family,
    entries: Vec<u8>,
    /// Offset of PREROUTING.
    prerouting: usize,
    /// Names of user-defined chains, by the offset of their first rule.
    chains: HashMap<usize, Vec<u8>>,
}

/// A rule of a legacy table (struct ipt_entry and ip6t_entry).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the kernel's")]
pub(crate) struct Entry {
    pub destination: Vec<u8>,
    pub destination_mask: Vec<u8>,
    pub destination_inverted: bool,
    /// The rule compares a source address or an output interface.
    pub more: bool,
    pub interface: Vec<u8>,
    /// Mask of the interface name's significant bytes.
    pub interface_mask: Vec<u8>,
    pub interface_inverted: bool,
    /// IPPROTO_*; 0 for any.
    pub protocol: u16,
    pub protocol_inverted: bool,
    pub is_goto: bool,
    pub matches: Vec<Match>,
    pub target: Target,
    /// Offset of the next entry.
    pub next: usize,
}

impl LegacyTable {
    /// Returns the table with these entries and this offset of PREROUTING.
    pub fn new(family: Family, entries: Vec<u8>, prerouting: usize) -> LegacyTable {
        let mut table = LegacyTable { family, entries, prerouting, chains: HashMap::new() };
        let mut at = 0;
        while let Some((target, next)) = table.extent(at) {
            if let Some((b"ERROR", _, info)) = extension(&table.entries, target).map(|(n, r, i, _)| (n, r, i))
            {
                table.chains.insert(next, until_zero(info).to_vec());
            }
            at = next;
        }
        table
    }

    /// Returns the table's family.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Returns the offset of PREROUTING.
    pub(crate) fn prerouting(&self) -> usize {
        self.prerouting
    }

    /// Returns the name of the chain whose rules begin at an offset.
    pub(crate) fn chain(&self, at: usize) -> &[u8] {
        self.chains.get(&at).map_or(b"PREROUTING", Vec::as_slice)
    }

    fn layout(&self) -> &'static Layout {
        if self.family == Family::V6 { &IPV6 } else { &IPV4 }
    }

    /// Returns the offsets of an entry's target and of the next entry.
    fn extent(&self, at: usize) -> Option<(usize, usize)> {
        let layout = self.layout();
        let target = half(&self.entries, at.checked_add(layout.target_offset)?)?;
        let next = half(&self.entries, at + layout.target_offset + 2)?;
        let (target, next) = (at + usize::from(target), at + usize::from(next));
        (at + layout.header <= target && target < next && next <= self.entries.len())
            .then_some((target, next))
    }

    /// Reads the entry at an offset; `None` if there is none or it is cut short.
    pub(crate) fn entry(&self, at: usize) -> Option<Entry> {
        let layout = self.layout();
        let (target_at, next) = self.extent(at)?;
        let bytes = self.entries.get(at..next)?;
        let field = |at: usize, length: usize| bytes.get(at..at + length);
        let (flags, inverted) = (*bytes.get(layout.flags)?, *bytes.get(layout.inverted)?);
        let source_mask = field(2 * layout.address, layout.address)?;
        let outgoing = field(layout.interface + INTERFACE_NAME, INTERFACE_NAME)?;
        let mut matches = Vec::new();
        let mut cursor = at + layout.header;
        while cursor < target_at {
            let (name, revision, info, size) = extension(&self.entries, cursor)?;
            matches.push(Match::parse(name, revision, info));
            cursor += size;
        }
        let (name, revision, info, _) = extension(&self.entries, target_at)?;
        Some(Entry {
            destination: field(layout.address, layout.address)?.to_vec(),
            destination_mask: field(3 * layout.address, layout.address)?.to_vec(),
            // IPT_INV_DSTIP, IPT_INV_SRCIP, IPT_INV_VIA_IN, XT_INV_PROTO.
            destination_inverted: inverted & 0x10 != 0,
            more: inverted & 0x08 != 0 || [source_mask, outgoing].concat().iter().any(|byte| *byte != 0),
            interface: field(layout.interface, INTERFACE_NAME)?.to_vec(),
            interface_mask: field(layout.interface_mask, INTERFACE_NAME)?.to_vec(),
            interface_inverted: inverted & 0x01 != 0,
            protocol: half(bytes, layout.protocol)?,
            protocol_inverted: inverted & 0x40 != 0,
            is_goto: flags & layout.goto != 0,
            matches,
            target: Target::parse(name, revision, info, self.family == Family::V6),
            next,
        })
    }
}

/// Returns name, revision, data and size of the match or target at an offset.
fn extension(entries: &[u8], at: usize) -> Option<(&[u8], u8, &[u8], usize)> {
    let size = usize::from(half(entries, at)?);
    let bytes = entries.get(at..at.checked_add(size)?)?;
    let name = until_zero(bytes.get(2..2 + NAME)?);
    let revision = *bytes.get(EXTENSION_HEADER - 1)?;
    Some((name, revision, bytes.get(EXTENSION_HEADER..)?, size))
}

#[cfg(test)]
mod tests {
    use super::{super::walk::translation, *};
    use crate::{
        host::rules::{Budget, Packet},
        net::Protocol,
    };

    /// An entry with a target and no match, aligned as the kernel's are.
    fn entry(family: Family, protocol: u16, destination: &[u8], name: &[u8], info: &[u8]) -> Vec<u8> {
        let layout = if family == Family::V6 { &IPV6 } else { &IPV4 };
        let mut bytes = vec![0; layout.header + EXTENSION_HEADER];
        bytes[layout.address..][..destination.len()].copy_from_slice(destination);
        bytes[3 * layout.address..][..destination.len()].fill(0xff);
        bytes[layout.protocol..][..2].copy_from_slice(&protocol.to_ne_bytes());
        let target = u16::try_from(layout.header).expect("short");
        bytes[layout.target_offset..][..2].copy_from_slice(&target.to_ne_bytes());
        bytes[layout.header + 2..][..name.len()].copy_from_slice(name);
        bytes.extend(info);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let length = u16::try_from(bytes.len()).expect("short");
        bytes[layout.target_offset + 2..][..2].copy_from_slice(&length.to_ne_bytes());
        bytes[layout.header..][..2].copy_from_slice(&(length - target).to_ne_bytes());
        bytes
    }

    fn standard(family: Family, verdict: i32) -> Vec<u8> {
        entry(family, 0, &[], b"", &verdict.to_ne_bytes())
    }

    /// Walks a packet for port 80 of 192.0.2.1 or 2001:db8::1.
    fn walk(family: Family, entries: Vec<u8>) -> Option<String> {
        let at = if family == Family::V6 { "[2001:db8::1]:80" } else { "192.0.2.1:80" };
        let interfaces = [(2, "eth0".to_owned())];
        let destination = at.parse().expect("an address");
        let packet = Packet { protocol: Protocol::Tcp, destination, interfaces: &interfaces };
        let table = LegacyTable::new(family, entries, 0);
        translation(&table, &packet, &mut Budget::default()).map(|rule| rule.to_string())
    }

    #[test]
    fn chains_are_followed_in_both_families() {
        for (family, own, other) in [
            (Family::V4, &[192, 0, 2, 1][..], &[192, 0, 2, 2][..]),
            (Family::V6, &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &[0x20, 2]),
        ] {
            // A range without flags: the receiving interface's address, port 9.
            let mut info = vec![0; 44];
            info[if family == Family::V6 { 0 } else { 4 }] = 2;
            let ports = if family == Family::V6 { 36 } else { 16 };
            info[ports..ports + 4].copy_from_slice(&[0, 9, 0, 9]);
            let redirect = |destination| entry(family, 6, destination, b"REDIRECT", &info);
            let name = if family == Family::V6 { "ip6tables" } else { "iptables" };
            let told =
                |place: &str| Some(format!("{name} (legacy), table nat, chain {place}: REDIRECT to port 9"));
            assert_eq!(walk(family, redirect(own)), told("PREROUTING, rule 1"));
            assert_eq!(walk(family, redirect(other)), None);
            assert_eq!(walk(family, [standard(family, -2), redirect(own)].concat()), None);
            assert_eq!(walk(family, [standard(family, -5), redirect(own)].concat()), None);
            // A jump over the policy and the head of a chain.
            let (policy, head) = (standard(family, -2), entry(family, 0, &[], b"ERROR", b"mine\0"));
            let to = policy.len() * 2 + head.len();
            let jump = standard(family, i32::try_from(to).expect("short"));
            let all = [jump, policy, head, redirect(own), standard(family, -5)].concat();
            assert_eq!(walk(family, all), told("mine, rule 1"));
            // No table of the kernel's has a loop.
            assert_eq!(walk(family, standard(family, 0)), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_tables_never_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
            target in proptest::option::of(112_u16..200),
            size in 112_u16..300,
        ) {
            for (family, layout) in [(Family::V4, &IPV4), (Family::V6, &IPV6)] {
                let mut bytes = bytes.clone();
                if let Some(target) = target && bytes.len() > layout.target_offset + 4 {
                    bytes[layout.target_offset..][..2].copy_from_slice(&target.to_ne_bytes());
                    bytes[layout.target_offset + 2..][..2].copy_from_slice(&size.to_ne_bytes());
                }
                walk(family, bytes);
            }
        }

        #[test]
        fn arbitrary_extensions_never_panic(
            info in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
            revision in 0_u8..3,
        ) {
            for name in ["tcp", "udp", "multiport", "addrtype", "iprange", "comment"] {
                Match::parse(name.as_bytes(), revision, &info);
            }
            for name in ["", "ERROR", "DNAT", "REDIRECT", "NETMAP"] {
                Target::parse(name.as_bytes(), revision, &info, false);
                Target::parse(name.as_bytes(), revision, &info, true);
            }
        }
    }
}
