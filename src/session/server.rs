//! A server (`-l -k`): client after client, or several at once, for as long as netkat runs.
//!
//! Without a command, all clients share standard input and output:
//!
//! - Data of every client goes to standard output, each client's bytes in order. Bytes of several clients
//!   alternate between writes, never within one. The end of one client does not end the output.
//! - Standard input goes to all connected clients; it is read only while there is one. A client gets the
//!   input that is read after its arrival. With one client at a time, the next one gets the input that the
//!   last one was not sent.
//! - Once standard input has ended, netkat sends every client a FIN (unless `no_shutdown`) and serves it
//!   until it ends as well; later clients get their FIN at once.
//! - A client that ends its side gets the input that is there, and does not wait for more.
//! - A client that takes nothing for 5 s while others wait for the input behind it is reset.
//!
//! With a command, each client has a process of its own instead (see [`super::process`]). Clients beyond the
//! limit wait in the backlog. A failure of one client is logged, and the others go on.
//!
//! Where a PROXY protocol header is awaited, a client begins with it: until then it gets no process and no input, but
//! counts.
use super::{
    Error, Policy,
    conversation::{Conversation, Streams},
    process::{Command, Process},
    prologue::AwaitedHeader,
    shared_input::{Position, SharedInput},
    single::Summary,
};
use crate::{
    net::{FiveTuple, zone::endpoint},
    proxy_protocol::{Header, Versions},
    runtime::{Engine, Task, Turn},
    stack::{Flow, Phase, ReceivedData, Stack},
    stdio::{self, Channel, Interest, StandardStreams},
};
use nix::unistd::Pid;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// The options of a server.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// Maximum clients at once, at least 1.
    pub limit: usize,
    pub policy: Policy,
    /// Time without any client after which the server ends.
    pub wait: Option<Duration>,
    /// Command that each client gets a process of, instead of standard input and output.
    pub command: Option<Command>,
    /// Versions of the PROXY protocol header with which each client has to begin.
    pub header: Option<Versions>,
}

/// Standard input and output, shared by all clients.
struct SharedStreams {
    input: SharedInput,
    output: Channel,
}

/// A connected client.
struct Client {
    /// Time at which the client was accepted.
    since: Duration,
    header: Option<Header>,
    conversation: Conversation,
    streams: ClientStreams,
}

/// The streams of a client.
enum ClientStreams {
    /// The shared ones, and the client's position in the input.
    Standard(Position),
    /// Those of its own process.
    Process(Process),
}

/// An event that the caller of the event loop handles.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client has disconnected, and its process has exited.
    Closed(Box<ClosedClient>),
    /// `wait` has passed without any client.
    WaitExpired,
}

/// A client that has disconnected.
#[derive(Debug)]
pub(crate) struct ClosedClient {
    pub tuple: FiveTuple,
    pub summary: Summary,
    pub result: Result<(), Error>,
}

/// A server and its clients.
pub(crate) struct Server {
    options: ServerOptions,
    standard: Option<SharedStreams>,
    clients: Vec<Client>,
    /// Connected clients whose header has not come yet.
    awaited: Vec<AwaitedHeader>,
    served: u64,
    /// Time at which the last client disconnected.
    idle_since: Duration,
    /// Clients that have disconnected, but whose process has not exited.
    exiting: Vec<(Pid, ClosedClient)>,
    /// Clients that have disconnected and are not reported yet.
    closed: VecDeque<ClosedClient>,
}

impl Server {
    /// Returns a server without clients. `streams` are standard input and output, unless the options have a
    /// command.
    pub(crate) fn new(now: Duration, options: ServerOptions, streams: Option<StandardStreams>) -> Server {
        Server {
            options,
            standard: streams.map(|streams| SharedStreams {
                input: SharedInput::new(streams.input),
                output: streams.output,
            }),
            clients: Vec::new(),
            awaited: Vec::new(),
            served: 0,
            idle_since: now,
            exiting: Vec::new(),
            closed: VecDeque::new(),
        }
    }

    /// Returns the number of clients that have connected.
    pub(crate) fn served(&self) -> u64 {
        self.served
    }

