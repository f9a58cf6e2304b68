//! TCP with its options, UDP, ICMP and ICMPv6.
use std::net::Ipv6Addr;

use pnet_packet::{
    ethernet::EtherTypes,
    icmp::IcmpPacket,
    icmpv6::Icmpv6Packet,
    tcp::{TcpOptionNumbers, TcpPacket},
    udp::UdpPacket,
};

use super::{
    Decoder, Icmp, Ip, Problem, Quoted, Tcp, TcpOptions, Transport, Udp,
    cursor::Cursor,
    network,
    protocol::{ICMP, ICMPV6, TCP, UDP},
};

/// Every ICMP message has eight bytes before what it carries or quotes (RFC 792, RFC 4443).
const ICMP_HEADER: usize = 8;

impl Decoder<'_> {
    /// Reads the transport header of a packet, as far as it has one; and what is wrong with it.
    pub(super) fn transport(&mut self, ip: &Ip) -> (Transport, Option<Problem>) {
        let known = matches!(ip.protocol, TCP | UDP | ICMP | ICMPV6);
        if known && ip.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return (Transport::Fragment, None);
        }
        let transport = match ip.protocol {
            TCP => return self.tcp(ip),
            UDP => self.udp(ip),
            ICMP => icmp(&mut self.cursor).map(Transport::Icmp),
            ICMPV6 => icmpv6(&mut self.cursor).map(Transport::Icmp),
            _ => Ok(Transport::Unknown),
        };
        transport
            .map_or_else(|problem| (Transport::Malformed { ports: None }, Some(problem)), |read| (read, None))
    }

    fn tcp(&mut self, ip: &Ip) -> (Transport, Option<Problem>) {
        let need = TcpPacket::minimum_packet_size();
        let tcp = match self.cursor.packet("tcp header", need, TcpPacket::new) {
            Ok(tcp) => tcp,
            Err(problem) => return (Transport::Malformed { ports: ports(&self.cursor) }, Some(problem)),
        };
        let malformed = Transport::Malformed { ports: Some((tcp.get_source(), tcp.get_destination())) };
        let words = tcp.get_data_offset();
        if words < 5 {
            return (malformed, Some(Problem::TcpDataOffset(words)));
        }
        let offset = usize::from(words) * 4;
        let length = self.cursor.remaining();
        // A first fragment may end within the header; that much of it is read.
        let more = ip.fragment.is_some_and(|fragment| fragment.more);
        if offset > length && !more {
            return (malformed, Some(Problem::TcpHeaderTooLong { offset, length }));
        }
        // The options up to where the header is cut are worth having.
        let cut = self.cursor.peek("tcp header", offset).err();
        let (options, problem) = options(self.cursor.available(offset).get(need..).unwrap_or_default());
        let problem = cut.or(problem);
        self.cursor.skip(offset);
        let tcp = Tcp {
            source: tcp.get_source(),
            destination: tcp.get_destination(),
            sequence: tcp.get_sequence(),
            acknowledgement: tcp.get_acknowledgement(),
            flags: tcp.get_flags(),
            window: tcp.get_window(),
            checksum: tcp.get_checksum(),
            options,
            length: ip.length.saturating_sub(offset),
        };
        (Transport::Tcp(tcp), problem)
    }

    fn udp(&mut self, ip: &Ip) -> Result<Transport, Problem> {
        let need = UdpPacket::minimum_packet_size();
        let udp = self.cursor.packet("udp header", need, UdpPacket::new)?;
        self.cursor.skip(need);
        let stated = usize::from(udp.get_length());
        // A first fragment's length is the whole datagram's; zero is a jumbogram's (RFC 2675, section 4).
        let length = if ip.fragment.is_some() || stated == 0 { ip.length } else { stated };
        if length < need {
            self.decoded.problem.get_or_insert(Problem::TooSmall { field: "udp length", value: length });
        } else if length > ip.length {
            self.decoded.problem.get_or_insert(Problem::TooLong {
                field: "udp length",
                value: length,
                length: ip.length,
            });
        }
        let length = length.min(ip.length).saturating_sub(need);
        self.cursor.narrow(length);
        Ok(Transport::Udp(Udp {
            source: udp.get_source(),
            destination: udp.get_destination(),
            checksum: udp.get_checksum(),
            length,
        }))
    }
}

