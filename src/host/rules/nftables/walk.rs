//! The walk of a packet through nf_tables to a translation: it runs rules as the kernel does (nft_do_chain in
//! net/netfilter/nf_tables_core.c), over registers of which some bytes are unknown.
use super::{Chain, Comparison, Element, Expression, INET, IPV4, IPV6, Rule, Set, Table, Value, Verdict};
use crate::host::rules::{
    Budget, Family, Packet, RuleLocation, Translation, Truth, printable,
    xtables::{Match, Target},
};
use std::{io, net::IpAddr, rc::Rc};

/// Maximum depth of jumps and gotos. The kernel's stack has 16 jumps (NFT_JUMP_STACK_SIZE).
const DEPTH: usize = 64;
/// Size of all registers, NFT_REG32_00 to NFT_REG32_15, in bytes.
const REGISTERS: usize = 64;
/// Maximum bytes that an expression without a length loads.
const LOAD: usize = 16;
/// enum nft_payload_bases.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// The source of rules and sets for a walk.
pub trait Ruleset {
    /// Returns the rules of a chain, in order.
    ///
    /// # Errors
    /// The reader's.
    fn rules(&mut self, table: &Table, chain: &[u8]) -> io::Result<Rc<[Rule]>>;

    /// Returns the description of a set.
    ///
    /// # Errors
    /// The reader's.
    fn set(&mut self, table: &Table, name: &[u8]) -> io::Result<Option<Set>>;

    /// Returns the element that a set has for a key, or for all other keys.
    ///
    /// # Errors
    /// The reader's.
    fn find(&mut self, table: &Table, name: &[u8], set: &Set, key: &[u8]) -> io::Result<Rc<[Element]>>;

    /// Returns all elements of a set, up to a limit.
    ///
    /// # Errors
    /// The reader's.
    fn elements(&mut self, table: &Table, set: &[u8]) -> io::Result<Rc<[Element]>>;
}

/// Returns the first rule at prerouting that may translate the packet.
///
/// # Errors
/// The reader's.
pub fn translation(
    ruleset: &mut impl Ruleset,
    chains: &[Chain],
    packet: &Packet,
    budget: &mut Budget,
) -> io::Result<Option<Translation>> {
    for chain in chains.iter().filter(|chain| chain.translates_arrivals()) {
        if ![packet.number(), INET].contains(&chain.table.family) {
            continue;
        }
        let mut walk = Walk { ruleset, table: &chain.table, base: chain, packet, budget, places: Vec::new() };
        if let Outcome::Found(translation) = walk.chain(&chain.name, true)? {
            return Ok(Some(*translation));
        }
    }
    Ok(None)
}

/// The outcome of a chain.
enum Outcome {
    /// The packet goes on behind the chain, or may.
    Through,
    /// The base chain ends for the packet.
    Over,
    /// A rule translates the packet.
    Found(Box<Translation>),
}

struct Walk<'a, R> {
    ruleset: &'a mut R,
    table: &'a Table,
    base: &'a Chain,
    packet: &'a Packet<'a>,
    budget: &'a mut Budget,
    /// The rules that have led to the current chain.
    places: Vec<RuleLocation>,
}

/// The end of a rule.
enum End {
    Verdict(Verdict),
    Translate(String),
    /// A translation to the same destination.
    Stays,
}

