//! How a run ends: the one line on stderr, and the exit status that scripts read.
use crate::{mode, plan::PlanError};
use nix::sys::signal::{SigSet, Signal, raise};
use std::process::ExitCode;

/// The connection failed or broke.
const FAILED: u8 = 1;
/// The command line is wrong; clap's own errors exit with the same.
const USAGE: u8 = 2;

/// Prints the error, if there is one, and returns the status: 0 done, 1 failed, 2 usage. Interrupted runs end
/// by the signal itself, so that the shell sees what happened.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(mode::Error::Interrupted(signal)) = error.downcast_ref() {
        die_by(*signal);
    }
    eprintln!("netkat: {error:#}");
    match error.downcast_ref::<PlanError>() {
        Some(error) if error.is_usage() => ExitCode::from(USAGE),
        _ => ExitCode::from(FAILED),
    }
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
