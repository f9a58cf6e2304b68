//! Matches and targets of xtables in iptables' words (linux/netfilter/xt_*.h).
//! Numbers have the host's byte order, except addresses and the ports of NAT ranges.
//!
//! A match whose arguments are not known is printed as `-m NAME`.
use super::Translation;
use super::datatype::{Datatype, host_number, name, network_number, prefix_of};
use std::fmt::Write;

/// A target, as text and as facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// `-j NAME` with its options.
    pub text: String,
    /// It answers with an ICMP error or a reset.
    pub rejects: bool,
    /// It changes addresses or ports.
    pub translates: Option<Translation>,
    /// The queue to which it gives packets.
    pub queue: Option<u16>,
    /// The mark that it gives.
    pub mark: Option<u32>,
}

/// Returns whether a match may decide otherwise for the same packet at another time.
pub(crate) fn varies(name: &[u8]) -> bool {
    matches!(
        name,
        b"limit"
            | b"hashlimit"
            | b"statistic"
            | b"recent"
            | b"time"
            | b"quota"
            | b"connlimit"
            | b"connbytes"
            | b"nfacct"
            | b"rateest"
    )
}

/// Returns a match's text.
pub(crate) fn match_text(match_name: &[u8], revision: u32, info: &[u8], v6: bool) -> String {
    let arguments = match match_name {
        b"comment" => Some(format!("--comment {}", super::datatype::quoted(info))),
        b"tcp" => tcp(info),
        b"udp" | b"udplite" => udp(info),
        b"multiport" => multiport(revision, info),
        b"mark" | b"connmark" if revision == 1 => mark(info),
        b"limit" => limit(info),
        b"owner" => owner(info),
        b"addrtype" => address_type(revision, info),
        b"state" => host(info, 0, 4).map(|mask| {
            // XT_STATE_UNTRACKED is conntrack's SNAT.
            let untracked = if mask & 0x40 != 0 { 0x100 } else { 0 };
            format!("--state {}", states(mask & !0x40 | untracked))
        }),
        b"conntrack" => conntrack(revision, info, v6),
        b"icmp" | b"icmp6" => icmp(info, match_name == b"icmp6"),
        b"iprange" => address_range(info, v6),
        b"mac" => mac(info),
        b"length" => length(info),
        b"ttl" | b"hl" => hops(match_name, info),
        b"statistic" => statistic(info),
        b"pkttype" => packet_type(info),
        b"set" => None,
        _ => None,
    };
    // The match of newer iptables for `-m state` is conntrack's.
    let name = name(match_name);
    match arguments {
        Some(arguments) if arguments.is_empty() => String::new(),
        Some(arguments) => format!("-m {name} {arguments}"),
        None => format!("-m {name}"),
    }
}

/// Returns a target's text and facts. The text of a jump in a legacy table is the caller's.
pub(crate) fn target(target_name: &[u8], revision: u32, info: &[u8], v6: bool) -> Target {
    let mut target = Target::default();
    let options = match target_name {
        b"" => {
            target.text = format!("-j {}", standard(info));
            return target;
        }
        b"REJECT" => {
            target.rejects = true;
            host(info, 0, 4).map(|kind| format!("--reject-with {}", reject_with(kind, v6)))
        }
        b"DNAT" | b"SNAT" | b"REDIRECT" | b"MASQUERADE" | b"NETMAP" => {
            let source = matches!(target_name, b"SNAT" | b"MASQUERADE");
            target.translates = Some(if source { Translation::Source } else { Translation::Destination });
            nat(target_name, revision, info, v6)
        }
        b"TPROXY" => {
            target.translates = Some(Translation::Destination);
            None
        }
        b"NFQUEUE" => {
            target.queue = host(info, 0, 2).map(|queue| queue as u16);
            nfqueue(revision, info)
        }
        b"MARK" if revision == 2 => {
            let (value, mask) = (host(info, 0, 4), host(info, 4, 4));
            target.mark = value.map(|value| value as u32);
            value.zip(mask).map(|(value, mask)| format!("--set-xmark {value:#x}/{mask:#x}"))
        }
        b"LOG" => info.get(2..).map(|prefix| format!("--log-prefix {}", super::datatype::quoted(prefix))),
        b"NFLOG" => host(info, 4, 2).map(|group| format!("--nflog-group {group}")),
        b"TCPMSS" => host(info, 0, 2).map(|mss| match mss {
            0xffff => "--clamp-mss-to-pmtu".to_string(),
            mss => format!("--set-mss {mss}"),
        }),
        _ => None,
    };
    target.text = format!("-j {}", name(target_name));
    if let Some(options) = options.filter(|options| !options.is_empty()) {
        target.text += &format!(" {options}");
    }
    target
}

