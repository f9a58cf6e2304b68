//! The content of a register (a field of the packet, of its connection, of its socket), with nft's name for it.
use super::datatype::{Datatype as D, name};
use crate::host::nfnetlink::Attributes;

/// NFPROTO_IPV4, NFPROTO_ARP, NFPROTO_BRIDGE, NFPROTO_IPV6 (linux/netfilter.h).
pub(super) const IPV4: u8 = 2;
pub(super) const ARP: u8 = 3;
pub(super) const IPV6: u8 = 10;

/// The protocols that a rule's earlier conditions fix for its later ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layers {
    /// NFPROTO_*.
    pub network: Option<u8>,
    /// IPPROTO_*.
    pub transport: Option<u8>,
}

/// A condition that nft inserts so that a later field has a meaning, and does not print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dependency {
    /// `meta nfproto`, `meta protocol`: NFPROTO_*.
    Network(u8),
    /// `meta l4proto`: IPPROTO_*.
    Transport(u8),
    /// `iiftype ether`.
    Ether,
    /// `ether type 8021q`.
    Vlan,
}

/// Bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// Bytes of a header; `base` is NFT_PAYLOAD_*_HEADER.
    Payload {
        /// 0: link, 1: network, 2: transport.
        base: u32,
        /// In bytes.
        offset: u32,
        /// In bytes.
        length: u32,
    },
    /// NFT_META_L4PROTO.
    TransportProtocol,
    /// NFT_META_NFPROTO.
    NetworkProtocol,
}

/// A name for what a register holds, and how its values are printed.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    /// nft's words: `tcp dport`.
    pub name: String,
    /// The type of its values.
    pub datatype: D,
    /// The packet's bytes, where a packet alone decides.
    pub field: Option<Field>,
    /// The conditions that the name implies.
    pub(super) needs: Vec<Dependency>,
}

impl Selector {
    /// Returns a selector of this name.
    pub(super) fn new(name: impl Into<String>, datatype: D) -> Selector {
        Selector { name: name.into(), datatype, field: None, needs: Vec::new() }
    }
}

/// Names the field that a payload expression loads.
pub(super) fn payload(base: u32, offset: u32, length: u32, layers: Layers) -> Selector {
    let found = match base {
        0 => link(offset, length),
        1 => network(offset, length, layers.network),
        2 => Some(transport(offset, length, layers.transport)).flatten(),
        _ => None,
    };
    let mut selector = found.unwrap_or_else(|| {
        let header = ["ll", "nh", "th", "ih"].get(base as usize).copied().unwrap_or("?");
        let (at, bits) = (u64::from(offset) * 8, u64::from(length) * 8);
        Selector::new(format!("@{header},{at},{bits}"), D::Bytes)
    });
    selector.field = Some(Field::Payload { base, offset, length });
    selector
}

fn link(offset: u32, length: u32) -> Option<Selector> {
    let mut selector = match (offset, length) {
        (0, _) if length <= 6 => Selector::new("ether daddr", D::LinkAddress),
        (6, _) if length <= 6 => Selector::new("ether saddr", D::LinkAddress),
        (12, 2) => Selector::new("ether type", D::EtherType),
        (14, 2) => Selector::new("vlan tci", D::Number),
        (16, 2) => Selector::new("vlan type", D::EtherType),
        _ => return None,
    };
    selector.needs = vec![Dependency::Ether, Dependency::Vlan];
    selector.needs.truncate(if selector.name.starts_with("vlan") { 2 } else { 1 });
    Some(selector)
}

