//! A conversation: one connection and the two streams that its bytes come from and go to.
//!
//! The event loop calls [`Conversation::turn`] whenever something may have happened, and
//! [`Conversation::waits_for`] before it sleeps. Bytes go from a stream straight into the flow's send
//! buffer, and from its receive buffer straight to a stream.
use super::{
    Error,
    relay::{FlowStatus, Outcome, Policy, Relay, Step},
};
use crate::{
    net::FiveTuple,
    runtime::Turn,
    stack::{Flow, Phase, ReceivedData, Stack},
    stdio::{self, Channel, Input, Interest},
};
use std::{io, time::Duration};

/// Maximum of one read or write, in bytes: large enough to be fast, small enough that ACKs do not wait.
const TRANSFER: usize = 256 << 10;
/// Maximum writes in one turn.
const WRITES: usize = 4;

/// The owner of a conversation's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Standard input and output, for this conversation alone.
    Standard,
    /// Standard input and output, shared with other clients: a client that has ended does not wait for
    /// further input.
    Shared,
    /// A process, whose input ends with the peer's side. If the process closes its input, the rest goes on.
    Process,
}

/// One established connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    tuple: FiveTuple,
    relay: Relay,
    policy: Policy,
    streams: Streams,
}

impl Conversation {
    /// Returns the conversation of a connection that was established at `now`.
    pub(crate) fn new(now: Duration, tuple: FiveTuple, policy: Policy, streams: Streams) -> Conversation {
        Conversation { tuple, relay: Relay::new(policy, now), policy, streams }
    }

    /// Returns the connection's addresses.
    pub(crate) fn tuple(&self) -> &FiveTuple {
        &self.tuple
    }

    /// Moves bytes in both directions, as far as they go without waiting, and handles the ends of both.
    ///
    /// # Errors
    /// Failures of standard input and output. A failure of this connection alone is the `Turn`'s result.
    pub(crate) fn turn(
        &mut self,
        now: Duration,
        stack: &mut Stack,
        input: &mut impl Input,
        output: &mut Channel,
    ) -> Result<Turn<Result<(), Error>>, Error> {
        if self.awaits_hang_up() && output.has_hung_up() {
            self.output_closed(output);
        }
        let view = self.view(stack);
        let mut busy = self.write_output(now, stack, output, &view)?;
        busy |= self.read_input(now, stack, input, &view)?;
        let view = self.view(stack);
        let failure = stack.peek(&self.tuple).and_then(Flow::failure);
        // Data received before the failure is still written. But a process may never read it: it may wait
        // for room in its own output, which netkat no longer reads.
        let stuck = self.streams == Streams::Process && output.is_blocked();
        if let Some(failure) = failure.filter(|_| view.received == 0 || stuck) {
            return Ok(Turn::Done(Err(Error::of(self.tuple.remote, failure))));
        }
        if view.peer_finished {
            match self.streams {
                Streams::Shared if !input.is_ready(now) => self.relay.input_ended(now),
                Streams::Process => output.close(),
                Streams::Standard if self.policy.quit_on_peer_close => self.relay.input_ended(now),
                // The reader of standard output sees the peer's end even while standard input goes on.
                Streams::Standard if output.is_open() => {
                    output.close();
                    stdio::release_output();
                }
                _ => {}
            }
        }
        match self.relay.step(now, &view) {
            Step::Relay => {}
            Step::Shutdown => {
                busy = true;
                stack.flow(&self.tuple).map(Flow::close);
            }
            Step::Done(outcome) => return Ok(Turn::Done(self.settle(outcome))),
        }
        Ok(Turn::of(busy))
    }

    fn view(&self, stack: &Stack) -> FlowStatus {
        match stack.peek(&self.tuple) {
            Some(flow) => FlowStatus {
                send_room: flow.send_room(),
                unacknowledged: flow.unacknowledged(),
                received: flow.received(),
                peer_finished: flow.peer_finished(),
                closed: flow.phase() == Phase::Closed,
            },
            None => FlowStatus { closed: true, ..FlowStatus::default() },
        }
    }

