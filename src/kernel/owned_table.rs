//! An nftables table that does not outlive its process.
//!
//! From Linux 5.12 on the table belongs to its socket (NFT_TABLE_F_OWNER): others cannot change or delete it, `nft
//! flush ruleset` spares it, and it goes with the socket however the process ends. Before, each rule also looks into
//! a set of ports whose elements time out, so that the rules of a killed process soon match nothing; the next table
//! with the same prefix removes what was left.
use super::{liveness::LivenessSocket, nft_expression::Expressions};
use crate::host::{
    netlink::{Netlink, NetlinkError},
    nfnetlink::{Attributes, Message, push, push_name, push_nested},
};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::time::Duration;

/// NFNL_SUBSYS_NFTABLES, and its messages (enum nf_tables_msg_types).
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const DELETE_ELEMENT: u16 = 14;
pub(super) const NEW_OBJECT: u16 = 18;
pub(super) const GET_OBJECT: u16 = 19;
/// NFPROTO_*.
pub(super) const INET: u8 = 1;
pub(super) const ARP: u8 = 3;
pub(super) const NETDEV: u8 = 5;
pub(super) const BRIDGE: u8 = 7;
/// NFT_TABLE_F_OWNER.
const OWNER: u32 = 2;
/// The first of all priorities: INT_MIN is no priority (nft_chain_parse_hook).
const FIRST: i32 = -0x7fff_ffff;
/// The set of ports whose rules match, where tables have no owner.
pub(super) const ALIVE: &[u8] = b"alive";
/// NFT_SET_TIMEOUT.
const SET_TIMEOUT: u32 = 0x10;
/// nft's number of the type of ports, without which `nft list` calls the set's type invalid.
pub(super) const PORT_TYPE: u32 = 13;
/// Receive buffer of the table's socket, in bytes: the errors of a batch.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A message and its flags beside NLM_F_REQUEST.
pub(super) type Command = (Message, u16);

/// A base chain of the table, in front of all others at its hook.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub family: u8,
    pub name: String,
    pub hook: u32,
    /// The only device, in family netdev.
    pub device: Option<String>,
}

/// An nftables table, of one name in some families, until the value is dropped.
pub(super) struct OwnedTable {
    netlink: Netlink<Message>,
    name: String,
    families: Vec<u8>,
    /// The table goes with its socket.
    owned: bool,
    /// Time that rules match after the process is killed, where the table has no owner.
    lifetime: Duration,
    /// Batches that have changed the ruleset's generation.
    commits: u32,
    liveness: Option<LivenessSocket>,
}

impl OwnedTable {
    /// Makes the table and its chains in the calling thread's network namespace. Its name is `prefix` and a number.
    ///
    /// `lifetime` bounds the rules where tables have no owner; `owner` false pretends that.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EOPNOTSUPP and the like where the kernel lacks nf_tables.
    pub(super) fn create(
        prefix: &str,
        families: Vec<u8>,
        chains: &[Chain],
        lifetime: Duration,
        owner: bool,
    ) -> Result<OwnedTable, NetlinkError> {
        let id = getrandom::u32().unwrap_or_else(|_| std::process::id()) | 1 << 31;
        let mut table = OwnedTable {
            netlink: Netlink::of(NETLINK_NETFILTER)?,
            name: format!("{prefix}{id}"),
            families,
            owned: owner,
            lifetime,
            commits: 0,
            liveness: None,
        };
        table.netlink.enlarge_receive_buffer(RECEIVE_BUFFER)?;
        if owner {
            match table.commit(table.definition(chains)) {
                Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {}
                result => return result.map(|()| table),
            }
            table.owned = false;
        }
        table.liveness = LivenessSocket::open(id).ok();
        table.remove_dead(prefix)?;
        table.commit(table.definition(chains))?;
        Ok(table)
    }

    /// Returns whether the table goes with its socket.
    pub(super) fn is_owned(&self) -> bool {
        self.owned
    }

    /// Returns the table's name, by which its own events are told from those of others' tables.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns by how much this table has increased the ruleset's generation.
    pub(super) fn commits(&self) -> u32 {
        self.commits
    }

