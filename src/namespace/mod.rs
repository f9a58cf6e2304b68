//! The network namespace of a command (`--run`), and the supervisor that lives in it.
//!
//! [`Namespace::open`] forks the supervisor before anything else is open, so that neither it nor the command can
//! get at what netkat opens later. The supervisor makes the namespace and its device, and sends netkat the
//! packet socket at the device's other end and a socket for questions about the namespace's sockets. It gives up
//! all privileges, starts the command when netkat says so, and waits for all processes that the command leaves
//! behind (prctl(2), PR_SET_CHILD_SUBREAPER). When netkat is gone, it kills them. Its exit is the end of the
//! control socket.
mod forward;
mod message;
mod supervisor;

use crate::{
    host::netlink::Netlink,
    kernel::{self, DeviceSpec, MAX_PASSED},
    link::PacketSocket,
    process::{
        capability::Capability,
        own_namespace::{self as namespace, OwnIds},
    },
};
use message::{Order, Report};
use netlink_packet_sock_diag::SockDiagMessage;
use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid},
};
use std::{
    ffi::CString,
    io,
    ops::RangeInclusive,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// A command and its namespace.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceSpec {
    /// The program and its arguments; never empty.
    pub command: Vec<CString>,
    pub device: DeviceSpec,
    /// The device's other end is to lie in this network namespace, if that can be.
    pub across: bool,
    /// Ports that the command's sockets get which ask for none.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// The command has CAP_NET_RAW.
    pub raw: bool,
    /// Receive buffer of the packet socket, in bytes.
    pub receive_buffer: usize,
    /// Services that this host's sockets reach for the command, and those that the namespace's own do.
    pub by_host: Vec<Forward>,
    pub by_namespace: Vec<Forward>,
}

/// The reason why there is no namespace, or no command in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot {step}: {source}")]
    System {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{with_user}; and {without_user}; docs/run.md says what a host or a container has to allow")]
    Refused { with_user: String, without_user: String },
    #[error("the supervisor of the command's namespace is gone")]
    SupervisorGone,
    #[error("cannot run \"{command}\": {}", io::Error::from(*.errno))]
    CannotRun { command: String, errno: Errno },
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { step, source }
}

pub(crate) use forward::Forward;
use forward::Forwarder;

/// An event in the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The command has ended with this status, a shell's for a signal.
    Ended(u8),
    /// The last process of the namespace has ended.
    Empty,
}

/// A command's namespace. Dropping it ends all processes in it.
pub(crate) struct Namespace {
    /// Closed, for the supervisor to notice, before the wait for its exit.
    control: Option<OwnedFd>,
    supervisor: Pid,
    /// Ends when this value does.
    forwarder: Option<Forwarder>,
    command: String,
    /// The packet socket at the device's other end, if that lies in the namespace, too.
    pub link: Option<PacketSocket>,
    /// Index of the device's other end, if that lies in this network namespace. It has no packet socket yet.
    pub outer: Option<u32>,
    /// Answers questions about the namespace's sockets (sock_diag(7)).
    pub sockets: Option<Netlink<SockDiagMessage>>,
}

impl Namespace {
    /// Makes the namespace: in a user namespace, else by CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// [`Error`]; where both ways are refused, it says what refused each.
    pub(crate) fn open(spec: &NamespaceSpec) -> Result<Namespace, Error> {
        let with_user = match Namespace::open_one(spec, true)? {
            Ok(namespace) => return Ok(namespace),
            Err(reason) => reason,
        };
        log::debug!("{with_user}");
        match Namespace::open_one(spec, false)? {
            Ok(namespace) => Ok(namespace),
            Err(mut without_user) => {
                if !Capability::SysAdmin.effective().unwrap_or(false) {
                    without_user.push_str("; CAP_SYS_ADMIN is missing");
                }
                Err(Error::Refused { with_user, without_user })
            }
        }
    }

