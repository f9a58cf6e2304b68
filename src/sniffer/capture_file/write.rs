//! Writes pcapng: one section, an interface description for each interface, an enhanced packet for each frame with
//! direction and nanoseconds, interface statistics at the end.
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

use super::{COUNTED_TOGETHER, CaptureError, GUARDED, Interface, PACKET_FLAGS, Statistics};
use crate::{
    sniffer::{Direction, LinkType, Observed},
    writer::Writer,
};

/// The buffer is handed on when it is full and on [`CaptureWriter::flush`].
const BUFFER: usize = 256 * 1024;

/// `if_tsresol`: ten to the power of minus nine seconds.
const NANOSECONDS: u8 = 9;

/// Bytes of the two Ethernet addresses, after which a VLAN tag goes.
const ADDRESSES: usize = 12;

/// A pcapng file in the making.
pub struct CaptureWriter<W: Write> {
    out: BufWriter<W>,
    /// The snap length of each interface.
    interfaces: Vec<u32>,
    /// A frame in several pieces, or one that gets its VLAN tag back, is joined here.
    joined: Vec<u8>,
}

impl CaptureWriter<Writer> {
    /// Creates the file, or empties it if it exists. A FIFO waits for its reader.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = Writer::create(path, false)
            .map_err(|source| CaptureError::Create { path: path.to_owned(), source })?;
        CaptureWriter::new(file)
    }
}

impl<W: Write> CaptureWriter<W> {
    /// Starts a file.
    pub fn new(out: W) -> Result<Self, CaptureError> {
        let mut writer = CaptureWriter {
            out: BufWriter::with_capacity(BUFFER, out),
            interfaces: Vec::new(),
            joined: Vec::new(),
        };
        let program = concat!("netkat ", env!("CARGO_PKG_VERSION"));
        writer.block(SectionHeaderBlock {
            block_type: 0,
            block_len1: 0,
            bom: 0,
            major_version: 0,
            minor_version: 0,
            // Not known in advance.
            section_len: -1,
            options: vec![
                option(OptionCode::ShbOs, std::env::consts::OS.as_bytes()),
                option(OptionCode::ShbUserAppl, program.as_bytes()),
            ],
            block_len2: 0,
        })?;
        Ok(writer)
    }

    /// Describes an interface; frames refer to it by the number that is returned, from 0 upwards.
    pub fn add_interface(&mut self, interface: &Interface) -> Result<u32, CaptureError> {
        let mut options = Vec::new();
        if !interface.name.is_empty() {
            options.push(option(OptionCode::IfName, interface.name.as_bytes()));
        }
        self.block(InterfaceDescriptionBlock {
            block_type: 0,
            block_len1: 0,
            linktype: Linktype(interface.link.number().into()),
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

    /// Writes one frame of an interface that was described before.
    pub fn frame(&mut self, frame: &Observed<'_>) -> Result<(), CaptureError> {
        let snap_length = *self
            .interfaces
            .get(frame.interface as usize)
            .ok_or(CaptureError::Format("its interface was never described"))?;
        let tag = frame.vlan.filter(|_| frame.link == LinkType::Ethernet);
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
        // pcapng: bits 0 and 1 of the flags are the direction.
        let flags: u32 = match frame.direction {
            Direction::Receive => 1,
            Direction::Send => 2,
        };
        let mut options = vec![option(PACKET_FLAGS, &flags.to_le_bytes())];
        if frame.guarded {
            options.insert(0, option(OptionCode::Comment, GUARDED.as_bytes()));
        }
        let (ts_high, ts_low) = timestamp(frame.time);
        let written = self.block(EnhancedPacketBlock {
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

    /// Says what the kernel counted on an interface until `time` (since the Unix epoch). It counts for the whole
    /// capture, so where that has several interfaces a comment says that the numbers are theirs together.
    pub fn statistics(
        &mut self,
        interface: u32,
        time: Duration,
        statistics: &Statistics,
    ) -> Result<(), CaptureError> {
        let (ts_high, ts_low) = timestamp(time);
        let mut options = vec![
            option(OptionCode::IsbIfRecv, &statistics.received.to_le_bytes()),
            option(OptionCode::IsbOsDrop, &statistics.dropped.to_le_bytes()),
        ];
        if self.interfaces.len() > 1 {
            options.insert(0, option(OptionCode::Comment, COUNTED_TOGETHER.as_bytes()));
        }
        self.block(InterfaceStatisticsBlock {
            block_type: 0,
            block_len1: 0,
            if_id: interface,
            ts_high,
            ts_low,
            options,
            block_len2: 0,
        })
    }

    /// Hands everything written so far to the file.
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        Ok(self.out.flush()?)
    }

    fn block(&mut self, mut block: impl ToVec) -> Result<(), CaptureError> {
        let bytes = block.to_vec().map_err(|_| CaptureError::Format("pcap-parser can't encode it"))?;
        Ok(self.out.write_all(&bytes)?)
    }
}

fn option<'a>(code: OptionCode, value: &[u8]) -> PcapNGOption<'a> {
    PcapNGOption { code, len: value.len() as u16, value: Cow::Owned(value.to_vec()) }
}

/// Nanoseconds since the epoch in two halves: good until the year 2554.
fn timestamp(time: Duration) -> (u32, u32) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    ((nanoseconds >> 32) as u32, nanoseconds as u32)
}
