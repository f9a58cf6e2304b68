//! A channel: a stream of one direction, with its readiness and the translations of its data.
use super::{
    Interest, Recorder, Stream, crlf::CrlfTranslator, line_delay::LineDelay, recorder::DataDirection,
};
use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::AsFd,
    rc::Rc,
    time::Duration,
};

/// A source of a conversation's input.
pub(crate) trait Input {
    /// Returns whether a read may find data or the end.
    fn is_ready(&self, now: Duration) -> bool;
    /// Reads what is there. Returns 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; those of reading.
    fn read(&mut self, now: Duration, room: &mut [u8]) -> io::Result<usize>;
}

/// A stream of one direction that remembers whether it was ready and whether it has ended.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: Option<Stream>,
    blocked: Cell<bool>,
    hung_up: Cell<bool>,
    input: bool,
    crlf: Option<CrlfTranslator>,
    line_delay: Option<LineDelay>,
    recorder: Option<Rc<RefCell<Recorder>>>,
}

impl Channel {
    /// Returns a channel to read from.
    pub(crate) fn input(stream: Stream) -> Channel {
        Channel::new(stream, true)
    }

    /// Returns a channel to write to.
    pub(crate) fn output(stream: Stream) -> Channel {
        Channel::new(stream, false)
    }

    fn new(stream: Stream, input: bool) -> Channel {
        Channel {
            stream: Some(stream),
            blocked: Cell::new(false),
            hung_up: Cell::new(false),
            input,
            crlf: None,
            line_delay: None,
            recorder: None,
        }
    }

    /// Translates bare line feeds of the input to carriage return and line feed.
    pub(crate) fn with_crlf(self) -> Channel {
        Channel { crlf: Some(CrlfTranslator::default()), ..self }
    }

    /// Reads a line at a time, with a pause after each.
    pub(crate) fn with_line_delay(self, delay: Duration) -> Channel {
        Channel { line_delay: Some(LineDelay::new(delay)), ..self }
    }

    /// Returns when to read on, during a pause.
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        self.line_delay.as_ref()?.due(now)
    }

    /// Records the data read or written.
    pub(crate) fn recorded(self, recorder: Rc<RefCell<Recorder>>) -> Channel {
        Channel { recorder: Some(recorder), ..self }
    }

    fn record(&self, direction: DataDirection, bytes: &[u8]) -> io::Result<()> {
        let Some(recorder) = self.recorder.as_ref().filter(|_| !bytes.is_empty()) else { return Ok(()) };
        recorder
            .borrow_mut()
            .record(direction, bytes)
            .map_err(|error| io::Error::other(format!("cannot record the connection's data: {error}")))
    }

    /// Reads through line delay and CRLF translation.
    fn fill(&mut self, now: Duration, stream: &Stream, room: &mut [u8]) -> io::Result<usize> {
        let line_delay = &mut self.line_delay;
        let mut read = |room: &mut [u8]| match line_delay {
            Some(lines) => lines.next(now, room, |room| stream.read(room)),
            None => stream.read(room),
        };
        let Some(ends) = &mut self.crlf else { return read(room) };
        if let (Some(first), Some(byte)) = (room.first_mut(), ends.owed()) {
            *first = byte;
            return Ok(1);
        }
        let limit = CrlfTranslator::limit(room.len());
        let len = read(&mut room[..limit])?;
        Ok(ends.translate(room, len))
    }

    /// Returns whether the last transfer found the stream not ready.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Returns whether the stream is neither closed nor at its end.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Closes the stream; the reader of an output sees its end.
    pub(crate) fn close(&mut self) {
        self.stream = None;
        self.blocked.set(false);
    }

    /// Writes as much as fits. A closed stream drops everything.
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits; those of writing and recording.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &self.stream else { return Ok(bytes.len()) };
        let result = stream.write(bytes);
        self.note(&result);
        let written = result?;
        self.record(DataDirection::Received, &bytes[..written])?;
        Ok(written)
    }

    fn note(&self, result: &io::Result<usize>) {
        self.blocked.set(matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
    }

    /// Returns the event to wait for if the last transfer found the stream not ready.
    pub(crate) fn interest(&self) -> Option<Interest<'_>> {
        let fd = self.stream.as_ref()?.as_fd();
        self.is_blocked().then(|| match self.input {
            true => Interest::readable(fd, &self.blocked),
            false => Interest::writable(fd, &self.blocked),
        })
    }

    /// Returns the event that the reader of a pipe is gone: see [`Channel::has_hung_up`].
    pub(crate) fn hang_up(&self) -> Option<Interest<'_>> {
        Some(Interest::hang_up(self.stream.as_ref()?.as_fd(), &self.hung_up))
    }

    /// Marks the stream as ready.
    #[cfg(test)]
    pub(crate) fn unblock(&self) {
        self.blocked.set(false);
    }

    /// Returns whether the reader of a pipe is gone, if that was waited for.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.hung_up.get()
    }
}

impl Input for Channel {
    fn is_ready(&self, now: Duration) -> bool {
        !self.is_blocked() && self.due(now).is_none()
    }

    /// The end of the stream is final.
    fn read(&mut self, now: Duration, room: &mut [u8]) -> io::Result<usize> {
        if self.due(now).is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(stream) = self.stream.take() else { return Ok(0) };
        let result = self.fill(now, &stream, room);
        self.stream = Some(stream);
        self.note(&result);
        if !room.is_empty() && matches!(result, Ok(0)) {
            self.close();
        }
        let len = result?;
        self.record(DataDirection::Sent, &room[..len])?;
        Ok(len)
    }
}