impl<R: Ruleset> Walk<'_, R> {
    fn chain(&mut self, name: &[u8], mut certain: bool) -> io::Result<Outcome> {
        if self.places.len() >= DEPTH {
            return Ok(Outcome::Through);
        }
        let rules = self.ruleset.rules(self.table, name)?;
        for (index, rule) in rules.iter().enumerate() {
            if !self.budget.spend() {
                break;
            }
            let (ends, names_port) = self.rule(rule)?;
            let place = RuleLocation {
                chain: name.to_vec(),
                number: index + 1,
                handle: (!self.by_iptables()).then_some(rule.handle),
                comment: comment(rule),
                names_port,
            };
            self.places.push(place);
            let outcome = ends.into_iter().try_fold(None, |done, (truth, end)| match done {
                Some(_) => Ok(done),
                None => self.follow(truth, end, &mut certain),
            });
            if let Some(outcome) = outcome? {
                return Ok(outcome);
            }
            self.places.pop();
        }
        Ok(Outcome::Through)
    }

    /// Follows the end of a rule. Returns `None` if the next rule follows.
    fn follow(&mut self, truth: Truth, end: End, certain: &mut bool) -> io::Result<Option<Outcome>> {
        let met = truth == Truth::Yes;
        let outcome = match end {
            End::Translate(action) => {
                return Ok(Some(Outcome::Found(Box::new(self.translation(action, *certain && met)))));
            }
            End::Verdict(Verdict::Continue) => return Ok(None),
            End::Verdict(Verdict::Terminal) | End::Stays => Outcome::Over,
            End::Verdict(Verdict::Return) => Outcome::Through,
            End::Verdict(Verdict::Jump(chain)) => match self.chain(&chain, *certain && met)? {
                Outcome::Through => {
                    return Ok(None);
                }
                outcome => outcome,
            },
            End::Verdict(Verdict::Goto(chain)) => self.chain(&chain, *certain && met)?,
        };
        let done = met || matches!(outcome, Outcome::Found(_));
        // Some packets do not get past this rule.
        *certain &= done;
        if done {
            self.places.pop();
        }
        Ok(done.then_some(outcome))
    }

    fn translation(&self, action: String, certain: bool) -> Translation {
        let (back_end, family) = match (self.by_iptables(), self.table.family) {
            (true, IPV6) => ("ip6tables (nft)", None),
            (true, _) => ("iptables (nft)", None),
            (false, IPV4) => ("nftables", Some("ip")),
            (false, IPV6) => ("nftables", Some("ip6")),
            (false, _) => ("nftables", Some("inet")),
        };
        let (table, places) = (self.table.name.clone(), self.places.clone());
        Translation { back_end, family, table, places, action, certain }
    }

    /// Returns whether the table looks like iptables-nft's.
    fn by_iptables(&self) -> bool {
        self.table.family != INET && self.table.name == b"nat" && self.base.name == b"PREROUTING"
    }

    /// Runs a rule. Returns its possible ends, and whether it compares the destination port.
    fn rule(&mut self, rule: &Rule) -> io::Result<(Vec<(Truth, End)>, bool)> {
        let mut registers = Registers([Cell::Unknown; REGISTERS]);
        let (mut truth, mut names_port) = (Truth::Yes, false);
        for expression in &rule.expressions {
            let next = match expression {
                Expression::Meta { key, to } => {
                    registers.store(*to, &self.meta(*key));
                    Truth::Yes
                }
                Expression::Payload { base, offset, length, to } => {
                    names_port |= *base == TRANSPORT && *offset < 4 && offset.saturating_add(*length) > 2;
                    registers.store(*to, &self.payload(*base, *offset, *length));
                    Truth::Yes
                }
                Expression::Bitwise { from, to, mask, xor } => {
                    let cells = registers.load(*from, mask.len());
                    let masked = cells.into_iter().zip(mask.iter().zip(xor));
                    registers
                        .store(*to, &masked.map(|(cell, (m, x))| cell.masked(*m, *x)).collect::<Vec<_>>());
                    Truth::Yes
                }
                Expression::Compare { register, how, data } => {
                    self.each(&registers.load(*register, data.len()), |cells| compare(cells, *how, data))
                }
                Expression::Range { register, inverted, first, last } => {
                    let inside = self.each(&registers.load(*register, first.len()), |cells| {
                        compare(cells, Comparison::GreaterOrEqual, first).and(compare(
                            cells,
                            Comparison::LessOrEqual,
                            last,
                        ))
                    });
                    if *inverted { !inside } else { inside }
                }
                Expression::Lookup { set, from, to, inverted } => {
                    let found = self.lookup(set, &registers, *from)?;
                    match to {
                        None => {
                            let hit = found.iter().fold(Truth::No, |hit, (truth, _)| match (hit, truth) {
                                (Truth::Yes, _) | (_, Truth::Yes) => Truth::Yes,
                                _ => Truth::Maybe,
                            });
                            if *inverted { !hit } else { hit }
                        }
                        // A verdict ends the rule.
                        Some(0) => {
                            let ends = found.into_iter().filter_map(|(hit, value)| match value {
                                Some(Value::Verdict(verdict)) => {
                                    Some((truth.and(hit), End::Verdict(verdict)))
                                }
                                _ => None,
                            });
                            return Ok((ends.collect(), names_port));
                        }
                        Some(to) => match found.as_slice() {
                            [] => Truth::No,
                            [(hit, Some(Value::Bytes(bytes)))] => {
                                registers
                                    .store(*to, &bytes.iter().map(|b| Cell::Known(*b)).collect::<Vec<_>>());
                                *hit
                            }
                            _ => {
                                registers.store(*to, &[Cell::Unknown; LOAD]);
                                Truth::Maybe
                            }
                        },
                    }
                }
                Expression::Immediate { to, data } => {
                    registers.store(*to, &data.iter().map(|byte| Cell::Known(*byte)).collect::<Vec<_>>());
                    Truth::Yes
                }
                Expression::Fib { result, flags, to } => self.fib(*result, *flags, *to, &mut registers),
                Expression::Load { to } => {
                    registers.store(*to, &[Cell::Unknown; LOAD]);
                    Truth::Yes
                }
                Expression::Match(condition) => {
                    names_port |= condition.names_port();
                    condition.judge(self.packet)
                }
                Expression::Condition(name) => {
                    log::trace!("rules: \"{}\" cannot be judged and counts as met", printable(name));
                    Truth::Maybe
                }
                Expression::Statement | Expression::Target(Target::Other | Target::Head(_)) => Truth::Yes,
                Expression::Target(Target::Standard(_)) => Truth::Yes,
                Expression::Verdict(verdict) => {
                    return Ok((vec![(truth, End::Verdict(verdict.clone()))], names_port));
                }
                Expression::Target(Target::Translate(translate)) => {
                    let end = match translate.changes(self.packet) {
                        true => End::Translate(translate.to_string()),
                        false => End::Stays,
                    };
                    return Ok((vec![(truth, end)], names_port));
                }
                // In a table of family inet (nft_nat_inet_eval in net/netfilter/nft_nat.c).
                Expression::DestinationNat { family, .. } if *family != self.packet.number() => Truth::Yes,
                Expression::DestinationNat { address, port, .. } => {
                    return Ok((vec![(truth, self.nat("dnat", *address, *port, &registers))], names_port));
                }
                Expression::Redirect { port } => {
                    return Ok((vec![(truth, self.nat("redirect", None, *port, &registers))], names_port));
                }
            };
            truth = truth.and(next);
            if truth == Truth::No {
                return Ok((Vec::new(), names_port));
            }
        }
        Ok((Vec::new(), names_port))
    }

    /// Returns the target of a translation, as far as the registers are known.
    fn nat(&self, word: &str, address: Option<u32>, port: Option<u32>, registers: &Registers) -> End {
        let own = self.packet.destination;
        let ip = address.map(|register| match self.packet.family() {
            Family::V4 => registers.known::<4>(register).map(IpAddr::from),
            Family::V6 => registers.known::<16>(register).map(IpAddr::from),
        });
        let port = port.map(|register| registers.known::<2>(register).map(u16::from_be_bytes));
        let same_address = ip.is_none_or(|ip| ip == Some(own.ip()));
        if same_address && port.is_none_or(|port| port == Some(own.port())) {
            return End::Stays;
        }
        let ip = ip.map(|ip| match ip {
            Some(IpAddr::V6(ip)) if port.is_some() => format!("[{ip}]"),
            Some(ip) => ip.to_string(),
            None => "one of several addresses".to_owned(),
        });
        let port = port.map(|port| port.map_or("one of several ports".to_owned(), |port| port.to_string()));
        End::Translate(match (ip, port) {
            (Some(ip), Some(port)) if port.contains(' ') => format!("{word} to {ip}"),
            (Some(ip), Some(port)) => format!("{word} to {ip}:{port}"),
            (Some(ip), None) => format!("{word} to {ip}"),
            (None, Some(port)) => format!("{word} to port {port}"),
            (None, None) => word.to_owned(),
        })
    }

    /// Returns what a meta expression loads (nft_meta_get_eval in net/netfilter/nft_meta.c).
    fn meta(&self, key: u32) -> Vec<Cell> {
        let v4 = self.packet.family() == Family::V4;
        let known = |bytes: &[u8]| bytes.iter().map(|byte| Cell::Known(*byte)).collect();
        match key {
            // NFT_META_PROTOCOL, IIF, IIFNAME, NFPROTO, L4PROTO, PKTTYPE (PACKET_HOST).
            1 => known(&if v4 { [0x08, 0x00] } else { [0x86, 0xdd] }),
            4 => (0..4).map(Cell::Index).collect(),
            6 => (0..16).map(Cell::Name).collect(),
            15 => known(&[self.packet.number()]),
            16 => known(&[self.packet.protocol.number()]),
            19 => known(&[0]),
            _ => vec![Cell::Unknown; LOAD],
        }
    }

    fn payload(&self, base: u32, offset: u32, length: u32) -> Vec<Cell> {
        let destination = self.packet.destination_bytes();
        // Offsets of protocol and destination: RFC 791, section 3.1; RFC 8200, section 3.
        let (protocol, start) = if destination.len() == 4 { (9, 16) } else { (6, 24) };
        let port = self.packet.destination.port().to_be_bytes();
        let byte = |at: usize| match base {
            NETWORK if at == protocol => Some(self.packet.protocol.number()),
            NETWORK => destination.get(at.wrapping_sub(start)).copied(),
            TRANSPORT => port.get(at.wrapping_sub(2)).copied(),
            _ => None,
        };
        let (offset, length) = (offset as usize, (length as usize).min(REGISTERS));
        (0..length).map(|at| byte(offset.wrapping_add(at)).map_or(Cell::Unknown, Cell::Known)).collect()
    }

    fn fib(&self, result: u32, flags: u32, to: u32, registers: &mut Registers) -> Truth {
        // NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR: RTN_LOCAL, in the host's byte order.
        let cells = match (result, flags & 2 != 0) {
            (3, true) => 2_u32.to_ne_bytes().map(Cell::Known),
            _ => [Cell::Unknown; 4],
        };
        registers.store(to, &cells);
        Truth::Yes
    }

    /// Judges a condition for each possible ingress interface, if the bytes depend on it.
    fn each(&self, cells: &[Cell], ask: impl Fn(&[Cell]) -> Truth) -> Truth {
        if !cells.iter().any(|cell| matches!(cell, Cell::Name(_) | Cell::Index(_))) {
            return ask(cells);
        }
        Truth::of(self.packet.interfaces.iter().map(|(index, name)| ask(&resolved(cells, *index, name))))
    }

    /// Returns the elements that a set may have for a key.
    fn lookup(
        &mut self,
        name: &[u8],
        registers: &Registers,
        from: u32,
    ) -> io::Result<Vec<(Truth, Option<Value>)>> {
        // An unknown set may hold anything.
        let Some(set) = self.ruleset.set(self.table, name)? else { return Ok(vec![(Truth::Maybe, None)]) };
        let cells = registers.load(from, set.key_length);
        let key: Option<Vec<u8>> = cells.iter().map(Cell::known).collect();
        if let Some(key) = key.filter(|key| key.len() == set.key_length) {
            match self.ruleset.find(self.table, name, &set, &key) {
                Ok(found) => {
                    return Ok(found.iter().map(|element| (Truth::Yes, element.value.clone())).collect());
                }
                // Kernels before 4.15 find no single elements and list all.
                Err(error) => log::debug!("rules: set {}: {error}", printable(name)),
            }
        }
        let elements = self.ruleset.elements(self.table, name)?;
        if !self.budget.spend_for(elements.len()) {
            return Ok(Vec::new());
        }
        let hits = intervals(&elements).into_iter().map(|interval| {
            let truth = match interval {
                Interval::Others(_) => Truth::Maybe,
                Interval::Single(element) => {
                    self.each(&cells, |cells| compare(cells, Comparison::Equal, &element.key))
                }
                Interval::Between(first, end) => self.each(&cells, |cells| {
                    let from = compare(cells, Comparison::GreaterOrEqual, &first.key);
                    from.and(end.map_or(Truth::Yes, |end| compare(cells, Comparison::Less, &end.key)))
                }),
                Interval::Fields(first, last) => self.each(&cells, |cells| within(cells, &first.key, last)),
            };
            (truth, interval.element().value.clone())
        });
        Ok(hits.filter(|(truth, _)| *truth != Truth::No).collect())
    }
}

