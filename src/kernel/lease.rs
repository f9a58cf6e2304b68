//! A port lease: kernel sockets that hold our port against other processes and receive nothing.
//!
//! A TCP socket listens, since the kernel resets connections to one that is only bound; a classic filter
//! that accepts no byte silences it. A UDP socket is bound with the same filter. The lease needs no guard,
//! so it also covers the time between the tap's opening and the guard's attachment.
//!
//! The lease takes no port from others. bind(2) without SO_REUSEADDR fails when a socket of any process is
//! bound to the port, whatever its options and its state. Only where nothing but TIME-WAIT is left, which
//! the kernel answers for itself as long as no listener matches, does the lease bind with SO_REUSEADDR.
//! That would also share the port with a socket that is bound with SO_REUSEADDR and does not listen yet
//! (inet_bind_conflict in net/ipv4/inet_connection_sock.c), so the kernel must list such sockets, and list
//! none.

use super::{
    bind_conflict::{self, BindConflict},
    error::KernelError,
};
use crate::{
    net::{Protocol, zone::scoped},
    process::capability::{self, Capability},
};
use log::debug;
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Maximum ephemeral ports to try that are free at the first address and taken at another.
const EPHEMERAL_ATTEMPTS: usize = 16;

/// A held port; dropping it gives the port back.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    _sockets: Vec<Socket>,
}

impl PortLease {
    /// Holds a port at each of `addresses`; an unspecified one stands for all of its family, so `[0.0.0.0,
    /// ::]` is a dual-stack listener's lease. Port 0 picks a free ephemeral port. `interface` is the index
    /// of the interface that link-local addresses and groups belong to.
    ///
    /// A lease needs an address of this host: an assumed address has none.
    ///
    /// # Errors
    /// [`KernelError::PortInUse`], [`KernelError::NotLocal`]; [`KernelError::Capability`] below port 1024
    /// without CAP_NET_BIND_SERVICE; [`KernelError::Lease`] for anything else.
    pub fn take(
        protocol: Protocol,
        addresses: &[IpAddr],
        port: u16,
        interface: u32,
    ) -> Result<PortLease, KernelError> {
        let mut attempts = if port == 0 { EPHEMERAL_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match PortLease::hold_all(protocol, addresses, port, interface, hold_one) {
                Err(KernelError::PortInUse { .. }) if attempts > 0 => {}
                result => return result,
            }
        }
    }

    /// Holds a UDP port at groups or broadcast addresses, beside the other listeners there that have set
    /// SO_REUSEADDR, as it is usual. The kernel delivers such a datagram to each of them (__udp4_lib_mcast_deliver
    /// in net/ipv4/udp.c), so the lease takes none from them.
    ///
    /// # Errors
    /// As for [`PortLease::take`].
    pub(crate) fn share(groups: &[IpAddr], port: u16, interface: u32) -> Result<PortLease, KernelError> {
        PortLease::hold_all(Protocol::Udp, groups, port, interface, hold_shared)
    }

    /// Returns the held port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn hold_all(
        protocol: Protocol,
        addresses: &[IpAddr],
        mut port: u16,
        interface: u32,
        hold: fn(Protocol, SocketAddr) -> Result<Socket, KernelError>,
    ) -> Result<PortLease, KernelError> {
        let mut sockets = Vec::with_capacity(addresses.len());
        for &ip in addresses {
            let address = scoped(ip, port, interface);
            let socket = hold(protocol, address)?;
            port = bound_port(&socket).map_err(|source| KernelError::Lease { protocol, address, source })?;
            sockets.push(socket);
        }
        Ok(PortLease { port, _sockets: sockets })
    }
}

/// Returns a port that is free at all addresses of a family at this moment: the kernel draws it from its
/// ephemeral range (net.ipv4.ip_local_port_range, without net.ipv4.ip_local_reserved_ports).
///
/// # Errors
/// [`KernelError::Lease`], above all where no port is free.
pub(crate) fn draw_port(protocol: Protocol, v4: bool) -> Result<u16, KernelError> {
    let any = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let address = SocketAddr::new(any, 0);
    let drawn = || {
        let socket = unbound_socket(protocol, address)?;
        socket.bind(&SockAddr::from(address))?;
        bound_port(&socket)
    };
    drawn().map_err(|source| KernelError::Lease { protocol, address, source })
}

fn hold_shared(protocol: Protocol, address: SocketAddr) -> Result<Socket, KernelError> {
    silent_socket(protocol, address, true).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            let conflict = bind_conflict::find(protocol, address, None).unwrap_or(BindConflict::Unlisted);
            KernelError::PortInUse { protocol, address, conflict }
        }
        _ => refused(protocol, address, error),
    })
}

fn hold_one(protocol: Protocol, address: SocketAddr) -> Result<Socket, KernelError> {
    match silent_socket(protocol, address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        result => return result.map_err(|error| refused(protocol, address, error)),
    }
    let conflict = bind_conflict::find(protocol, address, None).unwrap_or(BindConflict::Unlisted);
    let BindConflict::TimeWait { remote } = conflict else {
        return Err(KernelError::PortInUse { protocol, address, conflict });
    };
    if !bind_conflict::lists_bound_sockets().unwrap_or(false) {
        return Err(KernelError::PortInUse {
            protocol,
            address,
            conflict: BindConflict::Concealed { remote },
        });
    }
    debug!("{conflict}: binding port {address} with SO_REUSEADDR");
    match silent_socket(protocol, address, true) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(KernelError::PortInUse { protocol, address, conflict })
        }
        Err(error) => Err(refused(protocol, address, error)),
        // Our socket listens, so that from now on no other can bind the port. One may have in between.
        Ok(socket) => match others(&socket, protocol, address) {
            Ok(BindConflict::TimeWait { .. } | BindConflict::Unlisted) => Ok(socket),
            Ok(conflict) => Err(KernelError::PortInUse { protocol, address, conflict }),
            Err(source) => Err(KernelError::Lease { protocol, address, source }),
        },
    }
}

/// Finds what else holds the port of our socket.
fn others(socket: &Socket, protocol: Protocol, address: SocketAddr) -> io::Result<BindConflict> {
    bind_conflict::find(protocol, address, Some(bind_conflict::inode(socket)?))
}

fn silent_socket(protocol: Protocol, address: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let socket = unbound_socket(protocol, address)?;
    socket.set_reuse_address(reuse)?;
    // BPF_RET | BPF_K with 0: keep no byte of any packet (man 7 socket, SO_ATTACH_FILTER).
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
    socket.bind(&SockAddr::from(address))?;
    if protocol == Protocol::Tcp {
        socket.listen(1)?;
    }
    Ok(socket)
}

fn unbound_socket(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bound_port(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok(address.port())
}

fn refused(protocol: Protocol, address: SocketAddr, source: io::Error) -> KernelError {
    if source.kind() == io::ErrorKind::AddrNotAvailable {
        return KernelError::NotLocal { protocol, address };
    }
    // bind(2) fails with EACCES (__inet_bind in net/ipv4/af_inet.c), SO_ATTACH_FILTER with EPERM
    // (sk_setsockopt in net/core/sock.c).
    let (purpose, missing) = match source.raw_os_error() {
        Some(libc::EACCES) => ("hold a port that low", Capability::NetBindService),
        _ => ("put a filter on its port lease", Capability::NetAdmin),
    };
    capability::denied(&source, missing, purpose)
        .map_or(KernelError::Lease { protocol, address, source }, KernelError::Capability)
}
