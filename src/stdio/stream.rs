//! A stream: a descriptor whose reads and writes never block the event loop.
//!
//! O_NONBLOCK belongs to the open file description, which netkat shares with the shell, so netkat must not
//! set it there. It opens pipes and terminals again through /proc instead. Where that is not allowed, it
//! polls before it reads, and writes pieces of a size that poll(2) guarantees room for. (Only there,
//! another process that fills the same pipe between poll(2) and write(2) makes that one write wait.)
use super::private_file;
use crate::process::signals::{self, Signals};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt},
        stat::{Mode, SFlag, fstat},
    },
    unistd::{dup2_stdout, isatty, pipe, read, write},
};
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
};

/// Room of a pipe that poll(2) reports as writable, in bytes (pipe(7), PIPE_BUF).
const PIPE_BUF: usize = 4096;
/// Room of a terminal that poll(2) reports as writable, in bytes without control characters: poll(2) reports room of at least 256 bytes
/// (drivers/tty/tty_buffer.c, tty_buffer_alloc()), but each control character takes extra room
/// (drivers/tty/n_tty.c, process_output()).
const TERMINAL_PIECE: usize = 128;
/// Size that pipes get if it is allowed, in bytes (fcntl(2), F_SETPIPE_SZ; the default limit for users is 1
/// MiB).
const PIPE_SIZE: i32 = 1 << 20;
/// Interval of looking for a FIFO's reader, in milliseconds.
const READER_INTERVAL_MS: u16 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Always ready, as a file or /dev/null.
    Ready,
    /// Non-blocking, with an open file description of netkat's own.
    NonBlocking,
    /// Blocking and shared with others: poll(2) precedes each transfer.
    Polled { pipe: bool },
    /// A socket; unless it is a SOCK_STREAM, messages keep their boundaries.
    Socket(SockType),
}

/// A descriptor of a standard stream, a pipe or a file.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    kind: Kind,
}

impl Stream {
    /// Opens standard input. If descriptor 0 was closed, the Rust runtime has opened /dev/null there, which
    /// is at its end.
    ///
    /// # Errors
    /// Those of dup(2) and fstat(2).
    pub(crate) fn input() -> io::Result<Stream> {
        Stream::new(io::stdin().as_fd().try_clone_to_owned()?, OFlag::O_RDONLY)
    }

    /// Opens standard output.
    ///
    /// # Errors
    /// Those of dup(2) and fstat(2).
    pub(crate) fn output() -> io::Result<Stream> {
        Stream::new(io::stdout().as_fd().try_clone_to_owned()?, OFlag::O_WRONLY)
    }

    /// Opens standard error, without a log line and without a change of the pipe's size.
    ///
    /// # Errors
    /// Those of dup(2) and fstat(2).
    pub(crate) fn error() -> io::Result<Stream> {
        Ok(Stream::wrap(io::stderr().as_fd().try_clone_to_owned()?, OFlag::O_WRONLY)?.0)
    }

    /// Wraps a descriptor. `access` is O_RDONLY or O_WRONLY.
    ///
    /// # Errors
    /// Those of fstat(2) and getsockopt(2).
    pub(crate) fn new(fd: OwnedFd, access: OFlag) -> io::Result<Stream> {
        let (stream, refused) = Stream::wrap(fd, access)?;
        if stream.is_pipe() {
            // A larger pipe saves system calls; the old size works, too.
            let _ = fcntl(&stream.fd, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        }
        if let Some(error) = refused {
            log::debug!("cannot reopen {:?} ({error}): polling it instead", stream.fd);
        }
        Ok(stream)
    }

    /// Wraps a descriptor. Returns the error, too, if a pipe or a terminal could not be opened again.
    fn wrap(fd: OwnedFd, access: OFlag) -> io::Result<(Stream, Option<Errno>)> {
        let mode = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
        if mode == SFlag::S_IFSOCK {
            let kind = Kind::Socket(getsockopt(&fd, sockopt::SockType)?);
            return Ok((Stream { fd, kind }, None));
        }
        let pipe = mode == SFlag::S_IFIFO;
        if !pipe && !isatty(&fd).unwrap_or(false) {
            return Ok((Stream { fd, kind: Kind::Ready }, None));
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        Ok(match open(path.as_str(), flags, Mode::empty()) {
            Ok(own) => (Stream { fd: own, kind: Kind::NonBlocking }, None),
            Err(error) => (Stream { fd, kind: Kind::Polled { pipe } }, Some(error)),
        })
    }

    /// Wraps one end of a pipe that netkat made itself, and sets O_NONBLOCK, which no other process sees.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub(crate) fn own(fd: OwnedFd) -> io::Result<Stream> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Stream { fd, kind: Kind::NonBlocking })
    }

    /// Opens a file for writing, and creates it, for its owner alone, if it does not exist. A FIFO waits
    /// for its reader until a signal ends the run; no write to it blocks.
    ///
    /// # Errors
    /// Those of open(2), and ENXIO if a signal came before a FIFO's reader.
    pub(crate) fn create(path: &Path, append: bool, signals: &Signals) -> io::Result<Stream> {
        loop {
            match private_file::open(path, append, libc::O_NONBLOCK | libc::O_NOCTTY) {
                // A FIFO without a reader (open(2)).
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_fifo(path) => {
                    signals.take()?;
                    if signals::ending().is_some() {
                        return Err(error);
                    }
                    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
                    poll(&mut fds, PollTimeout::from(READER_INTERVAL_MS))?;
                }
                file => return Ok(Stream { fd: file?.into(), kind: Kind::NonBlocking }),
            }
        }
    }

    fn is_pipe(&self) -> bool {
        fstat(&self.fd)
            .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
    }

    /// Returns whether a read of 0 bytes is an empty message and not the end, which SOCK_DGRAM does not have.
    pub(crate) fn has_empty_messages(&self) -> bool {
        self.kind == Kind::Socket(SockType::Datagram)
    }

    /// Returns whether each write stays a message of its own.
    pub(crate) fn keeps_messages(&self) -> bool {
        matches!(self.kind, Kind::Socket(SockType::Datagram | SockType::SeqPacket))
    }

    /// Reads what is there. Returns 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; those of read(2).
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| match self.kind {
            Kind::Polled { .. } if !self.is_ready(PollFlags::POLLIN)? => Err(Errno::EAGAIN),
            Kind::Socket(_) => recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
            _ => match read(&self.fd, buffer) {
                // The other side of a terminal has hung up.
                Err(Errno::EIO) => Ok(0),
                result => result,
            },
        })
    }

    /// Writes as much as fits.
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits; those of write(2).
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match self.kind {
            Kind::Polled { .. } if !self.is_ready(PollFlags::POLLOUT)? => Err(Errno::EAGAIN),
            Kind::Polled { pipe } => {
                let piece = match pipe {
                    true => PIPE_BUF,
                    false => {
                        let plain = bytes.iter().position(u8::is_ascii_control).unwrap_or(bytes.len());
                        plain.clamp(1, TERMINAL_PIECE)
                    }
                };
                write(&self.fd, &bytes[..bytes.len().min(piece)])
            }
            Kind::Socket(_) => {
                send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            }
            _ => write(&self.fd, bytes),
        })
    }

    fn is_ready(&self, events: PollFlags) -> nix::Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), events)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Releases descriptor 1, so that the reader of standard output sees its end before netkat exits.
