//! What has arrived and waits for its reader.
use std::{collections::VecDeque, net::SocketAddr};

/// A datagram that waits for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub from: SocketAddr,
    pub payload: &'a [u8],
}

/// Datagrams in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Where the next datagram begins.
    start: usize,
    /// Senders and lengths.
    datagrams: VecDeque<(SocketAddr, usize)>,
}

impl Inbox {
    pub fn push(&mut self, from: SocketAddr, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.datagrams.push_back((from, payload.len()));
    }

    pub fn front(&self) -> Option<Datagram<'_>> {
        let (from, len) = *self.datagrams.front()?;
        Some(Datagram { from, payload: self.bytes.get(self.start..self.start + len)? })
    }

    /// All of it, as one piece.
    pub fn all(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Forgets `written` bytes from the front; what is left of a datagram of which a part is forgotten is one.
    pub fn forget(&mut self, mut written: usize) {
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

    pub fn pop(&mut self) {
        if let Some((_, len)) = self.datagrams.pop_front() {
            self.start += len;
        }
        if self.datagrams.is_empty() {
            self.start = 0;
            self.bytes.clear();
        }
    }
}
