//! Writes pcapng files.
//!
//! A file has one section: an interface description per interface, an enhanced packet with direction
//! and nanoseconds per frame, and interface statistics at the end.
use std::{
    borrow::Cow,
    io::{BufWriter, Write},
    path::Path,
    time::Duration,
};

use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, InterfaceStatisticsBlock, Linktype, OptionCode,
    PcapNGOption, SectionHeaderBlock, ToVec,
};

use super::format::{
    COUNTED_TOGETHER, CaptureError, GUARDED, INBOUND, InterfaceDescription, InterfaceStatistics, OUTBOUND,
    PACKET_FLAGS,
};
use crate::{
    sniffer::frame::{CapturedFrame, FrameDirection, LinkType},
    stdio::Writer,
};

/// Size of the output buffer, in bytes.
const BUFFER: usize = 256 * 1024;

/// `if_tsresol`: units of 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// Bytes of the two Ethernet addresses, which precede a VLAN tag.
const ADDRESSES: usize = 12;

/// A writer of a pcapng file.
pub struct CaptureWriter<W: Write> {
    out: BufWriter<W>,
    /// The snap length of each interface.
    interfaces: Vec<u32>,
    /// Scratch space that joins the pieces of a frame and its VLAN tag.
    joined: Vec<u8>,
}

impl CaptureWriter<Writer> {
    /// Creates the file, for its owner alone, or truncates an existing one. A FIFO waits for its
    /// reader.
    ///
    /// # Errors
    /// [`CaptureError::Create`] and [`CaptureError::Write`].
    pub(crate) fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = Writer::create(path, false)
            .map_err(|source| CaptureError::Create { path: path.to_owned(), source })?;
        CaptureWriter::new(file)
    }
}

impl<W: Write> CaptureWriter<W> {
    /// Starts a file with its section header.
    ///
    /// # Errors
    /// [`CaptureError::Write`].
    pub fn new(out: W) -> Result<Self, CaptureError> {
        let mut writer = CaptureWriter {
            out: BufWriter::with_capacity(BUFFER, out),
            interfaces: Vec::new(),
            joined: Vec::new(),
        };
        let program = concat!("netkat ", env!("CARGO_PKG_VERSION"));
        writer.write_block(SectionHeaderBlock {
            block_type: 0,
            block_len1: 0,
            bom: 0,
            major_version: 0,
            minor_version: 0,
            // Unknown in advance.
            section_len: -1,
            options: vec![
                option(OptionCode::ShbOs, std::env::consts::OS.as_bytes()),
                option(OptionCode::ShbUserAppl, program.as_bytes()),
            ],
            block_len2: 0,
        })?;
        Ok(writer)
    }

    /// Writes an interface. Returns its number, from 0 upwards, for its frames.
    ///
    /// # Errors
    /// [`CaptureError::Write`].
    pub fn add_interface(&mut self, interface: &InterfaceDescription) -> Result<u32, CaptureError> {
        let mut options = Vec::new();
        if !interface.name.is_empty() {
            options.push(option(OptionCode::IfName, interface.name.as_bytes()));
        }
        self.write_block(InterfaceDescriptionBlock {
            block_type: 0,
            block_len1: 0,
            linktype: Linktype(interface.link_type.number().into()),
            reserved: 0,
            snaplen: interface.snap_length,
            options,
            block_len2: 0,
            if_tsresol: NANOSECONDS,
            if_tsoffset: 0,
        })?;
        let number = self.interfaces.len() as u32;
        self.interfaces.push(interface.snap_length);
        Ok(number)
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// [`CaptureError::Format`] for an interface that [`add_interface`](Self::add_interface) has
    /// not seen; [`CaptureError::Write`].
    pub fn write_frame(&mut self, frame: &CapturedFrame<'_>) -> Result<(), CaptureError> {
        let snap_length = *self
            .interfaces
            .get(frame.interface as usize)
            .ok_or(CaptureError::Format("its interface was never described"))?;
        let tag = frame.vlan.filter(|_| frame.link_type == LinkType::Ethernet);
        let [first, rest @ ..] = frame.data;
        let mut joined = std::mem::take(&mut self.joined);
        let mut data = if tag.is_none() && rest.iter().all(|piece| piece.is_empty()) {
            first
        } else {
            joined.clear();
            frame.data.iter().for_each(|piece| joined.extend_from_slice(piece));
            if let Some(tag) = tag.filter(|_| joined.len() >= ADDRESSES) {
                let [a, b] = tag.tpid.to_be_bytes();
                let [c, d] = tag.tci.to_be_bytes();
                joined.splice(ADDRESSES..ADDRESSES, [a, b, c, d]);
            }
            &joined
        };
        let added = data.len().saturating_sub(frame.captured());
        let length = frame.length.saturating_add(added).max(data.len());
        if snap_length != 0 {
            data = data.get(..snap_length as usize).unwrap_or(data);
        }
        let flags = match frame.direction {
            FrameDirection::Inbound => INBOUND,
            FrameDirection::Outbound => OUTBOUND,
        };
        let mut options = vec![option(PACKET_FLAGS, &flags.to_le_bytes())];
        if frame.guarded {
            options.insert(0, option(OptionCode::Comment, GUARDED.as_bytes()));
        }
        let (ts_high, ts_low) = timestamp(frame.time);
        let written = self.write_block(EnhancedPacketBlock {
            block_type: 0,
            block_len1: 0,
            if_id: frame.interface,
            ts_high,
            ts_low,
            caplen: data.len() as u32,
            origlen: length as u32,
            data,
            options,
            block_len2: 0,
        });
        self.joined = joined;
        written
    }

    /// Writes the kernel's counters of an interface at `time` (since the Unix epoch). The kernel
    /// counts per capture: if the capture has several interfaces, a comment says that the counters
    /// cover all of them.
    ///
    /// # Errors
    /// [`CaptureError::Write`].
    pub fn write_statistics(
        &mut self,
        interface: u32,
        time: Duration,
        statistics: &InterfaceStatistics,
    ) -> Result<(), CaptureError> {
        let (ts_high, ts_low) = timestamp(time);
        let mut options = vec![
            option(OptionCode::IsbIfRecv, &statistics.received.to_le_bytes()),
            option(OptionCode::IsbOsDrop, &statistics.dropped.to_le_bytes()),
        ];
        if self.interfaces.len() > 1 {
            options.insert(0, option(OptionCode::Comment, COUNTED_TOGETHER.as_bytes()));
        }
        self.write_block(InterfaceStatisticsBlock {
            block_type: 0,
            block_len1: 0,
            if_id: interface,
            ts_high,
            ts_low,
            options,
            block_len2: 0,
        })
    }

    /// Flushes the buffer to the file.
    ///
    /// # Errors
    /// [`CaptureError::Write`].
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        Ok(self.out.flush()?)
    }

    fn write_block(&mut self, mut block: impl ToVec) -> Result<(), CaptureError> {
        let bytes = block.to_vec().map_err(|_| CaptureError::Format("pcap-parser can't encode it"))?;
        Ok(self.out.write_all(&bytes)?)
    }
}

fn option<'a>(code: OptionCode, value: &[u8]) -> PcapNGOption<'a> {
    PcapNGOption { code, len: value.len() as u16, value: Cow::Owned(value.to_vec()) }
}

/// Returns nanoseconds since the epoch in two halves, sufficient until the year 2554.
fn timestamp(time: Duration) -> (u32, u32) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    ((nanoseconds >> 32) as u32, nanoseconds as u32)
}