    fn write_output(
        &mut self,
        now: Duration,
        stack: &mut Stack,
        output: &mut Channel,
        view: &FlowStatus,
    ) -> Result<bool, Error> {
        if !self.relay.wants_output(view) {
            return Ok(false);
        }
        let Some(flow) = stack.flow(&self.tuple) else { return Ok(false) };
        self.write_out(now, output, |write| flow.receive(TRANSFER, write))
    }

    /// Writes out data that has just come in order and lies in its frame.
    ///
    /// # Errors
    /// As for [`Conversation::turn`].
    pub(crate) fn deliver(
        &mut self,
        now: Duration,
        mut data: ReceivedData<'_>,
        output: &mut Channel,
    ) -> Result<(), Error> {
        self.write_out(now, output, |write| data.receive(TRANSFER, write)).map(drop)
    }

    /// Writes out what `receive` has, piece by piece, as far as it goes without waiting. Returns whether anything
    /// moved.
    fn write_out(
        &mut self,
        now: Duration,
        output: &mut Channel,
        mut receive: impl FnMut(&mut dyn FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize>,
    ) -> Result<bool, Error> {
        let mut busy = false;
        for _ in 0..WRITES {
            if output.is_blocked() {
                break;
            }
            let drops = self.relay.drops_output();
            let written = receive(&mut |bytes| match drops {
                true => Ok(bytes.len()),
                false => output.write(bytes),
            });
            match written {
                Ok(0) => break,
                Ok(_) => self.relay.moved(now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if self.streams == Streams::Process => self.output_closed(output),
                Err(error) => return Err(stdio::Error::Output(error).into()),
            }
            busy = true;
        }
        Ok(busy)
    }

    fn read_input(
        &mut self,
        now: Duration,
        stack: &mut Stack,
        input: &mut impl Input,
        view: &FlowStatus,
    ) -> Result<bool, Error> {
        if !input.is_ready(now) || !self.relay.wants_input(view) {
            return Ok(false);
        }
        let Some(flow) = stack.flow(&self.tuple) else { return Ok(false) };
        match flow.send(TRANSFER, |room| input.read(now, room)) {
            Ok(0) => self.relay.input_ended(now),
            Ok(_) => self.relay.moved(now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(stdio::Error::Input(error).into()),
        }
        Ok(true)
    }

    /// Adds the streams to wait for that are this conversation's alone. Returns the time of the next turn
    /// that is due without any event.
    pub(crate) fn waits_for<'a>(
        &self,
        now: Duration,
        stack: &Stack,
        input: &'a Channel,
        output: &'a Channel,
        interests: &mut Vec<Interest<'a>>,
    ) -> Option<Duration> {
        let reads = self.relay.wants_input(&self.view(stack));
        interests.extend(input.interest().filter(|_| reads));
        interests.extend(output.interest().or_else(|| output.hang_up().filter(|_| self.awaits_hang_up())));
        self.deadline().into_iter().chain(input.due(now)).min()
    }

    /// Returns whether the conversation takes no more input.
    pub(crate) fn has_input_ended(&self) -> bool {
        self.relay.has_input_ended()
    }

    /// Returns whether a process has closed its output, so that only its input can still hang up.
    fn awaits_hang_up(&self) -> bool {
        self.streams == Streams::Process && self.relay.has_input_ended()
    }

    /// Closes the output, which has no reader any more; data that still arrives is dropped.
    fn output_closed(&mut self, output: &mut Channel) {
        output.close();
        self.relay.output_closed();
    }

    /// Returns the time of the next turn that is due without any event.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.relay.deadline()
    }

    fn settle(&self, outcome: Outcome) -> Result<(), Error> {
        let target = self.tuple.remote;
        match outcome {
            Outcome::Complete => Ok(()),
            Outcome::Undelivered(bytes) => Err(Error::Undelivered { target, bytes }),
            Outcome::Idle => Err(Error::Idle { target, after: self.policy.idle_timeout.unwrap_or_default() }),
        }
    }
}
