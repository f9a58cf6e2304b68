//! Standard error: writes whole lines, and never makes the event loop wait or the program end.
//!
//! The reader may be slow, stopped (a pager, Ctrl-S) or gone, and the disk full. So every line of netkat
//! goes through this file. A write never waits; a queue keeps lines without room, and the reactor empties
//! it as the reader goes on. A line that finds the queue full is dropped and counted, and as soon as there
//! is room again, a line reports the number. No error of these functions changes the outcome of a run.
//!
//! O_NONBLOCK belongs to the open file description, which the shell and processes of --exec share, so
//! `Stream` opens one of its own or writes in pieces that never block.
use super::{LAST_WORDS_MS, Stream};
use crate::process::signals;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Maximum of the queue, in bytes. A longer line is kept if the queue is empty.
const QUEUE: usize = 256 << 10;
/// Longest wait at the end of a run for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Standard error; `None` if it could not be opened.
static STDERR: OnceLock<Option<Stderr>> = OnceLock::new();
/// The queue has bytes.
static WAITING: AtomicBool = AtomicBool::new(false);

/// Opens standard error. Call it first, while the process may still open files.
pub fn open() {
    stderr();
}

/// Writes lines, each with its line feed. A line without room is dropped and counted.
///
/// # Errors
/// `BrokenPipe` alone: the reader is gone for good.
pub(crate) fn write(lines: &str) -> io::Result<()> {
    match stderr() {
        Some(stderr) => stderr.queue().write(&stderr.stream, lines),
        None => Ok(()),
    }
}

/// A writer of lines that never waits; see [`write()`]. Each write ends with a line feed.
pub(crate) struct Lines;

impl io::Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        write(&String::from_utf8_lossy(lines))?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a message as a line. A reader that is gone is no error.
pub(crate) fn print_line(message: &str) {
    let _ = write(&format!("{message}\n"));
}

/// Writes text that is of no use later, such as a progress line, unless other text waits already.
pub(crate) fn print_transient(text: &str) {
    if let Some(stderr) = stderr() {
        stderr.queue().print_transient(&stderr.stream, text);
    }
}

/// Returns the descriptor to wait for if text waits. Once it is writable, call [`flush`].
pub(crate) fn waiting() -> Option<BorrowedFd<'static>> {
    WAITING.load(Ordering::Relaxed).then(|| stderr().map(|stderr| stderr.stream.as_fd())).flatten()
}

/// Returns netkat's own descriptor of standard error.
pub(crate) fn descriptor() -> Option<BorrowedFd<'static>> {
    stderr().map(|stderr| stderr.stream.as_fd())
}

/// Writes waiting text, as far as the reader takes it.
pub(crate) fn flush() {
    if let Some(stderr) = stderr() {
        stderr.queue().drain(&stderr.stream);
    }
}

/// Waits for the reader at the end of a run, for as long as it takes anything. A signal ends the wait.
pub(crate) fn finish() {
    let Some(stderr) = stderr() else { return };
    let mut start = Instant::now();
    flush();
    let Some(fd) = waiting() else { return };
    let signalled = signals::ending().is_some();
    let patience = if signalled { Duration::from_millis(LAST_WORDS_MS.into()) } else { PATIENCE };
    if !signalled {
        signals::release();
    }
    while waiting().is_some() {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return;
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if !matches!(poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout), Ok(1..)) {
            return;
        }
        let before = stderr.queue().bytes.len();
        flush();
        if !signalled && stderr.queue().bytes.len() < before {
            start = Instant::now();
        }
    }
}

/// Returns whether the reader has taken all lines, the last one included.
pub(crate) fn is_delivered() -> bool {
    stderr().is_some_and(|stderr| {
        let queue = stderr.queue();
        queue.bytes.is_empty() && queue.lost == 0 && !queue.gone
    })
}

/// Makes a panic write its line through this queue, since the default hook waits for the reader.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // The thread that panics may hold the lock.
        let Some(stderr) = stderr() else { return };
        let Ok(mut queue) = stderr.queue.try_lock() else { return };
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{trace}\n"),
            _ => String::new(),
        };
        let _ = queue.write(&stderr.stream, &format!("netkat: this is a bug: {panic}\n{trace}"));
    }));
}

fn stderr() -> Option<&'static Stderr> {
    STDERR
        .get_or_init(|| {
            let stream = Stream::error().ok()?;
            Some(Stderr { stream, queue: Mutex::default() })
        })
        .as_ref()
}

struct Stderr {
    stream: Stream,
    queue: Mutex<Queue>,
}

impl Stderr {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text that waits for the reader.
#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Lines dropped and not reported.
    lost: u64,
    /// Lines dropped that the first line in the queue reports.
    reported: u64,
    /// The reader is gone.
    gone: bool,
}

