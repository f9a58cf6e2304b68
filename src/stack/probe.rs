//! Probes of the path: packets of a flow with a hop limit, a size and a mark of their own, by which errors about
//! them are known.
//!
//! Checksums are computed here, not left to the device: what a router quotes is what left.
use super::{
    Flow, FlowRoute, Settings, Stack,
    header_only::HeaderOnly,
    ip::{self, Fragmentation, Template, UDP},
};
use crate::{
    link::{Link, LinkError, NextHop, Outgoing},
    net::FiveTuple,
    segment::{ACK, CHECKSUM_OFFSET, MAX_HEADER_LEN, RST, Segment, SeqNumber},
};
use std::time::Duration;

/// A packet to send.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    next_hop: NextHop,
    ethertype: u16,
    /// The packet from its IP header on.
    pub packet: Vec<u8>,
}

impl Probe {
    /// Returns a flow's segment with the hop limit and IPv4 identification given.
    pub(crate) fn segment(header: &HeaderOnly, hop_limit: Option<u8>, id: u16, payload: &[u8]) -> Probe {
        let mut bytes = [0; MAX_HEADER_LEN];
        let len = header.segment.write(&mut bytes);
        let transport = [&bytes[..len], payload].concat();
        Probe::new(header.next_hop, header.template, hop_limit, id, transport, CHECKSUM_OFFSET)
    }

    /// Returns a datagram of a flow.
    pub(crate) fn datagram(
        tuple: &FiveTuple,
        route: &FlowRoute,
        settings: &Settings,
        hop_limit: Option<u8>,
        id: u16,
        payload: &[u8],
    ) -> Probe {
        let template = Template {
            source: tuple.local.ip(),
            destination: tuple.remote.ip(),
            protocol: UDP,
            hop_limit: settings.hop_limit(tuple.remote.ip(), route.path.ipv6_hop_limit, &route.metrics),
            traffic_class: settings.traffic_class,
            flow_label: 0,
        };
        let mut transport = vec![0; 8];
        transport[..2].copy_from_slice(&tuple.local.port().to_be_bytes());
        transport[2..4].copy_from_slice(&tuple.remote.port().to_be_bytes());
        transport[4..6].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
        transport.extend(payload);
        Probe::new(route.next_hop, template, hop_limit, id, transport, 6)
    }

    fn new(
        next_hop: NextHop,
        template: Template,
        hop_limit: Option<u8>,
        id: u16,
        mut transport: Vec<u8>,
        checksum_at: usize,
    ) -> Probe {
        let template = Template { hop_limit: hop_limit.unwrap_or(template.hop_limit), ..template };
        let sum =
            ip::pseudo_header(template.source, template.destination, template.protocol, transport.len());
        let checksum = match sum.add(&transport).checksum() {
            // RFC 768: a computed 0 is sent as ones.
            0 if template.protocol == UDP => u16::MAX,
            checksum => checksum,
        };
        transport[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = vec![0; template.header_len()];
        template.write(transport.len(), id, Fragmentation::Forbidden, &mut packet);
        packet.extend(transport);
        Probe { next_hop, ethertype: template.ethertype(), packet }
    }

    /// Sends the packet.
    ///
    /// # Errors
    /// Those of [`Link::transmit`].
    pub(crate) fn send(&self, link: &mut dyn Link) -> Result<(), LinkError> {
        let packet = Outgoing {
            ethertype: self.ethertype,
            headers: &self.packet,
            payload: [&[], &[]],
            checksum: None,
            segmentation: None,
        };
        link.transmit(&self.next_hop, &packet)
    }
}

impl Stack {
    /// Leaves segments of no flow to a caller who sends probes and resets of its own.
    pub(crate) fn leave_unknown_segments(&mut self) {
        self.only_flows = true;
    }

    /// Returns the SYN of a connection that the stack does not keep.
    pub(crate) fn syn(&mut self, now: Duration, tuple: FiveTuple, route: FlowRoute) -> Option<HeaderOnly> {
        Flow::dial(now, tuple, route, &self.settings, &self.pool, (self.seed)()).take_syn(now)
    }
}

impl HeaderOnly {
    /// Returns the header of the reset that answers `segment` of this header's destination; `None` if that is a reset.
    pub(crate) fn reset(self, segment: &Segment) -> Option<HeaderOnly> {
        Some(HeaderOnly { segment: segment.reset()?, ..self })
    }

    /// Returns the header of the reset of a connection that this SYN opened with the sequence number `seq`.
    pub(crate) fn reset_of(self, seq: SeqNumber) -> HeaderOnly {
        let Segment { source, destination, .. } = self.segment;
        let segment = Segment { source, destination, seq: seq + 1, flags: RST, ..Segment::default() };
        HeaderOnly { segment, ..self }
    }

    /// Returns the header of an acknowledgment that repeats the last `len` bytes before the next one to send. The peer
    /// has them, or takes them for bytes that it has: it acknowledges them again and drops them (RFC 9293, section
    /// 3.10.7.4, first).
    pub(crate) fn repeating(self, len: u32) -> HeaderOnly {
        let segment = Segment { seq: self.segment.seq - len, flags: ACK, ..self.segment };
        HeaderOnly { segment, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{link::LinkHeader, net::ip_protocol::TCP};

    #[test]
    fn a_probe_is_a_packet_of_its_flow() {
        let template = Template {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: TCP,
            hop_limit: 64,
            traffic_class: 0x28,
            flow_label: 0,
        };
        let segment = Segment {
            source: 40000,
            destination: 80,
            seq: SeqNumber(1001),
            flags: ACK,
            ..Segment::default()
        };
        let next_hop = NextHop { interface: 1, header: LinkHeader::LOOPBACK };
        let header = HeaderOnly { next_hop, template, segment };
        let probe = Probe::segment(&header.repeating(7), Some(3), 99, &[0; 7]);
        let read = ip::parse(&probe.packet, false).expect("a packet");
        assert_eq!((read.hop_limit, read.end), (3, 20 + 20 + 7));
        assert_eq!((probe.packet[1], &probe.packet[4..7]), (0x28, &[0, 99, 0x40][..]));
        let transport = &probe.packet[20..];
        let sum = ip::pseudo_header(template.source, template.destination, TCP, transport.len());
        assert_eq!(sum.add(transport).checksum(), 0);
        let sent = Segment::parse(transport).expect("a segment");
        assert_eq!((sent.seq, sent.payload_len, sent.flags), (SeqNumber(994), 7, ACK));
    }
}
