//! Reads pcap (microseconds and nanoseconds) and pcapng, both in either byte order.
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use pcap_parser::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, LegacyPcapBlock, OptionCode, PcapBlockOwned,
    PcapError, PcapHeader, create_reader,
    nom::Err::Incomplete,
    parse_pcap_header, parse_sectionheaderblock,
    traits::{PcapNGPacketBlock, PcapReaderIterator},
};

use super::{CaptureError, GUARDED, Interface, PACKET_FLAGS};
use crate::sniffer::{Direction, LinkType, Observed};

/// Room for the largest frames that Linux makes (BIG TCP: 512 KiB); a larger block makes it grow.
const BUFFER: usize = 1 << 20;

/// A block larger than this is taken for damage, not for a packet.
const LARGEST_BLOCK: usize = 64 << 20;

/// The type of a pcapng section header, in either byte order.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A pcapng block's type, and its length at either end, in bytes.
const SMALLEST_BLOCK: u32 = 12;

/// What a capture file holds, in its order.
#[derive(Debug)]
pub enum Record<'a> {
    /// The next interface, whose frames follow; numbered from 0 upwards through the whole file.
    Interface(Interface),
    Frame(Observed<'a>),
}

/// Reads a capture file.
pub struct CaptureReader {
    name: String,
    blocks: Box<dyn PcapReaderIterator + Send>,
    /// The size of its buffer.
    room: usize,
    /// Bytes of the block that the caller has seen last.
    seen: usize,
    pcapng: bool,
    big_endian: bool,
    /// The interfaces of the current section of the file, and how many there were before.
    interfaces: Vec<Clock>,
    before: u32,
    packets: u64,
}

/// How an interface tells the time, and what its frames are.
#[derive(Clone, Copy)]
struct Clock {
    link: LinkType,
    snap_length: u32,
    /// Units in a second.
    resolution: u64,
    /// Seconds to add.
    offset: i64,
}

