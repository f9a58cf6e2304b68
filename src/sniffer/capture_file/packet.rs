//! Makes frames of the packets in a capture file's blocks.
use std::time::Duration;

use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, LegacyPcapBlock, OptionCode, PcapHeader,
    SimplePacketBlock, traits::PcapNGPacketBlock,
};

use super::format::{DIRECTION_BITS, GUARDED, INBOUND, OUTBOUND, PACKET_FLAGS};
use crate::sniffer::frame::{CapturedFrame, FrameDirection, LinkType};

/// The format of an interface's frames and timestamps.
#[derive(Clone, Copy)]
pub(super) struct InterfaceFormat {
    pub(super) link_type: LinkType,
    pub(super) snap_length: u32,
    /// Timestamp units per second.
    resolution: u64,
    /// Seconds to add to each timestamp.
    offset: i64,
}

impl InterfaceFormat {
    pub(super) fn of_pcap(header: &PcapHeader) -> InterfaceFormat {
        InterfaceFormat {
            // The upper half describes frame check sequences.
            link_type: LinkType::from_number(header.network.0 as u16),
            snap_length: header.snaplen,
            resolution: if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 },
            offset: 0,
        }
    }

    /// The resolution is a power of ten or, with the highest bit set, of two (pcapng,
    /// `if_tsresol`).
    pub(super) fn of_pcapng(
        interface: &InterfaceDescriptionBlock<'_>,
        big_endian: bool,
    ) -> Result<InterfaceFormat, &'static str> {
        let exponent = u32::from(interface.if_tsresol & 0x7f);
        let base: u64 = if interface.if_tsresol & 0x80 == 0 { 10 } else { 2 };
        Ok(InterfaceFormat {
            link_type: LinkType::from_number(interface.linktype.0 as u16),
            snap_length: interface.snaplen,
            resolution: base
                .checked_pow(exponent)
                .ok_or("the resolution of its time stamps is out of range")?,
            // pcap-parser reads the offset in little-endian order always.
            offset: if big_endian { interface.if_tsoffset.swap_bytes() } else { interface.if_tsoffset },
        })
    }

    /// Returns a timestamp as time since the Unix epoch.
    fn time(&self, units: u64) -> Duration {
        let seconds = (units / self.resolution).saturating_add_signed(self.offset);
        // The remainder keeps the fraction below a second.
        let fraction = u128::from(units % self.resolution) * 1_000_000_000 / u128::from(self.resolution);
        Duration::from_secs(seconds).saturating_add(Duration::from_nanos(fraction as u64))
    }
}

/// Returns the frame of a pcap record.
pub(super) fn legacy_frame<'a>(packet: &LegacyPcapBlock<'a>, format: &InterfaceFormat) -> CapturedFrame<'a> {
    // A forged fraction beyond a second carries over.
    let fraction = InterfaceFormat { offset: 0, ..*format }.time(packet.ts_usec.into());
    let time = Duration::from_secs(packet.ts_sec.into()).saturating_add(fraction);
    let frame = frame(format, time, packet.data);
    CapturedFrame { length: frame.length.max(packet.origlen as usize), ..frame }
}

/// Returns the frame of an enhanced packet block.
pub(super) fn enhanced_frame<'a>(
    packet: &EnhancedPacketBlock<'a>,
    format: &InterfaceFormat,
    earlier_interfaces: u32,
    big_endian: bool,
) -> CapturedFrame<'a> {
    let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
    let time = format.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
    let mut frame = CapturedFrame {
        interface: earlier_interfaces.saturating_add(packet.if_id),
        length: data.len().max(packet.orig_len() as usize),
        ..frame(format, time, data)
    };
    for option in &packet.options {
        match (option.code, option.as_bytes()) {
            (OptionCode::EndOfOpt, _) => break,
            (PACKET_FLAGS, Ok(&[a, b, c, d])) => match number([a, b, c, d], big_endian) & DIRECTION_BITS {
                INBOUND => frame.direction = FrameDirection::Inbound,
                OUTBOUND => frame.direction = FrameDirection::Outbound,
                _ => {}
            },
            (OptionCode::Comment, Ok(comment)) => frame.guarded |= comment == GUARDED.as_bytes(),
            _ => {}
        }
    }
    frame
}

/// Returns the frame of a simple packet block, which has no time, and belongs to the section's first
/// interface.
pub(super) fn simple_frame<'a>(
    packet: &SimplePacketBlock<'a>,
    format: &InterfaceFormat,
    earlier_interfaces: u32,
) -> CapturedFrame<'a> {
    let length = packet.origlen as usize;
    let captured = if format.snap_length == 0 { length } else { length.min(format.snap_length as usize) };
    let data = packet.data.get(..captured).unwrap_or(packet.data);
    CapturedFrame { interface: earlier_interfaces, length, ..frame(format, Duration::ZERO, data) }
}

/// Returns a frame whose direction only a Linux cooked header tells: packet type 4 is
/// PACKET_OUTGOING.
fn frame<'a>(format: &InterfaceFormat, time: Duration, data: &'a [u8]) -> CapturedFrame<'a> {
    let outgoing = match format.link_type {
        LinkType::LinuxCooked1 => data.starts_with(&[0, 4]),
        LinkType::LinuxCooked2 => data.get(10) == Some(&4),
        _ => false,
    };
    let direction = if outgoing { FrameDirection::Outbound } else { FrameDirection::Inbound };
    CapturedFrame::new(time, direction, format.link_type, data)
}

/// Returns a number in the file's byte order.
pub(super) fn number(bytes: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}
