//! This process: its capabilities, its identity, its signals, and the sandbox that it enters once
//! everything is open.
pub mod capability;
pub(crate) mod identity;
pub(crate) mod namespace;
pub(crate) mod own_namespace;
pub mod sandbox;
pub(crate) mod seccomp;
pub(crate) mod signals;
