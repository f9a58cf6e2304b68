//! Reads pcap (microseconds and nanoseconds, and Kuznetzov's variant) and pcapng, in either byte order.
//!
//! pcap-parser finds the blocks. It leaves the obsolete packet block to this module (`obsolete`), and a
//! block that contradicts itself looks to it like one that is not whole yet: [`CaptureReader::is_buffered`]
//! tells them apart.
use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
};

use pcap_parser::{
    Block, LegacyPcapReader, PcapBlockOwned, PcapError, PcapNGReader, nom::Err::Incomplete,
    parse_pcap_header, parse_sectionheaderblock, traits::PcapReaderIterator,
};

use super::{
    format::{CaptureError, InterfaceDescription, STANDARD_INPUT, SkippedBlocks},
    names::{self, NamedAddress},
    obsolete::{self, PACKET_BLOCK},
    packet::{InterfaceFormat, enhanced_frame, legacy_frame, number, simple_frame},
    signature::{self, PCAPNG_MAJOR, SECTION_HEADER},
};
use crate::{sniffer::frame::CapturedFrame, stdio::STANDARD};

/// Initial size of the buffer in bytes: room for the largest frames of Linux (BIG TCP: 512 KiB).
const INITIAL_BUFFER: usize = 1 << 20;

/// Maximum size of a block in bytes; a larger one is damage, not a packet.
const MAX_BLOCK: usize = 64 << 20;

/// Size of a pcap record's header in bytes.
const RECORD_HEADER: usize = 16;

/// Minimum size of a pcapng block in bytes: its type, and its length at either end.
const MIN_BLOCK: u32 = 12;

/// A record of a capture file.
#[derive(Debug)]
pub enum CaptureRecord<'a> {
    /// The next interface, before its frames. The first is number 0 of the whole file.
    Interface(InterfaceDescription),
    /// A frame.
    Frame(CapturedFrame<'a>),
}

/// A reader of a capture file.
pub struct CaptureReader {
    name: String,
    blocks: Box<dyn PcapReaderIterator + Send>,
    /// Size of the buffer of `blocks`, in bytes.
    buffer_size: usize,
    /// Size of the block that the caller holds, in bytes.
    held: usize,
    pcapng: bool,
    big_endian: bool,
    /// The interfaces of the file's current section.
    interfaces: Vec<InterfaceFormat>,
    /// Number of interfaces in the sections before.
    earlier_interfaces: u32,
    packets: u64,
    /// Length of a pcap record's header, in bytes.
    record_header: usize,
    skipped: Option<SkippedBlocks>,
    /// The addresses of the file's name resolution blocks, if they are wanted.
    names: Option<Vec<NamedAddress>>,
}

/// The content of a block, without a borrow from the buffer.
enum BlockContent {
    Section { big_endian: bool },
    Interface(String, InterfaceFormat),
    Frame,
    Names(Vec<NamedAddress>),
    Skipped(u32),
    Other,
}

