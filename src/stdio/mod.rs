//! Standard streams and files: reads and writes that never block the event loop, and what happens to the
//! data on the way.
mod channel;
mod crlf;
mod interest;
pub(crate) mod line_delay;
mod private_file;
mod progress;
mod recorder;
mod status_line;
pub mod stderr;
mod stream;
mod stream_options;
mod writer;

use std::{io, path::PathBuf};

pub(crate) use channel::{Channel, Input};
pub(crate) use interest::Interest;
use recorder::Recorder;
pub(crate) use status_line::StatusLine;
pub(crate) use stream::{Stream, release_output};
pub(crate) use stream_options::{StandardStreams, StreamOptions};
pub(crate) use writer::{STANDARD, Writer};

/// Longest wait after a signal for a reader of standard output or standard error, in milliseconds.
const LAST_WORDS_MS: u16 = 300;

/// The reason why a standard stream or a copy of it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot write to {}: {error}", path.display())]
    Record { path: PathBuf, error: io::Error },
}
