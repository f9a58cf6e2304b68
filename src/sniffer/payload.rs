//! A packet's payload as a hex dump, in the form of `hexdump -C`: position, sixteen bytes, what of them is printable
//! ASCII. Everything else is a dot, so the terminal never gets to see a control character.
use std::ops::Range;

use super::{Observed, text::Text};

const ROW: usize = 16;

/// The bytes of a frame that lie in `range`, across its pieces.
pub fn bytes<'a>(frame: &Observed<'a>, range: Range<usize>) -> impl Iterator<Item = u8> + use<'a> {
    let mut start = 0;
    frame.data.into_iter().flat_map(move |piece| {
        let (from, to) = (range.start.saturating_sub(start), range.end.saturating_sub(start));
        start += piece.len();
        piece.get(from.min(piece.len())..to.min(piece.len())).unwrap_or_default().iter().copied()
    })
}

/// Appends the dump of a payload, a line for each sixteen bytes; nothing if it is empty.
pub fn dump(out: &mut Vec<u8>, payload: impl Iterator<Item = u8>) {
    let mut row = arrayvec::ArrayVec::<u8, ROW>::new();
    let mut position = 0;
    for byte in payload {
        row.push(byte);
        if row.is_full() {
            line(out, position, &row);
            position += ROW as u32;
            row.clear();
        }
    }
    if !row.is_empty() {
        line(out, position, &row);
    }
}

fn line(out: &mut Vec<u8>, position: u32, row: &[u8]) {
    out.hex(position, 8);
    for at in 0..ROW {
        out.text(if at % 8 == 0 { "  " } else { " " });
        match row.get(at) {
            Some(byte) => out.hex((*byte).into(), 2),
            None => out.text("  "),
        }
    }
    out.text("  |");
    out.extend(row.iter().map(|byte| if (0x20..0x7f).contains(byte) { *byte } else { b'.' }));
    out.text("|\n");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sniffer::{Direction, LinkType};

    #[test]
    fn a_dump_looks_like_hexdump() {
        let mut out = Vec::new();
        dump(&mut out, b"GET / HTTP/1.1\r\n\x1b[2J".iter().copied());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "00000000  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|\n\
             00000010  1b 5b 32 4a                                       |.[2J|\n"
        );
        out.clear();
        dump(&mut out, std::iter::empty());
        assert!(out.is_empty());
    }

    #[test]
    fn bytes_are_found_across_the_pieces() {
        let mut frame = Observed::new(Duration::ZERO, Direction::Send, LinkType::Ethernet, &[]);
        frame.data = [b"ab", b"c", b"", b"defg"];
        for start in 0..8 {
            for end in start..8 {
                let whole = &b"abcdefg"[start.min(7)..end.min(7)];
                assert_eq!(bytes(&frame, start..end).collect::<Vec<_>>(), whole, "{start}..{end}");
            }
        }
    }
}
