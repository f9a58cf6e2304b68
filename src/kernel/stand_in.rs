//! The stand-in: a process of this program that makes the kernel's own attempt at a connection, or over UDP at a
//! question and its answer, with the
//! identity that is asked for, and holds its socket until it is told to end.
//!
//! A process of its own can take a user, a control group and a network namespace without changing netkat's.
//! Both sides speak lines of JSON over the stand-in's standard input and output: an [`AttemptOrder`] goes
//! in, the bound address comes out; a line lets the attempt begin, an [`AttemptOutcome`] comes out. The end
//! of its standard input, which netkat's death brings, too, ends the stand-in. Its socket then sends a
//! reset: a FIN would leave the port in TIME-WAIT, and the far end with a connection.
use crate::net::Protocol;
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, setsockopt, sockopt},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, IoSliceMut, Write},
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// The stand-in's argument 0, which no user types.
const NAME: &str = "netkat-stand-in";
/// Interval of datagrams without an answer, in milliseconds: that of TCP's SYNs (RFC 6298, section 2).
const REPETITION: u16 = 1000;
/// Longest wait for the stand-in's start.
const START: Duration = Duration::from_secs(5);

/// A user whom the attempt is made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptUser {
    /// The user's id.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// The stand-in's task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptOrder {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address to bind, port 0 for any; `None` leaves it to connect(2).
    pub local: Option<SocketAddr>,
    /// The address to connect to.
    pub remote: SocketAddr,
    /// The interface to bind to (SO_BINDTODEVICE).
    pub interface: Option<String>,
    /// Whom the attempt is made as; `None` for netkat's own user.
    pub user: Option<AttemptUser>,
    /// The folder of the control group to enter.
    pub cgroup: Option<PathBuf>,
    /// The file of the network namespace to enter.
    pub namespace: Option<PathBuf>,
}

/// An ICMP error that the socket's error queue held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IcmpReport {
    /// The sender of the error.
    pub offender: Option<IpAddr>,
    /// The ICMP type.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
}

/// The outcome of the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptOutcome {
    /// The errno of connect(2), or over UDP of what followed; `None` for a connection or an answer.
    pub errno: Option<i32>,
    /// The peer's address as getpeername(2) gives it.
    pub peer: Option<SocketAddr>,
    /// The ICMP error that ended the attempt.
    pub icmp: Option<IcmpReport>,
    /// Time from connect(2) to its end.
    pub time: Duration,
    /// connect(2) itself failed, before any packet.
    pub at_once: bool,
}

/// The stand-in's first answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Started {
    Bound(Option<SocketAddr>),
    Failed { step: String, errno: i32 },
}

/// A running stand-in. Dropping it ends it, and resets its connection.
#[derive(Debug)]
pub(crate) struct StandIn {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The bound address.
    local: Option<SocketAddr>,
}

impl StandIn {
    /// Starts a stand-in with its order, and waits until its socket is bound.
    ///
    /// # Errors
    /// Those of starting a process, and the step that the stand-in failed at.
    pub(crate) fn start(order: &AttemptOrder) -> io::Result<StandIn> {
        let mut child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start a process: {error}")))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut stand_in = StandIn { child, input: Some(input), output: BufReader::new(output), local: None };
        stand_in.say(order)?;
        stand_in.wait_readable(START)?;
        match stand_in.hear()? {
            Started::Bound(local) => stand_in.local = local,
            Started::Failed { step, errno } => {
                return Err(io::Error::other(format!("cannot {step}: {}", Errno::from_raw(errno).desc())));
            }
        }
        Ok(stand_in)
    }

    /// Returns the address that the attempt comes from; `None` where connect(2) chooses it.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Lets the attempt begin.
    ///
    /// # Errors
    /// EPIPE where the stand-in is gone.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        self.say(&())
    }

    /// Reads how the attempt ended. Call it once the descriptor is readable.
    ///
    /// # Errors
    /// Where the stand-in is gone.
    pub(crate) fn outcome(&mut self) -> io::Result<AttemptOutcome> {
        self.hear()
    }

    /// Ends the stand-in, whose socket sends a reset, and waits for it.
    pub(crate) fn end(&mut self) {
        if self.input.take().is_some() {
            let _ = self.child.wait();
        }
    }

    fn say(&mut self, message: &impl Serialize) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{}\n", serde_json::to_string(message)?).as_bytes())
    }

    fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        read_message(&mut self.output)
    }

    fn wait_readable(&self, time: Duration) -> io::Result<()> {
        let wait = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], wait)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl AsFd for StandIn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.get_ref().as_fd()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.end();
    }
}

fn read_message<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

