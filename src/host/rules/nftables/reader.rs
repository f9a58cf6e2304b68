//! Questions to nf_tables over nfnetlink: only what a packet can reach is read.
use super::{Chain, Element, Rule, Ruleset, Set, Table};
use crate::host::rules::attributes::{Attributes, push, push_name, push_nested};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};
use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    rc::Rc,
};

/// NFNL_SUBSYS_NFTABLES, and its messages (enum nf_tables_msg_types).
const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_SET: u16 = 10;
const GET_ELEMENT: u16 = 13;
const GET_GENERATION: u16 = 16;
/// Flags and types of netlink(7).
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// struct nfgenmsg: family, version, resource.
const FAMILY_HEADER: usize = 4;
/// The kernel fills at most 32 KiB a datagram of a dump (netlink_dump in net/netlink/af_netlink.c).
const DATAGRAM: usize = 64 << 10;
/// Most elements of one set that are read, when its key is not known.
const MAX_ELEMENTS: usize = 20_000;
/// NFT_SET_ELEM_CATCHALL.
const CATCHALL: u32 = 2;
/// NFT_TABLE_F_DORMANT.
const DORMANT: u32 = 1;

/// A chain or a set of a table.
type Named = (Table, Vec<u8>);

/// A socket to nf_tables in the calling thread's network namespace, and what has been read.
pub struct Reader {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    rules: HashMap<Named, Rc<[Rule]>>,
    sets: HashMap<Table, Rc<HashMap<Vec<u8>, Set>>>,
    /// By set and key.
    found: HashMap<(Named, Vec<u8>), Rc<[Element]>>,
    elements: HashMap<Named, Rc<[Element]>>,
}