fn network(offset: u32, length: u32, network: Option<u8>) -> Option<Selector> {
    // Without a condition on the protocol the offsets tell the addresses apart.
    let family = network.unwrap_or(match (offset, length) {
        (8 | 24, 5..) => IPV6,
        _ => IPV4,
    });
    let (name, datatype) = match (family, offset, length) {
        (IPV4, 0, 1) => ("ip version", D::Number),
        (IPV4, 1, 1) => ("ip dscp", D::Number),
        (IPV4, 2, 2) => ("ip length", D::Number),
        (IPV4, 4, 2) => ("ip id", D::Number),
        (IPV4, 6, 2) => ("ip frag-off", D::Number),
        (IPV4, 8, 1) => ("ip ttl", D::Number),
        (IPV4, 9, 1) => ("ip protocol", D::Protocol),
        (IPV4, 10, 2) => ("ip checksum", D::Bytes),
        (IPV4, 12, ..=4) => ("ip saddr", D::Ipv4Address),
        (IPV4, 16, ..=4) => ("ip daddr", D::Ipv4Address),
        (IPV6, 0, 2) => ("ip6 dscp", D::Number),
        (IPV6, 4, 2) => ("ip6 length", D::Number),
        (IPV6, 6, 1) => ("ip6 nexthdr", D::Protocol),
        (IPV6, 7, 1) => ("ip6 hoplimit", D::Number),
        (IPV6, 8, ..=16) => ("ip6 saddr", D::Ipv6Address),
        (IPV6, 24, ..=16) => ("ip6 daddr", D::Ipv6Address),
        (ARP, 0, 2) => ("arp htype", D::Number),
        (ARP, 2, 2) => ("arp ptype", D::EtherType),
        (ARP, 4, 1) => ("arp hlen", D::Number),
        (ARP, 5, 1) => ("arp plen", D::Number),
        (ARP, 6, 2) => ("arp operation", D::ArpOperation),
        (ARP, 8, 6) => ("arp saddr ether", D::LinkAddress),
        (ARP, 14, 4) => ("arp saddr ip", D::Ipv4Address),
        (ARP, 18, 6) => ("arp daddr ether", D::LinkAddress),
        (ARP, 24, 4) => ("arp daddr ip", D::Ipv4Address),
        _ => return None,
    };
    let mut selector = Selector::new(name, datatype);
    selector.needs = vec![Dependency::Network(family)];
    Some(selector)
}

fn transport(offset: u32, length: u32, transport: Option<u8>) -> Option<Selector> {
    let ports = || match (offset, length) {
        (0, 2) => Some(("sport", D::Service)),
        (2, 2) => Some(("dport", D::Service)),
        _ => None,
    };
    let (protocol, (field, datatype)) = match transport {
        Some(6) => ("tcp", ports().or_else(|| tcp_field(offset, length))?),
        Some(17) => match (offset, length) {
            (4, 2) => ("udp", ("length", D::Number)),
            (6, 2) => ("udp", ("checksum", D::Bytes)),
            _ => ("udp", ports()?),
        },
        Some(1 | 58) => {
            let v6 = transport == Some(58);
            let field = match (offset, length) {
                (0, 1) => ("type", if v6 { D::Icmpv6Type } else { D::IcmpType }),
                (1, 1) => ("code", D::Number),
                (4, 2) => ("id", D::Number),
                (6, 2) => ("sequence", D::Number),
                (4, 4) => ("mtu", D::Number),
                _ => return None,
            };
            (if v6 { "icmpv6" } else { "icmp" }, field)
        }
        Some(132) => ("sctp", ports()?),
        Some(33) => ("dccp", ports()?),
        Some(136) => ("udplite", ports()?),
        _ => ("th", ports()?),
    };
    let mut selector = Selector::new(format!("{protocol} {field}"), datatype);
    selector.needs = transport.filter(|_| protocol != "th").map(Dependency::Transport).into_iter().collect();
    selector.needs.extend(match transport {
        Some(1) => Some(Dependency::Network(IPV4)),
        Some(58) => Some(Dependency::Network(IPV6)),
        _ => None,
    });
    Some(selector)
}

fn tcp_field(offset: u32, length: u32) -> Option<(&'static str, D)> {
    Some(match (offset, length) {
        (4, 4) => ("sequence", D::Number),
        (8, 4) => ("ackseq", D::Number),
        (12, 1) => ("doff", D::Number),
        (13, 1) => ("flags", D::TcpFlags),
        (14, 2) => ("window", D::Number),
        (16, 2) => ("checksum", D::Bytes),
        (18, 2) => ("urgptr", D::Number),
        _ => return None,
    })
}

