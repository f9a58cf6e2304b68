//! A link that is watched: whatever goes through it is also shown or recorded.
//!
//! Theory of operation: [`Tap`] wraps a [`Link`] and describes each frame to a [`Sink`] on its way, from the same bytes,
//! without a copy: what arrived before the stack sees it, what is sent once the kernel has taken it. So each packet
//! appears once, in the order in which the stack meets them. Watching never harms the connection: when
//! the sink fails or its reader goes away, the tap falls silent and the link goes on.
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    time::{Duration, SystemTime},
};

use super::{
    Checksum, Direction, LinkType, Observed,
    capture_file::{Interface, Statistics},
    decode::{Ip, Network, Transport, decode},
    sink::{Output, Sink, SinkError},
};
use crate::link::{ChecksumState, Link, LinkError, MAX_LINK_HEADER, NextHop, Offloads, Outgoing, Received};
use crate::stderr;

/// linux/if_arp.h: the devices whose frames have an Ethernet header.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

impl LinkType {
    /// What the frames of a device of this ARPHRD_* type start with on a packet socket.
    pub fn of_hardware(hardware: u16) -> LinkType {
        match hardware {
            ARPHRD_ETHER | ARPHRD_LOOPBACK => LinkType::Ethernet,
            _ => LinkType::RawIp,
        }
    }
}

impl<'a> Observed<'a> {
    /// A frame that a link received, seen `now` unless the kernel took the time. `interface` is the sink's number.
    pub fn received(received: &'a Received<'_>, interface: u32, now: SystemTime) -> Self {
        let direction = if received.outgoing { Direction::Send } else { Direction::Receive };
        let link = LinkType::of_hardware(received.hardware_type);
        let ethertype = (link == LinkType::RawIp).then_some(received.ethertype);
        let time = since_epoch(received.time.unwrap_or(now));
        Observed {
            interface,
            ethertype,
            vlan: received.vlan,
            length: received.wire_len,
            gso: Some(received.segment_size).filter(|size| *size != 0),
            checksum: match received.checksum {
                ChecksumState::Partial => Checksum::Partial,
                ChecksumState::Unverified | ChecksumState::Verified => Checksum::Complete,
            },
            ..Observed::new(time, direction, link, received.frame)
        }
    }

    /// A packet that a link sent, behind the link header `header`, which may be empty.
    pub fn sent(header: &'a [u8], packet: &Outgoing<'a>, interface: u32, now: SystemTime) -> Self {
        let link = if header.is_empty() { LinkType::RawIp } else { LinkType::Ethernet };
        let [payload, rest] = packet.payload;
        Observed {
            interface,
            ethertype: header.is_empty().then_some(packet.ethertype),
            data: [header, packet.headers, payload, rest],
            length: header.len() + packet.len(),
            gso: packet.segmentation.map(|(_, size)| size),
            checksum: if packet.checksum.is_some() { Checksum::Partial } else { Checksum::Complete },
            ..Observed::new(since_epoch(now), Direction::Send, link, &[])
        }
    }
}

/// Times before the epoch, which only a wrong clock shows, become the epoch.
fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Packet lines on standard error, which never hold up the link: see [`stderr`]. What is written ends with a line feed.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        stderr::write(&String::from_utf8_lossy(lines))?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is to be shown and recorded of a run's packets. Its copies share one sink, so that a run that opens
/// several links, one after the other, records them in one file.
#[derive(Clone, Default)]
pub struct Watch {
    output: Output,
    /// Opened with the first link; gone once it has failed.
    sink: Rc<RefCell<Option<Sink>>>,
    opened: Rc<Cell<bool>>,
}

impl Watch {
    pub fn new(output: Output) -> Self {
        Watch { output, ..Watch::default() }
    }

    /// Opens the sink, which shows on stderr, unless it was opened before or there is nothing to do for it.
    fn open(&self) -> Result<(), SinkError> {
        if self.output == Output::default() || self.opened.replace(true) {
            return Ok(());
        }
        *self.sink.borrow_mut() = Some(self.output.open(Box::new(StandardError))?);
        Ok(())
    }

    /// Falls silent after an error.
    fn settle(&self, result: Result<(), SinkError>) {
        match result {
            Ok(()) => return,
            Err(SinkError::Closed) => {}
            Err(error) => log::warn!("{error}; no more packets are shown or recorded"),
        }
        *self.sink.borrow_mut() = None;
    }
}

