//! Packets of growing and shrinking size, and their answers.
use crate::{
    link::{LinkError, Passed, PathObserver, wall_clock},
    net::{FiveTuple, Protocol, minimum_mtu},
    path::{Headers, IcmpQuote, MtuSearch, Step, TRIES, TooBig},
    report::{Error, Measurement},
    runtime::{Egress, Engine, Task, Turn},
    segment::{ACK, RST, SYN, SeqNumber},
    stack::{Flow, FlowRoute, HeaderOnly, Phase, Probe, Settings, Stack, icmp::Reason},
    stdio::Interest,
};
use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

/// Shortest and longest wait for an answer, which otherwise is three round trips.
const LEAST_PATIENCE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(1);
/// Wait for an answer while no round trip is known.
const FIRST_PATIENCE: Duration = Duration::from_millis(500);
/// Hops to which the packets of a black hole are followed, and how long their errors are waited for.
const HOPS: u8 = 30;
const LAST_ERRORS: Duration = Duration::from_millis(500);

/// Size of the packet whose answer shows how the peer acknowledges duplicates, in bytes: more than all headers.
const LEAST: u32 = 140;

/// A packet that was sent.
struct Sent {
    headers: Headers,
    /// Its hop limit, if it is to die on the way.
    hop_limit: Option<u8>,
    at: Duration,
}

/// A size that was tried.
#[derive(Clone, Copy)]
struct Outstanding {
    size: u32,
    until: Duration,
    packets: u32,
}

/// The search under way.
pub(super) struct Prober<'a> {
    observer: &'a mut PathObserver,
    tuple: FiveTuple,
    route: FlowRoute,
    settings: Settings,
    link: u32,
    route_mtu: u32,
    search: MtuSearch,
    sent: Vec<Sent>,
    /// The size without an answer yet, until when it is waited for, and its packets.
    outstanding: Option<Outstanding>,
    round_trip: Option<Duration>,
    /// The peer reports duplicates (D-SACK), so that an acknowledgment without a report is for something else; `None` until
    /// a byte was repeated to find out.
    reports: Option<bool>,
    questions: u32,
    /// The MSS options of both SYNs.
    own_mss: Option<u16>,
    peer_mss: Option<u16>,
    largest_received: u32,
    /// The last router that packets of a black hole reached.
    lost_after: Option<(u8, IpAddr)>,
    /// Until when errors of the packets that follow a black hole are waited for.
    following: Option<Duration>,
    broken: bool,
    quiet: Cell<bool>,
}

