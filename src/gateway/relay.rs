//! The relay: packets from the command to the wire and back, one at a time, and the door that each passes.
use super::{
    GatewaySetup,
    flows::Flows,
    next_hops::{NextHops, Resolution, Way},
    packet::{self, From, Packet},
    refusal::{self, Refusal},
};
use crate::{
    kernel::{COMMAND_MAC, FlowTable, GATEWAY_MAC},
    link::{
        ChecksumOffload, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Link, LinkError, LinkHeader, NextHop, Outgoing,
        PacketSocket, Received, Segmentation,
    },
    neighbour::{self, Impersonation},
    sniffer::tap::Tap,
};
use std::{collections::VecDeque, net::IpAddr, time::Duration};

/// Maximum packets and bytes that wait for neighbours' link addresses.
const MAX_PARKED: usize = 256;
const MAX_PARKED_BYTES: usize = 1 << 20;
/// Longest wait of a packet for a neighbour: three solicitations.
const PATIENCE: Duration = Duration::from_secs(3);

/// A packet of the command's that waits, with its offloads.
struct Parked {
    way: Way,
    at: Duration,
    bytes: Vec<u8>,
    /// Length of the headers in `bytes`.
    headers: usize,
    ethertype: u16,
    checksum: Option<ChecksumOffload>,
    segmentation: Option<(Segmentation, u16)>,
}

impl Parked {
    fn new(packet: &Outgoing<'_>, way: Way, at: Duration) -> Parked {
        Parked {
            way,
            at,
            bytes: [packet.headers, packet.payload[0]].concat(),
            headers: packet.headers.len(),
            ethertype: packet.ethertype,
            checksum: packet.checksum,
            segmentation: packet.segmentation,
        }
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let (headers, payload) = self.bytes.split_at(self.headers.min(self.bytes.len()));
        Outgoing {
            ethertype: self.ethertype,
            headers,
            payload: [payload, &[]],
            checksum: self.checksum,
            segmentation: self.segmentation,
        }
    }
}

/// Everything that a packet passes.
pub(super) struct Relay {
    pub wire: Tap<PacketSocket>,
    pub flows: Flows,
    pub hops: NextHops,
    addresses: Vec<IpAddr>,
    impersonation: Option<Impersonation>,
    /// Packets that wait for a neighbour's link address.
    parked: Vec<Parked>,
    /// The packet that found the wire's send buffer full, with its next hop.
    blocked: Option<(NextHop, Parked)>,
    /// ICMP errors to the command.
    refusals: VecDeque<Vec<u8>>,
    /// Packets of the command's that belong to no flow.
    pub foreign: u64,
}

impl Relay {
    pub(crate) fn new(
        wire: Tap<PacketSocket>,
        flows: Flows,
        hops: NextHops,
        impersonation: Option<Impersonation>,
        setup: &GatewaySetup,
    ) -> Relay {
        Relay {
            wire,
            flows,
            hops,
            addresses: setup.addresses.clone(),
            impersonation,
            parked: Vec::new(),
            blocked: None,
            refusals: VecDeque::new(),
            foreign: 0,
        }
    }

    /// Returns whether the wire's send buffer is full.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Returns whether packets wait for a neighbour.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Sends a packet of the command's on, if it is one of its flows'.
    ///
    /// # Errors
    /// The wire's, if it is permanent.
    pub(crate) fn leave(
        &mut self,
        now: Duration,
        received: &Received<'_>,
        table: Option<&mut FlowTable>,
    ) -> Result<(), LinkError> {
        let bytes = received.frame.get(received.network..).unwrap_or_default();
        let parsed = Packet::parse(bytes, From::Command).ok().flatten();
        let own = parsed.filter(|packet| self.addresses.contains(&packet.header.source));
        let Some(packet) = own else {
            self.foreign += 1;
            return Ok(());
        };
        let flow = match self.flows.leaving(now, &packet, table) {
            Ok(flow) => flow,
            Err(refusal) => {
                self.refuse(refusal, bytes, &packet);
                return Ok(());
            }
        };
        let bytes = bytes.get(..packet.header.end).unwrap_or_default();
        let outgoing = packet::forwarded(received, bytes, &packet.header);
        let Some(way) = flow.way.or_else(|| self.hops.way(&packet)) else {
            self.refuse(Some(Refusal::Unreachable), bytes, &packet);
            return Ok(());
        };
        flow.way = Some(way);
        if packet::wire_length(&outgoing) > way.mtu as usize {
            self.refuse(Some(Refusal::TooBig(way.mtu)), bytes, &packet);
            return Ok(());
        }
        flow.sent.add(bytes.len());
        match self.hops.resolve(now, &way, packet.header.source) {
            Resolution::Known(next_hop) => {
                flow.next_hop = Some(next_hop);
                let key = flow.key;
                self.flows.consider(now, &key);
                self.send(now, next_hop, &outgoing, way)
            }
            Resolution::Failed => {
                self.refuse(Some(Refusal::Unreachable), bytes, &packet);
                Ok(())
            }
            Resolution::Pending => {
                let waiting: usize = self.parked.iter().map(|parked| parked.bytes.len()).sum();
                if self.parked.len() < MAX_PARKED && waiting + bytes.len() <= MAX_PARKED_BYTES {
                    self.parked.push(Parked::new(&outgoing, way, now));
                }
                Ok(())
            }
        }
    }

