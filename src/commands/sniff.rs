//! Sniffing: what passes by, on an interface or from a file, shown and recorded and nothing else: no guard, no lease, no
//! stack. A live capture ends by a signal, by `count`, or when its reader goes away; a summary follows.
use crate::{
    host::{
        features::Missing,
        interface::{self, Interface},
    },
    kernel::{Filter, IpFamily, Programs, SniffFilter},
    link::{self, Link, LinkError, PacketSocket},
    net::{Protocol, arphrd},
    process::{
        capability::{self, Capability},
        sandbox::Sandbox,
    },
    report::Error,
    runtime::{self, memory::Memory, reactor::Reactor},
    sniffer::{
        CapturedFrame, LinkType,
        capture_file::{CaptureReader, CaptureRecord, InterfaceDescription, InterfaceStatistics},
        decode::{DecodedFrame, Ip, Network, Transport, decode},
        sink::{Sink, SinkError, SinkOptions},
    },
    stdio::{self, Interest, Writer, stderr},
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    io::Write,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// Frames taken before their lines are handed on.
const BATCH: usize = 256;
/// How often to look whether an interface that is down has come up or gone.
const DOWN_INTERVAL: Duration = Duration::from_millis(200);
/// How often to ask for the kernel's counters, which are 32 bits wide and start anew with each question.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(10);

/// Where frames come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// An interface, or all of them.
    Live { interface: Option<Interface>, promiscuous: bool },
    /// A capture file.
    File(PathBuf),
}

/// What to look at and what to do with it.
#[derive(Clone, Debug)]
pub struct Sniff {
    pub source: Source,
    pub filter: SniffFilter,
    pub output: SinkOptions,
    /// Stop after so many packets.
    pub count: Option<u64>,
    /// What the kernel is taken to lack.
    pub missing: Missing,
    /// What is given up once everything is open.
    pub sandbox: Sandbox,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

/// How a live capture ended.
enum End {
    /// By a signal or by the count of packets: time for the summary.
    Done,
    /// Nobody is left to tell anything.
    ReaderGone,
}

impl Sniff {
    pub fn run(&self) -> Result<(), Error> {
        match &self.source {
            Source::File(path) => self.replay(CaptureReader::open(path).map_err(SinkError::Capture)?),
            Source::Live { interface, promiscuous } => self.watch(interface.as_ref(), *promiscuous),
        }
    }

    /// Takes one frame into the sink.
    fn take(&self, sink: &mut Sink, frame: &CapturedFrame<'_>) -> Result<Next, Error> {
        match sink.write_frame(frame) {
            Err(SinkError::Closed) => return Ok(Next::Stop),
            result => result?,
        }
        let done = self.count.is_some_and(|count| sink.frames() >= count);
        Ok(if done { Next::Stop } else { Next::Continue })
    }

