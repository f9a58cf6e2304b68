//! The supervisor's own process: it makes the namespace, starts the command, and waits for all its processes.
use super::{
    Forward, NamespaceSpec,
    forward::Forwarder,
    message::{self, Order, Report},
};
use crate::{
    kernel::{self, fork},
    link::{self, PacketSocket},
    process::{
        capability::{self, Capability},
        identity,
        own_namespace::{self as namespace, OwnIds},
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, execvp, getpid, getppid, pipe2, read, write},
};
use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    process::exit,
};

/// Statuses as a shell has them: 128 + the number of the signal that ended the command.
const BY_SIGNAL: i32 = 128;

/// Does the supervisor's work in the process that was forked for it, and never returns.
pub(super) fn run(spec: &NamespaceSpec, control: OwnedFd, user: bool, ids: OwnIds) -> ! {
    let mut supervisor = Supervisor { control, command: None, forwarder: None };
    let result = supervisor.set_up(spec, user, ids);
    if let Err(reason) = result {
        supervisor.report(&Report::Refused(reason), &[]);
        exit(1);
    }
    supervisor.supervise(&spec.command);
    exit(0)
}

struct Supervisor {
    control: OwnedFd,
    /// The command, while it runs.
    command: Option<Pid>,
    /// The process that serves forwards by this namespace's sockets.
    forwarder: Option<Forwarder>,
}

impl Supervisor {
    /// Makes namespace and device, hands their sockets to netkat, and gives up all privileges.
    fn set_up(&mut self, spec: &NamespaceSpec, user: bool, ids: OwnIds) -> Result<(), String> {
        let words = |error: &dyn std::error::Error| error.to_string();
        namespace::enter(user).map_err(|error| words(&error))?;
        self.report(&Report::Unshared, &[]);
        let (all, made) = match self.order() {
            Some(Order::Prepared { ids, device }) => (ids, device),
            _ => exit(0),
        };
        if user && !all {
            ids.map().map_err(|error| format!("cannot map this user in a user namespace: {error}"))?;
        }
        configure(spec, &ids.ping_groups(!user || all), made);
        let (outer, link) = if made {
            spec.device.configure().map_err(|error| words(&error))?;
            (None, None)
        } else {
            let outer = spec.device.make().map_err(|error| words(&error))?;
            let link = packet_socket(outer, spec.receive_buffer).map_err(|error| words(&error))?;
            (Some(outer), Some(link))
        };
        let sockets = sock_diag().map_err(|error| format!("cannot open a sock_diag socket: {error}"))?;
        let by_host = open_forwards(&spec.by_host)?;
        let mut descriptors: Vec<_> = by_host.iter().map(AsFd::as_fd).collect();
        descriptors.extend(link.iter().map(AsFd::as_fd).chain([sockets.as_fd()]));
        self.report(&Report::Ready { outer }, &descriptors);
        drop((link, sockets, by_host));
        let by_namespace = open_forwards(&spec.by_namespace)?;
        self.forwarder = Forwarder::start(&spec.by_namespace, by_namespace)
            .map_err(|error| format!("cannot start the process for forwards: {error}"))?;
        // The bounding set stays: a program with file capabilities, as ping may be, would not start without
        // them in it, and no_new_privs gives it none.
        identity::become_invoker().map_err(|error| words(&error))?;
        let kept: &[Capability] = if spec.raw { &[Capability::NetRaw] } else { &[] };
        capability::drop_all(kept).and_then(|()| capability::pass_on(kept)).map_err(|error| words(&error))?;
        for result in [prctl::set_no_new_privs(), prctl::set_dumpable(false)] {
            result.map_err(|errno| format!("cannot give up privileges: {errno}"))?;
        }
        Ok(())
    }

