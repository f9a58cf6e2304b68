//! ICMP errors with which the gateway answers the command, as a firewall's REJECT does: from the address that
//! the packet was for, since the command's kernel takes no packet from an address of its own.
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Outgoing},
    net::{
        checksum::Sum,
        ip_protocol::{ICMP, ICMPV6},
    },
    stack::ip::{self, Fragmentation, Header, Template},
};

/// Bytes of the offending packet that an error quotes: enough for headers, and within the smallest MTU.
const QUOTE: usize = 512;
const HOP_LIMIT: u8 = 64;

/// The reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The host uses the source port: "communication administratively prohibited" (RFC 1812, section 5.2.7.1).
    PortInUse,
    /// No route, or no neighbour.
    Unreachable,
    /// The packet exceeds the path's MTU, in bytes.
    TooBig(u32),
}

impl Refusal {
    /// Returns type, code and second word of the ICMP header.
    fn code(self, v4: bool) -> (u8, u8, u32) {
        match (self, v4) {
            (Refusal::PortInUse, true) => (3, 13, 0),
            (Refusal::PortInUse, false) => (1, 1, 0),
            (Refusal::Unreachable, true) => (3, 1, 0),
            (Refusal::Unreachable, false) => (1, 3, 0),
            // RFC 1191, section 4; RFC 4443, section 3.2.
            (Refusal::TooBig(mtu), true) => (3, 4, mtu.min(0xffff)),
            (Refusal::TooBig(mtu), false) => (2, 0, mtu),
        }
    }

    /// Returns the error about a packet of the command's, as an IP packet to it.
    pub(crate) fn about(self, packet: &[u8], header: &Header) -> Vec<u8> {
        let v4 = header.source.is_ipv4();
        let (kind, code, word) = self.code(v4);
        let quote = packet.get(..QUOTE.min(packet.len())).unwrap_or_default();
        let mut message = vec![kind, code, 0, 0];
        message.extend(word.to_be_bytes());
        message.extend(quote);
        let template = Template {
            source: header.destination,
            destination: header.source,
            protocol: if v4 { ICMP } else { ICMPV6 },
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
            flow_label: 0,
        };
        let sum = match v4 {
            true => Sum::default(),
            false => ip::pseudo_header(template.source, template.destination, ICMPV6, message.len()),
        };
        let checksum = sum.add(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut whole = vec![0; template.header_len()];
        template.write(message.len(), 0, Fragmentation::Forbidden, &mut whole);
        whole.extend(message);
        whole
    }
}

/// Returns a whole packet as one to send.
pub(super) fn complete(packet: &[u8]) -> Outgoing<'_> {
    let v4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
    Outgoing {
        ethertype: if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 },
        headers: packet,
        payload: [&[], &[]],
        checksum: None,
        segmentation: None,
    }
}
