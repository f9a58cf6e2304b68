//! The end of a run: the one line on stderr, the JSON object, and the exit status that scripts read.
use super::{Error, Failure, JsonReport, ReportPlace, Verdict};
use crate::{
    kernel,
    process::signals,
    stdio::{self, stderr},
    text,
};
use nix::{
    errno::Errno,
    sys::signal::{SigSet, Signal, raise},
};
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Ends a run: prints the failure's line and the JSON object, if one is asked for, and returns the exit
/// status.
///
/// The status is the verdict's, with a number for each kind of failure if it is to be `detailed`; or the
/// status of an --exec process. After a signal the process ends by that signal, so that the shell sees it.
pub fn conclude(result: Result<(), Failure>, detailed: bool, report: Option<JsonReport>) -> ExitCode {
    let failure = result.as_ref().err();
    // A signal ends all waiting, so any error after one may follow from it.
    let signal = failure.and_then(|failure| failure.signal.or_else(signals::ending));
    let verdict = match signal {
        Some(_) => Verdict::Interrupted,
        None => failure.map_or(Verdict::Done, |failure| failure.verdict),
    };
    let mut status = failure.and_then(|failure| failure.status).unwrap_or(verdict.status(detailed));
    // On standard error, the object has the line's place.
    let line = report.as_ref().is_none_or(|report| !report.is_on(&ReportPlace::Stderr));
    if let Some(failure) = failure.filter(|_| signal.is_none() && line) {
        print_line(failure);
    }
    if let Some(report) = report {
        status = report.status(detailed).filter(|status| *status != 0).unwrap_or(status);
        if let Err(unwritten) = report.conclude(verdict, failure.map(|failure| failure.message.clone())) {
            print_line(&unwritten);
            status = status.max(unwritten.verdict.status(detailed));
        }
    }
    stderr::finish();
    match signal {
        Some(signal) => die_by(signal),
        None => ExitCode::from(status),
    }
}

fn print_line(failure: &Failure) {
    stderr::print_line(&format!("netkat: {}", text::one_line(&failure.message)));
}

/// Prints a document to standard output. Returns the exit status: a document that cannot be printed is a
/// failure.
pub fn print(document: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> ExitCode {
    let mut out = io::stdout().lock();
    let result = match kernel::output_was_closed() {
        true => Err(Errno::EBADF.into()),
        false => document(&mut out).and_then(|()| out.flush()),
    };
    let result = result.map_err(|error| Failure::from(Error::from(stdio::Error::Output(error))));
    conclude(result, false, None)
}

/// Prints what is wrong with the arguments, and the JSON object at `place` if one is asked for. Returns the exit status.
/// Nothing is set up yet that could be left behind, and signals have their usual effect.
pub fn usage(words: String, place: Option<ReportPlace>) -> ExitCode {
    let wrong = Failure::usage(words);
    match place.map(JsonReport::to).transpose() {
        Ok(report) => conclude(Err(wrong), false, report),
        Err(unwritten) => {
            print_line(&wrong);
            conclude(Err(Failure { verdict: Verdict::Usage, ..unwritten }), false, None)
        }
    }
}

/// Ends the process as if `signal` had never been caught. The signal was only blocked, so its disposition
/// is the original one.
fn die_by(signal: Signal) -> ExitCode {
    let mut mask = SigSet::empty();
    mask.add(signal);
    if let Err(error) = mask.thread_unblock().and_then(|()| raise(signal)) {
        log::debug!("cannot end by {signal}: {error}");
    }
    // Where the disposition spares the process, it exits with the status that a shell reports for that death.
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
}
