//! Values of netfilter's data types as text, in the words of nft(8).
use crate::text;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Characters of a foreign name that are kept.
const NAME: usize = 64;

/// A data type (nft(8), DATA TYPES). It decides how the bytes of a register or of a set's key are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are nft's own")]
pub(crate) enum Datatype {
    Ipv4Address,
    Ipv6Address,
    LinkAddress,
    EtherType,
    Protocol,
    Service,
    NfProto,
    Mark,
    InterfaceIndex,
    InterfaceName,
    InterfaceType,
    PacketType,
    CtState,
    CtStatus,
    CtDirection,
    TcpFlags,
    IcmpType,
    Icmpv6Type,
    ArpOperation,
    Dscp,
    Ecn,
    ClassId,
    FibType,
    Boolean,
    /// A quoted string.
    Text,
    /// A number in the host's byte order.
    HostNumber,
    /// A number in network byte order.
    Number,
    /// Hexadecimal digits.
    Bytes,
}

use Datatype as D;

impl Datatype {
    /// Returns the type that nft gives a number in NFTA_SET_KEY_TYPE (nftables' datatype.h, enum datatypes).
    pub(crate) fn of_set(number: u32) -> Datatype {
        match number {
            2 => D::NfProto,
            5 => D::Text,
            7 => D::Ipv4Address,
            8 => D::Ipv6Address,
            6 | 9 => D::LinkAddress,
            10 => D::EtherType,
            11 => D::ArpOperation,
            12 => D::Protocol,
            13 => D::Service,
            14 => D::IcmpType,
            15 => D::TcpFlags,
            19 => D::Mark,
            20 => D::InterfaceIndex,
            21 => D::InterfaceType,
            23 => D::ClassId,
            22 | 24 | 25 | 35 => D::HostNumber,
            26 => D::CtState,
            27 => D::CtDirection,
            28 => D::CtStatus,
            29 => D::Icmpv6Type,
            31 => D::PacketType,
            36 => D::Dscp,
            37 => D::Ecn,
            38 => D::FibType,
            39 => D::Boolean,
            41 => D::InterfaceName,
            4 => D::HostNumber,
            _ => D::Bytes,
        }
    }

    /// Returns the length of a value in bytes, where the type fixes it.
    pub(crate) fn length(self) -> Option<usize> {
        Some(match self {
            D::Ipv4Address | D::Mark | D::InterfaceIndex | D::CtState | D::CtStatus | D::FibType => 4,
            D::HostNumber | D::ClassId => 4,
            D::Ipv6Address | D::InterfaceName => 16,
            D::LinkAddress => 6,
            D::EtherType | D::Service | D::InterfaceType | D::ArpOperation => 2,
            D::Protocol | D::NfProto | D::PacketType | D::CtDirection | D::TcpFlags | D::Dscp | D::Ecn => 1,
            D::IcmpType | D::Icmpv6Type | D::Boolean => 1,
            D::Text | D::Number | D::Bytes => return None,
        })
    }

    /// Returns whether the bits of a value are flags with names of their own.
    pub(crate) fn is_flags(self) -> bool {
        matches!(self, D::CtState | D::CtStatus | D::TcpFlags)
    }

    /// Returns whether a value is an address, of which a prefix can be compared.
    pub(crate) fn address_length(self) -> Option<usize> {
        matches!(self, D::Ipv4Address | D::Ipv6Address | D::LinkAddress).then(|| self.length()).flatten()
    }

