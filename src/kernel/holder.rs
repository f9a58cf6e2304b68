//! Who holds a port, from the kernel's socket diagnostics (man 7 sock_diag).

use crate::{host::netlink::Netlink, net::Protocol};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::sys::stat::fstat;
use socket2::{Domain, Socket, Type};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// include/net/tcp_states.h; a UDP socket is ESTABLISHED when it is connected, else CLOSE, and so is a TCP socket that is
/// bound and no more.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
/// Asks for sockets that are bound and no more (Linux 6.8); older kernels ignore it.
const BOUND_INACTIVE: u32 = 1 << 13;

/// What stands in the way of a port lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A socket of the kernel's.
    Socket { protocol: Protocol, state: u8, local: SocketAddr, remote: SocketAddr },
    /// TCP connections that have ended and wait for stragglers; the kernel would lend the port.
    TimeWait { remote: SocketAddr },
    /// The same, on a kernel that does not list sockets which are only bound: there may be one.
    Concealed { remote: SocketAddr },
    /// The kernel lists no socket: one is bound there but neither listens nor is connected.
    Unlisted,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Socket { state: LISTEN, local, .. } => write!(f, "a process listens on {local}"),
            Holder::Socket { state: ESTABLISHED, local, remote, .. } => {
                write!(f, "a socket at {local} is connected to {remote}")
            }
            Holder::Socket { protocol: Protocol::Udp, local, .. } => {
                write!(f, "a process receives on {local}")
            }
            Holder::Socket { state: CLOSE, local, .. } => {
                write!(f, "a process has bound {local}, and may be about to listen there")
            }
            Holder::Socket { state, local, remote, .. } => {
                write!(f, "a connection of {local} with {remote} is in state {}", state_name(*state))
            }
            Holder::TimeWait { remote } => {
                write!(f, "an earlier connection with {remote} is in state TIME-WAIT")
            }
            Holder::Concealed { remote } => write!(
                f,
                "an earlier connection with {remote} is in state TIME-WAIT, for a minute at most, and this kernel (before \
                 Linux 6.8) does not tell whether a process has bound the port, too"
            ),
            Holder::Unlisted => write!(f, "another socket is bound to it"),
        }
    }
}

fn state_name(state: u8) -> &'static str {
    match state {
        2 => "SYN-SENT",
        3 => "SYN-RECEIVED",
        4 => "FIN-WAIT-1",
        5 => "FIN-WAIT-2",
        8 => "CLOSE-WAIT",
        9 => "LAST-ACK",
        11 => "CLOSING",
        12 => "SYN-RECEIVED",
        _ => "BOUND",
    }
}

/// Returns the worst of what holds a port: a listener before a connection or a bound socket before TIME-WAIT. The
/// socket with the inode `own` does not count.
///
/// # Errors
/// The kernel's.
pub(super) fn find(protocol: Protocol, address: SocketAddr, own: Option<u64>) -> io::Result<Holder> {
    let all = StateFlags::from_bits_retain(StateFlags::all().bits() | BOUND_INACTIVE);
    let mut holders = list(protocol, address.port(), all)?;
    holders.retain(|socket| holds(&socket.socket_id, address) && own != Some(socket.inode.into()));
    holders.sort_by_key(|socket| (socket.state == TIME_WAIT, socket.state != LISTEN));
    Ok(holders.first().map_or(Holder::Unlisted, |socket| describe(protocol, socket)))
}

/// Whether the kernel lists TCP sockets that are only bound: asked for one of our own.
///
/// # Errors
/// The kernel's.
pub(super) fn lists_bound_sockets() -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let inode = inode(&socket)?;
    let listed = list(Protocol::Tcp, address.port(), StateFlags::from_bits_retain(BOUND_INACTIVE))?;
    Ok(listed.iter().any(|socket| u64::from(socket.inode) == inode))
}

/// Returns the number by which socket diagnostics name a socket.
///
/// # Errors
/// Those of fstat(2).
pub(super) fn inode(socket: &Socket) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
}

/// Returns the sockets of a port that are in one of these states.
fn list(protocol: Protocol, port: u16, states: StateFlags) -> io::Result<Vec<InetResponseHeader>> {
    let mut netlink = Netlink::of(NETLINK_SOCK_DIAG)?;
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: protocol.number(),
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id: SocketId { source_port: port, ..SocketId::new_v6() },
        });
        for answer in netlink.dump(request)? {
            if let SockDiagMessage::InetResponse(socket) = answer
                && socket.header.socket_id.source_port == port
            {
                sockets.push(socket.header);
            }
        }
    }
    Ok(sockets)
}

/// Whether a socket's local address covers the one wanted. A socket on :: may hold IPv4 as well, which the
/// kernel does not say here.
fn holds(socket: &SocketId, wanted: SocketAddr) -> bool {
    let (held, wanted_ip) = (socket.source_address.to_canonical(), wanted.ip().to_canonical());
    if held.is_ipv4() == wanted_ip.is_ipv4() {
        held == wanted_ip || held.is_unspecified() || wanted_ip.is_unspecified()
    } else {
        held.is_ipv6() && held.is_unspecified()
    }
}

fn describe(protocol: Protocol, socket: &InetResponseHeader) -> Holder {
    let id = &socket.socket_id;
    let address = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    let remote = address(id.destination_address, id.destination_port);
    if protocol == Protocol::Tcp && socket.state == TIME_WAIT {
        return Holder::TimeWait { remote };
    }
    let local = address(id.source_address, id.source_port);
    Holder::Socket { protocol, state: socket.state, local, remote }
}
