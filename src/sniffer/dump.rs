//! Shows the bytes of a packet as tcpdump's -x, -X and -A do.
use super::{
    decode::DecodedFrame,
    frame::{CapturedFrame, LinkType},
    text::AppendText,
};
use arrayvec::ArrayVec;

/// The form of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpForm {
    /// Hexadecimal.
    Hex,
    /// Hexadecimal, and ASCII beside it.
    HexAndAscii,
    /// ASCII, with its line feeds.
    Ascii,
}

/// The bytes to show, and their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The form.
    pub form: DumpForm,
    /// Begin with the link header instead of the network header.
    pub link_header: bool,
}

/// Bytes of a line.
const ROW: usize = 16;
/// Width of a line's hexadecimal digits.
const HEX_WIDTH: usize = 40;

impl Dump {
    /// Appends the bytes of a frame.
    pub(super) fn append(self, out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame) {
        let start = if self.link_header { 0 } else { link_header_length(frame, decoded) };
        let bytes = frame.bytes(start..frame.captured());
        match self.form {
            DumpForm::Ascii => append_ascii(out, bytes),
            DumpForm::Hex => append_rows(out, bytes, false),
            DumpForm::HexAndAscii => append_rows(out, bytes, true),
        }
    }
}

/// Returns the length of the link header in the captured bytes, VLAN tags included.
pub(super) fn link_header_length(frame: &CapturedFrame<'_>, decoded: &DecodedFrame) -> usize {
    match frame.link_type {
        LinkType::Ethernet => {
            let tags = decoded.link.vlan.len().saturating_sub(usize::from(frame.vlan.is_some()));
            14 + 4 * tags
        }
        LinkType::LinuxCooked1 => 16,
        LinkType::LinuxCooked2 => 20,
        LinkType::Null | LinkType::Loop => 4,
        _ => 0,
    }
}

fn append_rows(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>, ascii: bool) {
    let mut row = ArrayVec::<u8, ROW>::new();
    let mut position = 0;
    for byte in bytes {
        row.push(byte);
        if row.is_full() {
            append_row(out, position, &row, ascii);
            position += ROW as u32;
            row.clear();
        }
    }
    if !row.is_empty() {
        append_row(out, position, &row, ascii);
    }
}

fn append_row(out: &mut Vec<u8>, position: u32, row: &[u8], ascii: bool) {
    out.text("\t0x");
    out.hex(position, 4);
    out.text(": ");
    let start = out.len();
    for pair in row.chunks(2) {
        out.push(b' ');
        pair.iter().for_each(|byte| out.hex((*byte).into(), 2));
    }
    if ascii {
        out.resize(start + HEX_WIDTH, b' ');
        out.text("  ");
        out.extend(row.iter().map(|byte| if byte.is_ascii_graphic() { *byte } else { b'.' }));
    }
    out.push(b'\n');
}

/// Appends text as it is, but no control characters: a carriage return before a line feed is left out.
fn append_ascii(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    let mut bytes = bytes.peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&b'\n') => {}
            b'\t' | b' ' | b'\n' => out.push(byte),
            byte if byte.is_ascii_graphic() => out.push(byte),
            _ => out.push(b'.'),
        }
    }
    out.push(b'\n');
}