pub(crate) fn release_output() {
    // A pipe without a reader exists even in an empty chroot, unlike /dev/null.
    if let Err(error) = pipe().and_then(|(_reader, writer)| dup2_stdout(writer)) {
        log::debug!("cannot release standard output early: {error}");
    }
}

fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

fn retry(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{fcntl::FcntlArg, unistd::pipe};

    fn is_blocking(fd: impl AsFd) -> bool {
        let flags = fcntl(fd, FcntlArg::F_GETFL).expect("F_GETFL");
        !OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn pipes_never_block_and_stay_blocking_for_others() {
        let (from, to) = pipe().expect("pipe");
        let (from_too, to_too) = (from.try_clone().expect("dup"), to.try_clone().expect("dup"));
        for polled in [false, true] {
            let (mut input, mut output) = (
                Stream::new(from.try_clone().expect("dup"), OFlag::O_RDONLY).expect("input"),
                Stream::new(to.try_clone().expect("dup"), OFlag::O_WRONLY).expect("output"),
            );
            if polled {
                input = Stream { fd: from.try_clone().expect("dup"), kind: Kind::Polled { pipe: true } };
                output = Stream { fd: to.try_clone().expect("dup"), kind: Kind::Polled { pipe: true } };
            }
            let mut buffer = vec![0; 1 << 16];
            let empty = input.read(&mut buffer).map_err(|e| e.kind());
            assert_eq!(empty, Err(io::ErrorKind::WouldBlock));
            let mut written = 0;
            let full = loop {
                match output.write(&buffer) {
                    Ok(n) => written += n,
                    Err(error) => break error.kind(),
                }
            };
            assert_eq!(full, io::ErrorKind::WouldBlock);
            let mut got = 0;
            while let Ok(n) = input.read(&mut buffer) {
                got += n;
            }
            assert!(got > 0 && got == written, "{got} of {written}");
            assert!(is_blocking(&from_too) && is_blocking(&to_too));
        }
    }

    /// A terminal without a reader takes what it has room for, and keeps its mode.
    #[test]
    fn terminals_never_block() {
        for polled in [false, true] {
            let terminal = nix::pty::openpty(None, None).expect("a terminal");
            let shared = terminal.slave.try_clone().expect("dup");
            let mut output = Stream::new(terminal.slave, OFlag::O_WRONLY).expect("output");
            if polled {
                output = Stream { fd: output.fd, kind: Kind::Polled { pipe: false } };
                // Blocking, as one that is shared.
                fcntl(&output.fd, FcntlArg::F_SETFL(OFlag::empty())).expect("F_SETFL");
            }
            let text = "a line\twith a tab\n".repeat(100);
            let mut written = 0;
            let full = loop {
                match output.write(text.as_bytes()) {
                    Ok(n) => written += n,
                    Err(error) => break error.kind(),
                }
            };
            assert!(full == io::ErrorKind::WouldBlock && written > 1000, "{full} after {written}");
            assert!(is_blocking(&shared));
        }
    }

    #[test]
    fn a_reader_that_left_is_an_error_not_a_signal() {
        let (from, to) = pipe().expect("pipe");
        drop(from);
        let output = Stream::new(to, OFlag::O_WRONLY);
        // Opening the writing end again fails without a reader; either way the write must fail.
        let error = output.expect("output").write(b"x").expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
