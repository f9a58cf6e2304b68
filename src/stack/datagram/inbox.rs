//! Received datagrams that wait for the user.
use std::{collections::VecDeque, net::SocketAddr};

/// A received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// The payload, which may be empty.
    pub payload: &'a [u8],
}

/// Received datagrams in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Offset of the next datagram in `bytes`.
    start: usize,
    /// Sender and remaining length of each datagram.
    datagrams: VecDeque<(SocketAddr, usize)>,
}

impl Inbox {
    /// Appends a datagram.
    pub(crate) fn push(&mut self, from: SocketAddr, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.datagrams.push_back((from, payload.len()));
    }

    /// Returns the oldest datagram.
    pub(crate) fn front(&self) -> Option<Datagram<'_>> {
        let (from, len) = *self.datagrams.front()?;
        Some(Datagram { from, payload: self.bytes.get(self.start..self.start + len)? })
    }

    /// Returns the payloads of all datagrams as one piece.
    pub(crate) fn all(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Drops `written` bytes from the front. The rest of a datagram that was dropped in part stays
    /// a datagram.
    pub(crate) fn forget(&mut self, mut written: usize) {
        while let Some((_, len)) = self.datagrams.front_mut() {
            if written < *len {
                *len -= written;
                self.start += written;
                return;
            }
            written -= *len;
            self.pop();
        }
    }

    /// Drops the oldest datagram.
    pub(crate) fn pop(&mut self) {
        if let Some((_, len)) = self.datagrams.pop_front() {
            self.start += len;
        }
        if self.datagrams.is_empty() {
            self.start = 0;
            self.bytes.clear();
        }
    }
}
