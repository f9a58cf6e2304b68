//! nf_tables' objects as data (linux/netfilter/nf_tables.h): chains, rules, expressions, sets.
//!
//! Names are the kernel's bytes, for further requests; `printable` makes them fit for
//! print.

mod reader;
mod walk;

use super::xtables::{Match, Target};
use crate::host::nfnetlink::{Attributes, until_zero};

pub(super) use reader::Reader;
pub use walk::{Ruleset, translation};

/// NFPROTO_INET (linux/netfilter.h).
pub const INET: u8 = 1;
/// NFPROTO_IPV4.
pub const IPV4: u8 = 2;
/// NFPROTO_IPV6.
pub(crate) const IPV6: u8 = 10;

/// NF_INET_PRE_ROUTING.
const PREROUTING: u32 = 0;
/// NFT_REG_VERDICT.
const VERDICT_REGISTER: u32 = 0;

/// A table of a family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// NFPROTO_*.
    pub family: u8,
    /// The table's name.
    pub name: Vec<u8>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The chain's table.
    pub table: Table,
    /// The chain's name.
    pub name: Vec<u8>,
    /// The hook of a base chain, NF_INET_*.
    pub hook: Option<u32>,
    /// "nat", "filter" or "route" for a base chain.
    pub kind: Vec<u8>,
}

impl Chain {
    /// Reads the attributes of an NFT_MSG_NEWCHAIN.
    pub fn parse(family: u8, attributes: &[u8]) -> Option<Chain> {
        let attributes = Attributes(attributes);
        Some(Chain {
            table: Table { family, name: attributes.name(1)?.to_vec() },
            name: attributes.name(3)?.to_vec(),
            hook: attributes.nested(4).number(1),
            kind: attributes.name(7).unwrap_or_default().to_vec(),
        })
    }

    /// Returns whether the chain translates destinations of new connections before routing.
    fn translates_arrivals(&self) -> bool {
        self.hook == Some(PREROUTING) && self.kind == b"nat"
    }
}

/// A rule of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The kernel's number of it.
    pub handle: u64,
    /// The steps, in order.
    pub expressions: Vec<Expression>,
    /// The comment in its user data.
    pub comment: Option<Vec<u8>>,
}

impl Rule {
    /// Reads the attributes of an NFT_MSG_NEWRULE.
    pub fn parse(family: u8, attributes: &[u8]) -> Rule {
        let attributes = Attributes(attributes);
        let handle = attributes.find(3).and_then(|bytes| bytes.first_chunk());
        let elements = attributes.nested(4).filter(|(kind, _)| *kind == 1);
        let expressions = elements.filter_map(|(_, element)| {
            let element = Attributes(element);
            Some(Expression::parse(family, element.name(1)?, element.nested(2)))
        });
        Rule {
            handle: handle.map_or(0, |bytes| u64::from_be_bytes(*bytes)),
            expressions: expressions.collect(),
            comment: attributes.find(7).and_then(comment),
        }
    }
}

/// Returns the comment in a rule's user data: type and length of a byte each, then the value (libnftnl's
/// udata.h; NFTNL_UDATA_RULE_COMMENT).
fn comment(mut data: &[u8]) -> Option<Vec<u8>> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(until_zero(value).to_vec());
        }
        data = rest.get(value.len()..)?;
    }
    None
}

/// A verdict (enum nft_verdicts).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next rule follows.
    Continue,
    /// Accept, drop or queue: the base chain ends.
    Terminal,
    /// The calling chain goes on.
    Return,
    /// A chain follows, then the next rule.
    Jump(Vec<u8>),
    /// A chain follows, then the calling chain.
    Goto(Vec<u8>),
}

impl Verdict {
    fn parse(attributes: Attributes) -> Option<Verdict> {
        let chain = || attributes.name(2).unwrap_or_default().to_vec();
        // enum nft_verdicts; NF_DROP, NF_ACCEPT and NF_QUEUE are not negative.
        Some(match attributes.number(1)?.cast_signed() {
            -1 | -2 => Verdict::Continue,
            -3 => Verdict::Jump(chain()),
            -4 => Verdict::Goto(chain()),
            -5 => Verdict::Return,
            _ => Verdict::Terminal,
        })
    }
}

