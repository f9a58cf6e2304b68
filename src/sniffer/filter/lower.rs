//! Turns primitives into tests of bytes (libpcap's gencode.c).
mod host;
mod relation;

use super::{
    condition::{
        Condition,
        Size::{Byte, Half, Word},
    },
    error::Fault,
    layout::Layout,
    program::extension,
    syntax::{Connective, Direction, IpVersion, Node, Primitive},
    words::{ethertype, sap},
};
use crate::net::{
    MacAddr,
    ip_protocol::{FRAGMENT, TCP, UDP},
};
use std::borrow::Cow;

const SCTP: u8 = 132;
/// The bits of IPv4's fragment offset.
const OFFSET: u32 = 0x1fff;
/// Length of an IPv6 header.
const IP6_HEADER: u32 = 40;

/// Returns the condition of an expression. Moves the layout on past tags and labels.
pub(super) fn lower(node: &Node, layout: &mut Layout) -> Result<Condition, Fault> {
    match node {
        Node::Not(node) => Ok(lower(node, layout)?.not()),
        Node::Chain(operands) => {
            let mut conditions = Vec::with_capacity(operands.len());
            for (connective, node) in joined(operands) {
                conditions.push((connective, lower(&node, layout)?));
            }
            Ok(Condition::Chain(conditions))
        }
        Node::Primitive(primitive, place) => {
            primitive.lower(layout).map_err(|message| Fault::new(place, message))
        }
    }
}

