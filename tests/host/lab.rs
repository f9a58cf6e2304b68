//! Two network namespaces for each test: "us", which asks, and "peer" at the other end of two veth
//! pairs, eth0 (10.0.0.0/24, 2001:db8:0::/64) and eth1 (10.1.0.0/24, 2001:db8:1::/64). We are host
//! 1 on each, the peer is host 2.

#[path = "../support/namespace.rs"]
mod namespace;

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

pub use crate::skipped::skipped;
use namespace::Namespace;
use netkat::{
    host::{
        interface,
        neighbour::{self, NeighbourError},
        route::{self, Query, Route, RouteError},
    },
    net::{MacAddr, Protocol},
};
use nix::sys::socket::{setsockopt, sockopt};

/// A pair of connected namespaces, removed when dropped.
pub struct Lab {
    us: Namespace,
    peer: Namespace,
}

impl Lab {
    /// Builds the pair; `None` where that is impossible.
    pub fn new() -> Option<Self> {
        let lab = Lab { us: Namespace::available("us")?, peer: Namespace::new("peer") };
        for namespace in [&lab.us, &lab.peer] {
            // Addresses during duplicate address detection are part of the question.
            namespace.sysctl("net.ipv6.conf.default.accept_dad", "1");
        }
        for link in 0..2 {
            lab.us.join(&format!("eth{link}"), &lab.peer, &format!("eth{link}"));
            for (namespace, host) in [(&lab.us, 1), (&lab.peer, 2)] {
                namespace.ip(&format!("link set eth{link} address 02:00:00:00:0{link}:0{host}"));
                namespace.ip(&format!("addr add 10.{link}.0.{host}/24 dev eth{link}"));
                namespace.ip(&format!("link set eth{link} up"));
                namespace.ip(&format!("addr add 2001:db8:{link}::{host}/64 dev eth{link} nodad"));
            }
        }
        Some(lab)
    }

    /// Runs `ip` in our namespace.
    pub fn us(&self, command: &str) {
        self.us.ip(command);
    }

    /// Runs `ip` in our namespace where the kernel may lack the feature.
    pub fn try_us(&self, command: &str) -> Result<(), String> {
        self.us.try_ip(command).map(drop)
    }

    /// Runs `ip` in the peer's namespace.
    pub fn peer(&self, command: &str) {
        self.peer.ip(command);
    }

    /// Runs `work` in our namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.us.inside(work)
    }

    /// Runs `work` in the peer's namespace.
    pub fn inside_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.peer.inside(work)
    }

    pub fn lookup(&self, query: &Query) -> Result<Route, RouteError> {
        self.inside(|| route::lookup(query))
    }

    /// Returns the route of a TCP flow to port 80.
    pub fn route(&self, destination: &str) -> Route {
        self.lookup(&to(destination)).unwrap_or_else(|error| panic!("{destination}: {error}"))
    }

    pub fn refusal(&self, query: &Query) -> RouteError {
        match self.lookup(query) {
            Err(error) => error,
            Ok(route) => panic!("found {route:?}"),
        }
    }

    pub fn index(&self, name: &str) -> u32 {
        self.inside(|| interface::by_name(name)).expect(name).index
    }

    pub fn resolve(
        &self,
        name: &str,
        neighbour: &str,
        deadline: Duration,
    ) -> Result<MacAddr, NeighbourError> {
        let index = self.index(name);
        self.inside(|| neighbour::resolve(index, address(neighbour), deadline))
    }

    /// Returns the source address that a kernel socket gets for the query; `None` if it cannot
    /// connect.
    pub fn source_of_kernel(&self, query: &Query) -> Option<IpAddr> {
        self.inside(|| {
            let socket = UdpSocket::bind((any(query.destination), 0)).expect("bind");
            if let Some(index) = query.interface {
                let name = interface::by_index(index).expect("interface").name;
                setsockopt(&socket, sockopt::BindToDevice, &name.into()).expect("bind to device");
            }
            socket.connect((query.destination, 80)).ok()?;
            Some(socket.local_addr().expect("connected").ip())
        })
    }
}

/// Writes a sysctl of the calling thread's namespace.
pub fn set(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/{}", setting.replace('.', "/"));
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Returns a TCP flow to port 80.
pub fn to(destination: &str) -> Query {
    Query::to(SocketAddr::new(address(destination), 80), Protocol::Tcp)
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// Returns the unspecified address of the same family.
pub fn any(of: IpAddr) -> IpAddr {
    address(if of.is_ipv4() { "0.0.0.0" } else { "::" })
}
