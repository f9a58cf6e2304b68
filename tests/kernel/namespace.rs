//! A namespace, or two that a veth pair joins, removed with the test.
#[path = "../support/namespace.rs"]
mod support;

use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    process::Command,
    time::{Duration, Instant},
};
use support::Namespace;

/// Near and far address of either family.
pub const NEAR: [&str; 2] = ["10.77.0.1", "fd77::1"];
pub const FAR: [&str; 2] = ["10.77.0.2", "fd77::2"];

/// The near end's interface.
pub const INTERFACE: &str = "near0";

/// Wait of the far end for an answer that must not come.
const PATIENCE: Duration = Duration::from_millis(300);

/// The far end of the pair.
pub struct Far(Namespace);

/// Runs a test alone in a fresh namespace with lo up.
pub fn alone(test: impl FnOnce() + Send) {
    if let Some(near) = Namespace::available("near") {
        near.inside(test);
    }
}

/// Runs a test in a namespace that a veth pair joins with another.
pub fn joined(test: impl FnOnce(&Far) + Send) {
    let Some(near) = Namespace::available("near") else { return };
    let far = Namespace::new("far");
    near.join(INTERFACE, &far, "far0");
    for (namespace, interface, addresses) in [(&near, INTERFACE, NEAR), (&far, "far0", FAR)] {
        for address in addresses {
            namespace.ip(&format!("address add {} dev {interface}", with_prefix(address)));
        }
        namespace.ip(&format!("link set {interface} up"));
    }
    let far = Far(far);
    // Silence proves something only once the link is known to work.
    for address in NEAR {
        let start = Instant::now();
        while far.connect(address, 1) != Answer::Refused {
            assert!(start.elapsed() < Duration::from_secs(10), "the link to {address} does not come up");
        }
    }
    near.inside(|| test(&far));
}

/// Returns the address as ip(8) wants it; IPv6 without duplicate address detection, so that the
/// address is ready at once.
fn with_prefix(address: &str) -> String {
    if address.contains(':') { format!("{address}/64 nodad") } else { format!("{address}/24") }
}

impl Far {
    /// Calls `work` in the far namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.inside(work)
    }

    /// Returns the near end's answer to a SYN.
    pub fn connect(&self, address: &str, port: u16) -> Answer {
        self.connect_from(address, port, 0)
    }

    /// Returns the near end's answer to a SYN from a port.
    pub fn connect_from(&self, address: &str, port: u16, from: u16) -> Answer {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.within(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.bind(&any(address, from).into()).unwrap();
            answer(socket.connect_timeout(&address.into(), PATIENCE))
        })
    }

    /// Returns the near end's answer to a datagram.
    pub fn send(&self, address: &str, port: u16) -> Answer {
        self.send_from(address, port, 0)
    }

    /// Returns the near end's answer to a datagram from a port.
    pub fn send_from(&self, address: &str, port: u16, from: u16) -> Answer {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.within(|| {
            let socket = UdpSocket::bind(any(address, from)).unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send(b"hello").unwrap();
            answer(socket.recv(&mut [0; 10]).map(drop))
        })
    }
}

/// Returns the unspecified address of a peer's family.
fn any(peer: SocketAddr, port: u16) -> SocketAddr {
    let ip: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, port)
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// A reset, or a port unreachable.
    Refused,
    Silence,
}

fn answer(result: io::Result<()>) -> Answer {
    use io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
    match result.map_err(|e| e.kind()) {
        Ok(()) => Answer::Accepted,
        Err(ConnectionRefused) => Answer::Refused,
        Err(TimedOut | WouldBlock) => Answer::Silence,
        Err(other) => panic!("neither an answer nor silence: {other}"),
    }
}

/// Runs a command in the thread's namespace and returns what it prints.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Sends a frame unchanged.
pub fn inject(interface: &str, frame: &[u8]) {
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: u16::from_ne_bytes(frame[12..14].try_into().unwrap()),
        sll_ifindex: index(interface).cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let socket = packet_socket(0);
    // SAFETY: frame and address outlive the call and their sizes are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    assert_eq!(sent, frame.len() as isize);
}

/// Opens a packet socket for all interfaces and protocols with a capture program on it.
pub fn tap(capture: BorrowedFd) -> OwnedFd {
    let socket = packet_socket((libc::ETH_P_ALL as u16).to_be());
    let program = capture.as_raw_fd();
    // SAFETY: the option's value outlives the call and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            size_of_val(&program) as u32,
        )
    };
    assert_eq!(result, 0);
    socket
}

fn packet_socket(protocol: u16) -> OwnedFd {
    // SAFETY: the call takes no pointers; a non-negative result is a descriptor of ours.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into());
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}
