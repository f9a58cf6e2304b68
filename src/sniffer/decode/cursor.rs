//! A place in a frame, and how far it may be read.
use std::ops::Range;

use super::Problem;

/// Walks a frame's headers. Positions count from the frame's first byte.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// The frame's first bytes: all that were captured, or as many as were joined.
    bytes: &'a [u8],
    captured: usize,
    at: usize,
    /// Where the frame ends on the wire, or earlier, where an enclosing length field says so.
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], captured: usize, length: usize) -> Self {
        Cursor { bytes, captured, at: 0, end: length }
    }

    /// The next `need` bytes, which stay unread: the caller [`skip`](Self::skip)s what the header turns out to be.
    pub(super) fn peek(&self, header: &'static str, need: usize) -> Result<&'a [u8], Problem> {
        let have = self.remaining();
        if need > have {
            return Err(Problem::Short { header, need, have });
        }
        self.bytes.get(self.at..).and_then(|rest| rest.get(..need)).ok_or(Problem::NotCaptured {
            header,
            need,
            have: self.bytes.len().saturating_sub(self.at),
        })
    }

    /// Of the next `need` bytes those that are there.
    pub(super) fn available(&self, need: usize) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.get(..need.min(self.remaining())).unwrap_or(rest)
    }

    /// A header of `need` bytes as one of pnet_packet's types, whose getters then stay within bounds; unread, as above.
    pub(super) fn packet<P>(
        &self,
        header: &'static str,
        need: usize,
        new: fn(&'a [u8]) -> Option<P>,
    ) -> Result<P, Problem> {
        let bytes = self.peek(header, need)?;
        new(bytes).ok_or(Problem::Short { header, need, have: bytes.len() })
    }

    /// Goes on by `bytes`, at most to the end.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.end);
    }

    /// Reads a header of a known size.
    pub(super) fn take(&mut self, header: &'static str, need: usize) -> Result<&'a [u8], Problem> {
        let bytes = self.peek(header, need)?;
        self.skip(need);
        Ok(bytes)
    }

    /// Bytes from here to the end, on the wire.
    pub(super) fn remaining(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// Ends the frame `length` bytes from here, if it does not end before.
    pub(super) fn narrow(&mut self, length: usize) {
        self.end = self.end.min(self.at.saturating_add(length));
    }

    /// Where the rest lies, as far as it was captured.
    pub(super) fn rest(&self) -> Range<usize> {
        let end = self.end.min(self.captured);
        self.at.min(end)..end
    }
}
