//! A UDP session: datagrams between a port and standard input and output.
//!
//! One read is one datagram if it fits into one: 65507 bytes, over IPv6 65527. Input that comes in larger
//! pieces, as a file does, has no boundaries to keep; it is cut into 16 KiB, as nc does.
//!
//! While standard output is full, frames wait in the packet socket's buffer; the kernel counts those that
//! do not fit there, and netkat reports the number.
use super::{Error, Policy, end_timers::EndTimers};
use crate::{
    net::{FiveTuple, count, zone::endpoint},
    runtime::{Engine, Task, Turn, memory_budget::MAX_FRAMES},
    stack::{DatagramCounters, Stack, max_payload},
    stdio::{self, Interest, Stream, line_delay::LineDelay},
};
use std::{cell::Cell, io, net::SocketAddr, os::fd::AsFd, time::Duration};

/// Room for one read, in bytes: more than any datagram carries, so that larger pieces are recognised.
const READ: usize = 64 << 10;
/// Payload of the datagrams that larger pieces are cut into, in bytes: nc.openbsd's read size.
const CHUNK: usize = 16 << 10;
/// Maximum that goes to the link in one call, in bytes.
const BATCH: usize = 64 << 10;
/// Maximum reads in one turn.
const READS: usize = 64;

/// netkat's end of the conversation.
#[derive(Clone, Copy)]
pub(crate) enum Role<'a> {
    /// A client of `remote`, which `interface` leads to.
    Client { remote: SocketAddr, interface: &'a str },
    /// A server.
    Server {
        /// Longest wait for the first datagram.
        wait: Option<Duration>,
    },
}

/// The counters of a UDP session at its end.
#[derive(Clone, Debug)]
pub(crate) struct DatagramSummary {
    pub counters: DatagramCounters,
    /// The peer, or the last one.
    pub peer: Option<FiveTuple>,
    /// Frames that the kernel dropped because the receive buffer was full.
    pub lost: u64,
    /// Packets that the guard dropped before the kernel's stack.
    pub kept: u64,
    /// Time from the start to the first datagram, and to the end.
    pub first_byte: Option<Duration>,
    pub duration: Duration,
}

/// A UDP session between netkat's port and standard input and output.
pub(crate) struct DatagramConversation<'a> {
    role: Role<'a>,
    policy: Policy,
    timers: EndTimers,
    input: Stream,
    output: Stream,
    line_delay: Option<LineDelay>,
    /// Input that is read but not sent.
    buffer: Vec<u8>,
    /// Bytes of the current datagram that are written to standard output.
    written: usize,
    /// Whether the last read found no input, and the last write no room.
    input_blocked: Cell<bool>,
    output_blocked: Cell<bool>,
    input_ended: bool,
    started_at: Duration,
    /// Time of the first datagram.
    heard_at: Option<Duration>,
    /// Bytes received when `quit_after` expired.
    received_by_quit: Option<u64>,
}

