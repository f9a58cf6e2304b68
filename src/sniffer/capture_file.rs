//! Capture files: pcap and pcapng in, pcapng out.
//!
//! Theory of operation: pcap-parser knows the formats; here is what its blocks mean for an [`Observed`] and the other
//! way round. A file's reader yields what it meets in order: first an interface, then its frames. Frames borrow
//! from the reader's buffer.
mod read;
mod write;

use std::{io, path::PathBuf};

pub use self::{
    read::{CaptureReader, Record},
    write::CaptureWriter,
};
use pcap_parser::OptionCode;

use super::LinkType;
#[cfg(doc)]
use super::Observed;

/// What frames come from: an interface of this machine, or what a file says of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Empty where a file does not tell.
    pub name: String,
    pub link: LinkType,
    /// Bytes kept of each frame; 0 stands for all.
    pub snap_length: u32,
}

/// What the kernel counted on an interface while it was watched (PACKET_STATISTICS of packet(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that passed the filter.
    pub received: u64,
    /// Frames of these that were lost for want of buffer space.
    pub dropped: u64,
}

/// The comment of frames that were kept from the kernel.
const GUARDED: &str = "kept from the kernel by netkat's guard";

/// The comment of counters that no single interface has to answer for.
const COUNTED_TOGETHER: &str = "counted on all interfaces of this capture together";

/// `epb_flags` is option 2 of an enhanced packet, a number that pcap-parser knows as another block's.
const PACKET_FLAGS: OptionCode = OptionCode(2);

/// Why a capture file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("can't open capture file {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("can't create capture file {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("can't read capture file {name}: {source}")]
    Read { name: String, source: io::Error },
    #[error("{name} is not a capture file: it starts like neither pcap nor pcapng")]
    NotACapture { name: String },
    #[error(
        "capture file {name} ends within a packet, after {packets} whole ones; was the program that wrote it killed?"
    )]
    Truncated { name: String, packets: u64 },
    #[error("capture file {name} is damaged after {packets} packets: {what}")]
    Malformed { name: String, packets: u64, what: &'static str },
    #[error("can't write to the capture file: {0}; the packets up to here are in it")]
    Write(#[from] io::Error),
    #[error("can't write a packet to the capture file: {0}")]
    Format(&'static str),
}

impl LinkType {
    /// By its number in capture files (tcpdump.org, "Link-layer header types").
    fn from_number(number: u16) -> LinkType {
        match number {
            0 => LinkType::Null,
            1 => LinkType::Ethernet,
            // DLT_RAW where it was 12 or 14, LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6: the version tells.
            12 | 14 | 101 | 228 | 229 => LinkType::RawIp,
            108 => LinkType::Loop,
            113 => LinkType::LinuxCooked1,
            276 => LinkType::LinuxCooked2,
            other => LinkType::Other(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            LinkType::Null => 0,
            LinkType::Ethernet => 1,
            LinkType::RawIp => 101,
            LinkType::Loop => 108,
            LinkType::LinuxCooked1 => 113,
            LinkType::LinuxCooked2 => 276,
            LinkType::Other(number) => number,
        }
    }
}