/// Source and destination port, which TCP and UDP have in the same place.
fn ports(cursor: &Cursor<'_>) -> Option<(u16, u16)> {
    let bytes = cursor.peek("ports", 4).ok()?;
    let &[a, b, c, d] = bytes else { return None };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Reads TCP options (RFC 9293, section 3.1) up to the end, or to the first that can't be.
fn options(mut bytes: &[u8]) -> (TcpOptions, Option<Problem>) {
    let mut options = TcpOptions::default();
    while let [kind, rest @ ..] = bytes {
        let kind = *kind;
        if kind == TcpOptionNumbers::EOL.0 {
            break;
        }
        if kind == TcpOptionNumbers::NOP.0 {
            bytes = rest;
            continue;
        }
        let length = rest.first().copied().unwrap_or_default();
        let value = bytes.get(2..usize::from(length));
        if value.and_then(|value| options.read(kind, value)).is_none() {
            return (options, Some(Problem::TcpOption { kind, length }));
        }
        bytes = bytes.get(usize::from(length)..).unwrap_or_default();
    }
    (options, None)
}

impl TcpOptions {
    /// Takes in one option; `None` if its kind can't have a value of this length.
    fn read(&mut self, kind: u8, value: &[u8]) -> Option<()> {
        match kind {
            kind if kind == TcpOptionNumbers::MSS.0 => {
                self.mss = Some(u16::from_be_bytes(value.try_into().ok()?));
            }
            kind if kind == TcpOptionNumbers::WSCALE.0 => {
                let &[shift] = value else { return None };
                self.window_scale = Some(shift);
            }
            kind if kind == TcpOptionNumbers::SACK_PERMITTED.0 => {
                self.sack_permitted = value.is_empty();
                return value.is_empty().then_some(());
            }
            kind if kind == TcpOptionNumbers::SACK.0 => {
                let (blocks, odd) = value.as_chunks::<8>();
                if !odd.is_empty() || blocks.is_empty() {
                    return None;
                }
                for &[a, b, c, d, e, f, g, h] in blocks {
                    let block = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                    self.sack.try_push(block).ok()?;
                }
            }
            kind if kind == TcpOptionNumbers::TIMESTAMPS.0 => {
                let &[a, b, c, d, e, f, g, h] = value else { return None };
                self.timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
            }
            kind => self.others.try_push(kind).ok()?,
        }
        Some(())
    }
}

fn icmp(cursor: &mut Cursor<'_>) -> Result<Icmp, Problem> {
    let icmp = cursor.packet("icmp header", ICMP_HEADER, IcmpPacket::new)?;
    let bytes = cursor.take("icmp header", ICMP_HEADER)?;
    let (kind, code) = (icmp.get_icmp_type().0, icmp.get_icmp_code().0);
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    let error = matches!(kind, 3 | 4 | 5 | 11 | 12);
    Ok(Icmp {
        kind,
        code,
        checksum: icmp.get_checksum(),
        target: None,
        mtu: tail(bytes).filter(|_| (kind, code) == (3, 4)).map(|tail| tail & 0xffff),
        quoted: error.then(|| quoted(*cursor, EtherTypes::Ipv4.0)).flatten(),
    })
}

fn icmpv6(cursor: &mut Cursor<'_>) -> Result<Icmp, Problem> {
    let icmp = cursor.packet("icmp header", ICMP_HEADER, Icmpv6Packet::new)?;
    let bytes = cursor.take("icmp header", ICMP_HEADER)?;
    let kind = icmp.get_icmpv6_type().0;
    // Destination unreachable, packet too big, time exceeded, parameter problem.
    let error = matches!(kind, 1..=4);
    let target = match kind {
        // Neighbour solicitation, neighbour advertisement, redirect.
        135..=137 => {
            let bytes: Option<[u8; 16]> = cursor.take("neighbor discovery target", 16)?.try_into().ok();
            bytes.map(Ipv6Addr::from)
        }
        _ => None,
    };
    Ok(Icmp {
        kind,
        code: icmp.get_icmpv6_code().0,
        checksum: icmp.get_checksum(),
        target,
        mtu: tail(bytes).filter(|_| kind == 2),
        quoted: error.then(|| quoted(*cursor, EtherTypes::Ipv6.0)).flatten(),
    })
}

/// The second word of an ICMP header.
fn tail(header: &[u8]) -> Option<u32> {
    header.last_chunk().map(|tail| u32::from_be_bytes(*tail))
}

/// What can be told of the packet that an ICMP error quotes; it usually is cut, so nothing is held against it.
fn quoted(mut cursor: Cursor<'_>, ethertype: u16) -> Option<Quoted> {
    let network::Header { ip, whole, .. } = network::header(&mut cursor, ethertype).ok()?;
    let first = whole && ip.fragment.is_none_or(|fragment| fragment.offset == 0);
    Some(Quoted {
        source: ip.source,
        destination: ip.destination,
        protocol: ip.protocol,
        ports: if first && matches!(ip.protocol, TCP | UDP) { ports(&cursor) } else { None },
    })
}
