//! The parts of the format that reader and writer share: interfaces, numbers, comments, errors.
use std::{fmt, io, path::PathBuf};

use pcap_parser::OptionCode;

use crate::{sniffer::frame::LinkType, stdio::STANDARD};

/// An interface as a capture file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceDescription {
    /// Empty if a file does not tell.
    pub name: String,
    /// The format of its frames.
    pub link_type: LinkType,
    /// Captured bytes per frame at most; 0 stands for all.
    pub snap_length: u32,
}

/// The kernel's counters of an interface during the capture (PACKET_STATISTICS of packet(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// Frames that passed the filter.
    pub received: u64,
    /// Frames of these that a full buffer dropped.
    pub dropped: u64,
}

/// The comment of a frame whose kernel copy the guard dropped.
pub(super) const GUARDED: &str = "kept from the kernel by netkat's guard";

/// The comment of counters that cover several interfaces.
pub(super) const COUNTED_TOGETHER: &str = "counted on all interfaces of this capture together";

/// `epb_flags` of an enhanced packet; pcap-parser knows the number 2 only as another block's
/// option.
pub(super) const PACKET_FLAGS: OptionCode = OptionCode(2);

/// The bits of `epb_flags` that tell the direction.
pub(super) const DIRECTION_BITS: u32 = 3;
/// Direction of a packet that the host received.
pub(super) const INBOUND: u32 = 1;
/// Direction of a packet that the host sent.
pub(super) const OUTBOUND: u32 = 2;

/// Blocks of a pcapng file that were not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkippedBlocks {
    /// Number of blocks.
    pub count: u64,
    /// Type of the first.
    pub first: u32,
}

impl fmt::Display for SkippedBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SkippedBlocks { count, first } = self;
        match count {
            1 => write!(f, "1 block of unknown type 0x{first:08x} was skipped"),
            _ => write!(f, "{count} blocks of unknown types were skipped, the first of type 0x{first:08x}"),
        }
    }
}

/// The reason why a capture file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened for reading.
    #[error("can't open capture file {}: {source}", path.display())]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file cannot be created.
    #[error("can't create capture file {}: {source}", path.display())]
    Create {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Reading failed.
    #[error("can't read capture file {name}: {source}")]
    Read {
        /// Name of the file.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The first bytes belong to no capture file.
    #[error("{name} is not a capture file: it starts like neither pcap nor pcapng")]
    NotACapture {
        /// Name of the file.
        name: String,
    },
    /// The file is compressed.
    #[error("{name} is compressed by {format}; unpack it: {program} {} | netkat --read -", operand(name))]
    Compressed {
        /// Name of the file.
        name: String,
        /// The compression.
        format: &'static str,
        /// The program that unpacks it, with its flags.
        program: &'static str,
    },
    /// The file is a capture in another format.
    #[error(
        "{name} is {format}, which netkat does not read; convert it: editcap -F pcapng {} - | netkat --read -",
        operand(name)
    )]
    Foreign {
        /// Name of the file.
        name: String,
        /// The format.
        format: &'static str,
    },
    /// The file is of a version that is not known, whose records may differ.
    #[error(
        "{name} is {format} {major}.{minor}, a version that netkat does not know; it reads pcap 2 and pcapng 1"
    )]
    Version {
        /// Name of the file.
        name: String,
        /// pcap or pcapng.
        format: &'static str,
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// The file ends within a packet.
    #[error(
        "capture file {name} ends within a packet, after {packets} whole ones; was the program that wrote it killed?"
    )]
    Truncated {
        /// Name of the file.
        name: String,
        /// Packets before the end.
        packets: u64,
    },
    /// A block contradicts the format.
    #[error("capture file {name} is damaged after {packets} packets: {what}")]
    Malformed {
        /// Name of the file.
        name: String,
        /// Packets before the damage.
        packets: u64,
        /// The contradiction.
        what: &'static str,
    },
    /// Writing failed.
    #[error("can't write to the capture file: {0}; the packets up to here are in it")]
    Write(#[from] io::Error),
    /// The format cannot express the packet, for this reason.
    #[error("can't write a packet to the capture file: {0}")]
    Format(&'static str),
}

/// Name of standard input in errors.
pub(super) const STANDARD_INPUT: &str = "standard input";

/// Returns a file's name as the operand of a command.
fn operand(name: &str) -> &str {
    if name == STANDARD_INPUT { STANDARD } else { name }
}

impl LinkType {
    /// Returns the link type with this number in capture files (tcpdump.org, "Link-layer header
    /// types").
    pub(super) fn from_number(number: u16) -> LinkType {
        match number {
            0 => LinkType::Null,
            1 => LinkType::Ethernet,
            // LINKTYPE_PPP_HDLC has the fields of HDLC framing, which LINKTYPE_PPP may have, too.
            9 | 50 => LinkType::Ppp,
            // DLT_RAW where it is 12 or 14, LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6: the version
            // tells.
            12 | 14 | 101 | 228 | 229 => LinkType::RawIp,
            108 => LinkType::Loop,
            113 => LinkType::LinuxCooked1,
            239 => LinkType::Nflog,
            276 => LinkType::LinuxCooked2,
            other => LinkType::Other(other),
        }
    }

    /// Returns the number of the link type in capture files.
    pub(super) fn number(self) -> u16 {
        match self {
            LinkType::Null => 0,
            LinkType::Ethernet => 1,
            LinkType::Ppp => 9,
            LinkType::RawIp => 101,
            LinkType::Loop => 108,
            LinkType::LinuxCooked1 => 113,
            LinkType::Nflog => 239,
            LinkType::LinuxCooked2 => 276,
            LinkType::Other(number) => number,
        }
    }
}