impl Queue {
    fn write(&mut self, stream: &Stream, lines: &str) -> io::Result<()> {
        self.drain(stream);
        if self.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for line in lines.split_inclusive('\n') {
            // After a dropped line, none follows before the drop is reported.
            let full = !self.bytes.is_empty() && self.bytes.len() + line.len() > QUEUE;
            match self.lost > 0 || full {
                true => self.lost += 1,
                false => self.bytes.extend(line.as_bytes()),
            }
        }
        self.drain(stream);
        if self.gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn print_transient(&mut self, stream: &Stream, text: &str) {
        self.drain(stream);
        if self.bytes.is_empty() {
            self.bytes.extend(text.as_bytes());
            self.drain(stream);
        }
    }

    /// Writes what the reader takes, and then the number of dropped lines.
    fn drain(&mut self, stream: &Stream) {
        while !self.gone {
            if self.bytes.is_empty() {
                self.reported = std::mem::take(&mut self.lost);
                if self.reported == 0 {
                    break;
                }
                let lines = if self.reported == 1 { "line" } else { "lines" };
                let notice = format!("netkat: {} {lines} lost: standard error took no more\n", self.reported);
                self.bytes.extend(notice.as_bytes());
            }
            match stream.write(self.bytes.as_slices().0) {
                Ok(written) => {
                    self.bytes.drain(..written);
                    self.reported = if self.bytes.is_empty() { 0 } else { self.reported };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The reader of a pipe, or the terminal (EIO), is gone.
                Err(error)
                    if error.kind() == io::ErrorKind::BrokenPipe
                        || error.raw_os_error() == Some(libc::EIO) =>
                {
                    self.gone = true;
                    self.bytes = VecDeque::new();
                }
                // A full disk may have room later, so these lines are lost, but not the next.
                Err(_) => {
                    let lines = self.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.lost += lines - u64::from(self.reported > 0) + self.reported;
                    self.reported = 0;
                    self.bytes.clear();
                    break;
                }
            }
        }
        WAITING.store(!self.bytes.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{fcntl::OFlag, unistd::pipe};
    use std::{fs::File, io::Read, os::fd::OwnedFd};

    fn stream(fd: OwnedFd) -> Stream {
        Stream::new(fd, OFlag::O_WRONLY).expect("a stream")
    }

    /// A full pipe passes on whole lines in their order, and one line reports how many are missing.
    #[test]
    fn a_full_pipe_loses_whole_lines_and_says_how_many() {
        let (from, to) = pipe().expect("pipe");
        let to = stream(to);
        let mut queue = Queue::default();
        let line = format!("{}\n", "x".repeat(99));
        let lines = 40_000_u64;
        for _ in 0..lines {
            queue.write(&to, &line).expect("a reader");
        }
        assert!(queue.bytes.len() <= QUEUE && queue.lost > 0);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::from(from).read_to_string(&mut text).map(|_| text)
        });
        while queue.lost > 0 || !queue.bytes.is_empty() {
            queue.drain(&to);
        }
        queue.write(&to, "the end\n").expect("a reader");
        drop(to);
        let text = reader.join().expect("no panic").expect("text");
        let came = text.lines().filter(|read| *read == line.trim_end()).count() as u64;
        let rest: Vec<_> = text.lines().filter(|read| *read != line.trim_end()).collect();
        let notice = format!("netkat: {} lines lost: standard error took no more", lines - came);
        assert_eq!(rest, [notice.as_str(), "the end"]);
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let full = stream(full.into());
        let mut queue = Queue::default();
        for lost in 1..=3 {
            queue.write(&full, "a line\n").expect("no reader to be gone");
            assert_eq!((queue.lost, queue.bytes.len()), (lost, 0));
        }
        let (from, to) = pipe().expect("pipe");
        queue.write(&stream(to), "a line\n").expect("a reader");
        let mut text = String::new();
        File::from(from).read_to_string(&mut text).expect("text");
        assert_eq!(text, "netkat: 3 lines lost: standard error took no more\na line\n");
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_and_costs_nothing() {
        let (from, to) = pipe().expect("pipe");
        let to = stream(to);
        drop(from);
        let mut queue = Queue::default();
        for _ in 0..2 {
            let error = queue.write(&to, "a line\n").expect_err("nobody reads");
            assert_eq!((error.kind(), queue.bytes.len()), (io::ErrorKind::BrokenPipe, 0));
        }
    }

    /// A line longer than the queue is kept whole, as the report of many ports is.
    #[test]
    fn a_long_line_is_not_lost() {
        let (from, to) = pipe().expect("pipe");
        let to = stream(to);
        let mut queue = Queue::default();
        let line = format!("{}\n", "x".repeat(4 * QUEUE + (2 << 20)));
        queue.write(&to, &line).expect("a reader");
        assert_eq!(queue.lost, 0);
        queue.write(&to, "lost\n").expect("a reader");
        assert_eq!(queue.lost, 1);
        drop(from);
    }
}
