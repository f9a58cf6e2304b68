//! A BPF array of fixed-size values, mapped into our memory: accessing it takes no bpf(2) and no privilege.
#![allow(unsafe_code)]

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

/// The mapping of an array whose values consist of aligned 64-bit words, which both sides read and write whole.
#[derive(Debug)]
pub(super) struct ArrayMapping<T> {
    at: NonNull<u64>,
    values: usize,
    _value: PhantomData<T>,
}

impl<T> ArrayMapping<T> {
    /// 64-bit words of a value.
    const WORDS: usize = size_of::<T>() / size_of::<u64>();

    /// Maps the array of `values` values that `map` is, made with BPF_F_MMAPABLE.
    ///
    /// # Errors
    /// The kernel's (mmap(2)).
    pub(super) fn new(map: BorrowedFd, values: usize) -> io::Result<ArrayMapping<T>> {
        const { assert!(size_of::<T>().is_multiple_of(size_of::<u64>())) };
        // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases no memory of ours.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                values * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        let mapped = NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED);
        let at = mapped.ok_or_else(io::Error::last_os_error)?;
        Ok(ArrayMapping { at, values, _value: PhantomData })
    }

    /// Returns a word of a value.
    ///
    /// # Panics
    /// Where there is no such value or word.
    pub(super) fn read(&self, value: usize, word: usize) -> u64 {
        // SAFETY: the word is mapped and aligned. The programs write it at any time, hence the volatile read;
        // they write it whole.
        unsafe { self.word(value, word).read_volatile() }
    }

    /// Writes a word of a value.
    ///
    /// # Panics
    /// Where there is no such value or word.
    pub(super) fn write(&mut self, value: usize, word: usize, content: u64) {
        // SAFETY: the word is mapped and writable. The programs read it at any time, hence the volatile
        // write; it is aligned, so it is written whole.
        unsafe { self.word(value, word).write_volatile(content) };
    }

    fn word(&self, value: usize, word: usize) -> *mut u64 {
        assert!(value < self.values && word < Self::WORDS);
        // SAFETY: the mapping has `values` values of WORDS words and lives as long as `self`.
        unsafe { self.at.as_ptr().add(value * Self::WORDS + word) }
    }
}

impl<T> Drop for ArrayMapping<T> {
    fn drop(&mut self) {
        let length = self.values * size_of::<T>();
        // SAFETY: this is the mapping that ArrayMapping::new made, and nothing uses it any more.
        if unsafe { libc::munmap(self.at.as_ptr().cast(), length) } != 0 {
            log::debug!("cannot unmap an array of eBPF programs: {}", io::Error::last_os_error());
        }
    }
}
