//! The pings of all targets: sends them in time, and tells what became of each.
use super::{Ping, in_flight::InFlight, kernel_path::KernelPath, schedule::Schedule, targets::PingTarget};
use crate::{
    link::PathObserver,
    path::Pinged,
    report::{Error, JsonReport, PingLine, PingPath, PingedTarget, ReportPlace, ping_status},
    runtime::{Engine, Task, Turn},
    stack::{HeaderOnly, Stack},
    stdio::{self, Interest, StatusLine, Writer},
};
use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    io::Write,
    net::SocketAddr,
    os::fd::AsFd,
    time::Duration,
};

/// Maximum pings of a turn, between which answers are taken.
const BURST: usize = 64;
/// Time between two pings, of whichever targets, below which answers no longer end a wait: the kernel stamps them, so
/// pings leave and answers are taken in groups.
const SLOW: Duration = Duration::from_millis(10);
/// Longest time between two groups.
const GROUP: Duration = Duration::from_millis(5);
/// Interval of questions for the link addresses of next hops.
const REFRESH: Duration = Duration::from_secs(2);
/// Beginning of a datagram, behind which its key follows in hexadecimal digits.
pub(super) const MARK: &[u8] = b"netkat ping ";

/// The pings under way.
pub(super) struct Pinger<'a> {
    pub ping: &'a Ping,
    pub targets: Vec<PingTarget>,
    /// The place of each target by its address and port, without a zone.
    pub places: HashMap<SocketAddr, usize>,
    pub in_flight: InFlight,
    /// Resets that end what a SYN-ACK began.
    pub resets: Vec<HeaderOnly>,
    /// Pings to send once more behind the resets.
    pub again: Vec<u32>,
    observer: &'a mut PathObserver,
    kernel: Option<KernelPath>,
    schedule: Option<Schedule>,
    sent_at: Duration,
    refreshed_at: Duration,
    output: Option<Writer>,
    report: &'a mut JsonReport,
    /// Lines that are not written yet.
    lines: String,
    status: StatusLine,
    quiet: Cell<bool>,
    /// Time between two groups of pings; `None` where pings are rare.
    group: Option<Duration>,
    /// The next question is whether frames end the wait.
    waits: Cell<bool>,
}

impl<'a> Pinger<'a> {
    pub(super) fn new(
        ping: &'a Ping,
        targets: Vec<PingTarget>,
        kernel: Option<KernelPath>,
        observer: &'a mut PathObserver,
        output: Option<Writer>,
        report: &'a mut JsonReport,
    ) -> Pinger<'a> {
        let bare = |target: &PingTarget| without_zone(target.tuple.remote);
        let places = targets.iter().map(bare).zip(0..).collect();
        let many = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let group = (many > 1 && ping.interval < SLOW * many).then(|| GROUP.min(ping.interval / 4));
        let status = StatusLine::new(!report.is_on(&ReportPlace::Stderr));
        let seed = targets.iter().find_map(|target| target.syn).map_or(0, |syn| syn.segment.seq.0);
        Pinger {
            ping,
            targets,
            places,
            in_flight: InFlight::new(seed),
            resets: Vec::new(),
            again: Vec::new(),
            observer,
            kernel,
            schedule: None,
            sent_at: Duration::ZERO,
            refreshed_at: Duration::ZERO,
            output,
            report,
            lines: String::new(),
            status,
            quiet: Cell::new(true),
            group,
            waits: Cell::new(false),
        }
    }

    /// Returns what became of the targets, and the output.
    pub(super) fn finish(mut self) -> (Vec<PingedTarget>, Option<Writer>) {
        self.status.clear();
        let target = |target: PingTarget| PingedTarget {
            remote: target.tuple.remote,
            tally: target.tally,
            kernel: target.kernel,
        };
        (self.targets.into_iter().map(target).collect(), self.output)
    }

    /// Tells the result of a ping.
    pub(super) fn note(
        &mut self,
        path: PingPath,
        place: usize,
        number: u64,
        pinged: &Pinged,
        round_trip: Option<Duration>,
    ) {
        let Some(target) = self.targets.get_mut(place) else { return };
        let tally = match path {
            PingPath::Netkat => Some(&mut target.tally),
            PingPath::Kernel => target.kernel.as_mut(),
        };
        if let Some(tally) = tally {
            tally.note(pinged, round_trip);
        }
        let line = PingLine::new(target.tuple.remote, self.ping.protocol, path, number, pinged, round_trip);
        if self.output.is_some() {
            self.lines.push_str(&line.to_string());
            self.lines.push('\n');
        }
        self.report.pinged_once(&line);
    }

    /// Follows next hops to other link addresses.
    fn refresh(&mut self, now: Duration, engine: &mut Engine) {
        if now < self.refreshed_at + REFRESH {
            return;
        }
        self.refreshed_at = now;
        let mut known = BTreeMap::new();
        for target in &mut self.targets {
            let Some(hop) = target.next_hop else { continue };
            let mac = *known.entry(hop).or_insert_with(|| engine.neighbour(hop.0, hop.1).ok().flatten());
            if let Some(mac) = mac {
                target.move_next_hop(mac);
            }
        }
    }

    /// Writes the lines, and the status line below them.
    fn print(&mut self, now: Duration) -> Result<(), Error> {
        if !self.lines.is_empty() {
            self.status.clear();
            if let Some(output) = &mut self.output {
                output.write_all(self.lines.as_bytes()).map_err(stdio::Error::Output)?;
            }
            self.lines.clear();
        }
        let targets = &self.targets;
        self.status.draw(now, || ping_status(targets.iter().map(|target| &target.tally)));
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.schedule.is_some_and(|schedule| schedule.due().is_none())
            && self.in_flight.is_idle()
            && self.kernel.as_ref().is_none_or(KernelPath::is_over)
    }
}

