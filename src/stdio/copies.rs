//! What becomes of standard input and output on their way besides being sent and received: lines are spaced
//! (`--delay`), their ends translated (`-C`), what goes by is recorded (`-o`, `-x`) and counted on the terminal (`--progress`).
use super::{Channel, Error, Stream, Writer, stderr};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::{
    cell::RefCell,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub crlf: bool,
    /// A pause after each line of the input.
    pub delay: Option<Duration>,
    /// Where what goes by is written, both directions in their order.
    pub output: Option<PathBuf>,
    /// The same as a hex dump, with the direction of each line.
    pub hex_dump: Option<PathBuf>,
    /// Files are continued rather than begun anew.
    pub append: bool,
    pub progress: bool,
}

impl Recording {
    /// Opens the files and standard input and output, while this process may still open anything.
    pub fn open(&self) -> Result<Taps, Error> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(|path| self.file(path)).transpose();
        let progress = self.progress && io::stderr().is_terminal();
        let transcript = Transcript {
            output: open(&self.output)?,
            hex_dump: open(&self.hex_dump)?,
            offsets: [0; 2],
            progress: progress.then(bar),
        };
        let idle = self.output.is_none() && self.hex_dump.is_none() && !progress;
        let transcript = (!idle).then(|| Rc::new(RefCell::new(transcript)));
        let input = Channel::input(Stream::input().map_err(Error::Input)?);
        let output = Channel::output(Stream::output().map_err(Error::Output)?);
        let input = match self.delay {
            Some(delay) => input.paced(delay),
            None => input,
        };
        let input = if self.crlf { input.with_crlf() } else { input };
        let standard = match transcript {
            Some(transcript) => (input.recorded(transcript.clone()), output.recorded(transcript)),
            None => (input, output),
        };
        let (input, output) = standard;
        Ok(Taps { input, output })
    }

    fn file(&self, path: &Path) -> Result<BufWriter<Writer>, Error> {
        let file = Writer::create(path, self.append)
            .map_err(|error| Error::Record { path: path.to_owned(), error })?;
        Ok(BufWriter::new(file))
    }
}

/// How often the bar is drawn anew, a second at most.
const REDRAWS: u8 = 20;
/// Columns of a terminal that does not tell how many it has.
const COLUMNS: u16 = 80;

/// The terminal of the bar, which is drawn only while nothing waits for it (see [`stderr`]).
#[derive(Debug, Default)]
struct Terminal(Mutex<String>);

impl Terminal {
    fn add(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }
}

/// Control sequences as ECMA-48 has them.
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
        stderr::show(&std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(())
    }
}

/// Bytes, rate and time on the terminal.
fn bar() -> ProgressBar {
    let target = ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), REDRAWS);
    let bar = ProgressBar::with_draw_target(None, target);
    match ProgressStyle::with_template("{bytes} {bytes_per_sec} {elapsed_precise}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Standard input and output, and what they pass through.
#[derive(Debug)]
pub struct Taps {
    pub input: Channel,
    pub output: Channel,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

/// The record of what goes by.
#[derive(Debug)]
pub struct Transcript {
    output: Option<BufWriter<Writer>>,
    hex_dump: Option<BufWriter<Writer>>,
    /// Bytes dumped so far, in each direction.
    offsets: [u64; 2],
    progress: Option<ProgressBar>,
}

impl Transcript {
    /// Records bytes, which are on disk, or in its cache, when this returns.
    pub fn note(&mut self, direction: Direction, bytes: &[u8]) -> io::Result<()> {
        if let Some(progress) = &self.progress {
            progress.inc(bytes.len() as u64);
        }
        if let Some(output) = &mut self.output {
            output.write_all(bytes)?;
            output.flush()?;
        }
        if let Some(dump) = &mut self.hex_dump {
            let offset = &mut self.offsets[direction as usize];
            for line in bytes.chunks(16) {
                writeln!(dump, "{}", hex_line(direction, *offset, line))?;
                *offset += line.len() as u64;
            }
            dump.flush()?;
        }
        Ok(())
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.abandon();
        }
    }
}

/// A line of a dump, as traditional netcat writes them: `> 00000000 68 69 0a ...  # hi.`
fn hex_line(direction: Direction, offset: u64, bytes: &[u8]) -> String {
    let arrow = if direction == Direction::Sent { '>' } else { '<' };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
    let text: String =
        bytes.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '.' }).collect();
    format!("{arrow} {offset:08x} {hex:<48}# {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_tell_direction_offset_bytes_and_text() {
        assert_eq!(
            hex_line(Direction::Sent, 0x10, b"GET /\r\n"),
            "> 00000010 47 45 54 20 2f 0d 0a                            # GET /.."
        );
        assert_eq!(
            hex_line(Direction::Received, 0, &[0xff; 16]),
            format!("< 00000000 {}# ................", "ff ".repeat(16))
        );
    }
}
