//! A lock on an interface's clsact qdisc, between the netkats of a network namespace.
//!
//! Like the name of a [`super::liveness`] socket, the lock is a name in the abstract namespace of AF_UNIX
//! (unix(7)): it goes with the process however that ends. The socket is opened first and bound later, since
//! a sandboxed process may only do the latter.

use log::debug;
use nix::sys::socket::{UnixAddr, bind};
use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixDatagram},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for the lock. Its holders need milliseconds, unless they are stopped.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// The right to change an interface's clsact qdisc and filters; dropping it releases the lock.
#[derive(Debug)]
pub(super) struct ClsactLock {
    interface: u32,
    socket: UnixDatagram,
    held: bool,
}

impl ClsactLock {
    /// Returns a lock that is not held yet.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(interface: u32) -> io::Result<ClsactLock> {
        Ok(ClsactLock { interface, socket: UnixDatagram::unbound()?, held: false })
    }

    /// Waits until the lock is free and takes it. A holder that keeps it for [`PATIENCE`] is stopped or no
    /// netkat; then the caller goes on without.
    pub(super) fn lock(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.held {
            match self.try_lock() {
                Ok(()) => self.held = true,
                Err(nix::Error::EADDRINUSE) if Instant::now() < end => thread::sleep(PAUSE),
                Err(error) => {
                    debug!("interface {}: going on without the lock of its clsact: {error}", self.interface);
                    return;
                }
            }
        }
    }

    fn try_lock(&self) -> nix::Result<()> {
        let name = format!("netkat/clsact/{}", self.interface);
        bind(self.socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    #[test]
    fn there_is_one_holder_at_a_time() {
        // No interface has this number.
        let interface = std::process::id() | 1 << 31;
        let busy = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let mut lock = ClsactLock::new(interface).unwrap();
                        lock.lock();
                        lock.lock();
                        assert!(lock.held && !busy.swap(true, SeqCst));
                        thread::yield_now();
                        busy.store(false, SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_ever() {
        let interface = std::process::id() | 1 << 30;
        let mut stopped = ClsactLock::new(interface).unwrap();
        stopped.lock();
        let began = Instant::now();
        let mut other = ClsactLock::new(interface).unwrap();
        other.lock();
        assert!(!other.held && began.elapsed() >= PATIENCE);
        drop(stopped);
        other.lock();
        assert!(other.held);
    }
}
