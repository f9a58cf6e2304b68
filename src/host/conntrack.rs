//! Connections that this host translates, as its connection tracking (conntrack) knows them.
//!
//! The packets of such a connection carry an address and a port of this host, although no socket has them. The
//! questions are ctnetlink's (include/uapi/linux/netfilter/nfnetlink_conntrack.h). They are asked where the kernel
//! has the answer: a question alone would make it load the module.

use crate::net::{FiveTuple, Protocol};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr as KernelAddress, protocols::NETLINK_NETFILTER};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::TimeVal,
    },
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// IPCTNL_MSG_CT_GET of NFNL_SUBSYS_CTNETLINK, as a netlink message's type.
const GET: u16 = 1 << 8 | 1;
/// Each answer, with its tuples, is an IPCTNL_MSG_CT_NEW.
const NEW: u16 = 1 << 8;
/// Length of a netlink message's header, and of the `struct nfgenmsg` behind it, in bytes.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

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
const NLA_F_NESTED: u16 = 1 << 15;
/// An attribute's kind without its flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// What to do about a kernel that says nothing, in seconds: it answers from its own tables within microseconds.
const ANSWER_TIMEOUT: i64 = 5;

/// One direction of a connection: who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
}

/// A connection that conntrack knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    original: Tuple,
    reply: Tuple,
}

impl fmt::Display for Entry {
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

impl Entry {
    /// Whether addresses or ports are translated.
    fn is_translated(&self) -> bool {
        (self.original.source, self.original.destination) != (self.reply.destination, self.reply.source)
    }

    /// Reads a message's attributes, behind its `struct nfgenmsg`; `None` for what is neither TCP nor UDP.
    fn parse(attributes: &[u8]) -> Option<Entry> {
        let tuple = |kind| Tuple::parse(find(attributes, kind)?);
        Some(Entry { original: tuple(CTA_TUPLE_ORIG)?, reply: tuple(CTA_TUPLE_REPLY)? })
    }
}

impl Tuple {
    fn parse(attributes: &[u8]) -> Option<Tuple> {
        let (ip, proto) = (find(attributes, CTA_TUPLE_IP)?, find(attributes, CTA_TUPLE_PROTO)?);
        let address = |v4, v6| match find(ip, v4) {
            Some(bytes) => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            None => Some(IpAddr::from(<[u8; 16]>::try_from(find(ip, v6)?).ok()?)),
        };
        let port = |kind| Some(u16::from_be_bytes(find(proto, kind)?.try_into().ok()?));
        Some(Tuple {
            protocol: *find(proto, CTA_PROTO_NUM)?.first()?,
            source: SocketAddr::new(address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)?),
            destination: SocketAddr::new(address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT)?),
        })
    }

    /// The nested attributes that stand for it.
    fn write(&self) -> Vec<u8> {
        let address = |ip, v4, v6| match ip {
            IpAddr::V4(a) => attribute(v4, &Ipv4Addr::octets(&a)),
            IpAddr::V6(a) => attribute(v6, &Ipv6Addr::octets(&a)),
        };
        let ip = [
            address(self.source.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC),
            address(self.destination.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST),
        ];
        let proto = [
            attribute(CTA_PROTO_NUM, &[self.protocol]),
            attribute(CTA_PROTO_SRC_PORT, &self.source.port().to_be_bytes()),
            attribute(CTA_PROTO_DST_PORT, &self.destination.port().to_be_bytes()),
        ];
        let nested = |kind, inner: Vec<u8>| attribute(kind | NLA_F_NESTED, &inner);
        [nested(CTA_TUPLE_IP, ip.concat()), nested(CTA_TUPLE_PROTO, proto.concat())].concat()
    }
}

/// An attribute with its header, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // Ours are short.
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    // An iterator of the crate's own buffers can't lend their bytes; lengths are checked by it all the same.
    let mut at = 0;
    for nla in NlasIterator::new(attributes) {
        let nla = nla.ok()?;
        let length = usize::from(nla.length());
        if nla.kind() & NLA_TYPE_MASK == kind {
            return attributes.get(at + 4..at + length);
        }
        at += length.next_multiple_of(4);
    }
    None
}

/// The translated connection whose packets look like ours: from the tuple's remote end to its local one.
///
/// # Errors
/// The kernel's, EPERM without CAP_NET_ADMIN. A kernel that does not track connections knows none, which is no error.
pub fn twin(ours: &FiveTuple) -> io::Result<Option<Entry>> {
    let arriving = Tuple { protocol: ours.protocol.number(), source: ours.remote, destination: ours.local };
    let question = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, &arriving.write());
    let mut found = None;
    // The kernel finds a connection by either of its directions (ctnetlink_get_conntrack).
    match ask(ours.local.ip(), &question, NLM_F_ACK, &mut |entry| found = Some(entry)) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        result => result.map(|()| found.filter(Entry::is_translated)),
    }
}

