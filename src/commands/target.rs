//! The target of a command: a host, by all of its addresses.
use super::attempt::Attempt;
use crate::report::{Error, Failure, JsonReport, Tried};
use std::net::SocketAddr;

/// The host to talk to, by all of its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The host as typed.
    pub host: String,
    /// The addresses to try, in that order. There are none only if several are unusable.
    pub attempts: Vec<Attempt>,
    /// Further addresses, which nothing can be sent to.
    pub unusable: Vec<Tried>,
}

impl Target {
    /// Returns whether the host has several addresses.
    pub(crate) fn is_choice(&self) -> bool {
        self.attempts.len() + self.unusable.len() > 1
    }

    /// Returns the error of a host that cannot be reached: for several addresses one for all, of which the attempts
    /// have these outcomes; for a single one its own.
    pub(crate) fn fail(
        &self,
        tried: impl Iterator<Item = Tried>,
        own: Option<Error>,
        report: &mut JsonReport,
    ) -> Error {
        match own.filter(|_| !self.is_choice()) {
            Some(error) => error,
            None => {
                report.tried(tried.chain(self.unusable.iter().cloned()));
                report.none_reached(&self.host)
            }
        }
    }

    /// Returns the error of a host whose addresses failed one after another.
    pub(crate) fn fail_with(&self, mut failures: Vec<(SocketAddr, Error)>, report: &mut JsonReport) -> Error {
        let tried: Vec<_> =
            failures.iter().map(|(remote, error)| Tried::failed(*remote, &Failure::of(error))).collect();
        self.fail(tried.into_iter(), failures.pop().map(|(_, error)| error), report)
    }

    /// Returns what `open` makes of the first address for which it succeeds.
    pub(super) fn first<T>(
        &self,
        report: &mut JsonReport,
        mut open: impl FnMut(&Attempt, &mut JsonReport) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut failures = Vec::new();
        for attempt in &self.attempts {
            match open(attempt, report) {
                Err(error) if error.signal().is_none() => {
                    if self.is_choice() {
                        log::info!("{error}");
                    }
                    failures.push((attempt.remote, error));
                }
                result => return result,
            }
        }
        Err(self.fail_with(failures, report))
    }
}