/// Names a key of the meta expression (enum nft_meta_keys).
pub(super) fn meta(key: u32) -> Selector {
    let (name, datatype) = match key {
        0 => ("meta length", D::HostNumber),
        1 => ("meta protocol", D::EtherType),
        2 => ("meta priority", D::ClassId),
        3 => ("meta mark", D::Mark),
        4 => ("iif", D::InterfaceIndex),
        5 => ("oif", D::InterfaceIndex),
        6 => ("iifname", D::InterfaceName),
        7 => ("oifname", D::InterfaceName),
        8 => ("iiftype", D::InterfaceType),
        9 => ("oiftype", D::InterfaceType),
        10 => ("meta skuid", D::HostNumber),
        11 => ("meta skgid", D::HostNumber),
        12 => ("meta nftrace", D::HostNumber),
        13 => ("meta rtclassid", D::HostNumber),
        14 => ("meta secmark", D::HostNumber),
        15 => ("meta nfproto", D::NfProto),
        16 => ("meta l4proto", D::Protocol),
        17 => ("meta ibrname", D::InterfaceName),
        18 => ("meta obrname", D::InterfaceName),
        19 => ("meta pkttype", D::PacketType),
        20 => ("meta cpu", D::HostNumber),
        21 => ("iifgroup", D::HostNumber),
        22 => ("oifgroup", D::HostNumber),
        23 => ("meta cgroup", D::HostNumber),
        24 => ("meta random", D::HostNumber),
        25 => ("meta ipsec", D::Boolean),
        26 => ("meta iifkind", D::Text),
        27 => ("meta oifkind", D::Text),
        28 => ("meta ibrpvid", D::HostNumber),
        29 => ("meta ibrvproto", D::EtherType),
        30 => ("meta time", D::HostNumber),
        31 => ("meta day", D::HostNumber),
        32 => ("meta hour", D::HostNumber),
        33 => ("meta sdif", D::InterfaceIndex),
        34 => ("meta sdifname", D::InterfaceName),
        other => return Selector::new(format!("meta key {other}"), D::Bytes),
    };
    let mut selector = Selector::new(name, datatype);
    selector.field = match key {
        15 => Some(Field::NetworkProtocol),
        16 => Some(Field::TransportProtocol),
        _ => None,
    };
    selector
}

/// Names a key of the ct expression (enum nft_ct_keys), with its direction.
pub(super) fn ct(key: u32, direction: Option<u8>) -> Selector {
    let (name, datatype) = match key {
        0 => ("state", D::CtState),
        1 => ("direction", D::CtDirection),
        2 => ("status", D::CtStatus),
        3 => ("mark", D::Mark),
        4 => ("secmark", D::HostNumber),
        5 => ("expiration", D::HostNumber),
        6 => ("helper", D::Text),
        7 => ("l3proto", D::NfProto),
        8 => ("saddr", D::Bytes),
        9 => ("daddr", D::Bytes),
        10 => ("protocol", D::Protocol),
        11 => ("proto-src", D::Service),
        12 => ("proto-dst", D::Service),
        13 => ("label", D::Bytes),
        14 => ("packets", D::HostNumber),
        15 => ("bytes", D::HostNumber),
        16 => ("avgpkt", D::HostNumber),
        17 => ("zone", D::HostNumber),
        18 => ("event", D::HostNumber),
        19 => ("ip saddr", D::Ipv4Address),
        20 => ("ip daddr", D::Ipv4Address),
        21 => ("ip6 saddr", D::Ipv6Address),
        22 => ("ip6 daddr", D::Ipv6Address),
        23 => ("id", D::Number),
        other => return Selector::new(format!("ct key {other}"), D::Bytes),
    };
    let direction = match direction {
        Some(0) => "original ",
        Some(1) => "reply ",
        _ => "",
    };
    Selector::new(format!("ct {direction}{name}"), datatype)
}

/// Names the result of a look-up in the routing table (NFTA_FIB_*).
pub(super) fn fib(data: Attributes) -> Option<Selector> {
    let (result, flags) = (data.number(2)?, data.number(3)?);
    let keys = [(1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif")];
    let keys: Vec<_> = keys.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    let (result, datatype) = match result {
        // NFTA_FIB_F_PRESENT.
        1 if flags & 32 != 0 => ("oif", D::Boolean),
        1 => ("oif", D::InterfaceIndex),
        2 => ("oifname", D::InterfaceName),
        3 => ("type", D::FibType),
        _ => return None,
    };
    Some(Selector::new(format!("fib {} {result}", keys.join(" . ")), datatype))
}

/// Names an option or extension header (NFTA_EXTHDR_*).
pub(super) fn extension_header(data: Attributes) -> Option<Selector> {
    let kind = *data.find(2)?.first()?;
    let (offset, length) = (data.number(3).unwrap_or(0), data.number(4).unwrap_or(0));
    let header = match data.number(6).unwrap_or(0) {
        0 => {
            let names = [(0, "hbh"), (43, "rt"), (44, "frag"), (51, "ah"), (60, "dst"), (135, "mh")];
            let known = names.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name);
            known.map_or_else(|| format!("exthdr {kind}"), |name| format!("exthdr {name}"))
        }
        1 => return Some(tcp_option(kind, offset, length, present(data))),
        2 => {
            let names = [(131, "lsrr"), (7, "rr"), (137, "ssrr"), (148, "ra")];
            let known = names.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name);
            known.map_or_else(|| format!("ip option {kind}"), |name| format!("ip option {name}"))
        }
        3 => format!("sctp chunk {kind}"),
        _ => format!("dccp option {kind}"),
    };
    let mut selector = match present(data) {
        true => Selector::new(header, D::Boolean),
        false => Selector::new(format!("{header} @{},{}", offset * 8, length * 8), D::Number),
    };
    selector.needs = match data.number(6).unwrap_or(0) {
        0 => vec![Dependency::Network(IPV6)],
        2 => vec![Dependency::Network(IPV4)],
        _ => Vec::new(),
    };
    Some(selector)
}

