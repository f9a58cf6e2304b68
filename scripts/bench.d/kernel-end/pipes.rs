//! Roles at a tool's standard input and output.
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::AsFd,
    time::Instant,
};

/// Number of round trips before the clock starts.
const WARM_UP: usize = 100;

/// Returns standard output without a buffer.
pub fn output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Returns standard input without a buffer.
fn input() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

#[derive(Args)]
pub struct Ping {
    /// Size of a message in bytes
    #[arg(long)]
    size: usize,
    #[arg(long)]
    rounds: usize,
}

impl Ping {
    pub fn run(&self) -> io::Result<Value> {
        let (mut input, mut output) = (input()?, output()?);
        let message = vec![b'x'; self.size];
        let mut echo = vec![0; self.size];
        let mut times = Vec::with_capacity(self.rounds);
        for round in 0..WARM_UP + self.rounds {
            let start = Instant::now();
            output.write_all(&message)?;
            input.read_exact(&mut echo)?;
            if round >= WARM_UP {
                times.push(start.elapsed().as_nanos() as f64 / 1e3);
            }
        }
        times.sort_by(f64::total_cmp);
        let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Ok(json!({ "median": quantile(0.5), "p99": quantile(0.99), "rounds": times.len() }))
    }
}

#[derive(Args)]
pub struct Feed {
    #[arg(long)]
    bytes: u64,
    /// Size of a write in bytes
    #[arg(long, default_value_t = 64 << 10)]
    chunk: usize,
    /// Begin at the end of standard input
    #[arg(long)]
    gate: bool,
}

impl Feed {
    pub fn run(&self) -> io::Result<Value> {
        let mut output = output()?;
        let chunk = vec![b'x'; self.chunk];
        if self.gate {
            io::copy(&mut input()?, &mut io::sink())?;
        }
        let mut written = 0;
        while written < self.bytes {
            let count = chunk.len().min((self.bytes - written) as usize);
            match output.write(&chunk[..count]) {
                Ok(count) => written += count as u64,
                // The tool has exited.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => break,
                Err(e) => return Err(e),
            }
        }
        Ok(json!({ "written": written }))
    }
}

#[derive(Args)]
pub struct Drain {}

impl Drain {
    /// Reads. The time runs from the first byte to the last.
    pub fn run(&self) -> io::Result<Value> {
        let mut input = input()?;
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        let mut times = None;
        loop {
            let count = input.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            bytes += count;
            let now = Instant::now();
            times.get_or_insert((now, now)).1 = now;
        }
        let seconds = times.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Ok(json!({ "bytes": bytes, "seconds": seconds }))
    }
}
