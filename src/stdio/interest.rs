//! An interest: an event of a descriptor that the event loop waits for (poll(2)).
use nix::poll::{PollFd, PollFlags};
use std::{cell::Cell, os::fd::BorrowedFd};

/// A descriptor's event, and the flag that changes when the event or an error occurs. The next read or
/// write returns that error.
#[derive(Debug)]
pub(crate) struct Interest<'fd> {
    fd: BorrowedFd<'fd>,
    events: PollFlags,
    flag: &'fd Cell<bool>,
    becomes: bool,
}

impl<'fd> Interest<'fd> {
    /// Waits for data to read; `blocked` becomes false then.
    pub(crate) fn readable(fd: BorrowedFd<'fd>, blocked: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLIN, flag: blocked, becomes: false }
    }

    /// Waits for room to write; `blocked` becomes false then.
    pub(crate) fn writable(fd: BorrowedFd<'fd>, blocked: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::POLLOUT, flag: blocked, becomes: false }
    }

    /// Waits for an error alone, which the writing side of a pipe has when its reader is gone (poll(2),
    /// POLLERR); `hung_up` becomes true then.
    pub(crate) fn hang_up(fd: BorrowedFd<'fd>, hung_up: &'fd Cell<bool>) -> Interest<'fd> {
        Interest { fd, events: PollFlags::empty(), flag: hung_up, becomes: true }
    }

    /// Returns the argument of poll(2).
    pub(crate) fn poll_fd(&self) -> PollFd<'fd> {
        PollFd::new(self.fd, self.events)
    }

    /// Changes the flag, since the event has occurred.
    pub(crate) fn set_ready(&self) {
        self.flag.set(self.becomes);
    }
}