impl Reader {
    /// Opens a socket; `None` where the kernel has no nf_tables in memory, which a question would load.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> io::Result<Option<Reader>> {
        if !is_present() {
            return Ok(None);
        }
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // The kernel answers within the system call; this only keeps a bug from hanging the start.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Some(Reader {
            socket,
            sequence: 0,
            buffer: vec![0; DATAGRAM],
            rules: HashMap::new(),
            sets: HashMap::new(),
            found: HashMap::new(),
            elements: HashMap::new(),
        }))
    }

    /// Forgets what has been read.
    pub fn forget(&mut self) {
        self.rules.clear();
        self.sets.clear();
        self.found.clear();
        self.elements.clear();
    }

    /// Returns the number of the rule set's generation: the same before and after means one consistent view.
    ///
    /// # Errors
    /// The kernel's.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.ask(GET_GENERATION, ACKNOWLEDGE, 0, &[], |_, attributes| {
            generation = generation.or(Attributes(attributes).number(1));
        })?;
        generation.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Lists the chains of all tables that are in force.
    ///
    /// # Errors
    /// The kernel's.
    pub fn chains(&mut self) -> io::Result<Vec<Chain>> {
        let mut dormant = Vec::new();
        self.ask(GET_TABLE, DUMP, 0, &[], |family, attributes| {
            let attributes = Attributes(attributes);
            if attributes.number(2).unwrap_or(0) & DORMANT != 0
                && let Some(name) = attributes.name(1)
            {
                dormant.push(Table { family, name: name.to_vec() });
            }
        })?;
        let mut chains = Vec::new();
        self.ask(GET_CHAIN, DUMP, 0, &[], |family, attributes| {
            // Chains without a hook are asked for when a rule leads there.
            chains.extend(Chain::parse(family, attributes).filter(|chain| chain.hook.is_some()));
        })?;
        chains.retain(|chain| !dormant.contains(&chain.table));
        Ok(chains)
    }

    /// Asks one question, and calls `each` with family and attributes of every answer.
    fn ask(
        &mut self,
        message: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(u8, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + FAMILY_HEADER + attributes.len()).map_err(io::Error::other)?;
        let mut request = Vec::with_capacity(length as usize);
        request.extend(length.to_ne_bytes());
        request.extend((SUBSYSTEM | message).to_ne_bytes());
        request.extend((REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend([family, 0, 0, 0]);
        request.extend(attributes);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            if take_in(datagram, self.sequence, &mut each)? {
                return Ok(());
            }
        }
    }

    fn ask_for_element(&mut self, table: &Table, set: &[u8], element: &[u8]) -> io::Result<Vec<Element>> {
        let mut list = Vec::new();
        push_nested(&mut list, 1, element);
        let mut attributes = set_name(table, set);
        push_nested(&mut attributes, 3, &list);
        let mut found = Vec::new();
        let answer = self.ask(GET_ELEMENT, ACKNOWLEDGE, table.family, &attributes, |_, attributes| {
            found.extend(Element::parse_all(attributes));
        });
        match answer {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(Vec::new()),
            answer => answer.map(|()| found),
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
        self.ask(GET_RULE, DUMP, table.family, &attributes, |family, attributes| {
            let list = Attributes(attributes);
            // Kernels that know no filter for a dump list all rules.
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
        self.ask(GET_SET, DUMP, table.family, &attributes, |_, attributes| {
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
            // Before Linux 5.13 there is no element for all other keys, and the question is refused.
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
        self.ask(GET_ELEMENT, DUMP, table.family, &set_name(table, set), |_, attributes| {
            let room = MAX_ELEMENTS.saturating_sub(elements.len());
            elements.extend(Element::parse_all(attributes).take(room));
        })?;
        let elements: Rc<[Element]> = elements.into();
        self.elements.insert(index, elements.clone());
        Ok(elements)
    }
}

/// Takes in one datagram of an answer, and calls `each` with family and attributes of its messages; `true`: the answer
/// is complete.
///
/// # Errors
/// The kernel's refusal, EINTR for a dump that a change disturbed, `InvalidData` for a message that is cut short.
pub fn take_in(datagram: &[u8], sequence: u32, each: &mut impl FnMut(u8, &[u8])) -> io::Result<bool> {
    let short = || io::Error::from(io::ErrorKind::InvalidData);
    let mut rest = datagram;
    while !rest.is_empty() {
        let header = rest.first_chunk::<HEADER>().ok_or_else(short)?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = rest.get(HEADER..length).ok_or_else(short)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if u32::from_ne_bytes([s0, s1, s2, s3]) != sequence {
            continue;
        }
        if u16::from_ne_bytes([f0, f1]) & DUMP_INTERRUPTED != 0 {
            return Err(Errno::EINTR.into());
        }
        match u16::from_ne_bytes([k0, k1]) {
            DONE | ERROR => {
                let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                };
            }
            _ => {
                if let Some((family, attributes)) = payload.split_first_chunk::<FAMILY_HEADER>() {
                    each(family[0], attributes);
                }
            }
        }
    }
    Ok(false)
}

/// Whether nf_tables is in memory: built in, or a module that is loaded. A question to a kernel without it would load
/// it (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c).
fn is_present() -> bool {
    let Ok(loaded) = fs::read_to_string("/proc/modules") else {
        // A kernel without modules: nothing can be loaded.
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

    /// A message of nf_tables with sequence number 1.
    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).expect("short");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_refusal_keeps_its_number_and_a_disturbed_dump_is_noticed() {
        let refused = take_in(&message(ERROR, 0, &(-2_i32).to_ne_bytes()), 1, &mut |_, _| {});
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(Errno::ENOENT as i32));
        let disturbed = take_in(&message(DONE, DUMP_INTERRUPTED, &[0; 4]), 1, &mut |_, _| {});
        assert_eq!(disturbed.unwrap_err().raw_os_error(), Some(Errno::EINTR as i32));
        assert!(take_in(&message(DONE, 0, &[0; 4]), 1, &mut |_, _| {}).unwrap());
        assert!(take_in(&message(DONE, 0, &[0; 4])[..18], 1, &mut |_, _| {}).is_err());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            let read_all = &mut |family: u8, attributes: &[u8]| {
                let _ = (Chain::parse(family, attributes), Rule::parse(family, attributes), Set::parse(attributes));
                Element::parse_all(attributes).for_each(drop);
            };
            let _ = take_in(&bytes, 0, read_all);
            for family in [super::super::IPV4, super::super::IPV6] {
                read_all(family, &bytes);
            }
        }
    }
}
