//! A session of a single connection, from its handshake to TIME-WAIT.
use super::{
    Error, Policy, Prologue,
    conversation::{Conversation, Streams},
    process::{Command, Process},
};
use crate::{
    kernel,
    net::{FiveTuple, count, zone::endpoint},
    proxy_protocol::Header,
    recovery::Stats,
    runtime::{Engine, Task, Turn, children::Ended},
    stack::{Flow, FlowCounters, Phase, ReceivedData, Stack},
    stdio::{self, Channel, Interest, StandardStreams},
};
use nix::unistd::Pid;
use std::{net::IpAddr, time::Duration};

/// Stay in TIME-WAIT, besides two round trips, for a FIN that the peer retransmits because the last ACK was
/// lost: Linux's minimum RTO is 200 ms (include/net/tcp.h, TCP_RTO_MIN), its timers' granularity at most 10
/// ms.
const LINGER: Duration = Duration::from_millis(220);
/// Stay in TIME-WAIT on a lossy path, where the retransmitted FIN may be lost, too.
const LOSSY_LINGER: Duration = Duration::from_millis(700);
/// Longest life of the process that stays in TIME-WAIT. A longer stay begins in the foreground.
const SURVIVAL: Duration = Duration::from_secs(1);
/// Longest wait for the acknowledgment of the FIN at the end of a session.
const LAST_ACK: Duration = Duration::from_secs(1);

/// The counters of a connection at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub counters: FlowCounters,
    pub stats: Stats,
    pub path: Option<PathSize>,
    /// Packets that the guard dropped before the kernel's stack.
    pub kept: u64,
    /// Time from the handshake's end to the peer's first data, and to the end.
    pub first_byte: Option<Duration>,
    pub duration: Duration,
    /// How the connection's process ended.
    pub process: Option<Ended>,
    /// The PROXY protocol header in front of the data.
    pub header: Option<Header>,
}

/// The packet sizes of a connection's path, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathSize {
    /// The interface's MTU; `None` once the interface is gone.
    pub link: Option<u32>,
    /// The path's, by the route and routers' messages.
    pub path: usize,
    /// The MSS options of both SYNs.
    pub own_mss: Option<u16>,
    pub peer_mss: Option<u16>,
    /// The last router that said "too big", and how much its next link carries.
    pub too_big: Option<(IpAddr, u32)>,
    /// Full segments were lost without a message.
    pub black_hole: bool,
}

impl PathSize {
    fn of(flow: &Flow, engine: &Engine) -> PathSize {
        let (own_mss, peer_mss) = flow.recovery().announced_mss();
        PathSize {
            link: engine.interface_mtu(flow.next_hop().interface),
            path: flow.path_mtu(),
            own_mss,
            peer_mss,
            too_big: flow.counters().too_big,
            black_hole: flow.recovery().suspects_black_hole(),
        }
    }
}

impl Summary {
    /// Returns the counters so far of a connection that was established at `start`.
    pub(crate) fn new(engine: &mut Engine, tuple: &FiveTuple, start: Duration) -> Summary {
        let kept = engine.guard_drops();
        let flow = engine.stack.peek(tuple);
        let counters = flow.map(Flow::counters).unwrap_or_default();
        Summary {
            counters,
            path: flow.map(|flow| PathSize::of(flow, engine)),
            stats: flow.map(|flow| flow.recovery().stats()).unwrap_or_default(),
            kept,
            // Data may arrive with the handshake's last segment, before the connection counts as established.
            first_byte: counters.first_data_at.map(|at| at.saturating_sub(start)),
            duration: engine.reactor.now() - start,
            process: None,
            header: None,
        }
    }

    fn log(&self, tuple: &FiveTuple) {
        let Summary { counters, stats, .. } = self;
        log::info!(
            "closed {}: {} sent, {} received in {:.3} s",
            endpoint(&tuple.remote),
            count(counters.bytes_sent, "byte"),
            counters.bytes_received,
            self.duration.as_secs_f64()
        );
        let milliseconds = |time: Option<Duration>| {
            time.map_or("unknown".to_owned(), |time| format!("{:.3} ms", time.as_secs_f64() * 1e3))
        };
        log::info!(
            "{} with data sent, {} found lost ({}), {} retransmitted, {} of these needlessly; smoothed RTT \
             {}, congestion window {} ({}), bandwidth {}; {} kept from the kernel",
            count(stats.segments_sent, "segment"),
            stats.segments_lost(),
            count(stats.timeouts, "timeout"),
            stats.segments_retransmitted,
            stats.duplicate_sacks,
            milliseconds(stats.smoothed_rtt),
            count(stats.congestion_window, "byte"),
            stats.algorithm,
            stats.bandwidth.map_or("unknown".to_owned(), |rate| format!("{:.3} MB/s", rate as f64 / 1e6)),
            count(self.kept, "packet")
        );
        if counters.invalid > 0 {
            let segments = count(counters.invalid, "segment");
            log::warn!(
                "{segments} of {} with a wrong checksum or header length dropped",
                endpoint(&tuple.remote)
            );
        }
    }
}

