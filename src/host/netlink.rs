//! The one transport for requests over netlink(7), whatever the family: rtnetlink, nfnetlink, sock_diag.
//!
//! A request without `NLM_F_DUMP` asks for an acknowledgement (`NLM_F_ACK`), so every answer has an end: an
//! `NLMSG_ERROR` whose code is zero. A dump ends with `NLMSG_DONE`, and the kernel marks its messages when
//! the table changed meanwhile (`NLM_F_DUMP_INTR`). A message that the decoder cannot read is skipped with
//! a log line: a device of an unknown kind must not hide the others.
//!
//! [`Netlink::request`] and [`Netlink::dump`] collect an answer; [`Netlink::stream`] hands each message on
//! as it arrives, for tables that are larger than what is looked for in them.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use log::debug;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, setsockopt, sockopt},
};

/// Longest wait for a part of an answer. The kernel answers from its own tables within microseconds; the
/// limit only keeps a bug from hanging netkat.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts at a dump that changes disturb.
const DUMP_ATTEMPTS: usize = 8;
/// Messages start at multiples of this (`NLMSG_ALIGNTO`, netlink(7)).
const ALIGNMENT: usize = 4;
/// Size of the receive buffer for long answers, in bytes. The kernel fills as much of it with each part of a dump,
/// and at most this (netlink_recvmsg and netlink_dump in net/netlink/af_netlink.c).
const DATAGRAM: usize = 32 << 10;
/// Size of the receive buffer for short answers, in bytes.
const SHORT_DATAGRAM: usize = 4 << 10;

/// The reason why a request over netlink failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused; the number is an errno, positive.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// The netlink socket itself failed.
    #[error("the netlink socket could not {operation}: {source}")]
    Socket {
        /// The operation, as a verb phrase.
        operation: &'static str,
        /// The system call's error.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("the kernel did not answer on netlink within {} s", ANSWER_TIMEOUT.as_secs())]
    Silence,
    /// The answer does not fit the request, or is cut short.
    #[error("the kernel's answer on netlink could not be read: {0}")]
    Malformed(&'static str),
    /// The table changed while the kernel listed it.
    #[error("the kernel's tables changed while they were read; try again")]
    Disturbed,
}

impl NetlinkError {
    /// Returns the kernel's errno, if the kernel refused.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused(errno) => Some(Errno::from_raw(*errno)),
            _ => None,
        }
    }

    fn socket(operation: &'static str) -> impl Fn(io::Error) -> NetlinkError {
        move |source| NetlinkError::Socket { operation, source }
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> io::Error {
        match error {
            NetlinkError::Refused(errno) => io::Error::from_raw_os_error(errno),
            NetlinkError::Socket { source, .. } => source,
            error => io::Error::other(error),
        }
    }
}

/// A message that a [`Netlink`] socket sends and receives.
pub(crate) trait Message: NetlinkSerializable + NetlinkDeserializable + Clone {}

impl<M: NetlinkSerializable + NetlinkDeserializable + Clone> Message for M {}

/// A netlink socket in the network namespace of the thread that opened it.
pub(crate) struct Netlink<M = RouteNetlinkMessage> {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    messages: PhantomData<M>,
}

impl Netlink {
    /// Opens a rtnetlink socket for requests.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] where the socket cannot be opened.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Netlink::of(NETLINK_ROUTE)
    }

    /// Opens a socket that receives the notifications of `group` (`RTNLGRP_*`, rtnetlink(7)).
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] where the socket cannot be opened or cannot join the group.
    pub(crate) fn subscribe(group: u32) -> Result<Self, NetlinkError> {
        let netlink = Self::open()?;
        netlink.join(group)?;
        Ok(netlink)
    }

    /// Waits at most `timeout` for a notification and discards all that have arrived. Returns whether any
    /// had. Lost notifications (ENOBUFS) count, since the caller then looks for itself.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn wait_for_change(&mut self, timeout: Duration) -> Result<bool, NetlinkError> {
        if !self.readable(timeout)? {
            return Ok(false);
        }
        while self.readable(Duration::ZERO)? {
            self.receive()?;
        }
        Ok(true)
    }
}