    /// Returns when the server ends if no client connects.
    fn quit_at(&self) -> Option<Duration> {
        let wait = self.options.wait.filter(|_| self.connected() == 0)?;
        Some(self.idle_since.saturating_add(wait))
    }

    /// Takes clients from the backlog while there is room. Returns whether any came.
    fn accept(&mut self, now: Duration, engine: &mut Engine) -> bool {
        let before = self.served;
        while self.has_room(engine)
            && let Some(tuple) = engine.stack.accept()
        {
            self.served += 1;
            let flow = engine.stack.peek(&tuple);
            if flow.is_none_or(|flow| flow.failure().is_some() && flow.received() == 0) {
                log::info!("{}: disconnected while it waited in the backlog", endpoint(&tuple.remote));
                engine.stack.remove(&tuple);
                continue;
            }
            log::info!("established {tuple}");
            match self.options.header {
                Some(versions) => self.awaited.push(AwaitedHeader::new(now, tuple, versions)),
                None => self.begin(now, now, engine, tuple, None),
            }
        }
        before != self.served
    }

    /// Returns the number of connected clients.
    fn connected(&self) -> usize {
        self.clients.len() + self.awaited.len()
    }

    /// Begins the conversations of clients whose header is complete, and resets those without one. Returns whether any
    /// was either.
    fn read_headers(&mut self, now: Duration, engine: &mut Engine) -> bool {
        let before = self.awaited.len();
        for mut awaited in std::mem::take(&mut self.awaited) {
            let (tuple, since) = (*awaited.tuple(), awaited.since());
            match awaited.poll(now, &mut engine.stack) {
                None => self.awaited.push(awaited),
                Some(Ok(header)) => self.begin(now, since, engine, tuple, Some(header)),
                Some(Err(error)) => {
                    log::warn!("{error}");
                    self.closed.push_back(Self::record_close(engine, tuple, since, None, Err(error)));
                    self.close(now, engine, tuple, true);
                }
            }
        }
        before != self.awaited.len()
    }

    /// Begins the conversation of a client that was accepted at `since`; resets it if there can be none.
    fn begin(
        &mut self,
        now: Duration,
        since: Duration,
        engine: &mut Engine,
        tuple: FiveTuple,
        header: Option<Header>,
    ) {
        match self.start_client(now, since, engine, tuple, header) {
            Ok(client) => self.clients.push(client),
            Err(error) => {
                log::warn!("{}: {error}", endpoint(&tuple.remote));
                self.close(now, engine, tuple, true);
            }
        }
    }

    /// Returns whether there is room for another client. A process counts until it has exited, which may be
    /// after its client has disconnected.
    fn has_room(&self, engine: &Engine) -> bool {
        self.clients.len().max(engine.reactor.children.len()) + self.awaited.len() < self.options.limit
    }

    fn start_client(
        &mut self,
        now: Duration,
        since: Duration,
        engine: &mut Engine,
        tuple: FiveTuple,
        header: Option<Header>,
    ) -> Result<Client, Error> {
        let (owner, streams) = match (&self.options.command, &self.standard) {
            (Some(command), _) => {
                let process = Process::start(&mut engine.reactor.children, command, &tuple, header.as_ref())?;
                (Streams::Process, ClientStreams::Process(process))
            }
            (None, standard) => {
                let alone = self.clients.is_empty();
                let position =
                    standard.as_ref().map(|standard| standard.input.join(alone)).unwrap_or_default();
                (Streams::Shared, ClientStreams::Standard(position))
            }
        };
        Ok(Client {
            since,
            header,
            conversation: Conversation::new(now, tuple, self.options.policy, owner),
            streams,
        })
    }

    /// Reads standard input for the clients that wait for it, and resets clients that hold up the others.
    fn read_input(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        let Some(SharedStreams { input, .. }) = &mut self.standard else { return Ok(false) };
        let positions = self.clients.iter().filter_map(|client| match client.streams {
            // A client that takes no more input holds up no other.
            ClientStreams::Standard(position) if !client.conversation.has_input_ended() => Some(position),
            _ => None,
        });
        let read = input.advance(now, positions).map_err(stdio::Error::Input)?;
        if input.deadline().is_none_or(|at| at > now) {
            return Ok(read);
        }
        let (stalled, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.clients).into_iter().partition(
            |client| matches!(client.streams, ClientStreams::Standard(position) if input.stalled(now, position)),
        );
        self.clients = rest;
        for client in stalled {
            let tuple = *client.conversation.tuple();
            let error = Error::HeldUp(tuple.remote);
            log::warn!("{error}");
            let Client { since, header, .. } = client;
            self.closed.push_back(Self::record_close(engine, tuple, since, header, Err(error)));
            self.close(now, engine, tuple, true);
        }
        Ok(true)
    }

