//! Where frames go once they were seen: as text to a stream, to a capture file, or both.
//!
//! Theory of operation: lines collect in a buffer and leave it whole, when it is full and on [`Sink::flush`],
//! which whoever feeds the sink calls before it waits for more; so a reader sees every line at once and a burst costs few
//! system calls. A reader that goes away is not an error but the end: [`SinkError::Closed`].
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Observed,
    capture_file::{CaptureError, CaptureWriter, Interface, Statistics},
    decode::decode,
    json,
    line::Lines,
    payload,
};
use crate::writer::Writer;

/// Bytes of text that wait for a flush at most.
const BUFFER: usize = 64 * 1024;

/// How packets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// gVisor's line.
    Line,
    /// An object of JSON a line.
    Json,
}

/// What is shown of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    pub form: Form,
    /// Add the payload: a hex dump below the line, a string of hexadecimal digits in the object.
    pub payload: bool,
    /// Name the interface at the end of the line, for where there are several; objects always name it.
    pub interface: bool,
}

/// Where packets are to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// How to show them, if at all.
    pub show: Option<Show>,
    /// The pcapng file to record them in.
    pub record: Option<PathBuf>,
}

impl Output {
    /// Opens the file, and shows on `out` what is to be shown, in local time.
    pub fn open(&self, out: Box<dyn Write + Send>) -> Result<Sink, SinkError> {
        let mut sink = Sink::new();
        if let Some(path) = &self.record {
            sink = sink.record(path)?;
        }
        Ok(match self.show {
            Some(show) => sink.show(out, show, Lines::local()),
            None => sink,
        })
    }
}

/// Why a frame could not be handed on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Nobody reads the output any more: time to end quietly.
    #[error("the reader of the packet lines is gone")]
    Closed,
    #[error("can't write packet lines: {0}")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// Takes frames and shows or records them.
#[derive(Default)]
pub struct Sink {
    text: Option<Text>,
    capture: Option<CaptureWriter<Writer>>,
    interfaces: Vec<Interface>,
    shown: u64,
}

struct Text {
    out: Box<dyn Write + Send>,
    show: Show,
    lines: Lines,
    buffer: Vec<u8>,
}

impl Sink {
    /// A sink that drops everything, until it is told otherwise.
    pub fn new() -> Self {
        Sink::default()
    }

    /// Shows packets on a stream, which should have no buffer of its own and waits for its reader, or drops whole lines.
    pub fn show(mut self, out: Box<dyn Write + Send>, show: Show, lines: Lines) -> Self {
        self.text = Some(Text { out, show, lines, buffer: Vec::with_capacity(BUFFER) });
        self
    }

    /// Records packets in a pcapng file, which is created, or emptied if it exists.
    pub fn record(mut self, path: &Path) -> Result<Self, SinkError> {
        self.capture = Some(CaptureWriter::create(path)?);
        Ok(self)
    }

    /// Makes an interface known. Frames carry the number that is returned, from 0 upwards.
    pub fn add_interface(&mut self, interface: Interface) -> Result<u32, SinkError> {
        if let Some(capture) = &mut self.capture {
            capture.add_interface(&interface)?;
        }
        self.interfaces.push(interface);
        Ok(self.interfaces.len() as u32 - 1)
    }

    /// The number of an interface that was made known before.
    pub fn number(&self, interface: &Interface) -> Option<u32> {
        self.interfaces.iter().position(|known| known == interface).map(|at| at as u32)
    }

    /// Takes one frame.
    pub fn frame(&mut self, frame: &Observed<'_>) -> Result<(), SinkError> {
        if let Some(capture) = &mut self.capture {
            capture.frame(frame)?;
        }
        if let Some(text) = &mut self.text {
            let interface = self.interfaces.get(frame.interface as usize);
            let name = interface.map(|interface| interface.name.as_str()).filter(|name| !name.is_empty());
            text.append(frame, name)?;
        }
        self.shown += 1;
        Ok(())
    }

    /// Records what the kernel counted on an interface until `time` (since the Unix epoch).
    pub fn statistics(
        &mut self,
        interface: u32,
        time: Duration,
        statistics: &Statistics,
    ) -> Result<(), SinkError> {
        match &mut self.capture {
            Some(capture) => Ok(capture.statistics(interface, time, statistics)?),
            None => Ok(()),
        }
    }

    /// Hands on everything taken so far. To be called before waiting, and at the end.
    pub fn flush(&mut self) -> Result<(), SinkError> {
        if let Some(capture) = &mut self.capture {
            capture.flush()?;
        }
        self.text.as_mut().map_or(Ok(()), Text::flush)
    }

    /// How many frames were taken.
    pub fn shown(&self) -> u64 {
        self.shown
    }
}

impl Text {
    fn append(&mut self, frame: &Observed<'_>, interface: Option<&str>) -> Result<(), SinkError> {
        let decoded = decode(frame);
        match self.show.form {
            Form::Json => json::append(&mut self.buffer, frame, &decoded, interface, self.show.payload),
            Form::Line => {
                let interface = interface.filter(|_| self.show.interface);
                self.lines.append(&mut self.buffer, frame, &decoded, interface);
                if self.show.payload {
                    payload::dump(&mut self.buffer, payload::bytes(frame, decoded.payload));
                }
            }
        }
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(SinkError::Closed),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::BrokenPipe => return Err(SinkError::Closed),
                    _ => return Err(SinkError::Write(error)),
                },
            }
        }
        self.buffer.clear();
        Ok(())
    }
}
