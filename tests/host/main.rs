//! The host's answers in network namespaces of every shape, compared with what the kernel's own sockets do.
//!
//! Needs root and iproute2; says so loudly and passes without.

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
