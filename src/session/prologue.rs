//! The PROXY protocol header in front of a connection's data: sent by a client, awaited by a listener.
//!
//! Nothing of the conversation begins before an awaited header is complete (HAProxy's specification, section 2): no
//! process starts, no input is read, no data is written out. What follows the header stays in the receive buffer.
use super::Error;
use crate::{
    net::{FiveTuple, zone::endpoint},
    proxy_protocol::{Header, HeaderReader, OutgoingHeader, Versions},
    runtime::{Engine, Task, Turn},
    stack::{Flow, Phase, Stack},
    stdio::Interest,
};
use std::time::Duration;

/// Longest wait for a header. The specification wants at least 3 s, for a retransmission.
const WAIT: Duration = Duration::from_secs(5);
/// Maximum of one read, in bytes.
const READ: usize = 16 << 10;

/// The header of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prologue {
    /// The connection has none.
    None,
    /// One to send.
    Send(OutgoingHeader),
    /// One of these versions to await.
    Await(Versions),
}

impl Prologue {
    /// Sends or awaits the header. Returns it, if there is one.
    ///
    /// # Errors
    /// Those of [`AwaitedHeader::poll`].
    pub(super) fn run(self, engine: &mut Engine, tuple: FiveTuple) -> Result<Option<Header>, Error> {
        match self {
            Prologue::None => Ok(None),
            Prologue::Send(outgoing) => Ok(Some(send(&mut engine.stack, &tuple, outgoing))),
            Prologue::Await(versions) => {
                let mut awaiting = Awaiting(AwaitedHeader::new(engine.reactor.now(), tuple, versions));
                engine.run(&mut awaiting)?.map(Some)
            }
        }
    }

    /// Returns whether the header comes from the peer.
    pub(super) fn is_awaited(self) -> bool {
        matches!(self, Prologue::Await(_))
    }
}

/// Puts the header into the empty send buffer, so that it leaves with the first input.
fn send(stack: &mut Stack, tuple: &FiveTuple, outgoing: OutgoingHeader) -> Header {
    let (header, bytes) = outgoing.write(tuple.local, tuple.remote);
    let mut rest = bytes.as_slice();
    while let Some(flow) = stack.flow(tuple).filter(|_| !rest.is_empty()) {
        let sent = flow.send(rest.len(), |room| {
            let (piece, behind) = rest.split_at(rest.len().min(room.len()));
            room[..piece.len()].copy_from_slice(piece);
            rest = behind;
            Ok(piece.len())
        });
        // The connection has failed, which the conversation finds out.
        if !matches!(sent, Ok(1..)) {
            break;
        }
    }
    log::info!("{}: sends a PROXY protocol header: {header}", endpoint(&tuple.remote));
    header
}

/// A connection whose header has not come yet.
#[derive(Debug)]
pub(super) struct AwaitedHeader {
    tuple: FiveTuple,
    /// When the connection was accepted.
    since: Duration,
    reader: HeaderReader,
}

impl AwaitedHeader {
    /// Returns a connection that was accepted at `now`.
    pub(super) fn new(now: Duration, tuple: FiveTuple, versions: Versions) -> AwaitedHeader {
        AwaitedHeader { tuple, since: now, reader: HeaderReader::new(versions) }
    }

    /// Returns the connection's addresses.
    pub(super) fn tuple(&self) -> &FiveTuple {
        &self.tuple
    }

    /// Returns when the connection was accepted.
    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// Returns when the wait ends.
    pub(super) fn deadline(&self) -> Duration {
        self.since + WAIT
    }

    /// Takes what has come of the header, and leaves what follows it. Returns `None` while it is incomplete.
    ///
    /// # Errors
    /// Other data, a wait or a connection that ends before: see [`crate::proxy_protocol::HeaderError`].
    pub(super) fn poll(&mut self, now: Duration, stack: &mut Stack) -> Option<Result<Header, Error>> {
        let (target, reader) = (self.tuple.remote, &mut self.reader);
        let Some(flow) = stack.flow(&self.tuple) else {
            return Some(Err(Error::PartialProxyHeader { target, bytes: reader.taken() }));
        };
        while flow.received() > 0 {
            let mut outcome = Ok(None);
            let taken = flow.receive(READ, |data| {
                let result = reader.take(data);
                let taken = result.as_ref().map_or(0, |(taken, _)| *taken);
                outcome = result.map(|(_, header)| header);
                Ok(taken)
            });
            match outcome {
                Ok(Some(header)) => {
                    log::info!("{}: PROXY protocol header: {header}", endpoint(&target));
                    return Some(Ok(header));
                }
                Ok(None) if matches!(taken, Ok(1..)) => {}
                Ok(None) => break,
                Err(error) => return Some(Err(Error::ProxyHeader { target, error })),
            }
        }
        let bytes = self.reader.taken();
        match flow.failure() {
            Some(failure) => Some(Err(Error::of(target, failure))),
            None if is_over(flow) => Some(Err(Error::PartialProxyHeader { target, bytes })),
            None if self.deadline() <= now => Some(Err(Error::NoProxyHeader { target, bytes, waited: WAIT })),
            None => None,
        }
    }
}

fn is_over(flow: &Flow) -> bool {
    flow.peer_finished() || flow.phase() == Phase::Closed
}

/// The wait for the header of the only connection.
struct Awaiting(AwaitedHeader);

impl Task for Awaiting {
    type Output = Result<Header, Error>;
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<Self::Output>, Error> {
        Ok(self.0.poll(now, &mut engine.stack).map_or(Turn::Idle, Turn::Done))
    }

    fn waits_for<'a>(&'a self, _: Duration, _: &Stack, _: &mut Vec<Interest<'a>>) -> Option<Duration> {
        Some(self.0.deadline())
    }
}