/// A translated connection of whose packets some come to a port of ours at one of `addresses`.
///
/// # Errors
/// As for [`twin`].
pub fn at_port(protocol: Protocol, addresses: &[IpAddr], port: u16) -> io::Result<Option<Entry>> {
    let is_ours = |tuple: &Tuple| {
        tuple.protocol == protocol.number()
            && tuple.destination.port() == port
            && addresses.contains(&tuple.destination.ip())
    };
    let mut found = None;
    for family in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        if addresses.iter().any(|address| address.is_ipv4() == family.is_ipv4()) {
            ask(family, &[], NLM_F_DUMP, &mut |entry| {
                if entry.is_translated() && (is_ours(&entry.original) || is_ours(&entry.reply)) {
                    found = Some(entry);
                }
            })?;
        }
    }
    Ok(found)
}

/// Whether asking loads nothing: ctnetlink is there. A module that is loaded has a folder; where conntrack itself is
/// built in, which shows by the lack of `initstate`, so is most likely ctnetlink.
fn is_there() -> bool {
    let exists = |path: &str| Path::new(path).exists();
    exists("/proc/sys/net/netfilter/nf_conntrack_count")
        && (exists("/sys/module/nf_conntrack_netlink") || !exists("/sys/module/nf_conntrack/initstate"))
}

/// Asks ctnetlink for connections of an address's family, and shows each to `take`.
fn ask(family: IpAddr, question: &[u8], flags: u16, take: &mut dyn FnMut(Entry)) -> io::Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&KernelAddress::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT, 0))?;
    let family = if family.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = vec![0; HEADER];
    request.extend([family as u8, 0, 0, 0]);
    request.extend(question);
    let length = request.len() as u32;
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(length);
    header.set_message_type(GET);
    header.set_flags(NLM_F_REQUEST | flags);
    header.set_sequence_number(1);
    socket.send(&request, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if take_in(&datagram, take)? {
            return Ok(());
        }
    }
}

/// Takes in one datagram of an answer, and shows its connections to `take`; `true`: the answer is complete.
///
/// # Errors
/// The kernel's, or `InvalidData` for a message that is cut short.
pub fn take_in(datagram: &[u8], take: &mut dyn FnMut(Entry)) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let length = message.length() as usize;
        let body = rest.get(HEADER..length).unwrap_or_default();
        match message.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return if code == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(code.saturating_neg()))
                };
            }
            NEW => body.get(FAMILY_HEADER..).and_then(Entry::parse).into_iter().for_each(&mut *take),
            _ => {}
        }
        // Messages are aligned to four bytes (netlink(7)); the last one's padding may be cut.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(source: &str, destination: &str) -> Tuple {
        let at = |text: &str| text.parse().expect("an address and a port");
        Tuple { protocol: 6, source: at(source), destination: at(destination) }
    }

    fn message(original: &Tuple, reply: &Tuple) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + FAMILY_HEADER];
        // A mark comes first, as it may.
        bytes.extend(attribute(8, &[0, 0, 0, 1]));
        bytes.extend(attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, &original.write()));
        bytes.extend(attribute(CTA_TUPLE_REPLY | NLA_F_NESTED, &reply.write()));
        let length = bytes.len() as u32;
        let mut header = NetlinkBuffer::new(&mut bytes);
        header.set_length(length);
        header.set_message_type(NEW);
        bytes
    }

    fn read(datagram: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        assert!(!take_in(datagram, &mut |entry| entries.push(entry)).expect("readable"));
        entries
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
        let datagram: Vec<u8> =
            cases.iter().flat_map(|(original, reply, _)| message(original, reply)).collect();
        let entries = read(&datagram);
        assert_eq!(entries.len(), 2);
        for (entry, (original, reply, words)) in entries.iter().zip(cases) {
            assert_eq!(*entry, Entry { original, reply });
            assert!(entry.is_translated());
            assert_eq!(entry.to_string(), words);
        }
        let plain = Entry { original: out, reply: tuple("10.77.0.2:53", "10.66.0.2:5000") };
        assert!(!plain.is_translated());
    }

    #[test]
    fn the_end_of_an_answer_is_told() {
        let end = |kind: u16, code: i32| {
            let mut bytes = vec![0; HEADER];
            bytes.extend(code.to_ne_bytes());
            let length = bytes.len() as u32;
            let mut header = NetlinkBuffer::new(&mut bytes);
            header.set_length(length);
            header.set_message_type(kind);
            take_in(&bytes, &mut |_| {}).map_err(|error| error.raw_os_error())
        };
        assert_eq!(end(NLMSG_DONE, 0), Ok(true));
        assert_eq!(end(NLMSG_ERROR, 0), Ok(true));
        assert_eq!(end(NLMSG_ERROR, -2), Err(Some(2)));
        assert_eq!(end(NLMSG_ERROR, i32::MIN), Err(Some(i32::MAX)));
        assert!(take_in(&[4, 0, 0, 0], &mut |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let _ = take_in(&bytes, &mut |_| {});
            bytes = message(&tuple("10.0.0.1:1", "10.0.0.2:2"), &tuple("10.0.0.2:2", "10.0.0.1:1"));
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = take_in(&bytes, &mut |_| {});
        }
    }
}