/// Joins hosts, and ports, that follow each other with `or`: `port 80 or 443` reads each port once.
fn joined(operands: &[(Connective, Node)]) -> Vec<(Connective, Cow<'_, Node>)> {
    let mut joined: Vec<(Connective, Cow<'_, Node>)> = Vec::with_capacity(operands.len());
    for (connective, node) in operands {
        let first = joined.len() == 1;
        if *connective == Connective::Or
            && let Some((before, last)) = joined.last_mut()
            && (first || *before == Connective::Or)
            && let (Node::Primitive(..), Node::Primitive(primitive, _)) = (&**last, node)
            && let Node::Primitive(earlier, _) = last.to_mut()
            && earlier.join(primitive)
        {
            continue;
        }
        joined.push((*connective, Cow::Borrowed(node)));
    }
    joined
}

impl Primitive {
    fn lower(&self, layout: &mut Layout) -> Result<Condition, String> {
        match self {
            Primitive::LinkProtocol(number) => layout.is_protocol(*number),
            Primitive::IpProtocol(number, family) => ip_protocol(layout, *number, *family),
            Primitive::OsiProtocol(number) => Ok(Condition::all([
                layout.is_protocol(sap::ISO)?,
                Condition::equal(Byte, layout.osi(0), *number),
            ])),
            Primitive::Host { scope, direction, addresses } => {
                host::lower(layout, *scope, *direction, addresses)
            }
            Primitive::EtherHost { direction, mac } => ethernet(layout, |layout| {
                let end = |at| is_mac(layout, at, *mac);
                Ok(ends(*direction, end(6), end(0)))
            }),
            Primitive::Ports { protocol, direction, ranges } => ports(layout, *protocol, *direction, ranges),
            Primitive::EtherBroadcast => ethernet(layout, |layout| Ok(is_mac(layout, 0, MacAddr::BROADCAST))),
            Primitive::EtherMulticast => {
                ethernet(layout, |layout| Ok(Condition::any_bit(Byte, layout.header, 1)))
            }
            Primitive::IpBroadcast => {
                let (at, hosts) = (layout.network(16), !layout.netmask);
                let either =
                    [Condition::masked(Word, at, hosts, 0), Condition::masked(Word, at, hosts, hosts)];
                Ok(Condition::all([layout.is_protocol(ethertype::IP)?, Condition::any(either)]))
            }
            Primitive::IpMulticast(IpVersion::V4) => Ok(Condition::all([
                layout.is_protocol(ethertype::IP)?,
                Condition::at_least(Byte, layout.network(16), 224),
            ])),
            Primitive::IpMulticast(IpVersion::V6) => Ok(Condition::all([
                layout.is_protocol(ethertype::IP6)?,
                Condition::equal(Byte, layout.network(24), 255),
            ])),
            Primitive::Relation { left, relation, right } => relation::lower(layout, left, *relation, right),
            Primitive::Outbound(outbound) => {
                let sent = extension(libc::SKF_AD_PKTTYPE);
                let sent = Condition::equal(Word, sent, libc::PACKET_OUTGOING.into());
                Ok(if *outbound { sent } else { sent.not() })
            }
            Primitive::InterfaceIndex(index) => match layout.interface_index() {
                Some(at) => Ok(Condition::equal(Word, at, *index)),
                None => layout.lacks("frames of a file do not tell the index of their interface"),
            },
            Primitive::Vlan(identifier) => layout.enter_vlan(*identifier),
            Primitive::Mpls(label) => layout.enter_mpls(*label),
            Primitive::PppoeSession(session) => layout.enter_pppoe(*session),
        }
    }
}

/// Tests one end of a packet, either or both.
fn ends(direction: Direction, source: Condition, destination: Condition) -> Condition {
    match direction {
        Direction::Source => source,
        Direction::Destination => destination,
        Direction::Either => Condition::any([source, destination]),
        Direction::Both => Condition::all([source, destination]),
    }
}

fn ethernet(
    layout: &Layout,
    test: impl FnOnce(&Layout) -> Result<Condition, String>,
) -> Result<Condition, String> {
    if layout.has_ethernet_addresses() {
        return test(layout);
    }
    layout.lacks("there are no Ethernet addresses")
}

fn is_mac(layout: &Layout, at: u32, MacAddr([a, b, c, d, e, f]): MacAddr) -> Condition {
    Condition::all([
        Condition::equal(Word, layout.header + at + 2, u32::from_be_bytes([c, d, e, f])),
        Condition::equal(Half, layout.header + at, u32::from_be_bytes([0, 0, a, b])),
    ])
}

/// Tests the protocol above IP; in IPv6 also behind a fragment header.
fn ip_protocol(layout: &Layout, number: u32, family: Option<IpVersion>) -> Result<Condition, String> {
    let v4 = || {
        Ok(Condition::all([
            layout.is_protocol(ethertype::IP)?,
            Condition::equal(Byte, layout.network(9), number),
        ]))
    };
    let v6 = || {
        let next = layout.network(6);
        let fragment = [
            Condition::equal(Byte, next, FRAGMENT.into()),
            Condition::equal(Byte, layout.network(IP6_HEADER), number),
        ];
        let either = [Condition::equal(Byte, next, number), Condition::all(fragment)];
        Ok(Condition::all([layout.is_protocol(ethertype::IP6)?, Condition::any(either)]))
    };
    match family {
        Some(IpVersion::V4) => v4(),
        Some(IpVersion::V6) => v6(),
        None => Ok(Condition::any([v4()?, v6()?])),
    }
}

/// Tests the ports of TCP, UDP and SCTP; of IPv4 not in later fragments, of IPv6 only without extension
/// headers.
fn ports(
    layout: &Layout,
    protocol: Option<u32>,
    direction: Direction,
    ranges: &[(u16, u16)],
) -> Result<Condition, String> {
    let is_transport = |at| {
        let numbers = match protocol {
            Some(number) => vec![number],
            None => [SCTP, TCP, UDP].map(u32::from).to_vec(),
        };
        Condition::any(numbers.into_iter().map(|number| Condition::equal(Byte, at, number)))
    };
    let at = |place: &dyn Fn(u32) -> Place| {
        let range = |at, (first, last): (u16, u16)| place(at).is_within(first.into(), last.into());
        let end = |at| Condition::any(ranges.iter().map(|ports| range(at, *ports)));
        ends(direction, end(0), end(2))
    };
    let ip6 = Condition::all([
        layout.is_protocol(ethertype::IP6)?,
        is_transport(layout.network(6)),
        at(&|at| Place::Fixed(layout.network(IP6_HEADER + at))),
    ]);
    let ip = Condition::all([
        layout.is_protocol(ethertype::IP)?,
        is_transport(layout.network(9)),
        Condition::any_bit(Half, layout.network(6), OFFSET).not(),
        at(&|at| Place::BehindIp(layout.network(0), layout.network(at))),
    ]);
    Ok(Condition::any([ip6, ip]))
}

/// The place of a port.
enum Place {
    Fixed(u32),
    /// Behind an IPv4 header: the header's place, and the port's if the header had no length.
    BehindIp(u32, u32),
}

impl Place {
    fn is_within(&self, first: u32, last: u32) -> Condition {
        use super::program::code;
        let compare = |jump: u16, constant| {
            let statements = match *self {
                Place::Fixed(at) => vec![(code::LD | code::ABS | code::H, at)],
                Place::BehindIp(header, at) => {
                    vec![(code::LDX | code::MSH | code::B, header), (code::LD | code::IND | code::H, at)]
                }
            };
            Condition::Test { statements, jump: jump | code::K, constant }
        };
        if first == last {
            return compare(code::JEQ, first);
        }
        Condition::all([compare(code::JGE, first), compare(code::JGT, last).not()])
    }
}
