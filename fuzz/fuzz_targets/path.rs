//! Reads any bytes as an ICMP error about any packet of ours: its quote, what has changed, its extensions. None may panic.
//! The checksum is made right, so that the inner parts are reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netkat::{net::checksum::Sum, path};

// The first two bytes are the lengths of what was sent and of the IP header before the error.
fuzz_target!(|input: &[u8]| {
    let [sent, family, rest @ ..] = input else { return };
    let (sent, body) = rest.split_at(usize::from(*sent).min(rest.len()));
    let mut packet = if family & 1 == 0 { vec![0; 20] } else { vec![0; 40] };
    let total = packet.len() + body.len();
    if family & 1 == 0 {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        packet[8..10].copy_from_slice(&[64, 1]);
        let sum = Sum::default().add(&packet).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&[58, 64]);
    }
    let at = packet.len();
    packet.extend(body);
    if body.len() >= 8 {
        packet[at + 2..at + 4].fill(0);
        let sum = Sum::default().add(&packet[at..]);
        let sum = if family & 1 == 0 { sum } else { sum.add(&(body.len() as u32).to_be_bytes()).add(&[0, 58]) };
        let sum = sum.checksum();
        packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    assert!(path::read(&packet, sent) < 64);
});
