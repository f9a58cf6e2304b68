//! The probes of one path, and their answers.
use super::PathTrace;
use crate::{
    commands::{
        attempt::Opened,
        closing::{close, reset_on_error},
    },
    link::{PathObserver, wall_clock},
    net::{FiveTuple, Protocol},
    path::{Fate, Headers, Reply, ReplyKind, Trace},
    report::{Error, JsonReport, TracedPath},
    runtime::{Engine, Task, Turn},
    stack::{Flow, FlowRoute, HeaderOnly, Phase, Probe, Settings, Stack},
    stdio::Interest,
};
use std::{cell::Cell, os::fd::AsFd, time::Duration};

/// Probes of each hop, as traceroute's.
const ROUNDS: usize = 3;
/// Maximum probes of a path after which no more rounds follow: their numbers are lengths, which must fit into a packet.
const MAX_PROBES: usize = 800;
/// Probes of each hop where answers are missing that nothing explains.
const MAX_ROUNDS: usize = 6;
/// Minimum distance of two rounds: Linux sends one host six ICMP errors at once, and then one a second.
const INTERVAL: Duration = Duration::from_millis(100);
/// Longest and shortest wait for a round's answers. As traceroute's -w, the wait follows the answers that came.
const PATIENCE: Duration = Duration::from_secs(1);
const LEAST_PATIENCE: Duration = Duration::from_millis(200);
/// Distance of the first probe's timestamp from the flow's own, in its clock's units: none of the flow's segments is
/// older than a probe (RFC 7323, section 5.3).
pub(super) const STAMPS: u32 = 4096;
/// A probe that was sent.
pub(super) struct Sent {
    pub headers: Headers,
    pub hop_limit: u8,
    /// Its place among those of the hop.
    pub place: usize,
    pub round: usize,
    /// The time of sending, since 1970: the kernel's, or just before.
    pub at: Duration,
    /// The time just after.
    pub until: Duration,
}

