//! A live capture: frames from a packet socket into the sink, until a signal, the count, or the reader ends
//! it.
use super::{Progress, Sniff, flush, stdout};
use crate::{
    host::interface::{self, Interface},
    link::{self, Link, LinkError, PacketSocket, SocketFilter},
    net::arphrd,
    process::capability::{self, Capability},
    report::Error,
    runtime::{self, memory_budget::MemoryBudget, reactor::Reactor},
    sniffer::{CapturedFrame, LinkType, capture_file::InterfaceStatistics, filter::Program, sink::Sink},
    stdio::{Interest, stderr},
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    os::fd::AsFd,
    time::{Duration, SystemTime},
};

/// Frames between two flushes of the sink.
const BATCH: usize = 256;
/// Time between two looks at an interface that is down.
const DOWN_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two readings of the kernel's counters, which are 32 bits wide and reset by each reading
/// (packet(7), PACKET_STATISTICS).
const STATISTICS_INTERVAL: Duration = Duration::from_secs(10);

/// The reason why a live capture ended.
#[derive(PartialEq, Eq)]
pub(super) enum End {
    /// A signal, or the count of packets: the summary follows.
    Done,
    /// The reader of the packet lines is gone, and would not see a summary.
    ReaderGone,
}

/// A live capture under way.
pub(super) struct Capture<'a> {
    sniff: &'a Sniff,
    sink: Sink,
    socket: PacketSocket,
    reactor: Reactor,
    /// The sink's number of each interface, by the kernel's index.
    numbers: BTreeMap<u32, u32>,
    /// The interface's index, if the capture is of one.
    single: Option<u32>,
    /// The single interface is down.
    down: bool,
    statistics: InterfaceStatistics,
    /// Time of the last reading of the kernel's counters.
    counted_at: Duration,
}

impl<'a> Capture<'a> {
    /// Opens a capture of one interface or of all. No frame is taken before `bind`, the last step, so that
    /// the program sees every frame.
    pub(super) fn open(
        sniff: &'a Sniff,
        interface: Option<&Interface>,
        promiscuous: bool,
        program: Option<&Program>,
    ) -> Result<Capture<'a>, Error> {
        capability::require(Capability::NetRaw, "open a packet socket")?;
        let reactor = Reactor::new().map_err(runtime::Error::Reactor)?;
        let socket = PacketSocket::open(&link::Options {
            interface: interface.map(|interface| interface.index),
            filter: program.map(|program| SocketFilter::Classic(program.instructions())),
            vnet_header: true,
            overrides: sniff.overrides,
            segmentation: false,
            past_egress: false,
            outgoing: true,
            timestamps: true,
            receive_buffer: MemoryBudget::of_a_sniffer().frames,
        })?;
        if let Some(interface) = interface.filter(|_| promiscuous) {
            socket.set_promiscuous(interface.index)?;
        }
        let mut capture = Capture {
            sniff,
            sink: sniff.output.open(stdout()?)?,
            socket,
            reactor,
            numbers: BTreeMap::new(),
            single: interface.map(|interface| interface.index),
            down: false,
            statistics: InterfaceStatistics::default(),
            counted_at: Duration::ZERO,
        };
        for known in interface.map_or_else(interface::all, |one| Ok(vec![one.clone()]))? {
            capture.add_interface(known.index, known.name, LinkType::from_arphrd(known.hardware))?;
        }
        capture.socket.bind()?;
        Ok(capture)
    }

    pub(super) fn run(&mut self) -> Result<End, Error> {
        loop {
            let batch = self.take_batch()?;
            if !flush(&mut self.sink)? {
                return Ok(End::ReaderGone);
            }
            if batch == Some(Progress::Done) {
                return Ok(End::Done);
            }
            let now = self.reactor.now();
            if now >= self.counted_at + STATISTICS_INTERVAL {
                self.read_statistics()?;
            }
            if let Some(index) = self.single.filter(|_| self.down) {
                // Fails if the interface is gone for good.
                self.down = !interface::by_index(index)?.up;
            }
            // After a full batch more frames may wait: then this only looks for signals.
            let pause = match batch {
                Some(_) => Duration::ZERO,
                None if self.down => DOWN_INTERVAL,
                None => STATISTICS_INTERVAL,
            };
            let empty = Cell::new(true);
            let frames = [Interest::readable(self.socket.as_fd(), &empty)];
            let signal = self.reactor.wait(frames.iter(), Some(now + pause));
            if signal.map_err(runtime::Error::Reactor)?.is_some() {
                return Ok(End::Done);
            }
        }
    }

    /// Takes a batch of frames. Returns `None` if the socket has no more for now.
    fn take_batch(&mut self) -> Result<Option<Progress>, Error> {
        for _ in 0..BATCH {
            let received = match self.socket.receive() {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(None),
                Err(error @ LinkError::Down { .. }) => {
                    log::warn!("{error}; waiting for it to come back");
                    self.down = true;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
            // lo receives everything that is sent on it.
            if received.outgoing && received.hardware_type == arphrd::LOOPBACK {
                continue;
            }
            let index = received.reply.interface;
            let number = match self.numbers.get(&index) {
                Some(number) => *number,
                // The interface is newer than the capture.
                None => {
                    let name =
                        interface::by_index(index).map_or_else(|_| format!("if{index}"), |known| known.name);
                    let link_type = LinkType::from_arphrd(received.hardware_type);
                    let interface = self.sniff.description(name, link_type);
                    let number = self.sink.add_interface(interface)?;
                    self.numbers.insert(index, number);
                    number
                }
            };
            let frame = CapturedFrame::received(&received, number, SystemTime::now());
            if self.sniff.write(&mut self.sink, &frame)? == Progress::Done {
                return Ok(Some(Progress::Done));
            }
        }
        Ok(Some(Progress::GoOn))
    }

    fn add_interface(&mut self, index: u32, name: String, link_type: LinkType) -> Result<(), Error> {
        let number = self.sink.add_interface(self.sniff.description(name, link_type))?;
        self.numbers.insert(index, number);
        Ok(())
    }

    /// Adds the kernel's counters since the last reading.
    fn read_statistics(&mut self) -> Result<(), Error> {
        self.counted_at = self.reactor.now();
        let counted = self.socket.statistics().map_err(Error::Statistics)?;
        self.statistics.received += u64::from(counted.received);
        self.statistics.dropped += u64::from(counted.dropped);
        Ok(())
    }

    /// Prints tcpdump's summary on stderr, and records the counters in the capture file.
    pub(super) fn summarize(&mut self) -> Result<(), Error> {
        self.read_statistics()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Some(number) = self.numbers.values().min() {
            self.sink.write_statistics(*number, now, &self.statistics)?;
        }
        flush(&mut self.sink)?;
        let InterfaceStatistics { received, dropped } = self.statistics;
        let summary = format!(
            "{} packets captured\n{received} packets received by filter\n{dropped} packets dropped by kernel\n",
            self.sink.frames()
        );
        // The capture succeeded even if the summary's reader is gone.
        let _ = stderr::write(&summary);
        Ok(())
    }
}
