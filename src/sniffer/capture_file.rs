//! Reads pcap and pcapng capture files and writes pcapng.
//!
//! Theory of operation: pcap-parser knows the formats; this module translates between its blocks
//! and a [`CapturedFrame`](super::CapturedFrame). A reader yields the records of a file in order:
//! each interface before its frames. Frames borrow from the reader's buffer.
mod format;
mod names;
mod obsolete;
mod packet;
mod reader;
mod signature;
mod writer;

pub use self::format::{CaptureError, InterfaceDescription, InterfaceStatistics, SkippedBlocks};
pub use self::names::addresses_in;
pub use self::reader::{CaptureReader, CaptureRecord};
pub use self::writer::CaptureWriter;