/// The probes of one path.
pub(super) struct Tracer<'a> {
    pub observer: &'a mut PathObserver,
    pub tuple: FiveTuple,
    pub route: FlowRoute,
    pub settings: Settings,
    /// The flow's SYN; `None` for UDP.
    pub syn: Option<HeaderOnly>,
    pub trace: Trace,
    pub hops: u8,
    pub sent: Vec<Sent>,
    /// Probes that this host's own egress dropped.
    pub dropped: u64,
    /// One answer of each hop is enough.
    pub brief: bool,
    /// Rounds begun, and when the last was.
    pub rounds: usize,
    pub begun: Duration,
    pub wait: Duration,
    /// A reset answered a SYN.
    pub refused: bool,
    /// From the first SYN to the SYN-ACK.
    pub connected: Option<Duration>,
    /// The peer's MSS option.
    pub peer_mss: Option<u16>,
    pub quiet: Cell<bool>,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(
        plan: &PathTrace,
        opened: &mut Opened,
        observer: &'a mut PathObserver,
        brief: bool,
        report: &mut JsonReport,
    ) -> Tracer<'a> {
        let Opened { engine, origin } = opened;
        let (tuple, route) = origin.flow(engine, plan.protocol, plan.port);
        report.flow(&tuple);
        log::info!("tracing {tuple}");
        let mut syn = None;
        if plan.protocol == Protocol::Tcp {
            origin.dial(engine, plan.port);
            let now = engine.reactor.now();
            syn = engine.stack.flow(&tuple).and_then(|flow| flow.take_syn(now));
        }
        Tracer {
            observer,
            tuple,
            route,
            settings: plan.settings.clone(),
            syn,
            trace: Trace::new(tuple.remote.ip(), plan.hops),
            hops: plan.hops,
            sent: Vec::new(),
            dropped: 0,
            brief,
            rounds: 0,
            begun: Duration::ZERO,
            wait: plan.wait,
            refused: false,
            connected: None,
            peer_mss: None,
            quiet: Cell::new(true),
        }
    }

    /// Sends all probes, and closes the connection if there is one.
    pub(super) fn run(mut self, opened: &mut Opened, report: &mut JsonReport) -> Result<TracedPath, Error> {
        let engine = &mut opened.engine;
        let result = engine.run(&mut self);
        reset_on_error(engine, &self.tuple, result)?;
        let (tuple, sent) = (self.tuple, self.sent.len() as u64);
        if sent > 0 && self.dropped == sent {
            let interface = opened.origin.egress(tuple.remote.port()).interface.name.clone();
            return Err(Error::EgressDropped { target: tuple.remote, syns: sent, interface });
        }
        close(engine, &tuple)?;
        if let Some(time) = self.connected {
            report.connected(time);
        }
        self.trace.conclude();
        Ok(TracedPath {
            local: tuple.local,
            remote: tuple.remote,
            end: self.trace.end(),
            trace: self.trace,
            probes: sent,
            connected: self.connected,
            peer_mss: self.peer_mss,
        })
    }

    /// Returns the greatest hop limit of the next round: the far end's, or that of the router which rejects.
    fn limit(&self) -> u8 {
        let rejecting = || {
            let rejects = |reply: &Reply| matches!(reply.kind, ReplyKind::Rejected(_));
            let at = self.trace.hops.iter().position(|hop| hop.replies().any(rejects))?;
            u8::try_from(at + 1).ok()
        };
        self.trace.distance().or_else(rejecting).unwrap_or(self.hops).min(self.hops)
    }

    fn begin(&mut self, now: Duration, engine: &mut Engine) -> Result<(), Error> {
        let flow = engine.stack.peek(&self.tuple);
        let open = flow.is_some_and(|flow| flow.phase() == Phase::Open);
        let last = flow.and_then(Flow::last_ack);
        for hop_limit in 1..=self.limit() {
            let answers =
                self.trace.hops.get(usize::from(hop_limit) - 1).is_some_and(|hop| hop.answered() > 0);
            if self.brief && answers {
                continue;
            }
            let number = u16::try_from(self.sent.len() + 1).unwrap_or(u16::MAX);
            let probe = match (&self.syn, last) {
                (None, _) => {
                    let (tuple, route) = (&self.tuple, &self.route);
                    let zeros = vec![0; number.into()];
                    Probe::datagram(tuple, route, &self.settings, Some(hop_limit), number, &zeros)
                }
                (Some(_), Some(last)) if open => {
                    let zeros = vec![0; number.into()];
                    Probe::segment(&last.repeating(number.into()), Some(hop_limit), number, &zeros)
                }
                (Some(syn), _) => {
                    let mut syn = *syn;
                    if let Some(stamps) = &mut syn.segment.options.timestamps {
                        stamps.value = stamps.value.wrapping_sub(STAMPS).wrapping_add(number.into());
                    }
                    if self.refused {
                        // A closed port keeps nothing, so each SYN may have a number of its own, which the reset repeats.
                        syn.segment.seq = syn.segment.seq + u32::from(number);
                    }
                    Probe::segment(&syn, Some(hop_limit), number, &[])
                }
            };
            let Some(headers) = Headers::read(&probe.packet) else { continue };
            let place = self.trace.sent(hop_limit, self.syn.is_some() && !open);
            let at = wall_clock();
            self.dropped += u64::from(!engine.send_probe(&probe)?);
            self.sent.push(Sent { headers, hop_limit, place, round: self.rounds, at, until: wall_clock() });
        }
        (self.rounds, self.begun) = (self.rounds + 1, now);
        Ok(())
    }

    /// Returns when the current round is over, at the latest: at once if each of its probes is answered.
    fn due(&self) -> Duration {
        let limit = self.limit();
        let current = |sent: &&Sent| sent.round + 1 == self.rounds && sent.hop_limit <= limit;
        let is_answered = |sent: &Sent| {
            let hop = self.trace.hops.get(usize::from(sent.hop_limit) - 1);
            hop.and_then(|hop| hop.probes.get(sent.place)).is_some_and(Option::is_some)
        };
        let mut probes = self.sent.iter().filter(current);
        let known = limit < self.hops || self.trace.distance().is_some();
        if known && probes.all(is_answered) {
            return self.begun + INTERVAL;
        }
        let slowest =
            self.trace.hops.iter().flat_map(|hop| hop.replies()).filter_map(|reply| reply.round_trip).max();
        let most = PATIENCE.min(self.wait / ROUNDS as u32);
        let patience = match slowest {
            Some(slowest) if known || self.rounds > 1 => (slowest * 3).max(LEAST_PATIENCE).min(most),
            _ => most,
        };
        self.begun + patience
    }

    fn is_over(&self, stack: &Stack) -> bool {
        let broken =
            stack.peek(&self.tuple).is_some_and(|flow| flow.was_established() && flow.phase() != Phase::Open);
        // An answer of the far end need not tell its probe.
        if self.brief && self.rounds > 0 {
            let answered = self.trace.hops.iter().take(self.limit().into()).all(|hop| hop.answered() > 0);
            return broken || self.rounds >= ROUNDS || answered && self.limit() < self.hops;
        }
        let unexplained = (1..self.limit()).any(|hop| self.trace.fate(hop) == Fate::Loses);
        broken
            || self.rounds >= ROUNDS
                && !(unexplained && self.rounds < MAX_ROUNDS && self.sent.len() < MAX_PROBES)
    }
}

impl Task for Tracer<'_> {
    type Output = ();
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        let busy = engine.egress(now)?;
        self.quiet.set(true);
        for passed in self.observer.take()? {
            self.note(&passed);
        }
        if self.rounds > 0 && now < self.due() {
            return Ok(Turn::of(busy));
        }
        if self.is_over(&engine.stack) {
            return Ok(Turn::Done(()));
        }
        self.begin(now, engine)?;
        Ok(Turn::Busy)
    }

    fn waits_for<'b>(
        &'b self,
        _: Duration,
        _: &Stack,
        interests: &mut Vec<Interest<'b>>,
    ) -> Option<Duration> {
        interests.push(Interest::readable(self.observer.as_fd(), &self.quiet));
        Some(self.due())
    }
}