/// Serves as a stand-in if this process was started as one, and returns its exit status then.
pub fn serve_stand_in() -> Option<ExitCode> {
    if env::args_os().next()? != NAME {
        return None;
    }
    Some(if serve().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn serve() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let order: AttemptOrder = read_message(&mut input)?;
    let (started, socket) = match prepare(&order) {
        Ok(socket) => {
            let bound = order.local.and_then(|_| socket.local_addr().ok()?.as_socket());
            (Started::Bound(bound), Some(socket))
        }
        Err((step, errno)) => (Started::Failed { step, errno: errno as i32 }, None),
    };
    writeln!(output, "{}", serde_json::to_string(&started)?)?;
    output.flush()?;
    let Some(socket) = socket else { return Ok(()) };
    read_message::<()>(&mut input)?;
    if let Some(outcome) = attempt(&socket, &order, input.as_fd())? {
        writeln!(output, "{}", serde_json::to_string(&outcome)?)?;
        output.flush()?;
    }
    // Until the end of the input.
    let _ = read_message::<()>(&mut input);
    Ok(())
}

/// Takes the identity, then opens and binds the socket.
fn prepare(order: &AttemptOrder) -> Result<Socket, (String, Errno)> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno: Errno| (step, errno)
    };
    let of = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    if let Some(group) = &order.cgroup {
        let step = format!("enter the control group {}", group.display());
        fs::write(group.join("cgroup.procs"), std::process::id().to_string())
            .map_err(|error| failed(&step)(of(error)))?;
    }
    if let Some(file) = &order.namespace {
        let step = format!("enter the network namespace {}", file.display());
        let open = File::open(file).map_err(|error| failed(&step)(of(error)))?;
        setns(open, CloneFlags::CLONE_NEWNET).map_err(failed(&step))?;
    }
    if let Some(AttemptUser { uid, gid, groups }) = &order.user {
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        let step = format!("become user {uid}");
        setgroups(&groups).map_err(failed(&step))?;
        setresgid(gid, gid, gid).map_err(failed(&step))?;
        setresuid(uid, uid, uid).map_err(failed(&step))?;
    }
    let socket = new_socket(order).map_err(|error| failed("open a socket")(of(error)))?;
    open(&socket, order).map_err(|error| {
        let step = order.local.map_or("set up a socket".to_owned(), |local| format!("bind {local}"));
        failed(&step)(of(error))
    })?;
    Ok(socket)
}

fn new_socket(order: &AttemptOrder) -> io::Result<Socket> {
    let (kind, protocol) = match order.protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
    };
    Socket::new(Domain::for_address(order.remote), kind, Some(protocol))
}

fn open(socket: &Socket, order: &AttemptOrder) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if order.protocol == Protocol::Tcp {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    // The sender of an ICMP error is in the error queue only.
    match order.remote {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    if let Some(name) = &order.interface {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    if let Some(local) = order.local {
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(local))?;
    }
    Ok(())
}

/// Begins a connection of this process's own, which is reset when the socket is dropped, or sends a datagram. The
/// order's identity does not count.
///
/// # Errors
/// Those of socket(2), bind(2), connect(2) and send(2).
pub(crate) fn begin_attempt(order: &AttemptOrder) -> io::Result<Socket> {
    let socket = new_socket(order)?;
    open(&socket, order)?;
    match socket.connect(&SockAddr::from(order.remote)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    if order.protocol == Protocol::Udp {
        socket.send(&[])?;
    }
    Ok(socket)
}

/// Connects, and over UDP sends datagrams until there is an answer; `None` if the input ends first.
fn attempt(socket: &Socket, order: &AttemptOrder, input: BorrowedFd) -> io::Result<Option<AttemptOutcome>> {
    let start = Instant::now();
    match socket.connect(&SockAddr::from(order.remote)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => {
            let errno = error.raw_os_error().or(Some(libc::EIO));
            let time = start.elapsed();
            return Ok(Some(AttemptOutcome { errno, time, at_once: true, ..AttemptOutcome::default() }));
        }
    }
    let mut refused = None;
    loop {
        let (awaited, until) = match order.protocol {
            Protocol::Tcp => (PollFlags::POLLOUT, PollTimeout::NONE),
            Protocol::Udp => (PollFlags::POLLIN, PollTimeout::from(REPETITION)),
        };
        if order.protocol == Protocol::Udp
            && let Err(error) = socket.send(&[])
        {
            // EPERM of a rule at OUTPUT, or the ICMP error for an earlier datagram.
            refused = error.raw_os_error();
            break;
        }
        let mut fds = [PollFd::new(socket.as_fd(), awaited), PollFd::new(input, PollFlags::POLLIN)];
        match poll(&mut fds, until) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        if fds[0].any().unwrap_or(true) {
            break;
        }
        if fds[1].any().unwrap_or(true) {
            return Ok(None);
        }
    }
    let time = start.elapsed();
    let errno = match getsockopt(socket, sockopt::SocketError)? {
        0 => refused,
        errno => Some(errno),
    };
    Ok(Some(AttemptOutcome {
        errno,
        peer: socket.peer_addr().ok().and_then(|peer| peer.as_socket()),
        icmp: icmp_report(socket),
        time,
        at_once: false,
    }))
}

/// Reads the socket's error queue (ip(7), IP_RECVERR).
fn icmp_report(socket: &Socket) -> Option<IcmpReport> {
    let (mut bytes, mut room) = ([0; 64], nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6));
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, Some(&mut room), flags).ok()?;
    message.cmsgs().ok()?.find_map(|control| {
        let (error, offender) = match control {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                (error, from.map(|from| IpAddr::from(u32::from_be(from.sin_addr.s_addr).to_be_bytes())))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                (error, from.map(|from| IpAddr::from(from.sin6_addr.s6_addr)))
            }
            _ => return None,
        };
        let by_icmp = matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
        by_icmp.then_some(IcmpReport { offender, kind: error.ee_type, code: error.ee_code })
    })
}
