//! The drop events of clients' packets.
use super::connections::Connections;
use crate::{
    commands::compare::failed,
    diagnose::{DropEvent, PacketHeader, SourceState, Subject},
    kernel::{DropMonitor, DropReasons, DroppedPacket, MAX_DROPS_AT_ONCE},
    process::namespace,
    report::Error,
    text,
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

/// Maximum drops that are kept of a connection.
const MAX_DROPS: usize = 4;
/// Maximum drops that wait for their packet to be seen at a device.
const MAX_WAITING: usize = 256;
/// Maximum length of a name of the kernel's, in characters.
const NAME: usize = 64;

/// Drop events under way, of the network namespace in which they were opened.
pub(super) struct ClientDrops {
    monitor: Option<DropMonitor>,
    reasons: DropReasons,
    netns: u64,
    /// Drops of packets that no other source has shown yet.
    waiting: Vec<DroppedPacket>,
    pub state: SourceState,
}

impl ClientDrops {
    /// Attaches the program for a port. Where it cannot, the other sources go on alone; `wanted` false pretends that.
    pub(super) fn open(port: u16, wanted: bool) -> ClientDrops {
        let opened = match wanted {
            true => DropMonitor::open().map_err(|error| error.to_string()).and_then(|monitor| {
                monitor.watch(port).map_err(|error| error.to_string())?;
                Ok(monitor)
            }),
            false => Err("switched off".to_owned()),
        };
        let (monitor, state) = match opened {
            Ok(monitor) => (Some(monitor), SourceState { used: true, ..SourceState::default() }),
            Err(why) => {
                log::info!("drop events: {why}");
                (None, SourceState::unused(why))
            }
        };
        let reasons = if monitor.is_some() { DropReasons::read() } else { DropReasons::default() };
        ClientDrops { monitor, reasons, netns: namespace::number(), waiting: Vec::new(), state }
    }

    /// Returns the descriptor that becomes readable when a packet was dropped.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(AsFd::as_fd)
    }

    /// Gives the drops since the last call to their connections.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn collect(&mut self, connections: &mut Connections, now: Instant) -> Result<(), Error> {
        let Some(monitor) = &self.monitor else { return Ok(()) };
        let dropped = monitor.take().map_err(failed("read the drop events"))?;
        self.state.events = self.state.events.saturating_add(dropped.len() as u64);
        self.state.lost |= monitor.has_lost() || dropped.len() >= MAX_DROPS_AT_ONCE;
        let waited = std::mem::take(&mut self.waiting);
        for packet in waited {
            self.note(&packet, connections, now);
        }
        let netns = self.netns;
        for packet in dropped.into_iter().filter(|packet| u64::from(packet.netns) == netns) {
            // Events and packets at devices come by different ways: the packet may be shown with the next call.
            if self.note(&packet, connections, now) {
                continue;
            }
            match self.waiting.len() < MAX_WAITING {
                true => self.waiting.push(packet),
                false => self.state.lost = true,
            }
        }
        Ok(())
    }

    /// Notes a drop with its connection, if there is one. Returns whether nothing is left to do about it.
    fn note(&self, packet: &DroppedPacket, connections: &mut Connections, now: Instant) -> bool {
        let Some(header) = PacketHeader::parse(&packet.bytes) else { return true };
        let mut event = DropEvent {
            subject: Subject::Syn,
            interface: Some(text::beginning(&packet.device, NAME)).filter(|name| !name.is_empty()),
            reason: self.reasons.name(packet.reason).map(|name| text::beginning(name, NAME)),
            symbol: text::beginning(&packet.symbol, NAME),
        };
        // XDP comes before any tap.
        let interface = event.interface.as_ref().filter(|_| event.is_by_xdp());
        let first = interface.and_then(|name| connections.interface_index(name));
        let Some((index, subject)) = connections.of_dropped(&header, first, now) else { return false };
        event.subject = subject;
        let drops = connections.get_mut(index).map(|connection| &mut connection.drops);
        if let Some(drops) = drops.filter(|drops| drops.len() < MAX_DROPS) {
            drops.push(event);
        }
        true
    }
}
