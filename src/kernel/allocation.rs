//! Settings of the C library's allocator: how buffers get memory from the kernel, and give it back.
#![cfg_attr(target_env = "gnu", allow(unsafe_code))]

/// Size from which glibc maps each buffer alone, in bytes.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 32 << 10;

/// Makes glibc map large buffers by mmap(2) and unmap them when they are freed. A fresh buffer's pages then
/// cost nothing until they are used, and ended connections leave no memory. The test
/// `ended_connections_leave_no_memory_and_new_buffers_take_none` fails without this call.
///
/// By default glibc raises the threshold to the size of the first freed buffer and keeps such sizes on its
/// heap, where a fresh buffer has to be zeroed page by page (mallopt(3), M_MMAP_THRESHOLD). musl maps large
/// buffers in any case.
pub fn map_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and no pointers; the threshold is in its valid range.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) } == 0 {
        log::debug!("the C library does not let large buffers be mapped");
    }
}

/// Returns free memory on the heap to the kernel. Pieces that many connections have received out of order are
/// too small to be mapped, and glibc keeps them wherever memory in use lies behind. musl returns what it can by
/// itself.
pub(crate) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer and no pointers; what is allocated stays where it is
    // (malloc_trim(3)).
    let _ = unsafe { libc::malloc_trim(0) };
}
