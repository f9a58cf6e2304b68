//! tcpdump's verdicts.
use super::packets::Frame;
use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

/// A capture file, removed on drop. Each packet's time, in seconds, is its number.
pub struct Capture(PathBuf);

impl Capture {
    pub fn new(name: &str, link_type: u32, frames: &[Frame]) -> Capture {
        let path = std::env::temp_dir().join(format!("netkat-filter-{}-{name}.pcap", std::process::id()));
        let mut bytes = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, link_type].map(u32::to_le_bytes).concat();
        for (number, frame) in frames.iter().enumerate() {
            let record = [number as u32, 0, frame.bytes.len() as u32, frame.length as u32];
            bytes.extend(record.map(u32::to_le_bytes).concat());
            bytes.extend(&frame.bytes);
        }
        fs::write(&path, bytes).expect("a temporary file");
        Capture(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns whether there is a tcpdump to compare with; reports a skip if not.
pub fn is_available() -> bool {
    match Command::new("tcpdump").arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            crate::skipped::skipped("tcpdump is not installed: run scripts/setup");
            false
        }
        _ => true,
    }
}

/// Returns the numbers of the packets that pass, or tcpdump's error. libpcap's optimizer reorders tests, so
/// that a load beyond the end of a cut packet comes later or not at all.
pub fn passing(file: &Path, expression: &str, optimized: bool) -> Result<BTreeSet<usize>, String> {
    let output = Command::new("tcpdump")
        .args(["-Z", "root", "-r"])
        .arg(file)
        .args(["-w", "-"])
        .args((!optimized).then_some("-O"))
        .args(["--", expression])
        .output()
        .expect("tcpdump runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if stderr.contains("expression rejects all packets") {
        return Ok(BTreeSet::new());
    }
    if !output.status.success() {
        return Err(stderr);
    }
    let word = |at: usize| {
        let bytes = output.stdout.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().expect("four bytes")) as usize)
    };
    let (mut passing, mut at) = (BTreeSet::new(), 24);
    while let (Some(number), Some(captured)) = (word(at), word(at + 8)) {
        passing.insert(number);
        at += 16 + captured;
    }
    Ok(passing)
}
