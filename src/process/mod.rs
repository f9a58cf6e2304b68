//! This process: its capabilities, its identity, its signals, and the sandbox that it enters once
//! everything is open.
pub mod capability;
pub mod identity;
pub mod namespace;
pub mod own_namespace;
pub mod sandbox;
pub mod seccomp;
pub mod signals;
