//! Questions to the kernel: which route a flow takes, which interface carries it, which neighbour is its next
//! hop, what this process may do.
//!
//! Everything here is synchronous and changes nothing outside of this process, with one exception:
//! [`neighbour::resolve`] asks the kernel to resolve a neighbour that it does not know yet. [`sandbox`] gives up what the
//! process no longer needs. Netlink sockets belong to the network namespace of the thread
//! that opened them, so each question opens its own: the answer is always that of the calling thread's namespace.

pub mod capability;
pub mod identity;
pub mod interface;
pub mod memory;
pub mod missing;
pub mod neighbour;
pub mod netlink;
pub mod resolve;
pub mod route;
pub mod sandbox;
pub mod seccomp;
pub mod sysctl;
pub mod watch;
