//! Verdicts and actions of nf_tables as text: what a rule does, not what it asks.
use super::Translation;
use super::datatype::{Datatype, flags, name, quoted};
use super::rule::{Loaded, Walk};
use super::selector::{Dependency, IPV4, IPV6};
use crate::host::nfnetlink::Attributes;

/// NF_NAT_RANGE_* in nft's words (linux/netfilter/nf_nat.h).
const NAT_FLAGS: &[(u64, &str)] = &[(4, "random"), (16, "fully-random"), (8, "persistent")];

/// Returns a verdict's text (NFTA_VERDICT_*; enum nft_verdicts).
pub(super) fn verdict(attributes: Attributes) -> String {
    let chain = || name(attributes.name(2).unwrap_or_default());
    match attributes.number(1).map(u32::cast_signed) {
        Some(-1) => "continue".into(),
        Some(-2) => "break".into(),
        Some(-3) => format!("jump {}", chain()),
        Some(-4) => format!("goto {}", chain()),
        Some(-5) => "return".into(),
        Some(code) => match code & 0xff {
            0 => "drop".into(),
            1 => "accept".into(),
            2 => "stolen".into(),
            3 => format!("queue to {}", code >> 16 & 0xffff),
            other => format!("verdict {other}"),
        },
        None => "verdict ?".into(),
    }
}

/// Returns the text of an action; `None` if it is unknown or its attributes are cut.
pub(super) fn render(expression: &[u8], data: Attributes, walk: &mut Walk) -> Option<String> {
    Some(match expression {
        b"counter" => "counter".into(),
        b"last" => "last".into(),
        b"notrack" => "notrack".into(),
        b"reject" => {
            walk.result.rejects = true;
            reject(data, walk)
        }
        b"nat" => nat(data, walk)?,
        b"masq" => masquerade(data, walk),
        b"redir" => redirect(data, walk),
        b"tproxy" => transparent_proxy(data, walk),
        b"log" => log(data),
        b"limit" => {
            walk.result.varies = true;
            limit(data)?
        }
        b"quota" => {
            walk.result.varies = true;
            let over = if data.number(2).unwrap_or(0) & 1 != 0 { "over " } else { "" };
            format!("quota {over}{}", bytes(long(data, 1)?))
        }
        b"connlimit" => {
            walk.result.varies = true;
            let over = if data.number(2).unwrap_or(0) & 1 != 0 { "over " } else { "" };
            format!("ct count {over}{}", data.number(1)?)
        }
        b"queue" => queue(data, walk),
        b"dynset" => dynamic_set(data, walk)?,
        b"flow_offload" => format!("flow add @{}", name(data.name(1)?)),
        b"synproxy" => synproxy(data),
        b"objref" => object(data, walk)?,
        b"dup" => format!("dup to {}", walk.source(data.number(1), address_type(walk.family()))?),
        b"fwd" => match (data.number(2), data.number(1)) {
            (Some(_), _) => "fwd to an address".into(),
            (None, device) => format!("fwd to {}", walk.source(device, Datatype::InterfaceIndex)?),
        },
        _ => return None,
    })
}