/// Returns the name of a verdict in a standard target (XT_STANDARD_TARGET; -NF_* - 1).
fn standard(info: &[u8]) -> &'static str {
    match host(info, 0, 4).map(|verdict| (verdict as u32).cast_signed()) {
        Some(-1) => "DROP",
        Some(-2) => "ACCEPT",
        Some(-4) => "QUEUE",
        Some(-5) => "RETURN",
        _ => "?",
    }
}

/// Returns the number of `length` bytes at an offset, in the host's byte order.
pub(super) fn host(info: &[u8], at: usize, length: usize) -> Option<u64> {
    info.get(at..at.checked_add(length)?).map(host_number)
}

fn network(info: &[u8], at: usize) -> Option<u64> {
    info.get(at..at.checked_add(2)?).map(network_number)
}

pub(super) fn not(inverted: bool) -> &'static str {
    if inverted { "! " } else { "" }
}

fn range(first: u64, last: u64) -> String {
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

/// Appends `[! ]--OPTION FIRST[:LAST] ` for ports that are not all.
fn ports(text: &mut String, option: &str, first: u64, last: u64, inverted: bool) {
    if (first, last) != (0, 65535) || inverted {
        let _ = write!(text, "{}--{option} {} ", not(inverted), range(first, last));
    }
}

fn both_ports(info: &[u8], inverted: u8) -> Option<String> {
    let mut text = String::new();
    ports(&mut text, "sport", host(info, 0, 2)?, host(info, 2, 2)?, inverted & 1 != 0);
    ports(&mut text, "dport", host(info, 4, 2)?, host(info, 6, 2)?, inverted & 2 != 0);
    Some(text)
}

/// struct xt_tcp: ports, option, mask and value of flags, XT_TCP_INV_*.
fn tcp(info: &[u8]) -> Option<String> {
    let [option, mask, value, inverted] = *info.get(8..)?.first_chunk()?;
    let mut text = both_ports(info, inverted)?;
    if mask != 0 {
        let names = |bits: u8| {
            let all = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
            let set: Vec<_> =
                (0..8).filter(|bit| bits >> bit & 1 != 0).filter_map(|bit| all.get(bit)).collect();
            let set: Vec<_> = set.into_iter().copied().collect();
            if set.is_empty() { "NONE".to_string() } else { set.join(",") }
        };
        let _ = write!(text, "{}--tcp-flags {} {} ", not(inverted & 4 != 0), names(mask), names(value));
    }
    if option != 0 {
        let _ = write!(text, "{}--tcp-option {option}", not(inverted & 8 != 0));
    }
    Some(text.trim_end().to_string())
}

fn udp(info: &[u8]) -> Option<String> {
    Some(both_ports(info, *info.get(8)?)?.trim_end().to_string())
}

fn multiport(revision: u32, info: &[u8]) -> Option<String> {
    let [which, count] = *info.first_chunk()?;
    let (count, mut at, mut all) = (usize::from(count).min(15), 0, Vec::new());
    while at < count {
        let first = host(info, 2 + 2 * at, 2)?;
        // A flag marks the next port as the end of a range.
        let is_range = revision == 1 && *info.get(32 + at)? != 0;
        at += 1 + usize::from(is_range);
        let last = if is_range { host(info, 2 * at, 2)? } else { first };
        all.push(range(first, last));
    }
    let inverted = revision == 1 && *info.get(47)? != 0;
    let option = ["sports", "dports", "ports"].get(usize::from(which)).copied().unwrap_or("ports");
    Some(format!("{}--{option} {}", not(inverted), all.join(",")))
}

/// struct xt_mark_mtinfo1: mark, mask, invert.
fn mark(info: &[u8]) -> Option<String> {
    let (value, mask, inverted) = (host(info, 0, 4)?, host(info, 4, 4)?, *info.get(8)? != 0);
    let mask = if mask == u64::from(u32::MAX) { String::new() } else { format!("/{mask:#x}") };
    Some(format!("{}--mark {value:#x}{mask}", not(inverted)))
}

/// struct xt_rateinfo: the average is in 1/10000 s a packet.
fn limit(info: &[u8]) -> Option<String> {
    let (average, burst) = (host(info, 0, 4)?.max(1), host(info, 4, 4)?);
    let units = [("sec", 10_000), ("min", 600_000), ("hour", 36_000_000), ("day", 864_000_000_u64)];
    let (unit, scale) =
        units.into_iter().find(|(_, scale)| average <= *scale).unwrap_or(("day", 864_000_000));
    // iptables leaves out its default.
    let burst = if burst == 5 { String::new() } else { format!(" --limit-burst {burst}") };
    Some(format!("--limit {}/{unit}{burst}", scale / average))
}

/// struct xt_owner_match_info: ranges of uid and gid, XT_OWNER_*.
fn owner(info: &[u8]) -> Option<String> {
    let (matched, inverted) = (*info.get(16)?, *info.get(17)?);
    let mut parts = Vec::new();
    for (bit, option, at) in [(1, "uid-owner", 0), (2, "gid-owner", 8)] {
        if matched & bit != 0 {
            let (first, last) = (host(info, at, 4)?, host(info, at + 4, 4)?);
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            parts.push(format!("{}--{option} {range}", not(inverted & bit != 0)));
        }
    }
    if matched & 4 != 0 {
        parts.push(format!("{}--socket-exists", not(inverted & 4 != 0)));
    }
    Some(parts.join(" "))
}

fn address_type(revision: u32, info: &[u8]) -> Option<String> {
    const TYPES: [&str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];
    let names = |mask: u64| {
        let set = TYPES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0).map(|(_, name)| *name);
        set.collect::<Vec<_>>().join(",")
    };
    let (source, destination) = (host(info, 0, 2)?, host(info, 2, 2)?);
    let (source_inverted, destination_inverted, limits) = match revision {
        1 => {
            let flags = host(info, 4, 4)?;
            (flags & 1 != 0, flags & 2 != 0, flags)
        }
        _ => (host(info, 4, 4)? != 0, host(info, 8, 4)? != 0, 0),
    };
    let mut parts = Vec::new();
    if source != 0 {
        parts.push(format!("{}--src-type {}", not(source_inverted), names(source)));
    }
    if destination != 0 {
        parts.push(format!("{}--dst-type {}", not(destination_inverted), names(destination)));
    }
    for (bit, option) in [(4, "--limit-iface-in"), (8, "--limit-iface-out")] {
        if limits & bit != 0 {
            parts.push(option.into());
        }
    }
    Some(parts.join(" "))
}

