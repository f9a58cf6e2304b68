//! A socket whose name shows that its process lives: so a netkat tells another's attachments from a dead
//! one's.
//!
//! The name lies in the abstract namespace of AF_UNIX (unix(7)). It belongs to the network namespace, as
//! attachments do, leaves nothing in a file system, and goes with the process however that ends. A stopped
//! process keeps it, where a heartbeat alone would make the process look dead.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// Shows that the owner of an attachment lives, until it is dropped.
#[derive(Debug)]
pub(super) struct LivenessSocket {
    id: u32,
    _socket: Option<UnixDatagram>,
}

impl LivenessSocket {
    /// Binds the name for `id`, the kernel's id of one of our programs. If the name is bound already, the
    /// owner counts as living, which is all that is wanted.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(id: u32) -> io::Result<LivenessSocket> {
        match UnixDatagram::bind_addr(&name(id)?) {
            Ok(socket) => Ok(LivenessSocket { id, _socket: Some(socket) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Ok(LivenessSocket { id, _socket: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the id that the name is for.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Returns whether the owner with this id lives; true in doubt.
    pub(super) fn is_alive(id: u32) -> bool {
        let answer = name(id).and_then(|name| UnixDatagram::unbound()?.connect_addr(&name));
        !matches!(answer, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

fn name(id: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("netkat/{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_until_it_is_dropped() {
        let id = std::process::id() | 1 << 31;
        assert!(!LivenessSocket::is_alive(id));
        let owner = LivenessSocket::open(id).unwrap();
        assert!(LivenessSocket::is_alive(owner.id()));
        drop(owner);
        assert!(!LivenessSocket::is_alive(id));
    }
}
