//! TCP ends.
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

/// Bytes of one read or write.
const CHUNK: usize = 256 << 10;
/// Bytes of a file that are kept to be sent.
const CONTENT: u64 = 64 << 20;
/// How long a listening tool may take to start, and the last acknowledgment to come.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Wait here for the peer
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Connect to the peer, and try again while it refuses
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

/// Connects, and tries again while a tool that is to listen has not got so far.
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
    /// Begin once there are so many connections; what is sent goes to each
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Bytes to send, then our side ends; without it, our side ends after the peer's
    #[arg(long)]
    send: Option<u64>,
    /// Send this file's first 64 MiB, over and over, instead of zeros
    #[arg(long)]
    file: Option<PathBuf>,
    /// Stop receiving after so many bytes
    #[arg(long, default_value_t = u64::MAX)]
    until: u64,
    /// Stop receiving after so long
    #[arg(long)]
    seconds: Option<f64>,
    /// The congestion control of what is sent
    #[arg(long)]
    congestion: Option<String>,
    /// Write what is received to standard output
    #[arg(long)]
    copy: bool,
}

impl Stream {
    /// All connections at once, until both of their directions have ended and all is acknowledged. A peer that
    /// ends only after us has taken everything by then.
    pub fn run(&self) -> io::Result<Value> {
        let streams = self.place.open(self.connections)?;
        for stream in &streams {
            // Closing what was sent on waits until the peer has acknowledged it.
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

    /// What is sent, in memory before the clock starts: sending it by sendfile(2) would be slower than receiving it.
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

/// Sends, ends our side, and returns how much went out; less than `bytes` if the peer left before.
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
    /// The server
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Bytes to send on each
    #[arg(long, default_value_t = 64)]
    size: usize,
}

impl Connect {
    /// Each connection sends, ends its side and waits for the server's end; a first one, outside of the clock,
    /// waits for the server to start.
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
