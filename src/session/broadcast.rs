//! Standard input for every client at once: a window over the stream, and each client's place in it.
//!
//! A client gets what is read after it came. Whoever comes when nobody else is there gets what the last one
//! left in the window, too. Nothing is read while there is no client, or while the window is full: then the
//! slowest client holds up the others. [`Broadcast::stalled`] tells when that has lasted too long.
use crate::stdio::{Channel, Input};
use std::{collections::VecDeque, io, time::Duration};

/// How far apart clients may be, in bytes, besides what their send buffers hold.
const WINDOW: usize = 1 << 20;
/// The most that is read at once, in bytes.
const READ: usize = 64 << 10;
/// How long one client may hold up others.
const PATIENCE: Duration = Duration::from_secs(5);

/// The stream's part that some client has not taken yet.
#[derive(Debug)]
pub struct Broadcast {
    input: Channel,
    window: VecDeque<u8>,
    /// Where in the stream the window begins, in bytes.
    start: u64,
    ended: bool,
    /// Since when the window is full although somebody has taken all of it.
    held_up: Option<Duration>,
    buffer: Vec<u8>,
}

/// A client's place in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

impl Broadcast {
    pub fn new(input: Channel) -> Broadcast {
        Broadcast {
            input,
            window: VecDeque::new(),
            start: 0,
            ended: false,
            held_up: None,
            buffer: vec![0; READ],
        }
    }

    /// The place of a client that comes now.
    pub fn join(&self, alone: bool) -> Place {
        Place(if alone { self.start } else { self.end() })
    }

    fn end(&self) -> u64 {
        self.start + self.window.len() as u64
    }

    /// Forgets what every client has taken, and reads on where somebody waits for more; whether anything was
    /// read.
    pub fn advance(&mut self, now: Duration, places: impl Iterator<Item = Place>) -> io::Result<bool> {
        let (mut first, mut last) = (None::<u64>, 0);
        for Place(place) in places {
            first = Some(first.map_or(place, |first| first.min(place)));
            last = last.max(place);
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

    /// Whether a client at `place` has held up others for too long.
    pub fn stalled(&self, now: Duration, place: Place) -> bool {
        place.0 == self.start && self.deadline().is_some_and(|at| at <= now)
    }

    /// When patience ends.
    pub fn deadline(&self) -> Option<Duration> {
        Some(self.held_up? + PATIENCE)
    }

    /// The stream itself, to wait for.
    pub fn channel(&self) -> &Channel {
        &self.input
    }

    /// What a client at `place` reads from.
    pub fn reader<'a>(&'a self, place: &'a mut Place) -> Reader<'a> {
        Reader { broadcast: self, place }
    }
}

/// The stream as one client sees it.
#[derive(Debug)]
pub struct Reader<'a> {
    broadcast: &'a Broadcast,
    place: &'a mut Place,
}

impl Input for Reader<'_> {
    fn is_ready(&self, now: Duration) -> bool {
        // As long as the stream itself is ready, more may come in the next turn.
        self.place.0 < self.broadcast.end() || self.broadcast.ended || self.broadcast.input.is_ready(now)
    }

    fn read(&mut self, _now: Duration, room: &mut [u8]) -> io::Result<usize> {
        let skip = (self.place.0 - self.broadcast.start) as usize;
        let (first, second) = self.broadcast.window.as_slices();
        let rest = match first.get(skip..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => second.get(skip.saturating_sub(first.len())..).unwrap_or_default(),
        };
        if rest.is_empty() {
            return if self.broadcast.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let len = rest.len().min(room.len());
        room[..len].copy_from_slice(&rest[..len]);
        self.place.0 += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::Stream;
    use nix::unistd::{pipe, write};
    use std::os::fd::OwnedFd;

    fn broadcast() -> (Broadcast, OwnedFd) {
        let (from, to) = pipe().expect("a pipe");
        (Broadcast::new(Channel::input(Stream::own(from).expect("a stream"))), to)
    }

    fn read(broadcast: &Broadcast, place: &mut Place, len: usize) -> Result<String, io::ErrorKind> {
        let mut room = vec![0; len];
        let got = broadcast.reader(place).read(Duration::ZERO, &mut room).map_err(|error| error.kind())?;
        Ok(String::from_utf8_lossy(&room[..got]).into_owned())
    }

    fn advance(broadcast: &mut Broadcast, seconds: u64, places: &[Place]) {
        broadcast.channel().unblock();
        broadcast.advance(Duration::from_secs(seconds), places.iter().copied()).expect("input");
    }

    #[test]
    fn each_client_gets_all_that_is_read_after_it_came() {
        let (mut broadcast, to) = broadcast();
        let mut early = broadcast.join(true);
        write(&to, b"one").expect("a write");
        advance(&mut broadcast, 0, &[]);
        assert_eq!(read(&broadcast, &mut early, 9), Err(io::ErrorKind::WouldBlock), "read for nobody");
        advance(&mut broadcast, 0, &[early]);
        let mut late = broadcast.join(false);
        assert_eq!(read(&broadcast, &mut early, 2), Ok("on".into()));
        assert_eq!(read(&broadcast, &mut late, 9), Err(io::ErrorKind::WouldBlock));
        write(&to, b"two").expect("a write");
        drop(to);
        advance(&mut broadcast, 0, &[early, late]);
        assert_eq!(read(&broadcast, &mut late, 9), Ok("two".into()));
        assert_eq!(read(&broadcast, &mut early, 9), Ok("etwo".into()));
        advance(&mut broadcast, 0, &[early, late]);
        for place in [&mut early, &mut late] {
            assert_eq!(read(&broadcast, place, 9), Ok(String::new()), "the end");
        }
    }

    #[test]
    fn what_a_client_left_goes_to_the_next() {
        let (mut broadcast, to) = broadcast();
        let mut first = broadcast.join(true);
        write(&to, b"abc").expect("a write");
        advance(&mut broadcast, 0, &[first]);
        assert_eq!(read(&broadcast, &mut first, 1), Ok("a".into()));
        advance(&mut broadcast, 0, &[first]);
        let mut second = broadcast.join(true);
        assert_eq!(read(&broadcast, &mut second, 9), Ok("bc".into()));
    }

    #[test]
    fn a_slow_client_is_told_from_one_that_is_alone() {
        let (mut broadcast, to) = broadcast();
        let slow = broadcast.join(true);
        let mut fast = slow;
        let chunk = [7; 32 << 10];
        for _ in 0..WINDOW / chunk.len() {
            write(&to, &chunk).expect("a write");
            advance(&mut broadcast, 0, &[slow, fast]);
            while read(&broadcast, &mut fast, WINDOW).is_ok() {}
        }
        advance(&mut broadcast, 1, &[slow]);
        assert_eq!(broadcast.deadline(), None, "nobody is held up");
        advance(&mut broadcast, 2, &[slow, fast]);
        assert!(!broadcast.stalled(Duration::from_secs(6), slow));
        assert!(broadcast.stalled(Duration::from_secs(7), slow));
        assert!(!broadcast.stalled(Duration::from_secs(7), fast));
        advance(&mut broadcast, 8, &[fast]);
        assert_eq!(broadcast.deadline(), None);
    }
}
