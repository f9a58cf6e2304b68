//! Parses ICMP errors (RFC 792, RFC 4443): the reason, the flow concerned, and what proves them
//! genuine.
//!
//! smoltcp's `Icmpv4Repr` knows neither the next hop's MTU (RFC 1191) nor a quotation that is cut
//! (RFC 792 quotes 8 bytes of the transport header), so this file reads the few fields itself.
use super::ip::{self, ICMP, ICMPV6};
use crate::net::zone::{ScopedIp, scoped, zone_of};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Length of the ICMP header before the quoted packet, in bytes.
const HEADER: usize = 8;

/// The reason of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A router has no route to the network.
    NetworkUnreachable,
    /// The last router cannot reach the host.
    HostUnreachable,
    /// The host does not have the transport protocol.
    ProtocolUnreachable,
    /// No socket is bound to the port.
    PortUnreachable,
    /// The packet exceeds the next link's MTU, in bytes (0 where an old router does not give it).
    PacketTooBig(u32),
    /// A firewall prohibits the packet (code 13 of ICMPv4, RFC 1812; code 1 of ICMPv6).
    AdministrativelyProhibited,
    /// Communication with the network is prohibited (ICMPv4 code 9).
    NetworkProhibited,
    /// Communication with the host is prohibited (ICMPv4 code 10).
    HostProhibited,
    /// The source address failed an ingress or egress policy (ICMPv6 code 5).
    PolicyFailed,
    /// The route to the destination is a reject route (ICMPv6 code 6).
    RejectRoute,
    /// The destination lies beyond the scope of the source address (ICMPv6 code 2).
    BeyondScope,
    /// The TTL or hop limit was exceeded in transit.
    HopLimitExceeded,
    /// The destination did not receive all fragments in time.
    ReassemblyTimeExceeded,
    /// A header field is erroneous.
    ParameterProblem,
    /// Any other code of destination unreachable.
    Unreachable(u8),
}

impl Reason {
    fn from_v4(kind: u8, code: u8, rest: u32) -> Option<Reason> {
        Some(match (kind, code) {
            (3, 0 | 6 | 11) => Reason::NetworkUnreachable,
            (3, 1 | 7 | 8 | 12) => Reason::HostUnreachable,
            (3, 2) => Reason::ProtocolUnreachable,
            (3, 3) => Reason::PortUnreachable,
            // The next-hop MTU is the low half of the second word (RFC 1191, section 4).
            (3, 4) => Reason::PacketTooBig(rest & 0xffff),
            (3, 9) => Reason::NetworkProhibited,
            (3, 10) => Reason::HostProhibited,
            (3, 13) => Reason::AdministrativelyProhibited,
            (3, code) => Reason::Unreachable(code),
            (11, 0) => Reason::HopLimitExceeded,
            (11, 1) => Reason::ReassemblyTimeExceeded,
            (12, _) => Reason::ParameterProblem,
            _ => return None,
        })
    }

    fn from_v6(kind: u8, code: u8, rest: u32) -> Option<Reason> {
        Some(match (kind, code) {
            (1, 0) => Reason::NetworkUnreachable,
            (1, 1) => Reason::AdministrativelyProhibited,
            (1, 2) => Reason::BeyondScope,
            (1, 3) => Reason::HostUnreachable,
            (1, 4) => Reason::PortUnreachable,
            (1, 5) => Reason::PolicyFailed,
            (1, 6) => Reason::RejectRoute,
            (1, code) => Reason::Unreachable(code),
            (2, _) => Reason::PacketTooBig(rest),
            (3, 0) => Reason::HopLimitExceeded,
            (3, 1) => Reason::ReassemblyTimeExceeded,
            (4, _) => Reason::ParameterProblem,
            _ => return None,
        })
    }
}

