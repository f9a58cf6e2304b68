//! nf_tables' objects as the kernel lists them: what names a rule that a trace reports, and its place.
//!
//! Attributes stay bytes, since only the text of a rule needs them all. [`super::rules`] reads rules as
//! data, for a walk over them.
use super::{
    netlink::{Netlink, NetlinkError},
    nfnetlink::{Attributes, Message, push, push_name},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::path::Path;

/// NFNL_SUBSYS_NFTABLES, and its messages (enum nf_tables_msg_types).
const SUBSYSTEM: u16 = 10 << 8;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_SET: u16 = 10;
const GET_ELEMENT: u16 = 13;
const GET_GENERATION: u16 = 16;
/// Maximum elements of a set that are read.
const MAX_ELEMENTS: usize = 20_000;

/// The families whose chains can be at the ingress hook of a device, and the hook's number in each
/// (include/uapi/linux/netfilter.h).
const INGRESS: [(u8, u32); 2] = [(libc::NFPROTO_INET as u8, 5), (libc::NFPROTO_NETDEV as u8, 0)];

/// A rule, unread but for its handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawRule {
    /// NFPROTO_* of its table.
    pub family: u8,
    /// The attributes of its NFT_MSG_NEWRULE.
    pub attributes: Vec<u8>,
}

impl RawRule {
    /// Returns the kernel's number of the rule.
    pub(crate) fn handle(&self) -> Option<u64> {
        Attributes(&self.attributes).find(3)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// A set, unread, and its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawSet {
    /// The attributes of its NFT_MSG_NEWSET.
    pub attributes: Vec<u8>,
    /// The attributes of each NFT_MSG_NEWSETELEM.
    pub elements: Vec<Vec<u8>>,
}

/// A socket for requests, in the network namespace of the thread that opened it.
pub(crate) struct NfTables {
    netlink: Netlink<Message>,
}

impl NfTables {
    /// Opens a socket. A request loads nf_tables' module where the kernel has it.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn open() -> Result<NfTables, NetlinkError> {
        Ok(NfTables { netlink: Netlink::of(NETLINK_NETFILTER)? })
    }

    /// Returns the ruleset's generation, which each change of the rules increases by one.
    ///
    /// # Errors
    /// Those of [`Netlink::request`].
    pub(crate) fn generation(&mut self) -> Result<u32, NetlinkError> {
        let replies = self.ask(GET_GENERATION, NLM_F_ACK, 0, Vec::new())?;
        let generation = replies.iter().find_map(|reply| Attributes(&reply.attributes).number(1));
        generation.ok_or(NetlinkError::Malformed("no generation in it"))
    }

    /// Returns the rule with this handle; `None` if it is gone.
    ///
    /// # Errors
    /// Those of [`Netlink::request`].
    pub(crate) fn rule(
        &mut self,
        family: u8,
        table: &[u8],
        chain: &[u8],
        handle: u64,
    ) -> Result<Option<RawRule>, NetlinkError> {
        let mut attributes = named(table, (2, chain));
        push(&mut attributes, 3, &handle.to_be_bytes());
        match self.ask(GET_RULE, NLM_F_ACK, family, attributes) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            replies => Ok(replies?.pop().map(|m| RawRule { family: m.family, attributes: m.attributes })),
        }
    }

    /// Returns the rules of a chain, in order.
    ///
    /// # Errors
    /// Those of [`Netlink::dump`].
    pub(crate) fn rules(
        &mut self,
        family: u8,
        table: &[u8],
        chain: &[u8],
    ) -> Result<Vec<RawRule>, NetlinkError> {
        let mut rules = Vec::new();
        let request = request(GET_RULE, family, named(table, (2, chain)));
        self.netlink.stream(request, NLM_F_DUMP, |reply| {
            let list = Attributes(&reply.attributes);
            // Kernels without filters for dumps list all rules.
            if list.name(1) == Some(table) && list.name(2) == Some(chain) {
                rules.push(RawRule { family: reply.family, attributes: reply.attributes });
            }
        })?;
        Ok(rules)
    }

    /// Returns a set with its elements, up to a limit.
    ///
    /// # Errors
    /// Those of [`Netlink::request`] and [`Netlink::stream`].
    pub(crate) fn set(&mut self, family: u8, table: &[u8], set: &[u8]) -> Result<RawSet, NetlinkError> {
        let name = named(table, (2, set));
        let attributes = self.ask(GET_SET, NLM_F_ACK, family, name.clone())?.pop();
        let mut elements = Vec::new();
        self.netlink.stream(request(GET_ELEMENT, family, name), NLM_F_DUMP, |reply| {
            if elements.len() < MAX_ELEMENTS {
                elements.push(reply.attributes);
            }
        })?;
        Ok(RawSet { attributes: attributes.map(|m| m.attributes).unwrap_or_default(), elements })
    }

    /// Returns whether rules see packets before netfilter's PREROUTING: whether a chain is at a device's ingress hook.
    ///
    /// # Errors
    /// Those of [`Netlink::stream`].
    fn has_ingress_chain(&mut self) -> Result<bool, NetlinkError> {
        let mut found = false;
        for (family, hook) in INGRESS {
            self.netlink.stream(request(GET_CHAIN, family, Vec::new()), NLM_F_DUMP, |reply| {
                // NFTA_CHAIN_HOOK, NFTA_HOOK_HOOKNUM.
                found |= Attributes(&reply.attributes).nested(4).number(1) == Some(hook);
            })?;
        }
        Ok(found)
    }

    fn ask(
        &mut self,
        message: u16,
        flags: u16,
        family: u8,
        attributes: Vec<u8>,
    ) -> Result<Vec<Message>, NetlinkError> {
        self.netlink.request(request(message, family, attributes), flags)
    }
}

/// Returns whether rules see packets before netfilter's PREROUTING. Loads no module: where nf_tables is one that is not
/// loaded, there are no rules.
///
/// # Errors
/// Those of [`Netlink::stream`].
pub(crate) fn judges_before_prerouting() -> Result<bool, NetlinkError> {
    let exists = |path: &str| Path::new(path).exists();
    if exists("/proc/modules") && !exists("/sys/module/nf_tables") {
        return Ok(false);
    }
    NfTables::open()?.has_ingress_chain()
}

fn request(message: u16, family: u8, attributes: Vec<u8>) -> Message {
    Message { kind: SUBSYSTEM | message, family, attributes }
}

/// Returns the attributes that name a table, and an object of it.
fn named(table: &[u8], (kind, name): (u16, &[u8])) -> Vec<u8> {
    let mut attributes = Vec::new();
    push_name(&mut attributes, 1, table);
    push_name(&mut attributes, kind, name);
    attributes
}
