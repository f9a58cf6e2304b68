//! Connections that this host translates, as its connection tracking (conntrack) lists them.
//!
//! The packets of such a connection carry an address and a port of this host, although no socket has them.
//! The messages are ctnetlink's (include/uapi/linux/netfilter/nfnetlink_conntrack.h). netkat sends none
//! where the kernel has no ctnetlink in memory, since a request would load the module.

use super::{
    netlink::{Netlink, NetlinkError},
    nfnetlink::{Attributes, Message, push, push_nested},
};
use crate::net::{FiveTuple, Protocol};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// NFNL_SUBSYS_CTNETLINK's IPCTNL_MSG_CT_GET.
const GET: u16 = 1 << 8 | 1;

/// Attributes of a connection, of a tuple, of its addresses and of its ports.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
}

/// A connection in conntrack's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    original: Tuple,
    reply: Tuple,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.original.source, self.original.destination);
        write!(f, "{from} -> {to}")?;
        if self.reply.source != to {
            write!(f, ", sent on to {}", self.reply.source)?;
        }
        if self.reply.destination != from {
            write!(f, ", masqueraded as {}", self.reply.destination)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Returns the end that answers the connection's first packet: the destination, after a translation.
    pub(crate) fn answers_from(&self) -> SocketAddr {
        self.reply.source
    }

    /// Returns the end that answers are sent to: the source, after a translation.
    pub(crate) fn answers_to(&self) -> SocketAddr {
        self.reply.destination
    }

    /// Returns whether addresses or ports are translated.
    fn is_translated(&self) -> bool {
        (self.original.source, self.original.destination) != (self.reply.destination, self.reply.source)
    }

    /// Reads the attributes of an IPCTNL_MSG_CT_NEW; `None` for protocols other than TCP and UDP.
    pub fn parse(attributes: &[u8]) -> Option<Connection> {
        let tuple = |kind| Tuple::parse(Attributes(attributes).nested(kind));
        Some(Connection { original: tuple(CTA_TUPLE_ORIG)?, reply: tuple(CTA_TUPLE_REPLY)? })
    }
}

impl Tuple {
    fn parse(attributes: Attributes) -> Option<Tuple> {
        let (ip, proto) = (attributes.nested(CTA_TUPLE_IP), attributes.nested(CTA_TUPLE_PROTO));
        let address = |v4, v6| match ip.find(v4) {
            Some(bytes) => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            None => Some(IpAddr::from(<[u8; 16]>::try_from(ip.find(v6)?).ok()?)),
        };
        let port = |kind| Some(u16::from_be_bytes(proto.find(kind)?.try_into().ok()?));
        Some(Tuple {
            protocol: *proto.find(CTA_PROTO_NUM)?.first()?,
            source: SocketAddr::new(address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)?),
            destination: SocketAddr::new(address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT)?),
        })
    }

    /// Returns the nested attributes that stand for the tuple.
    fn write(&self) -> Vec<u8> {
        let (mut ip, mut proto, mut tuple) = (Vec::new(), Vec::new(), Vec::new());
        let mut address = |address, v4, v6| match address {
            IpAddr::V4(a) => push(&mut ip, v4, &Ipv4Addr::octets(&a)),
            IpAddr::V6(a) => push(&mut ip, v6, &Ipv6Addr::octets(&a)),
        };
        address(self.source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC);
        address(self.destination.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST);
        push(&mut proto, CTA_PROTO_NUM, &[self.protocol]);
        push(&mut proto, CTA_PROTO_SRC_PORT, &self.source.port().to_be_bytes());
        push(&mut proto, CTA_PROTO_DST_PORT, &self.destination.port().to_be_bytes());
        push_nested(&mut tuple, CTA_TUPLE_IP, &ip);
        push_nested(&mut tuple, CTA_TUPLE_PROTO, &proto);
        tuple
    }
}

/// Returns the translated connection whose packets look like ours: from the tuple's remote end to its local
/// one.
///
/// # Errors
/// The kernel's, EPERM without CAP_NET_ADMIN. A kernel that does not track connections knows none, which is
/// no error.
pub(crate) fn translated_connection(ours: &FiveTuple) -> Result<Option<Connection>, NetlinkError> {
    let arriving = Tuple { protocol: ours.protocol.number(), source: ours.remote, destination: ours.local };
    Ok(get(arriving)?.filter(Connection::is_translated))
}

/// Returns conntrack's entry for a connection that this host opens, if there is one.
///
/// # Errors
/// As for [`translated_connection`].
pub(crate) fn opened_by(ours: &FiveTuple) -> Result<Option<Connection>, NetlinkError> {
    get(Tuple { protocol: ours.protocol.number(), source: ours.local, destination: ours.remote })
}

