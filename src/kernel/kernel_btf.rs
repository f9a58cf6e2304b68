//! The kernel's own BTF: the number of a function, by which an eBPF program calls it.
//!
//! libbpf would read all 130,000 types and check them; this takes a millisecond. The format is that of
//! Documentation/bpf/btf.rst.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
    ptr::NonNull,
};

/// The file that the kernel shows its BTF in (CONFIG_DEBUG_INFO_BTF).
const FILE: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Length of a type's fixed part, in bytes.
const TYPE: usize = 12;

/// The kinds of types (include/uapi/linux/btf.h).
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;

/// Returns the number of a function in the kernel's BTF.
///
/// # Errors
/// Those of opening and reading the file; `InvalidData` where it has no such function.
pub(super) fn function(name: &str) -> io::Result<u32> {
    let mut file = File::open(FILE)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let number = match Mapping::new(&file, length) {
        Ok(mapping) => number_of(mapping.bytes(), name),
        // Before Linux 6.16.
        Err(_) => {
            let mut bytes = Vec::with_capacity(length);
            file.read_to_end(&mut bytes)?;
            number_of(&bytes, name)
        }
    };
    number.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the kernel's BTF has no {name}()"))
    })
}

/// Returns a function's number in BTF; `None` where it has no such function, or is no BTF of this machine.
fn number_of(btf: &[u8], name: &str) -> Option<u32> {
    let [magic_and_version, header, types, length, strings, _] = words(btf)?;
    if magic_and_version as u16 != MAGIC {
        return None;
    }
    // Offsets count from the header's end.
    let [header, types, length, strings] = [header, types, length, strings].map(|word| word as usize);
    let strings = btf.get(header.checked_add(strings)?..)?;
    let mut rest = btf.get(header.checked_add(types)?..)?.get(..length)?;
    let mut number = 0;
    loop {
        let [at, info, _] = words(rest)?;
        number += 1;
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        if kind == FUNC
            && let Some(found) = strings.get(at as usize..)
            && found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        {
            return Some(number);
        }
        let more = match kind {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * members,
            ENUM | FUNC_PROTO => 8 * members,
            _ => 0,
        };
        rest = rest.get(TYPE + more..)?;
    }
}

fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let (words, _) = bytes.as_chunks();
    words.first_chunk().map(|words: &[_; N]| words.map(u32::from_ne_bytes))
}

/// A file in memory, mapped for reading.
struct Mapping {
    at: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(file: &File, length: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases no memory of ours.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        let mapped = NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED);
        Ok(Mapping { at: mapped.ok_or_else(io::Error::last_os_error)?, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has `length` bytes and lives as long as `self`. The kernel's BTF never changes, and the
        // file cannot be truncated.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that Mapping::new made, and nothing uses it any more.
        if unsafe { libc::munmap(self.at.as_ptr().cast(), self.length) } != 0 {
            log::debug!("cannot unmap the kernel's BTF: {}", io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &[u8] = b"\0wanted\0wanted2\0";
    const WANTED: u32 = 1;
    const WANTED2: u32 = 8;

    /// BTF with these types, of 32-bit words.
    fn btf(types: &[u32]) -> Vec<u8> {
        let length = 4 * types.len() as u32;
        let header = [u32::from(MAGIC) | 1 << 16, 24, 0, length, length, STRINGS.len() as u32];
        let words = header.iter().chain(types).flat_map(|word| word.to_ne_bytes());
        words.chain(STRINGS.iter().copied()).collect()
    }

    fn head(name: u32, kind: u32, members: u32) -> [u32; 3] {
        [name, kind << 24 | members, 0]
    }

    #[test]
    fn a_function_is_found_behind_types_of_each_kind() {
        let mut types = Vec::new();
        for (kind, members, more) in [
            (INT, 0, 1),
            (2, 0, 0),
            (ARRAY, 0, 3),
            (STRUCT, 2, 6),
            (ENUM, 3, 6),
            (FUNC_PROTO, 1, 2),
            (ENUM64, 1, 3),
        ] {
            types.extend(head(WANTED, kind, members));
            // These words would be the function if they were read as a type.
            types.extend(head(WANTED, FUNC, 0).iter().cycle().take(more));
        }
        assert_eq!(number_of(&btf(&types), "wanted"), None);
        types.extend(head(WANTED2, FUNC, 0));
        types.extend(head(WANTED, FUNC, 0));
        let bytes = btf(&types);
        assert_eq!(number_of(&bytes, "wanted"), Some(9));
        assert_eq!(number_of(&bytes, "wanted2"), Some(8));
        assert_eq!(number_of(&bytes, "want"), None);
        for length in 0..bytes.len() - STRINGS.len() {
            assert_eq!(number_of(&bytes[..length], "wanted"), None, "{length} bytes");
        }
    }

    #[test]
    fn other_bytes_are_no_btf() {
        assert_eq!(number_of(&[0xff; 64], "wanted"), None);
        assert_eq!(number_of(&btf(&[]), "wanted"), None);
    }
}
