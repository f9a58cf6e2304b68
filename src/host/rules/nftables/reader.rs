//! The reader of nf_tables over nfnetlink, which asks only for what a packet can reach.
use super::{Chain, Element, Rule, Ruleset, Set, Table};
use crate::host::{
    netlink::{Netlink, NetlinkError},
    nfnetlink::{Attributes, Message, push, push_name, push_nested},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::{collections::HashMap, fs, io, path::Path, rc::Rc};

/// NFNL_SUBSYS_NFTABLES, and its messages (enum nf_tables_msg_types).
const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_SET: u16 = 10;
const GET_ELEMENT: u16 = 13;
const GET_GENERATION: u16 = 16;
/// Maximum elements of a set to read if the key is unknown.
const MAX_ELEMENTS: usize = 20_000;
/// NFT_SET_ELEM_CATCHALL.
const CATCHALL: u32 = 2;
/// NFT_TABLE_F_DORMANT.
const DORMANT: u32 = 1;

/// A chain or a set of a table.
type Named = (Table, Vec<u8>);

/// A socket to nf_tables in the calling thread's network namespace, and a cache of what it has read.
pub(crate) struct Reader {
    netlink: Netlink<Message>,
    rules: HashMap<Named, Rc<[Rule]>>,
    sets: HashMap<Table, Rc<HashMap<Vec<u8>, Set>>>,
    /// By set and key.
    found: HashMap<(Named, Vec<u8>), Rc<[Element]>>,
    elements: HashMap<Named, Rc<[Element]>>,
}

impl Reader {
    /// Opens a socket; `None` where the kernel has no nf_tables in memory, since a request would load it.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn open() -> Result<Option<Reader>, NetlinkError> {
        if !is_present() {
            return Ok(None);
        }
        Ok(Some(Reader {
            netlink: Netlink::of(NETLINK_NETFILTER)?,
            rules: HashMap::new(),
            sets: HashMap::new(),
            found: HashMap::new(),
            elements: HashMap::new(),
        }))
    }

    /// Clears the cache.
    pub(crate) fn forget(&mut self) {
        self.rules.clear();
        self.sets.clear();
        self.found.clear();
        self.elements.clear();
    }

    /// Returns the ruleset's generation. Equal generations before and after a read mean one consistent view.
    ///
    /// # Errors
    /// Those of [`Netlink::request`].
    pub(crate) fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.ask(GET_GENERATION, NLM_F_ACK, 0, Vec::new(), |_, attributes| {
            generation = generation.or(Attributes(attributes).number(1));
        })?;
        generation.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Returns the base chains of all tables that are not dormant.
    ///
    /// # Errors
    /// Those of [`Netlink::stream`].
    pub(crate) fn chains(&mut self) -> io::Result<Vec<Chain>> {
        let mut dormant = Vec::new();
        self.ask(GET_TABLE, NLM_F_DUMP, 0, Vec::new(), |family, attributes| {
            let attributes = Attributes(attributes);
            if attributes.number(2).unwrap_or(0) & DORMANT != 0
                && let Some(name) = attributes.name(1)
            {
                dormant.push(Table { family, name: name.to_vec() });
            }
        })?;
        let mut chains = Vec::new();
        self.ask(GET_CHAIN, NLM_F_DUMP, 0, Vec::new(), |family, attributes| {
            // The walk asks for other chains by name.
            chains.extend(Chain::parse(family, attributes).filter(|chain| chain.hook.is_some()));
        })?;
        chains.retain(|chain| !dormant.contains(&chain.table));
        Ok(chains)
    }

    /// Sends one request and hands each reply to `each`. A dump that a change disturbs is not repeated: the
    /// generation has changed, too, so all that was read is void.
    fn ask(
        &mut self,
        message: u16,
        flags: u16,
        family: u8,
        attributes: Vec<u8>,
        mut each: impl FnMut(u8, &[u8]),
    ) -> Result<(), NetlinkError> {
        let request = Message { kind: SUBSYSTEM | message, family, attributes };
        self.netlink.stream(request, flags, |reply| each(reply.family, &reply.attributes))
    }

    fn ask_for_element(&mut self, table: &Table, set: &[u8], element: &[u8]) -> io::Result<Vec<Element>> {
        let mut list = Vec::new();
        push_nested(&mut list, 1, element);
        let mut attributes = set_name(table, set);
        push_nested(&mut attributes, 3, &list);
        let mut found = Vec::new();
        let answer = self.ask(GET_ELEMENT, NLM_F_ACK, table.family, attributes, |_, attributes| {
            found.extend(Element::parse_all(attributes));
        });
        match answer {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
            answer => Ok(answer.map(|()| found)?),
        }
    }
}

