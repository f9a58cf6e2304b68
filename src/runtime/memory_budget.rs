//! The memory budget: bounds on the memory that peers can make netkat take.
//!
//! Of the process's memory limit, a quarter goes to the buffers of connections and an eighth to frames that
//! wait in the kernel; the rest of netkat has fixed bounds. A test adds them up for the pods in
//! packaging/kubernetes.
use crate::host::memory;

/// Divisor of the memory limit for the buffers of all connections, of both directions together.
const CONNECTIONS: u64 = 4;
/// Maximum for the buffers of all connections, in bytes, unless the user asks for larger buffers.
const MAX_CONNECTIONS: u64 = 512 << 20;
/// Number of connections whose buffers may have the size that the user asks for at once, if the limit
/// allows it. With less, a single connection would get smaller buffers (see
/// [`crate::recovery::MemoryPool`]).
const FULL_SIZE: u64 = 8;
/// Divisor of the memory limit for the packet socket's receive buffer. The kernel allows twice the value
/// that a socket sets, its own bookkeeping included (socket(7), SO_RCVBUF).
const FRAMES: u64 = 16;
/// Maximum for the packet socket's receive buffer, in bytes.
pub(crate) const MAX_FRAMES: u64 = 64 << 20;

/// Range of a receive ring, in bytes.
const MIN_RING: usize = 1 << 20;
const MAX_RING: usize = 32 << 20;

/// Shares of the memory limit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryBudget {
    /// For the buffers of all connections.
    pub connections: u64,
    /// The packet socket's receive buffer.
    pub frames: usize,
}

impl MemoryBudget {
    /// Returns this process's budget, where a connection's buffer has at most `buffer` bytes.
    pub(crate) fn of_this_process(buffer: usize) -> MemoryBudget {
        let limit = memory::limit();
        let memory = MemoryBudget::of(limit, buffer);
        log::info!(
            "of {} MiB of memory, connections take at most {} MiB, waiting frames {} MiB",
            limit >> 20,
            memory.connections >> 20,
            memory.frames >> 20
        );
        memory
    }

    /// Returns the size of a receive ring for a connection with a buffer of this size, in bytes: twice as much, since
    /// full segments do not fill their slots.
    pub(crate) fn ring(self, buffer: usize) -> usize {
        buffer.saturating_mul(2).clamp(MIN_RING, MAX_RING).min(self.frames)
    }

    /// Returns the budget of a process without connections.
    pub(crate) fn of_a_sniffer() -> MemoryBudget {
        MemoryBudget::of(memory::limit(), 0)
    }

    fn of(limit: u64, buffer: usize) -> MemoryBudget {
        let most = MAX_CONNECTIONS.max((buffer as u64).saturating_mul(FULL_SIZE));
        MemoryBudget {
            connections: (limit / CONNECTIONS).min(most),
            frames: (limit / FRAMES).min(MAX_FRAMES) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_limit_up_to_a_point() {
        let of = |limit: u64, buffer: usize| {
            let MemoryBudget { connections, frames } = MemoryBudget::of(limit << 20, buffer << 20);
            (connections >> 20, frames >> 20)
        };
        assert_eq!(of(64, 4), (16, 4));
        assert_eq!(of(1024, 4), (256, 64));
        assert_eq!(of(1 << 20, 4), (512, 64));
        assert_eq!(of(1 << 20, 1024), (8192, 64));
        assert_eq!(of(128, 1024), (32, 8), "no more than there is");
    }

    /// The limit of the pods in packaging/kubernetes. Peers can also fill these, at these sizes:
    #[test]
    fn all_bounds_together_fit_into_a_pod() {
        const POD: u64 = 128 << 20;
        let budget = MemoryBudget::of(POD, 4 << 20);
        let MemoryBudget { connections, frames } = budget;
        let others = [
            // An idle netkat (tests/lab/cases/footprint.rs).
            12 << 20,
            // Handshakes, and their places in the order of repetition.
            4096 * 512,
            // Connections in TIME-WAIT.
            16_384 * 512,
            // Fragments.
            crate::stack::fragment::MEMORY as u64,
            // One turn's datagrams that wait for standard output, 64 super-frames.
            64 << 16,
            // Standard input that the slowest of several clients has not taken.
            2 << 20,
        ];
        let waiting = 2 * frames + budget.ring(4 << 20);
        let sum = connections + waiting as u64 + others.iter().sum::<u64>();
        // The connections' minima may exceed the pool by half.
        assert!(sum + connections / 2 < POD * 9 / 10, "{} MiB", sum >> 20);
    }
}
