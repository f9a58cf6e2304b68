//! What this process is and may do: its identity and capabilities, and what it gives up once everything is open.
pub mod capability;
pub mod identity;
pub mod sandbox;
pub mod seccomp;
pub mod signals;
