//! UDP ends.
use clap::Args;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use serde_json::{Value, json};
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_millis(300);
/// How long the first datagram may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The receiver's buffer in bytes, so that it is not what loses.
const BUFFER: usize = 64 << 20;

#[derive(Args)]
pub struct Blast {
    #[arg(long)]
    to: SocketAddr,
    /// Bytes of a datagram
    #[arg(long)]
    size: usize,
    #[arg(long)]
    seconds: f64,
}

impl Blast {
    pub fn run(&self) -> io::Result<Value> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(self.to)?;
        let datagram = vec![b'x'; self.size];
        let start = Instant::now();
        let mut sent = 0u64;
        while start.elapsed().as_secs_f64() < self.seconds {
            // The clock is looked at once a batch.
            for _ in 0..64 {
                match socket.send(&datagram) {
                    Ok(_) => sent += 1,
                    // The ICMP error for a datagram before.
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
    /// The time is from the first datagram to the last.
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
