//! Objects that netkat puts into the kernel, on real interfaces in network namespaces of the test's
//! own: the guard, the port lease and the loopback program do their work, leave others alone and
//! leave nothing behind.

#[path = "../support/filters.rs"]
mod filters;
mod guard;
mod lease;
mod loopback;
mod memory;
mod namespace;
mod neighbours;
mod privileges;
#[path = "../support/skipped.rs"]
mod skipped;
