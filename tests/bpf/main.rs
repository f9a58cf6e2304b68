//! The eBPF programs on frames, in the kernel: golden ones with their verdicts, random ones against a model,
//! and the programs' size.

mod fast_path;
#[path = "../support/filters.rs"]
mod filters;
mod frames;
mod golden;
mod model;
mod random;
mod run;
mod size;
#[path = "../support/skipped.rs"]
mod skipped;
