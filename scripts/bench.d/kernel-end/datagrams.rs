//! UDP ends.
use clap::Args;
use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBufForce, UdpGsoSegment},
};
use serde_json::{Value, json};
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// Silence that ends the reception.
const SILENCE: Duration = Duration::from_millis(300);
/// Maximum wait for the first datagram.
const PATIENCE: Duration = Duration::from_secs(20);
/// Receive buffer in bytes: large enough that the receiver loses nothing.
const BUFFER: usize = 64 << 20;
/// Maximum datagrams in one call (linux/udp.h, UDP_MAX_SEGMENTS).
const MAX_SEGMENTS: usize = 64;
/// Maximum bytes in one call.
const MAX_BYTES: usize = 65_000;

#[derive(Args)]
pub struct Blast {
    #[arg(long)]
    to: SocketAddr,
    /// Size of a datagram in bytes
    #[arg(long)]
    size: usize,
    #[arg(long)]
    seconds: f64,
}

impl Blast {
    /// Sends many datagrams in one call; the kernel or the device cuts them (udp(7), UDP_SEGMENT).
    /// With one datagram a call the row would measure this sender.
    pub fn run(&self) -> io::Result<Value> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(self.to)?;
        let count = (MAX_BYTES / self.size.max(1)).clamp(1, MAX_SEGMENTS);
        setsockopt(&socket, UdpGsoSegment, &i32::try_from(self.size).map_err(io::Error::other)?)?;
        let datagrams = vec![b'x'; self.size * count];
        let start = Instant::now();
        let mut sent = 0u64;
        while start.elapsed().as_secs_f64() < self.seconds {
            // Reading the clock once a batch keeps it cheap.
            for _ in 0..16 {
                match socket.send(&datagrams) {
                    Ok(_) => sent += count as u64,
                    // An ICMP error for an earlier datagram.
                    Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(json!({ "datagrams": sent, "seconds": start.elapsed().as_secs_f64() }))
    }
}

#[derive(Args)]
pub struct Collect {
    #[arg(long)]
    listen: SocketAddr,
}

impl Collect {
    /// Receives. The time runs from the first datagram to the last.
    pub fn run(&self) -> io::Result<Value> {
        let socket = UdpSocket::bind(self.listen)?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        eprintln!("ready");
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = socket.recv(&mut buffer)? as u64;
        let mut datagrams = 1u64;
        let first = Instant::now();
        let mut last = first;
        socket.set_read_timeout(Some(SILENCE))?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(count) => {
                    bytes += count as u64;
                    datagrams += 1;
                    last = Instant::now();
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(json!({ "datagrams": datagrams, "bytes": bytes, "seconds": (last - first).as_secs_f64() }))
    }
}
