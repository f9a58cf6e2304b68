//! Roles at a TCP connection.
use crate::pipes;
use clap::Args;
use serde_json::{Value, json};
use socket2::SockRef;
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// Size of a read or write in bytes.
const CHUNK: usize = 256 << 10;
/// Maximum bytes of a file to keep in memory for sending.
const CONTENT: u64 = 64 << 20;
/// Maximum wait for a listening tool to start, and for the last acknowledgment.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Listen at this address
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Connect to this address, and retry while the peer refuses
    #[arg(long)]
    connect: Option<SocketAddr>,
}

impl Place {
    fn open(&self, count: usize) -> io::Result<Vec<TcpStream>> {
        if let Some(address) = self.connect {
            return (0..count).map(|_| connect(address)).collect();
        }
        let Some(address) = self.listen else { return Ok(Vec::new()) };
        let listener = TcpListener::bind(address)?;
        SockRef::from(&listener).listen(4096)?;
        eprintln!("ready");
        (0..count).map(|_| listener.accept().map(|(stream, _)| stream)).collect()
    }
}

/// Connects, and retries while the tool does not listen yet.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused && start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

#[derive(Args)]
pub struct Stream {
    #[command(flatten)]
    place: Place,
    /// Begin once this many connections are open, and send the data to each
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Number of bytes to send before closing this side; without it, this side closes after the
    /// peer's
    #[arg(long)]
    send: Option<u64>,
    /// Send this file's first 64 MiB, repeatedly, instead of zeros
    #[arg(long)]
    file: Option<PathBuf>,
    /// Stop receiving after this many bytes
    #[arg(long, default_value_t = u64::MAX)]
    until: u64,
    /// Stop receiving after this many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Congestion control of the sender
    #[arg(long)]
    congestion: Option<String>,
    /// Write received data to standard output
    #[arg(long)]
    copy: bool,
}

impl Stream {
    /// Serves all connections at once, until both directions of each have ended and all data is
    /// acknowledged. A peer that closes after this side has read everything by then.
    pub fn run(&self) -> io::Result<Value> {
        let streams = self.place.open(self.connections)?;
        for stream in &streams {
            // With SO_LINGER the close waits for the acknowledgment of the data.
            SockRef::from(stream).set_linger(self.send.map(|_| PATIENCE))?;
            if let Some(name) = &self.congestion {
                SockRef::from(stream).set_tcp_congestion(name.as_bytes())?;
            }
        }
        let content = self.content()?;
        eprintln!("connected");
        let start = Instant::now();
        let counts: Vec<io::Result<(u64, u64)>> = thread::scope(|scope| {
            let threads: Vec<_> =
                streams.iter().map(|stream| scope.spawn(|| self.converse(stream, &content))).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))))
                .collect()
        });
        drop(streams);
        let seconds = start.elapsed().as_secs_f64();
        let (mut sent, mut received) = (0, 0);
        for count in counts {
            let (s, r) = count?;
            sent += s;
            received += r;
        }
        Ok(json!({ "seconds": seconds, "sent": sent, "received": received }))
    }

    /// Returns the data to send. Memory holds the data before the clock starts: sendfile(2) would
    /// be slower than a receiver.
    fn content(&self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        match &self.file {
            Some(path) => {
                File::open(path)?.take(CONTENT.min(self.send.unwrap_or(0))).read_to_end(&mut content)?
            }
            None => 0,
        };
        if content.is_empty() {
            content.resize(CHUNK, 0);
        }
        Ok(content)
    }

    fn converse(&self, stream: &TcpStream, content: &[u8]) -> io::Result<(u64, u64)> {
        thread::scope(|scope| {
            let sender = self.send.map(|bytes| scope.spawn(move || send(stream, bytes, content)));
            let received = self.receive(stream)?;
            let sent = sender
                .map_or(Ok(0), |s| s.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))))?;
            Ok((sent, received))
        })
    }

    fn receive(&self, mut stream: &TcpStream) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK];
        let mut output = self.copy.then(pipes::output).transpose()?;
        let deadline = self.seconds.map(|s| Instant::now() + Duration::from_secs_f64(s));
        let mut received = 0;
        while received < self.until && deadline.is_none_or(|at| Instant::now() < at) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    received += count as u64;
                    if let Some(output) = &mut output {
                        output.write_all(&buffer[..count])?;
                    }
                }
                Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
                Err(e) => return Err(e),
            }
        }
        Ok(received)
    }
}

/// Sends `bytes` bytes and closes this side. Returns the bytes sent: fewer than `bytes` if the peer
/// closed early.
fn send(mut stream: &TcpStream, bytes: u64, content: &[u8]) -> io::Result<u64> {
    let mut sent = 0;
    let result = loop {
        let rest = &content[(sent % content.len() as u64) as usize..];
        let count = (bytes - sent).min(CHUNK.min(rest.len()) as u64) as usize;
        match stream.write(&rest[..count]) {
            Ok(0) => break Ok(()),
            Ok(count) => sent += count as u64,
            Err(e) => break Err(e),
        }
    };
    match result.and_then(|()| stream.shutdown(Shutdown::Write)) {
        Err(e)
            if !matches!(
                e.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected
            ) =>
        {
            Err(e)
        }
        _ => Ok(sent),
    }
}

#[derive(Args)]
pub struct Echo {
    #[command(flatten)]
    place: Place,
}

impl Echo {
    pub fn run(&self) -> io::Result<Value> {
        let mut echoed = 0;
        for mut stream in self.place.open(1)? {
            stream.set_nodelay(true)?;
            let mut buffer = vec![0; CHUNK];
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                stream.write_all(&buffer[..count])?;
                echoed += count;
            }
        }
        Ok(json!({ "echoed": echoed }))
    }
}

#[derive(Args)]
pub struct Connect {
    /// Address of the server
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Number of bytes to send on each connection
    #[arg(long, default_value_t = 64)]
    size: usize,
}

impl Connect {
    /// On each connection sends, closes this side and waits for the server's FIN. The first
    /// connection waits for the server to start and does not count.
    pub fn run(&self) -> io::Result<Value> {
        let message = vec![b'x'; self.size];
        let converse = |mut stream: TcpStream| {
            stream.write_all(&message)?;
            stream.shutdown(Shutdown::Write)?;
            io::copy(&mut stream, &mut io::sink())
        };
        converse(connect(self.to)?)?;
        let start = Instant::now();
        for _ in 0..self.count {
            converse(TcpStream::connect(self.to)?)?;
        }
        Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "connections": self.count }))
    }
}