fn half(data: Attributes, kind: u16) -> Option<u16> {
    data.find(kind)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn long(data: Attributes, kind: u16) -> Option<u64> {
    data.find(kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn reject(data: Attributes, walk: &mut Walk) -> String {
    let family = walk.layers().network.unwrap_or(walk.family());
    let code = data.find(2).and_then(|bytes| bytes.first().copied()).unwrap_or(0);
    // enum nft_reject_types.
    let kind = data.number(1).unwrap_or(0);
    match kind {
        0 => walk.imply(&[Dependency::Network(family)]),
        1 => walk.imply(&[Dependency::Transport(6)]),
        _ => {}
    }
    let (kind, name, default) = match kind {
        1 => return "reject with tcp reset".into(),
        2 => (
            "icmpx",
            ["no-route", "port-unreachable", "host-unreachable", "admin-prohibited"]
                .get(usize::from(code))
                .copied(),
            1,
        ),
        _ if family == IPV6 => ("icmpv6", icmpv6_code(code), 4),
        _ => ("icmp", icmp_code(code), 3),
    };
    match name {
        _ if code == default => "reject".into(),
        Some(name) => format!("reject with {kind} {name}"),
        None => format!("reject with {kind} {code}"),
    }
}

/// Returns nft's word for a code of ICMP destination unreachable.
fn icmp_code(code: u8) -> Option<&'static str> {
    Some(match code {
        0 => "net-unreachable",
        1 => "host-unreachable",
        2 => "prot-unreachable",
        3 => "port-unreachable",
        9 => "net-prohibited",
        10 => "host-prohibited",
        13 => "admin-prohibited",
        _ => return None,
    })
}

/// Returns nft's word for a code of ICMPv6 destination unreachable.
fn icmpv6_code(code: u8) -> Option<&'static str> {
    Some(match code {
        0 => "no-route",
        1 => "admin-prohibited",
        3 => "addr-unreachable",
        4 => "port-unreachable",
        5 => "policy-fail",
        6 => "reject-route",
        _ => return None,
    })
}

fn address_type(family: u8) -> Datatype {
    if family == IPV6 { Datatype::Ipv6Address } else { Datatype::Ipv4Address }
}

fn nat(data: Attributes, walk: &mut Walk) -> Option<String> {
    let (destination, family) = (data.number(1)? == 1, data.number(2).unwrap_or(0) as u8);
    walk.result.translates = Some(if destination { Translation::Destination } else { Translation::Source });
    let action = if destination { "dnat" } else { "snat" };
    // One map gives address and port.
    let from_map = data.number(5).is_some() && walk.at(data.number(5)).is_none();
    let protocol = family_word(family, if from_map { 0 } else { walk.family() });
    let flags = data.number(7).unwrap_or(0);
    // NF_NAT_RANGE_NETMAP.
    let netmap = flags & 64 != 0;
    let address = ends(data, walk, 3, 4, address_type(family), netmap);
    let port = ends(data, walk, 5, 6, Datatype::Service, false);
    let word = if netmap { "prefix to" } else { "to" };
    let target = endpoint(address, port, family == IPV6);
    Some(with_flags(format!("{action} {protocol}{word} {target}"), flags))
}

/// Returns "ip " or "ip6 " where the table's family does not say it.
fn family_word(family: u8, table: u8) -> &'static str {
    match family {
        _ if family == table => "",
        IPV4 => "ip ",
        IPV6 => "ip6 ",
        _ => "",
    }
}

/// Returns the text of one or two registers.
fn ends(
    data: Attributes,
    walk: &mut Walk,
    first: u16,
    last: u16,
    datatype: Datatype,
    netmap: bool,
) -> Option<String> {
    let (first_at, last_at) = (data.number(first), data.number(last));
    if let (Some(Loaded::Constant(first)), Some(Loaded::Constant(last))) =
        (walk.at(first_at), walk.at(last_at))
    {
        let prefix = super::datatype::prefix_of(first, last).filter(|_| netmap);
        return Some(match prefix {
            Some(bits) => format!("{}/{bits}", datatype.text(first)),
            None if first == last => datatype.text(first),
            None => format!("{}-{}", datatype.text(first), datatype.text(last)),
        });
    }
    walk.source(first_at, datatype)
}

/// Joins address and port; an IPv6 address before a port is bracketed.
fn endpoint(address: Option<String>, port: Option<String>, v6: bool) -> String {
    match (address, port) {
        (Some(address), Some(port)) if v6 => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (Some(address), None) => address,
        (None, Some(port)) => format!(":{port}"),
        (None, None) => "?".into(),
    }
}

fn with_flags(text: String, bits: u32) -> String {
    match bits & (4 | 8 | 16) {
        0 => text,
        set => format!("{text} {}", flags(u64::from(set), NAT_FLAGS, ",")),
    }
}

fn masquerade(data: Attributes, walk: &mut Walk) -> String {
    walk.result.translates = Some(Translation::Source);
    let port = ends(data, walk, 2, 3, Datatype::Service, false);
    let text = port.map_or_else(|| "masquerade".into(), |port| format!("masquerade to :{port}"));
    with_flags(text, data.number(1).unwrap_or(0))
}

fn redirect(data: Attributes, walk: &mut Walk) -> String {
    walk.result.translates = Some(Translation::Destination);
    let port = ends(data, walk, 1, 2, Datatype::Service, false);
    let text = port.map_or_else(|| "redirect".into(), |port| format!("redirect to :{port}"));
    with_flags(text, data.number(3).unwrap_or(0))
}

fn transparent_proxy(data: Attributes, walk: &mut Walk) -> String {
    walk.result.translates = Some(Translation::Destination);
    let family = data.number(1).unwrap_or(0) as u8;
    let protocol = family_word(family, walk.family());
    let address = walk.source(data.number(2), address_type(family));
    let port = walk.source(data.number(3), Datatype::Service);
    format!("tproxy {protocol}to {}", endpoint(address, port, family == IPV6))
}

fn log(data: Attributes) -> String {
    let mut text = String::from("log");
    if let Some(prefix) = data.name(2).filter(|prefix| !prefix.is_empty()) {
        text += &format!(" prefix {}", quoted(prefix));
    }
    if let Some(group) = half(data, 1) {
        text += &format!(" group {group}");
    }
    const LEVELS: [&str; 9] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];
    // LOG_WARNING is nft's default.
    if let Some(level) = data.number(5).filter(|level| *level != 4)
        && let Some(level) = LEVELS.get(level as usize)
    {
        text += &format!(" level {level}");
    }
    text
}

