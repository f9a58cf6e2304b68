//! Questions to the kernel: which route a flow takes, which interface carries it, which neighbour is its next
//! hop.
//!
//! Everything here is synchronous and changes nothing, with one exception: [`neighbour::resolve`] makes the kernel
//! resolve a neighbour that it does not know yet. Netlink sockets belong to the network namespace of the thread that
//! opened them, so each question opens its own: the answer is always that of the calling thread's namespace.

pub mod conntrack;
pub mod features;
pub mod interface;
pub mod memory;
pub mod neighbour;
pub mod netlink;
pub mod nfnetlink;
pub mod resolve;
pub mod route;
pub mod rules;
pub mod sysctl;
pub mod watch;
