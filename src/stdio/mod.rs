//! Standard input and output, and what becomes of their bytes on the way.
mod channel;
pub(crate) mod copies;
mod crlf;
mod interest;
pub(crate) mod line_delay;
mod private_file;
pub mod stderr;
mod stream;
mod writer;

use std::{io, path::PathBuf};

pub use channel::{Channel, Input};
pub use copies::{Recording, Taps};
pub use interest::Interest;
pub use stream::{Stream, release_output};
pub use writer::Writer;

/// Why standard input, standard output or a copy of them failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot write to {}: {error}", path.display())]
    Record { path: PathBuf, error: io::Error },
}
