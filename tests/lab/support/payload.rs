//! Payloads: seeded pseudo-random bytes, written once to a cache file that all runs share.
use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::PathBuf,
};

/// Bytes that a transfer has to deliver. Payloads of different seeds have nothing in common.
#[derive(Clone, Debug)]
pub struct Payload {
    file: PathBuf,
    length: u64,
}

pub const MIB: u64 = 1 << 20;

impl Payload {
    /// Makes `length` bytes that the seed decides.
    pub fn new(seed: u64, length: u64) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let file = folder.join(format!("payload-{seed}-{length}"));
        if fs::metadata(&file).is_ok_and(|m| m.len() == length) {
            return Self { file, length };
        }
        fs::create_dir_all(&folder).expect("the cache folder");
        // Written aside and renamed: another test may want the file now.
        let aside = folder.join(format!(
            "payload-{seed}-{length}.{}.{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&aside).expect("a cache file"));
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut left = length;
        while left > 0 {
            // xorshift64*
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            let n = left.min(8);
            out.write_all(&word[..n as usize]).expect("writing the cache file");
            left -= n;
        }
        out.into_inner().expect("writing the cache file");
        fs::rename(&aside, &file).expect("renaming the cache file");
        Self { file, length }
    }

    /// Makes a line of text.
    pub fn short() -> Self {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("payload-short");
        let text = "The quick brown fox jumps over the lazy dog.\n";
        fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).expect("the cache folder");
        if fs::read(&file).ok().as_deref() != Some(text.as_bytes()) {
            let aside = file.with_extension(format!("{:?}", std::thread::current().id()));
            fs::write(&aside, text).expect("writing the cache file");
            fs::rename(&aside, &file).expect("renaming the cache file");
        }
        Self { file, length: text.len() as u64 }
    }

    pub fn large() -> Self {
        Self::new(1, 64 * MIB)
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the payload as a program's stdin.
    pub fn input(&self) -> crate::support::process::Input {
        crate::support::process::Input::File(self.file.clone())
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.file).expect("the payload's file")
    }

    pub fn open(&self) -> Reference {
        Reference { file: File::open(&self.file).expect("the payload's file"), buffer: vec![0; 256 << 10] }
    }
}

/// A comparison of arriving bytes with a payload.
pub struct Reference {
    file: File,
    buffer: Vec<u8>,
}

impl Reference {
    /// Compares the next bytes, at most 256 KiB. Returns the number of equal ones.
    pub fn agrees(&mut self, bytes: &[u8]) -> usize {
        let mut wanted = &mut self.buffer[..bytes.len()];
        let length = wanted.len();
        while !wanted.is_empty() {
            match self.file.read(wanted).expect("reading the payload") {
                0 => break,
                n => wanted = &mut wanted[n..],
            }
        }
        let there = length - wanted.len();
        let wanted = &self.buffer[..there];
        if wanted == &bytes[..there] && there == bytes.len() {
            return there;
        }
        wanted.iter().zip(bytes).take_while(|(a, b)| a == b).count()
    }
}
