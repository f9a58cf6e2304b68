//! Queries to the kernel: routes, interfaces, neighbours, conntrack, rules, settings, memory.
//!
//! All of them are synchronous and change nothing, except that [`neighbour::resolve`] makes the kernel
//! resolve a neighbour. A netlink socket belongs to the network namespace of the thread that opened it, so
//! each query opens its own and the answer is that of the calling thread's namespace.

pub(crate) mod cgroup;
pub mod conntrack;
pub(crate) mod container;
pub(crate) mod features;
pub mod interface;
pub(crate) mod listeners;
pub(crate) mod memory;
pub mod metrics;
pub(crate) mod monitor;
pub mod neighbour;
pub mod netlink;
pub(crate) mod nf_tables;
pub mod nf_trace;
pub mod nfnetlink;
pub(crate) mod policy_route;
pub mod resolve;
pub(crate) mod reverse_names;
pub mod route;
pub mod rules;
pub(crate) mod shared_route;
pub(crate) mod statistics;
pub mod sysctl;
