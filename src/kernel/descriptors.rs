//! Descriptors that the program was started with, and whether standard output was among them. Rust's runtime replaces a closed one
//! by /dev/null (sanitize_standard_fds in library/std/src/sys/pal/unix/mod.rs), so a later look finds it
//! open.
#![allow(unsafe_code)]
use nix::{errno::Errno, unistd::pipe};
use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// The first descriptor behind the standard streams.
const FIRST_FREE: RawFd = 3;

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
pub(crate) fn output_was_closed() -> bool {
    OUTPUT_CLOSED.load(Ordering::Relaxed)
}

/// Duplicates a descriptor that this process was started with.
///
/// # Errors
/// EBADF for a descriptor that was not open then: netkat's own have FD_CLOEXEC, which none has that came through
/// execve(2). Those of dup(2).
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if !is_inherited(number) {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: F_DUPFD_CLOEXEC takes the lowest number that the duplicate may have.
    let duplicate = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST_FREE) })?;
    // SAFETY: the kernel has just made the descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Returns the descriptors that this process was started with and still has.
///
/// # Errors
/// Those of reading /proc.
pub(super) fn all_inherited() -> io::Result<Vec<RawFd>> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        inherited.extend(number.filter(|number| is_inherited(*number)));
    }
    Ok(inherited)
}

fn is_inherited(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes no argument and changes nothing; it fails for a number that is no open descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC == 0
}

/// Releases descriptors that this process was started with, and those of `also`, so that nothing waits for its end: a pipe
/// without a reader takes the place of standard streams and of `also`, the others are closed.
pub(super) fn release(inherited: &[RawFd], also: &[BorrowedFd]) {
    let Ok((_, nothing)) = pipe() else { return };
    // A number that was closed meanwhile may be one of netkat's own.
    let (standard, further): (Vec<_>, Vec<_>) = inherited
        .iter()
        .copied()
        .filter(|number| is_inherited(*number))
        .partition(|number| *number < FIRST_FREE);
    for number in standard.into_iter().chain(also.iter().map(AsRawFd::as_raw_fd)) {
        // SAFETY: the number stays open, so its owner goes on to own a descriptor.
        unsafe { libc::dup2(nothing.as_raw_fd(), number) };
    }
    for number in further {
        // SAFETY: netkat's own descriptors have FD_CLOEXEC, so nothing here owns this one.
        unsafe { libc::close(number) };
    }
}
