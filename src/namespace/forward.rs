//! Forwards: sockets in the command's namespace whose traffic this host's own sockets carry on, through the
//! kernel and so through the firewall. Name servers on loopback need one, and services that the user names.
//!
//! A process of its own does that, with threads, since neither its waits nor its failures may touch the
//! gateway. It has no privileges, and dies with netkat.
use crate::{
    kernel,
    net::Protocol,
    process::{capability, identity},
};
use log::debug;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{prctl, signal::Signal},
    unistd::{ForkResult, Pid, close, getpid, getppid, pipe2, read},
};
use socket2::{Domain, Socket, Type};
use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    process::exit,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Silence after which a datagram's sender is forgotten.
const IDLE: Duration = Duration::from_secs(30);
/// Maximum senders of datagrams, and connections, at once.
const MAX_CLIENTS: usize = 512;
/// Pending connections of a listener.
const BACKLOG: i32 = 128;

/// A forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub protocol: Protocol,
    /// The address in the namespace.
    pub listen: SocketAddr,
    /// The address of the service.
    pub to: SocketAddr,
}

impl Forward {
    /// Opens the listening socket in this thread's network namespace.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let kind = if self.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
        let socket = Socket::new(Domain::for_address(self.listen), kind, None)?;
        socket.set_reuse_address(self.protocol == Protocol::Tcp)?;
        socket.bind(&self.listen.into())?;
        if self.protocol == Protocol::Tcp {
            socket.listen(BACKLOG)?;
        }
        Ok(socket.into())
    }
}

/// The process that serves forwards; it ends with this value, and with the process that holds it.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub pid: Pid,
    _alive: OwnedFd,
}

impl Forwarder {
    /// Forks the process, which listens on `sockets`; `None` if there are no forwards.
    ///
    /// # Errors
    /// Those of pipe2(2) and fork(2).
    pub(crate) fn start(forwards: &[Forward], sockets: Vec<OwnedFd>) -> io::Result<Option<Forwarder>> {
        if forwards.is_empty() {
            return Ok(None);
        }
        let (ended, alive) = pipe2(OFlag::O_CLOEXEC)?;
        let parent = getpid();
        match kernel::fork()? {
            ForkResult::Child => {
                // The copy of a control socket would hide netkat's end from the supervisor.
                close_all_but(sockets.iter().chain([&ended]));
                run(forwards.iter().copied().zip(sockets), &ended, parent)
            }
            ForkResult::Parent { child } => Ok(Some(Forwarder { pid: child, _alive: alive })),
        }
    }
}

/// Closes all descriptors of this process but the standard streams and these.
fn close_all_but<'a>(kept: impl Iterator<Item = &'a OwnedFd>) {
    let kept: Vec<_> = kept.map(AsRawFd::as_raw_fd).collect();
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for fd in open.filter(|fd| *fd > 2 && !kept.contains(fd)).collect::<Vec<_>>() {
        // The descriptor that listed them is closed already.
        let _ = close(fd);
    }
}

/// Serves the forwards until the other end of `ended` is closed, and never returns. The kernel kills the process
/// with `parent`, whatever its threads do.
fn run(forwards: impl Iterator<Item = (Forward, OwnedFd)>, ended: &OwnedFd, parent: Pid) -> ! {
    capability::drop_bounding();
    let renounced = identity::renounce_root().map_err(|error| error.to_string());
    let renounced = renounced.and_then(|()| capability::drop_all(&[]).map_err(|error| error.to_string()));
    if let Err(error) = renounced {
        log::warn!("forwards: {error}");
        exit(1);
    }
    let _ = (prctl::set_no_new_privs(), prctl::set_dumpable(false));
    // A change of identity clears the signal (commit_creds in kernel/cred.c), so it is set behind that.
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != parent {
        exit(1);
    }
    for (forward, socket) in forwards {
        thread::spawn(move || {
            let result = match forward.protocol {
                Protocol::Tcp => accept(&TcpListener::from(socket), forward.to),
                Protocol::Udp => receive(&UdpSocket::from(socket), forward.to),
            };
            if let Err(error) = result {
                debug!("a forward ended: {error}");
            }
        });
    }
    while read(ended, &mut [0]) == Err(Errno::EINTR) {}
    exit(0)
}

fn accept(listener: &TcpListener, to: SocketAddr) -> io::Result<()> {
    let clients = Arc::new(());
    loop {
        let (client, _) = listener.accept()?;
        if Arc::strong_count(&clients) > MAX_CLIENTS {
            continue;
        }
        let count = clients.clone();
        thread::spawn(move || {
            let _count = count;
            if let Err(error) = join(&client, to) {
                debug!("forward to {to}: {error}");
            }
        });
    }
}

/// Copies both ways until both have ended.
fn join(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let service = TcpStream::connect_timeout(&to, CONNECT)?;
    thread::scope(|scope| {
        let back = scope.spawn(|| copy(&service, client));
        let result = copy(client, &service);
        result.and(back.join().unwrap_or(Ok(())))
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let result = loop {
        match from.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => {
                let written = to.write_all(buffer.get(..length).unwrap_or_default());
                if written.is_err() {
                    break written;
                }
            }
            Err(error) => break Err(error),
        }
    };
    let _ = to.shutdown(Shutdown::Write);
    result
}

/// Sends each datagram on from a socket of its sender's own, by which the answers come back.
fn receive(socket: &UdpSocket, to: SocketAddr) -> io::Result<()> {
    let clients: Arc<Mutex<HashMap<SocketAddr, UdpSocket>>> = Arc::default();
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let datagram = buffer.get(..length).unwrap_or_default();
        let mut known = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = known.get(&from) {
            let _ = service.send(datagram);
            continue;
        }
        if known.len() >= MAX_CLIENTS {
            continue;
        }
        match open(to, datagram) {
            Ok(service) => {
                known.insert(from, service.try_clone()?);
                let (clients, back) = (clients.clone(), socket.try_clone()?);
                thread::spawn(move || {
                    if let Err(error) = answer(&service, &back, from) {
                        debug!("forward to {to}: {error}");
                    }
                    clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&from);
                });
            }
            Err(error) => debug!("forward to {to}: {error}"),
        }
    }
}

fn open(to: SocketAddr, first: &[u8]) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let service = UdpSocket::bind(any)?;
    service.connect(to)?;
    service.set_read_timeout(Some(IDLE))?;
    service.send(first)?;
    Ok(service)
}

fn answer(service: &UdpSocket, back: &UdpSocket, to: SocketAddr) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        match service.recv(&mut buffer) {
            Ok(length) => {
                back.send_to(buffer.get(..length).unwrap_or_default(), to)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
