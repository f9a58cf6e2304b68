//! One established connection, and nothing else: the loop around a single conversation.
use super::{
    Error, Report,
    conversation::{Channel, Conversation, Ends, Turn},
    count,
    engine::Engine,
    exec::{Children, Command},
    transcript::Taps,
};
use crate::{
    net::FiveTuple,
    reactor::{BUSY_TURNS, Interest},
    recovery::Stats,
    relay::Policy,
    stack::{Counters, Flow, Phase},
    stdio,
};
use std::time::Duration;

/// How long to stay for the FIN that a peer repeats because our last ACK was lost, two round trips aside: Linux's
/// minimum RTO is 200 ms (include/net/tcp.h, TCP_RTO_MIN), its timers' grain 10 ms at most.
const LINGER: Duration = Duration::from_millis(220);
/// The same on a lossy path: the repeated FIN may be lost, too.
const LOSSY_LINGER: Duration = Duration::from_millis(700);
/// How long a peer has to acknowledge our FIN where nothing else is waited for.
const LAST_ACK: Duration = Duration::from_secs(1);

/// What a connection came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub counters: Counters,
    pub stats: Stats,
    /// Packets that the guard kept from the kernel.
    pub kept: u64,
    /// From the handshake's end to the peer's first data, and to the end.
    pub first_byte: Option<Duration>,
    pub duration: Duration,
}

impl Summary {
    /// Of a connection that was established at `start`, as it stands now.
    pub fn new(engine: &Engine, tuple: &FiveTuple, start: Duration) -> Summary {
        let flow = engine.stack.peek(tuple);
        let counters = flow.map(Flow::counters).unwrap_or_default();
        Summary {
            counters,
            stats: flow.map(|flow| flow.recovery().stats()).unwrap_or_default(),
            kept: engine.kept(),
            // What came with the handshake's last segment took no time.
            first_byte: counters.first_data_at.map(|at| at.saturating_sub(start)),
            duration: engine.reactor.now() - start,
        }
    }

    fn log(&self, tuple: &FiveTuple) {
        let Summary { counters, stats, .. } = self;
        log::info!(
            "closed {}: {} bytes sent, {} received in {:.3} s",
            tuple.remote,
            counters.bytes_sent,
            counters.bytes_received,
            self.duration.as_secs_f64()
        );
        let milliseconds = |time: Option<Duration>| {
            time.map_or("unknown".to_owned(), |time| format!("{:.3} ms", time.as_secs_f64() * 1e3))
        };
        log::info!(
            "{} segments with data sent, {} found lost ({} timeouts), {} sent again, {} of them needlessly; smoothed RTT \
             {}, congestion window {} bytes ({}), bandwidth {}; {} packets kept from the kernel",
            stats.segments_sent,
            stats.segments_lost(),
            stats.timeouts,
            stats.segments_retransmitted,
            stats.duplicate_sacks,
            milliseconds(stats.smoothed_rtt),
            stats.congestion_window,
            stats.algorithm,
            stats.bandwidth.map_or("unknown".to_owned(), |rate| format!("{:.3} MB/s", rate as f64 / 1e6)),
            self.kept
        );
        if counters.invalid > 0 {
            let segments = count(counters.invalid, "segment");
            log::warn!("{segments} of {} with a wrong checksum or header length dropped", tuple.remote);
        }
    }
}

/// Relays between the connection and standard input and output, or a process of `command`, until it is over.
/// Says in `report` what went by. On an error the peer is sent a reset.
pub fn run(
    engine: &mut Engine,
    tuple: FiveTuple,
    policy: Policy,
    command: Option<&Command>,
    taps: Taps,
    report: &mut Report,
) -> Result<(), Error> {
    let start = engine.reactor.now();
    let mut children = Children::default();
    let result = converse(engine, tuple, policy, command, taps, &mut children);
    if result.is_err() {
        abort(engine, &tuple);
        engine.check();
        children.hang_up();
    }
    children.end();
    let summary = Summary::new(engine, &tuple, start);
    summary.log(&tuple);
    report.summary(&summary);
    if result.is_ok() {
        linger(engine, &tuple);
    }
    engine.stack.remove(&tuple);
    result
}