/// Returns the connection of which a tuple is one direction; the kernel finds it by either
/// (ctnetlink_get_conntrack).
fn get(tuple: Tuple) -> Result<Option<Connection>, NetlinkError> {
    let mut attributes = Vec::new();
    push_nested(&mut attributes, CTA_TUPLE_ORIG, &tuple.write());
    let mut found = None;
    match ask(tuple.source.ip(), attributes, NLM_F_ACK, |entry| found = Some(entry)) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
        result => result.map(|()| found),
    }
}

/// Returns a translated connection of whose packets some arrive at a port of ours at one of `addresses`.
///
/// # Errors
/// As for [`translated_connection`].
pub(crate) fn at_port(
    protocol: Protocol,
    addresses: &[IpAddr],
    port: u16,
) -> Result<Option<Connection>, NetlinkError> {
    let is_ours = |tuple: &Tuple| {
        tuple.protocol == protocol.number()
            && tuple.destination.port() == port
            && addresses.contains(&tuple.destination.ip())
    };
    let mut found = None;
    for family in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        if addresses.iter().any(|address| address.is_ipv4() == family.is_ipv4()) {
            ask(family, Vec::new(), NLM_F_DUMP, |entry| {
                if entry.is_translated() && (is_ours(&entry.original) || is_ours(&entry.reply)) {
                    found = Some(entry);
                }
            })?;
        }
    }
    Ok(found)
}

/// Returns whether ctnetlink is in memory, so that a request loads nothing. A module that is loaded has a
/// folder; where conntrack itself is built in, which shows by the lack of `initstate`, so is most likely
/// ctnetlink.
fn is_present() -> bool {
    let exists = |path: &str| Path::new(path).exists();
    exists("/proc/sys/net/netfilter/nf_conntrack_count")
        && (exists("/sys/module/nf_conntrack_netlink") || !exists("/sys/module/nf_conntrack/initstate"))
}

/// Asks ctnetlink for connections of an address's family, and hands each to `each`.
fn ask(
    family: IpAddr,
    attributes: Vec<u8>,
    flags: u16,
    mut each: impl FnMut(Connection),
) -> Result<(), NetlinkError> {
    if !is_present() {
        return Ok(());
    }
    let family = if family.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let request = Message { kind: GET, family, attributes };
    let mut netlink = Netlink::of(NETLINK_NETFILTER)?;
    netlink
        .stream(request, flags, |reply| Connection::parse(&reply.attributes).into_iter().for_each(&mut each))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(source: &str, destination: &str) -> Tuple {
        let at = |text: &str| text.parse().expect("an address and a port");
        Tuple { protocol: 6, source: at(source), destination: at(destination) }
    }

    /// The attributes of an answer; a mark comes first, as it may.
    fn attributes(original: &Tuple, reply: &Tuple) -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, 8, &[0, 0, 0, 1]);
        push_nested(&mut bytes, CTA_TUPLE_ORIG, &original.write());
        push_nested(&mut bytes, CTA_TUPLE_REPLY, &reply.write());
        bytes
    }

    #[test]
    fn translations_are_told_from_plain_connections() {
        let out = tuple("10.66.0.2:5000", "10.77.0.2:53");
        let masqueraded = tuple("10.77.0.2:53", "10.77.0.1:5000");
        let sent_on = tuple("[fd66::2]:80", "[fd77::2]:40000");
        let cases = [
            (out, masqueraded, "10.66.0.2:5000 -> 10.77.0.2:53, masqueraded as 10.77.0.1:5000"),
            (
                tuple("[fd77::2]:40000", "[fd77::1]:5000"),
                sent_on,
                "[fd77::2]:40000 -> [fd77::1]:5000, sent on to [fd66::2]:80",
            ),
        ];
        for (original, reply, words) in cases {
            let entry = Connection::parse(&attributes(&original, &reply)).expect("an entry");
            assert_eq!(entry, Connection { original, reply });
            assert!(entry.is_translated());
            assert_eq!(entry.to_string(), words);
        }
        let plain = Connection { original: out, reply: tuple("10.77.0.2:53", "10.66.0.2:5000") };
        assert!(!plain.is_translated());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let _ = Connection::parse(&bytes);
            bytes = attributes(&tuple("10.0.0.1:1", "10.0.0.2:2"), &tuple("10.0.0.2:2", "10.0.0.1:1"));
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = Connection::parse(&bytes);
        }
    }
}
