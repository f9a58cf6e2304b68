//! Copies of this process, and the descriptors that they send each other.
#![allow(unsafe_code)]
use crate::host::netlink::{Message, Netlink};
use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    unistd::{ForkResult, fork as nix_fork},
};
use std::{
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
