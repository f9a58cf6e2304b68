//! Reads pcapng's packet block, which the enhanced packet block replaced (pcapng, section 4.7).
use std::borrow::Cow;

use pcap_parser::{EnhancedPacketBlock, OptionCode, PcapNGOption};

use super::format::PACKET_FLAGS;

/// The type of a packet block.
pub(super) const PACKET_BLOCK: u32 = 2;

/// Reads the content of a packet block; `None` if it is shorter than it states.
pub(super) fn read(content: &[u8], big_endian: bool) -> Option<EnhancedPacketBlock<'_>> {
    let number = |bytes| if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let half = |bytes| if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let (header, rest) = content.split_first_chunk::<20>()?;
    let (words, _) = header.as_chunks::<4>();
    let &[[a, b, _drops, _], high, low, captured, length] = words else { return None };
    let data = rest.get(..number(captured) as usize)?;
    let mut options = Vec::new();
    let mut left = rest.get(data.len().next_multiple_of(4)..).unwrap_or_default();
    // The flags alone mean the same as in an enhanced packet block.
    while let Some((&[a, b, c, d], behind)) = left.split_first_chunk() {
        let (code, length) = (OptionCode(half([a, b])), half([c, d]));
        let Some(value) = behind.get(..length.into()).filter(|_| code != OptionCode::EndOfOpt) else { break };
        if code == PACKET_FLAGS {
            options.push(PcapNGOption { code, len: length, value: Cow::Borrowed(value) });
        }
        left = behind.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(EnhancedPacketBlock {
        block_type: PACKET_BLOCK,
        block_len1: 0,
        if_id: half([a, b]).into(),
        ts_high: number(high),
        ts_low: number(low),
        caplen: number(captured),
        origlen: number(length),
        data,
        options,
        block_len2: 0,
    })
}
