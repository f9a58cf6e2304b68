//! The progress line (`--progress`): bytes of both directions, rate and time on the terminal; for a file as input also
//! its share and the time left.
use super::{recorder::DataDirection, stderr};
use indicatif::{
    BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike,
    style::ProgressTracker,
};
use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, Seek},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Maximum redraws of the line, per second.
const REDRAWS: u8 = 20;
/// Width of a terminal that does not report one, in columns.
const COLUMNS: u16 = 80;

/// The terminal of the line, which is drawn only while no other text waits (see [`stderr`]).
#[derive(Debug, Default)]
struct Terminal(Mutex<String>);

impl Terminal {
    fn add(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }
}

/// The control sequences are those of ECMA-48.
impl TermLike for Terminal {
    fn width(&self) -> u16 {
        terminal_size::terminal_size_of(io::stderr()).map_or(COLUMNS, |(columns, _)| columns.0)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.add(&format!("\x1b[{n}A")) }
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.add(&format!("\x1b[{n}B")) }
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.add(&format!("\x1b[{n}C")) }
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.add(&format!("\x1b[{n}D")) }
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        stderr::print_transient(&std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(())
    }
}

/// The line, which counts both directions.
#[derive(Debug)]
pub(super) struct Progress {
    line: ProgressBar,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    /// The input's size is known.
    sized: bool,
}

impl Progress {
    /// Returns a line for input of `total` bytes, if that is known.
    pub(crate) fn new(total: Option<u64>) -> Progress {
        let target = ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), REDRAWS);
        let line = ProgressBar::with_draw_target(total, target);
        let (sent, received) = (Arc::default(), Arc::default());
        let template = match total {
            Some(_) => {
                "{sent} of {total_bytes} sent ({percent}%), {received} received, {bytes_per_sec}, {elapsed_precise}, \
                 ETA {eta_precise}"
            }
            None => "{sent} sent, {received} received, {bytes_per_sec}, {elapsed_precise}",
        };
        let line = match ProgressStyle::with_template(template) {
            Ok(style) => {
                line.with_style(style.with_key("sent", bytes(&sent)).with_key("received", bytes(&received)))
            }
            Err(_) => line,
        };
        Progress { line, sent, received, sized: total.is_some() }
    }

    /// Counts bytes of one direction.
    pub(crate) fn count(&self, direction: DataDirection, bytes: u64) {
        match direction {
            DataDirection::Sent => self.sent.fetch_add(bytes, Ordering::Relaxed),
            DataDirection::Received => self.received.fetch_add(bytes, Ordering::Relaxed),
        };
        match (self.sized, direction) {
            // Share and time left are those of the input.
            (true, DataDirection::Received) => self.line.tick(),
            _ => self.line.inc(bytes),
        }
    }

    /// Leaves the line as it is.
    pub(crate) fn end(&self) {
        self.line.abandon();
    }
}

/// Returns a part of the line that shows a counter.
fn bytes(counter: &Arc<AtomicU64>) -> impl ProgressTracker + 'static {
    let counter = counter.clone();
    move |_: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{}", BinaryBytes(counter.load(Ordering::Relaxed)));
    }
}

/// Returns the bytes that standard input still holds if it is a regular file: its size less the offset.
pub(super) fn input_size() -> Option<u64> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    Some(metadata.len().saturating_sub(file.stream_position().ok()?))
}
