//! netkat's own attempt, with the five-tuple of the kernel's.
use crate::{
    commands::{
        Attempt,
        attempt::{Opened, Origin},
        connect::answer,
    },
    diagnose::{Outcome, RawPath},
    host::neighbour::NeighbourError,
    kernel::KernelError,
    net::{
        FiveTuple, Protocol,
        zone::{endpoint, scoped},
    },
    report::{Error, JsonReport, Verdict},
    runtime::{self, Egress, Engine},
    segment::SeqNumber,
    session,
    stack::Flow,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Interval of datagrams without an answer, as that of the kernel's attempt.
const REPETITION: Duration = Duration::from_secs(1);

/// Makes netkat's attempt from the kernel's port, after a reset of the kernel's connection; from another
/// port where the kernel's cannot be held.
///
/// # Errors
/// A signal that ended the run.
pub(super) fn run(
    attempt: &Attempt,
    egress: &Egress,
    kernel: Option<SocketAddr>,
    sequence: Option<u32>,
    wait: Duration,
    report: &mut JsonReport,
) -> Result<RawPath, Error> {
    let mut attempt = attempt.clone();
    let mut other_port = attempt.request.assumed.map(|_| "--as".to_owned());
    if let (Some(kernel), None) = (kernel, &other_port) {
        attempt.setup.port = kernel.port();
        if attempt.request.via.is_none() {
            attempt.request.query.source = Some(kernel.ip());
        }
    }
    let mut result = once(&attempt, sequence, wait, report);
    if let Err(Error::Runtime(error)) = &result.outcome
        && is_about_the_port(error)
    {
        log::info!("{error}; trying another source port");
        other_port = Some(error.to_string());
        attempt.setup.port = 0;
        result = once(&attempt, None, wait, report);
    }
    let Attempted { outcome, time, local } = result;
    let (outcome, error) = match outcome {
        Ok(()) => (Outcome::Connected, None),
        Err(error) if error.signal().is_some() => return Err(error),
        Err(error) => (outcome_of(&error), Some(error.to_string())),
    };
    let past_egress = (outcome == Outcome::EgressDropped && !attempt.setup.past_egress)
        .then(|| past_egress(attempt, wait))
        .transpose()?;
    Ok(RawPath {
        past_egress,
        outcome,
        error,
        time,
        local,
        next_hop: egress.next_hop.on(egress.interface.index),
        interface: egress.interface.name.clone(),
        other_port,
    })
}

/// Makes the attempt past the programs at egress and the queueing disciplines, one of which has dropped the first.
fn past_egress(mut attempt: Attempt, wait: Duration) -> Result<Outcome, Error> {
    attempt.setup.past_egress = true;
    match once(&attempt, None, wait, &mut JsonReport::default()).outcome {
        Ok(()) => Ok(Outcome::Connected),
        Err(error) if error.signal().is_some() => Err(error),
        Err(error) => Ok(outcome_of(&error)),
    }
}

struct Attempted {
    outcome: Result<(), Error>,
    time: Duration,
    local: Option<SocketAddr>,
}

/// Makes the attempt once. A connection is reset at once: it was only to be tried.
fn once(attempt: &Attempt, sequence: Option<u32>, wait: Duration, report: &mut JsonReport) -> Attempted {
    let port = attempt.remote.port();
    let (mut start, mut local, mut time) = (Instant::now(), None, None);
    let mut connect = || {
        let mut opened = attempt.open(&[port], wait, report)?;
        let egress = opened.origin.egress(port);
        local = Some(scoped(egress.source, opened.engine.port(), egress.interface.index));
        if let Some(sequence) = sequence {
            opened.origin.reset_predecessor(&mut opened.engine, port, SeqNumber(sequence));
        }
        start = Instant::now();
        let result = match attempt.request.query.protocol {
            Protocol::Tcp => dial(&mut opened, port, wait, report),
            Protocol::Udp => ask(&mut opened, port, wait, report),
        };
        // Closing everything takes longer than the handshake.
        time = Some(start.elapsed());
        let (tuple, engine) = (result?, &mut opened.engine);
        engine.stack.flow(&tuple).map(Flow::abort);
        Ok(engine.egress(engine.reactor.now()).map(drop)?)
    };
    let outcome = connect();
    Attempted { outcome, time: time.unwrap_or_else(|| start.elapsed()), local }
}

/// Completes the handshake.
fn dial(opened: &mut Opened, port: u16, wait: Duration, report: &mut JsonReport) -> Result<FiveTuple, Error> {
    let Opened { engine, origin } = opened;
    let start = engine.reactor.now();
    let tuple = origin.dial(engine, port);
    report.flow(&tuple);
    log::info!("dialing {} from {}", endpoint(&tuple.remote), endpoint(&tuple.local));
    let ended = engine.run_until(Some(start + wait), |stack| answer(stack, &tuple))?;
    report.discarded(engine.stack.peek(&tuple).and_then(Flow::discards));
    ended.unwrap_or_else(|| Err(origin.silence(&engine.stack, &tuple, wait)))?;
    report.connected(engine.reactor.now() - start);
    Ok(tuple)
}

/// Sends datagrams until there is an answer.
fn ask(opened: &mut Opened, port: u16, wait: Duration, report: &mut JsonReport) -> Result<FiveTuple, Error> {
    let Opened { engine, origin } = opened;
    let start = engine.reactor.now();
    engine.stack.datagrams.survey();
    let (tuple, _) = origin.flow(engine, Protocol::Udp, port);
    report.flow(&tuple);
    log::info!("asking {} from {}", endpoint(&tuple.remote), endpoint(&tuple.local));
    let (target, end, mut sent, mut dropped) = (tuple.remote, start + wait, 0, 0);
    loop {
        dropped += transmit(engine, origin, port)?;
        sent += 1;
        let until = end.min(engine.reactor.now() + REPETITION);
        let heard = engine.run_until(Some(until), |stack| stack.datagrams.take_survey_answer())?;
        let now = engine.reactor.now();
        match heard.map(|heard| heard.answer) {
            Some(Ok(_)) => {
                report.connected(now - start);
                return Ok(tuple);
            }
            Some(Err(error)) => {
                return Err(session::Error::Rejected { target, error: Box::new(error) }.into());
            }
            None if now < end => {}
            None if dropped == sent => {
                let interface = origin.egress(port).interface.name.clone();
                return Err(session::Error::DatagramsDropped { target, datagrams: sent, interface }.into());
            }
            None => {
                let invalid = engine.stack.datagrams.invalid_from(target);
                let probe = "empty datagram";
                return Err(Error::Silent { target, probe, datagrams: sent, waited: wait, invalid });
            }
        }
    }
}

/// Sends an empty datagram, as the kernel does. Returns the number of datagrams that this host's own egress dropped.
fn transmit(engine: &mut Engine, origin: &Origin, port: u16) -> Result<u64, Error> {
    let before = engine.stack.datagrams.counters().egress_drops;
    let tuple = origin.dial_datagrams(engine, port);
    engine.add_flow(&tuple);
    engine.send_datagrams(&[], 1)?;
    Ok(engine.stack.datagrams.counters().egress_drops - before)
}

/// Returns whether another source port may do.
fn is_about_the_port(error: &runtime::Error) -> bool {
    matches!(
        error,
        runtime::Error::Kernel(KernelError::PortInUse { .. }) | runtime::Error::Masqueraded { .. }
    )
}

fn outcome_of(error: &Error) -> Outcome {
    if let Error::Session(session::Error::Rejected { error, .. }) = error {
        return Outcome::Rejected { error: format!("ICMP {}", error.reason), by: Some(error.from) };
    }
    if let Error::Runtime(runtime::Error::Neighbour(NeighbourError::Failed { .. })) = error {
        return Outcome::NoNeighbour;
    }
    match Verdict::from(error) {
        Verdict::TimedOut => Outcome::TimedOut,
        Verdict::Refused => Outcome::Refused,
        Verdict::NoRoute => Outcome::NoRoute,
        Verdict::NoNeighbour => Outcome::NoNeighbour,
        Verdict::EgressDropped => Outcome::EgressDropped,
        _ => Outcome::Failed(error.to_string()),
    }
}
