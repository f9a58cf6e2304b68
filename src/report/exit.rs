//! How a run ends: the one line on stderr, and the exit status that scripts read.
use super::{Error, Report, Verdict};
use crate::{plan::PlanError, stdio};
use nix::sys::signal::{SigSet, Signal, raise};
use std::{io, process::ExitCode};

/// Prints the error, if there is one, and the report if it is asked for, and returns the status that the verdict has.
/// Interrupted runs end by the signal itself, so that the shell sees what happened.
pub fn report(result: &anyhow::Result<()>, detailed: bool, report: Option<Report>) -> ExitCode {
    let signal = match result.as_ref().err().and_then(|error| error.downcast_ref()) {
        Some(error) => Error::signal(error),
        None => None,
    };
    if let Err(error) = result
        && signal.is_none()
    {
        eprintln!("netkat: {}", printable(&message(error)));
    }
    if let Some(report) = report {
        report.conclude(verdict(result), result.as_ref().err().map(message));
    }
    if let Some(signal) = signal {
        die_by(signal);
    }
    ExitCode::from(verdict(result).status(detailed))
}

/// The words of an error and of its causes, each once.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The most characters of a message that are printed from its beginning, and from its end.
const BEGINNING: usize = 400;
const END: usize = 200;

/// A message with nothing in it that a terminal would obey, and not longer than anyone reads: names and paths
/// come from anywhere.
fn printable(message: &str) -> String {
    let clean: Vec<char> =
        message.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    match clean.len() > BEGINNING + END {
        true => {
            clean.iter().take(BEGINNING).chain(&['…']).chain(clean.iter().skip(clean.len() - END)).collect()
        }
        false => clean.into_iter().collect(),
    }
}

/// The status after printing something to standard output.
pub fn printed(result: io::Result<()>) -> ExitCode {
    report(&result.map_err(|error| Error::from(stdio::Error::Output(error)).into()), false, None)
}

fn verdict(result: &anyhow::Result<()>) -> Verdict {
    let Err(error) = result else { return Verdict::Done };
    let planned = error.downcast_ref::<PlanError>().map(PlanError::verdict);
    let ran = || error.downcast_ref::<Error>().map(Verdict::from);
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
