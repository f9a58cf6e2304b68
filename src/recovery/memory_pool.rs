//! The memory that the buffers of all connections share, and each connection's part of the rest.
//!
//! The kernel has net.ipv4.tcp_mem for this. Above its second value windows shrink
//! (net/ipv4/tcp_output.c, __tcp_select_window(); net/ipv4/tcp_input.c, tcp_clamp_window()). Above
//! its third, the kernel drops received data (tcp_try_rmem_schedule()).
//!
//! Here a window counts from its announcement on, not from its use, so data that the peer was
//! allowed to send is never dropped. Instead of a threshold, a connection may have a quarter of
//! what the others have left (Choudhury and Hahne, "Dynamic queue length thresholds for
//! shared-memory packet switches", 1998). A single connection never notices the limit. A hundred
//! greedy ones share the pool evenly, and some of it is always left for the next.
use std::{cell::Cell, rc::Rc};

/// Divisor of the free memory: each direction of a connection may take this part of it.
const SHARE: u64 = 4;
/// Divisor of the pool: this part stays free for connections at their minimum.
const RESERVE: u64 = 8;

/// A limit in bytes that connections share. Clones share one pool.
#[derive(Clone, Debug)]
pub struct MemoryPool(Rc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: u64,
    used: Cell<u64>,
}

impl MemoryPool {
    /// Returns a pool of `limit` bytes.
    pub fn new(limit: u64) -> MemoryPool {
        MemoryPool(Rc::new(Pool { limit, used: Cell::new(0) }))
    }

    /// Returns a pool without a limit, for a single connection.
    pub fn unlimited() -> MemoryPool {
        MemoryPool::new(u64::MAX)
    }

    /// Returns the bytes that all connections have taken. Their minima may exceed the limit.
    pub fn used(&self) -> u64 {
        self.0.used.get()
    }

    /// Returns whether more than half of the pool is taken: unused memory of idle connections is
    /// worth reclaiming.
    pub(crate) fn is_under_pressure(&self) -> bool {
        self.used() > self.0.limit / 2
    }

    /// Returns whether the pool is used up, so that it lacks even the minimum of another
    /// connection.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.used() >= self.0.limit
    }

    /// Returns an account without any bytes.
    pub(super) fn charge(&self) -> Charge {
        Charge { pool: self.clone(), bytes: 0 }
    }
}

/// The bytes that one direction of a connection has taken from its pool. Dropping it returns them.
#[derive(Debug)]
pub(super) struct Charge {
    pool: MemoryPool,
    bytes: u64,
}

impl Charge {
    /// Changes the account to `bytes`.
    pub(crate) fn set(&mut self, bytes: u64) {
        let used = &self.pool.0.used;
        used.set(used.get().saturating_sub(self.bytes).saturating_add(bytes));
        self.bytes = bytes;
    }

    /// Returns the total that this account may hold now, in bytes: a part of what the others have
    /// left.
    pub(crate) fn share(&self) -> u64 {
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
            // Each takes its share, repeatedly.
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
