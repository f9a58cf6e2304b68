//! Holds a port of the host for a command's flows, without any privilege.
//!
//! A [`PortLease`](super::PortLease) is a socket that listens, with a filter that accepts no byte; a filter on a
//! TCP socket takes CAP_NET_ADMIN (sk_setsockopt in net/core/sock.c). Sockets with their filter are therefore
//! made ahead, while there are privileges, and bound later. Once they are used up, TCP ports are held by sockets
//! that are merely bound: no process gets the port either, and the guard keeps the flows' packets from the
//! kernel, but a program ahead of the guard that lets one past it makes the kernel answer with a reset.
use crate::net::Protocol;
use socket2::{Domain, SockFilter, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// TCP sockets of both families that answer nothing, not bound yet.
#[derive(Debug, Default)]
pub(crate) struct SilentSockets {
    sockets: Vec<Socket>,
}

impl SilentSockets {
    /// Makes `count` sockets, which later take ports without privilege.
    ///
    /// # Errors
    /// Those of socket(2) and setsockopt(2), as without CAP_NET_ADMIN.
    pub(crate) fn make(count: usize) -> io::Result<SilentSockets> {
        let make = |_| {
            let socket = dual_stack(Type::STREAM)?;
            // BPF_RET | BPF_K with 0: keep no byte of any packet (man 7 socket, SO_ATTACH_FILTER).
            socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
            Ok(socket)
        };
        Ok(SilentSockets { sockets: (0..count).map(make).collect::<io::Result<_>>()? })
    }
}

/// A held port; dropping it gives the port back.
#[derive(Debug)]
pub(crate) struct PortHold {
    _socket: Socket,
}

impl PortHold {
    /// Holds a port at all addresses of both families, by one socket.
    ///
    /// # Errors
    /// Those of bind(2): EADDRINUSE where a socket of the host has the port at any address, EACCES for a low
    /// port without CAP_NET_BIND_SERVICE; those of socket(2), as EMFILE.
    pub(crate) fn take(protocol: Protocol, port: u16, silent: &mut SilentSockets) -> io::Result<PortHold> {
        let (kind, ready) = match protocol {
            Protocol::Tcp => (Type::STREAM, silent.sockets.pop()),
            Protocol::Udp => (Type::DGRAM, None),
        };
        let listens = ready.is_some();
        let socket = ready.map_or_else(|| dual_stack(kind), Ok)?;
        let address: SocketAddr = match socket.domain()? {
            Domain::IPV6 => (Ipv6Addr::UNSPECIFIED, port).into(),
            _ => (Ipv4Addr::UNSPECIFIED, port).into(),
        };
        if let Err(error) = socket.bind(&address.into()) {
            // Not bound, so good for another port.
            if listens {
                silent.sockets.push(socket);
            }
            return Err(error);
        }
        if listens {
            socket.listen(1)?;
        }
        Ok(PortHold { _socket: socket })
    }
}

/// Returns a socket for both families; for IPv4 alone where the kernel has no IPv6.
fn dual_stack(kind: Type) -> io::Result<Socket> {
    match Socket::new(Domain::IPV6, kind, None) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            Ok(socket)
        }
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            Socket::new(Domain::IPV4, kind, None)
        }
        Err(error) => Err(error),
    }
}
