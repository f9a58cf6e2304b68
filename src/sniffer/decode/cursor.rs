//! A cursor that keeps reads within the frame, the capture and the enclosing header's length.
use std::ops::Range;

use super::problem::Problem;

/// A cursor over a frame's headers. Positions count from the frame's first byte.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// The frame's first bytes: all captured ones, or those that were joined.
    bytes: &'a [u8],
    captured: usize,
    position: usize,
    /// The end of the frame on the wire, or an earlier one by an enclosing length field.
    end: usize,
    /// The packet goes on in other fragments, so its length fields may go beyond the end.
    fragment: bool,
}

impl<'a> Cursor<'a> {
    /// Returns a cursor at the start of a frame of `length` bytes on the wire, `captured` of which were
    /// captured.
    pub(super) fn new(bytes: &'a [u8], captured: usize, length: usize) -> Self {
        Cursor { bytes, captured, position: 0, end: length, fragment: false }
    }

    /// Returns the next `need` bytes and leaves them unread.
    ///
    /// # Errors
    /// [`Problem::Short`] past the cursor's end, [`Problem::NotCaptured`] past the captured bytes.
    pub(super) fn peek(&self, header: &'static str, need: usize) -> Result<&'a [u8], Problem> {
        let have = self.remaining();
        if need > have {
            return Err(Problem::Short { header, need, have });
        }
        self.unread().get(..need).ok_or(Problem::NotCaptured { header, need, have: self.unread().len() })
    }

    /// Returns the next `need` bytes, or fewer at the end, and leaves them unread.
    pub(super) fn peek_available(&self, need: usize) -> &'a [u8] {
        let unread = self.unread();
        unread.get(..need.min(self.remaining())).unwrap_or(unread)
    }

    /// Returns a header of `need` bytes as one of pnet_packet's types, and leaves it unread.
    ///
    /// # Errors
    /// As for [`Cursor::peek`].
    pub(super) fn peek_packet<P>(
        &self,
        header: &'static str,
        need: usize,
        new: fn(&'a [u8]) -> Option<P>,
    ) -> Result<P, Problem> {
        let bytes = self.peek(header, need)?;
        new(bytes).ok_or(Problem::Short { header, need, have: bytes.len() })
    }

    /// Reads a header of `need` bytes.
    ///
    /// # Errors
    /// As for [`Cursor::peek`]; the header stays unread.
    pub(super) fn take(&mut self, header: &'static str, need: usize) -> Result<&'a [u8], Problem> {
        let bytes = self.peek(header, need)?;
        self.skip(need);
        Ok(bytes)
    }

    /// Reads a header of `need` bytes as one of pnet_packet's types.
    ///
    /// # Errors
    /// As for [`Cursor::peek`]; the header stays unread.
    pub(super) fn take_packet<P>(
        &mut self,
        header: &'static str,
        need: usize,
        new: fn(&'a [u8]) -> Option<P>,
    ) -> Result<P, Problem> {
        let packet = self.peek_packet(header, need, new)?;
        self.skip(need);
        Ok(packet)
    }

    /// Reads the next `N` bytes.
    ///
    /// # Errors
    /// As for [`Cursor::peek`]; the bytes stay unread.
    pub(super) fn take_array<const N: usize>(&mut self, header: &'static str) -> Result<[u8; N], Problem> {
        let bytes = self.peek_array(header)?;
        self.skip(N);
        Ok(bytes)
    }

    /// Returns the next `N` bytes and leaves them unread.
    ///
    /// # Errors
    /// As for [`Cursor::peek`].
    pub(super) fn peek_array<const N: usize>(&self, header: &'static str) -> Result<[u8; N], Problem> {
        let bytes = self.peek(header, N)?;
        bytes.first_chunk().copied().ok_or(Problem::Short { header, need: N, have: bytes.len() })
    }

    /// Notes that the packet goes on in other fragments.
    pub(super) fn mark_fragment(&mut self) {
        self.fragment = true;
    }

    /// Returns whether the packet, or the one around it, goes on in other fragments.
    pub(super) fn is_fragment(&self) -> bool {
        self.fragment
    }

    /// Advances by `bytes`, at most to the end.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.position = self.position.saturating_add(bytes).min(self.end);
    }

    /// Returns the number of bytes on the wire from here to the end.
    pub(super) fn remaining(&self) -> usize {
        self.end.saturating_sub(self.position)
    }

    /// Moves the end to `length` bytes from here unless it is nearer already.
    pub(super) fn narrow(&mut self, length: usize) {
        self.end = self.end.min(self.position.saturating_add(length));
    }

    /// Returns the position of the captured bytes from here to the end.
    pub(super) fn rest(&self) -> Range<usize> {
        let end = self.end.min(self.captured);
        self.position.min(end)..end
    }

    fn unread(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }
}
