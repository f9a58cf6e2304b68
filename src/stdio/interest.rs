//! What a stream waits for.
use nix::poll::{PollFd, PollFlags};
use std::{cell::Cell, os::fd::BorrowedFd};

/// A descriptor to wait for, and the flag that changes once what was waited for has come, or an error has, which the
/// next read or write will tell.
#[derive(Debug)]
pub struct Interest<'fd> {
    fd: BorrowedFd<'fd>,
    events: PollFlags,
    flag: &'fd Cell<bool>,
    becomes: bool,
}

impl<'fd> Interest<'fd> {
    /// Waits for something to read; `blocked` becomes false then.
    pub fn readable(fd: BorrowedFd<'fd>, blocked: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLIN, flag: blocked, becomes: false }
    }

    /// Waits for room to write; `blocked` becomes false then.
    pub fn writable(fd: BorrowedFd<'fd>, blocked: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLOUT, flag: blocked, becomes: false }
    }

    /// Waits for nothing but an error: on the writing side of a pipe, that its reader has gone (poll(2), POLLERR).
    /// `hung_up` becomes true then.
    pub fn hang_up(fd: BorrowedFd<'fd>, hung_up: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::empty(), flag: hung_up, becomes: true }
    }

    /// The descriptor as poll(2) wants it.
    pub(crate) fn poll_fd(&self) -> PollFd<'fd> {
        PollFd::new(self.fd, self.events)
    }

    /// Changes the flag: what was waited for has come.
    pub(crate) fn tell(&self) {
        self.flag.set(self.becomes);
    }
}
