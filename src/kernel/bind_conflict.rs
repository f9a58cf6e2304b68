//! Finds the sockets that hold a port, by the kernel's socket diagnostics (sock_diag(7)).

use crate::{
    host::netlink::Netlink,
    net::{
        Protocol,
        zone::{endpoint, needs_zone, scoped, zone_of},
    },
};
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
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// States of include/net/tcp_states.h. A UDP socket is ESTABLISHED when it is connected, else CLOSE. A TCP
/// socket that is only bound is CLOSE.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
/// The pseudo-state of TCP sockets that are only bound (Linux 6.8); older kernels ignore it.
const BOUND_INACTIVE: u32 = 1 << 13;

/// A reason why a port cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindConflict {
    /// A kernel socket.
    Socket {
        /// The socket's protocol.
        protocol: Protocol,
        /// Its TCP_* state (include/net/tcp_states.h).
        state: u8,
        /// Its own address and port.
        local: SocketAddr,
        /// Its peer's; unspecified without a peer.
        remote: SocketAddr,
    },
    /// Only TCP connections in TIME-WAIT; the kernel would share the port.
    TimeWait {
        /// The peer of one of them.
        remote: SocketAddr,
    },
    /// TCP connections in TIME-WAIT, on a kernel that does not list sockets which are only bound: such a
    /// socket may exist, too.
    Concealed {
        /// The peer of a connection in TIME-WAIT.
        remote: SocketAddr,
    },
    /// A socket that the kernel does not list: it is bound and neither listens nor is connected.
    Unlisted,
}

impl fmt::Display for BindConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindConflict::Socket { state: LISTEN, local, .. } => {
                write!(f, "a process listens on {}", endpoint(local))
            }
            BindConflict::Socket { state: ESTABLISHED, local, remote, .. } => {
                write!(f, "a socket at {} is connected to {}", endpoint(local), endpoint(remote))
            }
            BindConflict::Socket { protocol: Protocol::Udp, local, .. } => {
                write!(f, "a process receives on {}", endpoint(local))
            }
            BindConflict::Socket { state: CLOSE, local, .. } => {
                write!(f, "a process has bound {}, and may be about to listen there", endpoint(local))
            }
            BindConflict::Socket { state, local, remote, .. } => {
                let state = state_name(*state);
                write!(f, "a connection of {} with {} is in state {state}", endpoint(local), endpoint(remote))
            }
            BindConflict::TimeWait { remote } => {
                write!(f, "an earlier connection with {} is in state TIME-WAIT", endpoint(remote))
            }
            BindConflict::Concealed { remote } => write!(
                f,
                "an earlier connection with {} is in state TIME-WAIT, for a minute at most, and this kernel (before \
                 Linux 6.8) does not tell whether a process has bound the port, too",
                endpoint(remote)
            ),
            BindConflict::Unlisted => write!(f, "another socket is bound to it"),
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

/// Returns the worst conflict at a port: a listener before a connection or a bound socket before TIME-WAIT.
/// The socket with the inode `own` does not count.
///
/// # Errors
/// The kernel's.
pub(super) fn find(protocol: Protocol, address: SocketAddr, own: Option<u64>) -> io::Result<BindConflict> {
    let all = StateFlags::from_bits_retain(StateFlags::all().bits() | BOUND_INACTIVE);
    let mut sockets = list(protocol, address.port(), all)?;
    sockets.retain(|socket| holds(&socket.socket_id, address) && own != Some(socket.inode.into()));
    sockets.sort_by_key(|socket| (socket.state == TIME_WAIT, socket.state != LISTEN));
    Ok(sockets.first().map_or(BindConflict::Unlisted, |socket| describe(protocol, socket)))
}

/// Returns what holds a port at any address; `None` if the kernel does not list it.
pub(crate) fn port_holder(protocol: Protocol, port: u16) -> Option<BindConflict> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let found = [any, v4].into_iter().filter_map(|address| find(protocol, address, None).ok());
    found.into_iter().find(|conflict| *conflict != BindConflict::Unlisted)
}

/// Returns whether the kernel lists TCP sockets that are only bound, by asking for one of our own.
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

/// Returns whether a socket's local address covers the wanted one. A socket at :: may hold IPv4 as well;
/// the kernel does not list that property.
fn holds(socket: &SocketId, wanted: SocketAddr) -> bool {
    // An equal link-local address on another link is another address (RFC 4007, section 6).
    let elsewhere = |zone| socket.interface_id != 0 && socket.interface_id != zone;
    if needs_zone(wanted.ip()) && zone_of(&wanted).is_some_and(elsewhere) {
        return false;
    }
    let (held, wanted_ip) = (socket.source_address.to_canonical(), wanted.ip().to_canonical());
    if held.is_ipv4() == wanted_ip.is_ipv4() {
        held == wanted_ip || held.is_unspecified() || wanted_ip.is_unspecified()
    } else {
        held.is_ipv6() && held.is_unspecified()
    }
}

fn describe(protocol: Protocol, socket: &InetResponseHeader) -> BindConflict {
    let id = &socket.socket_id;
    let address = |ip: IpAddr, port| scoped(ip.to_canonical(), port, id.interface_id);
    let remote = address(id.destination_address, id.destination_port);
    if protocol == Protocol::Tcp && socket.state == TIME_WAIT {
        return BindConflict::TimeWait { remote };
    }
    let local = address(id.source_address, id.source_port);
    BindConflict::Socket { protocol, state: socket.state, local, remote }
}
