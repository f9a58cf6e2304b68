//! Ports bound by others stay theirs, whether they listen or not, for listeners, clients and scans.
use crate::support::{
    netkat::{listening, netkat},
    process::{DEADLINE, Input},
    requirements::lab,
    topology::{Family, Pair},
};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

const PORT: u16 = 5000;

/// A socket that is bound with SO_REUSEADDR and does nothing else.
fn bound(pair: &Pair, kind: Type, at: SocketAddr) -> Socket {
    pair.host.inside(|| {
        let socket = Socket::new(Domain::for_address(at), kind, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&at.into()).expect("bound");
        socket
    })
}

/// Leaves a TIME-WAIT of a kernel's server.
fn leave_time_wait(pair: &Pair, at: SocketAddr) {
    pair.host.inside(|| {
        let listener = TcpListener::bind(at).expect("listening");
        // The kernel may not have set up its route to the fresh address yet.
        let start = Instant::now();
        let mut client = loop {
            match TcpStream::connect(at) {
                Ok(client) => break client,
                Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
            }
        };
        drop(listener.accept().expect("accepted"));
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    });
}

#[test]
fn a_port_that_somebody_has_bound_is_left_alone() {
    lab!();
    for family in Family::ALL {
        let pair = Pair::new();
        let (own, peer) = (pair.host_address(family), pair.peer_address(family));
        let at = SocketAddr::new(own, PORT);
        leave_time_wait(&pair, at);
        let sockets = [bound(&pair, Type::STREAM, at), bound(&pair, Type::DGRAM, at)];
        for line in ["-l", "-l -u"] {
            for place in [format!("{own} {PORT}"), PORT.to_string()] {
                refused(&pair, &format!("{line} {place}"), at);
            }
        }
        for line in ["", "-u", "-z", "-z -u"] {
            refused(&pair, &format!("{line} -p {PORT} {peer} 80"), at);
        }
        let [holder, _datagrams] = sockets;
        pair.host.inside(|| holder.listen(1)).expect("the holder can still listen");
    }
}

fn refused(pair: &Pair, line: &str, at: SocketAddr) {
    let output = netkat(&pair.host, line).run();
    assert_eq!(output.code(), Some(1), "{output}");
    let told = output.stderr.contains(&format!("a process has bound {at}"))
        || output.stderr.contains(&format!("a process receives on {at}"));
    assert!(told, "{output}");
}

/// netkat holds its own port only while it runs, and the remains of the kernel's connections are no
/// obstacle.
#[test]
fn netkat_listens_again_at_once() {
    lab!();
    for family in Family::ALL {
        let pair = Pair::new();
        let own = pair.host_address(family);
        leave_time_wait(&pair, SocketAddr::new(own, PORT));
        for _ in 0..3 {
            for flag in ["", "-u"] {
                let server = listening(&pair.host, &format!("{flag} {own} {PORT}"), |c| c.input(Input::Open));
                server.signal(Signal::SIGTERM);
                server.wait(DEADLINE);
            }
        }
    }
}
