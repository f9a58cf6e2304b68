//! A rule of nf_tables followed once from its first expression to its last.
use super::comparison::{
    EQUAL, GREATER_OR_EQUAL, LESS_OR_EQUAL, NOT_EQUAL, OPERATORS, arithmetic, dependency, header_protocol,
    masked,
};
use super::datatype::{Datatype, host_number, name};
use super::selector::{self, ARP, Dependency, Field, IPV4, IPV6, Layers, Selector};
use super::{Headers, MatchedElement, RuleText, Ruleset, set, statement, xtables};
use crate::host::nfnetlink::Attributes;
use std::collections::BTreeMap;

/// Maximum length of a rule's text, in characters.
const TEXT: usize = 2000;

/// The content of a register.
#[derive(Clone, Debug)]
pub(super) enum Loaded {
    /// A field, as it is.
    Plain(Selector),
    /// A field after `& mask ^ xor`.
    Masked { selector: Selector, mask: Vec<u8>, xor: Vec<u8> },
    /// A constant.
    Constant(Vec<u8>),
}

/// A piece of a rule's text.
struct Item {
    text: String,
    /// The condition that this piece is, if nft may leave it out.
    is: Option<Dependency>,
    /// The conditions that this piece implies.
    needs: Vec<Dependency>,
    /// A lower bound that an upper one may complete: the selector's name and the bound.
    lower_bound: Option<(String, String)>,
}

/// Returns the text of a rule of a family (NFPROTO_*) from the attributes of its NFT_MSG_NEWRULE, and the
/// elements that a packet's headers meet.
pub(crate) fn render(
    family: u8,
    attributes: &[u8],
    ruleset: &mut dyn Ruleset,
    headers: Option<Headers>,
) -> RuleText {
    let attributes = Attributes(attributes);
    let network = Some(family).filter(|family| [IPV4, ARP, IPV6].contains(family));
    let layers = Layers { network, transport: None };
    let mut walk = Walk {
        ruleset,
        headers,
        family,
        layers,
        registers: BTreeMap::new(),
        items: Vec::new(),
        implied: Vec::new(),
        result: RuleText::default(),
    };
    walk.result.comment = attributes.find(7).and_then(comment);
    walk.expressions(attributes.nested(4));
    let mut result = walk.result;
    result.text = crate::text::beginning(&joined(&walk.items), TEXT);
    result
}

/// Returns the comment in a rule's user data: type and length of a byte each, then the value (libnftnl's
/// udata.h; NFTNL_UDATA_RULE_COMMENT).
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(name(value));
        }
        data = rest.get(value.len()..)?;
    }
    None
}

