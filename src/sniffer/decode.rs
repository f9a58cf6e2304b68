//! Decodes the headers of a frame.
//!
//! Theory of operation: a cursor walks the headers from the outside in, and one reader per protocol
//! takes its header from it. A read fails with a [`Problem`] where the frame, the capture or an
//! enclosing length field ends early, so pnet_packet's getters (fixed offsets, no checks beyond the
//! minimum size) only see whole headers. [`decode`] keeps everything up to the first problem and
//! reports both. All values are owned and of fixed size: decoding does not allocate.
mod arp;
mod cursor;
mod headers;
mod icmp;
mod ip;
mod link;
mod problem;
mod tcp;
mod udp;

use arrayvec::ArrayVec;

use self::cursor::Cursor;
pub use self::{
    headers::{
        Arp, DecodedFrame, FragmentPosition, Icmp, Ip, LinkLayer, Network, QuotedPacket, Tcp, TcpOptions,
        Transport, Udp,
    },
    problem::Problem,
};
use super::frame::CapturedFrame;
use crate::{
    link::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    net::ip_protocol::{ICMP, ICMPV6, TCP, UDP},
};

/// Bytes of a frame in several pieces that are joined for decoding: enough for every header chain
/// seen in practice (link header, tags, IPv6 extension headers, TCP with options).
const JOINED: usize = 1024;

/// Decodes the headers of a frame.
pub fn decode(frame: &CapturedFrame<'_>) -> DecodedFrame {
    let [first, rest @ ..] = frame.data;
    let mut joined = ArrayVec::<u8, JOINED>::new();
    let bytes = if rest.iter().all(|piece| piece.is_empty()) {
        first
    } else {
        for piece in frame.data {
            joined.extend(piece.iter().copied().take(joined.remaining_capacity()));
        }
        &joined
    };
    let captured = frame.captured();
    let mut cursor = Cursor::new(bytes, captured, frame.length.max(captured));
    let mut decoded = DecodedFrame {
        link: LinkLayer::default(),
        network: Network::Malformed,
        payload: captured..captured,
        problem: None,
    };
    if let Err(problem) = read(&mut cursor, frame, &mut decoded) {
        decoded.problem.get_or_insert(problem);
    }
    decoded.payload = cursor.rest();
    decoded
}

/// Reads the headers into `decoded`, layer by layer.
fn read(
    cursor: &mut Cursor<'_>,
    frame: &CapturedFrame<'_>,
    decoded: &mut DecodedFrame,
) -> Result<(), Problem> {
    decoded.network = match link::read(cursor, frame, &mut decoded.link)? {
        Some(ETHERTYPE_ARP) => Network::Arp(arp::read(cursor)?),
        Some(ethertype @ (ETHERTYPE_IPV4 | ETHERTYPE_IPV6)) => {
            let ip::IpHeader { mut ip, problem, complete } = ip::read(cursor, ethertype)?;
            decoded.problem = problem;
            if complete {
                let (transport, problem) = read_transport(cursor, &ip);
                ip.transport = transport;
                decoded.problem = decoded.problem.or(problem);
            }
            Network::Ip(ip)
        }
        _ => Network::Unknown,
    };
    Ok(())
}

/// Reads the transport header of an IP packet as far as it has one. Returns the first problem
/// beside it.
fn read_transport(cursor: &mut Cursor<'_>, ip: &Ip) -> (Transport, Option<Problem>) {
    if matches!(ip.protocol, TCP | UDP | ICMP | ICMPV6) && ip.is_later_fragment() {
        return (Transport::Fragment, None);
    }
    let transport = match ip.protocol {
        TCP => return tcp::read(cursor, ip),
        UDP => udp::read(cursor, ip).map(|(udp, problem)| (Transport::Udp(udp), problem)),
        ICMP => icmp::read_v4(cursor).map(|icmp| (Transport::Icmp(icmp), None)),
        ICMPV6 => icmp::read_v6(cursor).map(|icmp| (Transport::Icmp(icmp), None)),
        _ => Ok((Transport::Unknown, None)),
    };
    transport.unwrap_or_else(|problem| (Transport::Malformed { ports: None }, Some(problem)))
}