impl CaptureReader {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// [`CaptureError::Open`], and those of [`new`](Self::new).
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let standard = path == Path::new(STANDARD);
        let file = match standard {
            true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            false => File::open(path),
        };
        let file = file.map_err(|source| CaptureError::Open { path: path.to_owned(), source })?;
        CaptureReader::new(file, &if standard { STANDARD_INPUT.into() } else { path.display().to_string() })
    }

    /// Collects the file's own names on the way.
    pub(super) fn with_names(mut self) -> Self {
        self.names = Some(Vec::new());
        self
    }

    /// Returns the names up to here.
    pub(super) fn into_names(self) -> Vec<NamedAddress> {
        self.names.unwrap_or_default()
    }

    /// Returns the blocks up to here that were not read, and may have held packets.
    pub fn skipped(&self) -> Option<SkippedBlocks> {
        self.skipped
    }

    /// Reads from a stream; errors call it `name`.
    ///
    /// # Errors
    /// [`CaptureError::Read`], and those that tell another format or version by the first bytes.
    pub fn new(mut input: impl Read + Send + 'static, name: &str) -> Result<Self, CaptureError> {
        let start = read_first_block(&mut input)
            .map_err(|source| CaptureError::Read { name: name.to_owned(), source })?;
        signature::check(&start, name)?;
        let blocks =
            open_blocks(start, input).ok_or_else(|| CaptureError::NotACapture { name: name.to_owned() })?;
        Ok(CaptureReader {
            name: name.to_owned(),
            blocks,
            buffer_size: INITIAL_BUFFER,
            held: 0,
            pcapng: false,
            big_endian: false,
            interfaces: Vec::new(),
            earlier_interfaces: 0,
            packets: 0,
            record_header: RECORD_HEADER,
            skipped: None,
            names: None,
        })
    }

    /// Returns the next interface or frame, or `None` at the end of the file.
    ///
    /// # Errors
    /// [`CaptureError::Read`], [`CaptureError::Truncated`], [`CaptureError::Malformed`]. The reader
    /// is at its end then.
    pub fn read(&mut self) -> Result<Option<CaptureRecord<'_>>, CaptureError> {
        loop {
            match self.advance()? {
                None => return Ok(None),
                Some(BlockContent::Section { big_endian }) => {
                    self.pcapng = true;
                    self.big_endian = big_endian;
                    self.earlier_interfaces += self.interfaces.len() as u32;
                    self.interfaces.clear();
                }
                Some(BlockContent::Interface(name, format)) => {
                    self.interfaces.push(format);
                    let InterfaceFormat { link_type, snap_length, .. } = format;
                    let interface = InterfaceDescription { name, link_type, snap_length };
                    return Ok(Some(CaptureRecord::Interface(interface)));
                }
                Some(BlockContent::Frame) => break,
                Some(BlockContent::Names(found)) => names::extend(self.names.as_mut(), found),
                Some(BlockContent::Skipped(kind)) => {
                    self.skipped.get_or_insert(SkippedBlocks { count: 0, first: kind }).count += 1;
                }
                Some(BlockContent::Other) => {}
            }
        }
        self.packets += 1;
        let damaged = |what| damaged(&self.name, self.packets, what);
        // Parses the block again: the borrow checker allows only the returned one to borrow from
        // the buffer.
        let (_, block) = self.blocks.next().map_err(|_| damaged("a packet can't be read"))?;
        let format = |interface| {
            let format = usize::try_from(interface).ok().and_then(|number| self.interfaces.get(number));
            format.ok_or_else(|| damaged("a packet's interface is not described"))
        };
        let frame = match block {
            PcapBlockOwned::Legacy(packet) => legacy_frame(&packet, format(0)?),
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                enhanced_frame(&packet, format(packet.if_id)?, self.earlier_interfaces, self.big_endian)
            }
            PcapBlockOwned::NG(Block::Unknown(block)) => {
                let packet = obsolete::read(block.data, self.big_endian)
                    .ok_or_else(|| damaged("a packet can't be read"))?;
                enhanced_frame(&packet, format(packet.if_id)?, self.earlier_interfaces, self.big_endian)
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                simple_frame(&packet, format(0)?, self.earlier_interfaces)
            }
            _ => return Err(damaged("a block changed while it was read")),
        };
        Ok(Some(CaptureRecord::Frame(frame)))
    }

    /// Drops the block that the caller held and parses the next. Returns `None` at the end of the
    /// file.
    fn advance(&mut self) -> Result<Option<BlockContent>, CaptureError> {
        self.blocks.consume(std::mem::take(&mut self.held));
        loop {
            let damaged = |what| damaged(&self.name, self.packets, what);
            if self.is_next_too_short() {
                return Err(damaged("a block is shorter than its own header"));
            }
            let whole = self.is_buffered();
            let full = match self.blocks.next() {
                Ok((length, block)) => {
                    self.held = length;
                    if let PcapBlockOwned::LegacyHeader(header) = &block {
                        self.big_endian = header.is_bigendian();
                        self.record_header += if header.is_modified_format() { 8 } else { 0 };
                    }
                    if let PcapBlockOwned::NG(Block::SectionHeader(section)) = &block
                        && section.major_version != PCAPNG_MAJOR
                    {
                        return Err(CaptureError::Version {
                            name: self.name.clone(),
                            format: "pcapng",
                            major: section.major_version,
                            minor: section.minor_version,
                        });
                    }
                    return content(&block, self.big_endian).map(Some).map_err(damaged);
                }
                Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall | PcapError::UnexpectedEof)
                    if whole =>
                {
                    return Err(damaged("a block contradicts its own length"));
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => false,
                Err(PcapError::BufferTooSmall) => true,
                Err(PcapError::UnexpectedEof) => {
                    return Err(CaptureError::Truncated { name: self.name.clone(), packets: self.packets });
                }
                Err(_) => return Err(damaged("a block can't be read")),
            };
            if full {
                self.buffer_size *= 2;
                if self.buffer_size > MAX_BLOCK || !self.blocks.grow(self.buffer_size) {
                    return Err(damaged("a block is too large to be true"));
                }
            }
            if self.blocks.refill().is_err() {
                let source = io::Error::other("reading failed");
                return Err(CaptureError::Read { name: self.name.clone(), source });
            }
        }
    }

    /// Returns whether the next pcapng block states a length below the minimum, which pcap-parser
    /// subtracts unchecked. pcap-parser checks a section header, whose byte order is its own.
    fn is_next_too_short(&self) -> bool {
        let Some(&[a, b, c, d, e, f, g, h]) = self.unread().first_chunk() else { return false };
        let length = number([e, f, g, h], self.big_endian);
        self.pcapng && [a, b, c, d] != SECTION_HEADER && length < MIN_BLOCK
    }

    /// Returns whether [`read`](Self::read) has a whole record at hand. Otherwise it may wait for the
    /// file's writer, so it is time to show what has been read.
    pub fn is_buffered(&self) -> bool {
        let unread = self.unread();
        let word = |at: usize| {
            let bytes = unread.get(at..)?.first_chunk()?;
            Some(number(*bytes, self.big_endian) as usize)
        };
        let length = if self.pcapng {
            // The byte order of a section may be another one.
            word(4).filter(|_| !unread.starts_with(&SECTION_HEADER))
        } else {
            word(8).and_then(|captured| captured.checked_add(self.record_header))
        };
        length.is_some_and(|length| length <= unread.len())
    }

    /// Returns the bytes in the buffer behind the block that the caller holds.
    fn unread(&self) -> &[u8] {
        self.blocks.data().get(self.held..).unwrap_or_default()
    }
}

