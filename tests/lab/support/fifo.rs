//! FIFOs, for output that a test reads late or never.
use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use std::{
    fs::{self, File},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// A FIFO, removed with its value.
pub struct Fifo(pub PathBuf);

impl Fifo {
    /// Makes a FIFO; `label` is the end of its name, which no other test uses.
    pub fn new(label: &str) -> Fifo {
        let path = std::env::temp_dir().join(format!("netkat-lab-{}-{label}.fifo", std::process::id()));
        let _ = fs::remove_file(&path);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a FIFO");
        Fifo(path)
    }

    /// Opens the reading end without waiting for a writer.
    pub fn reader(&self) -> File {
        let mut options = File::options();
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        options.open(&self.0).expect("a FIFO")
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
