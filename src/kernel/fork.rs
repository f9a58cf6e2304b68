//! Copies of this process, and the descriptors that they send each other.
#![allow(unsafe_code)]
use super::descriptors;
use crate::host::netlink::{Message, Netlink};
use nix::{
    cmsg_space,
    sys::{
        prctl,
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    },
    unistd::{ForkResult, fork as nix_fork, setsid},
};
use std::{
    ffi::CStr,
    fs, io,
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
};

/// Maximum descriptors of one message.
pub(crate) const MAX_PASSED: usize = 32;
/// Maximum length of a message, in bytes.
const MAX_MESSAGE: usize = 4096;

/// Copies this process by fork(2).
///
/// # Errors
/// Those of fork(2); the process has several threads, of which the copy would lack all but one.
pub(crate) fn fork() -> io::Result<ForkResult> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    // SAFETY: with a single thread no lock is held by another one, so the copy may call anything.
    Ok(unsafe { nix_fork() }?)
}

/// The kernel's number of the initial PID namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The right to copy this process into one that outlives it, found out while files can be read.
#[derive(Debug)]
pub(crate) struct Survival {
    /// The descriptors that this process was started with.
    inherited: Vec<RawFd>,
}

impl Survival {
    /// Returns the right; `None` while there are several threads, or in a PID namespace whose first process
    /// may be an ordinary program: such a one reaps no orphans, and its end takes all others with it.
    pub(crate) fn ask() -> Option<Survival> {
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        let threads = fs::read_dir("/proc/self/task").ok()?.count();
        let inherited = descriptors::all_inherited().ok()?;
        (namespace.as_os_str() == INITIAL_PID_NAMESPACE && threads == 1).then_some(Survival { inherited })
    }

    /// Copies this process. The copy has a session and a `name` of its own, and neither standard streams nor
    /// other descriptors that this process was started with, `also` included, so no reader waits for it.
    ///
    /// # Errors
    /// Those of fork(2).
    pub(crate) fn leave_copy(&self, name: &CStr, also: &[BorrowedFd]) -> io::Result<ForkResult> {
        // SAFETY: there was a single thread when the right was asked for, and none is started during a run, so no
        // lock is held by another one, and the copy may call anything.
        let side = unsafe { nix_fork() }?;
        if side.is_child() {
            // Neither can fail in a fresh process; without them the copy is only easier to mistake or to end.
            let _ = (setsid(), prctl::set_name(name));
            descriptors::release(&self.inherited, also);
        }
        Ok(side)
    }
}

/// Ends this process at once: nothing is flushed, and no value dropped, of what it shares with its original.
pub(crate) fn vanish() -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(0) }
}

/// Returns the netlink socket of another process, which is connected to the kernel.
pub(crate) fn adopt_netlink<M: Message>(socket: OwnedFd) -> Netlink<M> {
    // SAFETY: the descriptor has no other owner.
    Netlink::over(unsafe { netlink_sys::Socket::from_raw_fd(socket.into_raw_fd()) })
}

/// Sends a message with descriptors over an AF_UNIX socket.
///
/// # Errors
/// Those of sendmsg(2).
pub(crate) fn send_message(socket: BorrowedFd, message: &[u8], descriptors: &[BorrowedFd]) -> io::Result<()> {
    let descriptors: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(message)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives a message and its descriptors; `None` once the other end is closed.
///
/// # Errors
/// Those of recvmsg(2); EAGAIN while there is no message, if `wait` is not set.
pub(crate) fn receive_message(socket: BorrowedFd, wait: bool) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut room = cmsg_space!([RawFd; MAX_PASSED]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    let (length, descriptors) = {
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let message = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut room), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                result => break result?,
            }
        };
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made these descriptors for this message alone.
                descriptors.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (message.bytes, descriptors)
    };
    bytes.truncate(length);
    Ok((length > 0).then_some((bytes, descriptors)))
}
