//! The outcome of a run, for users and scripts: errors, verdicts, exit statuses, the JSON object, hints,
//! log lines.
pub(crate) mod advice;
mod command_report;
mod error;
pub mod exit;
mod failure;
mod hint;
mod json_report;
pub mod logging;
mod verdict;

pub(crate) use error::Error;
pub use failure::Failure;
pub(crate) use hint::Hint;
pub use json_report::JsonReport;
pub(crate) use verdict::Verdict;
