//! The trace table: nf_tables' chains at the front of every hook, whose rules mark the packets of watched
//! ends for tracing, and do nothing else.
//!
//! A rule compares the port first: a packet of others costs one comparison a rule. No rule has a `ct`
//! expression, which would switch connection tracking on.
use super::{
    nft_expression::{Expressions, L4PROTO, NETWORK, TRANSPORT, octets},
    owned_table::{ARP, BRIDGE, Chain, Command, INET, NETDEV, OwnedTable},
};
use crate::{
    host::netlink::NetlinkError,
    net::{Protocol, ip_protocol},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The hooks of family inet, by their numbers (enum nf_inet_hooks).
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];
/// The hooks of family arp (linux/netfilter_arp.h).
const ARP_HOOKS: [&str; 2] = ["input", "output"];
/// The beginning of the tables' names; a number follows.
const PREFIX: &str = "netkat-trace-";
/// Length of an ICMP error's header, behind which it quotes the packet.
const ICMP_HEADER: u32 = 8;

/// Where the table has chains, beside all hooks of family inet.
#[derive(Clone, Debug, Default)]
pub(crate) struct TracePlaces {
    /// The devices at whose ingress there is a chain.
    pub devices: Vec<String>,
    /// There are bridges.
    pub bridges: bool,
    /// ARP is of interest.
    pub arp: bool,
}

/// Chains that mark packets for tracing, until the value is dropped.
pub(crate) struct TraceTable {
    table: OwnedTable,
    chains: Vec<Chain>,
}

impl TraceTable {
    /// Makes the table in the calling thread's network namespace. Marks nothing before [`TraceTable::watch`].
    ///
    /// `lifetime` bounds the marking where tables have no owner; `owner` false pretends that.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EOPNOTSUPP and the like where the kernel lacks nf_tables.
    pub(crate) fn create(
        places: &TracePlaces,
        lifetime: Duration,
        owner: bool,
    ) -> Result<TraceTable, NetlinkError> {
        let chains = chains(places);
        let mut families: Vec<u8> = chains.iter().map(|chain| chain.family).collect();
        families.dedup();
        let table = OwnedTable::create(PREFIX, families, &chains, lifetime, owner)?;
        Ok(TraceTable { table, chains })
    }

    /// Marks the protocol's packets from and to `end` from now on, and ICMP errors that quote them.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn watch(&mut self, protocol: Protocol, end: SocketAddr) -> Result<(), NetlinkError> {
        self.table.keep_alive(end.port(), false)?;
        let rules = self.chains.iter().flat_map(|chain| {
            let conditions =
                if chain.family == ARP { Vec::new() } else { watching(chain.family, protocol, end).into() };
            self.rules(chain, conditions, end.port())
        });
        let rules: Vec<_> = rules.collect();
        self.table.commit(rules)
    }

    /// Marks the questions to a neighbour and its answers from now on. `port` is one that is watched already.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn watch_neighbour(&mut self, neighbour: IpAddr, port: u16) -> Result<(), NetlinkError> {
        let rules = self
            .chains
            .iter()
            .flat_map(|chain| self.rules(chain, watching_neighbour(chain.family, neighbour), port));
        let rules: Vec<_> = rules.collect();
        if rules.is_empty() { Ok(()) } else { self.table.commit(rules) }
    }

    /// Returns the commands that add a rule for each list of conditions to a chain.
    fn rules(&self, chain: &Chain, conditions: Vec<Expressions>, port: u16) -> Vec<Command> {
        let rule = |conditions| self.table.rule(chain, conditions, Expressions::trace(), port);
        conditions.into_iter().map(rule).collect()
    }

    /// Returns the table's name, by which its own events are told from those of others' tables.
    pub(crate) fn name(&self) -> &str {
        self.table.name()
    }

    /// Returns by how much this table has increased the ruleset's generation.
    pub(crate) fn commits(&self) -> u32 {
        self.table.commits()
    }
}

fn chains(places: &TracePlaces) -> Vec<Chain> {
    let hooks = |family: u8, names: &'static [&'static str]| {
        let numbered = names.iter().enumerate();
        numbered.map(move |(hook, name)| Chain {
            family,
            name: (*name).to_owned(),
            hook: hook as u32,
            device: None,
        })
    };
    let netdev = places.devices.iter().enumerate().map(|(number, device)| Chain {
        family: NETDEV,
        name: format!("ingress{number}"),
        hook: 0,
        device: Some(device.clone()),
    });
    let bridge = if places.bridges { &HOOKS[..1] } else { &[] };
    let arp = if places.arp { &ARP_HOOKS[..] } else { &[] };
    hooks(INET, &HOOKS).chain(netdev).chain(hooks(BRIDGE, bridge)).chain(hooks(ARP, arp)).collect()
}

/// Returns the conditions of the rules for a watched end: its packets, those to it, and ICMP errors
/// that quote either.
fn watching(family: u8, protocol: Protocol, end: SocketAddr) -> [Expressions; 4] {
    let (source, destination, header, icmp) = layout(end.ip());
    let address = octets(end.ip());
    let port = end.port().to_be_bytes();
    let own = |port_offset, address_offset| {
        let mut list = Expressions::default();
        list.compare_payload(TRANSPORT, port_offset, &port);
        list.compare_meta(L4PROTO, &[protocol.number()]);
        list.compare_family(family, end.ip());
        list.compare_payload(NETWORK, address_offset, &address);
        list
    };
    let quoted = |port_offset, address_offset| {
        let mut list = Expressions::default();
        list.compare_meta(L4PROTO, &[icmp]);
        list.compare_payload(TRANSPORT, ICMP_HEADER + header + port_offset, &port);
        list.compare_payload(TRANSPORT, ICMP_HEADER + address_offset, &address);
        list
    };
    [own(0, source), own(2, destination), quoted(0, source), quoted(2, destination)]
}

/// Returns the conditions of the rules for the questions to a neighbour and its answers: ARP from or for it
/// (RFC 826), neighbour solicitations and advertisements that name it (RFC 4861, sections 4.3 and 4.4).
fn watching_neighbour(family: u8, neighbour: IpAddr) -> Vec<Expressions> {
    let address = octets(neighbour);
    match neighbour {
        IpAddr::V4(_) if family == ARP => [14, 24]
            .into_iter()
            .map(|offset| {
                let mut list = Expressions::default();
                list.compare_payload(NETWORK, offset, &address);
                list
            })
            .collect(),
        IpAddr::V6(_) if family == INET => [135, 136]
            .into_iter()
            .map(|kind| {
                let mut list = Expressions::default();
                list.compare_meta(L4PROTO, &[ip_protocol::ICMPV6]);
                list.compare_payload(TRANSPORT, 0, &[kind]);
                list.compare_payload(TRANSPORT, ICMP_HEADER, &address);
                list
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Returns offset of the source address, offset of the destination address, length of the header without
/// options, and number of ICMP, of an IP version.
fn layout(address: IpAddr) -> (u32, u32, u32, u8) {
    match address {
        IpAddr::V4(_) => (12, 16, 20, ip_protocol::ICMP),
        IpAddr::V6(_) => (8, 24, 40, ip_protocol::ICMPV6),
    }
}
