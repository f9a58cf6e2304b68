//! Datagrams between a port and standard input and output, one conversation long.
//!
//! One read is one datagram as long as it fits into one: 65507 bytes, over IPv6 65527. Input that comes in
//! larger pieces, as a file does, has no boundaries to keep; it is cut into 16 KiB, as nc does.
//!
//! A full standard output stops the taking of frames; they wait in the packet socket's buffer, and what does
//! not fit there is counted and reported.
use crate::{
    mode::{Attempt, Error, Policy, Report, count, engine::Engine, line_pace::LinePace, memory::MOST_FRAMES},
    reactor::{BUSY_TURNS, Interest},
    stack::{
        DatagramCounters,
        icmp::{IcmpError, Reason},
        max_payload,
    },
    stdio::Stream,
};
use std::{io, os::fd::AsFd, time::Duration};

/// Room for one read, in bytes: more than any datagram carries, so that larger pieces are told apart.
const READ: usize = 64 << 10;
/// What larger pieces are cut into, in bytes: what nc.openbsd reads.
const PIECE: usize = 16 << 10;
/// What goes to the link in one call, at most, in bytes.
const BATCH: usize = 64 << 10;
/// Reads in one turn.
const READS: usize = 64;

/// Which end of the conversation we are.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    Client(&'a Attempt),
    Server {
        /// How long to wait for the first datagram.
        wait: Option<Duration>,
    },
}

pub(super) struct Conversation<'e> {
    engine: &'e mut Engine,
    role: Role<'e>,
    policy: Policy,
    input: Stream,
    output: Stream,
    pace: Option<LinePace>,
    /// What was read and not sent yet.
    buffer: Vec<u8>,
    /// Bytes of the current datagram that are written.
    written: usize,
    /// The last read or write found the other side not ready.
    input_blocked: bool,
    output_blocked: bool,
    input_ended_at: Option<Duration>,
    started_at: Duration,
    /// When a datagram last came or went.
    moved_at: Duration,
    /// When the first datagram came.
    heard_at: Option<Duration>,
    /// Bytes received when it was time to quit.
    received_by_quit: Option<u64>,
}