    /// Runs the command, and returns once all processes have ended.
    fn supervise(&mut self, command: &[CString]) {
        let Some(Order::Start) = self.order() else { return };
        // A stopped supervisor would not notice netkat's end.
        let _ = prctl::set_pdeathsig(Signal::SIGCONT);
        let _ = prctl::set_child_subreaper(true);
        // The terminal's signals reach the command as well, and its end is what counts.
        let mut ours = SigSet::all();
        ours.remove(Signal::SIGTSTP);
        let Ok(before) = ours.thread_swap_mask(SigmaskHow::SIG_SETMASK) else { return };
        let children = SigSet::from_iter([Signal::SIGCHLD]);
        let Ok(children) = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        else {
            return;
        };
        match start(command, &before) {
            Ok(pid) => {
                self.command = Some(pid);
                self.report(&Report::Started, &[]);
            }
            Err(errno) => return self.report(&Report::CannotRun(errno as i32), &[]),
        }
        loop {
            let mut fds = [
                PollFd::new(children.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            ];
            if !matches!(poll(&mut fds, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR)) {
                return self.kill_all();
            }
            let ordered = fds.get(1).and_then(PollFd::any).unwrap_or(false);
            if ordered {
                match self.order() {
                    Some(Order::Signal(number)) => self.pass_on(number),
                    Some(_) => {}
                    None => return self.kill_all(),
                }
            }
            while let Ok(Some(_)) = children.read_signal() {}
            if !self.reap() {
                return;
            }
        }
    }

    /// Reaps ended processes and reports the command's end. Returns whether any process is left.
    fn reap(&mut self) -> bool {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, status),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, BY_SIGNAL + signal as i32),
                // The forwarder dies with this process.
                Ok(WaitStatus::StillAlive) => return self.forwarder.is_none() || !self.children().is_empty(),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return false,
            };
            if self.command == Some(pid) {
                self.command = None;
                self.report(&Report::Ended(u8::try_from(status).unwrap_or(u8::MAX)), &[]);
            }
        }
    }

    /// Sends a signal to the command; after its end, to all that it has left.
    fn pass_on(&self, number: i32) {
        let Ok(signal) = Signal::try_from(number) else { return };
        let targets = self.command.map_or_else(|| self.children(), |command| vec![command]);
        for pid in targets {
            let _ = kill(pid, signal);
        }
    }

    /// Returns the processes whose parent this is (proc(5), /proc/PID/task/TID/children), but the forwarder.
    fn children(&self) -> Vec<Pid> {
        let own = getpid();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw));
        pids.filter(|pid| self.forwarder.as_ref().is_none_or(|forwarder| forwarder.pid != *pid)).collect()
    }

    /// Kills all processes that are left. Those whose parent dies become this process's children.
    fn kill_all(&self) {
        loop {
            let left = self.children();
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            if !matches!(waitpid(None, None), Ok(_) | Err(Errno::EINTR)) {
                return;
            }
        }
    }

    fn report(&self, report: &Report, descriptors: &[std::os::fd::BorrowedFd]) {
        let sent = message::encode(report)
            .and_then(|bytes| kernel::send_message(self.control.as_fd(), &bytes, descriptors));
        if let Err(error) = sent {
            log::debug!("cannot reach netkat: {error}");
        }
    }

    /// Waits for an order; `None` once netkat is gone.
    fn order(&self) -> Option<Order> {
        let (bytes, _) = kernel::receive_message(self.control.as_fd(), true).ok().flatten()?;
        message::decode(&bytes).ok()
    }
}

/// Writes the namespace's settings. `made` says that the device is there.
fn configure(spec: &NamespaceSpec, ping_groups: &str, made: bool) {
    let ports = &spec.ephemeral_ports;
    let range = format!("{} {}", ports.start(), ports.end());
    for (setting, value) in [
        ("net/ipv4/ip_local_port_range", range.as_str()),
        ("net/ipv4/ping_group_range", ping_groups),
        // netkat holds the port on the host, and may refuse; the namespace has no reason to.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
    ] {
        if let Err(error) = fs::write(format!("/proc/sys/{setting}"), value) {
            log::info!("namespace: cannot set {}: {error}", setting.replace('/', "."));
        }
    }
    // A device that does not exist yet starts with the default.
    let device = if made { spec.device.name.as_str() } else { "default" };
    let solicitations = format!("/proc/sys/net/ipv6/conf/{device}/router_solicitations");
    if let Err(error) = fs::write(&solicitations, "0") {
        log::debug!("namespace: its kernel asks for routers: {error}");
    }
}

/// Opens the forwards' listening sockets.
fn open_forwards(forwards: &[Forward]) -> Result<Vec<OwnedFd>, String> {
    let open = |forward: &Forward| {
        let Forward { protocol, listen, .. } = forward;
        forward
            .open()
            .map_err(|error| format!("cannot listen on {protocol} {listen} for the command: {error}"))
    };
    forwards.iter().map(open).collect()
}

/// Opens the packet socket at the device's other end.
fn packet_socket(interface: u32, receive_buffer: usize) -> Result<OwnedFd, link::LinkError> {
    let mut socket = PacketSocket::open(&link::Options::of_device(interface, None, receive_buffer))?;
    socket.bind()?;
    Ok(socket.into_descriptor())
}

/// Opens a socket for questions about this namespace's sockets, connected to the kernel.
fn sock_diag() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Starts the command with this signal mask. It dies with the supervisor.
fn start(command: &[CString], mask: &SigSet) -> nix::Result<Pid> {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let supervisor = getpid();
    let pid = match fork().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop(told);
            let errno = become_command(command, mask, supervisor);
            let _ = write(&tell, &(errno as i32).to_ne_bytes());
            exit(127)
        }
    };
    drop(tell);
    let mut errno = [0; 4];
    // execve(2) closes the pipe.
    match read(&told, &mut errno) {
        Ok(0) => Ok(pid),
        _ => {
            let _ = waitpid(pid, None);
            Err(Errno::from_raw(i32::from_ne_bytes(errno)))
        }
    }
}

/// Becomes the command; returns why not.
fn become_command(command: &[CString], mask: &SigSet, supervisor: Pid) -> Errno {
    let prepared = prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| {
        kernel::reset_pipe_signal();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)
    });
    if let Err(errno) = prepared {
        return errno;
    }
    if getppid() != supervisor {
        return Errno::ESRCH;
    }
    let Some(program) = command.first() else { return Errno::ENOENT };
    match execvp(program, command) {
        Err(errno) => errno,
        Ok(never) => match never {},
    }
}