    fn send(
        &mut self,
        now: Duration,
        next_hop: NextHop,
        packet: &Outgoing<'_>,
        way: Way,
    ) -> Result<(), LinkError> {
        match self.wire.transmit(&next_hop, packet) {
            Err(LinkError::Full { .. }) => {
                self.blocked = Some((next_hop, Parked::new(packet, way, now)));
                Ok(())
            }
            // TCP sends a lost packet again.
            Err(error) if error.is_transient() => {
                log::debug!("{error}");
                Ok(())
            }
            result => result,
        }
    }

    /// Sends solicitations, the packet that was blocked, and those whose neighbour has answered.
    ///
    /// # Errors
    /// The wire's, if it is permanent.
    pub(crate) fn go_on(&mut self, now: Duration) -> Result<(), LinkError> {
        if let Some((next_hop, parked)) = self.blocked.take() {
            self.send(now, next_hop, &parked.outgoing(), parked.way)?;
        }
        for parked in std::mem::take(&mut self.parked) {
            let packet = parked.outgoing();
            let Ok(Some(parsed)) = Packet::parse(&parked.bytes, From::Command) else { continue };
            match self.hops.resolve(now, &parked.way, parsed.header.source) {
                Resolution::Pending if now < parked.at + PATIENCE => self.parked.push(parked),
                Resolution::Known(next_hop) if self.blocked.is_none() => {
                    self.send(now, next_hop, &packet, parked.way)?;
                }
                Resolution::Known(_) => self.parked.push(parked),
                _ => self.refuse(Some(Refusal::Unreachable), &parked.bytes, &parsed),
            }
        }
        let due = self.hops.take_solicitations();
        due.into_iter().try_for_each(|message| message.send(&mut self.wire))
    }

    fn refuse(&mut self, refusal: Option<Refusal>, bytes: &[u8], packet: &Packet) {
        match refusal {
            Some(refusal) => self.refusals.push_back(refusal.about(bytes, &packet.header)),
            None => self.foreign += 1,
        }
    }

    /// Hands the ICMP errors that are due to the command.
    ///
    /// # Errors
    /// The device's, if it is permanent.
    pub(crate) fn answer(&mut self, device: &mut PacketSocket) -> Result<(), LinkError> {
        while let Some(packet) = self.refusals.pop_front() {
            deliver(device, &refusal::complete(&packet))?;
        }
        Ok(())
    }

    /// Takes a packet from the wire and hands it to the command, if it is one of its flows'. Returns whether
    /// there was one.
    ///
    /// # Errors
    /// The device's, if it is permanent; all of the wire's.
    pub(crate) fn arrive(
        &mut self,
        now: Duration,
        device: &mut PacketSocket,
        table: Option<&mut FlowTable>,
    ) -> Result<bool, LinkError> {
        let Relay { wire, flows, hops, .. } = self;
        let Some(received) = wire.receive()? else { return Ok(false) };
        let bytes = received.frame.get(received.network..).unwrap_or_default();
        let (interface, ethertype) = (received.reply.interface, received.ethertype);
        if let LinkHeader::Ethernet { destination: from, .. } = received.reply.header
            && let Some(resolution) = neighbour::parse(ethertype, bytes, from)
        {
            if let Some(announcement) = resolution.announcement {
                hops.handle(now, interface, &announcement);
            }
            if let Some(impersonation) = &mut self.impersonation {
                impersonation.handle(&resolution);
                impersonation.send(wire)?;
            }
            return Ok(true);
        }
        if !matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            return Ok(true);
        }
        let Ok(Some(packet)) = Packet::parse(bytes, From::Peer) else { return Ok(true) };
        if !self.addresses.contains(&packet.header.destination) {
            return Ok(true);
        }
        let later = packet.header.fragment.is_some_and(|fragment| fragment.offset > 0);
        match flows.arriving(now, &packet, table) {
            Some(flow) => {
                flow.received.add(packet.header.end);
                if let Some(way) = flow.way {
                    hops.confirm(now, &way);
                }
                let key = flow.key;
                flows.consider(now, &key);
            }
            None if later => {}
            None => return Ok(true),
        }
        let whole = bytes.get(..packet.header.end).unwrap_or_default();
        deliver(device, &packet::forwarded(&received, whole, &packet.header))?;
        Ok(true)
    }
}

/// Hands a packet to the command's kernel; one without room there is lost.
fn deliver(device: &mut PacketSocket, packet: &Outgoing<'_>) -> Result<(), LinkError> {
    let header = LinkHeader::Ethernet { destination: COMMAND_MAC, source: GATEWAY_MAC };
    let next_hop = device.next_hop(header);
    match device.transmit(&next_hop, packet) {
        Err(error) if error.is_transient() => {
            log::debug!("to the command: {error}");
            Ok(())
        }
        result => result,
    }
}