/// Returns the names of XT_CONNTRACK_STATE_* (linux/netfilter/xt_conntrack.h).
fn states(mask: u64) -> String {
    const STATES: [(u64, &str); 7] = [
        (1, "INVALID"),
        (8, "NEW"),
        (4, "RELATED"),
        (2, "ESTABLISHED"),
        (64, "SNAT"),
        (128, "DNAT"),
        (256, "UNTRACKED"),
    ];
    let set = STATES.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(",")
}

/// struct xt_conntrack_mtinfo2 and 3: eight addresses, expiry, protocol, four ports, flags, masks.
fn conntrack(revision: u32, info: &[u8], v6: bool) -> Option<String> {
    if !(2..=3).contains(&revision) {
        return None;
    }
    let (matched, inverted) = (host(info, 146, 2)?, host(info, 148, 2)?);
    let (state, status) = (host(info, 150, 2)?, host(info, 152, 2)?);
    let mut parts = Vec::new();
    let mut part = |bit: u64, text: String| {
        if matched & bit != 0 {
            parts.push(format!("{}{text}", not(inverted & bit != 0)));
        }
    };
    part(1, format!("--ctstate {}", states(state)));
    part(2, format!("--ctproto {}", host(info, 136, 2)?));
    let addresses = [(4, "ctorigsrc", 0), (8, "ctorigdst", 32), (16, "ctreplsrc", 64), (32, "ctrepldst", 96)];
    for (bit, option, at) in addresses {
        part(bit, format!("--{option} {}", prefix(info.get(at..at + 16)?, info.get(at + 16..at + 32)?, v6)));
    }
    const STATUS: [(u64, &str); 4] = [(1, "EXPECTED"), (2, "SEEN_REPLY"), (4, "ASSURED"), (8, "CONFIRMED")];
    let set: Vec<_> = STATUS.iter().filter(|(bit, _)| status & bit != 0).map(|(_, name)| *name).collect();
    part(64, format!("--ctstatus {}", if set.is_empty() { "NONE".into() } else { set.join(",") }));
    let ports = [(256, "ctorigsrcport", 138, 154), (512, "ctorigdstport", 140, 156)];
    for (bit, option, low, high) in ports {
        let first = host(info, low, 2)?;
        let last = if revision == 3 { host(info, high, 2)? } else { first };
        part(bit, format!("--{option} {}", range(first, last)));
    }
    if matched & 4096 != 0 {
        // XT_CONNTRACK_DIRECTION.
        parts.push(format!("--ctdir {}", if inverted & 4096 != 0 { "REPLY" } else { "ORIGINAL" }));
    }
    Some(parts.join(" "))
}