impl<'a> DatagramConversation<'a> {
    /// Returns a conversation that begins at `now`, with standard input and output.
    pub(crate) fn new(
        now: Duration,
        role: Role<'a>,
        policy: Policy,
        delay: Option<Duration>,
        (input, output): (Stream, Stream),
    ) -> DatagramConversation<'a> {
        let quit_after = if policy.send_only { Some(Duration::ZERO) } else { policy.quit_after };
        DatagramConversation {
            role,
            policy,
            timers: EndTimers::new(now, quit_after, policy.idle_timeout),
            input,
            output,
            line_delay: delay.map(LineDelay::new),
            buffer: vec![0; BATCH + READ],
            written: 0,
            input_blocked: Cell::new(false),
            output_blocked: Cell::new(false),
            input_ended: false,
            started_at: now,
            heard_at: None,
            received_by_quit: None,
        }
    }

    /// Relays datagrams until the conversation is over. Returns its counters, too.
    pub(crate) fn run(mut self, engine: &mut Engine) -> (DatagramSummary, Result<(), Error>) {
        let result = engine.run(&mut self);
        let summary = self.summarize(engine);
        summary.log();
        let result = result.and_then(|()| self.check_drops(&summary.counters));
        let drops = summary.counters.egress_drops;
        if drops > 0 && !matches!(result, Err(Error::DatagramsDropped { .. })) {
            log::warn!("{} dropped by this host's own egress", count(drops, "datagram"));
        }
        (summary, result)
    }

    /// Fails if this host's own egress dropped everything that a client sent.
    fn check_drops(&self, counters: &DatagramCounters) -> Result<(), Error> {
        let (drops, sent) = (counters.egress_drops, counters.datagrams_sent);
        match self.role {
            Role::Client { remote, interface } if drops > 0 && drops == sent => {
                Err(Error::DatagramsDropped {
                    target: remote,
                    datagrams: drops,
                    interface: interface.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Writes received datagrams. Returns whether anything moved.
    fn write_output(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        match self.output.keeps_messages() {
            true => self.write_datagrams(now, engine),
            false => self.write_bytes(now, engine),
        }
    }

    /// Writes to a stream without boundaries, as many datagrams at once as are waiting.
    fn write_bytes(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        let mut moved = false;
        while !self.output_blocked.get() && engine.stack.datagrams.front().is_some() {
            let waiting = engine.stack.datagrams.waiting();
            let written = match waiting.is_empty() || self.policy.send_only {
                true => waiting.len(),
                false => match self.output.write(waiting) {
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.output_blocked.set(true);
                        break;
                    }
                    Err(error) => return Err(stdio::Error::Output(error).into()),
                },
            };
            engine.stack.datagrams.forget(written);
            self.timers.moved(now);
            moved = true;
        }
        Ok(moved)
    }

    /// Writes each datagram with a write of its own.
    fn write_datagrams(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        let mut moved = false;
        while !self.output_blocked.get()
            && let Some(datagram) = engine.stack.datagrams.front()
        {
            let rest = datagram.payload.get(self.written..).unwrap_or_default();
            if !rest.is_empty() && !self.policy.send_only {
                match self.output.write(rest) {
                    Ok(written) if written < rest.len() => {
                        self.written += written;
                        continue;
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.output_blocked.set(true);
                        break;
                    }
                    Err(error) => return Err(stdio::Error::Output(error).into()),
                }
            }
            engine.stack.datagrams.pop();
            self.written = 0;
            self.timers.moved(now);
            moved = true;
        }
        Ok(moved)
    }

    fn wants_input(&self, stack: &Stack) -> bool {
        !self.input_ended && !self.policy.receive_only && stack.datagrams.peer().is_some()
    }

    /// Reads and sends until the input has no more or the turn is over. Returns whether anything moved.
    /// Reads of equal length are sent as one super-frame.
    fn read_input(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        if self.input_blocked.get() || !self.wants_input(&engine.stack) {
            return Ok(false);
        }
        let Some(peer) = engine.stack.datagrams.peer() else { return Ok(false) };
        let limit = max_payload(peer.local.ip());
        if let Some(lines) = &mut self.line_delay {
            if lines.due(now).is_some() {
                return Ok(false);
            }
            let room = self.buffer.get_mut(..limit).unwrap_or_default();
            let read = lines.next(now, room, |room| self.input.read(room));
            let Some(read) = self.note_read(now, read)? else { return Ok(false) };
            if let Some(lines) = &mut self.line_delay {
                lines.pause(now);
            }
            engine.send_datagrams(&self.buffer[..read], read)?;
            return Ok(true);
        }
        let (mut filled, mut size) = (0, 0);
        for _ in 0..READS {
            let Some(room) = self.buffer.get_mut(filled..filled + READ) else { break };
            let read = self.input.read(room);
            let Some(read) = self.note_read(now, read)? else { break };
            let end = filled + read;
            if filled > 0 && (read > size || read == 0) {
                engine.send_datagrams(&self.buffer[..filled], size)?;
                self.buffer.copy_within(filled..end, 0);
                filled = 0;
            }
            if filled == 0 {
                size = if read > limit { CHUNK } else { read };
            }
            filled += read;
            // A shorter datagram ends a super-frame (UDP_SEGMENT, udp(7)), and a piece that is cut is sent
            // at once.
            if read < size || read == 0 || read > limit || filled + size > BATCH {
                engine.send_datagrams(&self.buffer[..filled], size)?;
                filled = 0;
            }
        }
        if filled > 0 {
            engine.send_datagrams(&self.buffer[..filled], size)?;
        }
        Ok(!self.input_blocked.get())
    }

    /// Notes the result of a read. Returns the bytes read; `None` if there are none now, or no more at all.
    fn note_read(&mut self, now: Duration, read: io::Result<usize>) -> Result<Option<usize>, Error> {
        match read {
            Ok(0) if !self.input.has_empty_messages() => {
                self.input_ended = true;
                self.timers.input_ended(now);
                Ok(None)
            }
            Ok(read) => {
                self.timers.moved(now);
                Ok(Some(read))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.input_blocked.set(true);
                Ok(None)
            }
            Err(error) => Err(stdio::Error::Input(error).into()),
        }
    }

    /// Returns when a server's wait for the first datagram ends.
    fn wait_deadline(&self, stack: &Stack) -> Option<Duration> {
        match self.role {
            Role::Server { wait: Some(wait) } if stack.datagrams.peer().is_none() => {
                Some(self.started_at.saturating_add(wait))
            }
            _ => None,
        }
    }

    /// Returns whether to exit: `quit_after` has expired, and what arrived before is written. If the packet
    /// socket never runs empty, as much as its buffer holds is enough.
    fn is_over(&mut self, now: Duration, engine: &Engine) -> Result<bool, Error> {
        if self.timers.quit_at().is_some_and(|at| at <= now) {
            let datagrams = &engine.stack.datagrams;
            let received = datagrams.counters().bytes_received;
            let before = *self.received_by_quit.get_or_insert(received);
            let drained = engine.is_drained() || received - before >= MAX_FRAMES;
            return Ok(drained && datagrams.front().is_none());
        }
        if let Role::Server { wait: Some(wait) } = self.role
            && self.wait_deadline(&engine.stack).is_some_and(|at| at <= now)
        {
            return Err(Error::NoClient(wait));
        }
        match (self.timers.idle_at(), engine.stack.datagrams.peer()) {
            (Some(at), Some(peer)) if at <= now => {
                let after = self.policy.idle_timeout.unwrap_or_default();
                Err(Error::Idle { target: peer.remote, after })
            }
            _ => Ok(false),
        }
    }

    /// Handles ICMP errors: they end a client, unless the peer has answered before and the error may be
    /// transient. A server goes on.
    fn check_errors(&self, engine: &mut Engine) -> Result<(), Error> {
        let datagrams = &mut engine.stack.datagrams;
        let answered = datagrams.was_answered();
        while let Some(error) = datagrams.take_error() {
            let target = error.remote;
            match self.role {
                Role::Client { .. } if error.reason.is_hard() || !answered => {
                    return Err(Error::of_icmp(error));
                }
                _ => log::warn!("{}: {error}; going on", endpoint(&target)),
            }
        }
        Ok(())
    }

    fn summarize(&self, engine: &mut Engine) -> DatagramSummary {
        let since = |at: Duration| at.saturating_sub(self.started_at);
        DatagramSummary {
            counters: engine.stack.datagrams.counters(),
            peer: engine.stack.datagrams.peer(),
            lost: engine.statistics().dropped.into(),
            kept: engine.guard_drops(),
            first_byte: self.heard_at.map(since),
            duration: since(engine.reactor.now()),
        }
    }
}

impl DatagramSummary {
    fn log(&self) {
        let DatagramSummary { counters, lost, .. } = self;
        log::info!(
            "closed: {} sent ({}), {} received ({})",
            count(counters.datagrams_sent, "datagram"),
            count(counters.bytes_sent, "byte"),
            count(counters.datagrams_received, "datagram"),
            count(counters.bytes_received, "byte"),
        );
        if *lost > 0 {
            log::warn!("{} lost: the receive buffer was full", count(*lost, "received frame"));
        }
        if counters.strangers > 0 {
            log::info!("{} of others ignored", count(counters.strangers, "datagram"));
        }
        if counters.invalid > 0 {
            log::warn!("{} with a wrong checksum or length dropped", count(counters.invalid, "datagram"));
        }
    }
}

impl Task for DatagramConversation<'_> {
    type Output = ();
    type Error = Error;

    /// Takes no frames while a received datagram waits to be written.
    fn takes_frames(&self, stack: &Stack) -> bool {
        stack.datagrams.front().is_none()
    }

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<()>, Error> {
        if self.heard_at.is_none() && engine.stack.datagrams.front().is_some() {
            self.heard_at = Some(now);
        }
        let mut busy = self.write_output(now, engine)?;
        self.check_errors(engine)?;
        busy |= self.read_input(now, engine)?;
        match self.is_over(now, engine)? {
            true => Ok(Turn::Done(())),
            false => Ok(Turn::of(busy)),
        }
    }

    fn waits_for<'a>(
        &'a self,
        now: Duration,
        stack: &Stack,
        interests: &mut Vec<Interest<'a>>,
    ) -> Option<Duration> {
        let wants_input = self.wants_input(stack);
        if self.input_blocked.get() && wants_input {
            interests.push(Interest::readable(self.input.as_fd(), &self.input_blocked));
        }
        if self.output_blocked.get() {
            interests.push(Interest::writable(self.output.as_fd(), &self.output_blocked));
        }
        // Once `quit_after` has expired, only the output is waited for, with what has arrived.
        let quit = self.timers.quit_at().filter(|at| *at > now);
        let pause = self.line_delay.as_ref().filter(|_| wants_input).and_then(|lines| lines.due(now));
        [quit, self.timers.idle_at(), self.wait_deadline(stack), pause].into_iter().flatten().min()
    }
}
