//! The tree of an expression.
use super::error::FilterError;
use crate::{host::resolve::Family, net::MacAddr};
use std::{
    net::{IpAddr, Ipv6Addr},
    ops::Range,
};

/// A part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Operands from left to right; `and` and `or` have equal precedence. The first one's connective
    /// means nothing.
    Chain(Vec<(Connective, Node)>),
    Not(Box<Node>),
    Primitive(Primitive, Range<usize>),
}

/// A version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connective {
    And,
    Or,
}

/// A test of a packet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Primitive {
    /// `ether proto N`, and `ip`, `arp` and other protocols above the link.
    LinkProtocol(u32),
    /// `proto N`, `ip proto N`, `ip6 proto N`, and `tcp` and other protocols above IP.
    IpProtocol(u32, Option<IpVersion>),
    /// `isis` and other protocols of the OSI network layer.
    OsiProtocol(u32),
    Host {
        scope: Scope,
        direction: Direction,
        addresses: Addresses,
    },
    EtherHost {
        direction: Direction,
        mac: MacAddr,
    },
    /// Ranges of ports, of one protocol or of TCP, UDP and SCTP.
    Ports {
        protocol: Option<u32>,
        direction: Direction,
        ranges: Vec<(u16, u16)>,
    },
    EtherBroadcast,
    IpBroadcast,
    EtherMulticast,
    IpMulticast(IpVersion),
    Relation {
        left: Value,
        relation: Relation,
        right: Value,
    },
    Outbound(bool),
    InterfaceIndex(u32),
    Vlan(Option<u32>),
    Mpls(Option<u32>),
    PppoeSession(Option<u32>),
}

/// The headers whose addresses `host` and `net` compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// IP, IPv6, ARP and RARP.
    All,
    Ip,
    Arp,
    Rarp,
    Ip6,
}

impl Scope {
    /// Returns the only family of addresses that the headers have.
    pub(super) fn family(self) -> Option<Family> {
        match self {
            Scope::All => None,
            Scope::Ip | Scope::Arp | Scope::Rarp => Some(Family::V4),
            Scope::Ip6 => Some(Family::V6),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Direction {
    Source,
    Destination,
    #[default]
    Either,
    Both,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Addresses {
    /// A host's name, not looked up.
    Name(String),
    Networks(Vec<Network>),
}

/// A network, or a host as the network of its one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    V4 { address: u32, mask: u32 },
    V6 { address: Ipv6Addr, prefix: u32 },
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        match address {
            IpAddr::V4(v4) => Network::V4 { address: v4.into(), mask: u32::MAX },
            IpAddr::V6(address) => Network::V6 { address, prefix: 128 },
        }
    }
}

/// A protocol that is a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub word: &'static str,
    pub layer: Layer,
}

/// The layer of a protocol, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Link,
    /// An EtherType; a number up to 255 is a service access point of IEEE 802.2.
    Ethertype(u32),
    /// A protocol above IP, or above one version of it.
    Transport(u32, Option<IpVersion>),
    Osi(u32),
}

/// An arithmetic expression, of 32-bit numbers without sign.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(u32),
    /// Length of the packet on the wire.
    Length,
    /// `size` bytes of a protocol's header.
    Load {
        protocol: Protocol,
        index: Box<Value>,
        size: u32,
        place: Range<usize>,
    },
    Negated(Box<Value>),
    Calculated(Box<Value>, Operator, Box<Value>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Network {
    fn is_host(&self) -> bool {
        matches!(self, Network::V4 { mask: u32::MAX, .. } | Network::V6 { prefix: 128, .. })
    }
}

impl Primitive {
    /// Takes up `other`, if one test can decide whether this or `other` is satisfied. libpcap's optimizer
    /// joins the same ones: hosts and single ports.
    pub(super) fn join(&mut self, other: &Primitive) -> bool {
        match (self, other) {
            (
                Primitive::Host { scope, direction, addresses: Addresses::Networks(networks) },
                Primitive::Host {
                    scope: scope2,
                    direction: direction2,
                    addresses: Addresses::Networks(more),
                },
            ) if (*scope, *direction) == (*scope2, *direction2)
                && *direction != Direction::Both
                && networks.iter().chain(more).all(Network::is_host) =>
            {
                networks.extend(more);
                true
            }
            (
                Primitive::Ports { protocol, direction, ranges },
                Primitive::Ports { protocol: protocol2, direction: direction2, ranges: more },
            ) if (*protocol, *direction) == (*protocol2, *direction2)
                && *direction != Direction::Both
                && ranges.iter().chain(more).all(|(first, last)| first == last) =>
            {
                ranges.extend(more);
                true
            }
            _ => false,
        }
    }
}

impl Node {
    /// Applies `change` to every primitive, from left to right.
    pub(super) fn for_each_mut(
        &mut self,
        change: &mut impl FnMut(&mut Primitive) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        match self {
            Node::Chain(operands) => operands.iter_mut().try_for_each(|(_, node)| node.for_each_mut(change)),
            Node::Not(node) => node.for_each_mut(change),
            Node::Primitive(primitive, _) => change(primitive),
        }
    }

    /// Returns whether a primitive satisfies `wanted`.
    pub(super) fn any(&self, wanted: &impl Fn(&Primitive) -> bool) -> bool {
        match self {
            Node::Chain(operands) => operands.iter().any(|(_, node)| node.any(wanted)),
            Node::Not(node) => node.any(wanted),
            Node::Primitive(primitive, _) => wanted(primitive),
        }
    }
}
