//! Sets and maps as text, and the element that a packet's key meets.
use super::datatype::Datatype;
use super::statement::verdict;
use crate::host::nfnetlink::Attributes;

/// Maximum elements of an anonymous set that are printed.
const PRINTED: usize = 6;
/// NFT_SET_ANONYMOUS, NFT_SET_INTERVAL, NFT_SET_MAP (enum nft_set_flags).
const ANONYMOUS: u32 = 0x1;
const INTERVAL: u32 = 0x4;
/// Bits of one type in the number of a concatenation (nftables' TYPE_BITS).
const TYPE_BITS: u32 = 6;

/// The description of a set (NFT_MSG_NEWSET).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetDescription {
    flags: u32,
    key_type: u32,
    key_length: usize,
    data_type: u32,
}

impl SetDescription {
    /// Reads the attributes of an NFT_MSG_NEWSET.
    pub(crate) fn parse(attributes: &[u8]) -> SetDescription {
        let attributes = Attributes(attributes);
        let number = |kind| attributes.number(kind).unwrap_or(0);
        SetDescription {
            flags: number(3),
            key_type: number(4),
            key_length: number(5) as usize,
            data_type: number(6),
        }
    }

    /// Returns the length of a key, in bytes.
    pub(crate) fn key_length(&self) -> usize {
        self.key_length
    }

    /// Returns whether the set belongs to one rule, which then prints its elements.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.flags & ANONYMOUS != 0
    }

    /// Returns the types of the parts of a key.
    fn key_types(&self) -> Vec<Datatype> {
        types(self.key_type)
    }
}

/// An element of a set or map (NFTA_SET_ELEM_*).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetElement {
    key: Vec<u8>,
    /// The last key of an interval, in a set of concatenations.
    key_end: Option<Vec<u8>>,
    /// The first key after an interval, which an interval set lists as an element of its own.
    ends_interval: bool,
    is_catch_all: bool,
    data: Option<Data>,
}

/// The value of a map's element.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    Verdict(String),
    Value(Vec<u8>),
    Object(String),
}

impl SetElement {
    /// Reads the elements in the attributes of an NFT_MSG_NEWSETELEM.
    pub(crate) fn parse_all(attributes: &[u8]) -> impl Iterator<Item = SetElement> {
        let elements = Attributes(attributes).nested(3).filter(|(kind, _)| *kind == 1);
        elements.map(|(_, element)| {
            let element = Attributes(element);
            let data = element.nested(2);
            let flags = element.number(3).unwrap_or(0);
            let value = |kind| element.nested(kind).find(1).map(<[u8]>::to_vec);
            let object = || element.name(8).map(|name| Data::Object(super::datatype::quoted(name)));
            SetElement {
                key: value(1).unwrap_or_default(),
                key_end: value(10),
                ends_interval: flags & 1 != 0,
                is_catch_all: flags & 2 != 0,
                data: (data.find(2).map(|inner| Data::Verdict(verdict(Attributes(inner)))))
                    .or_else(|| data.find(1).map(|value| Data::Value(value.to_vec())))
                    .or_else(object),
            }
        })
    }
}

/// Returns the elements in braces, or `@NAME` for a named set.
pub(super) fn text(
    name: &[u8],
    set: &SetDescription,
    elements: &[SetElement],
    selectors: &[Datatype],
) -> String {
    if !set.is_anonymous() {
        return format!("@{}", super::datatype::name(name));
    }
    let all = printed(set, elements, selectors);
    let more = match all.len().checked_sub(PRINTED) {
        Some(more @ 1..) => format!(", … {more} more"),
        _ => String::new(),
    };
    format!("{{ {}{more} }}", all.into_iter().take(PRINTED).collect::<Vec<_>>().join(", "))
}

/// Returns the element whose interval holds a key, as text.
pub(super) fn matching(
    set: &SetDescription,
    elements: &[SetElement],
    selectors: &[Datatype],
    key: &[u8],
) -> Option<String> {
    let found = intervals(set, elements)
        .into_iter()
        .find(|(element, last)| !element.is_catch_all && within(key, &element.key, last, selectors, set));
    let catch_all = || elements.iter().find(|element| element.is_catch_all).map(|e| (e, e.key.clone()));
    let (element, last) = found.or_else(catch_all)?;
    Some(element_text(set, element, &last, selectors))
}

fn printed(set: &SetDescription, elements: &[SetElement], selectors: &[Datatype]) -> Vec<String> {
    let all = intervals(set, elements);
    all.iter().map(|(element, last)| element_text(set, element, last, selectors)).collect()
}

/// Returns each element with the last key that it holds.
fn intervals<'a>(set: &SetDescription, elements: &'a [SetElement]) -> Vec<(&'a SetElement, Vec<u8>)> {
    let mut sorted: Vec<_> = elements.iter().collect();
    let is_tree = set.flags & INTERVAL != 0 && elements.iter().all(|element| element.key_end.is_none());
    // An interval's end sorts before the beginning of the next one at the same key.
    sorted.sort_by_key(|element| (element.is_catch_all, &element.key, !element.ends_interval));
    let mut all = Vec::new();
    for (at, element) in sorted.iter().enumerate() {
        if element.ends_interval {
            continue;
        }
        let next = sorted.get(at + 1).filter(|_| is_tree && !element.is_catch_all);
        let last = match (next, &element.key_end) {
            (Some(end), _) if !end.is_catch_all => before(&end.key),
            (_, Some(end)) => end.clone(),
            // The interval reaches to the end of all keys.
            _ if is_tree && !element.is_catch_all => vec![0xff; element.key.len()],
            _ => element.key.clone(),
        };
        all.push((*element, last));
    }
    all
}

