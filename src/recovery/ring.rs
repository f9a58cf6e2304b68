//! A ring buffer for a window of a stream's bytes, by offset: sent and not acknowledged, or
//! received and not read.
//!
//! Data begins at offset 1, so data written in round sizes fills the ring without a remainder. The
//! user's bytes are read straight into the ring, and frames point into it: between a file and the
//! packet socket nothing is copied in user space.

/// A ring buffer of stream bytes.
pub(super) struct Ring {
    bytes: Box<[u8]>,
    /// The offset at the front of the ring, and of every `capacity` bytes after that.
    base: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Ring { bytes: Box::default(), base: 1 }
    }
}

impl Ring {
    /// Returns the size of the ring, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Grows to `capacity` bytes; keeps the bytes from `start` to `end`. The kernel allocates new
    /// pages on first use.
    pub(crate) fn grow(&mut self, capacity: u64, start: u64, end: u64) {
        if capacity <= self.capacity() {
            return;
        }
        let mut grown = Ring { bytes: vec![0; capacity as usize].into_boxed_slice(), base: self.base };
        let (front, tail) = self.slices(start, end);
        grown.put(start, start, front);
        grown.put(start, start + front.len() as u64, tail);
        *self = grown;
    }

    /// Copies `bytes` to offset `at`, while the bytes from `start` on are in use; drops bytes
    /// without room.
    pub(crate) fn put(&mut self, start: u64, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.vacant(start, at);
            let len = bytes.len().min(room.len());
            if len == 0 {
                return;
            }
            let (piece, rest) = bytes.split_at(len);
            room[..len].copy_from_slice(piece);
            at += len as u64;
            bytes = rest;
        }
    }

    /// Empties the ring; offset `at` is next, and lies at the front, where the CPU's cache is warm.
    pub(crate) fn restart(&mut self, at: u64) {
        self.base = at;
    }

    /// Empties the ring and frees its memory; offset `at` is next.
    pub(crate) fn release(&mut self, at: u64) {
        *self = Ring { bytes: Box::default(), base: at };
    }

    /// Returns the contiguous free room from offset `end` on, while the bytes from `start` on are
    /// in use.
    pub(crate) fn vacant(&mut self, start: u64, end: u64) -> &mut [u8] {
        let free = self.capacity().saturating_sub(end - start) as usize;
        let position = self.position(end);
        let len = free.min(self.bytes.len() - position);
        &mut self.bytes[position..position + len]
    }

    /// Returns the bytes from `start` to `end`, in two pieces where they cross the ring's end.
    pub(crate) fn slices(&self, start: u64, end: u64) -> (&[u8], &[u8]) {
        let len = end.saturating_sub(start).min(self.capacity()) as usize;
        let (front, tail) = self.bytes.split_at(self.position(start));
        if len <= tail.len() { (&tail[..len], &[]) } else { (tail, &front[..len - tail.len()]) }
    }

    fn position(&self, at: u64) -> usize {
        at.saturating_sub(self.base).checked_rem(self.capacity()).unwrap_or(0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(ring: &mut Ring, start: u64, at: &mut u64, len: u64) {
        let end = *at + len;
        while *at < end {
            let room = ring.vacant(start, *at);
            let len = room.len().min((end - *at) as usize);
            assert!(len > 0, "there is room");
            for (n, byte) in room[..len].iter_mut().enumerate() {
                *byte = ((*at + n as u64) % 251) as u8;
            }
            *at += len as u64;
        }
    }

    fn assert_stream(ring: &Ring, start: u64, end: u64) {
        let (front, tail) = ring.slices(start, end);
        assert_eq!((front.len() + tail.len()) as u64, end - start);
        for (n, byte) in front.iter().chain(tail).enumerate() {
            assert_eq!(*byte, ((start + n as u64) % 251) as u8, "byte {n} after {start}");
        }
    }

    #[test]
    fn bytes_survive_the_crossing_and_the_growth() {
        let mut ring = Ring::default();
        assert!(ring.vacant(1, 1).is_empty());
        ring.grow(1000, 1, 1);
        let (mut start, mut end) = (1, 1);
        for round in 0..50 {
            append(&mut ring, start, &mut end, 700);
            assert_stream(&ring, start, end);
            start = end - 300;
            if round % 10 == 9 {
                ring.grow(ring.capacity() + 777, start, end);
                assert_stream(&ring, start, end);
            }
        }
    }

    #[test]
    fn what_is_put_in_any_order_is_one_stream() {
        let mut ring = Ring::default();
        ring.restart(95);
        ring.grow(100, 95, 95);
        ring.put(95, 150, b"world, and more");
        ring.put(95, 143, b"hello, ");
        assert_eq!(ring.slices(143, 165), (&b"hello, world, and more"[..], &b""[..]));
        ring.put(150, 190, &[7; 60]);
        assert_eq!(ring.slices(190, 250), (&[7; 5][..], &[7; 55][..]));
        ring.put(150, 240, &[8; 60]);
        assert_eq!(ring.slices(150, 155).0, b"world", "nothing in use is overwritten");
    }

    #[test]
    fn what_is_in_use_is_not_vacant() {
        let mut ring = Ring::default();
        ring.grow(10, 0, 0);
        assert_eq!(ring.vacant(1, 1).len(), 10);
        assert_eq!(ring.vacant(1, 8).len(), 3);
        assert_eq!(ring.vacant(6, 11).len(), 5);
        assert_eq!(ring.vacant(6, 16).len(), 0);
    }
}
