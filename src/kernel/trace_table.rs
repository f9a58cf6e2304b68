//! The trace table: nf_tables' chains at the front of every hook, whose rules mark the packets of watched
//! ends for tracing, and do nothing else.
//!
//! From Linux 5.12 on the table belongs to its socket (NFT_TABLE_F_OWNER): others cannot change or delete it, `nft
//! flush ruleset` spares it, and it goes with the socket however the process ends. Before, each rule also looks into
//! a set whose elements time out, so that a table whose owner was killed soon marks nothing; the next trace table
//! removes it.
//!
//! A rule compares the port first: a packet of others costs one comparison a rule. No rule has a `ct`
//! expression, which would switch connection tracking on.
mod expression;

use super::liveness::LivenessSocket;
use crate::{
    host::{
        netlink::{Netlink, NetlinkError},
        nfnetlink::{Attributes, Message, push, push_name, push_nested},
    },
    net::ip_protocol,
};
use expression::Expressions;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// NFNL_SUBSYS_NFTABLES, and its messages (enum nf_tables_msg_types).
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
/// NFPROTO_*.
const INET: u8 = 1;
const ARP: u8 = 3;
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;
/// NFT_TABLE_F_OWNER.
const OWNER: u32 = 2;
/// The first of all priorities: INT_MIN is no priority (nft_chain_parse_hook).
const FIRST: i32 = -0x7fff_ffff;
/// The hooks of family inet, by their numbers (enum nf_inet_hooks).
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];
/// The hooks of family arp (linux/netfilter_arp.h).
const ARP_HOOKS: [&str; 2] = ["input", "output"];
/// The beginning of the tables' names; a number follows.
const PREFIX: &str = "netkat-trace-";
/// The set of ports whose packets are marked, where tables have no owner.
const ALIVE: &[u8] = b"alive";
/// NFT_SET_TIMEOUT.
const SET_TIMEOUT: u32 = 0x10;
/// nft's number of the type of ports, without which `nft list` calls the set's type invalid.
const PORT_TYPE: u32 = 13;
/// Receive buffer of the table's socket, in bytes: the errors of a batch.
const RECEIVE_BUFFER: usize = 1 << 20;

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

/// A chain of the table.
#[derive(Clone, Debug)]
struct Chain {
    family: u8,
    name: String,
    hook: u32,
    device: Option<String>,
}