/// struct ipt_icmp and ip6t_icmp: type, range of codes, invert.
fn icmp(info: &[u8], v6: bool) -> Option<String> {
    let [kind, first, last, inverted] = *info.first_chunk()?;
    let option = if v6 { "icmpv6-type" } else { "icmp-type" };
    let kind = if kind == 255 && !v6 { "any".into() } else { kind.to_string() };
    let code = if (first, last) == (0, 255) { String::new() } else { format!("/{first}") };
    Some(format!("{}--{option} {kind}{code}", not(inverted & 1 != 0)))
}

/// struct xt_iprange_mtinfo: two ranges, flags.
fn address_range(info: &[u8], v6: bool) -> Option<String> {
    let flags = *info.get(64)?;
    let text = |at: usize| Some(address(info.get(at..at + 16)?, v6));
    let mut parts = Vec::new();
    for (bit, inverted, option, at) in [(1, 16, "src-range", 0), (2, 32, "dst-range", 32)] {
        if flags & bit != 0 {
            parts.push(format!("{}--{option} {}-{}", not(flags & inverted != 0), text(at)?, text(at + 16)?));
        }
    }
    Some(parts.join(" "))
}

fn mac(info: &[u8]) -> Option<String> {
    let inverted = host(info, 8, 4).or(host(info, 6, 2))? != 0;
    let address = info.get(..6)?.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    Some(format!("{}--mac-source {address}", not(inverted)))
}

fn length(info: &[u8]) -> Option<String> {
    Some(format!("{}--length {}", not(*info.get(4)? != 0), range(host(info, 0, 2)?, host(info, 2, 2)?)))
}

/// struct ipt_ttl_info and ip6t_hl_info: mode, value.
fn hops(match_name: &[u8], info: &[u8]) -> Option<String> {
    let [mode, value] = *info.first_chunk()?;
    let option = name(match_name);
    Some(match mode {
        0 => format!("--{option}-eq {value}"),
        1 => format!("! --{option}-eq {value}"),
        2 => format!("--{option}-lt {value}"),
        _ => format!("--{option}-gt {value}"),
    })
}

/// struct xt_statistic_info: mode, flags, probability or every and packet.
fn statistic(info: &[u8]) -> Option<String> {
    let (mode, inverted) = (host(info, 0, 2)?, host(info, 2, 2)? & 1 != 0);
    Some(match mode {
        0 => {
            let probability = host(info, 4, 4)? as f64 / f64::from(0x8000_0000_u32);
            format!("--mode random {}--probability {probability:.11}", not(inverted))
        }
        _ => {
            let (every, packet) = (host(info, 4, 4)? + 1, host(info, 8, 4)?);
            format!("--mode nth {}--every {every} --packet {packet}", not(inverted))
        }
    })
}