/// Joins the pieces without the conditions that later ones imply.
fn joined(items: &[Item]) -> String {
    let implied = |at: usize| {
        let item = items.get(at)?;
        let is = item.is?;
        let mut later = items.get(at + 1..)?.iter().take_while(|later| !conflicts(later.is, is));
        later.find(|later| later.needs.contains(&is))
    };
    let kept = items.iter().enumerate().filter(|(at, _)| implied(*at).is_none());
    kept.map(|(_, item)| item.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// Returns whether one condition takes the place of another.
fn conflicts(new: Option<Dependency>, old: Dependency) -> bool {
    new.is_some_and(|new| new != old && std::mem::discriminant(&new) == std::mem::discriminant(&old))
}

/// The state of the walk. Registers have the numbers of 4-byte slots.
pub(super) struct Walk<'a> {
    ruleset: &'a mut dyn Ruleset,
    headers: Option<Headers<'a>>,
    family: u8,
    layers: Layers,
    registers: BTreeMap<u32, Loaded>,
    items: Vec<Item>,
    /// Conditions that the next piece implies.
    implied: Vec<Dependency>,
    pub(super) result: RuleText,
}

impl Walk<'_> {
    fn expressions(&mut self, list: Attributes) {
        for (_, expression) in list.filter(|(kind, _)| *kind == 1) {
            let expression = Attributes(expression);
            if let Some(name) = expression.name(1) {
                self.expression(name, expression.nested(2));
            }
        }
    }

    fn expression(&mut self, name: &[u8], data: Attributes) {
        let done = match name {
            b"payload" => self.payload(data),
            b"meta" => self.meta(data),
            b"ct" => self.ct(data),
            b"exthdr" => self.extension_header(data),
            b"fib" => selector::fib(data).and_then(|selector| self.load(data.number(1), selector)),
            b"rt" | b"numgen" | b"osf" | b"xfrm" => self.other(name, data, data.number(1)),
            b"socket" | b"hash" | b"tunnel" => self.other(name, data, data.number(2)),
            b"byteorder" => self.byte_order(data.number(1), data.number(2)),
            b"bitwise" => self.bitwise(data),
            b"cmp" => self.compare(data),
            b"range" => self.range(data),
            b"lookup" => self.lookup(data),
            b"immediate" => self.immediate(data),
            b"match" => self.xtables_match(data),
            b"target" => self.xtables_target(data),
            _ => statement::render(name, data, self).map(|text| self.push(text)),
        };
        if done.is_none() {
            self.push(selector::unknown(name));
        }
    }

    fn push(&mut self, text: impl Into<String>) {
        let needs = std::mem::take(&mut self.implied);
        self.items.push(Item { text: text.into(), is: None, needs, lower_bound: None });
    }

    fn condition(&mut self, selector: &Selector, text: String) {
        self.imply(&selector.needs);
        self.push(text);
    }

    /// Remembers conditions that the next piece implies.
    pub(super) fn imply(&mut self, needs: &[Dependency]) {
        self.implied.extend(needs);
    }

    fn load(&mut self, register: Option<u32>, selector: Selector) -> Option<()> {
        self.registers.insert(slot(register?), Loaded::Plain(selector));
        Some(())
    }

    /// Returns what a register holds.
    pub(super) fn at(&self, register: Option<u32>) -> Option<&Loaded> {
        self.registers.get(&slot(register?))
    }

    /// Returns the family of the rule's table, NFPROTO_*.
    pub(super) fn family(&self) -> u8 {
        self.family
    }

    /// Returns the protocols that earlier conditions fixed.
    pub(super) fn layers(&self) -> Layers {
        self.layers
    }

    /// Returns the text of what a register holds, as a source of `set`, `dnat to` and the like.
    pub(super) fn source(&mut self, register: Option<u32>, datatype: Datatype) -> Option<String> {
        match self.at(register)?.clone() {
            Loaded::Plain(selector) => {
                self.imply(&selector.needs);
                Some(selector.name)
            }
            Loaded::Constant(value) => Some(self.value(datatype, &value)),
            Loaded::Masked { selector, mask, xor } => Some(arithmetic(&selector, &mask, &xor)),
        }
    }

    /// Returns a value's text, of an interface its name.
    fn value(&mut self, datatype: Datatype, value: &[u8]) -> String {
        let index = (datatype == Datatype::InterfaceIndex).then(|| host_number(value) as u32);
        match index.and_then(|index| self.ruleset.interface(index)) {
            Some(found) => super::datatype::quoted(found.as_bytes()),
            None => datatype.text(value),
        }
    }

    fn payload(&mut self, data: Attributes) -> Option<()> {
        let (base, offset, length) = (data.number(2)?, data.number(3)?, data.number(4)?);
        let selector = selector::payload(base, offset, length, self.layers);
        match data.number(5) {
            None => self.load(data.number(1), selector),
            Some(from) => self.assign(&selector, from),
        }
    }

    fn meta(&mut self, data: Attributes) -> Option<()> {
        let key = data.number(2)?;
        let selector = selector::meta(key);
        // NFT_META_SKUID, NFT_META_SKGID, NFT_META_CGROUP; NFT_META_PRANDOM and the times.
        self.result.by_identity |= matches!(key, 10 | 11 | 23);
        self.result.varies |= matches!(key, 24 | 30..=32);
        match data.number(3) {
            None => self.load(data.number(1), selector),
            Some(from) => {
                if let (3, Some(Loaded::Constant(mark))) = (key, self.at(Some(from))) {
                    self.result.mark = Some(host_number(mark) as u32);
                }
                self.assign(&selector, from)
            }
        }
    }

    fn ct(&mut self, data: Attributes) -> Option<()> {
        let direction = data.find(3).and_then(|bytes| bytes.first().copied());
        let selector = selector::ct(data.number(2)?, direction);
        match data.number(4) {
            None => self.load(data.number(1), selector),
            Some(from) => self.assign(&selector, from),
        }
    }

    fn extension_header(&mut self, data: Attributes) -> Option<()> {
        let selector = selector::extension_header(data)?;
        match (data.number(1), data.number(7)) {
            (Some(to), _) => self.load(Some(to), selector),
            (None, Some(from)) => self.assign(&selector, from),
            (None, None) => {
                self.push(format!("reset {}", selector.name));
                Some(())
            }
        }
    }

    fn other(&mut self, name: &[u8], data: Attributes, to: Option<u32>) -> Option<()> {
        let source = match name {
            b"hash" => {
                data.number(1).map(|from| self.concatenation(from, data.number(3).unwrap_or(4) as usize))
            }
            _ => None,
        };
        self.result.varies |= name == b"numgen";
        self.result.by_identity |= name == b"socket" && data.number(1) == Some(3);
        self.load(to, selector::other(name, data, &source.unwrap_or_default())?)
    }

    /// A number of the host's byte order is turned so that it can be compared with an interval.
    fn byte_order(&mut self, from: Option<u32>, to: Option<u32>) -> Option<()> {
        let mut loaded = self.at(from)?.clone();
        if let Loaded::Plain(selector) = &mut loaded
            && selector.datatype == Datatype::HostNumber
        {
            selector.datatype = Datatype::Number;
        }
        self.registers.insert(slot(to?), loaded);
        Some(())
    }

    fn assign(&mut self, selector: &Selector, from: u32) -> Option<()> {
        let source = self.source(Some(from), selector.datatype)?;
        self.condition(selector, format!("{} set {source}", selector.name));
        Some(())
    }

    fn bitwise(&mut self, data: Attributes) -> Option<()> {
        let Loaded::Plain(selector) = self.at(data.number(1))?.clone() else { return None };
        let to = slot(data.number(2)?);
        let loaded = match data.number(6).unwrap_or(0) {
            0 => Loaded::Masked { selector, mask: value(data.nested(4))?, xor: value(data.nested(5))? },
            shift => {
                let bits = value(data.nested(7)).map_or(0, |bits| host_number(&bits));
                let operator = if shift == 1 { "<<" } else { ">>" };
                let name = format!("{} {operator} {bits}", selector.name);
                Loaded::Plain(Selector { name, field: None, ..selector })
            }
        };
        self.registers.insert(to, loaded);
        Some(())
    }

    fn compare(&mut self, data: Attributes) -> Option<()> {
        let (how, bytes) = (data.number(2)?, value(data.nested(3))?);
        let operator = *OPERATORS.get(how as usize)?;
        match self.at(data.number(1))?.clone() {
            Loaded::Plain(selector) => self.compare_plain(&selector, how, operator, &bytes),
            Loaded::Masked { selector, mask, xor } => {
                let text = masked(&selector, &mask, &xor, how, operator, &bytes);
                self.condition(&selector, text);
            }
            Loaded::Constant(_) => return None,
        }
        Some(())
    }

    fn compare_plain(&mut self, selector: &Selector, how: u32, operator: &str, bytes: &[u8]) {
        let text = self.value(selector.datatype, bytes);
        if how == EQUAL {
            self.learn(selector, bytes);
        }
        let is = (how == EQUAL).then(|| dependency(selector, bytes)).flatten();
        let lower = self.items.last_mut().and_then(|last| last.lower_bound.take());
        if let (LESS_OR_EQUAL, Some((name, bound))) = (how, lower)
            && name == selector.name
        {
            self.items.pop();
            return self.condition(selector, format!("{name} {bound}-{text}"));
        }
        let lower_bound = (how == GREATER_OR_EQUAL).then(|| (selector.name.clone(), text.clone()));
        let operator = match (how, selector.datatype) {
            // nft tells a comparison of all flags from one of some.
            (EQUAL, Datatype::TcpFlags) => "== ",
            _ => operator,
        };
        let text = format!("{} {operator}{text}", selector.name);
        let needs = selector.needs.clone();
        self.items.push(Item { text, is, needs, lower_bound });
    }

    /// Remembers a protocol that a comparison fixes.
    fn learn(&mut self, selector: &Selector, bytes: &[u8]) {
        match dependency(selector, bytes).or_else(|| header_protocol(selector, bytes)) {
            Some(Dependency::Network(protocol)) => self.layers.network = Some(protocol),
            Some(Dependency::Transport(protocol)) => self.layers.transport = Some(protocol),
            _ => {}
        }
    }

    fn range(&mut self, data: Attributes) -> Option<()> {
        let (first, last) = (value(data.nested(3))?, value(data.nested(4))?);
        let Loaded::Plain(selector) = self.at(data.number(1))?.clone() else { return None };
        let operator = if data.number(2)? == NOT_EQUAL { "!= " } else { "" };
        let interval = selector.datatype.interval(&first, &last);
        let text = format!("{} {operator}{interval}", selector.name);
        self.condition(&selector, text);
        Some(())
    }

    fn lookup(&mut self, data: Attributes) -> Option<()> {
        let (name, from) = (data.name(1)?.to_vec(), data.number(2)?);
        let set = self.ruleset.set(&name).unwrap_or_default();
        let parts = self.parts(from, set.key_length());
        let datatypes: Vec<_> = parts.iter().map(|part| part.datatype).collect();
        let elements = if set.is_anonymous() { self.ruleset.elements(&name) } else { Vec::new() };
        let key = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(" . ");
        let members = set::text(&name, &set, &elements, &datatypes);
        self.note_element(&name, &set, elements, &parts);
        let inverted = if data.number(5).unwrap_or(0) & 1 != 0 { "!= " } else { "" };
        // NFT_REG_VERDICT.
        let (keyword, to) = match data.number(3) {
            Some(0) => ("vmap ", None),
            Some(to) => ("map ", Some(to)),
            None => ("", None),
        };
        let text = format!("{key} {inverted}{keyword}{members}");
        let needs: Vec<_> = parts.iter().flat_map(|part| part.needs.clone()).collect();
        match to {
            Some(to) => self.load(Some(to), Selector { needs, ..Selector::new(text, Datatype::Bytes) }),
            None => {
                self.imply(&needs);
                self.push(text);
                Some(())
            }
        }
    }

    /// Remembers the element that the packet's key meets.
    fn note_element(
        &mut self,
        name: &[u8],
        set: &set::SetDescription,
        elements: Vec<set::SetElement>,
        parts: &[Selector],
    ) {
        let Some(key) = self.headers.and_then(|headers| key_of(parts, headers)) else { return };
        let elements = if set.is_anonymous() { elements } else { self.ruleset.elements_at(name, &key) };
        let datatypes: Vec<_> = parts.iter().map(|part| part.datatype).collect();
        if let Some(element) = set::matching(set, &elements, &datatypes, &key) {
            let set = (!set.is_anonymous()).then(|| super::datatype::name(name));
            self.result.elements.push(MatchedElement { set, element });
        }
    }

    /// Returns what the registers of a key of this length hold.
    fn parts(&self, from: u32, length: usize) -> Vec<Selector> {
        let (first, slots) = (slot(from), length.div_ceil(4).max(1) as u32);
        let parts = self.registers.range(first..first.saturating_add(slots));
        parts
            .filter_map(|(_, loaded)| match loaded {
                Loaded::Plain(selector) => Some(selector.clone()),
                Loaded::Masked { selector, mask, xor } => {
                    let name = arithmetic(selector, mask, xor);
                    Some(Selector { name, field: None, ..selector.clone() })
                }
                Loaded::Constant(_) => None,
            })
            .collect()
    }

    /// Returns the names of what the registers of a key hold.
    pub(super) fn concatenation(&mut self, from: u32, length: usize) -> String {
        let parts = self.parts(from, length);
        parts.iter().for_each(|part| self.imply(&part.needs));
        parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(" . ")
    }

    /// Returns the length of a set's key, in bytes.
    pub(super) fn key_length(&mut self, set: &[u8]) -> usize {
        self.ruleset.set(set).map_or(4, |set| set.key_length())
    }

    fn immediate(&mut self, data: Attributes) -> Option<()> {
        match (data.number(1)?, data.nested(2).find(2)) {
            (_, Some(verdict)) => self.push(statement::verdict(Attributes(verdict))),
            (to, None) => {
                let value = value(data.nested(2))?;
                self.registers.insert(slot(to), Loaded::Constant(value));
            }
        }
        Some(())
    }

    fn xtables_match(&mut self, data: Attributes) -> Option<()> {
        let (name, info) = (data.name(1)?, data.find(3)?);
        let revision = data.number(2).unwrap_or(0);
        if name == b"comment" {
            self.result.comment = Some(super::datatype::name(info));
        }
        self.result.by_identity |= matches!(name, b"owner" | b"cgroup");
        self.result.varies |= xtables::varies(name);
        let text = xtables::match_text(name, revision, info, self.family == IPV6);
        if !text.is_empty() {
            self.push(text);
        }
        Some(())
    }

    fn xtables_target(&mut self, data: Attributes) -> Option<()> {
        let (name, info) = (data.name(1)?, data.find(3).unwrap_or_default());
        let target = xtables::target(name, data.number(2).unwrap_or(0), info, self.family == IPV6);
        self.result.rejects |= target.rejects;
        self.result.translates = self.result.translates.or(target.translates);
        self.result.queue = self.result.queue.or(target.queue);
        self.result.mark = self.result.mark.or(target.mark);
        self.push(target.text);
        Some(())
    }
}

