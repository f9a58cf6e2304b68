//! Standard input and output, without ever blocking the loop.
//!
//! Setting O_NONBLOCK on a descriptor that we share with the shell would change it for everybody. So pipes
//! and terminals are opened anew through /proc, for ourselves; where that is not allowed, input is read only
//! after poll(2) says so, and output goes in pieces that poll(2) vouches for. (There, and only there, another process that
//! fills the same pipe between the two calls makes one write wait.)
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

/// What POSIX guarantees that a pipe takes without blocking once poll(2) reports it writable (pipe(7),
/// PIPE_BUF), in bytes.
const PIPE_BUF: usize = 4096;
/// The same for a terminal, in bytes without control characters: where poll(2) reports room, there are at least 256 bytes
/// of it (drivers/tty/tty_buffer.c, tty_buffer_alloc()), but each control character asks for room of its own
/// (drivers/tty/n_tty.c, process_output()).
const TERMINAL_PIECE: usize = 128;
/// The size that pipes are given where they may have it (fcntl(2), F_SETPIPE_SZ; the default limit for
/// ordinary users is 1 MiB), in bytes.
const PIPE_SIZE: i32 = 1 << 20;
/// How often to look whether a FIFO has got a reader, in milliseconds.
const READER_INTERVAL_MS: u16 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Always ready: a file, /dev/null.
    Ready,
    /// Ours alone, non-blocking.
    NonBlocking,
    /// Shared and blocking: ask poll(2) before each transfer.
    Polled { pipe: bool },
    /// With messages that keep their boundaries, unless it is a SOCK_STREAM.
    Socket(SockType),
}

/// One end of a byte stream that is not a network connection.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    kind: Kind,
}

impl Stream {
    /// Standard input. A closed descriptor 0 was replaced by /dev/null when the program started: it reads as
    /// ended.
    pub fn input() -> io::Result<Stream> {
        Stream::new(io::stdin().as_fd().try_clone_to_owned()?, OFlag::O_RDONLY)
    }

    pub fn output() -> io::Result<Stream> {
        Stream::new(io::stdout().as_fd().try_clone_to_owned()?, OFlag::O_WRONLY)
    }

    /// Standard error. Nothing is logged on the way, and the size of a pipe stays.
    pub fn error() -> io::Result<Stream> {
        Ok(Stream::wrap(io::stderr().as_fd().try_clone_to_owned()?, OFlag::O_WRONLY)?.0)
    }

    /// Wraps any descriptor: a pipe to or from a child, say. `access` is O_RDONLY or O_WRONLY.
    pub fn new(fd: OwnedFd, access: OFlag) -> io::Result<Stream> {
        let (stream, refused) = Stream::wrap(fd, access)?;
        if stream.is_pipe() {
            // Larger steps; the pipe works at its old size, too.
            let _ = fcntl(&stream.fd, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        }
        if let Some(error) = refused {
            log::debug!("cannot open {:?} anew ({error}): polling it instead", stream.fd);
        }
        Ok(stream)
    }

    /// The stream, and why its descriptor is still the shared one, if it had better not be.
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

    /// Wraps our side of a pipe that we made ourselves, so that O_NONBLOCK on it is nobody else's concern.
    pub fn own(fd: OwnedFd) -> io::Result<Stream> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Stream { fd, kind: Kind::NonBlocking })
    }

    /// Opens a file for writing, which is made, for its owner alone, if it does not exist. A FIFO waits for its reader, until a signal ends the
    /// run; no write to it blocks.
    ///
    /// # Errors
    /// Those of open(2), and of a signal that came first.
    pub fn create(path: &Path, append: bool, signals: &Signals) -> io::Result<Stream> {
        loop {
            match private_file::open(path, append, libc::O_NONBLOCK | libc::O_NOCTTY) {
                // A FIFO that nobody reads (open(2)).
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

    /// Whether poll(2) can tell when this stream is ready; if not, it always is.
    pub fn is_pollable(&self) -> bool {
        self.kind != Kind::Ready
    }

    /// Whether a read of 0 bytes is an empty message rather than the end (SOCK_DGRAM, which has none).
    pub fn has_empty_messages(&self) -> bool {
        self.kind == Kind::Socket(SockType::Datagram)
    }

    /// Whether each write stays a message of its own for whoever reads.
    pub fn keeps_messages(&self) -> bool {
        matches!(self.kind, Kind::Socket(SockType::Datagram | SockType::SeqPacket))
    }

    /// Reads what is there. `WouldBlock` when that is nothing, 0 at the end.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
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

    /// Writes as much as fits. `WouldBlock` when that is nothing.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
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

/// Lets go of descriptor 1, so that whoever reads the other side sees the end of our output before we leave.
pub fn release_output() {
    // A pipe that nobody reads: unlike /dev/null it is there in an empty chroot, too.
    if let Err(error) = pipe().and_then(|(_reader, writer)| dup2_stdout(writer)) {
        log::debug!("cannot let go of standard output early: {error}");
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

    /// A terminal that nobody reads takes what it has room for, and keeps its mode.
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
        // Opening the writing end anew fails without a reader; either way the write must say so.
        let error = output.expect("output").write(b"x").expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
