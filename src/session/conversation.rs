//! One connection and where its bytes come from and go to.
//!
//! A conversation does one [`Conversation::turn`] whenever something may have happened, and says which
//! streams it waits for. The loop around it, for one conversation or for many, moves the frames and sleeps.
//! Bytes go from a stream straight into the flow's ring and from the ring straight to a stream.
use super::{
    Error,
    relay::{Outcome, Policy, Relay, Step, View},
};
use crate::{
    net::FiveTuple,
    runtime::Turn,
    stack::{Flow, Phase, Stack},
    stdio::{self, Channel, Input, Interest},
};
use std::{io, time::Duration};

/// The most bytes moved in one read or write: enough to be fast, little enough that ACKs do not wait.
const TRANSFER: usize = 256 << 10;
/// The most writes in one turn.
const WRITES: usize = 4;

/// Whose streams a conversation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Standard input and output, for this conversation alone.
    Standard,
    /// Standard input and output, of which other clients want something, too: a client that has ended is not
    /// kept waiting for input that is still to come.
    Shared,
    /// A process's. Its input ends with the peer's side, and may be closed by it without harm to the rest.
    Process,
}

/// One established connection.
#[derive(Debug)]
pub struct Conversation {
    tuple: FiveTuple,
    relay: Relay,
    policy: Policy,
    ends: Ends,
}

impl Conversation {
    pub fn new(now: Duration, tuple: FiveTuple, policy: Policy, ends: Ends) -> Conversation {
        Conversation { tuple, relay: Relay::new(policy, now), policy, ends }
    }

    pub fn tuple(&self) -> &FiveTuple {
        &self.tuple
    }

    /// Bytes both ways, as far as they go without waiting.
    ///
    /// # Errors
    /// Only what concerns more than this connection: standard input or output fails.
    pub fn turn(
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
        // What came before the failure is still wanted, but a process that does not take it may never do: it waits for
        // room in its own output, which nobody reads any more.
        let stuck = self.ends == Ends::Process && output.is_blocked();
        if let Some(failure) = failure.filter(|_| view.received == 0 || stuck) {
            return Ok(Turn::Done(Err(Error::of(self.tuple.remote, failure))));
        }
        if view.peer_finished {
            match self.ends {
                Ends::Shared if !input.is_ready(now) => self.relay.input_ended(now),
                Ends::Process => output.close(),
                // Whoever reads our output sees the peer's end, though our input may go on.
                Ends::Standard if output.is_open() => {
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

    fn view(&self, stack: &Stack) -> View {
        match stack.peek(&self.tuple) {
            Some(flow) => View {
                send_room: flow.send_room(),
                unacknowledged: flow.unacknowledged(),
                received: flow.received(),
                peer_finished: flow.peer_finished(),
                closed: flow.phase() == Phase::Closed,
            },
            None => View { closed: true, ..View::default() },
        }
    }

    fn write_output(
        &mut self,
        now: Duration,
        stack: &mut Stack,
        output: &mut Channel,
        view: &View,
    ) -> Result<bool, Error> {
        if output.is_blocked() || !self.relay.wants_output(view) {
            return Ok(false);
        }
        let Some(flow) = stack.flow(&self.tuple) else { return Ok(false) };
        let mut busy = false;
        // More may have come since the last turn than one write takes.
        for _ in 0..WRITES {
            if flow.received() == 0 {
                break;
            }
            let drops = self.relay.drops_output();
            let written = flow.receive(TRANSFER, |bytes| match drops {
                true => Ok(bytes.len()),
                false => output.write(bytes),
            });
            match written {
                Ok(0) => break,
                Ok(_) => self.relay.moved(now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if self.ends == Ends::Process => self.output_closed(output),
                Err(error) => return Err(stdio::Error::Output(error).into()),
            }
            busy = true;
        }
        Ok(busy)
    }

    /// Writes out bytes that have just come, before they are kept anywhere; returns how many. An error comes up again
    /// when the rest is written.
    pub fn offer(&mut self, now: Duration, bytes: &[u8], output: &mut Channel) -> usize {
        let written = match (self.relay.drops_output(), output.is_blocked()) {
            (true, _) => bytes.len(),
            (false, true) => 0,
            (false, false) => output.write(bytes).unwrap_or(0),
        };
        if written > 0 {
            self.relay.moved(now);
        }
        written
    }

    fn read_input(
        &mut self,
        now: Duration,
        stack: &mut Stack,
        input: &mut impl Input,
        view: &View,
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

    /// Adds what a turn waits for of the streams that are this conversation's alone. Returns when a turn is due even
    /// if nothing happens.
    pub fn waits_for<'a>(
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

    /// Whether no more input will be taken.
    pub fn has_input_ended(&self) -> bool {
        self.relay.has_input_ended()
    }

    /// Whether a process has closed its output, so that only the end of its input is to be waited for.
    fn awaits_hang_up(&self) -> bool {
        self.ends == Ends::Process && self.relay.has_input_ended()
    }

    /// Nobody reads our output any more: what the peer still sends is dropped.
    fn output_closed(&mut self, output: &mut Channel) {
        output.close();
        self.relay.output_closed();
    }

    /// When a turn is due even if nothing happens.
    pub fn deadline(&self) -> Option<Duration> {
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
