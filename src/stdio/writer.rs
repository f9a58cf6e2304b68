//! A writer of data (packet lines, copies, reports): waits for its reader, so that nothing is lost.
//!
//! A signal that ends the run ends the wait as well.
use super::{LAST_WORDS_MS, Stream};
use crate::{
    kernel,
    process::signals::{self, Signals},
};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    io::{self, Write},
    os::fd::{AsFd, RawFd},
    path::Path,
};

/// The path of standard input and output, as tcpdump's and most programs'.
pub(crate) const STANDARD: &str = "-";

/// A stream that waits for its reader.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: Stream,
    signals: Signals,
    /// The reader took nothing in the last wait after a signal: nothing more is written.
    given_up: bool,
}

impl Writer {
    /// Opens standard output, without a buffer.
    ///
    /// # Errors
    /// EBADF if it is closed; those of dup(2) and signalfd(2).
    pub(crate) fn output() -> io::Result<Writer> {
        if kernel::output_was_closed() {
            return Err(Errno::EBADF.into());
        }
        Ok(Writer { stream: Stream::output()?, signals: Signals::watch()?, given_up: false })
    }

    /// Opens a file, and creates it if it does not exist; empties it unless `append`. A FIFO waits for its
    /// reader. The path `-` is standard output.
    ///
    /// # Errors
    /// Those of open(2), and ENXIO if a signal came before a FIFO's reader.
    pub(crate) fn create(path: &Path, append: bool) -> io::Result<Writer> {
        if path == Path::new(STANDARD) {
            return Writer::output();
        }
        let signals = Signals::watch()?;
        Ok(Writer { stream: Stream::create(path, append, &signals)?, signals, given_up: false })
    }

    /// Opens a descriptor that this process was started with.
    ///
    /// # Errors
    /// EBADF if it was not open then; those of dup(2) and signalfd(2).
    pub(crate) fn inherited(number: RawFd) -> io::Result<Writer> {
        let stream = Stream::new(kernel::inherited(number)?, OFlag::O_WRONLY)?;
        Ok(Writer { stream, signals: Signals::watch()?, given_up: false })
    }

    /// Waits until the stream takes more.
    fn wait(&mut self) -> io::Result<()> {
        while signals::ending().is_none() {
            let mut fds = [
                PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds[0].any().unwrap_or(true) => return Ok(()),
                Ok(_) => drop(self.signals.take()?),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT)];
        if !self.given_up && poll(&mut fds, PollTimeout::from(LAST_WORDS_MS))? > 0 {
            return Ok(());
        }
        self.given_up = true;
        Err(io::Error::other("a signal ended the run before all was read"))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{fcntl::OFlag, unistd::pipe};
    use std::{fs::File, io::Read, thread};

    /// Data that no pipe can hold at once arrives whole.
    #[test]
    fn a_slow_reader_gets_everything() {
        let (from, to) = pipe().expect("pipe");
        let stream = Stream::new(to, OFlag::O_WRONLY).expect("a stream");
        let signals = Signals::watch().expect("a signalfd");
        let mut writer = Writer { stream, signals, given_up: false };
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            File::from(from).read_to_end(&mut all).map(|_| all)
        });
        let bytes: Vec<u8> = (0..5 << 20).map(|n: u32| n as u8).collect();
        writer.write_all(&bytes).expect("a reader");
        drop(writer);
        assert!(reader.join().expect("no panic").expect("bytes") == bytes);
    }
}
