//! A sink for frames: text on a stream, a capture file, or both.
//!
//! Theory of operation: lines collect in a buffer, which is written when it is full and on
//! [`Sink::flush`]. The owner flushes before it waits for more frames, so a reader sees every line
//! at once and a burst costs few system calls. A reader that closes the stream ends the output
//! without an error message: [`SinkError::Closed`].
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    capture_file::{CaptureError, CaptureWriter, InterfaceDescription, InterfaceStatistics},
    decode::decode,
    dump::Dump,
    frame::CapturedFrame,
    hexdump, json,
    line::LineFormatter,
    tcpdump::{TcpdumpFormatter, TcpdumpOptions},
};
use crate::stdio::Writer;

/// Size of the text buffer, in bytes.
const BUFFER: usize = 64 * 1024;

/// The form of a packet's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// gVisor's line.
    Line,
    /// tcpdump's line.
    Tcpdump(TcpdumpOptions),
    /// A JSON object per line.
    Json,
}

/// The form and the content of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// The form of each packet.
    pub format: TextFormat,
    /// Add the payload: a hex dump below the line, a string of hexadecimal digits in the object.
    pub payload: bool,
    /// Show the bytes of the packet below the line.
    pub dump: Option<Dump>,
    /// Name the interface at the end of the line, for several interfaces. Objects always name it.
    pub interface: bool,
}

/// The outputs of a sink; the default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SinkOptions {
    /// Show packets as text.
    pub text: Option<TextOptions>,
    /// Record packets in this pcapng file.
    pub capture_file: Option<PathBuf>,
}

impl SinkOptions {
    /// Opens a sink that records in the capture file and shows text on `out`, in local time.
    ///
    /// # Errors
    /// [`SinkError::Capture`].
    pub(crate) fn open(&self, out: Box<dyn Write + Send>) -> Result<Sink, SinkError> {
        let mut sink = Sink::new();
        if let Some(path) = &self.capture_file {
            sink = sink.with_capture_file(path)?;
        }
        Ok(match self.text {
            Some(options) => sink.with_text(out, options, LineFormatter::local()),
            None => sink,
        })
    }
}

/// The reason why a sink cannot take a frame.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The reader of the text or of the capture closed the stream: time to end without a message.
    #[error("the reader of the packets is gone")]
    Closed,
    /// Writing the text failed.
    #[error("can't write packet lines: {0}")]
    Write(#[source] io::Error),
    /// Creating or writing the capture file failed.
    #[error(transparent)]
    Capture(CaptureError),
}

impl From<CaptureError> for SinkError {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => SinkError::Closed,
            error => SinkError::Capture(error),
        }
    }
}

/// A sink that shows and records frames.
#[derive(Default)]
pub struct Sink {
    text: Option<TextOutput>,
    capture_file: Option<CaptureWriter<Writer>>,
    interfaces: Vec<InterfaceDescription>,
    frames: u64,
}

struct TextOutput {
    out: Box<dyn Write + Send>,
    options: TextOptions,
    lines: LineFormatter,
    tcpdump: Option<TcpdumpFormatter>,
    buffer: Vec<u8>,
}

impl Sink {
    /// Returns a sink without outputs.
    pub fn new() -> Self {
        Sink::default()
    }

    /// Shows packets on a stream, which should have no buffer of its own and which waits for its
    /// reader, or drops whole lines.
    pub fn with_text(
        mut self,
        out: Box<dyn Write + Send>,
        options: TextOptions,
        lines: LineFormatter,
    ) -> Self {
        let tcpdump = match options.format {
            TextFormat::Tcpdump(form) => Some(TcpdumpFormatter::new(form, lines.zone().clone())),
            TextFormat::Line | TextFormat::Json => None,
        };
        let buffer = Vec::with_capacity(BUFFER);
        self.text = Some(TextOutput { out, options, lines, tcpdump, buffer });
        self
    }

    /// Records packets in a pcapng file. Creates the file, or truncates an existing one.
    ///
    /// # Errors
    /// [`SinkError::Capture`].
    pub fn with_capture_file(mut self, path: &Path) -> Result<Self, SinkError> {
        self.capture_file = Some(CaptureWriter::create(path)?);
        Ok(self)
    }

    /// Adds an interface. Returns its number, from 0 upwards, for its frames.
    ///
    /// # Errors
    /// [`SinkError::Capture`].
    pub fn add_interface(&mut self, interface: InterfaceDescription) -> Result<u32, SinkError> {
        if let Some(file) = &mut self.capture_file {
            file.add_interface(&interface)?;
        }
        self.interfaces.push(interface);
        Ok(self.interfaces.len() as u32 - 1)
    }

    /// Returns the number of an interface, which is added unless the sink has an equal one.
    ///
    /// # Errors
    /// [`SinkError::Capture`].
    pub(super) fn interface_number(&mut self, interface: InterfaceDescription) -> Result<u32, SinkError> {
        match self.interfaces.iter().position(|known| *known == interface) {
            Some(number) => Ok(number as u32),
            None => self.add_interface(interface),
        }
    }

    /// Shows and records one frame.
    ///
    /// # Errors
    /// Every [`SinkError`].
    pub fn write_frame(&mut self, frame: &CapturedFrame<'_>) -> Result<(), SinkError> {
        if let Some(file) = &mut self.capture_file {
            file.write_frame(frame)?;
        }
        if let Some(text) = &mut self.text {
            let interface = self.interfaces.get(frame.interface as usize);
            let name = interface.map(|interface| interface.name.as_str()).filter(|name| !name.is_empty());
            text.append(frame, name)?;
        }
        self.frames += 1;
        Ok(())
    }

    /// Records the kernel's counters of an interface at `time` (since the Unix epoch).
    ///
    /// # Errors
    /// [`SinkError::Capture`].
    pub fn write_statistics(
        &mut self,
        interface: u32,
        time: Duration,
        statistics: &InterfaceStatistics,
    ) -> Result<(), SinkError> {
        match &mut self.capture_file {
            Some(file) => Ok(file.write_statistics(interface, time, statistics)?),
            None => Ok(()),
        }
    }

    /// Writes everything that is buffered. The owner calls it before it waits, and at the end.
    ///
    /// # Errors
    /// Every [`SinkError`].
    pub fn flush(&mut self) -> Result<(), SinkError> {
        if let Some(file) = &mut self.capture_file {
            file.flush()?;
        }
        self.text.as_mut().map_or(Ok(()), TextOutput::flush)
    }

    /// Returns the number of frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

impl TextOutput {
    fn append(&mut self, frame: &CapturedFrame<'_>, interface: Option<&str>) -> Result<(), SinkError> {
        let TextOptions { format, payload, dump, interface: name_interface } = self.options;
        let decoded = decode(frame);
        let named = interface.filter(|_| name_interface);
        match (format, &mut self.tcpdump) {
            (TextFormat::Json, _) => {
                json::append(&mut self.buffer, frame, &decoded, interface, payload);
            }
            (_, Some(lines)) => lines.append(&mut self.buffer, frame, &decoded, named),
            (_, None) => self.lines.append(&mut self.buffer, frame, &decoded, named),
        }
        if let Some(dump) = dump {
            dump.append(&mut self.buffer, frame, &decoded);
        }
        if payload && format != TextFormat::Json {
            hexdump::append(&mut self.buffer, frame.bytes(decoded.payload));
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
