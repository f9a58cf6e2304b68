//! Decodes the headers of a frame.
//!
//! Theory of operation: a cursor walks the headers from the outside in, and one reader per protocol
//! takes its header from it. A read fails with a [`Problem`] where the frame, the capture or an
//! enclosing length field ends early, so pnet_packet's getters (fixed offsets, no checks beyond the
//! minimum size) only see whole headers. [`decode`] keeps everything up to the first problem and
//! reports both. A packet in a tunnel (`tunnel`) is decoded in the same way, within the tunnel's bounds.
//! All values are owned and of fixed size: decoding allocates for packets in tunnels only.
mod arp;
mod cursor;
mod headers;
mod icmp;
mod ip;
mod link;
mod nflog;
mod ppp;
mod problem;
mod tcp;
mod tunnel;
mod udp;

use arrayvec::ArrayVec;

use self::cursor::Cursor;
pub(crate) use self::headers::{Arp, Icmp, LinkLayer, QuotedPacket, TcpOptions, TunnelledPacket, Udp};
pub use self::headers::{DecodedFrame, Ip, Network, Tcp, Transport};
pub(crate) use self::problem::Problem;
pub(crate) use self::tunnel::Tunnel;
use super::frame::CapturedFrame;
use crate::{
    link::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    net::ip_protocol::{ICMP, ICMPV6, TCP, UDP},
};

/// Bytes of a frame in several pieces that are joined for decoding: enough for every header chain
/// seen in practice (link header, tags, IPv6 extension headers, TCP with options).
const JOINED: usize = 1024;

/// Tunnels in one another that are followed. Four are plenty in practice (a pod's packet in VXLAN in
/// IPsec's or a provider's tunnel); a forged packet can nest as far as its length allows.
const MAX_TUNNELS: usize = 8;

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
    let mut decoded = DecodedFrame::unread();
    decoded.link.vlan.extend(frame.vlan);
    let start = link::Start { link_type: frame.link_type, ethertype: frame.ethertype };
    read(&mut cursor, start, &mut decoded, 0);
    decoded
}

/// Reads all headers from `start` on into `decoded`, as far as they can be read. `tunnels` are around
/// them.
fn read(cursor: &mut Cursor<'_>, start: link::Start, decoded: &mut DecodedFrame, tunnels: usize) {
    let tunnel = read_packet(cursor, start, decoded)
        .and_then(|ethertype| tunnel::read(cursor, &decoded.network, ethertype));
    match tunnel {
        Ok(Some((tunnel, start))) => {
            let packet = read_tunnelled(cursor, start, tunnels + 1);
            decoded.inner = Some(Box::new(TunnelledPacket { tunnel, packet }));
        }
        Ok(None) => {}
        Err(problem) => {
            decoded.problem.get_or_insert(problem);
        }
    }
    decoded.payload = cursor.rest();
}

/// Reads the packet in a tunnel; `None` for a format that the decoder does not know.
fn read_tunnelled(cursor: &mut Cursor<'_>, start: Option<link::Start>, tunnels: usize) -> DecodedFrame {
    let mut packet = DecodedFrame::unread();
    match start {
        Some(_) if tunnels > MAX_TUNNELS => packet.problem = Some(Problem::Nesting(MAX_TUNNELS)),
        Some(start) => {
            read(cursor, start, &mut packet, tunnels);
            return packet;
        }
        None => packet.network = Network::Unknown,
    }
    packet.payload = cursor.rest();
    packet
}

/// Reads the headers of one packet into `decoded`, layer by layer, up to its payload. Returns the
/// EtherType.
fn read_packet(
    cursor: &mut Cursor<'_>,
    start: link::Start,
    decoded: &mut DecodedFrame,
) -> Result<Option<u16>, Problem> {
    let ethertype = link::read(cursor, start, &mut decoded.link)?;
    decoded.network = match ethertype {
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
    Ok(ethertype)
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
