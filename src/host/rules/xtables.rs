//! Matches and targets of xtables: the parts of iptables' legacy back end, and of its nft back end where
//! nf_tables has no expression of its own. The layouts are those of linux/netfilter/xt_*.h. Numbers have
//! the host's byte order, except addresses and the ports of NAT ranges.

pub(crate) mod table;
pub mod walk;

use super::{Packet, Truth, printable};
use crate::host::nfnetlink::until_zero;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// A condition of a rule. `inverted` negates it; `more` says that it has further conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of linux/netfilter/xt_*.h")]
pub enum Match {
    /// TCP or UDP ports.
    Ports { protocol: u8, destination: RangeInclusive<u16>, inverted: bool, more: bool },
    /// Several ports, of the source, the destination or either.
    Multiport { source: bool, destination: bool, ranges: Vec<RangeInclusive<u16>>, inverted: bool },
    /// Types of the destination address, as bits numbered by RTN_*.
    AddressType { destination: u16, inverted: bool, more: bool },
    /// Ranges of addresses; `source`: of the source, too.
    AddressRange { destination: Option<RangeInclusive<[u8; 16]>>, inverted: bool, source: bool },
    /// A comment, which every packet meets.
    Comment(Vec<u8>),
    /// A match that cannot be judged of a packet that has not arrived, by its name.
    Unknown(Vec<u8>),
}

impl Match {
    /// Reads a match's data; an unknown layout gives [`Match::Unknown`].
    pub(crate) fn parse(name: &[u8], revision: u8, info: &[u8]) -> Match {
        let known = match (name, revision) {
            (b"tcp", 0) => Self::tcp(info),
            (b"udp", 0) => Self::udp(info),
            (b"multiport", 0 | 1) => Self::multiport(revision, info),
            (b"addrtype", 0 | 1) => Self::address_type(revision, info),
            (b"iprange", 1) => Self::address_range(info),
            (b"comment", _) => Some(Match::Comment(until_zero(info).to_vec())),
            _ => None,
        };
        known.unwrap_or_else(|| Match::Unknown(name.to_vec()))
    }

    fn tcp(info: &[u8]) -> Option<Match> {
        let source = half(info, 0)?..=half(info, 2)?;
        let [option, flag_mask, _, inverted] = *info.get(8..)?.first_chunk()?;
        Some(Match::Ports {
            protocol: 6,
            destination: half(info, 4)?..=half(info, 6)?,
            // XT_TCP_INV_DSTPT.
            inverted: inverted & 2 != 0,
            more: source != (0..=u16::MAX) || option != 0 || flag_mask != 0 || inverted & !2 != 0,
        })
    }

    fn udp(info: &[u8]) -> Option<Match> {
        let source = half(info, 0)?..=half(info, 2)?;
        let inverted = *info.get(8)?;
        Some(Match::Ports {
            protocol: 17,
            destination: half(info, 4)?..=half(info, 6)?,
            inverted: inverted & 2 != 0,
            more: source != (0..=u16::MAX) || inverted & !2 != 0,
        })
    }

    fn multiport(revision: u8, info: &[u8]) -> Option<Match> {
        let [which, count] = *info.first_chunk()?;
        let (mut ranges, mut at) = (Vec::new(), 0);
        let count = usize::from(count).min(15);
        while at < count {
            let first = half(info, 2 + 2 * at)?;
            // A flag marks the next port as the end of a range.
            let is_range = revision == 1 && *info.get(32 + at)? != 0;
            at += 1 + usize::from(is_range);
            ranges.push(first..=if is_range { half(info, 2 * at)? } else { first });
        }
        let inverted = revision == 1 && *info.get(47)? != 0;
        Some(Match::Multiport { source: which != 1, destination: which != 0, ranges, inverted })
    }

    fn address_type(revision: u8, info: &[u8]) -> Option<Match> {
        let (source, destination) = (half(info, 0)?, half(info, 2)?);
        let flags = word(info, 4)?;
        Some(match revision {
            // XT_ADDRTYPE_INVERT_DEST; the bits above limit to an interface.
            1 => Match::AddressType {
                destination,
                inverted: flags & 2 != 0,
                more: source != 0 || flags & !3 != 0,
            },
            _ => Match::AddressType { destination, inverted: word(info, 8)? != 0, more: source != 0 },
        })
    }

    fn address_range(info: &[u8]) -> Option<Match> {
        let (first, last, flags) = (address(info, 32)?, address(info, 48)?, *info.get(64)?);
        let destination = (flags & 2 != 0).then_some(first..=last);
        Some(Match::AddressRange { destination, inverted: flags & 0x20 != 0, source: flags & 1 != 0 })
    }

    /// Returns whether the packet meets the condition.
    pub(crate) fn judge(&self, packet: &Packet) -> Truth {
        let port = packet.destination.port();
        match self {
            Match::Ports { protocol, destination, inverted, more } => {
                let hit = destination.contains(&port) != *inverted;
                Truth::from(*protocol == packet.protocol.number() && hit).and(Truth::unless(*more))
            }
            Match::Multiport { destination: false, .. } => Truth::Maybe,
            Match::Multiport { source, ranges, inverted, .. } => {
                let hit = ranges.iter().any(|range| range.contains(&port));
                match (hit, source, inverted) {
                    // The source port may match.
                    (false, true, _) => Truth::Maybe,
                    (hit, _, inverted) => Truth::from(hit != *inverted),
                }
            }
            Match::AddressType { destination, inverted, more } => {
                // RTN_LOCAL; 0 matches all.
                let hit = *destination == 0 || (*destination & 1 << 2 != 0) != *inverted;
                Truth::from(hit).and(Truth::unless(*more))
            }
            Match::AddressRange { destination, inverted, source } => {
                let own = padded(packet.destination.ip());
                let hit = destination.as_ref().is_none_or(|range| range.contains(&own) != *inverted);
                Truth::from(hit).and(Truth::unless(*source))
            }
            Match::Comment(_) => Truth::Yes,
            Match::Unknown(_) => Truth::Maybe,
        }
    }

