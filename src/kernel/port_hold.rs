//! Holds a port of the host for a command's flows, without any privilege.
//!
//! A [`PortLease`](super::PortLease) must silence the kernel; here the guard does that for each flow in the
//! flow table, so sockets that are merely bound suffice: bind(2) fails while any process has the port, and no
//! process gets it meanwhile. Segments of no flow are answered by a reset, as at any closed port.
use crate::net::Protocol;
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A held port; dropping it gives the port back.
#[derive(Debug)]
pub struct PortHold {
    _socket: Socket,
}

impl PortHold {
    /// Holds a port at all addresses of both families, by one socket.
    ///
    /// # Errors
    /// Those of bind(2): EADDRINUSE where a socket of the host has the port at any address, EACCES for a low
    /// port without CAP_NET_BIND_SERVICE; those of socket(2), as EMFILE.
    pub fn take(protocol: Protocol, port: u16) -> io::Result<PortHold> {
        match PortHold::bind(protocol, Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
            // Without IPv6, there are no such sockets or no such address.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                PortHold::bind(protocol, Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
            }
            result => result,
        }
    }

    fn bind(protocol: Protocol, domain: Domain, address: SocketAddr) -> io::Result<PortHold> {
        let kind = match protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
        };
        let socket = Socket::new(domain, kind, None)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        Ok(PortHold { _socket: socket })
    }
}