    /// Applies commands, all or none.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn commit(&mut self, commands: Vec<Command>) -> Result<(), NetlinkError> {
        self.netlink.send_all(Message::batch(commands))?;
        self.commits += 1;
        Ok(())
    }

    /// Asks about something of the table and returns the answers.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn query(
        &mut self,
        kind: u16,
        family: u8,
        attributes: Vec<u8>,
    ) -> Result<Vec<Message>, NetlinkError> {
        self.netlink.request(Message { kind: SUBSYSTEM | kind, family, attributes }, 0)
    }

    /// Returns the command for something of the table; `attributes` follow the table's name.
    pub(super) fn command(&self, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Command {
        let attributes = [self.table_name().as_slice(), attributes].concat();
        (Message { kind: SUBSYSTEM | kind, family, attributes }, flags)
    }

    /// Returns the attribute that names the table.
    pub(super) fn table_name(&self) -> Vec<u8> {
        let mut attributes = Vec::new();
        push_name(&mut attributes, 1, self.name.as_bytes());
        attributes
    }

    /// Returns the command that adds a chain.
    pub(super) fn chain(&self, chain: &Chain) -> Command {
        let mut hook = Vec::new();
        push(&mut hook, 1, &chain.hook.to_be_bytes());
        push(&mut hook, 2, &FIRST.to_be_bytes());
        if let Some(device) = &chain.device {
            push_name(&mut hook, 3, device.as_bytes());
        }
        let mut attributes = Vec::new();
        push_name(&mut attributes, 3, chain.name.as_bytes());
        push_nested(&mut attributes, 4, &hook);
        push(&mut attributes, 5, &1_u32.to_be_bytes());
        push_name(&mut attributes, 7, b"filter");
        self.command(NEW_CHAIN, NLM_F_CREATE, chain.family, &attributes)
    }

    /// Returns the command that adds a rule behind the chain's others. Where the table has no owner, the rule
    /// matches while the set has `port`. The last expressions are `action`.
    pub(super) fn rule(
        &self,
        chain: &Chain,
        conditions: Expressions,
        action: Expressions,
        port: u16,
    ) -> Command {
        let conditions = if self.owned { conditions } else { conditions.within(ALIVE, &port.to_be_bytes()) };
        let mut attributes = Vec::new();
        push_name(&mut attributes, 2, chain.name.as_bytes());
        push_nested(&mut attributes, 4, &conditions.then(action));
        self.command(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, chain.family, &attributes)
    }

    /// Returns the command that makes a set.
    pub(super) fn set(&self, family: u8, set: &Set<'_>) -> Command {
        let mut attributes = Vec::new();
        push_name(&mut attributes, 2, set.name);
        let flags = if set.lifetime.is_some() { SET_TIMEOUT } else { 0 };
        // The last is the set's number within the batch.
        for (kind, number) in [(3, flags), (4, set.key_type), (5, set.key_length), (10, set.number)] {
            push(&mut attributes, kind, &number.to_be_bytes());
        }
        if let Some(lifetime) = set.lifetime {
            push(&mut attributes, 11, &milliseconds(lifetime));
            // The interval of the garbage collection, in milliseconds.
            push(&mut attributes, 12, &1000_u32.to_be_bytes());
        }
        self.command(NEW_SET, NLM_F_CREATE, family, &attributes)
    }

    /// Returns the command that adds an element to a set, or, by `kind`, deletes it.
    pub(super) fn element(
        &self,
        kind: u16,
        family: u8,
        set: &[u8],
        key: &[u8],
        lifetime: Option<Duration>,
    ) -> Command {
        let (mut value, mut element, mut list) = (Vec::new(), Vec::new(), Vec::new());
        push(&mut value, 1, key);
        push_nested(&mut element, 1, &value);
        if let Some(lifetime) = lifetime {
            push(&mut element, 4, &milliseconds(lifetime));
        }
        push_nested(&mut list, 1, &element);
        let mut attributes = Vec::new();
        push_name(&mut attributes, 2, set);
        push_nested(&mut attributes, 3, &list);
        self.command(kind, if kind == NEW_ELEMENT { NLM_F_CREATE } else { 0 }, family, &attributes)
    }

    /// Makes the rules of a port match for the table's lifetime from now on, where the table has no owner.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn keep_alive(&mut self, port: u16, again: bool) -> Result<(), NetlinkError> {
        if self.owned {
            return Ok(());
        }
        let mut commands = Vec::new();
        for &family in &self.families {
            // An element that is there keeps its time-out until Linux 6.13: it is replaced within one batch.
            for kind in if again { &[DELETE_ELEMENT, NEW_ELEMENT][..] } else { &[NEW_ELEMENT] } {
                let lifetime = (*kind == NEW_ELEMENT).then_some(self.lifetime);
                commands.push(self.element(*kind, family, ALIVE, &port.to_be_bytes(), lifetime));
            }
        }
        self.commit(commands)
    }

    /// Returns the commands that make tables, sets and chains.
    fn definition(&self, chains: &[Chain]) -> Vec<Command> {
        let mut commands = Vec::new();
        for &family in &self.families {
            let mut attributes = Vec::new();
            push(&mut attributes, 2, &(if self.owned { OWNER } else { 0 }).to_be_bytes());
            commands.push(self.command(NEW_TABLE, NLM_F_CREATE, family, &attributes));
            if !self.owned {
                let (key_type, lifetime) = (PORT_TYPE, Some(self.lifetime));
                commands.push(
                    self.set(family, &Set { name: ALIVE, key_type, key_length: 2, number: 1, lifetime }),
                );
            }
        }
        commands.extend(chains.iter().map(|chain| self.chain(chain)));
        commands
    }

    /// Removes the tables of processes that are dead.
    fn remove_dead(&mut self, prefix: &str) -> Result<(), NetlinkError> {
        let mut dead = Vec::new();
        let all = Message { kind: SUBSYSTEM | GET_TABLE, family: 0, attributes: Vec::new() };
        self.netlink.stream(all, NLM_F_DUMP, |reply| {
            let name = Attributes(&reply.attributes).name(1).unwrap_or_default();
            let id = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            if id.is_some_and(|id| !LivenessSocket::is_alive(id)) {
                dead.push((reply.family, name.to_vec()));
            }
        })?;
        for (family, name) in dead {
            let mut attributes = Vec::new();
            push_name(&mut attributes, 1, &name);
            self.commit(vec![(Message { kind: SUBSYSTEM | DELETE_TABLE, family, attributes }, 0)])?;
        }
        Ok(())
    }
}

impl Drop for OwnedTable {
    fn drop(&mut self) {
        if self.owned {
            return;
        }
        let delete = |&family: &u8| self.command(DELETE_TABLE, 0, family, &[]);
        let commands = self.families.iter().map(delete).collect();
        if let Err(error) = self.commit(commands) {
            log::warn!("cannot remove the table {}, whose rules soon match nothing: {error}", self.name);
        }
    }
}

/// A set to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set<'a> {
    pub name: &'a [u8],
    /// nft's number of the keys' type.
    pub key_type: u32,
    /// Length of a key, in bytes.
    pub key_length: u32,
    /// The set's number among those of one batch.
    pub number: u32,
    /// The elements' default time-out.
    pub lifetime: Option<Duration>,
}

fn milliseconds(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_be_bytes()
}
