//! Numbers and addresses as text at the end of a byte buffer, without going through `std::fmt` where it costs.
use std::{
    borrow::Cow,
    io::Write,
    net::{IpAddr, Ipv4Addr},
};

use crate::net::MacAddr;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Text that somebody else chose (a file, whoever named the interface) with its control characters escaped.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Appends text to a buffer.
pub(super) trait Text {
    fn text(&mut self, text: &str);
    fn decimal(&mut self, number: impl itoa::Integer);
    /// Two decimal digits, of a number below 100.
    fn two(&mut self, number: u8);
    /// Hexadecimal with at least `digits` digits.
    fn hex(&mut self, number: u32, digits: usize);
    fn mac(&mut self, mac: MacAddr);
    fn ip(&mut self, ip: IpAddr);
    /// What has only a `Display`.
    fn display(&mut self, value: impl std::fmt::Display);
}

impl Text for Vec<u8> {
    fn text(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }

    fn decimal(&mut self, number: impl itoa::Integer) {
        self.text(itoa::Buffer::new().format(number));
    }

    fn two(&mut self, number: u8) {
        self.extend_from_slice(&[b'0' + number / 10 % 10, b'0' + number % 10]);
    }

    fn hex(&mut self, number: u32, digits: usize) {
        let needed = (u32::BITS - number.leading_zeros()).div_ceil(4).max(1) as usize;
        for digit in (0..needed.max(digits)).rev() {
            let nibble = number.checked_shr(4 * digit as u32).unwrap_or(0) & 0xf;
            self.push(HEX.get(nibble as usize).copied().unwrap_or(b'?'));
        }
    }

    fn mac(&mut self, mac: MacAddr) {
        for (at, byte) in mac.0.into_iter().enumerate() {
            if at > 0 {
                self.push(b':');
            }
            self.hex(byte.into(), 2);
        }
    }

    fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => ipv4(self, ip),
            IpAddr::V6(ip) => self.display(ip),
        }
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        // Writing to a Vec can't fail.
        let _ = write!(self, "{value}");
    }
}

fn ipv4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    for (at, byte) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.decimal(byte);
    }
}
