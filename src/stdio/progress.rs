//! The progress line (`--progress`): bytes, rate and time on the terminal.
use super::stderr;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::{
    io,
    sync::{Mutex, PoisonError},
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

/// Returns a progress line that counts bytes.
pub(super) fn line() -> ProgressBar {
    let target = ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), REDRAWS);
    let line = ProgressBar::with_draw_target(None, target);
    match ProgressStyle::with_template("{bytes} {bytes_per_sec} {elapsed_precise}") {
        Ok(style) => line.with_style(style),
        Err(_) => line,
    }
}
