//! Packets of growing and shrinking size, and their answers.
use crate::{
    link::{PathObserver, wall_clock},
    net::{FiveTuple, Protocol, minimum_mtu},
    path::{Headers, MtuSearch, Step, TRIES},
    report::{Error, Measurement},
    runtime::{Egress, Engine, Task, Turn},
    stack::{Flow, FlowRoute, HeaderOnly, Phase, Probe, Settings, Stack},
    stdio::Interest,
};
use std::{cell::Cell, net::IpAddr, os::fd::AsFd, time::Duration};

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
pub(super) struct Sent {
    pub headers: Headers,
    /// Its hop limit, if it is to die on the way.
    pub hop_limit: Option<u8>,
    pub at: Duration,
}

/// A size that was tried.
#[derive(Clone, Copy)]
pub(super) struct Outstanding {
    pub size: u32,
    pub until: Duration,
    pub packets: u32,
}

/// The search under way.
pub(super) struct Prober<'a> {
    pub observer: &'a mut PathObserver,
    pub tuple: FiveTuple,
    pub route: FlowRoute,
    pub settings: Settings,
    pub link: u32,
    pub route_mtu: u32,
    pub search: MtuSearch,
    pub sent: Vec<Sent>,
    /// The size without an answer yet, until when it is waited for, and its packets.
    pub outstanding: Option<Outstanding>,
    pub round_trip: Option<Duration>,
    /// The peer reports duplicates (D-SACK), so that an acknowledgment without a report is for something else; `None` until
    /// a byte was repeated to find out.
    pub reports: Option<bool>,
    pub questions: u32,
    /// The MSS options of both SYNs.
    pub own_mss: Option<u16>,
    pub peer_mss: Option<u16>,
    pub largest_received: u32,
    /// The last router that packets of a black hole reached.
    pub lost_after: Option<(u8, IpAddr)>,
    /// End of the wait for errors of the packets that follow a black hole.
    pub following: Option<Duration>,
    pub broken: bool,
    pub quiet: Cell<bool>,
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
        for passed in self.observer.take()? {
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
