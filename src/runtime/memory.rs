//! How much memory netkat takes, whatever strangers do.
//!
//! Of what this process may use, a quarter goes to the buffers of connections, an eighth to frames that wait in the
//! kernel, and the rest of netkat has fixed bounds. A test adds them up for the limit of the pods in
//! packaging/kubernetes.
use crate::host::memory;

/// The buffers of connections take the memory limit divided by this, in both directions together.
const CONNECTIONS: u64 = 4;
/// But no more than this, in bytes, where a few connections do not need it.
const MOST: u64 = 512 << 20;
/// So many connections' buffers can always be as large as the user wants, if memory allows it: with less, one alone
/// would feel that it shares (see [`crate::recovery::MemoryPool`]).
const FULL_SIZE: u64 = 8;
/// Frames that wait in the kernel may take the memory limit divided by this. The kernel allows twice of what a socket
/// asks for, its own bookkeeping included (socket(7), SO_RCVBUF).
const FRAMES: u64 = 16;
/// But no more than this, in bytes.
pub const MOST_FRAMES: u64 = 64 << 20;

/// Shares of the memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// For the buffers of all connections.
    pub connections: u64,
    /// The packet socket's receive buffer.
    pub frames: usize,
}

impl Memory {
    /// What this process may take, where a connection's buffer may have `buffer` bytes.
    pub fn of_this_process(buffer: usize) -> Memory {
        let limit = memory::limit();
        let memory = Memory::of(limit, buffer);
        log::info!(
            "of {} MiB of memory, connections take at most {} MiB, waiting frames {} MiB",
            limit >> 20,
            memory.connections >> 20,
            memory.frames >> 20
        );
        memory
    }

    /// The same for a process without connections.
    pub fn of_a_sniffer() -> Memory {
        Memory::of(memory::limit(), 0)
    }

    fn of(limit: u64, buffer: usize) -> Memory {
        let most = MOST.max((buffer as u64).saturating_mul(FULL_SIZE));
        Memory {
            connections: (limit / CONNECTIONS).min(most),
            frames: (limit / FRAMES).min(MOST_FRAMES) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_limit_up_to_a_point() {
        let of = |limit: u64, buffer: usize| {
            let Memory { connections, frames } = Memory::of(limit << 20, buffer << 20);
            (connections >> 20, frames >> 20)
        };
        assert_eq!(of(64, 4), (16, 4));
        assert_eq!(of(1024, 4), (256, 64));
        assert_eq!(of(1 << 20, 4), (512, 64));
        assert_eq!(of(1 << 20, 1024), (8192, 64));
        assert_eq!(of(128, 1024), (32, 8), "no more than there is");
    }

    /// The limit of the pods in packaging/kubernetes. What else strangers can fill, with what an entry costs:
    #[test]
    fn all_bounds_together_fit_into_a_pod() {
        const POD: u64 = 128 << 20;
        let Memory { connections, frames } = Memory::of(POD, 4 << 20);
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
        let sum = connections + 2 * frames as u64 + others.iter().sum::<u64>();
        // The connections' minima may exceed the pool by half.
        assert!(sum + connections / 2 < POD * 9 / 10, "{} MiB", sum >> 20);
    }
}
