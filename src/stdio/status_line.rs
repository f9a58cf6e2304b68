//! A status line: the last line of a terminal on standard error, below the lines of the run.
use super::stderr;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};

/// Least time between two drawings.
const PAUSE: Duration = Duration::from_millis(100);
/// Width of a terminal that does not report one, in columns.
const COLUMNS: u16 = 80;
/// Carriage return, and erasure of the line (ECMA-48, EL).
const CLEAR: &str = "\r\x1b[2K";

/// A line that is drawn again and again; nothing where standard error is no terminal.
#[derive(Debug)]
pub(crate) struct StatusLine {
    shown: bool,
    is_drawn: bool,
    drawn_at: Option<Duration>,
}

impl StatusLine {
    /// Returns a line that is not drawn yet; `wanted` says whether it ever is.
    pub(crate) fn new(wanted: bool) -> StatusLine {
        StatusLine { shown: wanted && io::stderr().is_terminal(), is_drawn: false, drawn_at: None }
    }

    /// Draws the line, unless it was drawn just before and stands.
    pub(crate) fn draw(&mut self, now: Duration, text: impl FnOnce() -> String) {
        let recent = self.is_drawn && self.drawn_at.is_some_and(|at| now < at + PAUSE);
        if !self.shown || recent {
            return;
        }
        let columns = terminal_size::terminal_size_of(io::stderr()).map_or(COLUMNS, |(columns, _)| columns.0);
        let text: String = text().chars().take(usize::from(columns).saturating_sub(1)).collect();
        stderr::print_transient(&format!("{CLEAR}{text}"));
        (self.is_drawn, self.drawn_at) = (true, Some(now));
    }

    /// Clears the line, for another one in its place.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            stderr::print_transient(CLEAR);
        }
    }
}