impl Reason {
    /// Returns whether Linux reports the error to a connected UDP socket at once (net/ipv4/icmp.c,
    /// icmp_err_convert; net/ipv6/icmp.c, icmpv6_err_convert). The other errors may be temporary,
    /// as with a flapping route.
    pub(crate) fn is_hard(self) -> bool {
        match self {
            Reason::NetworkUnreachable
            | Reason::HostUnreachable
            | Reason::BeyondScope
            | Reason::PacketTooBig(_)
            | Reason::HopLimitExceeded
            | Reason::ReassemblyTimeExceeded => false,
            Reason::ProtocolUnreachable
            | Reason::PortUnreachable
            | Reason::AdministrativelyProhibited
            | Reason::NetworkProhibited
            | Reason::HostProhibited
            | Reason::PolicyFailed
            | Reason::RejectRoute
            | Reason::ParameterProblem
            | Reason::Unreachable(_) => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NetworkUnreachable => "network unreachable",
            Reason::HostUnreachable => "host unreachable",
            Reason::ProtocolUnreachable => "protocol unreachable",
            Reason::PortUnreachable => "port unreachable",
            Reason::PacketTooBig(mtu) => return write!(f, "packet too big (MTU {mtu})"),
            Reason::AdministrativelyProhibited => "communication administratively prohibited",
            Reason::NetworkProhibited => "network administratively prohibited",
            Reason::HostProhibited => "host administratively prohibited",
            Reason::PolicyFailed => "source address failed ingress/egress policy",
            Reason::RejectRoute => "reject route to destination",
            Reason::BeyondScope => "beyond scope of source address",
            Reason::HopLimitExceeded => "time to live exceeded in transit",
            Reason::ReassemblyTimeExceeded => "fragment reassembly time exceeded",
            Reason::ParameterProblem => "parameter problem",
            Reason::Unreachable(code) => return write!(f, "destination unreachable (code {code})"),
        })
    }
}

/// Returns an ICMP error's reason in words, by its type and code.
pub(crate) fn words(v6: bool, kind: u8, code: u8) -> String {
    let reason = if v6 { Reason::from_v6(kind, code, 0) } else { Reason::from_v4(kind, code, 0) };
    reason.map_or_else(|| format!("type {kind}, code {code}"), |reason| reason.to_string())
}

/// An ICMP error about a packet that was sent from a local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The reason of the error.
    pub reason: Reason,
    /// The host or router that reports the error.
    pub from: IpAddr,
    /// The quoted packet's transport protocol number.
    pub protocol: u8,
    /// The quoted packet's source: the local endpoint.
    pub local: SocketAddr,
    /// The quoted packet's destination: the remote endpoint.
    pub remote: SocketAddr,
    /// The four bytes after the ports: TCP's sequence number. An error whose sequence number is not
    /// in flight is forged or stale (RFC 5927, section 4.1).
    pub sequence: u32,
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = zone_of(&self.local).unwrap_or_default();
        write!(f, "ICMP {} from {}", self.reason, ScopedIp::new(self.from, zone))
    }
}

/// Returns the reason of the ICMP error in a packet whose IP header is `header`, and the whole message. Returns `None` for
/// other messages, and for a wrong checksum.
pub(crate) fn reason<'p>(header: &ip::Header, packet: &'p [u8]) -> Option<(Reason, &'p [u8])> {
    let message = packet.get(header.transport..header.end)?;
    let head: &[u8; HEADER] = message.first_chunk()?;
    let rest = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let sum = match header.protocol {
        ICMP => crate::net::checksum::Sum::default(),
        ICMPV6 => ip::pseudo_header(header.source, header.destination, ICMPV6, message.len()),
        _ => return None,
    };
    if sum.add(message).checksum() != 0 {
        return None;
    }
    let reason = match header.protocol {
        ICMP => Reason::from_v4(head[0], head[1], rest)?,
        _ => Reason::from_v6(head[0], head[1], rest)?,
    };
    Some((reason, message))
}

