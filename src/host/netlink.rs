//! A small request and answer transport over netlink(7): rtnetlink, and any other family of messages.
//!
//! Each request asks for an acknowledgement (`NLM_F_ACK`), so a conversation always ends with one: replies, then
//! an `NLMSG_ERROR` whose code is zero. Dumps end with `NLMSG_DONE` instead and are started again when the kernel
//! says that its table changed under them (`NLM_F_DUMP_INTR`). A message that the decoder can't read is skipped
//! with a log line: a device of a kind yet unknown must not hide the others.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
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
};

/// The kernel answers from its own tables within microseconds; this only keeps a bug from hanging us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a dump that was disturbed is started again.
const DUMP_ATTEMPTS: usize = 8;
/// Messages start at multiples of this (`NLMSG_ALIGNTO`, netlink(7)).
const ALIGNMENT: usize = 4;

/// Why a question over netlink got no answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused; the number is an errno, positive.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// The netlink socket itself failed.
    #[error("the netlink socket could not {operation}: {source}")]
    Socket { operation: &'static str, source: io::Error },
    #[error("the kernel did not answer on netlink within {} s", ANSWER_TIMEOUT.as_secs())]
    Silence,
    /// The answer is not the one that the question asks for.
    #[error("the kernel's answer on netlink could not be read: {0}")]
    Malformed(&'static str),
    #[error("the kernel's tables changed during each of {DUMP_ATTEMPTS} attempts to read them; try again")]
    Disturbed,
}

impl NetlinkError {
    /// The errno that the kernel gave, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused(errno) => Some(Errno::from_raw(*errno)),
            _ => None,
        }
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
pub trait Message: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<Self>> + Clone {}

impl<M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>> + Clone> Message for M {}

/// A netlink socket in the calling thread's network namespace.
pub struct Netlink<M = RouteNetlinkMessage> {
    socket: Socket,
    sequence: u32,
    messages: PhantomData<M>,
}

impl Netlink {
    /// Opens a rtnetlink socket for questions.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        Netlink::of(NETLINK_ROUTE)
    }

    /// Opens a socket that receives the notifications of `group` (`RTNLGRP_*`, rtnetlink(7)).
    pub fn subscribe(group: u32) -> Result<Self, NetlinkError> {
        let netlink = Self::open()?;
        let failed = |source| NetlinkError::Socket { operation: "join a notification group", source };
        netlink.socket.add_membership(group).map_err(failed)?;
        Ok(netlink)
    }

    /// Receives the notifications of one more group.
    pub fn join(&self, group: u32) -> Result<(), NetlinkError> {
        let failed = |source| NetlinkError::Socket { operation: "join a notification group", source };
        self.socket.add_membership(group).map_err(failed)
    }

    /// The notifications that have come; `None` if some were lost. Does not wait.
    pub fn announcements(&mut self) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let mut announcements = Vec::new();
        while self.readable(Duration::ZERO)? {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => read_all(&datagram, &mut announcements)?,
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(None),
                Err(source) => return Err(NetlinkError::Socket { operation: "receive", source }),
            }
        }
        Ok(Some(announcements))
    }
}

impl<M: Message> Netlink<M> {
    /// Opens a socket of a netlink family (`NETLINK_*`, netlink(7)) whose messages are `M`.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn of(family: isize) -> Result<Self, NetlinkError> {
        let failed = |operation| move |source| NetlinkError::Socket { operation, source };
        let mut socket = Socket::new(family).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect to the kernel"))?;
        Ok(Netlink { socket, sequence: 0, messages: PhantomData })
    }

    /// Asks one question; returns the replies, which may be none (a pure acknowledgement).
    ///
    /// `flags` are added to `NLM_F_REQUEST | NLM_F_ACK`.
    pub fn request(&mut self, message: M, flags: u16) -> Result<Vec<M>, NetlinkError> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.replies().map(|replies| replies.messages)
    }

    /// Reads a whole table.
    pub fn dump(&mut self, message: M) -> Result<Vec<M>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let replies = self.replies()?;
            if !replies.disturbed {
                return Ok(replies.messages);
            }
            debug!("a netlink dump was disturbed by a change, asking again");
        }
        Err(NetlinkError::Disturbed)
    }

    /// Waits at most `timeout` for a notification and discards all that have come; `false`: none came.
    ///
    /// An overrun (ENOBUFS: notifications were lost) counts as one, since the caller then looks for itself.
    pub fn wait_for_change(&mut self, timeout: Duration) -> Result<bool, NetlinkError> {
        if !self.readable(timeout)? {
            return Ok(false);
        }
        while self.readable(Duration::ZERO)? {
            match self.socket.recv_from_full() {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(source) => return Err(NetlinkError::Socket { operation: "receive", source }),
            }
        }
        Ok(true)
    }

    fn send(&mut self, message: M, flags: u16) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, message.into());
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let failed = |source| NetlinkError::Socket { operation: "send", source };
        self.socket.send(&bytes, 0).map(|_| ()).map_err(failed)
    }

    fn replies(&mut self) -> Result<Replies<M>, NetlinkError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut replies = Replies::default();
        loop {
            if !self.readable(deadline.saturating_duration_since(Instant::now()))? {
                return Err(NetlinkError::Silence);
            }
            let failed = |source| NetlinkError::Socket { operation: "receive", source };
            let (datagram, _) = self.socket.recv_from_full().map_err(failed)?;
            if replies.take_in(&datagram, self.sequence)? {
                return Ok(replies);
            }
        }
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
                Err(errno) => return Err(NetlinkError::Socket { operation: "wait", source: errno.into() }),
            }
        }
    }
}

