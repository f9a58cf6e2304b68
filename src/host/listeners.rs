//! The TCP sockets that listen on a port, with their queues of connections (sock_diag(7)).
use super::netlink::{Netlink, NetlinkError};
use crate::net::{Protocol, zone::scoped};
use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::net::{IpAddr, SocketAddr};

/// INET_DIAG_CGROUP_ID (linux/inet_diag.h).
const CGROUP_ID: u16 = 21;
/// Maximum sockets that are listed of a port: SO_REUSEPORT has one a worker.
const MAX_LISTENERS: usize = 256;

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Address and port that it is bound to.
    pub address: SocketAddr,
    /// Index of the interface that it is bound to; 0 for all.
    pub interface: u32,
    /// It takes no IPv4 (IPV6_V6ONLY).
    pub v6_only: bool,
    /// The kernel's number of its control group of version 2 (Linux 5.8).
    pub cgroup: Option<u64>,
    /// Connections that wait for accept(2).
    pub queue: u32,
    /// Connections that may wait: one more than listen(2) was given fills the queue.
    pub backlog: u32,
}

impl Listener {
    /// Returns whether the kernel gives it a SYN for an address that comes in by an interface; 0 is any.
    pub(crate) fn takes(&self, address: IpAddr, interface: u32) -> bool {
        if self.interface != 0 && interface != 0 && self.interface != interface {
            return false;
        }
        match self.address.ip() {
            IpAddr::V6(bound) if bound.is_unspecified() => address.is_ipv6() || !self.v6_only,
            bound if bound.is_unspecified() => address.is_ipv4(),
            bound => bound.to_canonical() == address,
        }
    }

    /// Returns whether a further SYN is dropped (sk_acceptq_is_full in include/net/sock.h).
    pub(crate) fn is_full(&self) -> bool {
        self.queue > self.backlog
    }
}

/// An open socket for the question.
pub(crate) struct Listeners(Netlink<SockDiagMessage>);

impl Listeners {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn open() -> Result<Listeners, NetlinkError> {
        Netlink::of(NETLINK_SOCK_DIAG).map(Listeners)
    }

    /// Returns the TCP sockets that listen on a port.
    ///
    /// # Errors
    /// Those of [`Netlink::dump`].
    pub(crate) fn of_port(&mut self, port: u16) -> Result<Vec<Listener>, NetlinkError> {
        let mut listeners = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let request = SockDiagMessage::InetRequest(InetRequest {
                family,
                protocol: Protocol::Tcp.number(),
                extensions: ExtensionFlags::empty(),
                states: StateFlags::LISTEN,
                socket_id: SocketId { source_port: port, ..SocketId::new_v6() },
            });
            let answers = self.0.dump(request)?.into_iter().filter_map(|answer| match answer {
                SockDiagMessage::InetResponse(socket) => Some(Listener::of(&socket)),
                _ => None,
            });
            listeners.extend(answers.filter(|listener| listener.address.port() == port));
        }
        listeners.truncate(MAX_LISTENERS);
        Ok(listeners)
    }
}

impl Listener {
    fn of(socket: &InetResponse) -> Listener {
        let id = &socket.header.socket_id;
        Listener {
            address: scoped(id.source_address, id.source_port, id.interface_id),
            interface: id.interface_id,
            cgroup: socket.nlas.iter().find_map(cgroup),
            v6_only: socket.nlas.contains(&Nla::SkV6Only(true)),
            queue: socket.header.recv_queue,
            backlog: socket.header.send_queue,
        }
    }
}

/// Reads INET_DIAG_CGROUP_ID.
fn cgroup(attribute: &Nla) -> Option<u64> {
    let Nla::Other(other) = attribute else { return None };
    let mut bytes = [0; 8];
    (other.kind() == CGROUP_ID && other.value_len() == bytes.len()).then(|| other.emit_value(&mut bytes))?;
    Some(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_take_what_is_for_their_address() {
        let listener = |address: &str, v6_only| Listener {
            address: address.parse().expect("an address"),
            interface: 0,
            v6_only,
            cgroup: None,
            queue: 1,
            backlog: 0,
        };
        let [v4, v6]: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address"));
        for (bound, v6_only, takes) in [
            ("0.0.0.0:80", false, (true, false)),
            ("[::]:80", false, (true, true)),
            ("[::]:80", true, (false, true)),
            ("127.0.0.1:80", false, (false, false)),
            ("192.0.2.1:80", false, (true, false)),
            ("[::ffff:192.0.2.1]:80", false, (true, false)),
            ("[2001:db8::1]:80", true, (false, true)),
        ] {
            let listener = listener(bound, v6_only);
            assert_eq!((listener.takes(v4, 2), listener.takes(v6, 2)), takes, "{bound}");
            assert!(!Listener { interface: 3, ..listener }.takes(v4, 2));
        }
        assert!(listener("[::]:80", false).is_full());
        assert!(!Listener { backlog: 1, ..listener("[::]:80", false) }.is_full());
    }
}