impl<M: Message> Netlink<M> {
    /// Opens a socket of a netlink family (`NETLINK_*`, netlink(7)) whose messages are `M`.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] where the socket cannot be opened.
    pub(crate) fn of(family: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(family).map_err(NetlinkError::socket("open"))?;
        socket.bind_auto().map_err(NetlinkError::socket("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::socket("connect to the kernel"))?;
        Ok(Netlink::over(socket))
    }

    /// Returns the transport over a socket that is connected to the kernel, of another network namespace perhaps.
    pub(crate) fn over(socket: Socket) -> Self {
        Netlink { socket, sequence: 0, buffer: Vec::new(), messages: PhantomData }
    }

    /// Joins one more notification group.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn join(&self, group: u32) -> Result<(), NetlinkError> {
        self.socket.add_membership(group).map_err(NetlinkError::socket("join a notification group"))
    }

    /// Returns the notifications that have arrived; `None` if some were lost. Does not wait.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] or [`NetlinkError::Malformed`].
    pub(crate) fn notifications(&mut self) -> Result<Option<Vec<M>>, NetlinkError> {
        self.some_notifications(usize::MAX)
    }

    /// Returns the notifications that have arrived, as [`Netlink::notifications`] does, of at most so many datagrams.
    /// Others follow with the next call.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] or [`NetlinkError::Malformed`].
    pub(crate) fn some_notifications(&mut self, datagrams: usize) -> Result<Option<Vec<M>>, NetlinkError> {
        let mut notifications = Vec::new();
        for _ in 0..datagrams {
            if !self.readable(Duration::ZERO)? {
                break;
            }
            match self.receive()? {
                Some(datagram) => read_notifications(datagram, &mut notifications)?,
                None => return Ok(None),
            }
        }
        Ok(Some(notifications))
    }

    /// Enlarges the receive buffer to `bytes`, past net.core.rmem_max where CAP_NET_ADMIN allows it.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn enlarge_receive_buffer(&self, bytes: usize) -> Result<(), NetlinkError> {
        setsockopt(&self.socket, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.socket, sockopt::RcvBuf, &bytes))
            .map_err(|errno| NetlinkError::socket("enlarge its receive buffer")(errno.into()))
    }

    /// Sends several messages in one datagram, each with its flags beside `NLM_F_REQUEST`, of which the
    /// kernel acknowledges none. It handles them before sendmsg(2) returns, so its refusals are there then.
    ///
    /// # Errors
    /// The kernel's first refusal, or the socket's failure.
    pub(crate) fn send_all(
        &mut self,
        messages: impl IntoIterator<Item = (M, u16)>,
    ) -> Result<(), NetlinkError> {
        let mut bytes = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for (message, flags) in messages {
            self.serialize(message, NLM_F_REQUEST | flags, &mut bytes);
        }
        self.socket.send(&bytes, 0).map_err(NetlinkError::socket("send"))?;
        while self.readable(Duration::ZERO)? {
            let lost = || NetlinkError::socket("receive")(Errno::ENOBUFS.into());
            let (last, datagram) = (self.sequence, self.receive()?.ok_or_else(lost)?);
            for sequence in first..=last {
                read(datagram, sequence, |_: M| {})?;
            }
        }
        Ok(())
    }

    /// Sends one request and returns the replies, of which a mere acknowledgement has none. `flags` are
    /// added to `NLM_F_REQUEST | NLM_F_ACK`.
    ///
    /// # Errors
    /// The kernel's refusal or the socket's failure.
    pub(crate) fn request(&mut self, message: M, flags: u16) -> Result<Vec<M>, NetlinkError> {
        let mut replies = Vec::new();
        self.stream(message, NLM_F_ACK | flags, |reply| replies.push(reply))?;
        Ok(replies)
    }

    /// Reads a whole table, again if it changes meanwhile.
    ///
    /// # Errors
    /// [`NetlinkError::Disturbed`] where it changed during each of several attempts; the kernel's refusal
    /// or the socket's failure.
    pub(crate) fn dump(&mut self, message: M) -> Result<Vec<M>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut replies = Vec::new();
            match self.stream(message.clone(), NLM_F_DUMP, |reply| replies.push(reply)) {
                Err(NetlinkError::Disturbed) => debug!("a change disturbed a netlink dump; repeating it"),
                result => return result.map(|()| replies),
            }
        }
        Err(NetlinkError::Disturbed)
    }

    /// Sends one request and hands each reply to `each` as it arrives. `flags` are added to `NLM_F_REQUEST`
    /// and hold `NLM_F_ACK` or `NLM_F_DUMP`, else no answer ends.
    ///
    /// # Errors
    /// [`NetlinkError::Disturbed`] where the table changed during a dump, of which `each` has seen all
    /// parts by then; the kernel's refusal or the socket's failure.
    pub(crate) fn stream(
        &mut self,
        message: M,
        flags: u16,
        mut each: impl FnMut(M),
    ) -> Result<(), NetlinkError> {
        self.send(message, NLM_F_REQUEST | flags)?;
        let sequence = self.sequence;
        let mut disturbed = false;
        loop {
            if !self.readable(ANSWER_TIMEOUT)? {
                return Err(NetlinkError::Silence);
            }
            let lost = || NetlinkError::socket("receive")(Errno::ENOBUFS.into());
            let datagram = self.receive()?.ok_or_else(lost)?;
            let progress = read(datagram, sequence, &mut each)?;
            disturbed |= progress.disturbed;
            match progress.complete {
                // The whole answer is read all the same: the kernel refuses a second dump beside an
                // unfinished one.
                true if disturbed => return Err(NetlinkError::Disturbed),
                true => return Ok(()),
                false => {}
            }
        }
    }

    /// Appends a message with the next sequence number.
    fn serialize(&mut self, message: M, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let start = bytes.len();
        bytes.resize(start + request.buffer_len().next_multiple_of(ALIGNMENT), 0);
        request.serialize(&mut bytes[start..start + request.buffer_len()]);
    }

    fn send(&mut self, message: M, flags: u16) -> Result<(), NetlinkError> {
        let mut bytes = Vec::new();
        self.serialize(message, flags, &mut bytes);
        self.socket.send(&bytes, 0).map(|_| ()).map_err(NetlinkError::socket("send"))
    }
}

