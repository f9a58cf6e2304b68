//! Reads TCP headers with their options (RFC 9293, section 3.1).
use pnet_packet::tcp::{TcpOptionNumbers, TcpPacket};

use super::{
    cursor::Cursor,
    headers::{Ip, Tcp, TcpOptions, Transport},
    problem::Problem,
};

/// The AE flag among the reserved bits (RFC 9768, section 3.1.1).
const AE: u8 = 1;

/// Reads the TCP header of an IP packet. Returns the first problem beside it.
pub(super) fn read(cursor: &mut Cursor<'_>, ip: &Ip) -> (Transport, Option<Problem>) {
    let need = TcpPacket::minimum_packet_size();
    let tcp = match cursor.peek_packet("tcp header", need, TcpPacket::new) {
        Ok(tcp) => tcp,
        Err(problem) => return (Transport::Malformed { ports: peek_ports(cursor) }, Some(problem)),
    };
    let malformed = Transport::Malformed { ports: Some((tcp.get_source(), tcp.get_destination())) };
    let words = tcp.get_data_offset();
    if words < 5 {
        return (malformed, Some(Problem::TcpDataOffset(words)));
    }
    let offset = usize::from(words) * 4;
    let length = cursor.remaining();
    // A first fragment may end within the header; the decoder then reads the options up to there.
    if offset > length && !cursor.is_fragment() {
        return (malformed, Some(Problem::TcpHeaderTooLong { offset, length }));
    }
    let cut = cursor.peek("tcp header", offset).err();
    let (options, problem) = read_options(cursor.peek_available(offset).get(need..).unwrap_or_default());
    cursor.skip(offset);
    let flags = u16::from(tcp.get_reserved() & AE) << 8 | u16::from(tcp.get_flags());
    let tcp = Tcp {
        source: tcp.get_source(),
        destination: tcp.get_destination(),
        sequence: tcp.get_sequence(),
        acknowledgement: tcp.get_acknowledgement(),
        flags,
        window: tcp.get_window(),
        checksum: tcp.get_checksum(),
        options,
        length: ip.length.saturating_sub(offset),
    };
    (Transport::Tcp(tcp), cut.or(problem))
}

/// Returns source and destination port, which TCP and UDP have in the same place.
pub(super) fn peek_ports(cursor: &Cursor<'_>) -> Option<(u16, u16)> {
    let &[a, b, c, d] = cursor.peek("ports", 4).ok()? else { return None };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Reads options up to their end or to the first malformed one.
fn read_options(mut bytes: &[u8]) -> (TcpOptions, Option<Problem>) {
    let mut options = TcpOptions::default();
    while let [kind, rest @ ..] = bytes {
        let kind = *kind;
        if kind == TcpOptionNumbers::EOL.0 {
            break;
        }
        if kind == TcpOptionNumbers::NOP.0 {
            bytes = rest;
            continue;
        }
        let length = rest.first().copied().unwrap_or_default();
        let value = bytes.get(2..usize::from(length));
        if value.and_then(|value| read_option(&mut options, kind, value)).is_none() {
            return (options, Some(Problem::TcpOption { kind, length }));
        }
        bytes = bytes.get(usize::from(length)..).unwrap_or_default();
    }
    (options, None)
}

/// Reads one option; returns `None` if a value of this length does not fit its kind.
fn read_option(options: &mut TcpOptions, kind: u8, value: &[u8]) -> Option<()> {
    match kind {
        kind if kind == TcpOptionNumbers::MSS.0 => {
            options.mss = Some(u16::from_be_bytes(value.try_into().ok()?));
        }
        kind if kind == TcpOptionNumbers::WSCALE.0 => {
            let &[shift] = value else { return None };
            options.window_scale = Some(shift);
        }
        kind if kind == TcpOptionNumbers::SACK_PERMITTED.0 => {
            options.sack_permitted = value.is_empty();
            return value.is_empty().then_some(());
        }
        kind if kind == TcpOptionNumbers::SACK.0 => {
            let (blocks, odd) = value.as_chunks::<8>();
            if !odd.is_empty() || blocks.is_empty() {
                return None;
            }
            for block in blocks {
                options.sack.try_push(two_words(block)).ok()?;
            }
        }
        kind if kind == TcpOptionNumbers::TIMESTAMPS.0 => {
            options.timestamps = Some(two_words(value.try_into().ok()?));
        }
        kind => options.others.try_push(kind).ok()?,
    }
    Some(())
}

fn two_words(&[a, b, c, d, e, f, g, h]: &[u8; 8]) -> (u32, u32) {
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