fn present(data: Attributes) -> bool {
    data.number(5).unwrap_or(0) & 1 != 0
}

fn tcp_option(kind: u8, offset: u32, length: u32, present: bool) -> Selector {
    let option = match kind {
        0 => "eol",
        1 => "nop",
        2 => "maxseg",
        3 => "window",
        4 => "sack-perm",
        5 => "sack",
        8 => "timestamp",
        19 => "md5sig",
        30 => "mptcp",
        34 => "fastopen",
        _ => "",
    };
    let option = if option.is_empty() { kind.to_string() } else { option.to_string() };
    let field = match (kind, offset, length) {
        _ if present => return Selector::new(format!("tcp option {option}"), D::Boolean),
        (2, 2, 2) => "size".to_string(),
        (3, 2, 1) => "count".to_string(),
        (8, 2, 4) => "tsval".to_string(),
        (8, 6, 4) => "tsecr".to_string(),
        _ => format!("@{},{}", offset * 8, length * 8),
    };
    let mut selector = Selector::new(format!("tcp option {option} {field}"), D::Number);
    selector.needs = vec![Dependency::Transport(6)];
    selector
}

/// Names what an expression without operands of its own loads: rt, socket, numgen, hash, osf, xfrm, tunnel.
pub(super) fn other(expression: &[u8], data: Attributes, source: &str) -> Option<Selector> {
    let number = |kind| data.number(kind).unwrap_or(0);
    let offset = |kind| match number(kind) {
        0 => String::new(),
        offset => format!(" offset {offset}"),
    };
    Some(match expression {
        b"rt" => match number(2) {
            0 => Selector::new("rt classid", D::HostNumber),
            1 => Selector::new("rt ip nexthop", D::Ipv4Address),
            2 => Selector::new("rt ip6 nexthop", D::Ipv6Address),
            3 => Selector::new("rt mtu", D::HostNumber),
            _ => Selector::new("rt ipsec", D::Boolean),
        },
        b"socket" => match number(1) {
            0 => Selector::new("socket transparent", D::HostNumber),
            1 => Selector::new("socket mark", D::Mark),
            2 => Selector::new("socket wildcard", D::HostNumber),
            _ => Selector::new(format!("socket cgroupv2 level {}", number(3)), D::HostNumber),
        },
        b"numgen" => {
            let kind = if number(3) == 1 { "random" } else { "inc" };
            Selector::new(format!("numgen {kind} mod {}{}", number(2), offset(4)), D::HostNumber)
        }
        b"hash" if number(7) == 1 => {
            Selector::new(format!("symhash mod {}{}", number(4), offset(6)), D::HostNumber)
        }
        b"hash" => Selector::new(format!("jhash {source} mod {}{}", number(4), offset(6)), D::HostNumber),
        b"osf" => Selector::new("osf name", D::Text),
        b"xfrm" => {
            let direction =
                if data.find(3).and_then(|bytes| bytes.first()) == Some(&1) { "out" } else { "in" };
            let (key, datatype) = match number(2) {
                1 => ("ip daddr", D::Ipv4Address),
                2 => ("ip6 daddr", D::Ipv6Address),
                3 => ("ip saddr", D::Ipv4Address),
                4 => ("ip6 saddr", D::Ipv6Address),
                5 => ("reqid", D::HostNumber),
                _ => ("spi", D::Number),
            };
            Selector::new(format!("ipsec {direction} {key}"), datatype)
        }
        b"tunnel" => Selector::new(if number(1) == 0 { "tunnel path" } else { "tunnel id" }, D::HostNumber),
        _ => return None,
    })
}

/// Returns the text of an unknown expression.
pub(super) fn unknown(expression: &[u8]) -> String {
    format!("[{}]", name(expression))
}