fn set_name(table: &Table, set: &[u8]) -> Vec<u8> {
    let mut attributes = Vec::new();
    push_name(&mut attributes, 1, &table.name);
    push_name(&mut attributes, 2, set);
    attributes
}

impl Ruleset for Reader {
    fn rules(&mut self, table: &Table, chain: &[u8]) -> io::Result<Rc<[Rule]>> {
        let key = (table.clone(), chain.to_vec());
        if let Some(rules) = self.rules.get(&key) {
            return Ok(rules.clone());
        }
        let mut attributes = Vec::new();
        push_name(&mut attributes, 1, &table.name);
        push_name(&mut attributes, 2, chain);
        let mut rules = Vec::new();
        self.ask(GET_RULE, NLM_F_DUMP, table.family, attributes, |family, attributes| {
            let list = Attributes(attributes);
            // Kernels without filters for dumps list all rules.
            if list.name(1) == Some(&table.name) && list.name(2) == Some(chain) {
                rules.push(Rule::parse(family, attributes));
            }
        })?;
        let rules: Rc<[Rule]> = rules.into();
        self.rules.insert(key, rules.clone());
        Ok(rules)
    }

    fn set(&mut self, table: &Table, name: &[u8]) -> io::Result<Option<Set>> {
        if let Some(sets) = self.sets.get(table) {
            return Ok(sets.get(name).cloned());
        }
        let mut attributes = Vec::new();
        push_name(&mut attributes, 1, &table.name);
        let mut sets = HashMap::new();
        self.ask(GET_SET, NLM_F_DUMP, table.family, attributes, |_, attributes| {
            if Attributes(attributes).name(1) == Some(&table.name) {
                sets.extend(Set::parse(attributes));
            }
        })?;
        let set = sets.get(name).cloned();
        self.sets.insert(table.clone(), sets.into());
        Ok(set)
    }

    fn find(&mut self, table: &Table, name: &[u8], set: &Set, key: &[u8]) -> io::Result<Rc<[Element]>> {
        let index = ((table.clone(), name.to_vec()), key.to_vec());
        if let Some(found) = self.found.get(&index) {
            return Ok(found.clone());
        }
        let (mut value, mut element) = (Vec::new(), Vec::new());
        push(&mut value, 1, key);
        push_nested(&mut element, 1, &value);
        let mut found = self.ask_for_element(table, name, &element)?;
        if found.is_empty() && (set.is_map() || !set.is_anonymous()) {
            let mut others = Vec::new();
            push(&mut others, 3, &CATCHALL.to_be_bytes());
            // Kernels before 5.13 have no catch-all element and refuse the request.
            found = self.ask_for_element(table, name, &others).unwrap_or_default();
        }
        let found: Rc<[Element]> = found.into();
        self.found.insert(index, found.clone());
        Ok(found)
    }

    fn elements(&mut self, table: &Table, set: &[u8]) -> io::Result<Rc<[Element]>> {
        let index = (table.clone(), set.to_vec());
        if let Some(elements) = self.elements.get(&index) {
            return Ok(elements.clone());
        }
        let mut elements = Vec::new();
        self.ask(GET_ELEMENT, NLM_F_DUMP, table.family, set_name(table, set), |_, attributes| {
            let room = MAX_ELEMENTS.saturating_sub(elements.len());
            elements.extend(Element::parse_all(attributes).take(room));
        })?;
        let elements: Rc<[Element]> = elements.into();
        self.elements.insert(index, elements.clone());
        Ok(elements)
    }
}

/// Returns whether nf_tables is in memory: built in, or a loaded module. A request would load the module
/// (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c).
fn is_present() -> bool {
    let Ok(loaded) = fs::read_to_string("/proc/modules") else {
        // A kernel without modules has nothing to load.
        return true;
    };
    if loaded.lines().any(|line| line.starts_with("nf_tables "))
        || Path::new("/sys/module/nf_tables").exists()
    {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let built_in = Path::new("/lib/modules").join(release.trim()).join("modules.builtin");
    fs::read_to_string(built_in).is_ok_and(|list| list.lines().any(|line| line.ends_with("/nf_tables.ko")))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            for family in [super::super::IPV4, super::super::IPV6] {
                let _ = (Chain::parse(family, &bytes), Rule::parse(family, &bytes), Set::parse(&bytes));
                Element::parse_all(&bytes).for_each(drop);
            }
        }
    }
}