impl Task for Pinger<'_> {
    type Output = ();
    type Error = Error;

    fn takes_frames(&self, _: &Stack) -> bool {
        !self.waits.replace(false)
    }

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        let (interval, count, places) = (self.ping.interval, self.ping.count, self.targets.len());
        let mut schedule = self.schedule.unwrap_or_else(|| Schedule::new(now, interval, places, count));
        self.quiet.set(true);
        for passed in self.observer.take()? {
            self.take(&passed);
        }
        self.reset(engine)?;
        self.refresh(now, engine);
        let mut busy = false;
        if now >= self.sent_at + self.group.unwrap_or_default() {
            for sent in 0..BURST {
                let Some((place, number)) = schedule.take(now) else { break };
                self.send(now, engine, place, number)?;
                busy = sent + 1 == BURST;
                self.sent_at = if busy { self.sent_at } else { now };
            }
        }
        self.schedule = Some(schedule);
        if let Some(mut kernel) = self.kernel.take() {
            for (place, number, pinged, round_trip) in kernel.turn(&engine.reactor, &mut self.targets) {
                self.note(PingPath::Kernel, place, number, &pinged, round_trip);
            }
            self.kernel = Some(kernel);
        }
        while let Some((_, lost)) = self.in_flight.expire(now) {
            self.note(PingPath::Netkat, lost.target, lost.number, &Pinged::Silent, None);
        }
        self.print(now)?;
        if self.is_over() { Ok(Turn::Done(())) } else { Ok(Turn::of(busy)) }
    }

    fn waits_for<'b>(
        &'b self,
        now: Duration,
        _: &Stack,
        interests: &mut Vec<Interest<'b>>,
    ) -> Option<Duration> {
        self.waits.set(self.group.is_some());
        let pause = self.group.unwrap_or_default();
        let tick = self.group.filter(|_| !self.in_flight.is_idle()).map(|group| now + group);
        if self.group.is_none() {
            interests.push(Interest::readable(self.observer.as_fd(), &self.quiet));
        }
        let kernel = self.kernel.as_ref().and_then(|kernel| kernel.waits_for(interests));
        let due = self.schedule.and_then(|schedule| schedule.due()).map(|due| due.max(self.sent_at + pause));
        due.into_iter().chain(self.in_flight.next_end()).chain(kernel).chain(tick).min()
    }
}

/// Returns an address as packets have it.
pub(super) fn without_zone(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
