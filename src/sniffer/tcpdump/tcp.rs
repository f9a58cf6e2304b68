//! TCP segments in tcpdump's form (print-tcp.c).
use super::conversations::Base;
use crate::sniffer::{
    decode::{DecodedFrame, Ip, Tcp},
    frame::CapturedFrame,
    text::AppendText,
};

const FIN: u16 = 0x01;
const RST: u16 = 0x04;
pub(super) const ACK: u16 = 0x10;
const URG: u16 = 0x20;
/// Bytes of a header without options.
const HEADER: usize = 20;
/// Bytes of options at most.
const MAX_OPTIONS: usize = 40;

/// Appends flags, numbers, options and length.
pub(super) fn append(
    out: &mut Vec<u8>,
    frame: &CapturedFrame<'_>,
    decoded: &DecodedFrame,
    ip: &Ip,
    tcp: &Tcp,
    base: Base,
) {
    out.text(" Flags [");
    if tcp.flags == 0 {
        out.text("none");
    }
    for (bit, letter) in b"FSRP.UEWe".iter().enumerate() {
        if tcp.flags >> bit & 1 == 1 {
            out.push(*letter);
        }
    }
    out.push(b']');
    if tcp.length > 0 || tcp.flags & (Tcp::SYN | FIN | RST) != 0 {
        let first = tcp.sequence.wrapping_sub(base.sequence);
        out.text(", seq ");
        out.decimal(first);
        if tcp.length > 0 {
            out.push(b':');
            out.decimal(first.wrapping_add(tcp.length as u32));
        }
    }
    if tcp.flags & ACK != 0 {
        out.text(", ack ");
        out.decimal(tcp.acknowledgement.wrapping_sub(base.acknowledgement));
    }
    out.text(", win ");
    out.decimal(tcp.window);
    let header = ip.length.saturating_sub(tcp.length);
    let end = decoded.payload.start;
    let start = end.saturating_sub(header);
    if tcp.flags & URG != 0 {
        let mut pointer = frame.bytes(start + 18..start + HEADER);
        out.text(", urg ");
        out.decimal(u16::from_be_bytes([pointer.next().unwrap_or(0), pointer.next().unwrap_or(0)]));
    }
    let options: arrayvec::ArrayVec<u8, MAX_OPTIONS> =
        frame.bytes((start + HEADER).min(end)..end).take(MAX_OPTIONS).collect();
    if !options.is_empty() {
        out.text(", options [");
        append_options(out, &options, base);
        out.push(b']');
    }
    out.text(", length ");
    out.decimal(tcp.length);
}

/// Appends the options in their order.
fn append_options(out: &mut Vec<u8>, mut options: &[u8], base: Base) {
    let mut first = true;
    while let Some((kind, rest)) = options.split_first() {
        if !first {
            out.push(b',');
        }
        first = false;
        match kind {
            0 => return out.text("eol"),
            1 => {
                out.text("nop");
                options = rest;
                continue;
            }
            _ => {}
        }
        let length = rest.first().map_or(0, |length| usize::from(*length));
        let Some(value) = length.checked_sub(2).and_then(|length| rest.get(1..=length)) else {
            return out.text("[bad opt]");
        };
        append_option(out, *kind, value, base);
        options = rest.get(length - 1..).unwrap_or_default();
    }
}

fn append_option(out: &mut Vec<u8>, kind: u8, value: &[u8], base: Base) {
    let word = |at: usize| {
        let bytes = value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_be_bytes(bytes.unwrap_or_default())
    };
    match (kind, value) {
        (2, [high, low]) => {
            out.text("mss ");
            out.decimal(u16::from_be_bytes([*high, *low]));
        }
        (3, [shift]) => {
            out.text("wscale ");
            out.decimal(*shift);
        }
        (4, []) => out.text("sackOK"),
        (5, blocks) if blocks.len().is_multiple_of(8) => {
            out.text("sack ");
            out.decimal(blocks.len() / 8);
            out.push(b' ');
            for at in (0..blocks.len()).step_by(8) {
                out.push(b'{');
                out.decimal(word(at).wrapping_sub(base.sack));
                out.push(b':');
                out.decimal(word(at + 4).wrapping_sub(base.sack));
                out.push(b'}');
            }
        }
        (8, [_, _, _, _, _, _, _, _]) => {
            out.text("TS val ");
            out.decimal(word(0));
            out.text(" ecr ");
            out.decimal(word(4));
        }
        _ => {
            match kind {
                19 => out.text("md5"),
                28 => out.text("uto"),
                29 => out.text("tcp-ao"),
                30 => out.text("mptcp"),
                34 => out.text("tfo"),
                _ => {
                    out.text("unknown-");
                    out.decimal(kind);
                }
            }
            if !value.is_empty() {
                out.text(" 0x");
                value.iter().for_each(|byte| out.hex((*byte).into(), 2));
            }
        }
    }
}
