//! What the buffers of all connections occupy together, and how much of the rest one of them may still take.
//!
//! The kernel has net.ipv4.tcp_mem for this: above its second value windows shrink (net/ipv4/tcp_output.c,
//! __tcp_select_window(); net/ipv4/tcp_input.c, tcp_clamp_window()), above its third data that came is dropped
//! (tcp_try_rmem_schedule()). Here a window counts from the moment it is promised, not from the moment it is filled, so
//! nothing that a peer was allowed to send ever has to be dropped. And there is no threshold: a connection may have a
//! quarter of what others have left (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
//! switches", 1998). One connection that has the pool for itself never notices; a hundred greedy ones share it evenly,
//! and some of it is always left for the next.
use std::{cell::Cell, rc::Rc};

/// A connection may take what others have left divided by this, in each direction.
const SHARE: u64 = 4;
/// The pool's part, one in so many, that is left to those who have to make do with the minimum.
const RESERVE: u64 = 8;

/// A limit in bytes that connections share. A clone is the same pool.
#[derive(Clone, Debug)]
pub struct MemoryPool(Rc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: u64,
    used: Cell<u64>,
}

impl MemoryPool {
    /// A pool of `limit` bytes.
    pub fn new(limit: u64) -> MemoryPool {
        MemoryPool(Rc::new(Pool { limit, used: Cell::new(0) }))
    }

    /// A pool that is never short, for a connection of which there is only one.
    pub fn unlimited() -> MemoryPool {
        MemoryPool::new(u64::MAX)
    }

    /// What all connections have taken, in bytes. Their minima may bring it above the limit.
    pub fn used(&self) -> u64 {
        self.0.used.get()
    }

    /// More than half is taken: what idle connections do not need is worth collecting.
    pub fn is_under_pressure(&self) -> bool {
        self.used() > self.0.limit / 2
    }

    /// Nothing is left, not even for the minimum of another connection.
    pub fn is_exhausted(&self) -> bool {
        self.used() >= self.0.limit
    }

    /// An account without any bytes.
    pub(super) fn charge(&self) -> Charge {
        Charge { pool: self.clone(), bytes: 0 }
    }
}

/// What one direction of a connection has taken from its pool. Dropped, it gives all of it back.
#[derive(Debug)]
pub(super) struct Charge {
    pool: MemoryPool,
    bytes: u64,
}

impl Charge {
    /// Takes or gives back what `bytes` differs from before.
    pub fn set(&mut self, bytes: u64) {
        let used = &self.pool.0.used;
        used.set(used.get().saturating_sub(self.bytes).saturating_add(bytes));
        self.bytes = bytes;
    }

    /// What may be taken in all, in bytes, for now: a part of what others have left.
    pub fn share(&self) -> u64 {
        let Pool { limit, used } = &*self.pool.0;
        let others = used.get().saturating_sub(self.bytes);
        (limit - limit / RESERVE).saturating_sub(others) / SHARE
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_taken_is_given_back() {
        let pool = MemoryPool::new(8 * MIB);
        let (mut one, mut other) = (pool.charge(), pool.charge());
        assert_eq!((one.share(), pool.is_under_pressure(), pool.is_exhausted()), (7 * MIB / 4, false, false));
        one.set(3 * MIB);
        other.set(2 * MIB);
        assert_eq!((one.share(), other.share(), pool.is_under_pressure()), (5 * MIB / 4, MIB, true));
        one.set(6 * MIB);
        assert_eq!((pool.used(), one.share(), pool.is_exhausted()), (8 * MIB, 5 * MIB / 4, true));
        other.set(9 * MIB);
        assert_eq!((one.share(), other.share()), (0, MIB / 4));
        other.set(0);
        drop(one);
        assert_eq!((pool.used(), other.share()), (0, 7 * MIB / 4));
    }

    #[test]
    fn greedy_connections_leave_something_for_the_next() {
        let pool = MemoryPool::new(32 * MIB);
        let mut charges = Vec::new();
        for _ in 0..100 {
            charges.push(pool.charge());
            // Each takes what it may, again and again.
            for charge in &mut charges {
                charge.set(charge.share().clamp(32 << 10, 4 * MIB));
            }
            assert!(
                charges.len() > 4 || charges.iter().all(|charge| charge.bytes == 4 * MIB),
                "few are free"
            );
            assert!(!pool.is_exhausted(), "{}", pool.used());
        }
        let sizes: Vec<_> = charges.iter().map(|charge| charge.bytes >> 10).collect();
        assert!(sizes.iter().all(|size| (150..500).contains(size)), "{sizes:?}");
    }

    #[test]
    fn who_is_alone_has_no_limit() {
        let pool = MemoryPool::unlimited();
        let mut charge = pool.charge();
        charge.set(u64::MAX / 2);
        assert!(charge.share() > 1 << 60 && !pool.is_exhausted());
    }
}
