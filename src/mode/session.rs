//! One established connection between standard input and output.
use super::{Error, engine::Engine};
use crate::{
    net::FiveTuple,
    reactor::Interest,
    relay::{Outcome, Policy, Relay, Step, View},
    stack::{Counters, Failure, Flow, Phase},
    stdio::Stream,
};
use std::{io, os::fd::AsFd, time::Duration};

/// The most bytes moved in one read or write: enough to be fast, little enough that ACKs do not wait.
const TRANSFER: usize = 256 << 10;
/// Turns without a wait after which descriptors and signals are looked at all the same.
const BUSY_TURNS: u32 = 16;
/// How long a peer whose path lost packets may still repeat its FIN: above all, Linux's minimum RTO of 200 ms
/// (include/net/tcp.h, TCP_RTO_MIN) and its backoff.
const LINGER: Duration = Duration::from_millis(700);

/// Relays until it is over and returns what went by. On an error the peer is sent a reset.
pub fn run(engine: &mut Engine, tuple: FiveTuple, policy: Policy) -> Result<Counters, Error> {
    let mut session = Session::new(engine, tuple, policy)?;
    let result = session.relay().and_then(|()| session.finish());
    if result.is_err() {
        session.abort();
        session.engine.check();
    }
    let counters = engine.stack.peek(&tuple).map(Flow::counters).unwrap_or_default();
    engine.stack.remove(&tuple);
    result.map(|()| counters)
}

struct Session<'e> {
    engine: &'e mut Engine,
    tuple: FiveTuple,
    relay: Relay,
    policy: Policy,
    input: Stream,
    output: Stream,
    /// The last read or write found the other side not ready.
    input_blocked: bool,
    output_blocked: bool,
}