    fn replay(&self, mut reader: CaptureReader) -> Result<(), Error> {
        let mut sink = self.output.open(stdout()?)?;
        self.sandbox.enter(&[])?;
        let result = loop {
            match reader.read() {
                Ok(Some(CaptureRecord::Interface(interface))) => drop(sink.add_interface(interface)?),
                Ok(Some(CaptureRecord::Frame(frame))) => {
                    if wanted(&self.filter, &decode(&frame)) && self.take(&mut sink, &frame)? == Next::Stop {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(SinkError::Capture(error).into()),
            }
        };
        // What could be read of a damaged file comes first.
        flush(&mut sink)?;
        result
    }

    fn watch(&self, interface: Option<&Interface>, promiscuous: bool) -> Result<(), Error> {
        capability::require(Capability::NetRaw, "open a packet socket")?;
        capability::require(Capability::Bpf, "load its eBPF program")?;
        let reactor = Reactor::new().map_err(runtime::Error::Reactor)?;
        let programs = Programs::load(&Filter::Sniff(self.filter.clone()))?;
        let socket = PacketSocket::open(&link::Options {
            interface: interface.map(|interface| interface.index),
            capture: programs.capture_fd(),
            vnet_header: true,
            missing: self.missing,
            segmentation: false,
            outgoing: true,
            timestamps: true,
            receive_buffer: Memory::of_a_sniffer().frames,
        })?;
        if let Some(interface) = interface.filter(|_| promiscuous) {
            socket.set_promiscuous(interface.index)?;
        }
        let mut capture = Capture {
            sniff: self,
            sink: self.output.open(stdout()?)?,
            socket,
            reactor,
            numbers: BTreeMap::new(),
            single: interface.map(|interface| interface.index),
            down: false,
            statistics: InterfaceStatistics::default(),
            asked: Duration::ZERO,
        };
        for known in interface.map_or_else(interface::all, |one| Ok(vec![one.clone()]))? {
            capture.number(known.index, &known.name, LinkType::from_arphrd(known.hardware))?;
        }
        capture.socket.bind()?;
        self.sandbox.enter(&[])?;
        let name = interface.map_or("any interface", |interface| interface.name.as_str());
        log::info!("listening on {name}");
        match capture.run() {
            Ok(End::ReaderGone) => Ok(()),
            result => {
                capture.summarize()?;
                result.map(|_| ())
            }
        }
    }
}

/// A live capture under way.
struct Capture<'a> {
    sniff: &'a Sniff,
    sink: Sink,
    socket: PacketSocket,
    reactor: Reactor,
    /// The sink's number of each interface, by the kernel's index.
    numbers: BTreeMap<u32, u32>,
    single: Option<u32>,
    /// The only interface is down.
    down: bool,
    statistics: InterfaceStatistics,
    /// When the kernel was last asked for statistics.
    asked: Duration,
}

impl Capture<'_> {
    fn run(&mut self) -> Result<End, Error> {
        loop {
            let next = self.turn()?;
            if !flush(&mut self.sink)? {
                return Ok(End::ReaderGone);
            }
            if next == Some(Next::Stop) {
                return Ok(End::Done);
            }
            let now = self.reactor.now();
            if now >= self.asked + STATISTICS_INTERVAL {
                self.count()?;
            }
            if let Some(index) = self.single.filter(|_| self.down) {
                // Fails if the interface is gone for good.
                self.down = !interface::by_index(index)?.up;
            }
            // More may be waiting after a full batch: then this only looks for signals.
            let pause = match next {
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

    /// Takes a batch of frames; `None` when there are no more for now.
    fn turn(&mut self) -> Result<Option<Next>, Error> {
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
            // On lo everything that is sent is received as well.
            if received.outgoing && received.hardware_type == arphrd::LOOPBACK {
                continue;
            }
            let index = received.reply.interface;
            let number = match self.numbers.get(&index) {
                Some(number) => *number,
                None => {
                    let name =
                        interface::by_index(index).map_or_else(|_| format!("if{index}"), |known| known.name);
                    let link_type = LinkType::from_arphrd(received.hardware_type);
                    let interface = InterfaceDescription { name, link_type, snap_length: 0 };
                    let number = self.sink.add_interface(interface)?;
                    self.numbers.insert(index, number);
                    number
                }
            };
            let frame = CapturedFrame::received(&received, number, SystemTime::now());
            if self.sniff.take(&mut self.sink, &frame)? == Next::Stop {
                return Ok(Some(Next::Stop));
            }
        }
        Ok(Some(Next::Continue))
    }

    fn number(&mut self, index: u32, name: &str, link_type: LinkType) -> Result<(), Error> {
        let interface = InterfaceDescription { name: name.to_owned(), link_type, snap_length: 0 };
        let number = self.sink.add_interface(interface)?;
        self.numbers.insert(index, number);
        Ok(())
    }

    /// Adds up what the kernel has counted since the last time.
    fn count(&mut self) -> Result<(), Error> {
        self.asked = self.reactor.now();
        let counted = self.socket.statistics().map_err(Error::Statistics)?;
        self.statistics.received += u64::from(counted.received);
        self.statistics.dropped += u64::from(counted.dropped);
        Ok(())
    }

    /// What tcpdump says at its end, on stderr, and the same for the file's readers.
    fn summarize(&mut self) -> Result<(), Error> {
        self.count()?;
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
        // A reader that is gone does not matter.
        let _ = stderr::write(&summary);
        Ok(())
    }
}

/// Whether somebody still reads.
fn flush(sink: &mut Sink) -> Result<bool, Error> {
    match sink.flush() {
        Err(SinkError::Closed) => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Standard output: its reader is waited for, until a signal ends the run.
fn stdout() -> Result<Box<dyn Write + Send>, Error> {
    Ok(Box::new(Writer::output().map_err(stdio::Error::Output)?))
}

/// What the capture program decides for live frames (bpf/flow.h, `sniffed`), for those of a file.
fn wanted(filter: &SniffFilter, decoded: &DecodedFrame) -> bool {
    if *filter == SniffFilter::default() {
        return true;
    }
    let ip = match &decoded.network {
        Network::Ip(ip) => ip,
        Network::Arp(arp) => {
            let host = filter.host.is_some_and(|host| host == arp.sender || host == arp.target);
            return host && filter.protocol.is_none() && filter.family.is_none() && filter.port.is_none();
        }
        Network::Unknown | Network::Malformed => return false,
    };
    let family = if ip.source.is_ipv4() { IpFamily::Ipv4 } else { IpFamily::Ipv6 };
    filter.family.is_none_or(|wanted| wanted == family)
        && filter.protocol.is_none_or(|protocol| protocol.number() == ip.protocol)
        && filter.host.is_none_or(|host| host == ip.source || host == ip.destination)
        && filter.port.is_none_or(|port| has_port(ip, port))
}

/// Later fragments have no ports, and count as if they had this one.
fn has_port(ip: &Ip, port: u16) -> bool {
    let ports = match &ip.transport {
        Transport::Tcp(tcp) => (tcp.source, tcp.destination),
        Transport::Udp(udp) => (udp.source, udp.destination),
        Transport::Malformed { ports: Some(ports) } => *ports,
        Transport::Fragment => {
            return [Protocol::Tcp, Protocol::Udp].iter().any(|p| p.number() == ip.protocol);
        }
        Transport::Icmp(_) | Transport::Unknown | Transport::Malformed { ports: None } => return false,
    };
    ports.0 == port || ports.1 == port
}
