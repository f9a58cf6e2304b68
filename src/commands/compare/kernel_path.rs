//! The kernel's attempt, from the stand-in's connect(2) to the moment when nothing more is to be learnt.
use super::{drops::DropWatch, failed, watch::Watch};
use crate::{
    diagnose::{KernelPath, Outcome},
    kernel::{AttemptOutcome, IcmpReport, StandIn},
    process::signals::{self, Signals},
    report::Error,
    runtime,
    stack::icmp,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    net::SocketAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Time for events that follow the end of an attempt.
const TAIL: Duration = Duration::from_millis(60);
/// Interval of asking conntrack.
const CONNTRACK_INTERVAL: Duration = Duration::from_millis(50);
/// Time in which a SYN is retransmitted (RFC 6298, section 2), after which a stopped answer has come again.
const RETRANSMISSION: Duration = Duration::from_millis(1100);

/// The kernel's attempt to make.
pub(super) struct KernelAttempt {
    pub remote: SocketAddr,
    pub wait: Duration,
}

impl KernelAttempt {
    /// Makes the attempt. It ends early where it is clear: by connect(2), or by a rule that would stop every
    /// further SYN, too.
    ///
    /// # Errors
    /// The sockets', the stand-in's, and a signal that ends the run.
    pub(crate) fn run(
        &self,
        stand_in: &mut StandIn,
        watches: &mut [Watch],
        drops: &mut DropWatch,
        signals: &Signals,
    ) -> Result<KernelPath, Error> {
        stand_in.connect().map_err(failed("begin the kernel's attempt"))?;
        let start = Instant::now();
        let mut reported: Option<AttemptOutcome> = None;
        let mut end = start + self.wait;
        let mut ask_at = start;
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            let pending = reported.is_none().then_some(&*stand_in);
            let until = if watches.is_empty() { end } else { end.min(ask_at.max(now)) };
            let answered = wait(pending, watches, drops, signals, until - now)?;
            drops.collect()?;
            for watch in watches.iter_mut() {
                watch.collect()?;
            }
            let now = Instant::now();
            if answered && reported.is_none() {
                reported = Some(stand_in.outcome().map_err(failed("learn of the kernel's attempt"))?);
                end = end.min(now + TAIL);
            }
            if watches.iter().any(|watch| watch.stopped.syn) {
                end = end.min(now + TAIL);
            } else if watches.iter().any(|watch| watch.stopped.any) {
                end = end.min(now.max(start + RETRANSMISSION) + TAIL);
            }
            if now >= ask_at {
                watches.iter_mut().for_each(|watch| watch.ask_conntrack(self.remote, drops));
                ask_at = now + CONNTRACK_INTERVAL;
            }
        }
        for watch in watches.iter_mut() {
            watch.collect()?;
            watch.ask_conntrack(self.remote, drops);
        }
        drops.collect()?;
        let time = reported.map_or_else(|| start.elapsed(), |reported| reported.time);
        Ok(KernelPath { outcome: outcome(reported), reported, time, local: stand_in.local() })
    }
}

/// Waits until something is to be read. Returns whether the stand-in has answered.
fn wait(
    stand_in: Option<&StandIn>,
    watches: &[Watch],
    drops: &DropWatch,
    signals: &Signals,
    time: Duration,
) -> Result<bool, Error> {
    let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds = vec![readable(signals.as_fd())];
    fds.extend(stand_in.map(|stand_in| readable(stand_in.as_fd())));
    fds.extend(watches.iter().flat_map(Watch::descriptors).map(readable));
    fds.extend(drops.descriptor().map(readable));
    // Rounded up, or the last fraction of a millisecond becomes a busy loop.
    let milliseconds = time.as_micros().div_ceil(1000);
    match poll(&mut fds, PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(failed("wait for the kernel's attempt")(errno.into())),
    }
    let ready = |index: usize| fds.get(index).is_some_and(|fd| fd.any().unwrap_or(true));
    let answered = stand_in.is_some() && ready(1);
    if ready(0) {
        signals.take().map_err(failed("read a signal"))?;
        if let Some(signal) = signals::ending() {
            return Err(runtime::Error::Interrupted(signal).into());
        }
    }
    Ok(answered)
}

/// Returns the outcome of what connect(2) said; `None` stands for silence.
fn outcome(reported: Option<AttemptOutcome>) -> Outcome {
    let Some(AttemptOutcome { errno, icmp, at_once, .. }) = reported else { return Outcome::TimedOut };
    let Some(errno) = errno else { return Outcome::Connected };
    if let Some(report) = icmp {
        // A port unreachable, too, which connect(2) calls a refusal.
        return Outcome::Rejected { error: words(&report), by: report.offender };
    }
    match Errno::from_raw(errno) {
        Errno::ECONNREFUSED => Outcome::Refused,
        Errno::ETIMEDOUT => Outcome::TimedOut,
        Errno::EHOSTUNREACH if !at_once => Outcome::NoNeighbour,
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EACCES | Errno::EINVAL if at_once => {
            Outcome::NoRoute
        }
        errno => Outcome::Failed(errno.desc().to_owned()),
    }
}

/// Returns an ICMP error in words.
fn words(report: &IcmpReport) -> String {
    let v6 = report.offender.is_some_and(|offender| offender.is_ipv6());
    format!("ICMP {}", icmp::words(v6, report.kind, report.code))
}
