//! Two network namespaces for each test: "us", where the questions are asked, and "peer" at the other end of two
//! veth pairs, eth0 (10.0.0.0/24, 2001:db8:0::/64) and eth1 (10.1.0.0/24, 2001:db8:1::/64); we are host 1 on
//! each, the peer is host 2.

use std::{
    fs::{self, File},
    io::Write,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use netkat::{
    host::{
        interface,
        neighbour::{self, NeighbourError},
        route::{self, Query, Route, RouteError},
    },
    net::{MacAddr, Protocol},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{setsockopt, sockopt},
    unistd::geteuid,
};

/// A pair of connected namespaces, removed when dropped.
pub struct Lab {
    us: String,
    peer: String,
}

impl Lab {
    /// `None` where it can't be built.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            skip("needs root for network namespaces");
            return None;
        }
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { us: format!("host-us-{id}"), peer: format!("host-peer-{id}") };
        for namespace in [&lab.us, &lab.peer] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        for link in 0..2 {
            let (us, peer) = (&lab.us, &lab.peer);
            ip(&format!("-n {us} link add eth{link} type veth peer name eth{link} netns {peer}"));
            for (namespace, host) in [(us, 1), (peer, 2)] {
                ip(&format!("-n {namespace} link set eth{link} address 02:00:00:00:0{link}:0{host}"));
                ip(&format!("-n {namespace} addr add 10.{link}.0.{host}/24 dev eth{link}"));
                ip(&format!("-n {namespace} link set eth{link} up"));
                ip(&format!("-n {namespace} addr add 2001:db8:{link}::{host}/64 dev eth{link} nodad"));
            }
        }
        Some(lab)
    }

    /// Runs `ip` in our namespace.
    pub fn us(&self, command: &str) {
        self.try_us(command).unwrap_or_else(|error| panic!("ip {command}: {error}"));
    }

    /// The same where the kernel may lack what it takes.
    pub fn try_us(&self, command: &str) -> Result<(), String> {
        try_ip(&format!("-n {} {command}", self.us))
    }

    /// Runs `ip` in the peer's namespace.
    pub fn peer(&self, command: &str) {
        ip(&format!("-n {} {command}", self.peer));
    }

    /// Runs `work` in our namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.us, work)
    }

    /// Runs `work` in the peer's namespace.
    pub fn inside_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.peer, work)
    }

    pub fn lookup(&self, query: &Query) -> Result<Route, RouteError> {
        self.inside(|| route::lookup(query))
    }

    /// The route of a TCP flow to port 80.
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

    /// The source address that a socket of the kernel gets for the query; `None`: it can't connect.
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

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.us, &self.peer] {
            // Not asserted: a test that has failed already must show its own reason.
            let _ = try_ip(&format!("netns del {namespace}"));
        }
    }
}

/// Says so past libtest's capture, so that it is seen on success too.
pub fn skip(reason: &str) {
    let name = thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

/// Writes a sysctl of the namespace that the calling thread is in.
pub fn set(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/{}", setting.replace('.', "/"));
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// A TCP flow to port 80.
pub fn to(destination: &str) -> Query {
    Query::to(SocketAddr::new(address(destination), 80), Protocol::Tcp)
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// The unspecified address of the same family.
pub fn any(of: IpAddr) -> IpAddr {
    address(if of.is_ipv4() { "0.0.0.0" } else { "::" })
}

fn try_ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn ip(arguments: &str) {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"));
}

fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let entrance = File::open(format!("/var/run/netns/{namespace}")).expect("namespace");
    thread::scope(|scope| {
        let entered = scope.spawn(move || {
            setns(entrance, CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        });
        entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