impl<M> Netlink<M> {
    /// Receives one datagram into the buffer, which grows to hold it; `None` if the kernel had to drop some.
    fn receive(&mut self) -> Result<Option<&[u8]>, NetlinkError> {
        let fd = self.socket.as_raw_fd();
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
        let attempt = |buffer: &mut [u8], flags| loop {
            match recv(fd, buffer, flags) {
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(None),
                result => {
                    return result.map(Some).map_err(|errno| NetlinkError::socket("receive")(errno.into()));
                }
            }
        };
        let Some(length) = attempt(&mut [], peek)? else { return Ok(None) };
        if self.buffer.len() < length.max(1) {
            let size = if length > SHORT_DATAGRAM { length.max(DATAGRAM) } else { SHORT_DATAGRAM };
            self.buffer = vec![0; size];
        }
        let length = attempt(&mut self.buffer, MsgFlags::empty())?;
        Ok(length.map(|length| self.buffer.get(..length).unwrap_or_default()))
    }

    fn readable(&self, timeout: Duration) -> Result<bool, NetlinkError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last fraction of a millisecond becomes a busy loop.
            let milliseconds = left.as_micros().div_ceil(1000);
            let wait = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) if Instant::now() >= deadline => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(NetlinkError::socket("wait")(errno.into())),
            }
        }
    }
}

/// The progress of an answer after one datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The answer has ended.
    pub complete: bool,
    /// The table changed during the dump.
    pub disturbed: bool,
}

/// Hands the messages of one datagram to `each`, in the kernel's order. Messages with another sequence
/// number are late answers to an earlier request that timed out.
///
/// # Errors
/// [`NetlinkError::Refused`], or [`NetlinkError::Malformed`] for a datagram that is cut short.
pub fn read<M: NetlinkDeserializable>(
    datagram: &[u8],
    sequence: u32,
    mut each: impl FnMut(M),
) -> Result<Progress, NetlinkError> {
    let mut progress = Progress::default();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message;
        (message, rest) = split_first(rest)?;
        if message.sequence_number() != sequence {
            continue;
        }
        progress.disturbed |= message.flags() & NLM_F_DUMP_INTR != 0;
        match NetlinkMessage::<M>::deserialize(message.into_inner()).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(inner)) => each(inner),
            Ok(NetlinkPayload::Done(done)) if done.code == 0 => {
                return Ok(Progress { complete: true, ..progress });
            }
            Ok(NetlinkPayload::Done(done)) => return Err(NetlinkError::Refused(done.code.saturating_abs())),
            Ok(NetlinkPayload::Error(error)) => match error.code {
                None => return Ok(Progress { complete: true, ..progress }),
                Some(code) => return Err(NetlinkError::Refused(code.get().saturating_abs())),
            },
            Ok(_) => {}
            Err(error) => debug!("skipping a netlink message: {error}"),
        }
    }
    Ok(progress)
}

