//! The outcome of a run, for users and scripts: errors, verdicts, exit statuses, the JSON object, hints,
//! log lines.
pub(crate) mod advice;
mod command_report;
mod comparison;
mod error;
pub mod exit;
mod failure;
mod hint;
mod json_report;
pub mod logging;
mod tried;
mod verdict;

pub(crate) use comparison::{ComparedTarget, Comparison};
pub(crate) use error::Error;
pub use failure::Failure;
pub(crate) use hint::Hint;
pub use json_report::JsonReport;
pub(crate) use tried::Tried;
pub(crate) use verdict::Verdict;
