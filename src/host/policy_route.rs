//! The rule or route that refuses a flow: the kernel's look-up (fib_rules_lookup in net/core/fib_rules.c),
//! followed over dumps of its policy rules and routes.
//!
//! A refused look-up (RTM_GETROUTE) gives an errno and names nothing. The dumps name the candidate; the
//! errno says that the kernel refused, and whether the candidate fits.
use super::{
    netlink::{Netlink, NetlinkError},
    route::{self, Query},
};
use crate::net::Protocol;
use log::debug;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use nix::errno::Errno;
use std::{collections::HashMap, net::IpAddr};

/// A local flow, as policy rules look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyFlow {
    /// The flow, with its socket's user.
    pub query: Query,
    /// The packets' mark.
    pub mark: u32,
}

/// The policy rule or route that refuses a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A policy rule, as ip-rule(8) prints it.
    Rule(String),
    /// A route, as ip-route(8) prints it, and its table.
    Route(String, u32),
    /// No table has an entry.
    NoEntry,
}

impl PolicyFlow {
    /// Asks the kernel for the route. Returns the errno of its refusal, and `None` where there is a route.
    ///
    /// # Errors
    /// [`NetlinkError`], if the kernel does not answer.
    pub(crate) fn refused(&self) -> Result<Option<Errno>, NetlinkError> {
        match route::with_policy(&mut Netlink::open()?, &self.query, self.mark) {
            Err(NetlinkError::Refused(errno)) => Ok(Some(Errno::from_raw(errno))),
            result => result.map(|()| None),
        }
    }

    /// Returns what refuses the flow, by the tables; `None` if they hold a route.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) fn refusal(&self) -> Result<Option<Refusal>, NetlinkError> {
        let best = best_routes(self.query.destination)?;
        let mut rules = policy_rules(self.query.destination)?;
        rules.sort_by_key(priority);
        let mut skip_to = 0;
        for rule in &rules {
            if priority(rule) < skip_to || !self.fits(rule) {
                continue;
            }
            match rule.header.action {
                RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => {
                    return Ok(Some(Refusal::Rule(rule_text(rule))));
                }
                RuleAction::Goto => skip_to = goto(rule).unwrap_or(0),
                RuleAction::ToTable => match best.get(&rule_table(rule)) {
                    Some(found) if suppresses(rule, found) => {}
                    Some(found) if refuses(found.kind) => {
                        return Ok(Some(Refusal::Route(found.text(), rule_table(rule))));
                    }
                    Some(Found { kind: RouteType::Throw, .. }) | None => {}
                    Some(_) => return Ok(None),
                },
                _ => {}
            }
        }
        Ok(Some(Refusal::NoEntry))
    }

    /// Returns whether a rule's selectors fit (fib_rule_match).
    fn fits(&self, rule: &RuleMessage) -> bool {
        let Query { destination, source, source_port, destination_port, protocol, user, .. } = self.query;
        let (mut mark, mut mask) = (None, u32::MAX);
        let fits = rule.attributes.iter().all(|attribute| match attribute {
            RuleAttribute::Destination(net) => covers(*net, rule.header.dst_len, destination),
            RuleAttribute::Source(net) => {
                source.is_some_and(|source| covers(*net, rule.header.src_len, source))
            }
            // A local flow comes in by lo, and goes out by no interface yet.
            RuleAttribute::Iifname(name) => name == "lo",
            RuleAttribute::Oifname(_) | RuleAttribute::L3MDev(true) => false,
            RuleAttribute::UidRange(range) => {
                user.is_some_and(|user| (range.start..=range.end).contains(&user))
            }
            RuleAttribute::IpProtocol(number) => u8::from(*number) == protocol.number(),
            RuleAttribute::SourcePortRange(range) => {
                source_port.is_some_and(|port| (range.start..=range.end).contains(&port))
            }
            RuleAttribute::DestinationPortRange(range) => {
                destination_port.is_some_and(|port| (range.start..=range.end).contains(&port))
            }
            RuleAttribute::FwMark(value) => {
                mark = Some(*value);
                true
            }
            RuleAttribute::FwMask(value) => {
                mask = *value;
                true
            }
            _ => true,
        });
        let fits = fits && mark.is_none_or(|mark| (mark ^ self.mark) & mask == 0);
        // FIB_RULE_INVERT.
        fits != rule.header.flags.contains(RuleFlags::Invert)
    }
}