/// Relays between the connection and standard input and output, or a process of `command`, until the
/// session is over; the header of `prologue` comes first. Returns the counters, too. An error resets the connection.
pub(crate) fn run(
    engine: &mut Engine,
    tuple: FiveTuple,
    prologue: Prologue,
    policy: Policy,
    command: Option<&Command>,
    streams: Option<StandardStreams>,
) -> (Summary, Result<(), Error>) {
    let start = engine.reactor.now();
    let (mut header, mut process) = (None, None);
    let result = prologue.run(engine, tuple).and_then(|found| {
        header = found;
        let awaited = header.as_ref().filter(|_| prologue.is_awaited());
        let streams = open(engine, &tuple, command, awaited, streams, &mut process)?;
        converse(engine, tuple, policy, streams)
    });
    if result.is_err() {
        abort(engine, &tuple);
        engine.check();
    }
    if let Some(pid) = process {
        let now = engine.reactor.now();
        engine.reactor.children.release(now, pid, result.is_err());
        engine.end_children(false);
    }
    let mut summary = Summary::new(engine, &tuple, start);
    summary.process = engine.reactor.children.take_ended().pop().map(|(_, ended)| ended);
    summary.header = header;
    summary.log(&tuple);
    if result.is_ok() {
        linger(engine, &tuple);
    }
    engine.stack.remove(&tuple);
    (summary, result)
}

/// Returns the conversation's streams and their owner: standard ones, or those of a process that is started now and
/// noted in `started`. `header` is what the peer sent in front of its data.
fn open(
    engine: &mut Engine,
    tuple: &FiveTuple,
    command: Option<&Command>,
    header: Option<&Header>,
    streams: Option<StandardStreams>,
    started: &mut Option<Pid>,
) -> Result<Option<(Streams, StandardStreams)>, Error> {
    let Some(command) = command else { return Ok(streams.map(|streams| (Streams::Standard, streams))) };
    let process = Process::start(&mut engine.reactor.children, command, tuple, header)?;
    *started = Some(process.pid);
    let streams = StandardStreams { input: process.output, output: process.input };
    Ok(Some((Streams::Process, streams)))
}

/// Runs the conversation.
fn converse(
    engine: &mut Engine,
    tuple: FiveTuple,
    policy: Policy,
    streams: Option<(Streams, StandardStreams)>,
) -> Result<(), Error> {
    let Some((owner, StandardStreams { input, output })) = streams else { return Ok(()) };
    let conversation = Conversation::new(engine.reactor.now(), tuple, policy, owner);
    engine.run(&mut Single { conversation, input, output })??;
    finish(engine, &tuple)
}

/// A conversation with streams of its own.
struct Single {
    conversation: Conversation,
    input: Channel,
    output: Channel,
}

impl Task for Single {
    type Output = Result<(), Error>;
    type Error = Error;

    fn deliver(&mut self, now: Duration, data: ReceivedData<'_>) -> Result<(), Error> {
        self.conversation.deliver(now, data, &mut self.output)
    }

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<Self::Output>, Error> {
        self.conversation.turn(now, &mut engine.stack, &mut self.input, &mut self.output)
    }

    fn waits_for<'a>(
        &'a self,
        now: Duration,
        stack: &Stack,
        interests: &mut Vec<Interest<'a>>,
    ) -> Option<Duration> {
        self.conversation.waits_for(now, stack, &self.input, &self.output, interests)
    }
}

/// Sends the rest of the send buffer, and a FIN if there was none.
fn finish(engine: &mut Engine, tuple: &FiveTuple) -> Result<(), Error> {
    if let Some(flow) = engine.stack.flow(tuple) {
        flow.close();
    }
    let deadline = engine.reactor.now() + LAST_ACK;
    engine.run_until(Some(deadline), |stack| {
        let flow = stack.peek(tuple)?;
        // Everything is delivered; the session does not wait for the peer's FIN.
        (flow.phase() == Phase::Closed || flow.unacknowledged() == 0).then_some(())
    })?;
    Ok(())
}

/// Stays in TIME-WAIT while the peer may retransmit its FIN: after netkat's exit the kernel would answer
/// that with a reset. Neither the reader of standard output nor the caller has to wait: a copy of this process
/// stays, if it can, and ends by itself.
fn linger(engine: &mut Engine, tuple: &FiveTuple) {
    let Some(flow) = engine.stack.peek(tuple).filter(|flow| flow.in_time_wait() && !flow.is_on_host()) else {
        return;
    };
    let time = if flow.is_lossy() { LOSSY_LINGER } else { LINGER };
    let round_trip = flow.recovery().stats().smoothed_rtt.unwrap_or_default();
    let time = time + 2 * round_trip;
    stdio::release_output();
    stay(engine, tuple, time.saturating_sub(SURVIVAL));
    let time = time.min(SURVIVAL);
    match engine.leave_copy() {
        Ok(false) => {}
        Ok(true) => {
            log::set_max_level(log::LevelFilter::Off);
            stay(engine, tuple, time);
            kernel::vanish();
        }
        Err(error) => {
            log::debug!("stays in TIME-WAIT itself: {error}");
            stay(engine, tuple, time);
        }
    }
}

/// Runs the engine for this long, or until the connection is no longer in TIME-WAIT.
fn stay(engine: &mut Engine, tuple: &FiveTuple, time: Duration) {
    if time.is_zero() {
        return;
    }
    let deadline = engine.reactor.now() + time;
    // Everything is delivered: a signal, or another error that ends the wait early, is no failure.
    let waited = engine.run_until(Some(deadline), |stack| {
        stack.peek(tuple).is_none_or(|flow| !flow.in_time_wait()).then_some(())
    });
    if let Err(error) = waited {
        log::debug!("left TIME-WAIT early: {error}");
    }
}

/// Resets the connection. The session has failed already, so a further error is only logged.
fn abort(engine: &mut Engine, tuple: &FiveTuple) {
    engine.stack.flow(tuple).map(Flow::abort);
    let now = engine.reactor.now();
    if let Err(error) = engine.egress(now) {
        log::debug!("cannot reset {tuple}: {error}");
    }
}