/// A comparison of two byte strings (enum nft_cmp_ops).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A step of a rule: nf_tables' expressions with their attributes. Registers have the kernel's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names and fields are nf_tables' own")]
pub enum Expression {
    Meta {
        key: u32,
        to: u32,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        to: u32,
    },
    Bitwise {
        from: u32,
        to: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Compare {
        register: u32,
        how: Comparison,
        data: Vec<u8>,
    },
    Range {
        register: u32,
        inverted: bool,
        first: Vec<u8>,
        last: Vec<u8>,
    },
    Lookup {
        set: Vec<u8>,
        from: u32,
        to: Option<u32>,
        inverted: bool,
    },
    Immediate {
        to: u32,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    /// Looks up the routing table; `result` and `flags` are NFT_FIB_RESULT_* and NFTA_FIB_F_*.
    Fib {
        result: u32,
        flags: u32,
        to: u32,
    },
    /// Translates the destination of a family's packets to the content of these registers.
    DestinationNat {
        family: u8,
        address: Option<u32>,
        port: Option<u32>,
    },
    Redirect {
        port: Option<u32>,
    },
    Match(Match),
    Target(Target),
    /// Loads what is unknown of a packet that has not arrived.
    Load {
        to: u32,
    },
    /// A condition that some packets pass.
    Condition(Vec<u8>),
    /// Counts, logs or marks, without effect on the packet's destination.
    Statement,
}

impl Expression {
    fn parse(family: u8, name: &[u8], data: Attributes) -> Expression {
        let known = match name {
            b"meta" => Self::meta(data),
            b"payload" => Self::payload(data),
            b"bitwise" => Self::bitwise(data),
            b"cmp" => Self::compare(data),
            b"range" => Self::range(data),
            b"lookup" => Self::lookup(data),
            b"immediate" => Self::immediate(data),
            b"fib" => Self::fib(data),
            b"nat" => Self::nat(data),
            b"redir" => Some(Expression::Redirect { port: data.number(1) }),
            b"match" => data.name(1).map(|name| {
                Expression::Match(Match::parse(name, revision(data), data.find(3).unwrap_or_default()))
            }),
            b"target" => data.name(1).map(|name| {
                let info = data.find(3).unwrap_or_default();
                Expression::Target(Target::parse(name, revision(data), info, family == IPV6))
            }),
            b"counter" | b"log" | b"last" | b"notrack" | b"masq" | b"flow_offload" => {
                Some(Expression::Statement)
            }
            b"ct" | b"exthdr" | b"rt" | b"numgen" | b"osf" | b"xfrm" => {
                Some(data.number(1).map_or(Expression::Statement, |to| Expression::Load { to }))
            }
            b"hash" | b"socket" | b"tunnel" | b"byteorder" => {
                data.number(2).map(|to| Expression::Load { to })
            }
            b"reject" | b"tproxy" | b"queue" | b"synproxy" | b"fwd" => {
                Some(Expression::Verdict(Verdict::Terminal))
            }
            _ => None,
        };
        known.unwrap_or_else(|| Expression::Condition(name.to_vec()))
    }

    fn meta(data: Attributes) -> Option<Expression> {
        let load = data.number(1).map(|to| Expression::Meta { key: data.number(2).unwrap_or(u32::MAX), to });
        Some(load.unwrap_or(Expression::Statement))
    }

    fn payload(data: Attributes) -> Option<Expression> {
        let Some(to) = data.number(1) else { return Some(Expression::Statement) };
        let (base, offset, length) = (data.number(2)?, data.number(3)?, data.number(4)?);
        Some(Expression::Payload { base, offset, length, to })
    }

    fn bitwise(data: Attributes) -> Option<Expression> {
        let to = data.number(2)?;
        // NFT_BITWISE_MASK_XOR. The result of shifts, and of registers as operands (Linux 6.13), is unknown.
        let boolean = data.number(6).unwrap_or(0) == 0;
        let operands = value(data.nested(4)).zip(value(data.nested(5))).filter(|_| boolean);
        Some(match operands {
            Some((mask, xor)) => Expression::Bitwise { from: data.number(1)?, to, mask, xor },
            None => Expression::Load { to },
        })
    }

    fn compare(data: Attributes) -> Option<Expression> {
        let how = match data.number(2)? {
            0 => Comparison::Equal,
            1 => Comparison::NotEqual,
            2 => Comparison::Less,
            3 => Comparison::LessOrEqual,
            4 => Comparison::Greater,
            5 => Comparison::GreaterOrEqual,
            _ => return None,
        };
        Some(Expression::Compare { register: data.number(1)?, how, data: value(data.nested(3))? })
    }

    fn range(data: Attributes) -> Option<Expression> {
        let (first, last) = (value(data.nested(3))?, value(data.nested(4))?);
        Some(Expression::Range { register: data.number(1)?, inverted: data.number(2)? == 1, first, last })
    }

    fn lookup(data: Attributes) -> Option<Expression> {
        let inverted = data.number(5).unwrap_or(0) & 1 != 0;
        Some(Expression::Lookup {
            set: data.name(1)?.to_vec(),
            from: data.number(2)?,
            to: data.number(3),
            inverted,
        })
    }

    fn immediate(data: Attributes) -> Option<Expression> {
        Some(match data.number(1)? {
            VERDICT_REGISTER => Expression::Verdict(Verdict::parse(data.nested(2).nested(2))?),
            to => Expression::Immediate { to, data: value(data.nested(2))? },
        })
    }

    fn fib(data: Attributes) -> Option<Expression> {
        Some(Expression::Fib { to: data.number(1)?, result: data.number(2)?, flags: data.number(3)? })
    }

    fn nat(data: Attributes) -> Option<Expression> {
        // NFT_NAT_DNAT.
        Some(match data.number(1)? {
            1 => Expression::DestinationNat {
                family: data.number(2)?.try_into().ok()?,
                address: data.number(3),
                port: data.number(5),
            },
            _ => Expression::Statement,
        })
    }
}

/// Returns NFTA_*_REV of an xtables extension, which is below 256.
fn revision(data: Attributes) -> u8 {
    data.number(2).and_then(|number| number.try_into().ok()).unwrap_or(u8::MAX)
}

/// Returns NFTA_DATA_VALUE.
fn value(data: Attributes) -> Option<Vec<u8>> {
    data.find(1).map(<[u8]>::to_vec)
}

/// A set or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Length of a key, in bytes.
    pub key_length: usize,
    /// NFT_SET_*.
    pub flags: u32,
}

impl Set {
    /// Reads name and description from the attributes of an NFT_MSG_NEWSET.
    pub fn parse(attributes: &[u8]) -> Option<(Vec<u8>, Set)> {
        let attributes = Attributes(attributes);
        let set =
            Set { key_length: attributes.number(5)? as usize, flags: attributes.number(3).unwrap_or(0) };
        Some((attributes.name(2)?.to_vec(), set))
    }