fn content(block: &PcapBlockOwned<'_>, big_endian: bool) -> Result<BlockContent, &'static str> {
    Ok(match block {
        PcapBlockOwned::LegacyHeader(header) => {
            BlockContent::Interface(String::new(), InterfaceFormat::of_pcap(header))
        }
        PcapBlockOwned::NG(Block::SectionHeader(section)) => {
            BlockContent::Section { big_endian: section.big_endian() }
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            let name = interface.if_name().and_then(Result::ok).unwrap_or_default();
            BlockContent::Interface(name.to_owned(), InterfaceFormat::of_pcapng(interface, big_endian)?)
        }
        PcapBlockOwned::Legacy(_) | PcapBlockOwned::NG(Block::EnhancedPacket(_) | Block::SimplePacket(_)) => {
            BlockContent::Frame
        }
        PcapBlockOwned::NG(Block::Unknown(block)) => match block_type(block.block_type, big_endian) {
            PACKET_BLOCK => BlockContent::Frame,
            kind => BlockContent::Skipped(kind),
        },
        PcapBlockOwned::NG(Block::Custom(block)) => {
            BlockContent::Skipped(block_type(block.block_type, big_endian))
        }
        PcapBlockOwned::NG(Block::NameResolution(block)) => BlockContent::Names(names::read(block)),
        PcapBlockOwned::NG(_) => BlockContent::Other,
    })
}

fn damaged(name: &str, packets: u64, what: &'static str) -> CaptureError {
    CaptureError::Malformed { name: name.to_owned(), packets, what }
}

/// Returns a block's type, which pcap-parser reads in little-endian order always.
fn block_type(kind: u32, big_endian: bool) -> u32 {
    number(kind.to_le_bytes(), big_endian)
}

/// Opens pcap-parser's reader of the format that `start` has; `None` if pcap-parser refuses it.
///
/// `create_reader` of pcap-parser would do, but reads twice, and waits for a pipe's second packet.
fn open_blocks(
    start: Vec<u8>,
    input: impl Read + Send + 'static,
) -> Option<Box<dyn PcapReaderIterator + Send>> {
    let pcapng = start.starts_with(&SECTION_HEADER);
    let input = io::Cursor::new(start).chain(input);
    Some(match pcapng {
        true => Box::new(PcapNGReader::new(INITIAL_BUFFER, input).ok()?),
        false => Box::new(LegacyPcapReader::new(INITIAL_BUFFER, input).ok()?),
    })
}

/// Reads the whole first block, which pcap-parser's constructor demands, from a stream however
/// slow.
fn read_first_block(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = input.read(&mut piece)?;
        start.extend_from_slice(piece.get(..read).unwrap_or_default());
        let more = matches!(parse_sectionheaderblock(&start), Err(Incomplete(_)))
            || matches!(parse_pcap_header(&start), Err(Incomplete(_)));
        if read == 0 || !more || start.len() >= INITIAL_BUFFER {
            return Ok(start);
        }
    }
}
