//! The send buffer: the user's bytes, written straight into a ring that grows with the path.
//!
//! A small buffer stays in the CPU's cache, where a byte on its way from a file to the packet
//! socket costs least, and fills only short queues. Only a long path needs a large one. So the
//! buffer begins small and grows with the bandwidth-delay product, as the kernel's does (tcp(7),
//! tcp_moderate_sndbuf). It also grows with the data that the peer holds beyond a hole, which
//! occupies the buffer and no longer the path.
use super::{MemoryPool, memory_pool::Charge, ring::Ring, scoreboard, sender::Sender};
use std::time::Duration;

/// Initial size of the buffer, in bytes: enough for a LAN.
const INITIAL: u64 = 512 << 10;
/// Initial size of the ring, in bytes.
const SMALL: u64 = 16 << 10;
/// Memory of a connection that has sent nothing yet: its state here and in the stack, in bytes.
const CONNECTION: u64 = 8 << 10;
/// Wanted size, in bandwidth-delay products: one in flight, and another for slow start to double
/// it.
const PRODUCTS: u64 = 2;
/// Wanted size during loss repair, in bandwidth-delay products: one more for each round trip of the
/// repair.
const PRODUCTS_IN_RECOVERY: u64 = 4;

/// The size that the buffer may have, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    wanted: u64,
    limit: u64,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit as u64;
        Budget { wanted: limit.min(INITIAL), limit }
    }

    /// Records that the path delivers `rate` bytes a second and has a round trip of `rtt`, without
    /// queues.
    pub(crate) fn note(&mut self, rate: u64, rtt: Duration, in_recovery: bool) {
        let product = u128::from(rate) * rtt.as_nanos() / 1_000_000_000;
        let products = if in_recovery { PRODUCTS_IN_RECOVERY } else { PRODUCTS };
        self.want(u64::try_from(product).unwrap_or(u64::MAX).saturating_mul(products));
    }

    /// Records how many bytes the peer has SACKed. If a retransmission is lost, too, only new data
    /// behind it reveals that early, so there must be room for it (RFC 8985, section 6.2).
    pub(crate) fn note_sacked(&mut self, bytes: u64) {
        self.want(bytes.saturating_mul(2).saturating_add(INITIAL));
    }

    fn want(&mut self, bytes: u64) {
        self.wanted = self.wanted.max(bytes).min(self.limit);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.wanted
    }

    /// Returns the size of a ring for `bytes`. Sizes double, so that a slowly rising budget does
    /// not copy the ring each time.
    fn ring(&self, bytes: u64) -> u64 {
        bytes.next_power_of_two().min(self.limit)
    }
}

/// The user's bytes that the peer has not acknowledged.
pub(super) struct SendBuffer {
    pub ring: Ring,
    pub budget: Budget,
    /// The account for the bytes and their records.
    pub charge: Charge,
    /// The user is about to write more.
    pub more: bool,
}

impl SendBuffer {
    /// Returns an empty buffer that grows up to `limit` bytes, taken from `pool`.
    pub(crate) fn new(limit: usize, pool: &MemoryPool) -> SendBuffer {
        SendBuffer { ring: Ring::default(), budget: Budget::new(limit), charge: pool.charge(), more: false }
    }
}

impl Sender {
    /// Returns the bytes that [`Sender::write`] accepts now.
    pub(crate) fn room(&self) -> usize {
        let free = self.buffer_size().saturating_sub(self.space.outstanding());
        if self.space.fin.is_none() { free as usize } else { 0 }
    }

    /// Returns the size that the path needs, as far as our share of the memory pool allows it or
    /// memory is allocated already (as with tcp_memory_allocated in net/ipv4/tcp_input.c,
    /// tcp_should_expand_sndbuf()).
    fn buffer_size(&self) -> u64 {
        let allowed = self.buffer.charge.share().max(SMALL).max(self.buffer.ring.capacity());
        self.buffer.budget.bytes().min(allowed)
    }

    /// Charges the memory pool, and limits splitting by SACK to the memory left there.
    pub(crate) fn charge_pool(&mut self) {
        let record = scoreboard::RECORD_COST;
        self.buffer.charge.set(CONNECTION + self.buffer.ring.capacity() + self.board.len() as u64 * record);
        self.board.limit_cuts(self.buffer.charge.share() / record);
    }

    /// Frees memory that is allocated and unused.
    pub(crate) fn reclaim(&mut self) {
        if self.space.outstanding() == 0 {
            self.buffer.ring.release(self.space.end);
        }
        self.board.reclaim();
        self.charge_pool();
    }

    /// Writes as [`Recovery::write`](super::Recovery::write) does, for a `limit` that
    /// [`Sender::room`] admits.
    ///
    /// # Errors
    /// Fails when `fill` does.
    pub(crate) fn write<E>(
        &mut self,
        limit: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let (start, end) = (self.space.una, self.space.end);
        let (capacity, budget) = (self.buffer.ring.capacity(), self.buffer_size());
        // Many connections send little, so only a connection that has half filled a small ring gets
        // a large one.
        if capacity == 0 || end - start >= capacity.min(budget) / 2 {
            let wanted = if capacity == 0 { SMALL.min(budget) } else { self.buffer.budget.ring(budget) };
            if wanted > capacity {
                self.buffer.ring.grow(wanted, start, end);
                self.charge_pool();
            }
        }
        let vacant = self.buffer.ring.vacant(start, end);
        let len = limit.min(vacant.len());
        self.buffer.more = false;
        let written = fill(&mut vacant[..len])?.min(len);
        self.buffer.more = written == len;
        self.space.end += written as u64;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_path_up_to_its_limit() {
        let mut budget = Budget::new(16 << 20);
        assert_eq!(budget.bytes(), INITIAL);
        budget.note(1_000_000_000, Duration::from_micros(50), false);
        assert_eq!(budget.bytes(), INITIAL, "that is enough");
        budget.note(125_000_000, Duration::from_millis(20), false);
        assert_eq!((budget.bytes(), budget.ring(5_000_000)), (5_000_000, 8 << 20));
        budget.note(125_000_000, Duration::from_millis(20), true);
        assert_eq!(budget.bytes(), 10_000_000);
        budget.note(1, Duration::from_millis(20), false);
        assert_eq!(budget.bytes(), 10_000_000, "it never shrinks");
        budget.note_sacked(6 << 20);
        assert_eq!(budget.bytes(), INITIAL + (12 << 20));
        budget.note(u64::MAX, Duration::from_secs(9), false);
        assert_eq!((budget.bytes(), budget.ring(budget.bytes())), (16 << 20, 16 << 20));
        assert_eq!(Budget::new(4096).bytes(), 4096);
    }
}
