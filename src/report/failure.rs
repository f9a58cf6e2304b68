//! The failure of a run, as its last line, its exit status and its JSON object need it.
use super::{Error, Verdict, advice::advice};
use crate::{gateway, namespace, session};
use nix::sys::signal::Signal;
use std::{error, io};

/// The statuses of a command that cannot be run, or is not there, as a shell has them (POSIX, XCU 2.8.2).
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// The status of --run where netkat could not start the command, as docker's.
const NOT_STARTED: u8 = 125;

/// A run's failure. The errors of planning and of commands convert into it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub(super) verdict: Verdict,
    /// The words of the error and of its causes.
    pub(super) message: String,
    /// The signal that ended the run.
    pub(super) signal: Option<Signal>,
    /// The status of a command that could not be started.
    pub(super) status: Option<u8>,
}

impl Failure {
    /// Returns a failure that no signal caused, with the error's words.
    pub(crate) fn new(verdict: Verdict, error: &dyn error::Error) -> Failure {
        Failure { verdict, message: message(error), signal: None, status: None }
    }

    /// Returns the failure of wrong usage.
    pub(crate) fn usage(message: String) -> Failure {
        Failure { verdict: Verdict::Usage, message, signal: None, status: None }
    }

    /// Returns the failure that an error means.
    pub(crate) fn of(error: &Error) -> Failure {
        let (signal, status) = (error.signal(), command_status(error));
        let failure = Failure::new(Verdict::from(error), error).with_advice(advice(error));
        Failure { signal, status, ..failure }
    }

    /// Appends the flag that may help to the message.
    #[must_use]
    pub(crate) fn with_advice(mut self, advice: Option<&str>) -> Failure {
        if let Some(advice) = advice {
            self.message = format!("{}; {advice}", self.message);
        }
        self
    }

    /// Returns the failure of a command that was never started.
    #[must_use]
    pub(crate) fn of_command(self) -> Failure {
        Failure { status: Some(NOT_STARTED), ..self }
    }

    /// Returns the kind of the failure.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns the words of the error and of its causes.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::of(&error)
    }
}

/// Returns the status of a command that could not be started; of --run, also where netkat could not do its
/// part.
fn command_status(error: &Error) -> Option<u8> {
    match error {
        Error::Session(session::Error::Exec { error, .. }) => not_run(error),
        Error::Gateway(gateway::Error::Namespace(namespace::Error::CannotRun { errno, .. })) => {
            Some(not_run(&(*errno).into()).unwrap_or(CANNOT_RUN))
        }
        Error::Gateway(_) => Some(NOT_STARTED),
        _ => None,
    }
}

/// Returns a shell's status for an error of execve(2).
fn not_run(error: &io::Error) -> Option<u8> {
    match error.kind() {
        io::ErrorKind::NotFound => Some(NOT_FOUND),
        io::ErrorKind::PermissionDenied => Some(CANNOT_RUN),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => Some(CANNOT_RUN),
        _ => None,
    }
}

/// Returns the words of an error and of its causes, each once.
fn message(error: &dyn error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