    fn is_map(&self) -> bool {
        self.flags & 0x8 != 0
    }

    fn is_anonymous(&self) -> bool {
        self.flags & 0x1 != 0
    }
}

/// The value of a map's element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A verdict, in a verdict map.
    Verdict(Verdict),
    /// Data.
    Bytes(Vec<u8>),
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The key; empty for the catch-all element.
    pub key: Vec<u8>,
    /// The last key of a range, in a set of concatenations.
    pub key_end: Option<Vec<u8>>,
    /// The element is the first key after an interval, which an interval set lists as an element of its own.
    pub ends_interval: bool,
    /// The value, in a map.
    pub value: Option<Value>,
}

impl Element {
    /// Reads the elements in the attributes of an NFT_MSG_NEWSETELEM.
    pub fn parse_all(attributes: &[u8]) -> impl Iterator<Item = Element> {
        let elements = Attributes(attributes).nested(3).filter(|(kind, _)| *kind == 1);
        elements.map(|(_, element)| {
            let element = Attributes(element);
            let data = element.nested(2);
            let verdict = data.find(2).and_then(|inner| Verdict::parse(Attributes(inner)));
            Element {
                key: value(element.nested(1)).unwrap_or_default(),
                key_end: value(element.nested(10)),
                ends_interval: element.number(3).unwrap_or(0) & 1 != 0,
                value: verdict.map(Value::Verdict).or_else(|| value(data).map(Value::Bytes)),
            }
        })
    }
}
