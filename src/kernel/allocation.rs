//! How the C library gets memory from the kernel for the flows' buffers, and gives it back.
#![cfg_attr(target_env = "gnu", allow(unsafe_code))]

/// From this size on, memory is mapped for each buffer alone, in bytes.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 32 << 10;

/// Makes large buffers come from mmap(2) and go back by munmap(2), always. So a fresh buffer's pages cost
/// nothing until they are used, and what a thousand connections used is given back.
///
/// glibc would otherwise learn from the first freed buffer to keep such sizes on its heap, where a fresh
/// buffer has to be zeroed, page for page (man 3 mallopt, M_MMAP_THRESHOLD). musl does it this way in any
/// case.
pub fn map_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and no pointers; the threshold is in its valid range.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) } == 0 {
        log::debug!("the C library does not let large buffers be mapped");
    }
}

/// Gives the kernel what is free on the heap, which glibc keeps where something in use lies behind it: what
/// many connections had out of order was too small to be mapped. musl gives back whatever it can by itself.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer and no pointers; what is allocated stays where it is
    // (malloc_trim(3)).
    let _ = unsafe { libc::malloc_trim(0) };
}