    /// Returns a value's text.
    pub(crate) fn text(self, value: &[u8]) -> String {
        let number = || network_number(value);
        match self {
            D::Ipv4Address | D::Ipv6Address => address(self, value),
            D::LinkAddress => value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
            D::EtherType => match number() {
                0x800 => "ip".into(),
                0x806 => "arp".into(),
                0x86dd => "ip6".into(),
                0x8100 => "8021q".into(),
                0x88a8 => "8021ad".into(),
                other => format!("{other:#06x}"),
            },
            D::Protocol => protocol(value),
            D::NfProto => match number() {
                2 => "ipv4".into(),
                10 => "ipv6".into(),
                other => other.to_string(),
            },
            D::Mark => format!("{:#010x}", host_number(value)),
            D::InterfaceName => interface_name(value),
            D::InterfaceType => match host_number(value) {
                1 => "ether".into(),
                772 => "loopback".into(),
                768 => "ipip".into(),
                other => other.to_string(),
            },
            D::PacketType => named(host_number(value), &["host", "broadcast", "multicast", "other"]),
            D::CtState => flags(host_number(value), CT_STATES, ","),
            D::CtStatus => flags(host_number(value), CT_STATUS, ","),
            D::CtDirection => named(number(), &["original", "reply"]),
            D::TcpFlags => flags(number(), TCP_FLAGS, ","),
            D::IcmpType => known(number(), ICMP_TYPES),
            D::Icmpv6Type => known(number(), ICMPV6_TYPES),
            D::ArpOperation => {
                known(number(), &[(1, "request"), (2, "reply"), (3, "rrequest"), (4, "rreply")])
            }
            D::Dscp => dscp(number()),
            D::Ecn => named(number(), &["not-ect", "ect1", "ect0", "ce"]),
            D::ClassId => {
                let handle = host_number(value);
                format!("{:x}:{:x}", handle >> 16, handle & 0xffff)
            }
            D::FibType => {
                const TYPES: &[&str] = &[
                    "unspec",
                    "unicast",
                    "local",
                    "broadcast",
                    "anycast",
                    "multicast",
                    "blackhole",
                    "unreachable",
                    "prohibit",
                ];
                named(host_number(value), TYPES)
            }
            D::Boolean => if number() == 0 { "missing" } else { "exists" }.into(),
            D::Text => quoted(value),
            D::HostNumber | D::InterfaceIndex => host_number(value).to_string(),
            D::Service | D::Number => number().to_string(),
            D::Bytes => format!("0x{}", value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        }
    }

    /// Returns the text of an interval of values: a prefix, if it is one of addresses, or both ends.
    pub(crate) fn interval(self, first: &[u8], last: &[u8]) -> String {
        if first == last {
            return self.text(first);
        }
        let bits = prefix_of(first, last).filter(|_| self.address_length().is_some());
        match bits {
            Some(bits) => format!("{}/{bits}", self.text(first)),
            None => format!("{}-{}", self.text(first), self.text(last)),
        }
    }
}

/// enum ip_conntrack_info's bits as nft's `ct state` has them (nft ct.c).
pub(super) const CT_STATES: &[(u64, &str)] =
    &[(1, "invalid"), (8, "new"), (2, "established"), (4, "related"), (64, "untracked")];
/// enum ip_conntrack_status (linux/netfilter/nf_conntrack_common.h).
const CT_STATUS: &[(u64, &str)] = &[
    (1, "expected"),
    (2, "seen-reply"),
    (4, "assured"),
    (8, "confirmed"),
    (16, "snat"),
    (32, "dnat"),
    (512, "dying"),
];
/// The flags in byte 13 of a TCP header.
const TCP_FLAGS: &[(u64, &str)] =
    &[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg"), (64, "ecn"), (128, "cwr")];
/// IANA's ICMP type numbers, in nft's words.
const ICMP_TYPES: &[(u64, &str)] = &[
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
];
/// IANA's ICMPv6 type numbers, in nft's words.
const ICMPV6_TYPES: &[(u64, &str)] = &[
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
    (143, "mld2-listener-report"),
];

/// Returns foreign bytes as text of bounded length, without control characters or quotation marks.
pub(crate) fn name(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    text::beginning(&String::from_utf8_lossy(bytes), NAME).replace('"', "'")
}

/// Returns a foreign string in quotation marks.
pub(super) fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", name(bytes))
}

/// Returns the number in at most eight bytes of network byte order.
pub(super) fn network_number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Returns the number in at most eight bytes of the host's byte order.
pub(super) fn host_number(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    let length = bytes.len().min(8);
    let at = if cfg!(target_endian = "big") { 8 - length } else { 0 };
    if let (Some(into), Some(from)) = (whole.get_mut(at..at + length), bytes.get(..length)) {
        into.copy_from_slice(from);
    }
    u64::from_ne_bytes(whole)
}

/// Returns the names of the flags that are set; the number if one has no name.
pub(super) fn flags(value: u64, names: &[(u64, &str)], separator: &str) -> String {
    let known = names.iter().fold(0, |all, (bit, _)| all | bit);
    if value == 0 || value & !known != 0 {
        return format!("{value:#x}");
    }
    let set: Vec<_> = names.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
    set.join(separator)
}

/// Returns the length of the prefix that an interval covers exactly, in bits.
pub(super) fn prefix_of(first: &[u8], last: &[u8]) -> Option<u32> {
    let bits = first.iter().zip(last).map(|(a, b)| (a ^ b).leading_zeros()).scan(true, |whole, n| {
        let counted = if *whole { n } else { 0 };
        *whole &= n == 8;
        Some(counted)
    });
    let prefix: u32 = bits.sum();
    let host = |bytes: &[u8], ones: bool| {
        (prefix..8 * bytes.len() as u32).all(|bit| {
            let byte = bytes.get(bit as usize / 8).copied().unwrap_or_default();
            (byte >> (7 - bit % 8) & 1 == 1) == ones
        })
    };
    (host(first, false) && host(last, true)).then_some(prefix)
}

fn address(kind: Datatype, value: &[u8]) -> String {
    let full = |bytes: &[u8]| match kind {
        D::Ipv4Address => bytes.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).to_string()),
        _ => bytes.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).to_string()),
    };
    if let Some(text) = full(value) {
        return text;
    }
    // nft loads only the bytes of a prefix that ends at one.
    let mut padded = [0; 16];
    if let Some(part) = padded.get_mut(..value.len()) {
        part.copy_from_slice(value);
    }
    full(&padded).map_or_else(String::new, |text| format!("{text}/{}", 8 * value.len()))
}