fn converse(
    engine: &mut Engine,
    tuple: FiveTuple,
    policy: Policy,
    command: Option<&Command>,
    taps: Taps,
    children: &mut Children,
) -> Result<(), Error> {
    let (ends, mut input, mut output) = match (command, taps.standard) {
        (Some(command), _) => {
            let process = children.spawn(command, &tuple)?;
            (Ends::Process, process.output, process.input)
        }
        (None, Some((input, output))) => (Ends::Standard, input, output),
        (None, None) => return Ok(()),
    };
    let mut conversation = Conversation::new(engine.reactor.now(), tuple, policy, ends);
    let mut busy_turns = 0;
    loop {
        let now = engine.reactor.now();
        let mut busy = engine.ingress_to(now, &mut |_, bytes| conversation.offer(now, bytes, &mut output))?;
        match conversation.turn(now, &mut engine.stack, &mut input, &mut output)? {
            Turn::Idle => {}
            Turn::Busy => busy = true,
            Turn::Finished(result) => {
                result?;
                return finish(engine, &tuple);
            }
        }
        busy |= engine.egress(now)?;
        busy_turns = if busy { busy_turns + 1 } else { 0 };
        if !busy || busy_turns >= BUSY_TURNS {
            let deadline = conversation.deadline().into_iter().chain(input.due(now)).min();
            let deadline = if busy { Some(now) } else { deadline };
            wait(engine, &mut conversation, &input, &mut output, deadline)?;
            busy_turns = 0;
        }
    }
}

fn wait(
    engine: &mut Engine,
    conversation: &mut Conversation,
    input: &Channel,
    output: &mut Channel,
    deadline: Option<Duration>,
) -> Result<(), Error> {
    let reads = input.interest().filter(|_| conversation.wants_input(&engine.stack));
    let hangs_up = conversation.awaits_hang_up();
    let writes = output.interest().or_else(|| output.hang_up().filter(|_| hangs_up));
    let waits_for_input = reads.is_some();
    let mut interests: Vec<Interest<'_>> = reads.into_iter().chain(writes).collect();
    let awake_until = conversation.awake_until(&engine.stack);
    engine.wait_awake(&mut interests, deadline, awake_until)?;
    let mut ready = interests.iter().map(|interest| interest.ready);
    if waits_for_input && ready.next().unwrap_or(false) {
        input.unblock();
    }
    match ready.next().unwrap_or(false) {
        true if output.is_blocked() => output.unblock(),
        true => conversation.output_closed(output),
        false => {}
    }
    Ok(())
}

/// Sends what is left, a FIN if there was none.
fn finish(engine: &mut Engine, tuple: &FiveTuple) -> Result<(), Error> {
    if let Some(flow) = engine.stack.flow(tuple) {
        flow.close();
    }
    let deadline = engine.reactor.now() + LAST_ACK;
    engine.run_until(Some(deadline), |stack| {
        let flow = stack.peek(tuple)?;
        // The peer has what we sent; whether it ends is its own affair by now.
        (flow.phase() == Phase::Closed || flow.unacknowledged() == 0).then_some(())
    })?;
    Ok(())
}

/// Stays in TIME-WAIT while the peer may repeat its FIN: the kernel would answer that with a reset once we are
/// gone. Whoever reads our output need not wait for it.
fn linger(engine: &mut Engine, tuple: &FiveTuple) {
    let Some(flow) = engine.stack.peek(tuple).filter(|flow| flow.in_time_wait() && !flow.is_on_host()) else {
        return;
    };
    let time = if flow.is_lossy() { LOSSY_LINGER } else { LINGER };
    let round_trip = flow.recovery().stats().smoothed_rtt.unwrap_or_default();
    let deadline = engine.reactor.now() + time + 2 * round_trip;
    stdio::release_output();
    // Everything is delivered; what ends the wait early, a signal above all, is no failure any more.
    let left = engine.run_until(Some(deadline), |stack| {
        stack.peek(tuple).is_none_or(|flow| !flow.in_time_wait()).then_some(())
    });
    if let Err(error) = left {
        log::debug!("left TIME-WAIT early: {error}");
    }
}

/// Resets the connection; errors don't matter any more.
fn abort(engine: &mut Engine, tuple: &FiveTuple) {
    engine.stack.flow(tuple).map(Flow::abort);
    let now = engine.reactor.now();
    if let Err(error) = engine.egress(now) {
        log::debug!("cannot reset {tuple}: {error}");
    }
}