    /// Takes a turn of every conversation. Returns whether anything moved.
    fn converse(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        let mut busy = false;
        let mut at = 0;
        while let Some(client) = self.clients.get_mut(at) {
            let stack = &mut engine.stack;
            let turn = match (&mut client.streams, &mut self.standard) {
                (ClientStreams::Process(process), _) => {
                    client.conversation.turn(now, stack, &mut process.output, &mut process.input)?
                }
                (ClientStreams::Standard(position), Some(SharedStreams { input, output })) => {
                    client.conversation.turn(now, stack, &mut input.reader(position), output)?
                }
                (ClientStreams::Standard(_), None) => Turn::Done(Ok(())),
            };
            match turn {
                Turn::Idle => at += 1,
                Turn::Busy => {
                    busy = true;
                    at += 1;
                }
                Turn::Done(result) => {
                    busy = true;
                    let client = self.clients.swap_remove(at);
                    self.finish(now, engine, client, result);
                }
            }
        }
        Ok(busy)
    }

    /// Returns the record of a client that has disconnected, and logs it.
    fn record_close(
        engine: &mut Engine,
        tuple: FiveTuple,
        since: Duration,
        header: Option<Header>,
        result: Result<(), Error>,
    ) -> ClosedClient {
        let summary = Summary { header, ..Summary::new(engine, &tuple, since) };
        log::info!(
            "closed {}: {} bytes sent, {} received",
            endpoint(&tuple.remote),
            summary.counters.bytes_sent,
            summary.counters.bytes_received
        );
        ClosedClient { tuple, summary, result }
    }

    /// Ends a client: releases its process, and leaves its connection to the stack.
    fn finish(&mut self, now: Duration, engine: &mut Engine, client: Client, result: Result<(), Error>) {
        let tuple = *client.conversation.tuple();
        let failed = result.is_err();
        if let Err(error) = &result {
            log::warn!("{error}");
        }
        let Client { since, header, streams, .. } = client;
        let closed = Self::record_close(engine, tuple, since, header, result);
        match streams {
            ClientStreams::Process(process) => {
                let pid = process.pid;
                // The process's pipes close before it is waited for.
                drop(process);
                self.exiting.push((pid, closed));
                engine.reactor.children.release(now, pid, failed);
            }
            ClientStreams::Standard(_) => self.closed.push_back(closed),
        }
        self.close(now, engine, tuple, failed);
    }

    /// Moves clients whose process has exited to those that are to be reported.
    fn collect_exited(&mut self, engine: &mut Engine) {
        for (pid, ended) in engine.reactor.children.take_ended() {
            let Some(at) = self.exiting.iter().position(|(exiting, _)| *exiting == pid) else {
                continue;
            };
            let (_, mut closed) = self.exiting.swap_remove(at);
            closed.summary.process = Some(ended);
            self.closed.push_back(closed);
        }
    }

    /// Leaves the rest of a connection to the stack; resets it if it failed.
    fn close(&mut self, now: Duration, engine: &mut Engine, tuple: FiveTuple, failed: bool) {
        if let Some(flow) = engine.stack.flow(&tuple).filter(|flow| failed && flow.phase() == Phase::Open) {
            flow.abort();
        }
        engine.stack.release(now, &tuple);
        if self.connected() == 0 {
            self.idle_since = now;
        }
    }

    /// Returns the clients that have disconnected and are not reported yet.
    pub(crate) fn take_closed(&mut self) -> impl Iterator<Item = ClosedClient> {
        self.closed.drain(..)
    }

