//! How a run ends: the one line on stderr, and the exit status that scripts read.
use crate::{
    mode::{self, Verdict},
    plan::PlanError,
};
use nix::sys::signal::{SigSet, Signal, raise};
use std::{io, process::ExitCode};

/// Prints the error, if there is one, and returns the status that its verdict has. Interrupted runs end by the
/// signal itself, so that the shell sees what happened.
pub fn report(result: &anyhow::Result<()>, detailed: bool) -> ExitCode {
    if let Err(error) = result {
        if let Some(mode::Error::Interrupted(signal)) = error.downcast_ref() {
            die_by(*signal);
        }
        eprintln!("netkat: {error:#}");
    }
    ExitCode::from(verdict(result).status(detailed))
}

/// The status after printing something to standard output.
pub fn printed(result: io::Result<()>) -> ExitCode {
    report(&result.map_err(|error| mode::Error::Output(error).into()), false)
}

fn verdict(result: &anyhow::Result<()>) -> Verdict {
    let Err(error) = result else { return Verdict::Done };
    let planned = error.downcast_ref::<PlanError>().map(PlanError::verdict);
    let ran = || error.downcast_ref::<mode::Error>().map(Verdict::from);
    planned.or_else(ran).unwrap_or(Verdict::Failed)
}

/// Ends the process as if `signal` had never been caught. It was only blocked, so its disposition is still
/// the default.
fn die_by(signal: Signal) {
    let mut mask = SigSet::empty();
    mask.add(signal);
    if let Err(error) = mask.thread_unblock().and_then(|()| raise(signal)) {
        log::debug!("cannot end by {signal}: {error}");
    }
}