/// Splits a datagram into its first message and the rest.
fn split_first(datagram: &[u8]) -> Result<(NetlinkBuffer<&[u8]>, &[u8]), NetlinkError> {
    let short = || NetlinkError::Malformed("a message is cut short");
    let length = NetlinkBuffer::new_checked(datagram).map_err(|_| short())?.length() as usize;
    let (bytes, tail) = datagram.split_at_checked(length).ok_or_else(short)?;
    // The last message's padding may be missing.
    let rest = tail.get(length.next_multiple_of(ALIGNMENT) - length..).unwrap_or_default();
    Ok((NetlinkBuffer::new_checked(bytes).map_err(|_| short())?, rest))
}

/// Reads the notifications of a datagram, which carry the sequence number of whatever request caused them.
fn read_notifications<M: NetlinkDeserializable>(
    datagram: &[u8],
    into: &mut Vec<M>,
) -> Result<(), NetlinkError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message;
        (message, rest) = split_first(rest)?;
        let read = NetlinkMessage::<M>::deserialize(message.into_inner());
        match read.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(inner)) => into.push(inner),
            Ok(_) => {}
            Err(error) => debug!("skipping a netlink notification: {error}"),
        }
    }
    Ok(())
}

impl<M> AsFd for Netlink<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a message as netlink(7) lays it out: header, `payload`, padding.
    pub(in crate::host) fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + payload.len()).expect("short").to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// Reads the answer to request 7, whose messages count for nothing.
    fn progress(datagram: &[u8]) -> Result<Progress, NetlinkError> {
        read(datagram, 7, |_: RouteNetlinkMessage| {})
    }

    const ERROR: u16 = 2;
    const DONE: u16 = 3;

    #[test]
    fn an_error_keeps_its_number() {
        let refused = |kind, code: i32| {
            let error = progress(&message(kind, 0, 7, &code.to_ne_bytes())).expect_err("refused");
            error.errno().expect("the kernel's") as i32
        };
        assert_eq!(refused(ERROR, -113), Errno::EHOSTUNREACH as i32);
        assert_eq!(refused(DONE, -2), Errno::ENOENT as i32);
        let extreme = progress(&message(ERROR, 0, 7, &i32::MIN.to_ne_bytes()));
        assert!(matches!(extreme, Err(NetlinkError::Refused(i32::MAX))));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_present_one() {
        let mut datagram = message(ERROR, 0, 6, &(-113i32).to_ne_bytes());
        assert!(!progress(&datagram).expect("skipped").complete);
        datagram.extend(message(ERROR, 0, 7, &0i32.to_ne_bytes()));
        assert!(progress(&datagram).expect("acknowledged").complete);
    }

    #[test]
    fn a_disturbed_dump_is_noticed() {
        let done = message(DONE, NLM_F_DUMP_INTR, 7, &0i32.to_ne_bytes());
        assert_eq!(progress(&done).expect("done"), Progress { complete: true, disturbed: true });
        let mut parts = message(20, NLM_F_DUMP_INTR, 7, &[2, 24, 0, 0, 1, 0, 0, 0]);
        assert_eq!(progress(&parts).expect("a part"), Progress { complete: false, disturbed: true });
        parts.extend(message(DONE, 0, 7, &0i32.to_ne_bytes()));
        assert_eq!(progress(&parts).expect("done"), Progress { complete: true, disturbed: true });
        assert!(matches!(progress(&done[..18]), Err(NetlinkError::Malformed(_))));
    }

    #[test]
    fn an_unreadable_message_does_not_hide_the_next() {
        // RTM_NEWLINK whose header is missing, then RTM_NEWADDR that is whole.
        let mut datagram = message(16, 2, 1, &[]);
        datagram.extend(message(20, 2, 1, &[2, 24, 0, 0, 1, 0, 0, 0]));
        let mut messages = Vec::new();
        assert!(!read(&datagram, 1, |message| messages.push(message)).expect("readable").complete);
        assert!(matches!(messages.as_slice(), [RouteNetlinkMessage::NewAddress(_)]));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
            let _ = read(&bytes, 0, |_: RouteNetlinkMessage| {});
            let _ = read_notifications::<RouteNetlinkMessage>(&bytes, &mut Vec::new());
        }

        #[test]
        fn arbitrary_payloads_never_panic(
            kind in 16u16..32,
            payload in proptest::collection::vec(proptest::num::u8::ANY, 0..128),
        ) {
            let _ = read(&message(kind, 0, 0, &payload), 0, |_: RouteNetlinkMessage| {});
        }
    }
}
