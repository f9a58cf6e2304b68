//! Tests the filter language: verdicts against tcpdump's, errors, and programs that the kernel takes.
mod errors;
mod packets;
mod programs;
#[path = "../support/skipped.rs"]
mod skipped;
mod tcpdump;
mod verdicts;
