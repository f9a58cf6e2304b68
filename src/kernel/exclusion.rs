//! One netkat at a time: mutual exclusion of the processes of a network namespace.
//!
//! Like an [owner](super::owner)'s name, the lock is a socket's in the abstract namespace of AF_UNIX (man 7 unix): it
//! goes with the process however that ends. The socket is made first and gets its name when it is time: a sandboxed
//! process may do the latter only.

use log::debug;
use nix::sys::socket::{UnixAddr, bind};
use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixDatagram},
    thread,
    time::{Duration, Instant},
};

/// How long to wait for the others: none needs more than some milliseconds unless it is stopped.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(1);

/// The right to change what an interface has at clsact; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Exclusion {
    interface: u32,
    socket: UnixDatagram,
    held: bool,
}

impl Exclusion {
    /// Not yet held.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(interface: u32) -> io::Result<Exclusion> {
        Ok(Exclusion { interface, socket: UnixDatagram::unbound()?, held: false })
    }

    /// Waits until no other netkat holds it, but not for ever: someone who keeps it for [`PATIENCE`] is stopped, or
    /// no netkat, and mustn't stand in the way.
    pub(super) fn hold(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.held {
            match self.claim() {
                Ok(()) => self.held = true,
                Err(nix::Error::EADDRINUSE) if Instant::now() < end => thread::sleep(PAUSE),
                Err(error) => {
                    debug!("interface {}: going on without the lock of its clsact: {error}", self.interface);
                    return;
                }
            }
        }
    }

    fn claim(&self) -> nix::Result<()> {
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
                        let mut exclusion = Exclusion::new(interface).unwrap();
                        exclusion.hold();
                        exclusion.hold();
                        assert!(exclusion.held && !busy.swap(true, SeqCst));
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
        let mut stopped = Exclusion::new(interface).unwrap();
        stopped.hold();
        let began = Instant::now();
        let mut other = Exclusion::new(interface).unwrap();
        other.hold();
        assert!(!other.held && began.elapsed() >= PATIENCE);
        drop(stopped);
        other.hold();
        assert!(other.held);
    }
}
