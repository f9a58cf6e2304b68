//! Sniffing (`--sniff`, `--read`): shows and records the packets of an interface or of a capture file.
//!
//! netkat takes no port, opens no connection and sends nothing. A live capture ends by a signal, by
//! `--count`, or when the reader of its output is gone; a summary follows, as tcpdump's.
mod capture;
mod filter;

use self::capture::{Capture, End};
use crate::{
    host::{features::FeatureOverrides, interface::Interface},
    kernel::SniffFilter,
    process::sandbox::Sandbox,
    report::Error,
    sniffer::{
        CapturedFrame,
        capture_file::{CaptureReader, CaptureRecord},
        decode::decode,
        sink::{Sink, SinkError, SinkOptions},
    },
    stdio::{self, Writer},
};
use std::{io::Write, path::PathBuf};

/// The source of the frames.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// One interface, or all of them.
    Live { interface: Option<Interface>, promiscuous: bool },
    /// A capture file.
    File(PathBuf),
}

/// Frames to show and to record.
#[derive(Clone, Debug)]
pub(crate) struct Sniff {
    pub source: Source,
    pub filter: SniffFilter,
    pub output: SinkOptions,
    /// Packets after which netkat exits.
    pub count: Option<u64>,
    /// Features that the kernel counts as lacking.
    pub overrides: FeatureOverrides,
    /// Privileges that the process gives up once everything is open.
    pub sandbox: Sandbox,
}

/// State of the sink after a frame.
#[derive(PartialEq, Eq)]
enum Progress {
    GoOn,
    /// The count is reached, or the reader is gone.
    Done,
}

impl Sniff {
    /// Shows and records frames until the source, the count, a signal or the reader ends it.
    pub fn run(&self) -> Result<(), Error> {
        match &self.source {
            Source::File(path) => self.replay(CaptureReader::open(path).map_err(SinkError::Capture)?),
            Source::Live { interface, promiscuous } => self.watch(interface.as_ref(), *promiscuous),
        }
    }

    fn replay(&self, mut reader: CaptureReader) -> Result<(), Error> {
        let mut sink = self.output.open(stdout()?)?;
        self.sandbox.enter(&[])?;
        let result = loop {
            match reader.read() {
                Ok(Some(CaptureRecord::Interface(interface))) => drop(sink.add_interface(interface)?),
                Ok(Some(CaptureRecord::Frame(frame))) => {
                    let passes = filter::passes(&self.filter, &decode(&frame));
                    if passes && self.write(&mut sink, &frame)? == Progress::Done {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(SinkError::Capture(error).into()),
            }
        };
        // The readable part of a damaged file is shown before the error.
        flush(&mut sink)?;
        result
    }

    fn watch(&self, interface: Option<&Interface>, promiscuous: bool) -> Result<(), Error> {
        let mut capture = Capture::open(self, interface, promiscuous)?;
        self.sandbox.enter(&[])?;
        log::info!("listening on {}", interface.map_or("any interface", |interface| interface.name.as_str()));
        if let Some(problem) = interface.and_then(Interface::problem) {
            log::warn!("no packet will come: {problem}");
        }
        match capture.run() {
            Ok(End::ReaderGone) => Ok(()),
            result => {
                capture.summarize()?;
                result.map(|_| ())
            }
        }
    }

    /// Writes one frame to the sink.
    fn write(&self, sink: &mut Sink, frame: &CapturedFrame<'_>) -> Result<Progress, Error> {
        match sink.write_frame(frame) {
            Err(SinkError::Closed) => return Ok(Progress::Done),
            result => result?,
        }
        let done = self.count.is_some_and(|count| sink.frames() >= count);
        Ok(if done { Progress::Done } else { Progress::GoOn })
    }
}

/// Flushes the sink. Returns whether its output still has a reader.
fn flush(sink: &mut Sink) -> Result<bool, Error> {
    match sink.flush() {
        Err(SinkError::Closed) => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Returns standard output, whose writes wait for the reader until a signal ends the run.
fn stdout() -> Result<Box<dyn Write + Send>, Error> {
    Ok(Box::new(Writer::output().map_err(stdio::Error::Output)?))
}