/// Returns the comment in the rule's user data, or of xtables' match.
fn comment(rule: &Rule) -> Option<Vec<u8>> {
    let mut matches = rule.expressions.iter().filter_map(|expression| match expression {
        Expression::Match(Match::Comment(text)) => Some(text.clone()),
        _ => None,
    });
    rule.comment.clone().or_else(|| matches.next())
}

impl Packet<'_> {
    /// Returns NFPROTO_* of the packet's family.
    fn number(&self) -> u8 {
        if self.family() == Family::V4 { IPV4 } else { IPV6 }
    }
}

/// A byte of a register, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Unknown,
    Known(u8),
    /// The byte at this offset of the ingress interface's name.
    Name(usize),
    /// The byte at this offset of its index.
    Index(usize),
}

impl Cell {
    fn known(&self) -> Option<u8> {
        match self {
            Cell::Known(byte) => Some(*byte),
            _ => None,
        }
    }

    fn masked(self, mask: u8, xor: u8) -> Cell {
        match (self, mask, xor) {
            (Cell::Known(byte), ..) => Cell::Known(byte & mask ^ xor),
            (_, 0, _) => Cell::Known(xor),
            (cell, 0xff, 0) => cell,
            _ => Cell::Unknown,
        }
    }
}

/// Returns the cells with the bytes of one interface filled in.
fn resolved(cells: &[Cell], index: u32, name: &str) -> Vec<Cell> {
    let byte = |cell: &Cell| match *cell {
        Cell::Name(at) => Cell::Known(name.as_bytes().get(at).copied().unwrap_or(0)),
        Cell::Index(at) => index.to_ne_bytes().get(at).map_or(Cell::Unknown, |byte| Cell::Known(*byte)),
        cell => cell,
    };
    cells.iter().map(byte).collect()
}

