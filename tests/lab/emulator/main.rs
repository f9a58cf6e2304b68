//! A link emulator: joins two interfaces of its network namespace and treats the frames between them as a
//! bad path would, by a seed.
//!
//! Theory of operation: a packet socket on each interface, one loop. A frame of one interface goes
//! through its direction's [`path::Path`] and out by the other. An uncut (GSO) TCP frame counts as
//! the segments that a network card would make of it, each with a fate of its own, and adjacent
//! segments that leave together form one frame; an unimpaired path passes frames whole. Address
//! resolution (ARP, ICMPv6) is never impaired: its one-second retries would dominate every
//! measurement.
//!
//! Prints "ready" once both sockets are open and stops at the end of stdin, then prints one line of counters
//! for each direction.
mod impairment;
mod packet_socket;
mod path;
mod segments;

use clap::Parser;
use impairment::Impairment;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::{TimeSpec, TimeValLike},
};
use packet_socket::{Mode, PacketSocket};
use path::Path;
use segments::{Cut, VNET_HEADER};
use std::{
    error::Error,
    io::{self, Write},
    os::fd::AsFd,
    rc::Rc,
    time::{Duration, Instant},
};

/// Maximum frame: a virtio-net header and the largest IP packet, with room for link headers.
const FRAME: usize = 65536 + 128;
/// Frames taken from one side before the other has its turn.
const TURN: usize = 64;

/// Forwards frames between two interfaces with seeded loss, delay, jitter, reordering, duplication and rate.
#[derive(Parser)]
struct Arguments {
    /// The interfaces that are joined
    a: String,
    b: String,
    /// Seeds the fate of the frames; the two directions differ all the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Impairment of both directions, as loss=1%,delay=10ms,jitter=1ms,reorder=5%,displacement=3-30,
    /// duplicate=1%,rate=100mbit,queue=50ms,largest=1300b
    #[arg(long, default_value = "")]
    both: Impairment,
    /// Impairment from A to B, in place of --both
    #[arg(long)]
    a_to_b: Option<Impairment>,
    /// Impairment from B to A, in place of --both
    #[arg(long)]
    b_to_a: Option<Impairment>,
}

/// A frame in flight, or one segment of a frame.
#[derive(Clone)]
struct Frame {
    bytes: Rc<[u8]>,
    segment: Option<(Cut, usize)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mode = Mode { vnet_header: true, promiscuous: true, qdisc_bypass: true, buffer: 64 << 20 };
    let a = PacketSocket::open(&arguments.a, mode).map_err(|e| format!("{}: {e}", arguments.a))?;
    let b = PacketSocket::open(&arguments.b, mode).map_err(|e| format!("{}: {e}", arguments.b))?;
    // Timers to the microsecond: the default slack of 50 us is as long as a short path.
    nix::sys::prctl::set_timerslack(1)?;
    let both = arguments.both;
    let mut a_to_b = Path::new(arguments.a_to_b.unwrap_or_else(|| both.clone()), arguments.seed);
    let mut b_to_a = Path::new(arguments.b_to_a.unwrap_or(both), !arguments.seed);
    println!("ready");
    io::stdout().flush()?;

    let start = Instant::now();
    let mut buffer = vec![0; FRAME];
    loop {
        let busy = forward(&a, &b, &mut a_to_b, &mut buffer, start)?
            | forward(&b, &a, &mut b_to_a, &mut buffer, start)?;
        if busy {
            continue;
        }
        let next = a_to_b.next_time().into_iter().chain(b_to_a.next_time()).min();
        let timeout = next.map(|t| t.saturating_sub(start.elapsed()));
        if wait(&a, &b, timeout)? {
            break;
        }
    }
    println!("{} -> {}: {:?}", arguments.a, arguments.b, a_to_b.count());
    println!("{} -> {}: {:?}", arguments.b, arguments.a, b_to_a.count());
    Ok(())
}

/// Takes one turn of one direction. Returns whether more is likely due at once.
fn forward(
    from: &PacketSocket,
    to: &PacketSocket,
    path: &mut Path<Frame>,
    buffer: &mut [u8],
    start: Instant,
) -> io::Result<bool> {
    let mut received = 0;
    while received < TURN {
        let Some(length) = from.receive(buffer)? else { break };
        received += 1;
        let frame = &buffer[..length];
        if is_address_resolution(frame) {
            deliver(to, frame)?;
        } else if path.is_clear() {
            deliver(to, frame)?;
            path.passed();
        } else {
            offer(path, start.elapsed(), frame);
        }
    }
    if path.next_time().is_some() {
        deliver_due(to, path, start.elapsed())?;
    }
    Ok(received == TURN)
}

/// Puts a frame onto the path, segment by segment where it holds several.
fn offer(path: &mut Path<Frame>, now: Duration, frame: &[u8]) {
    match Cut::of(frame) {
        Some(cut) => {
            let bytes: Rc<[u8]> = frame.into();
            for number in 0..cut.count() {
                let segment = || Frame { bytes: Rc::clone(&bytes), segment: Some((cut, number)) };
                path.offer(now, cut.wire_length(number), segment);
            }
        }
        None => {
            let wire_length = frame.len().saturating_sub(VNET_HEADER);
            path.offer(now, wire_length, || Frame { bytes: frame.into(), segment: None });
        }
    }
}

/// Sends all frames that have arrived at the path's end; segments that still follow each other as
/// one frame.
fn deliver_due(to: &PacketSocket, path: &mut Path<Frame>, now: Duration) -> io::Result<()> {
    let mut joined = Vec::new();
    let mut next = path.take(now);
    while let Some(frame) = next {
        next = path.take(now);
        let Some((cut, first)) = frame.segment else {
            deliver(to, &frame.bytes)?;
            continue;
        };
        let mut end = first + 1;
        while let Some(Frame { bytes, segment: Some((_, number)) }) = &next
            && Rc::ptr_eq(bytes, &frame.bytes)
            && *number == end
        {
            end += 1;
            next = path.take(now);
        }
        cut.write(&frame.bytes, first, end, &mut joined);
        deliver(to, &joined)?;
    }
    Ok(())
}

/// Sends a frame. A frame that the interface does not take (it is down, its peer is gone, the frame
/// is too large or of an unsendable kind) is lost as on a wire.
fn deliver(to: &PacketSocket, frame: &[u8]) -> io::Result<()> {
    match to.send(frame) {
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENETDOWN | libc::EAGAIN | libc::EINVAL | libc::EMSGSIZE) => Ok(()),
            _ => Err(e),
        },
        Ok(()) => Ok(()),
    }
}

/// Returns whether a frame is ARP, or one of ICMPv6's router and neighbour messages (RFC 4861
/// section 4: types 133 to 137).
fn is_address_resolution(frame: &[u8]) -> bool {
    let Some(ethernet) = frame.get(VNET_HEADER..) else { return false };
    match ethernet.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => {
            ethernet.get(20) == Some(&58) && ethernet.get(54).is_some_and(|t| (133..=137).contains(t))
        }
        _ => false,
    }
}

/// Sleeps until a frame arrives or the timeout has passed. Returns true at the end of stdin.
fn wait(a: &PacketSocket, b: &PacketSocket, timeout: Option<Duration>) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [
        PollFd::new(a.as_fd(), PollFlags::POLLIN),
        PollFd::new(b.as_fd(), PollFlags::POLLIN),
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
    ];
    let timeout = timeout.map(|t| TimeSpec::nanoseconds(t.as_nanos() as i64));
    match ppoll(&mut fds, timeout, None) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(fds[2].any() == Some(true)),
        Err(e) => Err(e.into()),
    }
}