impl CaptureReader {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|source| CaptureError::Open { path: path.to_owned(), source })?;
        CaptureReader::new(file, &path.display().to_string())
    }

    /// Reads from anything; `name` is what errors call it.
    pub fn new(mut input: impl Read + Send + 'static, name: &str) -> Result<Self, CaptureError> {
        let start =
            start(&mut input).map_err(|source| CaptureError::Read { name: name.to_owned(), source })?;
        let blocks = create_reader(BUFFER, io::Cursor::new(start).chain(input))
            .map_err(|_| CaptureError::NotACapture { name: name.to_owned() })?;
        Ok(CaptureReader {
            name: name.to_owned(),
            blocks,
            room: BUFFER,
            seen: 0,
            pcapng: false,
            big_endian: false,
            interfaces: Vec::new(),
            before: 0,
            packets: 0,
        })
    }

    /// The next interface or frame, or `None` at the end of the file. After an error there is nothing more to be had.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, CaptureError> {
        loop {
            match self.advance()? {
                Found::Interface(interface) => return Ok(Some(Record::Interface(interface))),
                Found::Frame => break,
                Found::Nothing => {}
                Found::End => return Ok(None),
            }
        }
        self.packets += 1;
        let damaged = |what| damaged(&self.name, self.packets, what);
        // The same block once more: only the one that is handed out may be borrowed.
        let (_, block) = self.blocks.next().map_err(|_| damaged("a packet can't be read"))?;
        let clock = |interface| {
            let clock = usize::try_from(interface).ok().and_then(|number| self.interfaces.get(number));
            clock.ok_or_else(|| damaged("a packet's interface is not described"))
        };
        let frame = match block {
            PcapBlockOwned::Legacy(packet) => legacy(&packet, clock(0)?),
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                enhanced(&packet, clock(packet.if_id)?, self.before, self.big_endian)
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let clock = clock(0)?;
                let length = packet.origlen as usize;
                let kept =
                    if clock.snap_length == 0 { length } else { length.min(clock.snap_length as usize) };
                let data = packet.data.get(..kept).unwrap_or(packet.data);
                Observed { interface: self.before, length, ..observed(clock, Duration::ZERO, data) }
            }
            _ => return Err(damaged("a block changed while it was read")),
        };
        Ok(Some(Record::Frame(frame)))
    }

    /// Drops the block that was seen last and looks at the next.
    fn advance(&mut self) -> Result<Found, CaptureError> {
        self.blocks.consume(std::mem::take(&mut self.seen));
        loop {
            if self.is_next_too_short() {
                return Err(damaged(&self.name, self.packets, "a block is shorter than its own header"));
            }
            let short = match self.blocks.next() {
                Ok((length, block)) => {
                    self.seen = length;
                    let found = found(&block);
                    return match found {
                        Ok(what) => self.note(what),
                        Err(what) => Err(damaged(&self.name, self.packets, what)),
                    };
                }
                Err(PcapError::Eof) => return Ok(Found::End),
                Err(PcapError::Incomplete(_)) => false,
                Err(PcapError::BufferTooSmall) => true,
                Err(PcapError::UnexpectedEof) => {
                    return Err(CaptureError::Truncated { name: self.name.clone(), packets: self.packets });
                }
                Err(_) => return Err(damaged(&self.name, self.packets, "a block can't be read")),
            };
            if short {
                self.room *= 2;
                if self.room > LARGEST_BLOCK || !self.blocks.grow(self.room) {
                    return Err(damaged(&self.name, self.packets, "a block is too large to be true"));
                }
            }
            if self.blocks.refill().is_err() {
                let source = io::Error::other("reading failed");
                return Err(CaptureError::Read { name: self.name.clone(), source });
            }
        }
    }

    /// Whether the next block of a pcapng file claims a length below that of the smallest one there can be, which
    /// pcap-parser subtracts without a look. A section's header has a byte order of its own, and is looked at.
    fn is_next_too_short(&self) -> bool {
        let Some((&kind, rest)) = self.blocks.data().split_first_chunk::<4>() else { return false };
        let Some(&length) = rest.first_chunk::<4>() else { return false };
        let length = if self.big_endian { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
        self.pcapng && kind != SECTION_HEADER && length < SMALLEST_BLOCK
    }

    /// Remembers what frames need to know of their section and interface.
    fn note(&mut self, what: Noted) -> Result<Found, CaptureError> {
        Ok(match what {
            Noted::Section { big_endian } => {
                self.pcapng = true;
                self.big_endian = big_endian;
                self.before += self.interfaces.len() as u32;
                self.interfaces.clear();
                Found::Nothing
            }
            Noted::Interface(name, clock) => {
                self.interfaces.push(clock);
                Found::Interface(Interface { name, link: clock.link, snap_length: clock.snap_length })
            }
            Noted::Frame => Found::Frame,
            Noted::Other => Found::Nothing,
        })
    }
}

/// What the next block is to the caller.
enum Found {
    Interface(Interface),
    Frame,
    Nothing,
    End,
}

/// What a block says, without borrowing from it.
enum Noted {
    Section { big_endian: bool },
    Interface(String, Clock),
    Frame,
    Other,
}

fn found(block: &PcapBlockOwned<'_>) -> Result<Noted, &'static str> {
    Ok(match block {
        PcapBlockOwned::LegacyHeader(header) => Noted::Interface(String::new(), legacy_clock(header)),
        PcapBlockOwned::NG(Block::SectionHeader(section)) => {
            Noted::Section { big_endian: section.big_endian() }
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            let name = interface.if_name().and_then(Result::ok).unwrap_or_default();
            Noted::Interface(name.to_owned(), clock(interface)?)
        }
        PcapBlockOwned::Legacy(_) | PcapBlockOwned::NG(Block::EnhancedPacket(_) | Block::SimplePacket(_)) => {
            Noted::Frame
        }
        PcapBlockOwned::NG(_) => Noted::Other,
    })
}

fn damaged(name: &str, packets: u64, what: &'static str) -> CaptureError {
    CaptureError::Malformed { name: name.to_owned(), packets, what }
}

fn legacy_clock(header: &PcapHeader) -> Clock {
    Clock {
        // The upper half tells of frame check sequences.
        link: LinkType::from_number(header.network.0 as u16),
        snap_length: header.snaplen,
        resolution: if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 },
        offset: 0,
    }
}