/// The route of a table with the longest prefix that covers a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    kind: RouteType,
    prefix: u8,
    metric: u32,
    network: Option<IpAddr>,
}

impl Found {
    fn text(&self) -> String {
        let kind = match self.kind {
            RouteType::BlackHole => "blackhole",
            RouteType::Unreachable => "unreachable",
            _ => "prohibit",
        };
        match self.network {
            None => format!("{kind} default"),
            Some(network) if usize::from(self.prefix) == if network.is_ipv4() { 32 } else { 128 } => {
                format!("{kind} {network}")
            }
            Some(network) => format!("{kind} {network}/{}", self.prefix),
        }
    }
}

fn refuses(kind: RouteType) -> bool {
    matches!(kind, RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit)
}

/// Returns each table's best route to a destination. The dump is read as it comes, however long it is.
fn best_routes(destination: IpAddr) -> Result<HashMap<u32, Found>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    let mut best: HashMap<u32, Found> = HashMap::new();
    Netlink::open()?.stream(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP, |reply| {
        let RouteNetlinkMessage::NewRoute(route) = reply else { return };
        if route.header.flags.contains(RouteFlags::Cloned) {
            return;
        }
        let Some((table, found)) = covering(&route, destination) else { return };
        let worse = |other: &Found| {
            other.prefix < found.prefix || other.prefix == found.prefix && other.metric > found.metric
        };
        if best.get(&table).is_none_or(worse) {
            best.insert(table, found);
        }
    })?;
    Ok(best)
}

