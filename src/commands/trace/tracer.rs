//! The probes of one path, and their answers.
use super::PathTrace;
use crate::{
    commands::attempt::{Opened, close},
    link::{LinkError, Passed, PathObserver, wall_clock},
    net::{FiveTuple, Protocol},
    path::{Fate, Headers, IcmpQuote, Reached, Reply, ReplyKind, Trace, changes, in_the_name_of},
    report::{Error, JsonReport, TracedPath},
    runtime::{Engine, Task, Turn},
    segment::{ACK, RST, SYN, SeqNumber},
    stack::{Flow, FlowRoute, HeaderOnly, Phase, Probe, Settings, Stack, icmp::Reason},
    stdio::Interest,
};
use std::{cell::Cell, io, net::SocketAddr, os::fd::AsFd, time::Duration};

/// Probes of each hop, as traceroute's.
const ROUNDS: usize = 3;
/// Probes of each hop where answers are missing that nothing explains.
const MAX_ROUNDS: usize = 6;
/// Minimum distance of two rounds: Linux sends one host six ICMP errors at once, and then one a second.
const INTERVAL: Duration = Duration::from_millis(100);
/// Longest and shortest wait for a round's answers. As traceroute's -w, the wait follows the answers that came.
const PATIENCE: Duration = Duration::from_secs(1);
const LEAST_PATIENCE: Duration = Duration::from_millis(200);
/// Distance of the first probe's timestamp from the flow's own, in its clock's units: none of the flow's segments is
/// older than a probe (RFC 7323, section 5.3).
const STAMPS: u32 = 4096;
/// A probe that was sent.
struct Sent {
    headers: Headers,
    hop_limit: u8,
    /// Its place among those of the hop.
    place: usize,
    round: usize,
    /// The time of sending, since 1970: the kernel's, or just before.
    at: Duration,
    /// The time just after.
    until: Duration,
}

