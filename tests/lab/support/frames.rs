//! Frames that tests send by hand, over any packet socket: UDP datagrams with a mark to know them by.
use crate::support::packet_socket::PacketSocket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    net::IpAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// The MAC addresses of [`crate::support::topology::Pair`].
pub const HOST_MAC: [u8; 6] = [2, 0, 0x77, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0x77, 0, 0, 2];

/// An Ethernet frame with a UDP datagram. The UDP checksum is left out with IPv4 (RFC 768) and wrong with IPv6:
/// nothing looks at it before the packet socket does.
pub fn udp(source_mac: [u8; 6], mac: [u8; 6], source: IpAddr, to: IpAddr, port: u16, mark: &[u8]) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(port.to_be_bytes());
    udp.extend(port.to_be_bytes());
    udp.extend((8 + mark.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(mark);
    let mut frame = Vec::new();
    frame.extend(mac);
    frame.extend(source_mac);
    match (source, to) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, 0];
            ip.extend((20 + udp.len() as u16).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            ip.extend(source.octets());
            ip.extend(to.octets());
            let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
            let folded = (sum & 0xffff) + (sum >> 16);
            ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(ip);
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((udp.len() as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(source.octets());
            frame.extend(to.octets());
        }
        _ => panic!("{source} and {to} are of different families"),
    }
    frame.extend(udp);
    frame
}

/// A SYN to `port` of the host in a [`super::topology::Pair`], from an address that no host has; `number` picks
/// address, port and sequence number.
pub fn syn(number: u32, port: u16) -> Vec<u8> {
    let mut frame = [HOST_MAC, PEER_MAC].concat();
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    let [_, a, b, c] = number.to_be_bytes();
    frame.extend([11, a, b, c, 10, 77, 0, 1]);
    frame.extend((1024 + (number % 60_000) as u16).to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = |bytes: &[u8], start: u32| {
        let sum = bytes.chunks(2).fold(start, |sum, w| sum + u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum = (sum & 0xffff) + (sum >> 16);
        (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
    };
    let ip = sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&ip);
    let tcp = sum(&frame[26..54], 6 + 20);
    frame[50..52].copy_from_slice(&tcp);
    frame
}

/// Whether a frame that holds the mark comes within the time.
pub fn sees(socket: &PacketSocket, mark: &[u8], within: Duration) -> bool {
    let mut buffer = vec![0; 65536];
    let deadline = Instant::now() + within;
    loop {
        while let Some(length) = socket.receive(&mut buffer).expect("receiving") {
            if buffer[..length].windows(mark.len()).any(|w| w == mark) {
                return true;
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left.as_millis() as i32 + 1).expect("a short time");
        poll(&mut fds, timeout).expect("polling");
    }
}