/// Returns a route with its table if it covers the destination.
fn covering(route: &RouteMessage, destination: IpAddr) -> Option<(u32, Found)> {
    let prefix = route.header.destination_prefix_length;
    let mut table = u32::from(route.header.table);
    let (mut network, mut metric) = (None, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => network = Some(IpAddr::from(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => network = Some((*v6).into()),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let covers = network.map_or(prefix == 0, |network| covers(network, prefix, destination));
    covers.then_some((table, Found { kind: route.header.kind, prefix, metric, network }))
}

fn policy_rules(destination: IpAddr) -> Result<Vec<RuleMessage>, NetlinkError> {
    let mut message = RuleMessage::default();
    message.header.family = family(destination);
    let replies = Netlink::open()?.dump(RouteNetlinkMessage::GetRule(message))?;
    let rules = replies.into_iter().filter_map(|reply| match reply {
        RouteNetlinkMessage::NewRule(rule) => Some(rule),
        other => {
            debug!("no policy rule: {other:?}");
            None
        }
    });
    Ok(rules.collect())
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Returns whether a network covers an address.
fn covers(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let differing_from = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing_from >= u32::from(prefix)
}

fn find<T>(rule: &RuleMessage, pick: impl Fn(&RuleAttribute) -> Option<T>) -> Option<T> {
    rule.attributes.iter().find_map(pick)
}

fn priority(rule: &RuleMessage) -> u32 {
    find(rule, |a| if let RuleAttribute::Priority(number) = a { Some(*number) } else { None }).unwrap_or(0)
}

fn goto(rule: &RuleMessage) -> Option<u32> {
    find(rule, |a| if let RuleAttribute::Goto(number) = a { Some(*number) } else { None })
}

fn rule_table(rule: &RuleMessage) -> u32 {
    find(rule, |a| if let RuleAttribute::Table(number) = a { Some(*number) } else { None })
        .unwrap_or(rule.header.table.into())
}

/// Returns whether a rule ignores routes as unspecific as this one (suppress_prefixlength).
fn suppresses(rule: &RuleMessage, found: &Found) -> bool {
    find(rule, |a| if let RuleAttribute::SuppressPrefixLen(bits) = a { Some(*bits) } else { None })
        .is_some_and(|bits| bits != u32::MAX && u32::from(found.prefix) <= bits)
}

/// Returns a rule as ip-rule(8) prints it, without its priority.
fn rule_text(rule: &RuleMessage) -> String {
    let (mut from, mut rest) = ("all".to_owned(), String::new());
    let network = |net: &IpAddr, bits: u8| match usize::from(bits) == if net.is_ipv4() { 32 } else { 128 } {
        true => net.to_string(),
        false => format!("{net}/{bits}"),
    };
    let mut mask = None;
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Source(net) => from = network(net, rule.header.src_len),
            RuleAttribute::Destination(net) => {
                rest.push_str(&format!(" to {}", network(net, rule.header.dst_len)));
            }
            RuleAttribute::FwMask(value) => mask = Some(*value).filter(|mask| *mask != u32::MAX),
            RuleAttribute::UidRange(range) => {
                rest.push_str(&format!(" uidrange {}-{}", range.start, range.end));
            }
            RuleAttribute::IpProtocol(number) => {
                let name = match u8::from(*number) {
                    number if number == Protocol::Tcp.number() => "tcp".to_owned(),
                    number if number == Protocol::Udp.number() => "udp".to_owned(),
                    number => number.to_string(),
                };
                rest.push_str(&format!(" ipproto {name}"));
            }
            RuleAttribute::SourcePortRange(range) => rest.push_str(&ports("sport", range.start, range.end)),
            RuleAttribute::DestinationPortRange(range) => {
                rest.push_str(&ports("dport", range.start, range.end));
            }
            RuleAttribute::Iifname(name) => rest.push_str(&format!(" iif {name}")),
            _ => {}
        }
    }
    let mark = find(rule, |a| if let RuleAttribute::FwMark(mark) = a { Some(*mark) } else { None });
    if let Some(mark) = mark {
        rest.push_str(&format!(" fwmark {mark:#x}"));
        rest.extend(mask.map(|mask| format!("/{mask:#x}")));
    }
    let action = match rule.header.action {
        RuleAction::Blackhole => "blackhole",
        RuleAction::Unreachable => "unreachable",
        _ => "prohibit",
    };
    let not = if rule.header.flags.contains(RuleFlags::Invert) { "not " } else { "" };
    format!("{not}from {from}{rest} {action}")
}

fn ports(name: &str, start: u16, end: u16) -> String {
    if start == end { format!(" {name} {start}") } else { format!(" {name} {start}-{end}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_cover_addresses() {
        let at = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (network, prefix, address, covered) in [
            ("10.0.0.0", 8, "10.9.9.9", true),
            ("10.0.0.0", 8, "11.0.0.0", false),
            ("0.0.0.0", 0, "192.0.2.1", true),
            ("fd00::", 64, "fd00::9", true),
            ("fd00::", 64, "10.0.0.1", false),
        ] {
            assert_eq!(covers(at(network), prefix, at(address)), covered, "{network}/{prefix} {address}");
        }
    }

    #[test]
    fn rules_are_printed_as_ip_prints_them() {
        let mut rule = RuleMessage::default();
        rule.header.action = RuleAction::Blackhole;
        rule.attributes = vec![RuleAttribute::FwMark(7), RuleAttribute::FwMask(u32::MAX)];
        assert_eq!(rule_text(&rule), "from all fwmark 0x7 blackhole");
        rule.header.action = RuleAction::Prohibit;
        rule.header.dst_len = 32;
        rule.attributes = vec![RuleAttribute::Destination([10, 0, 0, 1].into())];
        assert_eq!(rule_text(&rule), "from all to 10.0.0.1 prohibit");
    }
}
