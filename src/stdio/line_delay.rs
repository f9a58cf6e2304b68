//! Lines one at a time, with a pause after each (`--delay`): for peers that are slow, or that look at what comes in
//! one piece as one line, as many that speak UDP do.
//!
//! A line's piece that comes without its line feed, as from a program that asks for an answer on the same line, is
//! not kept waiting for the rest.
use std::{io, time::Duration};

/// The most that is read at once, in bytes.
const READ: usize = 64 << 10;

/// What was read and is not yet due.
#[derive(Clone, Debug)]
pub struct LinePace {
    delay: Duration,
    buffer: Vec<u8>,
    start: usize,
    /// When the pause ends.
    due: Duration,
}

impl LinePace {
    pub fn new(delay: Duration) -> LinePace {
        LinePace { delay, buffer: Vec::new(), start: 0, due: Duration::ZERO }
    }

    /// When to go on, if that is later than `now`.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        Some(self.due).filter(|due| *due > now)
    }

    /// The next line, or as much of it as there is and `room` holds. What `read` says of having nothing, or of the
    /// end, comes through.
    ///
    /// # Errors
    /// `WouldBlock` during the pause; those of `read`.
    pub fn next(
        &mut self,
        now: Duration,
        room: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.due(now).is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.start >= self.buffer.len() {
            self.start = 0;
            self.buffer.resize(READ, 0);
            let result = read(&mut self.buffer);
            self.buffer.truncate(*result.as_ref().unwrap_or(&0));
            result?;
        }
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let len = line.min(room.len());
        let (taken, into) = (&rest[..len], &mut room[..len]);
        into.copy_from_slice(taken);
        self.start += len;
        if into.ends_with(b"\n") {
            self.due = now + self.delay;
        }
        Ok(len)
    }

    /// The pause begins now even though no line has ended.
    pub fn pause(&mut self, now: Duration) {
        self.due = now + self.delay;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_line_waits_for_its_turn_and_pieces_do_not() {
        let mut pace = LinePace::new(at(2));
        let mut room = [0; 4];
        let mut next = |now, input: Option<&[u8]>| {
            let read = |buffer: &mut [u8]| {
                let input = input.expect("nothing is read");
                buffer[..input.len()].copy_from_slice(input);
                Ok(input.len())
            };
            let len = pace.next(at(now), &mut room, read).map_err(|error| error.kind())?;
            Ok::<_, io::ErrorKind>(String::from_utf8_lossy(&room[..len]).into_owned())
        };
        assert_eq!(next(0, Some(b"a\n\nlonger\nx")), Ok("a\n".into()));
        assert_eq!(next(1, None), Err(io::ErrorKind::WouldBlock));
        assert_eq!(next(2, None), Ok("\n".into()));
        assert_eq!(next(3, None), Err(io::ErrorKind::WouldBlock));
        assert_eq!(next(4, None), Ok("long".into()));
        assert_eq!(next(4, None), Ok("er\n".into()));
        assert_eq!(next(6, None), Ok("x".into()));
        assert_eq!(next(6, Some(b"y\n")), Ok("y\n".into()));
        assert_eq!(next(7, None), Err(io::ErrorKind::WouldBlock));
        assert_eq!(next(8, Some(b"")), Ok(String::new()), "the end");
    }
}
