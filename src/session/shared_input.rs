//! Standard input for many clients: a window over the stream, and the position of each client in it.
//!
//! A client gets the input that is read after its arrival. A client that arrives alone also gets what the
//! last one left in the window. Nothing is read while there is no client, or while the window is full: then
//! the slowest client holds up the others, and [`SharedInput::stalled`] tells when that has lasted too
//! long.
use crate::stdio::{Channel, Input};
use std::{collections::VecDeque, io, time::Duration};

/// Maximum distance between two clients' positions, in bytes; their send buffers come on top.
const WINDOW: usize = 1 << 20;
/// Maximum of one read, in bytes.
const READ: usize = 64 << 10;
/// Longest time for which one client may hold up others.
const STALL_LIMIT: Duration = Duration::from_secs(5);

/// The part of the input that some client has not taken yet.
#[derive(Debug)]
pub(crate) struct SharedInput {
    input: Channel,
    window: VecDeque<u8>,
    /// Position of the window's first byte in the stream.
    start: u64,
    ended: bool,
    /// Since when the window is full although some client has taken all of it.
    held_up: Option<Duration>,
    buffer: Vec<u8>,
}

/// A client's position in the stream, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position(u64);

impl SharedInput {
    /// Returns an empty window over `input`.
    pub(crate) fn new(input: Channel) -> SharedInput {
        SharedInput {
            input,
            window: VecDeque::new(),
            start: 0,
            ended: false,
            held_up: None,
            buffer: vec![0; READ],
        }
    }

    /// Returns the position of a client that arrives now, `alone` or while others are connected.
    pub(crate) fn join(&self, alone: bool) -> Position {
        Position(if alone { self.start } else { self.end() })
    }

    fn end(&self) -> u64 {
        self.start + self.window.len() as u64
    }

    /// Drops input that every client has taken, and reads on if a client waits for more. Returns whether
    /// anything was read.
    ///
    /// # Errors
    /// Those of reading the input.
    pub(crate) fn advance(
        &mut self,
        now: Duration,
        positions: impl Iterator<Item = Position>,
    ) -> io::Result<bool> {
        let (mut first, mut last) = (None::<u64>, 0);
        for Position(position) in positions {
            first = Some(first.map_or(position, |first| first.min(position)));
            last = last.max(position);
        }
        let Some(first) = first else { return Ok(false) };
        let taken = (first - self.start) as usize;
        self.window.drain(..taken.min(self.window.len()));
        self.start = first;
        let awaited = last == self.end();
        let room = WINDOW - self.window.len();
        match awaited && room == 0 {
            true => self.held_up = self.held_up.or(Some(now)),
            false => self.held_up = None,
        }
        if !awaited || room == 0 || self.ended || !self.input.is_ready(now) {
            return Ok(false);
        }
        let len = room.min(READ);
        match self.input.read(now, &mut self.buffer[..len]) {
            Ok(0) => self.ended = true,
            Ok(read) => self.window.extend(&self.buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Returns whether a client at `position` has held up others for too long.
    pub(crate) fn stalled(&self, now: Duration, position: Position) -> bool {
        position.0 == self.start && self.deadline().is_some_and(|at| at <= now)
    }

    /// Returns when the client that holds up others becomes stalled.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        Some(self.held_up? + STALL_LIMIT)
    }

    /// Returns the input itself, to wait for.
    pub(crate) fn channel(&self) -> &Channel {
        &self.input
    }

    /// Returns the input as a client at `position` reads it.
    pub(crate) fn reader<'a>(&'a self, position: &'a mut Position) -> Reader<'a> {
        Reader { shared_input: self, position }
    }
}

/// The input as one client reads it.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    shared_input: &'a SharedInput,
    position: &'a mut Position,
}

impl Input for Reader<'_> {
    fn is_ready(&self, now: Duration) -> bool {
        // While the input itself is ready, the next turn may bring more.
        self.position.0 < self.shared_input.end()
            || self.shared_input.ended
            || self.shared_input.input.is_ready(now)
    }