impl Walk<'_> {
    /// Returns the texts of nested expressions: the limit or counter of an element that a rule adds.
    pub(super) fn nested(&mut self, list: Attributes) -> Vec<String> {
        let mut texts = Vec::new();
        for (_, expression) in list.filter(|(kind, _)| *kind == 1) {
            let expression = Attributes(expression);
            let Some(name) = expression.name(1) else { continue };
            let text = statement::render(name, expression.nested(2), self);
            texts.push(text.unwrap_or_else(|| selector::unknown(name)));
        }
        texts
    }
}

/// Returns the number of a register's first 4-byte slot: NFT_REG_1 to NFT_REG_4 are 16 bytes each.
fn slot(register: u32) -> u32 {
    match register {
        1..=4 => 8 + (register - 1) * 4,
        other => other,
    }
}

/// Returns NFTA_DATA_VALUE.
fn value(data: Attributes) -> Option<Vec<u8>> {
    data.find(1).map(<[u8]>::to_vec)
}

/// Returns the key that a packet's headers make of these fields; `None` if one is not the packet's own.
fn key_of(parts: &[Selector], headers: Headers) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    for (nth, part) in parts.iter().enumerate() {
        if nth > 0 {
            key.resize(key.len().next_multiple_of(4), 0);
        }
        key.extend(field_of(part.field?, headers)?);
    }
    Some(key).filter(|key| !key.is_empty())
}

fn field_of(field: Field, headers: Headers) -> Option<Vec<u8>> {
    let is_v4 = headers.network.first()? >> 4 == 4;
    Some(match field {
        Field::Payload { base, offset, length } => {
            let header = match base {
                1 => headers.network,
                2 => headers.transport,
                _ => return None,
            };
            let at = offset as usize;
            header.get(at..at.checked_add(length as usize)?)?.to_vec()
        }
        Field::TransportProtocol => vec![*headers.network.get(if is_v4 { 9 } else { 6 })?],
        Field::NetworkProtocol => vec![if is_v4 { IPV4 } else { IPV6 }],
    })
}
