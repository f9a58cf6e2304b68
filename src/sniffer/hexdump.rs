//! Dumps bytes in the form of `hexdump -C`.
//!
//! A line has the position, sixteen bytes in hexadecimal, and their printable ASCII. A dot replaces
//! every other byte, so no control character reaches the terminal.
use super::text::AppendText;

/// Bytes per line.
const ROW: usize = 16;

/// Appends the dump of `bytes`; nothing if there are none.
pub fn append(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    let mut row = arrayvec::ArrayVec::<u8, ROW>::new();
    let mut position = 0;
    for byte in bytes {
        row.push(byte);
        if row.is_full() {
            append_row(out, position, &row);
            position += ROW as u32;
            row.clear();
        }
    }
    if !row.is_empty() {
        append_row(out, position, &row);
    }
}

fn append_row(out: &mut Vec<u8>, position: u32, row: &[u8]) {
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
    use super::*;

    #[test]
    fn a_dump_looks_like_hexdump() {
        let mut out = Vec::new();
        append(&mut out, b"GET / HTTP/1.1\r\n\x1b[2J".iter().copied());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "00000000  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|\n\
             00000010  1b 5b 32 4a                                       |.[2J|\n"
        );
        out.clear();
        append(&mut out, std::iter::empty());
        assert!(out.is_empty());
    }
}