fn packet_type(info: &[u8]) -> Option<String> {
    let kind = host(info, 0, 4)?;
    let word = ["unicast", "broadcast", "multicast"].get(usize::try_from(kind).ok()?)?;
    Some(format!("{}--pkt-type {word}", not(host(info, 4, 4)? != 0)))
}

/// Returns iptables' word for a rejection (linux/netfilter_ipv4/ipt_REJECT.h, ip6t_REJECT.h).
fn reject_with(kind: u64, v6: bool) -> &'static str {
    const V4: [&str; 9] = [
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-proto-unreachable",
        "icmp-port-unreachable",
        "echo-reply",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "tcp-reset",
        "icmp-admin-prohibited",
    ];
    const V6: [&str; 9] = [
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "icmp6-not-neighbour",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "echo-reply",
        "tcp-reset",
        "icmp6-policy-fail",
        "icmp6-reject-route",
    ];
    let words = if v6 { &V6 } else { &V4 };
    usize::try_from(kind).ok().and_then(|kind| words.get(kind)).copied().unwrap_or("?")
}

/// Returns the options of a translating target: struct nf_nat_range, or its IPv4 form of revision 0.
fn nat(target: &[u8], revision: u32, info: &[u8], v6: bool) -> Option<String> {
    let compat =
        !v6 && (revision == 0 || target == b"REDIRECT" || target == b"MASQUERADE" || target == b"NETMAP");
    let (flags, first, last, ports) = match compat {
        true => {
            (host(info, 4, 4)?, info.get(8..12)?, info.get(12..16)?, (network(info, 16)?, network(info, 18)?))
        }
        false => {
            (host(info, 0, 4)?, info.get(4..20)?, info.get(20..36)?, (network(info, 36)?, network(info, 38)?))
        }
    };
    let (low, high) = (address(first, v6), address(last, v6));
    let port = match ports {
        _ if flags & 2 == 0 => String::new(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let addresses = if low == high { low } else { format!("{low}-{high}") };
    let mut text = match target {
        b"REDIRECT" | b"MASQUERADE" if port.is_empty() => String::new(),
        b"REDIRECT" | b"MASQUERADE" => format!("--to-ports {port}"),
        b"NETMAP" => format!("--to {addresses}"),
        _ => {
            let option = if target == b"DNAT" { "to-destination" } else { "to-source" };
            let addresses = if flags & 1 == 0 { String::new() } else { addresses };
            match port.is_empty() {
                true => format!("--{option} {addresses}"),
                false if v6 && !addresses.is_empty() => format!("--{option} [{addresses}]:{port}"),
                false => format!("--{option} {addresses}:{port}"),
            }
        }
    };
    for (bit, option) in [(4, " --random"), (16, " --random-fully"), (8, " --persistent")] {
        text += if flags & bit != 0 { option } else { "" };
    }
    Some(text.trim_start().to_string())
}

fn nfqueue(revision: u32, info: &[u8]) -> Option<String> {
    let first = host(info, 0, 2)?;
    let total = if revision >= 1 { host(info, 2, 2)? } else { 1 };
    let bypass = if revision >= 2 && host(info, 4, 2)? & 1 != 0 { " --queue-bypass" } else { "" };
    Some(match total {
        0 | 1 => format!("--queue-num {first}{bypass}"),
        total => format!("--queue-balance {first}:{}{bypass}", first + total - 1),
    })
}

fn address(bytes: &[u8], v6: bool) -> String {
    match v6 {
        true => Datatype::Ipv6Address.text(bytes),
        false => Datatype::Ipv4Address.text(bytes.get(..4).unwrap_or_default()),
    }
}

pub(super) fn prefix(bytes: &[u8], mask: &[u8], v6: bool) -> String {
    let length = if v6 { 16 } else { 4 };
    let (bytes, mask) = (bytes.get(..length).unwrap_or_default(), mask.get(..length).unwrap_or_default());
    let last: Vec<_> = bytes.iter().zip(mask).map(|(byte, mask)| byte | !mask).collect();
    match prefix_of(bytes, &last) {
        Some(bits) => format!("{}/{bits}", address(bytes, v6)),
        None => format!("{}/{}", address(bytes, v6), address(mask, v6)),
    }
}