/// Parses an ICMP error out of a packet whose IP header is `header`. Returns `None` for other
/// messages, and for errors that quote too little to identify the flow. `zone` is that of the
/// interface by which the error came.
pub(crate) fn parse(header: &ip::Header, packet: &[u8], zone: u32) -> Option<IcmpError> {
    let (reason, message) = reason(header, packet)?;
    let quoted = message.get(HEADER..)?;
    let inner = ip::parse(quoted, true).ok()?;
    // A later fragment carries no ports.
    if inner.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    let ports: &[u8; 8] = quoted.get(inner.transport..)?.first_chunk()?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some(IcmpError {
        reason,
        from: header.source,
        protocol: inner.protocol,
        local: scoped(inner.source, port(0), zone),
        remote: scoped(inner.destination, port(2), zone),
        sequence: u32::from_be_bytes([ports[4], ports[5], ports[6], ports[7]]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::checksum::Sum,
        stack::ip::{Fragmentation, TCP, Template},
    };
    use proptest::prelude::*;

    fn error(v6: bool, kind: u8, code: u8, rest: u32, quote: usize) -> Vec<u8> {
        let (ours, theirs, router): (IpAddr, IpAddr, IpAddr) = match v6 {
            false => ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 254].into()),
            true => ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), "fd00::fe".parse().unwrap()),
        };
        let flow = |source, destination, protocol| Template {
            source,
            destination,
            protocol,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        let mut inner = vec![0; 80];
        let len = flow(ours, theirs, TCP).write(20, 1, Fragmentation::Forbidden, &mut inner);
        inner[len..len + 8].copy_from_slice(&[0x9c, 0x40, 0, 80, 1, 2, 3, 4]);
        inner.truncate(len + quote);
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest.to_be_bytes());
        message.extend(inner);
        let protocol = if v6 { ICMPV6 } else { ICMP };
        let sum = match v6 {
            false => Sum::default(),
            true => ip::pseudo_header(router, ours, ICMPV6, message.len()),
        };
        let checksum = sum.add(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = vec![0; 40];
        let len = flow(router, ours, protocol).write(message.len(), 2, Fragmentation::Forbidden, &mut packet);
        packet.truncate(len);
        packet.extend(message);
        packet
    }

    fn read(packet: &[u8]) -> Option<IcmpError> {
        parse(&ip::parse(packet, false).ok()?, packet, 0)
    }

    #[test]
    fn errors_name_the_flow_and_the_reporter() {
        for (v6, kind, code, rest, reason) in [
            (false, 3, 3, 0, Reason::PortUnreachable),
            (false, 3, 13, 0, Reason::AdministrativelyProhibited),
            (false, 3, 4, 1400, Reason::PacketTooBig(1400)),
            (false, 11, 0, 0, Reason::HopLimitExceeded),
            (true, 1, 4, 0, Reason::PortUnreachable),
            (true, 1, 1, 0, Reason::AdministrativelyProhibited),
            (true, 2, 0, 1280, Reason::PacketTooBig(1280)),
        ] {
            let error = read(&error(v6, kind, code, rest, 8)).expect("a quoted flow");
            assert_eq!(error.reason, reason);
            assert_eq!((error.local.port(), error.remote.port()), (40000, 80));
            assert_eq!((error.protocol, error.sequence), (TCP, 0x0102_0304));
            assert!(error.from.to_string().ends_with(if v6 { "fe" } else { "254" }));
        }
    }

    #[test]
    fn too_short_a_quote_or_a_wrong_checksum_accuses_nobody() {
        assert_eq!(read(&error(false, 3, 3, 0, 7)), None);
        let mut forged = error(false, 3, 3, 0, 8);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(read(&forged), None);
    }

    #[test]
    fn other_messages_are_no_errors() {
        assert_eq!(read(&error(false, 8, 0, 0, 8)), None);
        assert_eq!(read(&error(true, 135, 0, 0, 8)), None);
    }

    proptest! {
        #[test]
        fn hostile_errors_do_not_panic(v6: bool, kind: u8, code: u8, quote in 0..20usize, flips in proptest::collection::vec((0..100usize, any::<u8>()), 0..4)) {
            let mut packet = error(v6, kind, code, 0, quote);
            for (at, value) in flips {
                let at = at % packet.len();
                packet[at] = value;
            }
            let _ = read(&packet);
        }
    }
}
