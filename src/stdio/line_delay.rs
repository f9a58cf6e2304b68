//! Line delay (`--delay`): a pause after each line of the input.
//!
//! It is for peers that are slow, or that take what arrives in one piece for one line, as many UDP services
//! do. A piece of a line without its line feed, as a program's prompt, goes on at once.
use std::{io, time::Duration};

/// Maximum of one read, in bytes.
const READ: usize = 64 << 10;

/// The input that is read, but whose pause is not over.
#[derive(Clone, Debug)]
pub(crate) struct LineDelay {
    delay: Duration,
    buffer: Vec<u8>,
    start: usize,
    /// End of the pause.
    due: Duration,
}

impl LineDelay {
    /// Returns a delay of this length, with no pause under way.
    pub(crate) fn new(delay: Duration) -> LineDelay {
        LineDelay { delay, buffer: Vec::new(), start: 0, due: Duration::ZERO }
    }

    /// Returns the end of the pause, if it is later than `now`.
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        Some(self.due).filter(|due| *due > now)
    }

    /// Copies the next line to `room`, or as much of it as there is and `room` holds. Returns its length;
    /// the length 0 of `read` at the end is passed on.
    ///
    /// # Errors
    /// `WouldBlock` during the pause; those of `read`.
    pub(crate) fn next(
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

    /// Starts the pause even though no line has ended.
    pub(crate) fn pause(&mut self, now: Duration) {
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
    fn a_pause_follows_each_line_but_no_piece_of_one() {
        let mut lines = LineDelay::new(at(2));
        let mut room = [0; 4];
        let mut next = |now, input: Option<&[u8]>| {
            let read = |buffer: &mut [u8]| {
                let input = input.expect("nothing is read");
                buffer[..input.len()].copy_from_slice(input);
                Ok(input.len())
            };
            let len = lines.next(at(now), &mut room, read).map_err(|error| error.kind())?;
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
