//! The port lease.

use crate::namespace::{Answer, INTERFACE, NEAR, alone, index, ip, joined, run};
use netkat::{
    kernel::{KernelError, PortLease},
    net::Protocol,
};
use socket2::{Domain, Socket, Type};
use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

const LOCALHOST: [&str; 1] = ["127.0.0.1"];

fn tcp(addresses: &[&str], port: u16) -> Result<PortLease, KernelError> {
    let addresses: Vec<_> = addresses.iter().map(|a| ip(a)).collect();
    PortLease::take(Protocol::Tcp, &addresses, port, 0)
}

fn udp(addresses: &[&str], port: u16) -> Result<PortLease, KernelError> {
    let addresses: Vec<_> = addresses.iter().map(|a| ip(a)).collect();
    PortLease::take(Protocol::Udp, &addresses, port, 0)
}

#[test]
fn the_kernel_is_silent_at_a_leased_port() {
    joined(|far| {
        let leases = (tcp(&NEAR, 8080).unwrap(), udp(&NEAR, 8080).unwrap());
        for near in NEAR {
            assert_eq!(far.connect(near, 8080), Answer::Silence, "{near}");
            assert_eq!(far.send(near, 8080), Answer::Silence, "{near}");
            assert_eq!(far.connect(near, 8081), Answer::Refused, "{near}");
        }
        drop(leases);
        for near in NEAR {
            assert_eq!(far.connect(near, 8080), Answer::Refused, "{near}");
            assert_eq!(far.send(near, 8080), Answer::Refused, "{near}");
        }
    });
}

#[test]
fn nobody_else_gets_a_leased_port() {
    alone(|| {
        let lease = tcp(&["0.0.0.0", "::"], 0).unwrap();
        assert_ne!(lease.port(), 0);
        for address in ["127.0.0.1", "::1"] {
            let taken = TcpListener::bind((address, lease.port())).unwrap_err();
            assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse, "{address}");
        }
        let port = lease.port();
        drop(lease);
        // A program that another test starts just now holds copies of all descriptors until
        // execve(2).
        let start = Instant::now();
        while TcpListener::bind(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "port {port} is still held");
        }
    });
}

#[test]
fn an_ephemeral_port_is_the_same_at_all_addresses() {
    alone(|| {
        let lease = udp(&["127.0.0.1", "::1"], 0).unwrap();
        for address in ["127.0.0.1", "::1"] {
            assert!(UdpSocket::bind((address, lease.port())).is_err(), "{address}");
        }
    });
}

#[test]
fn a_listener_is_never_robbed() {
    alone(|| {
        // A port each: a program that another test starts just now may still hold the one before.
        for (port, (listener, wanted)) in (8080..).zip([
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("::", "127.0.0.1"),
            ("::1", "::1"),
        ]) {
            let listener = SocketAddr::new(ip(listener), port);
            // The standard library sets SO_REUSEADDR, as most servers do.
            let _listener = TcpListener::bind(listener).unwrap();
            let error = tcp(&[wanted], port).unwrap_err().to_string();
            let expected = format!("a process listens on {listener}");
            assert!(error.contains(&expected) && error.contains("tcp port"), "{error}");
        }
    });
}

#[test]
fn a_live_connection_is_never_robbed() {
    alone(|| {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let (server, peer) = listener.accept().unwrap();
        drop(listener);
        let error = tcp(&LOCALHOST, 8080).unwrap_err().to_string();
        assert!(error.contains(&format!("a socket at 127.0.0.1:8080 is connected to {peer}")), "{error}");
        drop((client, server));
    });
}

#[test]
fn a_port_with_nothing_but_time_wait_is_free() {
    alone(|| {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let mut client = TcpStream::connect("127.0.0.1:8080").unwrap();
        // The end that closes first has the TIME-WAIT.
        drop(listener.accept().unwrap());
        drop(listener);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        assert!(run("ss -Htan state time-wait").contains("127.0.0.1:8080"));
        assert_eq!(tcp(&LOCALHOST, 8080).unwrap().port(), 8080);
    });
}

#[test]
fn udp_sockets_are_respected() {
    alone(|| {
        let socket = UdpSocket::bind("127.0.0.1:5353").unwrap();
        let error = udp(&LOCALHOST, 5353).unwrap_err().to_string();
        assert!(error.contains("a process receives on 127.0.0.1:5353"), "{error}");
        socket.connect("127.0.0.1:9").unwrap();
        let error = udp(&LOCALHOST, 5353).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:5353 is connected to 127.0.0.1:9"), "{error}");
        udp(&["127.0.0.2"], 5353).unwrap();
    });
}

#[test]
fn an_address_of_others_has_no_lease() {
    alone(|| {
        let error = tcp(&["192.0.2.1"], 8080).unwrap_err();
        assert!(matches!(error, KernelError::NotLocal { .. }), "{error}");
    });
}