/// What has come so far in answer to one request.
#[derive(Debug)]
pub struct Replies<M = RouteNetlinkMessage> {
    /// In the kernel's order.
    pub messages: Vec<M>,
    /// The table changed during the dump.
    pub disturbed: bool,
}

impl<M> Default for Replies<M> {
    fn default() -> Self {
        Replies { messages: Vec::new(), disturbed: false }
    }
}

impl<M: NetlinkDeserializable> Replies<M> {
    /// Takes in one datagram; `true`: the answer is complete. Messages with another sequence number are late
    /// answers to an earlier request that was given up.
    ///
    /// # Errors
    /// The kernel refused, or the datagram is cut short.
    pub fn take_in(&mut self, datagram: &[u8], sequence: u32) -> Result<bool, NetlinkError> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let message;
            (message, rest) = cut(rest)?;
            if message.sequence_number() != sequence {
                continue;
            }
            self.disturbed |= message.flags() & NLM_F_DUMP_INTR != 0;
            let bytes = message.into_inner();
            match NetlinkMessage::<M>::deserialize(bytes).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(inner)) => self.messages.push(inner),
                Ok(NetlinkPayload::Done(done)) if done.code == 0 => return Ok(true),
                Ok(NetlinkPayload::Done(done)) => {
                    return Err(NetlinkError::Refused(done.code.saturating_abs()));
                }
                Ok(NetlinkPayload::Error(error)) => match error.code {
                    None => return Ok(true),
                    Some(code) => return Err(NetlinkError::Refused(code.get().saturating_abs())),
                },
                Ok(_) => {}
                Err(error) => debug!("skipping a netlink message: {error}"),
            }
        }
        Ok(false)
    }
}

/// The first message of a datagram, and the rest.
fn cut(datagram: &[u8]) -> Result<(NetlinkBuffer<&[u8]>, &[u8]), NetlinkError> {
    let short = || NetlinkError::Malformed("a message is cut short");
    let length = NetlinkBuffer::new_checked(datagram).map_err(|_| short())?.length() as usize;
    let (bytes, tail) = datagram.split_at_checked(length).ok_or_else(short)?;
    let rest = tail.get(length.next_multiple_of(ALIGNMENT) - length..).unwrap_or_default();
    Ok((NetlinkBuffer::new_checked(bytes).map_err(|_| short())?, rest))
}

/// Reads the notifications of a datagram, whoever's request they came of.
fn read_all(datagram: &[u8], into: &mut Vec<RouteNetlinkMessage>) -> Result<(), NetlinkError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message;
        (message, rest) = cut(rest)?;
        let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.into_inner());
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
mod tests {
    use super::*;

    /// A header, then `payload`; lengths as netlink(7) has them.
    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
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

    #[test]
    fn an_error_keeps_its_number() {
        let datagram = message(2, 0, 7, &(-113i32).to_ne_bytes());
        let error = Replies::<RouteNetlinkMessage>::default().take_in(&datagram, 7).expect_err("refused");
        assert_eq!(error.errno(), Some(Errno::EHOSTUNREACH));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_present_one() {
        let mut datagram = message(2, 0, 6, &(-113i32).to_ne_bytes());
        assert!(!Replies::<RouteNetlinkMessage>::default().take_in(&datagram, 7).expect("skipped"));
        datagram.extend(message(2, 0, 7, &0i32.to_ne_bytes()));
        assert!(Replies::<RouteNetlinkMessage>::default().take_in(&datagram, 7).expect("acknowledged"));
    }

    #[test]
    fn a_disturbed_dump_is_noticed() {
        let mut replies = Replies::<RouteNetlinkMessage>::default();
        assert!(replies.take_in(&message(3, NLM_F_DUMP_INTR, 1, &0i32.to_ne_bytes()), 1).expect("done"));
        assert!(replies.disturbed);
    }

    #[test]
    fn an_unreadable_message_does_not_hide_the_next() {
        // RTM_NEWLINK whose header is missing, then RTM_NEWADDR that is whole.
        let mut datagram = message(16, 2, 1, &[]);
        datagram.extend(message(20, 2, 1, &[2, 24, 0, 0, 1, 0, 0, 0]));
        let mut replies = Replies::<RouteNetlinkMessage>::default();
        assert!(!replies.take_in(&datagram, 1).expect("readable"));
        assert!(matches!(replies.messages.as_slice(), [RouteNetlinkMessage::NewAddress(_)]));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
            let _ = Replies::<RouteNetlinkMessage>::default().take_in(&bytes, 0);
            let _ = read_all(&bytes, &mut Vec::new());
        }

        #[test]
        fn arbitrary_payloads_never_panic(
            kind in 16u16..32,
            payload in proptest::collection::vec(proptest::num::u8::ANY, 0..128),
        ) {
            let _ = Replies::<RouteNetlinkMessage>::default().take_in(&message(kind, 0, 0, &payload), 0);
        }
    }
}
