//! The outcome of a run, for users and scripts: errors, verdicts, exit statuses, the JSON object, hints,
//! log lines.
pub(crate) mod advice;
mod asked;
mod command_report;
mod comparison;
mod counters;
mod destination;
mod error;
pub mod exit;
mod failure;
mod hint;
mod json_report;
pub mod logging;
mod mtu;
mod ping_line;
mod pinging;
mod probed_port;
mod tracing;
mod tried;
mod verdict;

pub(crate) use asked::{Asked, Mode};
pub(crate) use comparison::{ComparedTarget, Comparison};
pub use destination::ReportPlace;
pub(crate) use error::Error;
pub use failure::Failure;
pub(crate) use hint::Hint;
pub use json_report::JsonReport;
pub(crate) use mtu::{Measurement, MtuReport};
pub(crate) use ping_line::{PingLine, PingPath};
pub(crate) use pinging::{PingedTarget, Pinging, ping_status};
pub(crate) use probed_port::{ProbedPort, Waited};
pub(crate) use tracing::{TracedPath, Tracing};
pub(crate) use tried::Tried;
pub(crate) use verdict::Verdict;