fn limit(data: Attributes) -> Option<String> {
    let (rate, unit) = (long(data, 1)?, long(data, 2)?);
    let burst = data.number(3).unwrap_or(0);
    let over = if data.number(5).unwrap_or(0) & 1 != 0 { "over " } else { "" };
    let unit = match unit {
        1 => "second".into(),
        60 => "minute".into(),
        3600 => "hour".into(),
        86400 => "day".into(),
        604_800 => "week".into(),
        other => format!("{other} seconds"),
    };
    Some(match data.number(4).unwrap_or(0) {
        // NFT_LIMIT_PKTS; a burst of 5 packets is nft's default.
        0 if burst == 5 || burst == 0 => format!("limit rate {over}{rate}/{unit}"),
        0 => format!("limit rate {over}{rate}/{unit} burst {burst} packets"),
        _ if burst == 0 => format!("limit rate {over}{}/{unit}", bytes(rate)),
        _ => format!("limit rate {over}{}/{unit} burst {}", bytes(rate), bytes(burst.into())),
    })
}

/// Returns a number of bytes in nft's largest whole unit.
fn bytes(number: u64) -> String {
    match number {
        number if number > 0 && number % (1 << 20) == 0 => format!("{} mbytes", number >> 20),
        number if number > 0 && number % (1 << 10) == 0 => format!("{} kbytes", number >> 10),
        number => format!("{number} bytes"),
    }
}

fn queue(data: Attributes, walk: &mut Walk) -> String {
    const FLAGS: &[(u64, &str)] = &[(1, "bypass"), (2, "fanout")];
    let options = match half(data, 3).unwrap_or(0) {
        0 => String::new(),
        set => format!("flags {} ", flags(set.into(), FLAGS, ",")),
    };
    if let Some(from) = data.number(4) {
        let source = walk.source(Some(from), Datatype::HostNumber).unwrap_or_else(|| "?".into());
        return format!("queue {options}to {source}");
    }
    let (first, total) = (half(data, 1).unwrap_or(0), half(data, 2).unwrap_or(1).max(1));
    walk.result.queue = Some(first);
    match total {
        1 => format!("queue {options}to {first}"),
        _ => format!("queue {options}to {first}-{}", u32::from(first) + u32::from(total) - 1),
    }
}

fn dynamic_set(data: Attributes, walk: &mut Walk) -> Option<String> {
    walk.result.varies = true;
    let set = data.name(1)?;
    let operation = ["add", "update", "delete"].get(data.number(3)? as usize)?;
    let length = walk.key_length(set);
    let mut text = format!("{operation} @{} {{ {}", name(set), walk.concatenation(data.number(4)?, length));
    if let Some(timeout) = long(data, 6).filter(|timeout| *timeout > 0) {
        text += &format!(" timeout {}s", timeout / 1000);
    }
    let single = data.find(7).map(Attributes).and_then(|inner| Some((inner.name(1)?, inner.nested(2))));
    let inner = match single {
        Some((expression, data)) => render(expression, data, walk).into_iter().collect(),
        None => walk.nested(data.nested(10)),
    };
    inner.iter().for_each(|inner| text += &format!(" {inner}"));
    if let Some(value) = walk.source(data.number(5), Datatype::Bytes) {
        text += &format!(" : {value}");
    }
    Some(text + " }")
}

fn synproxy(data: Attributes) -> String {
    let flags = data.number(3).unwrap_or(0);
    let mut text = String::from("synproxy");
    if let Some(mss) = half(data, 1).filter(|_| flags & 1 != 0) {
        text += &format!(" mss {mss}");
    }
    if let Some(scale) = data.find(2).and_then(|bytes| bytes.first()).filter(|_| flags & 2 != 0) {
        text += &format!(" wscale {scale}");
    }
    for (bit, word) in [(8, " timestamp"), (4, " sack-perm")] {
        text += if flags & bit != 0 { word } else { "" };
    }
    text
}

/// Names a stateful object (NFT_OBJECT_*).
fn object(data: Attributes, walk: &mut Walk) -> Option<String> {
    let Some(kind) = data.number(1) else {
        let set = data.name(4)?;
        let length = walk.key_length(set);
        let key = walk.concatenation(data.number(3)?, length);
        return Some(format!("object {key} map @{}", name(set)));
    };
    let object = quoted(data.name(2)?);
    let word = match kind {
        1 => "counter name",
        2 => "quota name",
        3 => "ct helper set",
        4 => "limit name",
        5 => "ct count name",
        7 => "ct timeout set",
        8 => "meta secmark set",
        9 => "ct expectation set",
        10 => "synproxy name",
        _ => "object",
    };
    walk.result.varies |= matches!(kind, 2 | 4 | 5);
    Some(format!("{word} {object}"))
}
