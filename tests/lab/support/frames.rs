//! Frames that tests send by hand, over any packet socket: SYNs, and UDP datagrams with an
//! identifying mark.
use super::{
    packet_socket::PacketSocket,
    topology::{Family, at},
};
use netkat::stack::ip::{Fragmentation, TCP, Template, pseudo_header};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// The MAC addresses of [`crate::support::topology::Pair`].
pub const HOST_MAC: [u8; 6] = [2, 0, 0x77, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0x77, 0, 0, 2];

/// Returns an Ethernet frame with a UDP datagram, without a checksum for IPv4 (RFC 768) and with a
/// wrong one for IPv6: nothing reads it before the packet socket does.
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

/// Returns a SYN to `port` of the host in a [`super::topology::Pair`], from an address that no host
/// has; `number` picks address, port and sequence number.
pub fn syn(family: Family, number: u32, port: u16) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let low = u16::from_be_bytes([b, c]);
    let source: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(11, a, b, c).into(),
        Family::V6 => Ipv6Addr::new(0xfd11, 0, 0, 0, 0, 0, a.into(), low).into(),
    };
    let destination = at(family, "10.77.0.1", "fd77::1");
    let mut tcp = ((1024 + number % 60_000) as u16).to_be_bytes().to_vec();
    tcp.extend(port.to_be_bytes());
    tcp.extend(number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = pseudo_header(source, destination, TCP, tcp.len()).add(&tcp);
    tcp[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
    let template =
        Template { source, destination, protocol: TCP, hop_limit: 64, traffic_class: 0, flow_label: 0 };
    let mut header = [0; 40];
    let length = template.write(tcp.len(), 1, Fragmentation::Allowed(1), &mut header);
    let ethertype = template.ethertype().to_be_bytes();
    [&HOST_MAC[..], &PEER_MAC, &ethertype, &header[..length], &tcp].concat()
}

/// Returns whether a frame that holds the mark comes within the time.
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