fn protocol(value: &[u8]) -> String {
    const PROTOCOLS: &[(u64, &str)] = &[
        (1, "icmp"),
        (2, "igmp"),
        (4, "ipencap"),
        (6, "tcp"),
        (17, "udp"),
        (33, "dccp"),
        (41, "ipv6"),
        (47, "gre"),
        (50, "esp"),
        (51, "ah"),
        (58, "ipv6-icmp"),
        (132, "sctp"),
        (136, "udplite"),
    ];
    known(network_number(value), PROTOCOLS)
}

fn interface_name(value: &[u8]) -> String {
    // A comparison of a prefix holds no zero: `eth*`.
    let wildcard = if value.contains(&0) || value.len() >= 16 { "" } else { "*" };
    format!("\"{}{wildcard}\"", name(value))
}

fn dscp(value: u64) -> String {
    const NAMES: &[(u64, &str)] = &[
        (0, "cs0"),
        (8, "cs1"),
        (16, "cs2"),
        (24, "cs3"),
        (32, "cs4"),
        (40, "cs5"),
        (48, "cs6"),
        (56, "cs7"),
        (10, "af11"),
        (12, "af12"),
        (14, "af13"),
        (18, "af21"),
        (20, "af22"),
        (22, "af23"),
        (26, "af31"),
        (28, "af32"),
        (30, "af33"),
        (34, "af41"),
        (36, "af42"),
        (38, "af43"),
        (46, "ef"),
    ];
    NAMES
        .iter()
        .find(|(number, _)| *number == value)
        .map_or_else(|| format!("{value:#04x}"), |(_, name)| (*name).to_string())
}

/// Returns the name of a number in a sparse list, or the number.
fn known(number: u64, names: &[(u64, &str)]) -> String {
    names.iter().find(|(n, _)| *n == number).map_or_else(|| number.to_string(), |(_, n)| (*n).to_string())
}

/// Returns the name of a number in a dense list, or the number.
fn named(number: u64, names: &[&str]) -> String {
    let name = usize::try_from(number).ok().and_then(|at| names.get(at));
    name.map_or_else(|| number.to_string(), |name| (*name).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_nfts_words() {
        assert_eq!(D::Ipv4Address.text(&[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(D::Ipv4Address.text(&[10, 1]), "10.1.0.0/16");
        assert_eq!(D::CtState.text(&9_u32.to_ne_bytes()), "invalid,new");
        assert_eq!(D::InterfaceName.text(b"eth"), "\"eth*\"");
        assert_eq!(D::InterfaceName.text(b"eth0\0"), "\"eth0\"");
        assert_eq!(D::Mark.text(&0x4000_u32.to_ne_bytes()), "0x00004000");
        assert_eq!(D::Dscp.text(&[8]), "cs1");
    }

    #[test]
    fn an_interval_that_is_a_prefix_is_printed_as_one() {
        assert_eq!(D::Ipv4Address.interval(&[10, 0, 0, 0], &[10, 0, 0, 255]), "10.0.0.0/24");
        assert_eq!(D::Ipv4Address.interval(&[10, 0, 0, 1], &[10, 0, 0, 255]), "10.0.0.1-10.0.0.255");
        assert_eq!(D::Service.interval(&[0, 80], &[0, 90]), "80-90");
        assert_eq!(prefix_of(&[0; 4], &[255; 4]), Some(0));
    }

    #[test]
    fn foreign_names_are_short_and_harmless() {
        assert_eq!(quoted(b"a\"b\x1b[2J\0rest"), "\"a'b\u{fffd}[2J\"");
        assert_eq!(name(&[b'x'; 300]).chars().count(), NAME + 1);
    }
}