#[test]
fn link_local_addresses_need_their_interface() {
    joined(|_| {
        // Without duplicate address detection, which takes about a second.
        run(&format!("ip address add fe80::77/64 dev {INTERFACE} nodad"));
        PortLease::take(Protocol::Tcp, &[ip("fe80::77")], 8080, index(INTERFACE)).unwrap();
        assert!(PortLease::take(Protocol::Tcp, &[ip("fe80::77")], 8080, 0).is_err());
    });
}

/// Leaves a TIME-WAIT of a server with SO_REUSEADDR at an address.
fn leave_time_wait(at: SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    let mut client = TcpStream::connect(at).unwrap();
    // The end that closes first has the TIME-WAIT.
    drop(listener.accept().unwrap());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// A socket that is bound and does nothing else; `options` are some of "reuse", "share", "device".
fn bound(kind: Type, at: &str, options: &str) -> Socket {
    let at: SocketAddr = at.parse().unwrap();
    let socket = Socket::new(Domain::for_address(at), kind, None).unwrap();
    socket.set_reuse_address(options.contains("reuse")).unwrap();
    socket.set_reuse_port(options.contains("share")).unwrap();
    if options.contains("device") {
        socket.bind_device(Some(b"lo")).unwrap();
    }
    socket.bind(&at.into()).unwrap();
    socket
}

/// Holders of a port and requests for it, in both families and across them.
const OVERLAPS: [(&str, &str); 8] = [
    ("127.0.0.1:8080", "127.0.0.1"),
    ("127.0.0.1:8080", "0.0.0.0"),
    ("0.0.0.0:8080", "127.0.0.1"),
    ("[::1]:8080", "::1"),
    ("[::1]:8080", "::"),
    ("[::]:8080", "::1"),
    ("[::]:8080", "127.0.0.1"),
    ("[::ffff:127.0.0.1]:8080", "127.0.0.1"),
];

#[test]
fn a_socket_that_is_only_bound_is_never_robbed() {
    for (holder, wanted) in OVERLAPS {
        for options in ["", "reuse", "share", "reuse share", "reuse device"] {
            alone(|| {
                let socket = bound(Type::STREAM, holder, options);
                let error = tcp(&[wanted], 8080).unwrap_err().to_string();
                let who = socket.local_addr().unwrap().as_socket().unwrap();
                let who = SocketAddr::new(who.ip().to_canonical(), 8080);
                assert!(error.contains(&format!("a process has bound {who}")), "{options}: {error}");
                socket.listen(1).unwrap();
            });
        }
    }
}

/// The kernel lends the port to any process that sets SO_REUSEADDR here.
#[test]
fn a_bound_socket_among_time_waits_is_never_robbed() {
    for (holder, wanted) in OVERLAPS {
        alone(|| {
            let at = if holder.contains("[::1]") || wanted.contains(':') {
                "[::1]:8080"
            } else {
                "127.0.0.1:8080"
            };
            leave_time_wait(at.parse().unwrap());
            assert_eq!(run("ss -Htan state time-wait").lines().count(), 1);
            let socket = bound(Type::STREAM, holder, "reuse");
            let error = tcp(&[wanted], 8080).unwrap_err().to_string();
            assert!(error.contains("a process has bound"), "{holder}, {wanted}: {error}");
            socket.listen(1).unwrap();
            drop(socket);
            // Without the option the port is free again at once.
            for _ in 0..2 {
                assert_eq!(tcp(&[wanted], 8080).unwrap().port(), 8080);
            }
        });
    }
}

#[test]
fn a_udp_socket_is_never_robbed_whatever_its_options() {
    for (holder, wanted) in OVERLAPS {
        for options in ["", "reuse", "share", "reuse share", "reuse device"] {
            alone(|| {
                let _socket = bound(Type::DGRAM, holder, options);
                let error = udp(&[wanted], 8080).unwrap_err().to_string();
                assert!(error.contains("a process receives on"), "{holder}, {wanted}, {options}: {error}");
            });
        }
    }
}

/// No other process gets the port, with any options, whether it was free or had connections in
/// TIME-WAIT.
#[test]
fn nobody_shares_a_lease() {
    for time_wait in [false, true] {
        for address in ["127.0.0.1:8080", "[::1]:8080"] {
            alone(|| {
                if time_wait {
                    leave_time_wait(address.parse().unwrap());
                }
                let at: SocketAddr = address.parse().unwrap();
                let leases = (
                    PortLease::take(Protocol::Tcp, &[at.ip()], 8080, 0).unwrap(),
                    PortLease::take(Protocol::Udp, &[at.ip()], 8080, 0).unwrap(),
                );
                for kind in [Type::STREAM, Type::DGRAM] {
                    let socket = Socket::new(Domain::for_address(at), kind, None).unwrap();
                    socket.set_reuse_address(true).unwrap();
                    socket.set_reuse_port(true).unwrap();
                    assert!(socket.bind(&at.into()).is_err(), "{address}, {kind:?}");
                }
                drop(leases);
            });
        }
    }
}