/// Chains that mark packets for tracing, until the value is dropped.
pub(crate) struct TraceTable {
    netlink: Netlink<Message>,
    name: String,
    chains: Vec<Chain>,
    /// The table goes with its socket.
    owned: bool,
    /// Time that rules mark packets after the process is killed, where the table has no owner.
    lifetime: Duration,
    /// Batches that have changed the ruleset's generation.
    commits: u32,
    _liveness: Option<LivenessSocket>,
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
        let id = getrandom::u32().unwrap_or_else(|_| std::process::id()) | 1 << 31;
        let mut table = TraceTable {
            netlink: Netlink::of(NETLINK_NETFILTER)?,
            name: format!("{PREFIX}{id}"),
            chains: chains(places),
            owned: owner,
            lifetime,
            commits: 0,
            _liveness: None,
        };
        table.netlink.enlarge_receive_buffer(RECEIVE_BUFFER)?;
        if owner {
            match table.commit(table.definition()) {
                Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {}
                result => return result.map(|()| table),
            }
            table.owned = false;
        }
        table._liveness = LivenessSocket::open(id).ok();
        table.remove_dead()?;
        table.commit(table.definition())?;
        Ok(table)
    }

    /// Marks packets from and to `end` from now on, and ICMP errors that quote them.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn watch(&mut self, end: SocketAddr) -> Result<(), NetlinkError> {
        if !self.owned {
            let elements = self.families().into_iter().map(|family| self.element(family, end.port()));
            let elements: Vec<_> = elements.collect();
            self.commit(elements)?;
        }
        let rules = self.chains.iter().flat_map(|chain| {
            let conditions = if chain.family == ARP {
                Vec::new()
            } else {
                Expressions::watching(chain.family, end).into()
            };
            self.rules(chain, conditions, end.port())
        });
        let rules: Vec<_> = rules.collect();
        self.commit(rules)
    }

    /// Marks the questions to a neighbour and its answers from now on. `port` is one that is watched already.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn watch_neighbour(&mut self, neighbour: IpAddr, port: u16) -> Result<(), NetlinkError> {
        let rules = self.chains.iter().flat_map(|chain| {
            self.rules(chain, Expressions::watching_neighbour(chain.family, neighbour), port)
        });
        let rules: Vec<_> = rules.collect();
        if rules.is_empty() { Ok(()) } else { self.commit(rules) }
    }

    /// Returns the messages that add a rule for each list of conditions to a chain.
    fn rules(&self, chain: &Chain, conditions: Vec<Expressions>, port: u16) -> Vec<(Message, u16)> {
        let rule = |expressions: Expressions| {
            let expressions = if self.owned { expressions } else { expressions.while_alive(port) };
            let mut attributes = self.table_name();
            push_name(&mut attributes, 2, chain.name.as_bytes());
            push_nested(&mut attributes, 4, &expressions.mark());
            message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, chain.family, attributes)
        };
        conditions.into_iter().map(rule).collect()
    }

    /// Returns the table's name, by which its own events are told from those of others' tables.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns by how much this table has increased the ruleset's generation.
    pub(crate) fn commits(&self) -> u32 {
        self.commits
    }

    fn commit(&mut self, messages: Vec<(Message, u16)>) -> Result<(), NetlinkError> {
        self.netlink.send_all(Message::batch(messages))?;
        self.commits += 1;
        Ok(())
    }

    fn families(&self) -> Vec<u8> {
        let mut families: Vec<u8> = self.chains.iter().map(|chain| chain.family).collect();
        families.dedup();
        families
    }

    fn table_name(&self) -> Vec<u8> {
        let mut attributes = Vec::new();
        push_name(&mut attributes, 1, self.name.as_bytes());
        attributes
    }

    /// Returns the messages that make tables, sets and chains.
    fn definition(&self) -> Vec<(Message, u16)> {
        let mut messages = Vec::new();
        for family in self.families() {
            let mut attributes = self.table_name();
            push(&mut attributes, 2, &(if self.owned { OWNER } else { 0 }).to_be_bytes());
            messages.push(message(NEW_TABLE, NLM_F_CREATE, family, attributes));
            if !self.owned {
                messages.push(message(NEW_SET, NLM_F_CREATE, family, self.set()));
            }
        }
        for chain in &self.chains {
            let mut hook = Vec::new();
            push(&mut hook, 1, &chain.hook.to_be_bytes());
            push(&mut hook, 2, &FIRST.to_be_bytes());
            if let Some(device) = &chain.device {
                push_name(&mut hook, 3, device.as_bytes());
            }
            let mut attributes = self.table_name();
            push_name(&mut attributes, 3, chain.name.as_bytes());
            push_nested(&mut attributes, 4, &hook);
            push(&mut attributes, 5, &1_u32.to_be_bytes());
            push_name(&mut attributes, 7, b"filter");
            messages.push(message(NEW_CHAIN, NLM_F_CREATE, chain.family, attributes));
        }
        messages
    }

    /// Returns the set's attributes (enum nft_set_attributes).
    fn set(&self) -> Vec<u8> {
        let mut attributes = self.table_name();
        push_name(&mut attributes, 2, ALIVE);
        for (kind, number) in [(3, SET_TIMEOUT), (4, PORT_TYPE), (5, 2), (10, 1), (12, 1000)] {
            push(&mut attributes, kind, &number.to_be_bytes());
        }
        push(&mut attributes, 11, &self.milliseconds());
        attributes
    }

    /// Returns the message that adds a port to the set.
    fn element(&self, family: u8, port: u16) -> (Message, u16) {
        let (mut key, mut element, mut list) = (Vec::new(), Vec::new(), Vec::new());
        push(&mut key, 1, &port.to_be_bytes());
        push_nested(&mut element, 1, &key);
        push(&mut element, 4, &self.milliseconds());
        push_nested(&mut list, 1, &element);
        let mut attributes = self.table_name();
        push_name(&mut attributes, 2, ALIVE);
        push_nested(&mut attributes, 3, &list);
        message(NEW_ELEMENT, NLM_F_CREATE, family, attributes)
    }

    fn milliseconds(&self) -> [u8; 8] {
        u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX).to_be_bytes()
    }

    /// Removes the tables of processes that are dead.
    fn remove_dead(&mut self) -> Result<(), NetlinkError> {
        let mut dead = Vec::new();
        let all = Message { kind: SUBSYSTEM | GET_TABLE, family: 0, attributes: Vec::new() };
        self.netlink.stream(all, NLM_F_DUMP, |reply| {
            let name = Attributes(&reply.attributes).name(1).unwrap_or_default();
            let id = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
            if id.is_some_and(|id| !LivenessSocket::is_alive(id)) {
                dead.push((reply.family, name.to_vec()));
            }
        })?;
        for (family, name) in dead {
            let mut attributes = Vec::new();
            push_name(&mut attributes, 1, &name);
            self.commit(vec![message(DELETE_TABLE, 0, family, attributes)])?;
        }
        Ok(())
    }
}

impl Drop for TraceTable {
    fn drop(&mut self) {
        if self.owned {
            return;
        }
        let delete = |family| message(DELETE_TABLE, 0, family, self.table_name());
        let messages = self.families().into_iter().map(delete).collect();
        if let Err(error) = self.commit(messages) {
            log::warn!("cannot remove the table {}, which marks nothing soon: {error}", self.name);
        }
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

fn message(kind: u16, flags: u16, family: u8, attributes: Vec<u8>) -> (Message, u16) {
    (Message { kind: SUBSYSTEM | kind, family, attributes }, flags)
}

/// Returns offset of the source address, offset of the destination address, length of the header without
/// options, and number of ICMP, of an IP version.
fn layout(address: IpAddr) -> (u32, u32, u32, u8) {
    match address {
        IpAddr::V4(_) => (12, 16, 20, ip_protocol::ICMP),
        IpAddr::V6(_) => (8, 24, 40, ip_protocol::ICMPV6),
    }
}
