//! Records whether standard output was open when the program started. Rust's runtime replaces a closed one
//! by /dev/null (sanitize_standard_fds in library/std/src/sys/pal/unix/mod.rs), so a later look finds it
//! open.
#![allow(unsafe_code)]
use std::sync::atomic::{AtomicBool, Ordering};

static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Runs before the runtime starts, as a constructor of the C library (System V ABI, DT_INIT_ARRAY).
#[used]
// SAFETY: the section holds pointers to functions that may be called without arguments, as this one may.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: F_GETFD takes no argument and changes nothing.
    let closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1;
    OUTPUT_CLOSED.store(closed, Ordering::Relaxed);
}

/// Returns whether descriptor 1 was closed when the program started.
pub fn output_was_closed() -> bool {
    OUTPUT_CLOSED.load(Ordering::Relaxed)
}
