//! What this process is and may do: its identity and capabilities, and what it gives up once everything is open.
pub mod capability;
pub mod identity;
pub mod private_file;
pub mod sandbox;
pub mod seccomp;
