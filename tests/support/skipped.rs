//! Words about tests that this machine cannot run.
use std::{
    io::{self, Write},
    thread,
};

/// Says that the calling test is skipped, past libtest's capture; scripts/test counts these lines.
pub fn skipped(reason: &str) {
    let name = thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {reason}");
}