/// The probes of one path.
pub(super) struct Tracer<'a> {
    observer: &'a mut PathObserver,
    tuple: FiveTuple,
    route: FlowRoute,
    settings: Settings,
    /// The flow's SYN; `None` for UDP.
    syn: Option<HeaderOnly>,
    trace: Trace,
    hops: u8,
    sent: Vec<Sent>,
    /// Probes that this host's own egress dropped.
    dropped: u64,
    /// One answer of each hop is enough.
    brief: bool,
    /// Rounds begun, and when the last was.
    rounds: usize,
    begun: Duration,
    wait: Duration,
    /// A reset answered a SYN.
    refused: bool,
    /// From the first SYN to the SYN-ACK.
    connected: Option<Duration>,
    /// The peer's MSS option.
    peer_mss: Option<u16>,
    quiet: Cell<bool>,
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
        engine.run(&mut self)?;
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
        broken || self.rounds >= ROUNDS && !(unexplained && self.rounds < MAX_ROUNDS)
    }

    /// Handles a packet that has passed.
    fn note(&mut self, passed: &Passed) {
        let Passed { outgoing, time, bytes } = passed;
        if *outgoing {
            let headers = Headers::read(bytes);
            // Until the kernel stamps packets (net_enable_timestamp() in net/core/dev.c), they have the time of reading.
            let found = self.sent.iter_mut().find(|sent| Some(sent.headers) == headers);
            if let Some(sent) = found.filter(|sent| (sent.at..=sent.until).contains(time)) {
                sent.at = *time;
            }
        } else if let Some(quote) = IcmpQuote::parse(bytes) {
            self.note_error(*time, quote);
        } else if let Some(answer) = Headers::read(bytes) {
            let bare = |end: SocketAddr| SocketAddr::new(end.ip(), end.port());
            if (answer.source, answer.destination) == (bare(self.tuple.remote), bare(self.tuple.local)) {
                self.note_answer(*time, &answer);
            }
        }
    }

    fn note_error(&mut self, time: Duration, quote: IcmpQuote) {
        let Some(sent) = self.quoted(&quote.quoted) else { return };
        let remote = self.tuple.remote.ip();
        let kind = match quote.reason {
            Reason::HopLimitExceeded => ReplyKind::Exceeded,
            Reason::PacketTooBig(mtu) => ReplyKind::TooBig(mtu),
            Reason::PortUnreachable if quote.from == remote && self.syn.is_none() => {
                ReplyKind::Reached(Reached::PortUnreachable)
            }
            reason => ReplyKind::Rejected(reason),
        };
        let mut changes = changes(&sent.headers, &quote.quoted, kind == ReplyKind::Exceeded);
        if kind == ReplyKind::Exceeded && quote.from == remote {
            changes.push(in_the_name_of(remote));
        }
        let reply = Reply {
            from: quote.from,
            kind,
            round_trip: time.checked_sub(sent.at),
            hop_limit: quote.hop_limit,
            changes,
            labels: quote.labels,
        };
        let (hop_limit, place) = (sent.hop_limit, sent.place);
        self.trace.answered(hop_limit, place, reply);
    }

    /// Returns the probe that an error quotes: by its identification, length or timestamp.
    fn quoted(&self, quoted: &Headers) -> Option<&Sent> {
        let ours = || self.sent.iter().filter(|sent| quoted.is_of(&sent.headers));
        let stamp = |headers: &Headers| headers.segment?.options.timestamps.map(|stamps| stamps.value);
        let len = quoted.payload_len().filter(|len| *len > 0);
        ours()
            .find(|sent| quoted.id.is_some() && sent.headers.id == quoted.id)
            .or_else(|| ours().find(|sent| len.is_some() && sent.headers.payload_len() == len))
            .or_else(|| ours().find(|sent| stamp(quoted).is_some() && stamp(&sent.headers) == stamp(quoted)))
    }

    /// Notes an answer of the far end.
    fn note_answer(&mut self, time: Duration, answer: &Headers) {
        let by_number = |number: u32| usize::try_from(number).ok()?.checked_sub(1);
        let (by, number) = match (&self.syn, &answer.segment) {
            (None, _) => (Reached::Datagram, None),
            (Some(syn), Some(segment)) if segment.is(RST) => {
                let offset = segment.ack - 1 - syn.segment.seq.0;
                self.refused |= self.connected.is_none();
                (Reached::Reset, by_number(offset.0))
            }
            (Some(syn), Some(segment)) if segment.is(SYN) && segment.ack == syn.segment.seq + 1 => {
                self.peer_mss = segment.options.mss;
                let base =
                    syn.segment.options.timestamps.map_or(0, |stamps| stamps.value.wrapping_sub(STAMPS));
                let echo = segment.options.timestamps.map(|stamps| stamps.echo.wrapping_sub(base));
                (Reached::SynAck, echo.and_then(by_number))
            }
            (Some(syn), Some(segment)) if segment.is(ACK) && segment.seq_len() == 0 => {
                // The duplicate that a D-SACK reports (RFC 2883) is as long as the probe's number says. Without SACK, an
                // acknowledgment is for the only probe of the round that reaches the peer.
                let end: SeqNumber = syn.segment.seq + 1;
                let reported = segment.options.sack.iter().next().filter(|(_, right)| *right == end);
                let length = reported.and_then(|(left, _)| u32::try_from(end.distance_from(left)).ok());
                let distance = self.trace.distance();
                let last = || {
                    let is_last =
                        |sent: &Sent| sent.round + 1 == self.rounds && Some(sent.hop_limit) == distance;
                    self.sent.iter().position(is_last).filter(|_| self.rounds > 1)
                };
                let Some(number) = length.and_then(by_number).or_else(last) else { return };
                (Reached::Acknowledged, Some(number))
            }
            _ => return,
        };
        let sent = number.and_then(|at| self.sent.get(at));
        // A retransmitted SYN has no number; the first that could reach the peer is the probe behind the last router.
        let behind = || {
            let reach = self.trace.hops.iter().rposition(|hop| hop.answered() > 0).map_or(0, |at| at + 1);
            let current = |sent: &&Sent| sent.round + 1 == self.rounds && usize::from(sent.hop_limit) > reach;
            self.sent.iter().find(current)
        };
        let first = self.sent.first().map(|sent| sent.at);
        let round_trip = sent.or_else(behind).and_then(|sent| time.checked_sub(sent.at));
        if by == Reached::SynAck && self.connected.is_none() {
            self.connected = first.and_then(|first| time.checked_sub(first));
        }
        let (changes, labels) = (Vec::new(), Vec::new());
        let reply = Reply {
            from: self.tuple.remote.ip(),
            kind: ReplyKind::Reached(by),
            round_trip,
            hop_limit: answer.hop_limit,
            changes,
            labels,
        };
        match sent.map(|sent| (sent.hop_limit, sent.place)) {
            Some((hop_limit, place)) => self.trace.answered(hop_limit, place, reply),
            None => self.trace.reached(reply),
        }
    }
}

impl Task for Tracer<'_> {
    type Output = ();
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        let busy = engine.egress(now)?;
        self.quiet.set(true);
        for passed in self.observer.take().map_err(unreadable)? {
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

fn unreadable(error: io::Error) -> Error {
    LinkError::Io { operation: "read a packet socket", interface: "all interfaces".into(), error, hint: "" }
        .into()
}
