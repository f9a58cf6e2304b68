//! A socket of the kernel's own stack that connects to one peer again and again.
//!
//! It is opened while this process may open sockets. connect(2) with AF_UNSPEC ends a connection by a reset and makes the
//! socket ready for the next (tcp_disconnect() in net/ipv4/tcp.c), so nothing is opened later.
#![allow(unsafe_code)]
use crate::net::Protocol;
use nix::{errno::Errno, libc};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io,
    mem::{MaybeUninit, size_of},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

/// TCP_SYN_SENT (net/tcp_states.h).
const SYN_SENT: u8 = 2;

/// The local side of a socket's connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct DialOptions {
    /// The source address of connections of its family; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// The interface to bind to (SO_BINDTODEVICE).
    pub interface: Option<String>,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// TTL or hop limit; `None` leaves it to the kernel.
    pub hop_limit: Option<u8>,
}

/// A socket that connects again and again.
#[derive(Debug)]
pub(crate) struct DialSocket {
    socket: Socket,
    protocol: Protocol,
    remote: SockAddr,
}

impl DialSocket {
    /// Opens a socket. That of UDP is connected from now on.
    ///
    /// # Errors
    /// Those of socket(2), setsockopt(2) and bind(2); for UDP of connect(2), too.
    pub(crate) fn open(
        protocol: Protocol,
        remote: SocketAddr,
        options: &DialOptions,
    ) -> io::Result<DialSocket> {
        let (kind, number) = match protocol {
            Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
            Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        };
        let socket = Socket::new(Domain::for_address(remote), kind.nonblocking().cloexec(), Some(number))?;
        match remote {
            SocketAddr::V4(_) => {
                socket.set_tos_v4(options.traffic_class.into())?;
                options.hop_limit.map_or(Ok(()), |limit| socket.set_ttl_v4(limit.into()))?;
            }
            SocketAddr::V6(_) => {
                socket.set_tclass_v6(options.traffic_class.into())?;
                options.hop_limit.map_or(Ok(()), |limit| socket.set_unicast_hops_v6(limit.into()))?;
            }
        }
        socket.bind_device(options.interface.as_deref().map(str::as_bytes))?;
        if let Some(source) = options.source.filter(|source| source.is_ipv4() == remote.is_ipv4()) {
            let scope = match remote {
                SocketAddr::V6(v6) => v6.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            socket.bind(&crate::net::zone::scoped(source, 0, scope).into())?;
        }
        let socket = DialSocket { socket, protocol, remote: remote.into() };
        if protocol == Protocol::Udp {
            socket.socket.connect(&socket.remote)?;
        }
        Ok(socket)
    }

    /// Begins a connection, or sends a datagram with this payload. A TCP socket is writable once the attempt is over, a UDP
    /// socket readable.
    ///
    /// # Errors
    /// Those of connect(2) and send(2) that end the attempt at once.
    pub(crate) fn begin(&self, payload: &[u8]) -> io::Result<()> {
        let result = match self.protocol {
            Protocol::Tcp => self.socket.connect(&self.remote),
            Protocol::Udp => {
                self.drain();
                self.socket.send(payload).map(drop)
            }
        };
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(()),
            result => result,
        }
    }

    /// Returns how the attempt ended: `Some` with the round trip by the kernel's own measure, if it has one; `None` while
    /// it is under way.
    ///
    /// # Errors
    /// The attempt's.
    pub(crate) fn outcome(&self) -> io::Result<Option<Option<Duration>>> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.protocol {
            Protocol::Tcp => {
                let info = self.info()?;
                // The first measure is not smoothed.
                let time = Duration::from_micros(info.tcpi_rtt.into());
                Ok((info.tcpi_state != SYN_SENT).then(|| Some(time).filter(|time| !time.is_zero())))
            }
            Protocol::Udp => match self.socket.recv(&mut [MaybeUninit::uninit(); 1]) {
                Ok(_) => Ok(Some(None)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Ends the attempt: a TCP connection by a reset.
    pub(crate) fn end(&self) {
        if self.protocol == Protocol::Udp {
            return;
        }
        let unspecified =
            libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: the address is a whole sockaddr of this length, which the kernel only reads.
        let result = unsafe { libc::connect(self.socket.as_raw_fd(), &raw const unspecified, length) };
        if let Err(errno) = Errno::result(result) {
            log::debug!("cannot end a connection of the kernel's: {errno}");
        }
        // An attempt that is cut short leaves an error (tcp_disconnect()).
        let _ = self.socket.take_error();
    }

    /// Asks for the connection's state (TCP_INFO in tcp(7)). Its round trip is that from the SYN before the rules at output
    /// to the SYN-ACK behind those at input.
    fn info(&self) -> io::Result<libc::tcp_info> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `info`, which has as many.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        Errno::result(result)?;
        // SAFETY: all fields are integers, for which the zeros that the kernel has not overwritten are valid.
        Ok(unsafe { info.assume_init() })
    }

    /// Drops late answers.
    fn drain(&self) {
        let _ = self.socket.take_error();
        while self.socket.recv(&mut [MaybeUninit::uninit(); 1]).is_ok() {}
    }
}

impl AsFd for DialSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