/// Returns the key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    key
}

fn within(key: &[u8], first: &[u8], last: &[u8], selectors: &[Datatype], set: &SetDescription) -> bool {
    let whole = [(0, key.len())];
    let parts = parts(key.len(), selectors, set);
    let parts = if parts.len() > 1 { &parts[..] } else { &whole[..] };
    parts.iter().all(|(at, length)| {
        let part = |bytes: &[u8]| bytes.get(*at..at + length).map(<[u8]>::to_vec);
        match (part(first), part(key), part(last)) {
            (Some(first), Some(key), Some(last)) => first <= key && key <= last,
            _ => false,
        }
    })
}

/// Returns offset and length of each part of a key; parts are aligned to 4 bytes.
fn parts(length: usize, selectors: &[Datatype], set: &SetDescription) -> Vec<(usize, usize)> {
    let known = set.key_types();
    let mut at = 0;
    let mut parts = Vec::new();
    for (nth, selector) in selectors.iter().enumerate() {
        let size = selector.length().or_else(|| known.get(nth).and_then(|datatype| datatype.length()));
        let size = size.unwrap_or(length.saturating_sub(at)).min(length.saturating_sub(at));
        parts.push((at, size));
        at += size.next_multiple_of(4);
    }
    parts
}

fn element_text(set: &SetDescription, element: &SetElement, last: &[u8], selectors: &[Datatype]) -> String {
    let known = set.key_types();
    // The rule's own selectors know more than the set: numbers of the host's byte order, say.
    let types = if selectors.is_empty() { &known[..] } else { selectors };
    let key = if element.is_catch_all { "*".into() } else { key_text(set, &element.key, last, types) };
    match &element.data {
        None => key,
        Some(Data::Verdict(text) | Data::Object(text)) => format!("{key} : {text}"),
        Some(Data::Value(value)) => {
            let types = types_of(set.data_type, value.len());
            format!("{key} : {}", value_text(value, value, &types))
        }
    }
}

fn key_text(set: &SetDescription, first: &[u8], last: &[u8], types: &[Datatype]) -> String {
    let parts = parts(first.len(), types, set);
    value_text_of(first, last, types, &parts)
}

fn value_text(first: &[u8], last: &[u8], types: &[Datatype]) -> String {
    let parts = parts(first.len(), types, &SetDescription::default());
    value_text_of(first, last, types, &parts)
}

fn value_text_of(first: &[u8], last: &[u8], types: &[Datatype], parts: &[(usize, usize)]) -> String {
    let texts = types.iter().zip(parts).map(|(datatype, (at, length))| {
        let part = |bytes: &[u8]| bytes.get(*at..at + length).unwrap_or_default().to_vec();
        datatype.interval(&part(first), &part(last))
    });
    texts.collect::<Vec<_>>().join(" . ")
}

/// Returns the parts of a concatenation's type number, the first one in its upper bits.
fn types(number: u32) -> Vec<Datatype> {
    let mut parts = Vec::new();
    let mut rest = number;
    while rest != 0 {
        parts.insert(0, Datatype::of_set(rest & ((1 << TYPE_BITS) - 1)));
        rest >>= TYPE_BITS;
    }
    parts
}

fn types_of(number: u32, length: usize) -> Vec<Datatype> {
    let known = types(number);
    match (known.is_empty(), length) {
        (false, _) => known,
        (true, 4) => vec![Datatype::HostNumber],
        (true, _) => vec![Datatype::Bytes],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(key: &[u8], end: bool) -> SetElement {
        SetElement { key: key.to_vec(), ends_interval: end, ..SetElement::default() }
    }

    #[test]
    fn intervals_of_a_tree_are_joined() {
        let set = SetDescription { flags: 5, key_type: 13, key_length: 2, data_type: 0 };
        let all = [
            element(&[0, 91], true),
            element(&[0, 80], false),
            element(&[0, 22], false),
            element(&[0, 23], true),
            element(&[0xff, 0], false),
        ];
        let text = text(b"__set0", &set, &all, &[Datatype::Service]);
        assert_eq!(text, "{ 22, 80-90, 65280-65535 }");
        let find = |port: u16| matching(&set, &all, &[Datatype::Service], &port.to_be_bytes());
        assert_eq!(find(85).as_deref(), Some("80-90"));
        assert_eq!(find(79), None);
    }

    #[test]
    fn a_catch_all_element_is_the_last_resort() {
        let set = SetDescription { flags: 0x8, key_type: 13, key_length: 2, data_type: 0 };
        let drop = |key: &[u8], is_catch_all, verdict: &str| SetElement {
            key: key.to_vec(),
            is_catch_all,
            data: Some(Data::Verdict(verdict.into())),
            ..SetElement::default()
        };
        let all = [drop(&[], true, "drop"), drop(&[0, 22], false, "accept")];
        let find = |port: u16| matching(&set, &all, &[Datatype::Service], &port.to_be_bytes());
        assert_eq!(find(22).as_deref(), Some("22 : accept"));
        assert_eq!(find(23).as_deref(), Some("* : drop"));
    }

    #[test]
    fn a_named_set_is_named() {
        assert_eq!(text(b"bl\x1b", &SetDescription::default(), &[], &[]), "@bl\u{fffd}");
    }
}
