//! Appends numbers and addresses to a byte buffer, without `std::fmt` on the hot path.
use std::{io::Write, net::IpAddr};

use crate::net::MacAddr;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A buffer that takes numbers and addresses as text.
pub(super) trait AppendText {
    fn text(&mut self, text: &str);
    fn decimal(&mut self, number: impl itoa::Integer);
    /// Appends the last two decimal digits of a number.
    fn two_digits(&mut self, number: u8);
    /// Appends a hexadecimal number with at least `digits` digits.
    fn hex(&mut self, number: u32, digits: usize);
    fn mac(&mut self, mac: MacAddr);
    fn ip(&mut self, ip: IpAddr);
    fn display(&mut self, value: impl std::fmt::Display);
    /// Appends each of `items` by `append`, with `separator` between them.
    fn joined<T>(&mut self, separator: u8, items: &[T], append: impl Fn(&mut Self, &T));
}

impl AppendText for Vec<u8> {
    fn text(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }

    fn decimal(&mut self, number: impl itoa::Integer) {
        self.text(itoa::Buffer::new().format(number));
    }

    fn two_digits(&mut self, number: u8) {
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
        self.joined(b':', &mac.0, |out, byte| out.hex((*byte).into(), 2));
    }

    fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.joined(b'.', &ip.octets(), |out, byte| out.decimal(*byte)),
            IpAddr::V6(ip) => self.display(ip),
        }
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        // Writing to a Vec cannot fail.
        let _ = write!(self, "{value}");
    }

    fn joined<T>(&mut self, separator: u8, items: &[T], append: impl Fn(&mut Self, &T)) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.push(separator);
            }
            append(self, item);
        }
    }
}