impl<'e> Conversation<'e> {
    pub fn new(
        engine: &'e mut Engine,
        role: Role<'e>,
        policy: Policy,
        delay: Option<Duration>,
        (input, output): (Stream, Stream),
    ) -> Conversation<'e> {
        let now = engine.reactor.now();
        Conversation {
            engine,
            role,
            policy,
            input,
            output,
            pace: delay.map(LinePace::new),
            buffer: vec![0; BATCH + READ],
            written: 0,
            input_blocked: false,
            output_blocked: false,
            input_ended_at: None,
            started_at: now,
            moved_at: now,
            heard_at: None,
            received_by_quit: None,
        }
    }

    /// Talks until it is over, and reports what went by.
    pub fn run(mut self, report: &mut Report) -> Result<(), Error> {
        let result = self.relay().and_then(|()| self.check_drops());
        let counters = self.engine.stack.datagrams.counters();
        self.report(&counters, report);
        if counters.egress_drops > 0 && !matches!(result, Err(Error::DatagramsDropped { .. })) {
            log::warn!("{} dropped by this host's own egress", count(counters.egress_drops, "datagram"));
        }
        result
    }

    /// A client that got nothing out has failed.
    fn check_drops(&self) -> Result<(), Error> {
        let counters = self.engine.stack.datagrams.counters();
        let (drops, sent) = (counters.egress_drops, counters.datagrams_sent);
        match self.role {
            Role::Client(attempt) if drops > 0 && drops == sent => Err(Error::DatagramsDropped {
                target: attempt.remote,
                datagrams: drops,
                interface: attempt.egress.interface.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn relay(&mut self) -> Result<(), Error> {
        let mut busy_turns = 0;
        loop {
            let now = self.engine.reactor.now();
            // What is in the inbox has to leave before more is taken.
            let empty = self.engine.stack.datagrams.front().is_none();
            let arrived = empty && self.engine.ingress(now)?;
            if self.heard_at.is_none() && self.engine.stack.datagrams.front().is_some() {
                self.heard_at = Some(now);
            }
            let mut busy = arrived | self.write_output(now)?;
            // Questions for link addresses, and answers.
            busy |= self.engine.egress(now)?;
            self.check_errors()?;
            busy |= self.read_input(now)?;
            if self.is_over(now, empty && !arrived)? {
                return Ok(());
            }
            busy_turns = if busy { busy_turns + 1 } else { 0 };
            if !busy || busy_turns >= BUSY_TURNS {
                self.wait(if busy { Some(now) } else { self.deadline(now) })?;
                busy_turns = 0;
            }
        }
    }

    /// Writes what has arrived; whether anything moved.
    fn write_output(&mut self, now: Duration) -> Result<bool, Error> {
        match self.output.keeps_messages() {
            true => self.write_datagrams(now),
            false => self.write_bytes(now),
        }
    }

    /// Writes to a stream without boundaries: what came together goes together.
    fn write_bytes(&mut self, now: Duration) -> Result<bool, Error> {
        let mut moved = false;
        while !self.output_blocked && self.engine.stack.datagrams.front().is_some() {
            let waiting = self.engine.stack.datagrams.waiting();
            let written = match waiting.is_empty() || self.policy.send_only {
                true => waiting.len(),
                false => match self.output.write(waiting) {
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.output_blocked = true;
                        break;
                    }
                    Err(error) => return Err(Error::Output(error)),
                },
            };
            self.engine.stack.datagrams.forget(written);
            self.moved_at = now;
            moved = true;
        }
        Ok(moved)
    }

    /// Writes each datagram with a write of its own.
    fn write_datagrams(&mut self, now: Duration) -> Result<bool, Error> {
        let mut moved = false;
        while !self.output_blocked
            && let Some(datagram) = self.engine.stack.datagrams.front()
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
                        self.output_blocked = true;
                        break;
                    }
                    Err(error) => return Err(Error::Output(error)),
                }
            }
            self.engine.stack.datagrams.pop();
            self.written = 0;
            self.moved_at = now;
            moved = true;
        }
        Ok(moved)
    }

    fn wants_input(&self) -> bool {
        self.input_ended_at.is_none()
            && !self.policy.receive_only
            && self.engine.stack.datagrams.peer().is_some()
    }

    /// Reads and sends until the input has no more or the turn is over; whether anything moved. Reads of equal
    /// length are handed on together, for the kernel to cut.
    fn read_input(&mut self, now: Duration) -> Result<bool, Error> {
        if self.input_blocked || !self.wants_input() {
            return Ok(false);
        }
        let Some(peer) = self.engine.stack.datagrams.peer() else { return Ok(false) };
        let limit = max_payload(peer.local.ip());
        if let Some(pace) = &mut self.pace {
            if pace.due(now).is_some() {
                return Ok(false);
            }
            let room = self.buffer.get_mut(..limit).unwrap_or_default();
            let read = pace.next(now, room, |room| self.input.read(room));
            let Some(read) = self.took(now, read)? else { return Ok(false) };
            if let Some(pace) = &mut self.pace {
                pace.pause(now);
            }
            self.engine.send_datagrams(&self.buffer[..read], read)?;
            return Ok(true);
        }
        let (mut filled, mut size) = (0, 0);
        for _ in 0..READS {
            let Some(room) = self.buffer.get_mut(filled..filled + READ) else { break };
            let read = self.input.read(room);
            let Some(read) = self.took(now, read)? else { break };
            let end = filled + read;
            if filled > 0 && (read > size || read == 0) {
                self.engine.send_datagrams(&self.buffer[..filled], size)?;
                self.buffer.copy_within(filled..end, 0);
                filled = 0;
            }
            if filled == 0 {
                size = if read > limit { PIECE } else { read };
            }
            filled += read;
            // A shorter one ends a super-frame, and what is not cut below need not wait.
            if read < size || read == 0 || read > limit || filled + size > BATCH {
                self.engine.send_datagrams(&self.buffer[..filled], size)?;
                filled = 0;
            }
        }
        if filled > 0 {
            self.engine.send_datagrams(&self.buffer[..filled], size)?;
        }
        Ok(!self.input_blocked)
    }

    /// Notes what a read came to: so many bytes, or nothing more for now or for good.
    fn took(&mut self, now: Duration, read: io::Result<usize>) -> Result<Option<usize>, Error> {
        match read {
            Ok(0) if !self.input.has_empty_messages() => {
                self.input_ended_at = Some(now);
                Ok(None)
            }
            Ok(read) => {
                self.moved_at = now;
                Ok(Some(read))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.input_blocked = true;
                Ok(None)
            }
            Err(error) => Err(Error::Input(error)),
        }
    }

    fn quit_at(&self) -> Option<Duration> {
        let ended = self.input_ended_at?;
        match self.policy.send_only {
            true => Some(ended),
            false => Some(ended.saturating_add(self.policy.quit_after?)),
        }
    }

    fn idle_at(&self) -> Option<Duration> {
        Some(self.moved_at.saturating_add(self.policy.idle_timeout?))
    }

    /// When the first datagram must have come.
    fn patience(&self) -> Option<Duration> {
        match self.role {
            Role::Server { wait: Some(wait) } if self.engine.stack.datagrams.peer().is_none() => {
                Some(self.started_at.saturating_add(wait))
            }
            _ => None,
        }
    }

    fn deadline(&self, now: Duration) -> Option<Duration> {
        // Once it is time to quit, only what has arrived already is waited for: the output's turn.
        let quit = self.quit_at().filter(|at| *at > now);
        let pause = self.pace.as_ref().filter(|_| self.wants_input()).and_then(|pace| pace.due(now));
        [quit, self.idle_at(), self.patience(), pause].into_iter().flatten().min()
    }

    /// Whether to leave: the time has come, and what arrived before it is written. `link_empty` says that
    /// nothing waits in the packet socket; if it never comes to that, as much as its buffer holds is enough.
    fn is_over(&mut self, now: Duration, link_empty: bool) -> Result<bool, Error> {
        if self.quit_at().is_some_and(|at| at <= now) {
            let datagrams = &self.engine.stack.datagrams;
            let received = datagrams.counters().bytes_received;
            let before = *self.received_by_quit.get_or_insert(received);
            let drained = link_empty || received - before >= MOST_FRAMES;
            return Ok(drained && datagrams.front().is_none());
        }
        if let Role::Server { wait: Some(wait) } = self.role
            && self.patience().is_some_and(|at| at <= now)
        {
            return Err(Error::NobodyCame(wait));
        }
        match (self.idle_at(), self.engine.stack.datagrams.peer()) {
            (Some(at), Some(peer)) if at <= now => {
                let after = self.policy.idle_timeout.unwrap_or_default();
                Err(Error::Idle { target: peer.remote, after })
            }
            _ => Ok(false),
        }
    }

    /// Looks at the ICMP errors that came: for a client they are the verdict, unless the peer has answered
    /// before and the error may pass. A server goes on.
    fn check_errors(&mut self) -> Result<(), Error> {
        let datagrams = &mut self.engine.stack.datagrams;
        let answered = datagrams.was_answered();
        while let Some(error) = datagrams.take_error() {
            let target = error.remote;
            match self.role {
                Role::Client(_) if error.reason.is_hard() || !answered => return Err(verdict(error)),
                _ => log::warn!("{target}: {error}; going on"),
            }
        }
        Ok(())
    }

    fn wait(&mut self, deadline: Option<Duration>) -> Result<(), Error> {
        let waits_for_input = self.input_blocked && self.wants_input();
        let mut interests = Vec::with_capacity(2);
        if waits_for_input {
            interests.push(Interest::readable(self.input.as_fd()));
        }
        if self.output_blocked {
            interests.push(Interest::writable(self.output.as_fd()));
            self.engine.wait_without_link(&mut interests, deadline)?;
        } else {
            self.engine.wait(&mut interests, deadline)?;
        }
        let mut ready = interests.iter().map(|interest| interest.ready);
        if waits_for_input && ready.next().unwrap_or(false) {
            self.input_blocked = false;
        }
        if self.output_blocked && ready.next().unwrap_or(false) {
            self.output_blocked = false;
        }
        Ok(())
    }

    fn report(&self, counters: &DatagramCounters, report: &mut Report) {
        log::info!(
            "closed: {} sent ({}), {} received ({})",
            count(counters.datagrams_sent, "datagram"),
            count(counters.bytes_sent, "byte"),
            count(counters.datagrams_received, "datagram"),
            count(counters.bytes_received, "byte"),
        );
        let lost = self.engine.statistics().dropped.into();
        if lost > 0 {
            log::warn!("{} lost: the receive buffer was full", count(lost, "received frame"));
        }
        if let Some(peer) = self.engine.stack.datagrams.peer() {
            report.flow(&peer);
        }
        let since = |at: Duration| at.saturating_sub(self.started_at);
        let (first, end) = (self.heard_at.map(since), since(self.engine.reactor.now()));
        report.datagrams(counters, lost, self.engine.kept(), first, end);
        if counters.strangers > 0 {
            log::info!("{} of others ignored", count(counters.strangers, "datagram"));
        }
        if counters.invalid > 0 {
            log::warn!("{} with a wrong checksum or length dropped", count(counters.invalid, "datagram"));
        }
    }
}

/// What an ICMP error tells a client.
fn verdict(error: IcmpError) -> Error {
    match error.reason {
        Reason::PortUnreachable => Error::PortUnreachable { target: error.remote, from: error.from },
        _ => Error::Rejected { target: error.remote, error: Box::new(error) },
    }
}