/// Compares like memcmp(3), as far as the bytes are known.
fn compare(cells: &[Cell], how: Comparison, data: &[u8]) -> Truth {
    let bytes = cells.iter().map(Cell::known).zip(data);
    if let Comparison::Equal | Comparison::NotEqual = how {
        let same = bytes.fold(Truth::Yes, |same, (cell, wanted)| {
            same.and(cell.map_or(Truth::Maybe, |byte| (byte == *wanted).into()))
        });
        return if how == Comparison::Equal { same } else { !same };
    }
    let mut order = std::cmp::Ordering::Equal;
    for (cell, wanted) in bytes {
        let Some(byte) = cell else { return Truth::Maybe };
        order = order.then(byte.cmp(wanted));
        if order.is_ne() {
            break;
        }
    }
    Truth::from(match how {
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// Returns whether each field of a concatenation lies in its range. The fields' lengths are unknown here,
/// so only words that are equal at both ends decide.
fn within(cells: &[Cell], first: &[u8], last: &[u8]) -> Truth {
    let words = cells.chunks(4).zip(first.chunks(4).zip(last.chunks(4)));
    words.fold(Truth::Yes, |all, (cells, (first, last))| {
        all.and(if first == last { compare(cells, Comparison::Equal, first) } else { Truth::Maybe })
    })
}

/// The keys of an element.
enum Interval<'a> {
    Single(&'a Element),
    /// From one key to before another.
    Between(&'a Element, Option<&'a Element>),
    /// A range in each field of a concatenation.
    Fields(&'a Element, &'a [u8]),
    /// All keys without an element of their own.
    Others(&'a Element),
}

impl<'a> Interval<'a> {
    fn element(&self) -> &'a Element {
        match self {
            Interval::Single(element)
            | Interval::Between(element, _)
            | Interval::Fields(element, _)
            | Interval::Others(element) => element,
        }
    }
}

/// Joins the elements that begin and end intervals.
fn intervals(elements: &[Element]) -> Vec<Interval<'_>> {
    let mut plain: Vec<&Element> = Vec::new();
    let mut intervals = Vec::new();
    for element in elements {
        match &element.key_end {
            _ if element.key.is_empty() => intervals.push(Interval::Others(element)),
            Some(last) => intervals.push(Interval::Fields(element, last)),
            None => plain.push(element),
        }
    }
    if !plain.iter().any(|element| element.ends_interval) {
        intervals.extend(plain.into_iter().map(Interval::Single));
        return intervals;
    }
    // Where one interval ends at the beginning of the next, the end comes first.
    plain.sort_by_key(|element| (&element.key, !element.ends_interval));
    for (index, first) in plain.iter().enumerate().filter(|(_, element)| !element.ends_interval) {
        intervals.push(Interval::Between(first, plain.get(index + 1).copied()));
    }
    intervals
}

/// The registers of a rule, byte by byte.
struct Registers([Cell; REGISTERS]);

impl Registers {
    /// Returns the offset of a register: 16-byte ones from 1, 4-byte ones from 8 (enum nft_registers).
    fn start(register: u32) -> usize {
        match register as usize {
            register @ 1..=4 => (register - 1) * 16,
            register @ 8.. => (register - 8).saturating_mul(4),
            _ => REGISTERS,
        }
    }

    /// Stores bytes, padded with zeros to a multiple of four as the kernel does.
    fn store(&mut self, register: u32, cells: &[Cell]) {
        let padding = cells.len().next_multiple_of(4) - cells.len();
        let padded = cells.iter().copied().chain(std::iter::repeat_n(Cell::Known(0), padding));
        let room = self.0.get_mut(Self::start(register)..).unwrap_or_default();
        room.iter_mut().zip(padded).for_each(|(place, cell)| *place = cell);
    }

    fn load(&self, register: u32, length: usize) -> Vec<Cell> {
        let from = self.0.get(Self::start(register)..).unwrap_or_default();
        from.iter().copied().chain(std::iter::repeat(Cell::Unknown)).take(length.min(REGISTERS)).collect()
    }

    fn known<const N: usize>(&self, register: u32) -> Option<[u8; N]> {
        let bytes: Option<Vec<u8>> = self.load(register, N).iter().map(Cell::known).collect();
        bytes?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Protocol;
    use std::collections::HashMap;

    /// Chains and sets by name.
    #[derive(Default)]
    struct Recorded {
        chains: HashMap<Vec<u8>, Rc<[Rule]>>,
        sets: HashMap<Vec<u8>, (Set, Rc<[Element]>)>,
    }

    impl Ruleset for Recorded {
        fn rules(&mut self, _: &Table, chain: &[u8]) -> io::Result<Rc<[Rule]>> {
            Ok(self.chains.get(chain).cloned().unwrap_or_default())
        }

        fn set(&mut self, _: &Table, name: &[u8]) -> io::Result<Option<Set>> {
            Ok(self.sets.get(name).map(|(set, _)| set.clone()))
        }

        fn find(&mut self, _: &Table, _: &[u8], _: &Set, _: &[u8]) -> io::Result<Rc<[Element]>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn elements(&mut self, _: &Table, set: &[u8]) -> io::Result<Rc<[Element]>> {
            Ok(self.sets.get(set).map(|(_, elements)| elements.clone()).unwrap_or_default())
        }
    }

    const REGISTER: u32 = 1;

    fn rule(expressions: impl IntoIterator<Item = Expression>) -> Rule {
        Rule { expressions: expressions.into_iter().collect(), ..Rule::default() }
    }

    fn load_port() -> Expression {
        Expression::Payload { base: TRANSPORT, offset: 2, length: 2, to: REGISTER }
    }

    fn port(number: u16) -> [Expression; 2] {
        let data = number.to_be_bytes().to_vec();
        [load_port(), Expression::Compare { register: REGISTER, how: Comparison::Equal, data }]
    }

    fn source() -> [Expression; 2] {
        let load = Expression::Payload { base: NETWORK, offset: 12, length: 4, to: REGISTER };
        [load, Expression::Compare { register: REGISTER, how: Comparison::Equal, data: vec![192, 0, 2, 9] }]
    }

    fn verdict(verdict: Verdict) -> Expression {
        Expression::Verdict(verdict)
    }

    fn jump(chain: &str) -> Expression {
        verdict(Verdict::Jump(chain.into()))
    }

    fn goto(chain: &str) -> Expression {
        verdict(Verdict::Goto(chain.into()))
    }

    fn redirect() -> [Expression; 2] {
        [Expression::Immediate { to: 2, data: vec![0, 9] }, Expression::Redirect { port: Some(2) }]
    }

    /// Walks a packet for 192.0.2.1:80 by eth0 or eth1: the rule's place, and whether it is
    /// certain.
    fn walk(
        chains: &[(&str, Vec<Rule>)],
        sets: &[(&str, Set, Vec<Element>)],
    ) -> Option<(String, usize, bool)> {
        let mut recorded = Recorded::default();
        for (name, rules) in chains {
            recorded.chains.insert(name.as_bytes().to_vec(), rules.clone().into());
        }
        for (name, set, elements) in sets {
            recorded.sets.insert(name.as_bytes().to_vec(), (set.clone(), elements.clone().into()));
        }
        let base = Chain {
            table: Table { family: IPV4, name: b"t".to_vec() },
            name: b"pre".to_vec(),
            hook: Some(0),
            kind: b"nat".to_vec(),
        };
        let interfaces = [(2, "eth0".to_owned()), (3, "eth1".to_owned())];
        let destination = "192.0.2.1:80".parse().expect("an address");
        let packet = Packet { protocol: Protocol::Tcp, destination, interfaces: &interfaces };
        let found = translation(&mut recorded, &[base], &packet, &mut Budget::default()).expect("recorded");
        found.map(|found| {
            let last = found.places.last().expect("a place");
            (String::from_utf8_lossy(&last.chain).into_owned(), last.number, found.certain)
        })
    }

    fn at(chain: &str, number: usize, certain: bool) -> Option<(String, usize, bool)> {
        Some((chain.to_owned(), number, certain))
    }

    #[test]
    fn verdicts_lead_where_the_kernel_goes() {
        let accept = || verdict(Verdict::Terminal);
        let far = ("far", vec![rule(redirect())]);
        let empty = ("empty", vec![]);
        let done = ("done", vec![rule([accept()])]);
        let back = ("back", vec![rule([verdict(Verdict::Return)]), rule(redirect())]);
        for (pre, wanted) in [
            (vec![rule(port(80).into_iter().chain(redirect()))], at("pre", 1, true)),
            (vec![rule(port(81).into_iter().chain(redirect()))], None),
            (vec![rule([accept()]), rule(redirect())], None),
            (vec![rule(port(81).into_iter().chain([accept()])), rule(redirect())], at("pre", 2, true)),
            // Some are accepted before.
            (vec![rule(source().into_iter().chain([accept()])), rule(redirect())], at("pre", 2, false)),
            (vec![rule(source().into_iter().chain(redirect()))], at("pre", 1, false)),
            (vec![rule([jump("empty")]), rule(redirect())], at("pre", 2, true)),
            (vec![rule([goto("empty")]), rule(redirect())], None),
            (vec![rule(source().into_iter().chain([goto("empty")])), rule(redirect())], at("pre", 2, false)),
            (vec![rule([jump("done")]), rule(redirect())], None),
            (vec![rule([jump("back")]), rule(redirect())], at("pre", 2, true)),
            (vec![rule([goto("back")]), rule(redirect())], None),
            (vec![rule([goto("far")])], at("far", 1, true)),
            (vec![rule(source().into_iter().chain([jump("far")]))], at("far", 1, false)),
            // No kernel has a loop.
            (vec![rule([jump("pre")])], None),
            (
                vec![rule([Expression::Condition(b"limit".to_vec())].into_iter().chain(redirect()))],
                at("pre", 1, false),
            ),
            (vec![rule([Expression::Statement].into_iter().chain(redirect()))], at("pre", 1, true)),
        ] {
            let chains = [("pre", pre), far.clone(), empty.clone(), done.clone(), back.clone()];
            assert_eq!(walk(&chains, &[]), wanted, "{:?}", chains[0]);
        }
    }

    #[test]
    fn interfaces_are_looked_at_one_by_one() {
        let name = |data: &[u8], how| {
            let load = Expression::Meta { key: 6, to: REGISTER };
            let compare = Expression::Compare { register: REGISTER, how, data: data.to_vec() };
            vec![rule([load, compare].into_iter().chain(redirect()))]
        };
        for (rules, wanted) in [
            (name(b"eth", Comparison::Equal), at("pre", 1, true)),
            (name(b"eth0\0", Comparison::Equal), at("pre", 1, false)),
            (name(b"eth0\0", Comparison::NotEqual), at("pre", 1, false)),
            (name(b"eth2\0", Comparison::Equal), None),
            (name(b"docker0\0", Comparison::NotEqual), at("pre", 1, true)),
        ] {
            assert_eq!(walk(&[("pre", rules)], &[]), wanted);
        }
    }

    #[test]
    fn elements_of_sets_are_found_by_key_interval_and_wildcard() {
        let plain =
            |key: &[u8]| Element { key: key.to_vec(), key_end: None, ends_interval: false, value: None };
        let end = |key: &[u8]| Element { ends_interval: true, ..plain(key) };
        let set = |elements: &[Element]| [("s", Set { key_length: 2, flags: 0 }, elements.to_vec())];
        let lookup = |inverted| {
            let find = Expression::Lookup { set: b"s".to_vec(), from: REGISTER, to: None, inverted };
            [("pre", vec![rule([load_port(), find].into_iter().chain(redirect()))])]
        };
        for (elements, hit) in [
            (vec![plain(&[0, 80]), plain(&[0, 90])], true),
            (vec![plain(&[0, 81])], false),
            (vec![plain(&[0, 70]), end(&[0, 81])], true),
            (vec![plain(&[0, 70]), end(&[0, 80])], false),
            (vec![end(&[0, 80]), plain(&[0, 80]), end(&[0, 90]), plain(&[0, 1])], true),
            (vec![plain(&[0, 70]), end(&[0, 75]), plain(&[0, 79])], true),
            (vec![], false),
        ] {
            assert_eq!(walk(&lookup(false), &set(&elements)).is_some(), hit, "{elements:?}");
            assert_eq!(walk(&lookup(true), &set(&elements)).is_some(), !hit, "not {elements:?}");
        }
        // A key of which only some is known.
        let by_source = |key: &[u8]| {
            let load = Expression::Payload { base: NETWORK, offset: 12, length: 8, to: REGISTER };
            let find = Expression::Lookup { set: b"s".to_vec(), from: REGISTER, to: None, inverted: false };
            let chains = [("pre", vec![rule([load, find].into_iter().chain(redirect()))])];
            walk(&chains, &[("s", Set { key_length: 8, flags: 0 }, vec![plain(key)])])
        };
        assert_eq!(by_source(&[10, 0, 0, 1, 192, 0, 2, 1]), at("pre", 1, false));
        assert_eq!(by_source(&[10, 0, 0, 1, 192, 0, 2, 2]), None);
    }

    #[test]
    fn what_leads_back_to_the_port_is_no_translation() {
        let to = |port: u16| Expression::Immediate { to: 2, data: port.to_be_bytes().to_vec() };
        let own = Expression::Immediate { to: 3, data: vec![192, 0, 2, 1] };
        for (expressions, found) in [
            (vec![Expression::Redirect { port: None }], false),
            (vec![to(80), Expression::Redirect { port: Some(2) }], false),
            (vec![to(81), Expression::Redirect { port: Some(2) }], true),
            (
                vec![own.clone(), Expression::DestinationNat { family: IPV4, address: Some(3), port: None }],
                false,
            ),
            (vec![own, Expression::DestinationNat { family: IPV6, address: Some(3), port: None }], false),
            (vec![Expression::DestinationNat { family: IPV4, address: Some(3), port: None }], true),
        ] {
            assert_eq!(
                walk(&[("pre", vec![rule(expressions.clone())])], &[]).is_some(),
                found,
                "{expressions:?}"
            );
        }
    }
}