impl<'e> Session<'e> {
    fn new(engine: &'e mut Engine, tuple: FiveTuple, policy: Policy) -> Result<Session<'e>, Error> {
        let relay = Relay::new(policy, engine.reactor.now());
        Ok(Session {
            engine,
            tuple,
            relay,
            policy,
            input: Stream::input().map_err(Error::Input)?,
            output: Stream::output().map_err(Error::Output)?,
            input_blocked: false,
            output_blocked: false,
        })
    }

    /// The loop: frames in, bytes both ways, frames out; sleep only when none of it moved.
    fn relay(&mut self) -> Result<(), Error> {
        let mut busy_turns = 0;
        loop {
            let now = self.engine.reactor.now();
            let mut busy = self.engine.ingress(now)?;
            let view = self.view();
            busy |= self.write_output(now, &view)?;
            busy |= self.read_input(now, &view)?;
            let view = self.view();
            if let Some(failure) = self.failure().filter(|_| view.received == 0) {
                return Err(self.explain(&failure));
            }
            match self.relay.step(now, &view) {
                Step::Relay => {}
                Step::Shutdown => {
                    busy = true;
                    self.with_flow(Flow::close);
                }
                Step::Done(outcome) => return self.settle(outcome),
            }
            busy |= self.engine.egress(now)?;
            busy_turns = if busy { busy_turns + 1 } else { 0 };
            if !busy || busy_turns >= BUSY_TURNS {
                self.wait(if busy { Some(now) } else { self.relay.deadline() })?;
                busy_turns = 0;
            }
        }
    }

    fn view(&self) -> View {
        match self.engine.stack.peek(&self.tuple) {
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

    fn failure(&self) -> Option<Failure> {
        self.engine.stack.peek(&self.tuple)?.failure().cloned()
    }

    fn with_flow<R>(&mut self, work: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        self.engine.stack.flow(&self.tuple).map(work)
    }

    fn write_output(&mut self, now: Duration, view: &View) -> Result<bool, Error> {
        if self.output_blocked || !self.relay.wants_output(view) {
            return Ok(false);
        }
        let Some(flow) = self.engine.stack.flow(&self.tuple) else { return Ok(false) };
        let (drops, output) = (self.relay.drops_output(), &self.output);
        let written = flow.receive(TRANSFER, |bytes| match drops {
            true => Ok(bytes.len()),
            false => output.write(bytes),
        });
        match written {
            Ok(_) => self.relay.moved(now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.output_blocked = true,
            Err(error) => return Err(Error::Output(error)),
        }
        Ok(!self.output_blocked)
    }

    fn read_input(&mut self, now: Duration, view: &View) -> Result<bool, Error> {
        if self.input_blocked || !self.relay.wants_input(view) {
            return Ok(false);
        }
        let Some(flow) = self.engine.stack.flow(&self.tuple) else { return Ok(false) };
        let input = &self.input;
        match flow.send(TRANSFER, |room| input.read(room)) {
            Ok(0) => self.relay.input_ended(now),
            Ok(_) => self.relay.moved(now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.input_blocked = true,
            Err(error) => return Err(Error::Input(error)),
        }
        Ok(!self.input_blocked)
    }

    fn wait(&mut self, deadline: Option<Duration>) -> Result<(), Error> {
        let view = self.view();
        let waits_for_input = self.input_blocked && self.relay.wants_input(&view);
        let mut interests = Vec::with_capacity(2);
        if waits_for_input {
            interests.push(Interest::readable(self.input.as_fd()));
        }
        if self.output_blocked {
            interests.push(Interest::writable(self.output.as_fd()));
        }
        self.engine.wait(&mut interests, deadline)?;
        let mut ready = interests.iter().map(|interest| interest.ready);
        if waits_for_input && ready.next().unwrap_or(false) {
            self.input_blocked = false;
        }
        if self.output_blocked && ready.next().unwrap_or(false) {
            self.output_blocked = false;
        }
        Ok(())
    }

    fn settle(&mut self, outcome: Outcome) -> Result<(), Error> {
        let target = self.tuple.remote;
        match outcome {
            Outcome::Complete => Ok(()),
            Outcome::Undelivered(bytes) => Err(Error::Undelivered { target, bytes }),
            Outcome::Idle => Err(Error::Idle { target, after: self.policy.idle_timeout.unwrap_or_default() }),
        }
    }

    fn explain(&self, failure: &Failure) -> Error {
        let target = self.tuple.remote;
        match failure {
            Failure::Refused => Error::Refused(target),
            Failure::Reset => Error::Reset(target),
            Failure::Rejected(error) => Error::Rejected { target, error: Box::new(*error) },
            Failure::Vanished => Error::Vanished(target),
            Failure::InterfaceGone => Error::InterfaceGone(target),
        }
    }

    /// Sends what is left, a FIN if there was none, and stays while the peer may still need an answer.
    ///
    /// Once both FINs are acknowledged, only the loss of our last ACK could make the peer speak again. So on a
    /// path that lost nothing so far there is no waiting; on another, TIME-WAIT is kept for a little while.
    fn finish(&mut self) -> Result<(), Error> {
        let lossy = self.with_flow(|flow| {
            flow.close();
            flow.saw_loss()
        });
        let start = self.engine.reactor.now();
        loop {
            let now = self.engine.reactor.now();
            let busy = self.engine.ingress(now)? | self.engine.egress(now)?;
            let Some(flow) = self.engine.stack.peek(&self.tuple) else { return Ok(()) };
            let over = match flow.phase() {
                Phase::Closed => lossy != Some(true) || !flow.in_time_wait(),
                // The peer has what we sent; whether it ends is its own affair by now.
                _ => flow.unacknowledged() == 0,
            };
            if over || now >= start + LINGER {
                return Ok(());
            }
            if !busy {
                self.engine.wait(&mut [], Some(start + LINGER))?;
            }
        }
    }

    /// Resets the connection; errors don't matter any more.
    fn abort(&mut self) {
        self.with_flow(Flow::abort);
        let now = self.engine.reactor.now();
        if let Err(error) = self.engine.egress(now) {
            log::debug!("cannot reset {}: {error}", self.tuple);
        }
    }
}
