//! A tap on a link: passes each frame to a sink on its way.
//!
//! Theory of operation: [`Tap`] wraps a [`Link`] and describes each frame to its sink from the same
//! bytes, without a copy: a received frame before the stack sees it, a sent one after the kernel
//! took it. So each packet appears once, in the stack's order. The tap never harms the connection:
//! after the sink has failed or its reader has gone, the link goes on alone.
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd},
    time::SystemTime,
};

use super::{
    capture_file::{InterfaceDescription, InterfaceStatistics},
    decode::{Ip, Network, Transport, decode},
    frame::{CapturedFrame, FrameDirection, LinkType, since_epoch},
    shared_sink::SharedSink,
    sink::{Sink, SinkError},
};
use crate::link::{Link, LinkError, MAX_LINK_HEADER, NextHop, Offloads, Outgoing, Received};

/// A link with a sink beside it.
pub struct Tap<L> {
    link: L,
    recorder: SinkFeed,
}

/// The part of a tap that feeds the sink.
struct SinkFeed {
    sink: SharedSink,
    /// The sink's number of each interface, by the kernel's index.
    interfaces: BTreeMap<u32, u32>,
    guarded: bool,
}

impl<L: Link> Tap<L> {
    /// Puts a tap on a link over `interfaces` (index, name, link type). `guarded` says that the
    /// guard drops the kernel's copies of the flows' frames. Without a sink, the tap is just the
    /// link.
    ///
    /// # Errors
    /// The capture file cannot be created.
    pub fn new<'n>(
        link: L,
        sink: SharedSink,
        interfaces: impl IntoIterator<Item = (u32, &'n str, LinkType)>,
        guarded: bool,
    ) -> Result<Self, SinkError> {
        sink.open()?;
        let mut recorder = SinkFeed { sink, interfaces: BTreeMap::new(), guarded };
        for (index, name, link_type) in interfaces {
            recorder.add_interface(index, name.to_owned(), link_type);
        }
        Ok(Tap { link, recorder })
    }

    /// Returns the link itself.
    pub(crate) fn link(&self) -> &L {
        &self.link
    }

    /// Flushes the sink. The owner calls it before it waits, and at the end.
    pub fn flush(&mut self) {
        self.recorder.sink.write(Sink::flush);
    }

    /// Returns whether the sink still takes frames.
    pub fn is_recording(&self) -> bool {
        self.recorder.sink.is_open()
    }

    /// Records the kernel's counters of the link.
    pub(crate) fn write_statistics(&mut self, statistics: &InterfaceStatistics) {
        let Some(&number) = self.recorder.interfaces.values().next() else { return };
        let now = since_epoch(SystemTime::now());
        self.recorder.sink.write(|sink| sink.write_statistics(number, now, statistics));
    }
}

impl SinkFeed {
    fn add_interface(&mut self, index: u32, name: String, link_type: LinkType) {
        let interface = InterfaceDescription { name, link_type, snap_length: 0 };
        let number = self.sink.write(|sink| sink.interface_number(interface));
        self.interfaces.extend(number.map(|number| (index, number)));
    }

    /// Passes a frame of the interface with the kernel's `index` to the sink.
    fn record(&mut self, index: u32, mut frame: CapturedFrame<'_>) {
        if !self.interfaces.contains_key(&index) {
            self.add_interface(index, format!("if{index}"), frame.link_type);
        }
        let Some(number) = self.interfaces.get(&index) else { return };
        frame.interface = *number;
        frame.guarded = self.guarded && frame.direction == FrameDirection::Inbound && carries_ports(&frame);
        self.sink.write(|sink| sink.write_frame(&frame));
    }
}

/// Returns whether the guard drops the kernel's copy of a frame that the capture program let
/// through: it drops what carries the flow's ports, which later fragments, ICMP and ARP do not.
fn carries_ports(frame: &CapturedFrame<'_>) -> bool {
    let network = decode(frame).network;
    matches!(network, Network::Ip(Ip { transport: Transport::Tcp(_) | Transport::Udp(_), .. }))
}

impl<L: Link> Link for Tap<L> {
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError> {
        let received = self.link.receive()?;
        if let Some(received) = received.as_ref().filter(|_| self.recorder.sink.is_open()) {
            let frame = CapturedFrame::received(received, 0, SystemTime::now());
            self.recorder.record(received.reply.interface, frame);
        }
        Ok(received)
    }

    fn transmit(&mut self, next_hop: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError> {
        self.link.transmit(next_hop, packet)?;
        if self.is_recording() {
            let mut header = [0; MAX_LINK_HEADER];
            let length = next_hop.header.write(packet.ethertype, &mut header);
            let header = header.get(..length).unwrap_or_default();
            let frame = CapturedFrame::sent(header, packet, 0, SystemTime::now());
            self.recorder.record(next_hop.interface, frame);
        }
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        self.link.offloads()
    }
}

impl<L: AsFd> AsFd for Tap<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}
