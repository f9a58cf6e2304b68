//! The one copy of every unacknowledged byte.
//!
//! Stream offset `n` lies at `n % capacity`. The stack writes a whole packet, headers and payload, straight into
//! the ring so that its payload lands where it belongs; what the headers overwrote is put back. A packet that
//! crosses the end is written into the slack behind it, and what crossed is copied to the front.

/// Room before the ring for the headers of the stack's packet.
const HEADROOM: usize = 128;
/// Room behind the ring for one packet of the largest size (IPv4's total length is 16 bits).
const SLACK: usize = 1 << 16;

pub(super) struct Ring {
    bytes: Box<[u8]>,
    capacity: usize,
}

/// Headers of a packet that the stack wrote: the first [`Written::CAPACITY`] bytes of it.
pub(super) struct Written {
    pub headers: [u8; Written::CAPACITY],
    pub len: usize,
}

impl Written {
    /// An IPv4 header without options and the longest TCP header.
    pub const CAPACITY: usize = 80;

    pub fn headers(&self) -> &[u8] {
        &self.headers[..self.len.min(Written::CAPACITY)]
    }
}

impl Ring {
    /// A ring for `capacity` bytes, at least one super-frame; it takes no memory yet.
    pub fn new(capacity: usize) -> Self {
        Ring { bytes: Box::default(), capacity: capacity.max(SLACK) }
    }

    /// Takes the memory. The kernel gives its pages on first use.
    pub fn allocate(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; HEADROOM + self.capacity + SLACK].into_boxed_slice();
        }
    }

    pub fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// Lets `write` fill a packet of `len` bytes, of which the first `headers` are not payload, so that its
    /// payload begins at stream offset `at`. The payload counts only once [`Ring::commit`] was called.
    ///
    /// `headers` may be at most [`Written::CAPACITY`] and `len` at most 64 KiB and `headers`.
    pub fn write<R>(
        &mut self,
        at: u64,
        headers: usize,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> R,
    ) -> (R, Written) {
        let payload = HEADROOM + self.position(at);
        let start = payload - headers;
        let mut overwritten = [0; Written::CAPACITY];
        overwritten[..headers].copy_from_slice(&self.bytes[start..payload]);
        let result = write(&mut self.bytes[start..start + len]);
        let mut written = Written { headers: [0; Written::CAPACITY], len };
        let head = len.min(Written::CAPACITY);
        written.headers[..head].copy_from_slice(&self.bytes[start..start + head]);
        self.bytes[start..payload].copy_from_slice(&overwritten[..headers]);
        (result, written)
    }

    /// Makes `len` bytes of what was written at `at` part of the stream, without its first `skip`.
    pub fn commit(&mut self, at: u64, skip: usize, len: usize) {
        let position = self.position(at);
        let start = HEADROOM + position;
        if skip > 0 {
            self.bytes.copy_within(start + skip..start + skip + len, start);
        }
        let crossed = (position + len).saturating_sub(self.capacity);
        let end = HEADROOM + self.capacity;
        self.bytes.copy_within(end..end + crossed, HEADROOM);
    }

    /// The bytes from `start` to `end`, in two pieces where they cross the ring's end.
    pub fn slices(&self, start: u64, end: u64) -> (&[u8], &[u8]) {
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0).min(self.capacity);
        let ring = &self.bytes[HEADROOM..HEADROOM + self.capacity];
        let (front, tail) = ring.split_at(self.position(start));
        if len <= tail.len() { (&tail[..len], &[]) } else { (tail, &front[..len - tail.len()]) }
    }

    fn position(&self, at: u64) -> usize {
        (at % self.capacity as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes as the stack does: headers of 0xee, then the payload.
    fn append(ring: &mut Ring, at: u64, payload: &[u8]) {
        let headers = 52;
        let ((), written) = ring.write(at, headers, headers + payload.len(), |packet| {
            packet[..headers].fill(0xee);
            packet[headers..].copy_from_slice(payload);
        });
        assert!(written.headers()[..headers].iter().all(|byte| *byte == 0xee));
        ring.commit(at, 0, payload.len());
    }

    #[test]
    fn bytes_survive_headers_and_the_crossing() {
        let mut ring = Ring::new(100_000);
        ring.allocate();
        let chunk: Vec<u8> = (0..30_000u32).map(|n| (n % 251) as u8).collect();
        for round in 0..20u64 {
            let at = round * 30_000;
            append(&mut ring, at, &chunk);
            let oldest = at.saturating_sub(60_000);
            let (front, tail) = ring.slices(oldest, at + 30_000);
            let stream: Vec<u8> = front.iter().chain(tail).copied().collect();
            for (n, byte) in stream.iter().enumerate() {
                assert_eq!(*byte, chunk[(oldest as usize + n) % 30_000], "round {round}, byte {n}");
            }
        }
    }

    #[test]
    fn an_overlap_is_skipped() {
        let mut ring = Ring::new(70_000);
        ring.allocate();
        append(&mut ring, 0, b"abc");
        let ((), _) = ring.write(3, 40, 45, |packet| packet[40..].copy_from_slice(b"bcdef"));
        ring.commit(3, 2, 3);
        assert_eq!(ring.slices(0, 6).0, b"abcdef");
    }
}