impl<'a> Prober<'a> {
    pub(super) fn new(
        tuple: FiveTuple,
        route: FlowRoute,
        settings: Settings,
        egress: &Egress,
        round_trip: Option<Duration>,
        observer: &'a mut PathObserver,
    ) -> Prober<'a> {
        // The length field of an IP packet has 16 bits.
        let link = egress.interface.mtu;
        let largest = link.min(u16::MAX.into());
        Prober {
            observer,
            tuple,
            route,
            settings,
            link,
            route_mtu: egress.mtu,
            search: MtuSearch::new(largest, minimum_mtu(tuple.remote.ip())),
            sent: Vec::new(),
            outstanding: None,
            round_trip,
            reports: (tuple.protocol == Protocol::Udp).then_some(false),
            questions: 0,
            own_mss: None,
            peer_mss: None,
            largest_received: 0,
            lost_after: None,
            following: None,
            broken: false,
            quiet: Cell::new(true),
        }
    }

    /// Returns what was found.
    pub(super) fn finish(self) -> Measurement {
        Measurement {
            link: self.link,
            route: self.route_mtu,
            finding: self.search.finding(),
            own_mss: self.own_mss,
            peer_mss: self.peer_mss,
            largest_received: Some(self.largest_received).filter(|size| *size > 0),
            lost_after: self.lost_after,
        }
    }

    /// Returns the flow's acknowledgment, from which repeats are made; `None` for UDP and a connection that is over.
    fn acknowledgment(&self, stack: &Stack) -> Option<HeaderOnly> {
        stack.peek(&self.tuple).filter(|flow| flow.phase() == Phase::Open).and_then(Flow::last_ack)
    }

    /// Sends a packet of this size. Returns whether it left.
    fn send(&mut self, engine: &mut Engine, size: u32, hop_limit: Option<u8>) -> Result<bool, Error> {
        let number = u16::try_from(self.sent.len() + 1).unwrap_or(u16::MAX);
        let header = self.acknowledgment(&engine.stack);
        let make = |header: Option<HeaderOnly>, payload: &[u8]| match header {
            Some(header) => Probe::segment(&header, hop_limit, number, payload),
            None => Probe::datagram(&self.tuple, &self.route, &self.settings, hop_limit, number, payload),
        };
        if self.tuple.protocol == Protocol::Tcp && header.is_none() {
            self.broken = true;
            return Ok(false);
        }
        let mut payload = vec![0; (size as usize).saturating_sub(make(header, &[]).packet.len())];
        if let (Some(_), Some(mark)) = (hop_limit, payload.first_chunk_mut()) {
            // The checksum then tells these packets apart, which no receiver sees.
            *mark = number.to_be_bytes();
        }
        let probe = make(header.map(|header| header.repeating(payload.len() as u32)), &payload);
        let at = wall_clock();
        let left = engine.send_probe(&probe)?;
        if let Some(headers) = Headers::read(&probe.packet) {
            self.sent.push(Sent { headers, hop_limit, at });
        }
        Ok(left)
    }

    /// Handles a packet that has passed.
    fn note(&mut self, passed: &Passed) {
        let Passed { outgoing, time, bytes } = passed;
        if let Some(quote) = IcmpQuote::parse(bytes).filter(|_| !outgoing) {
            return self.note_error(*time, &quote);
        }
        let Some(headers) = Headers::read(bytes) else { return };
        let bare = |end: SocketAddr| SocketAddr::new(end.ip(), end.port());
        let ends = (bare(self.tuple.local), bare(self.tuple.remote));
        let syn = headers.segment.filter(|segment| segment.is(SYN)).and_then(|segment| segment.options.mss);
        if *outgoing {
            if (headers.source, headers.destination) == ends {
                self.own_mss = self.own_mss.or(syn);
            }
        } else if (headers.destination, headers.source) == ends {
            self.peer_mss = self.peer_mss.or(syn);
            // A coalesced frame is no packet of the path.
            let size = u32::try_from(headers.total_len).unwrap_or(0);
            if size <= self.link {
                self.largest_received = self.largest_received.max(size);
            }
            self.note_answer(*time, &headers);
        }
    }

    fn note_error(&mut self, time: Duration, quote: &IcmpQuote) {
        let expired = quote.reason == Reason::HopLimitExceeded;
        let Some(sent) = self.sent.iter().find(|sent| {
            let (quoted, own) = (&quote.quoted, &sent.headers);
            // IPv6 has no identification, but quotes more.
            let same = match quoted.id {
                Some(id) => own.id == Some(id),
                None if expired => own.checksum == quoted.checksum,
                None => own.total_len == quoted.total_len,
            };
            quoted.is_of(own) && same && sent.hop_limit.is_some() == expired
        }) else {
            return;
        };
        let size = sent.headers.total_len as u32;
        match quote.reason {
            Reason::PacketTooBig(mtu) => {
                self.search.too_big(TooBig { from: quote.from, mtu, size });
                self.outstanding = None;
            }
            Reason::HopLimitExceeded => {
                let hop = sent.hop_limit.unwrap_or_default();
                if self.lost_after.is_none_or(|(last, _)| hop > last) {
                    self.lost_after = Some((hop, quote.from));
                }
            }
            Reason::PortUnreachable if quote.from == self.tuple.remote.ip() => {
                let at = sent.at;
                self.arrived(time, size, at);
            }
            _ => {}
        }
    }

    fn note_answer(&mut self, time: Duration, answer: &Headers) {
        let Some(Outstanding { size, .. }) = self.outstanding else { return };
        let reported = match answer.segment {
            None => None,
            Some(segment) if segment.is(RST) || !segment.is(ACK) || segment.seq_len() > 0 => return,
            Some(segment) => {
                let end: SeqNumber = segment.ack;
                let block = segment.options.sack.iter().next().filter(|(_, right)| *right == end);
                block.and_then(|(left, _)| u32::try_from(end.distance_from(left)).ok())
            }
        };
        let of = |sent: &&Sent| match reported {
            Some(length) => sent.headers.payload_len() == Some(length as usize),
            None => sent.headers.total_len == size as usize,
        };
        if answer.segment.is_some() && self.reports.is_none() {
            self.reports = Some(reported.is_some());
            self.outstanding = None;
            return;
        }
        if reported.is_none() && self.reports == Some(true) {
            return;
        }
        let found = self.sent.iter().rev().find(of).map(|sent| (sent.headers.total_len as u32, sent.at));
        if let Some((size, at)) = found {
            self.arrived(time, size, at);
        }
    }

    fn arrived(&mut self, time: Duration, size: u32, at: Duration) {
        self.search.arrived(size);
        self.round_trip = self.round_trip.max(time.checked_sub(at));
        self.outstanding = self.outstanding.filter(|outstanding| outstanding.size != size);
    }

    /// Takes the next step. Returns whether the search is over.
    fn advance(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        if let Some(Outstanding { size, until, packets }) = self.outstanding {
            if now < until {
                return Ok(false);
            }
            self.outstanding = None;
            if self.reports.is_none() && self.questions >= TRIES {
                self.reports = Some(true);
            }
            (0..packets).for_each(|_| self.search.unanswered(size));
        }
        if self.reports.is_none() && !self.broken {
            self.questions += 1;
            self.send(engine, LEAST, None)?;
            self.outstanding = Some(Outstanding { size: LEAST, until: now + FIRST_PATIENCE, packets: 0 });
            return Ok(self.broken);
        }
        match self.search.step() {
            Step::Try(size) if !self.broken => {
                // Where large packets are lost silently, the next size is likely to be: its packets leave at once.
                let packets = if self.search.lost().is_some() { TRIES } else { 1 };
                let mut left = false;
                for _ in 0..packets {
                    left |= self.send(engine, size, None)?;
                }
                let patience = self.round_trip.map_or(FIRST_PATIENCE, |time| time * 3);
                let patience = if left { patience.clamp(LEAST_PATIENCE, PATIENCE) } else { Duration::ZERO };
                self.outstanding = Some(Outstanding { size, until: now + patience, packets });
                Ok(false)
            }
            _ => match (self.following, self.search.lost()) {
                // Where the search began with an answer, what is lost dies at the narrow link, and can be followed there.
                (None, Some(lost)) if !self.broken && self.search.arrives() => {
                    for hop_limit in 1..=HOPS {
                        self.send(engine, lost, Some(hop_limit))?;
                    }
                    self.following = Some(now + LAST_ERRORS);
                    Ok(false)
                }
                (Some(until), _) => Ok(now >= until),
                _ => Ok(true),
            },
        }
    }
}

impl Task for Prober<'_> {
    type Output = ();
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        let busy = engine.egress(now)?;
        self.quiet.set(true);
        for passed in self.observer.take().map_err(unreadable)? {
            self.note(&passed);
        }
        if self.advance(now, engine)? { Ok(Turn::Done(())) } else { Ok(Turn::of(busy)) }
    }

    fn waits_for<'b>(
        &'b self,
        _: Duration,
        _: &Stack,
        interests: &mut Vec<Interest<'b>>,
    ) -> Option<Duration> {
        interests.push(Interest::readable(self.observer.as_fd(), &self.quiet));
        self.outstanding.map(|outstanding| outstanding.until).or(self.following)
    }
}

fn unreadable(error: io::Error) -> Error {
    LinkError::Io { operation: "read a packet socket", interface: "all interfaces".into(), error, hint: "" }
        .into()
}