    /// Resets the connected clients and ends all processes. Returns the counters of these clients; see
    /// [`Server::take_closed`] for clients that disconnected before.
    pub(crate) fn shut_down(&mut self, engine: &mut Engine) -> Vec<(FiveTuple, Summary)> {
        let mut remaining = Vec::with_capacity(self.connected());
        for awaited in self.awaited.drain(..) {
            let tuple = *awaited.tuple();
            let summary = Summary::new(engine, &tuple, awaited.since());
            engine.stack.flow(&tuple).map(Flow::abort);
            remaining.push((None, tuple, summary));
        }
        for Client { since, header, conversation, streams } in std::mem::take(&mut self.clients) {
            let tuple = *conversation.tuple();
            let summary = Summary { header, ..Summary::new(engine, &tuple, since) };
            engine.stack.flow(&tuple).map(Flow::abort);
            remaining.push((Some(streams), tuple, summary));
        }
        engine.stack.stop_listening();
        let now = engine.reactor.now();
        // The run is over, so an error is only logged.
        if let Err(error) = engine.egress(now) {
            log::debug!("cannot reset the connected clients: {error}");
        }
        let remaining: Vec<_> = remaining
            .into_iter()
            .map(|(streams, tuple, summary)| match streams {
                // The process's pipes close before it is waited for.
                Some(ClientStreams::Process(process)) => (Some(process.pid), tuple, summary),
                Some(ClientStreams::Standard(_)) | None => (None, tuple, summary),
            })
            .collect();
        engine.end_children(true);
        let ended: HashMap<_, _> = engine.reactor.children.take_ended().into_iter().collect();
        for (pid, mut closed) in self.exiting.drain(..) {
            closed.summary.process = ended.get(&pid).copied();
            self.closed.push_back(closed);
        }
        log::info!("served {} clients", self.served);
        remaining
            .into_iter()
            .map(|(pid, tuple, mut summary)| {
                summary.process = pid.and_then(|pid| ended.get(&pid).copied());
                (tuple, summary)
            })
            .collect()
    }
}

impl Task for Server {
    type Output = Event;
    type Error = Error;

    fn deliver(&mut self, now: Duration, data: ReceivedData<'_>) -> Result<(), Error> {
        let of = |client: &&mut Client| client.conversation.tuple() == data.tuple();
        let Some(client) = self.clients.iter_mut().find(of) else { return Ok(()) };
        let output = match (&mut client.streams, self.standard.as_mut()) {
            (ClientStreams::Process(process), _) => &mut process.input,
            (ClientStreams::Standard(_), Some(standard)) => &mut standard.output,
            (ClientStreams::Standard(_), None) => return Ok(()),
        };
        client.conversation.deliver(now, data, output)
    }

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<Event>, Error> {
        let mut busy = self.accept(now, engine);
        busy |= self.read_headers(now, engine);
        busy |= self.read_input(now, engine)?;
        busy |= self.converse(now, engine)?;
        self.collect_exited(engine);
        if let Some(closed) = self.closed.pop_front() {
            return Ok(Turn::Done(Event::Closed(Box::new(closed))));
        }
        match self.quit_at() {
            Some(at) if at <= now && self.served > 0 => Ok(Turn::Done(Event::WaitExpired)),
            Some(at) if at <= now => Err(Error::NoClient(self.options.wait.unwrap_or_default())),
            _ => Ok(Turn::of(busy)),
        }
    }

    fn waits_for<'a>(
        &'a self,
        now: Duration,
        stack: &Stack,
        interests: &mut Vec<Interest<'a>>,
    ) -> Option<Duration> {
        let mut due = self.quit_at();
        if let Some(SharedStreams { input, output }) = &self.standard {
            interests.extend(input.channel().interest().filter(|_| !self.clients.is_empty()));
            interests.extend(output.interest());
            due = [due, input.deadline(), input.channel().due(now)].into_iter().flatten().min();
        }
        due = due.into_iter().chain(self.awaited.iter().map(AwaitedHeader::deadline)).min();
        for client in &self.clients {
            let own = match &client.streams {
                ClientStreams::Process(process) => {
                    let (input, output) = (&process.output, &process.input);
                    client.conversation.waits_for(now, stack, input, output, interests)
                }
                ClientStreams::Standard(_) => client.conversation.deadline(),
            };
            due = due.into_iter().chain(own).min();
        }
        due
    }
}