impl From<Sink> for Watch {
    fn from(sink: Sink) -> Self {
        let sink = Rc::new(RefCell::new(Some(sink)));
        Watch { output: Output::default(), sink, opened: Rc::new(Cell::new(true)) }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.output.fmt(f)
    }
}

/// A link with a sink beside it.
pub struct Tap<L> {
    link: L,
    watcher: Watcher,
}

/// Who watches one link.
struct Watcher {
    watch: Watch,
    /// The sink's number of each interface, by the kernel's index.
    interfaces: BTreeMap<u32, u32>,
    guarded: bool,
}

impl<L: Link> Tap<L> {
    /// Watches a link whose frames come and go by `interfaces` (index, name, link type). `guarded` says that the
    /// guard keeps what belongs to the flows from the kernel. If there is nothing to watch for, the tap is just the
    /// link.
    ///
    /// # Errors
    /// The capture file can't be created.
    pub fn new<'n>(
        link: L,
        watch: Watch,
        interfaces: impl IntoIterator<Item = (u32, &'n str, LinkType)>,
        guarded: bool,
    ) -> Result<Self, SinkError> {
        watch.open()?;
        let mut watcher = Watcher { watch, interfaces: BTreeMap::new(), guarded };
        for (index, name, link) in interfaces {
            watcher.add_interface(index, name.to_owned(), link);
        }
        Ok(Tap { link, watcher })
    }

    /// The link itself.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// Hands on what the sink has collected. To be called before waiting for more, and at the end.
    pub fn flush(&mut self) {
        let result = self.watcher.watch.sink.borrow_mut().as_mut().map_or(Ok(()), Sink::flush);
        self.watcher.watch.settle(result);
    }

    /// Whether somebody still watches.
    pub fn is_watched(&self) -> bool {
        self.watcher.watch.sink.borrow().is_some()
    }

    /// Records what the kernel counted for the link.
    pub fn statistics(&mut self, statistics: &Statistics) {
        let Some(&number) = self.watcher.interfaces.values().next() else { return };
        let now = since_epoch(SystemTime::now());
        let mut sink = self.watcher.watch.sink.borrow_mut();
        let result = sink.as_mut().map_or(Ok(()), |sink| sink.statistics(number, now, statistics));
        drop(sink);
        self.watcher.watch.settle(result);
    }
}

impl Watcher {
    fn add_interface(&mut self, index: u32, name: String, link: LinkType) {
        let mut sink = self.watch.sink.borrow_mut();
        let Some(open) = sink.as_mut() else { return };
        let interface = Interface { name, link, snap_length: 0 };
        let number = match open.number(&interface) {
            Some(number) => Ok(number),
            None => open.add_interface(interface),
        };
        drop(sink);
        let result = number.map(|number| {
            self.interfaces.insert(index, number);
        });
        self.watch.settle(result);
    }

    /// Shows a frame of the interface that the kernel calls `index`.
    fn show(&mut self, index: u32, mut frame: Observed<'_>) {
        if !self.interfaces.contains_key(&index) {
            self.add_interface(index, format!("if{index}"), frame.link);
        }
        let Some(number) = self.interfaces.get(&index) else { return };
        frame.interface = *number;
        frame.guarded = self.guarded && frame.direction == Direction::Receive && carries_ports(&frame);
        let result = self.watch.sink.borrow_mut().as_mut().map_or(Ok(()), |sink| sink.frame(&frame));
        self.watch.settle(result);
    }
}

/// Whether the guard takes the kernel's copy of a frame that the capture program let through: it does so with what
/// carries our ports, which later fragments, ICMP and ARP do not.
fn carries_ports(frame: &Observed<'_>) -> bool {
    let network = decode(frame).network;
    matches!(network, Network::Ip(Ip { transport: Transport::Tcp(_) | Transport::Udp(_), .. }))
}

impl<L: Link> Link for Tap<L> {
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError> {
        let received = self.link.receive()?;
        if let Some(received) = received.as_ref().filter(|_| self.watcher.watch.sink.borrow().is_some()) {
            let frame = Observed::received(received, 0, SystemTime::now());
            self.watcher.show(received.reply.interface, frame);
        }
        Ok(received)
    }

    fn transmit(&mut self, next_hop: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError> {
        self.link.transmit(next_hop, packet)?;
        if self.is_watched() {
            let mut header = [0; MAX_LINK_HEADER];
            let length = next_hop.header.write(packet.ethertype, &mut header);
            let header = header.get(..length).unwrap_or_default();
            self.watcher.show(next_hop.interface, Observed::sent(header, packet, 0, SystemTime::now()));
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
