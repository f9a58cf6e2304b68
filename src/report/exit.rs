//! How a run ends: the one line on stderr, and the exit status that scripts read.
use super::{Error, Report, Verdict};
use crate::{
    kernel,
    plan::PlanError,
    process::signals,
    session,
    stdio::{self, stderr},
};
use nix::{
    errno::Errno,
    sys::signal::{SigSet, Signal, raise},
};
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// The statuses of a command that can't be run, or is not there, as a shell has them (POSIX, XCU 2.8.2).
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Prints the error, if there is one, and the report if it is asked for, and returns the status that the verdict has, or
/// that a process of --exec has chosen. Interrupted runs end by the signal itself, so that the shell sees what happened.
pub fn report(result: &anyhow::Result<()>, detailed: bool, report: Option<Report>) -> ExitCode {
    let signal = match result.as_ref().err() {
        // Whatever failed may have failed because nothing waits any more.
        Some(error) => error.downcast_ref().and_then(Error::signal).or_else(signals::ending),
        None => None,
    };
    let verdict = if signal.is_some() { Verdict::Interrupted } else { verdict(result) };
    let mut status = command_status(result).unwrap_or(verdict.status(detailed));
    if let Err(error) = result
        && signal.is_none()
    {
        stderr::say(&format!("netkat: {}", printable(&message(error))));
    }
    if let Some(report) = report {
        status = report.exec_status().filter(|status| *status != 0).unwrap_or(status);
        report.conclude(verdict, result.as_ref().err().map(message));
    }
    stderr::finish();
    match signal {
        Some(signal) => die_by(signal),
        None => ExitCode::from(status),
    }
}

/// The status of a command that could not be started.
fn command_status(result: &anyhow::Result<()>) -> Option<u8> {
    let Some(Error::Session(session::Error::Exec { error, .. })) = result.as_ref().err()?.downcast_ref()
    else {
        return None;
    };
    match error.kind() {
        io::ErrorKind::NotFound => Some(NOT_FOUND),
        io::ErrorKind::PermissionDenied => Some(CANNOT_RUN),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => Some(CANNOT_RUN),
        _ => None,
    }
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

/// Prints to standard output, and returns the status: what can't be printed is a failure.
pub fn print(document: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> ExitCode {
    let mut out = io::stdout().lock();
    let result = match kernel::output_was_closed() {
        true => Err(Errno::EBADF.into()),
        false => document(&mut out).and_then(|()| out.flush()),
    };
    report(&result.map_err(|error| Error::from(stdio::Error::Output(error)).into()), false, None)
}

/// Prints what clap has to say, to standard output if it was asked for.
pub fn usage(error: &clap::Error) -> ExitCode {
    match error.use_stderr() {
        // Nothing has been set up that could be left behind, and signals have their usual effect.
        true => {
            let _ = error.print();
            ExitCode::from(Verdict::Usage.status(false))
        }
        false => print(|_| error.print()),
    }
}

fn verdict(result: &anyhow::Result<()>) -> Verdict {
    let Err(error) = result else { return Verdict::Done };
    let planned = error.downcast_ref::<PlanError>().map(PlanError::verdict);
    let ran = || error.downcast_ref::<Error>().map(Verdict::from);
    planned.or_else(ran).unwrap_or(Verdict::Failed)
}

/// Ends the process as if `signal` had never been caught. It was only blocked, so its disposition is still what it was.
fn die_by(signal: Signal) -> ExitCode {
    let mut mask = SigSet::empty();
    mask.add(signal);
    if let Err(error) = mask.thread_unblock().and_then(|()| raise(signal)) {
        log::debug!("cannot end by {signal}: {error}");
    }
    // A disposition that spares the process leaves it a status, as a shell reports a death.
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
}