    fn read(&mut self, _now: Duration, room: &mut [u8]) -> io::Result<usize> {
        let skip = (self.position.0 - self.shared_input.start) as usize;
        let (first, second) = self.shared_input.window.as_slices();
        let rest = match first.get(skip..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => second.get(skip.saturating_sub(first.len())..).unwrap_or_default(),
        };
        if rest.is_empty() {
            return if self.shared_input.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let len = rest.len().min(room.len());
        room[..len].copy_from_slice(&rest[..len]);
        self.position.0 += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::Stream;
    use nix::unistd::{pipe, write};
    use std::os::fd::OwnedFd;

    fn shared_input() -> (SharedInput, OwnedFd) {
        let (from, to) = pipe().expect("a pipe");
        (SharedInput::new(Channel::input(Stream::own(from).expect("a stream"))), to)
    }

    fn read(
        shared_input: &SharedInput,
        position: &mut Position,
        len: usize,
    ) -> Result<String, io::ErrorKind> {
        let mut room = vec![0; len];
        let got =
            shared_input.reader(position).read(Duration::ZERO, &mut room).map_err(|error| error.kind())?;
        Ok(String::from_utf8_lossy(&room[..got]).into_owned())
    }

    fn advance(shared_input: &mut SharedInput, seconds: u64, positions: &[Position]) {
        shared_input.channel().unblock();
        shared_input.advance(Duration::from_secs(seconds), positions.iter().copied()).expect("input");
    }

    #[test]
    fn each_client_gets_the_input_after_its_arrival() {
        let (mut shared_input, to) = shared_input();
        let mut early = shared_input.join(true);
        write(&to, b"one").expect("a write");
        advance(&mut shared_input, 0, &[]);
        assert_eq!(
            read(&shared_input, &mut early, 9),
            Err(io::ErrorKind::WouldBlock),
            "read without a client"
        );
        advance(&mut shared_input, 0, &[early]);
        let mut late = shared_input.join(false);
        assert_eq!(read(&shared_input, &mut early, 2), Ok("on".into()));
        assert_eq!(read(&shared_input, &mut late, 9), Err(io::ErrorKind::WouldBlock));
        write(&to, b"two").expect("a write");
        drop(to);
        advance(&mut shared_input, 0, &[early, late]);
        assert_eq!(read(&shared_input, &mut late, 9), Ok("two".into()));
        assert_eq!(read(&shared_input, &mut early, 9), Ok("etwo".into()));
        advance(&mut shared_input, 0, &[early, late]);
        for position in [&mut early, &mut late] {
            assert_eq!(read(&shared_input, position, 9), Ok(String::new()), "the end");
        }
    }

    #[test]
    fn input_that_a_client_left_goes_to_the_next() {
        let (mut shared_input, to) = shared_input();
        let mut first = shared_input.join(true);
        write(&to, b"abc").expect("a write");
        advance(&mut shared_input, 0, &[first]);
        assert_eq!(read(&shared_input, &mut first, 1), Ok("a".into()));
        advance(&mut shared_input, 0, &[first]);
        let mut second = shared_input.join(true);
        assert_eq!(read(&shared_input, &mut second, 9), Ok("bc".into()));
    }

    #[test]
    fn a_slow_client_is_told_from_one_that_is_alone() {
        let (mut shared_input, to) = shared_input();
        let slow = shared_input.join(true);
        let mut fast = slow;
        let chunk = [7; 32 << 10];
        for _ in 0..WINDOW / chunk.len() {
            write(&to, &chunk).expect("a write");
            advance(&mut shared_input, 0, &[slow, fast]);
            while read(&shared_input, &mut fast, WINDOW).is_ok() {}
        }
        advance(&mut shared_input, 1, &[slow]);
        assert_eq!(shared_input.deadline(), None, "no client waits");
        advance(&mut shared_input, 2, &[slow, fast]);
        assert!(!shared_input.stalled(Duration::from_secs(6), slow));
        assert!(shared_input.stalled(Duration::from_secs(7), slow));
        assert!(!shared_input.stalled(Duration::from_secs(7), fast));
        advance(&mut shared_input, 8, &[fast]);
        assert_eq!(shared_input.deadline(), None);
    }
}
