//! Options of standard input and output (`-C`, `--delay`, `-o`, `-x`, `--progress`), and the streams opened
//! with them.
use super::{Channel, Error, Recorder, Stream};
use std::{cell::RefCell, path::PathBuf, rc::Rc, time::Duration};

/// The options of standard input and output.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamOptions {
    /// Translate line feeds of the input to carriage return and line feed.
    pub crlf: bool,
    /// Pause after each line of the input.
    pub delay: Option<Duration>,
    /// File that gets a copy of both directions, in their order.
    pub output: Option<PathBuf>,
    /// File that gets a hex dump of both directions.
    pub hex_dump: Option<PathBuf>,
    /// Append to these files instead of emptying them.
    pub append: bool,
    /// Show bytes, rate and time, if standard error is a terminal.
    pub progress: bool,
}

/// Standard input and output, with their options.
#[derive(Debug)]
pub(crate) struct StandardStreams {
    pub input: Channel,
    pub output: Channel,
}

impl StreamOptions {
    /// Opens the files and standard input and output, while the process may still open files.
    ///
    /// # Errors
    /// Every [`Error`].
    pub(crate) fn open(&self) -> Result<StandardStreams, Error> {
        let recorder = Recorder::open(self)?.map(|recorder| Rc::new(RefCell::new(recorder)));
        let mut input = Channel::input(Stream::input().map_err(Error::Input)?);
        let mut output = Channel::output(Stream::output().map_err(Error::Output)?);
        if let Some(delay) = self.delay {
            input = input.with_line_delay(delay);
        }
        if self.crlf {
            input = input.with_crlf();
        }
        if let Some(recorder) = recorder {
            output = output.recorded(recorder.clone());
            input = input.recorded(recorder);
        }
        Ok(StandardStreams { input, output })
    }
}
