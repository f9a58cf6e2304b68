//! What the user and the script see of a run's end: the error, its verdict and exit status, the JSON object, hints.
mod error;
pub mod exit;
mod hint;
pub mod logging;
mod outcome;
mod verdict;

pub use error::Error;
pub use hint::Hint;
pub use outcome::Report;
pub use verdict::Verdict;