    /// Returns whether the match compares the destination port.
    pub(crate) fn names_port(&self) -> bool {
        match self {
            Match::Ports { destination, .. } => *destination != (0..=u16::MAX),
            Match::Multiport { destination, .. } => *destination,
            _ => false,
        }
    }
}

/// Returns an address as in union nf_inet_addr: IPv4 in the first four bytes.
fn padded(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// The target of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The number in a standard target: an offset to jump to, or a verdict below 0.
    Standard(i32),
    /// The head of a user's chain in a legacy table, with the chain's name.
    Head(Vec<u8>),
    /// A translation of the destination.
    Translate(Translate),
    /// A target that marks, logs or counts.
    Other,
}

/// A new destination. `None` keeps the port, and keeps the address or takes the ingress interface's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translate {
    /// DNAT, REDIRECT or NETMAP.
    pub target: &'static str,
    /// The new address.
    pub address: Option<IpAddr>,
    /// The new port, as a range.
    pub ports: Option<RangeInclusive<u16>>,
}

impl Target {
    /// Reads a target's data, of ip6tables if `ipv6`.
    pub(crate) fn parse(name: &[u8], revision: u8, info: &[u8], ipv6: bool) -> Target {
        let translate = |target| {
            let range = match (target, revision, ipv6) {
                // struct nf_nat_ipv4_multi_range_compat.
                ("DNAT", 0, false) | ("REDIRECT" | "NETMAP", _, false) => Self::ipv4_range(info),
                _ => Self::range(info, ipv6),
            };
            let (address, ports) = range.unwrap_or_default();
            Target::Translate(Translate { target, address, ports })
        };
        match name {
            b"" => word(info, 0).map_or(Target::Other, |verdict| Target::Standard(verdict.cast_signed())),
            b"ERROR" => Target::Head(until_zero(info).to_vec()),
            b"DNAT" => translate("DNAT"),
            b"REDIRECT" => translate("REDIRECT"),
            b"NETMAP" => translate("NETMAP"),
            _ => Target::Other,
        }
    }

    fn ipv4_range(info: &[u8]) -> Option<(Option<IpAddr>, Option<RangeInclusive<u16>>)> {
        let flags = word(info, 4)?;
        let address = Ipv4Addr::from(*info.get(8..)?.first_chunk::<4>()?);
        let ports = network_half(info, 16)?..=network_half(info, 18)?;
        Some(specified(flags, address.into(), ports))
    }

    fn range(info: &[u8], ipv6: bool) -> Option<(Option<IpAddr>, Option<RangeInclusive<u16>>)> {
        let first = address(info, 4)?;
        let ip = match first {
            [a, b, c, d, ..] if !ipv6 => IpAddr::from([a, b, c, d]),
            bytes => Ipv6Addr::from(bytes).into(),
        };
        let ports = network_half(info, 36)?..=network_half(info, 38)?;
        Some(specified(word(info, 0)?, ip, ports))
    }
}

/// Returns the parts that NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED select.
fn specified(
    flags: u32,
    address: IpAddr,
    ports: RangeInclusive<u16>,
) -> (Option<IpAddr>, Option<RangeInclusive<u16>>) {
    ((flags & 1 != 0).then_some(address), (flags & 2 != 0).then_some(ports))
}

impl Translate {
    /// Returns whether the packet gets another destination. A redirection changes the address only to
    /// another one of this host, which does not count.
    pub(crate) fn changes(&self, packet: &Packet) -> bool {
        let port = packet.destination.port();
        let same_address = self.address.is_none_or(|ip| ip == packet.destination.ip());
        let same_port = self.ports.as_ref().is_none_or(|ports| *ports == (port..=port));
        !(same_address && same_port)
    }
}

impl fmt::Display for Translate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.target)?;
        let ports = self.ports.as_ref().map(|ports| match (ports.start(), ports.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        match (self.address, ports) {
            (Some(ip @ IpAddr::V6(_)), Some(ports)) => write!(f, " to [{ip}]:{ports}"),
            (Some(ip), Some(ports)) => write!(f, " to {ip}:{ports}"),
            (Some(ip), None) => write!(f, " to {ip}"),
            (None, Some(ports)) => write!(f, " to port {ports}"),
            (None, None) => Ok(()),
        }
    }
}

/// Returns the name of a match that cannot be judged, for the log.
pub(super) fn unknown(matches: &[Match]) -> Option<String> {
    matches.iter().find_map(|m| match m {
        Match::Unknown(name) => Some(printable(name)),
        _ => None,
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn network_half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(bytes: &[u8], at: usize) -> Option<[u8; 16]> {
    bytes.get(at..)?.first_chunk().copied()
}
