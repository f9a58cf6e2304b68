//! From the user: bytes straight into the ring, which grows with the path.
//!
//! A small buffer stays in the processor's cache, where a byte that was read from a file and goes to the packet
//! socket at once costs least, and neither do the queues that it fills; a large one is needed only where the path is
//! long. So it begins small and grows with the bandwidth-delay product, as the kernel's does (tcp(7),
//! tcp_moderate_sndbuf), and with what the peer holds beyond a hole: until the hole is filled, that occupies the
//! buffer and no longer the path.
use super::Recovery;
use std::time::Duration;

/// What a buffer begins with, in bytes: enough for a LAN.
const INITIAL: u64 = 512 << 10;
/// What the ring begins with, in bytes.
const SMALL: u64 = 16 << 10;
/// So many bandwidth-delay products are wanted: one in flight, and as much again, so that a slow start can double it.
const PRODUCTS: u64 = 2;
/// And so many while losses are repaired: as much again for each round trip that this takes.
const PRODUCTS_IN_RECOVERY: u64 = 4;

/// How large the buffer may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    wanted: u64,
    limit: u64,
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        let limit = limit as u64;
        Budget { wanted: limit.min(INITIAL), limit }
    }

    /// The path delivers `rate` bytes a second and has a round trip of `rtt`, queues aside.
    pub fn note(&mut self, rate: u64, rtt: Duration, in_recovery: bool) {
        let product = u128::from(rate) * rtt.as_nanos() / 1_000_000_000;
        let products = if in_recovery { PRODUCTS_IN_RECOVERY } else { PRODUCTS };
        self.want(u64::try_from(product).unwrap_or(u64::MAX).saturating_mul(products));
    }

    /// The peer has SACKed so many bytes. If what is sent again is lost, too, only new data behind it can tell soon:
    /// room must be left for it (RFC 8985, section 6.2).
    pub fn note_sacked(&mut self, bytes: u64) {
        self.want(bytes.saturating_mul(2).saturating_add(INITIAL));
    }

    fn want(&mut self, bytes: u64) {
        self.wanted = self.wanted.max(bytes).min(self.limit);
    }

    pub fn bytes(&self) -> u64 {
        self.wanted
    }

    /// The ring to hold that. It doubles, so that a budget which rises little by little does not have it copied each
    /// time.
    fn ring(&self) -> u64 {
        self.wanted.next_power_of_two().min(self.limit)
    }
}

impl Recovery {
    /// Bytes that [`Recovery::write`] takes now.
    pub fn room(&self) -> usize {
        let open = self.established && !self.aborted && self.space.fin.is_none();
        let free = self.budget.bytes().saturating_sub(self.space.outstanding());
        if open { free as usize } else { 0 }
    }

    /// Lets `fill` write into a contiguous part of the free buffer, at most `limit` bytes; it returns how much it
    /// wrote. If that was all it could, more is expected to follow at once: an incomplete super-frame waits for it
    /// while anything is in flight (send(2), MSG_MORE).
    ///
    /// # Errors
    /// `fill`'s.
    pub fn write<E>(
        &mut self,
        limit: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let limit = limit.min(self.room());
        let (start, end) = (self.space.una, self.space.end);
        let (capacity, budget) = (self.ring.capacity(), self.budget.bytes());
        // Many connections send little: only one that has filled a small ring gets a large one.
        if capacity == 0 || end - start >= capacity.min(budget) / 2 {
            let wanted = if capacity == 0 { SMALL.min(budget) } else { self.budget.ring() };
            self.ring.grow(wanted, start, end);
        }
        let vacant = self.ring.vacant(start, end);
        let len = limit.min(vacant.len());
        self.more = false;
        let written = fill(&mut vacant[..len])?.min(len);
        self.more = written == len;
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
        assert_eq!((budget.bytes(), budget.ring()), (5_000_000, 8 << 20));
        budget.note(125_000_000, Duration::from_millis(20), true);
        assert_eq!(budget.bytes(), 10_000_000);
        budget.note(1, Duration::from_millis(20), false);
        assert_eq!(budget.bytes(), 10_000_000, "it never shrinks");
        budget.note_sacked(6 << 20);
        assert_eq!(budget.bytes(), INITIAL + (12 << 20));
        budget.note(u64::MAX, Duration::from_secs(9), false);
        assert_eq!((budget.bytes(), budget.ring()), (16 << 20, 16 << 20));
        assert_eq!(Budget::new(4096).bytes(), 4096);
    }
}
