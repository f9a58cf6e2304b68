//! The host's answers in network namespaces of every shape, compared with the kernel's own sockets.
//!
//! Needs root and iproute2; without them it says so loudly and passes.

mod identity;
mod interfaces;
mod lab;
mod multipath;
mod neighbours;
mod privileges;
mod routes;
mod rules;
mod sandbox;
#[path = "../support/skipped.rs"]
mod skipped;
