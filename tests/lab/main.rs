//! The lab: netkat and the kernel's own tools in network namespaces, with real rules between them.
//!
//! Theory of operation: each case builds a topology of its own from namespaces with unique names,
//! so cases run side by side and touch nothing else. Every process has a deadline, dies with the
//! value that stands for it, and shows its stderr when a case fails. Nothing waits by sleeping: the
//! harness polls the namespace's socket table for listeners, and conditions with a deadline. A case
//! that lacks root or a tool says SKIPPED aloud; with NETKAT_LAB=required in the environment it
//! fails.
//!
//! `cases` holds the cases, `support` the harness, `emulator` the link emulator (a program of its own).
mod cases;
#[path = "../support/skipped.rs"]
mod skipped;
mod support;