/// An interface's resolution is a power of ten or, with the highest bit set, of two (pcapng, `if_tsresol`).
fn clock(interface: &InterfaceDescriptionBlock<'_>) -> Result<Clock, &'static str> {
    let exponent = u32::from(interface.if_tsresol & 0x7f);
    let base: u64 = if interface.if_tsresol & 0x80 == 0 { 10 } else { 2 };
    Ok(Clock {
        link: LinkType::from_number(interface.linktype.0 as u16),
        snap_length: interface.snaplen,
        resolution: base.checked_pow(exponent).ok_or("the resolution of its time stamps is out of range")?,
        offset: interface.if_tsoffset,
    })
}

impl Clock {
    fn time(&self, units: u64) -> Duration {
        let seconds = (units / self.resolution).saturating_add_signed(self.offset);
        let fraction = u128::from(units % self.resolution) * 1_000_000_000 / u128::from(self.resolution);
        // Below a second's worth of them, by the remainder.
        Duration::from_secs(seconds).saturating_add(Duration::from_nanos(fraction as u64))
    }
}

fn legacy<'a>(packet: &LegacyPcapBlock<'a>, clock: &Clock) -> Observed<'a> {
    // A forged fraction beyond a second carries over.
    let fraction = Clock { offset: 0, ..*clock }.time(packet.ts_usec.into());
    let time = Duration::from_secs(packet.ts_sec.into()).saturating_add(fraction);
    let observed = observed(clock, time, packet.data);
    Observed { length: observed.length.max(packet.origlen as usize), ..observed }
}

fn enhanced<'a>(
    packet: &EnhancedPacketBlock<'a>,
    clock: &Clock,
    before: u32,
    big_endian: bool,
) -> Observed<'a> {
    let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
    let time = clock.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
    let mut frame = Observed {
        interface: before.saturating_add(packet.if_id),
        length: data.len().max(packet.orig_len() as usize),
        ..observed(clock, time, data)
    };
    for option in &packet.options {
        match (option.code, option.as_bytes()) {
            (OptionCode::EndOfOpt, _) => break,
            (PACKET_FLAGS, Ok(&[a, b, c, d])) => {
                let flags = if big_endian {
                    u32::from_be_bytes([a, b, c, d])
                } else {
                    u32::from_le_bytes([a, b, c, d])
                };
                match flags & 3 {
                    1 => frame.direction = Direction::Receive,
                    2 => frame.direction = Direction::Send,
                    _ => {}
                }
            }
            (OptionCode::Comment, Ok(comment)) => frame.guarded |= comment == GUARDED.as_bytes(),
            _ => {}
        }
    }
    frame
}

/// A frame whose direction only Linux cooked headers can tell: a packet type of 4 is PACKET_OUTGOING.
fn observed<'a>(clock: &Clock, time: Duration, data: &'a [u8]) -> Observed<'a> {
    let outgoing = match clock.link {
        LinkType::LinuxCooked1 => data.starts_with(&[0, 4]),
        LinkType::LinuxCooked2 => data.get(10) == Some(&4),
        _ => false,
    };
    let direction = if outgoing { Direction::Send } else { Direction::Receive };
    Observed::new(time, direction, clock.link, data)
}

/// The first block, however slowly it comes: pcap-parser's constructor wants to see it whole.
fn start(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = input.read(&mut piece)?;
        start.extend_from_slice(piece.get(..read).unwrap_or_default());
        let more = matches!(parse_sectionheaderblock(&start), Err(Incomplete(_)))
            || matches!(parse_pcap_header(&start), Err(Incomplete(_)));
        if read == 0 || !more || start.len() >= BUFFER {
            return Ok(start);
        }
    }
}
