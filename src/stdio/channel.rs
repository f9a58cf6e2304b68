//! A stream of one direction on its way to or from a connection: whether it is ready, what becomes of its bytes.
use super::{
    Interest, Stream,
    copies::{Direction, Transcript},
    crlf::LineEnds,
    line_delay::LinePace,
};
use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::AsFd,
    rc::Rc,
    time::Duration,
};

/// Where a conversation's input comes from.
pub trait Input {
    /// Whether a read may find something, or the end.
    fn is_ready(&self, now: Duration) -> bool;
    /// Reads what is there: `WouldBlock` when that is nothing, 0 at the end.
    fn read(&mut self, now: Duration, room: &mut [u8]) -> io::Result<usize>;
}

/// A stream of one direction that remembers whether it was ready, and whether it has ended.
#[derive(Debug)]
pub struct Channel {
    stream: Option<Stream>,
    blocked: Cell<bool>,
    hung_up: Cell<bool>,
    input: bool,
    line_ends: Option<LineEnds>,
    pace: Option<LinePace>,
    transcript: Option<Rc<RefCell<Transcript>>>,
}

impl Channel {
    pub fn input(stream: Stream) -> Channel {
        Channel::new(stream, true)
    }

    pub fn output(stream: Stream) -> Channel {
        Channel::new(stream, false)
    }

    fn new(stream: Stream, input: bool) -> Channel {
        Channel {
            stream: Some(stream),
            blocked: Cell::new(false),
            hung_up: Cell::new(false),
            input,
            line_ends: None,
            pace: None,
            transcript: None,
        }
    }

    /// Makes bare line feeds of what is read into carriage return and line feed.
    pub fn with_crlf(self) -> Channel {
        Channel { line_ends: Some(LineEnds::default()), ..self }
    }

    /// Yields a line at a time, with a pause after each.
    pub fn paced(self, delay: Duration) -> Channel {
        Channel { pace: Some(LinePace::new(delay)), ..self }
    }

    /// When to read on, if there is a pause.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        self.pace.as_ref()?.due(now)
    }

    /// Records what is read or written.
    pub fn recorded(self, transcript: Rc<RefCell<Transcript>>) -> Channel {
        Channel { transcript: Some(transcript), ..self }
    }

    fn record(&self, direction: Direction, bytes: &[u8]) -> io::Result<()> {
        let Some(transcript) = self.transcript.as_ref().filter(|_| !bytes.is_empty()) else { return Ok(()) };
        transcript
            .borrow_mut()
            .note(direction, bytes)
            .map_err(|error| io::Error::other(format!("what went by can't be recorded: {error}")))
    }

    /// Reads, and translates line ends.
    fn fill(&mut self, now: Duration, stream: &Stream, room: &mut [u8]) -> io::Result<usize> {
        let pace = &mut self.pace;
        let mut read = |room: &mut [u8]| match pace {
            Some(pace) => pace.next(now, room, |room| stream.read(room)),
            None => stream.read(room),
        };
        let Some(ends) = &mut self.line_ends else { return read(room) };
        if let (Some(first), Some(byte)) = (room.first_mut(), ends.owed()) {
            *first = byte;
            return Ok(1);
        }
        let limit = LineEnds::limit(room.len());
        let len = read(&mut room[..limit])?;
        Ok(ends.translate(room, len))
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Closes the stream: whoever reads the other side of an output sees its end.
    pub fn close(&mut self) {
        self.stream = None;
        self.blocked.set(false);
    }

    /// Writes as much as fits; what is written to a closed stream is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &self.stream else { return Ok(bytes.len()) };
        let result = stream.write(bytes);
        self.note(&result);
        let written = result?;
        self.record(Direction::Received, &bytes[..written])?;
        Ok(written)
    }

    fn note(&self, result: &io::Result<usize>) {
        self.blocked.set(matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
    }

    /// What to wait for when the last transfer found the stream not ready.
    pub fn interest(&self) -> Option<Interest<'_>> {
        let fd = self.stream.as_ref()?.as_fd();
        self.is_blocked().then(|| match self.input {
            true => Interest::readable(fd, &self.blocked),
            false => Interest::writable(fd, &self.blocked),
        })
    }

    /// What to wait for to learn that the reader of a pipe has gone: see [`Channel::has_hung_up`].
    pub fn hang_up(&self) -> Option<Interest<'_>> {
        Some(Interest::hang_up(self.stream.as_ref()?.as_fd(), &self.hung_up))
    }

    /// Takes the stream for ready.
    #[cfg(test)]
    pub fn unblock(&self) {
        self.blocked.set(false);
    }

    /// Whether the reader of a pipe has gone, as far as it was waited for.
    pub fn has_hung_up(&self) -> bool {
        self.hung_up.get()
    }
}

impl Input for Channel {
    fn is_ready(&self, now: Duration) -> bool {
        !self.is_blocked() && self.due(now).is_none()
    }

    /// An end, once seen, is final.
    fn read(&mut self, now: Duration, room: &mut [u8]) -> io::Result<usize> {
        if self.due(now).is_some() {
            // The stream itself has more.
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
        self.record(Direction::Sent, &room[..len])?;
        Ok(len)
    }
}