    /// Forks a supervisor and opens its namespace. The inner error is the supervisor's.
    fn open_one(spec: &NamespaceSpec, user: bool) -> Result<Result<Namespace, String>, Error> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (control, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|errno| failed("make a control socket")(errno.into()))?;
        let ids = OwnIds::read();
        let supervisor = match kernel::fork().map_err(failed("start the namespace's supervisor"))? {
            ForkResult::Child => {
                drop(control);
                supervisor::run(spec, theirs, user, ids)
            }
            ForkResult::Parent { child } => child,
        };
        drop(theirs);
        let command = spec.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let command = crate::text::escape_control(&command).to_string();
        let mut namespace = Namespace {
            control: Some(control),
            supervisor,
            command,
            forwarder: None,
            link: None,
            outer: None,
            sockets: None,
        };
        loop {
            let (report, mut descriptors) = namespace.receive(true)?.ok_or(Error::SupervisorGone)?;
            match report {
                Report::Unshared => {
                    let mapped = user
                        && namespace::map_all_ids(supervisor)
                            .inspect_err(|error| log::debug!("maps this user alone: {error}"))
                            .is_ok();
                    let outer = spec.across.then(|| spec.device.make_across(supervisor)).transpose();
                    namespace.outer = outer.unwrap_or_else(|error| {
                        log::info!("namespace: the whole device lies in it: {error}");
                        None
                    });
                    let device = namespace.outer.is_some();
                    namespace.send(&Order::Prepared { ids: mapped, device })?;
                }
                Report::Refused(reason) => return Ok(Err(reason)),
                Report::Ready { outer } => {
                    let Some(sockets) = descriptors.pop() else { return Err(Error::SupervisorGone) };
                    if let Some(outer) = outer {
                        let Some(link) = descriptors.pop() else { return Err(Error::SupervisorGone) };
                        let buffer = spec.receive_buffer;
                        let link = PacketSocket::adopt(link, outer, "the command's device", buffer);
                        namespace.link = Some(link);
                    }
                    namespace.forwarder = Forwarder::start(&spec.by_host, descriptors)
                        .map_err(failed("start the process for forwards"))?;
                    namespace.sockets = Some(kernel::adopt_netlink(sockets));
                    log::info!("namespace: ready, {} a user namespace", if user { "in" } else { "without" });
                    return Ok(Ok(namespace));
                }
                Report::Started | Report::CannotRun(_) | Report::Ended(_) => {
                    return Err(Error::SupervisorGone);
                }
            }
        }
    }

    /// Starts the command.
    ///
    /// # Errors
    /// [`Error::CannotRun`], or [`Error::SupervisorGone`].
    pub(crate) fn start(&self) -> Result<(), Error> {
        self.send(&Order::Start)?;
        match self.receive(true)? {
            Some((Report::Started, _)) => Ok(()),
            Some((Report::CannotRun(errno), _)) => {
                let errno = Errno::from_raw(errno);
                Err(Error::CannotRun { command: self.command.clone(), errno })
            }
            _ => Err(Error::SupervisorGone),
        }
    }

    /// Passes a signal on to the command; after its end, to all that it has left.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = self.send(&Order::Signal(signal as i32)) {
            log::debug!("{error}");
        }
    }

    /// Returns the next event; `None` if there is none yet.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub(crate) fn event(&self) -> Result<Option<Event>, Error> {
        match self.receive(false) {
            Ok(Some((Report::Ended(status), _))) => Ok(Some(Event::Ended(status))),
            Ok(Some(_)) => Ok(None),
            Ok(None) => Ok(Some(Event::Empty)),
            Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // A supervisor that was killed has left unread orders.
            Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::ConnectionReset => {
                Ok(Some(Event::Empty))
            }
            Err(error) => Err(error),
        }
    }

    fn send(&self, order: &Order) -> Result<(), Error> {
        let bytes = message::encode(order).map_err(failed("encode an order"))?;
        kernel::send_message(self.control()?, &bytes, &[]).map_err(failed("reach the namespace's supervisor"))
    }

    fn receive(&self, wait: bool) -> Result<Option<(Report, Vec<OwnedFd>)>, Error> {
        let received = kernel::receive_message(self.control()?, wait)
            .map_err(failed("hear the namespace's supervisor"))?;
        let Some((bytes, descriptors)) = received else { return Ok(None) };
        debug_assert!(descriptors.len() <= MAX_PASSED);
        let report = message::decode(&bytes).map_err(failed("read the supervisor's report"))?;
        Ok(Some((report, descriptors)))
    }
}

impl Namespace {
    /// Returns the descriptor that becomes readable with the next event.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(AsFd::as_fd)
    }

    fn control(&self) -> Result<BorrowedFd<'_>, Error> {
        self.descriptor().ok_or(Error::SupervisorGone)
    }
}

/// The supervisor notices the end of the control socket and kills what is left.
impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.control.take());
        // It has a copy of the control socket.
        drop(self.forwarder.take());
        while waitpid(self.supervisor, None) == Err(Errno::EINTR) {}
    }
}
