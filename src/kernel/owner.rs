//! A name that lives as long as its process: how a netkat tells another's attachments from a dead one's.
//!
//! It is a socket in the abstract namespace of AF_UNIX (man 7 unix), which belongs to the network namespace
//! as the attachments do, leaves nothing in a file system, and goes with the process however that ends. A
//! stopped process keeps it, where a heartbeat alone would make it look dead.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// The claim to be a living owner.
#[derive(Debug)]
pub(super) struct Owner {
    id: u32,
    _socket: Option<UnixDatagram>,
}

impl Owner {
    /// Claims a number that nobody else uses (the kernel's id of one of our programs). When someone holds
    /// that name, the owner counts as living, which is all that is wanted.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn claim(id: u32) -> io::Result<Owner> {
        match UnixDatagram::bind_addr(&name(id)?) {
            Ok(socket) => Ok(Owner { id, _socket: Some(socket) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Owner { id, _socket: None }),
            Err(error) => Err(error),
        }
    }

    /// The claimed number.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether the owner with this number lives. In doubt, it does.
    pub(super) fn lives(id: u32) -> bool {
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
        assert!(!Owner::lives(id));
        let owner = Owner::claim(id).unwrap();
        assert!(Owner::lives(owner.id()));
        drop(owner);
        assert!(!Owner::lives(id));
    }
}
