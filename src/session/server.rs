//! Serving clients for as long as netkat runs (`-k`): one after the other, or several at once.
//!
//! What goes where, with standard input and output:
//!
//! - Whatever any client sends goes to standard output, each client's bytes in order. Bytes of several clients
//!   alternate between writes, never within one. The end of one client does not end the output.
//! - Standard input goes to all clients that are there; it is read only while there is one. A client gets what
//!   is read after it came. With one at a time, the next gets what the last one had not been sent.
//! - Once standard input has ended, every client is sent a FIN (unless told not to) and is served until it
//!   ends as well; later clients get theirs at once.
//! - A client that ends its side gets what input is there; it is not kept while input has to be waited for.
//! - A client that takes nothing for 5 s while others wait for the input behind it is reset.
//!
//! With a command, each client has a process of its own instead (see [`super::process`]). Clients beyond the
//! limit wait in the backlog. What goes wrong with one client is logged, and the rest goes on.
use super::{
    Error, Policy,
    broadcast::{Broadcast, Place},
    conversation::{Conversation, Ends},
    process::{Command, Process},
    single::Summary,
};
use crate::{
    net::FiveTuple,
    runtime::{Engine, Task, Turn},
    stack::{Flow, Phase, Stack},
    stdio::{self, Channel, Interest, Taps},
};
use nix::unistd::Pid;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// How to serve.
#[derive(Clone, Debug)]
pub struct Service {
    /// Clients at once, at least 1.
    pub limit: usize,
    pub policy: Policy,
    /// Leave when nobody has been there for so long.
    pub wait: Option<Duration>,
    /// A process for each client, instead of standard input and output.
    pub command: Option<Command>,
}

/// Standard input and output.
struct Standard {
    input: Broadcast,
    output: Channel,
}

struct Client {
    since: Duration,
    conversation: Conversation,
    ends: ClientEnds,
}

enum ClientEnds {
    Standard(Place),
    Process(Process),
}

/// What happens while clients are served.
#[derive(Debug)]
pub enum Event {
    /// A client is gone.
    Left(Box<Departure>),
    /// No client came for long enough.
    Over,
}

/// What became of a client.
#[derive(Debug)]
pub struct Departure {
    pub tuple: FiveTuple,
    pub summary: Summary,
    pub result: Result<(), Error>,
}

/// All clients of a listener.
pub struct Server {
    service: Service,
    standard: Option<Standard>,
    clients: Vec<Client>,
    served: u64,
    idle_since: Duration,
    /// Who is gone, but for a process that has not been waited for.
    departing: Vec<(Pid, Departure)>,
    /// Who is gone and has not been told of.
    departures: VecDeque<Departure>,
}

impl Server {
    /// A server without clients. `taps` are standard input and output, where the service has no command.
    pub fn new(now: Duration, service: Service, taps: Option<Taps>) -> Server {
        Server {
            service,
            standard: taps.map(|taps| Standard { input: Broadcast::new(taps.input), output: taps.output }),
            clients: Vec::new(),
            served: 0,
            idle_since: now,
            departing: Vec::new(),
            departures: VecDeque::new(),
        }
    }

    /// How many clients have come.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// When to leave if no client comes.
    fn quit_at(&self) -> Option<Duration> {
        let wait = self.service.wait.filter(|_| self.clients.is_empty())?;
        Some(self.idle_since.saturating_add(wait))
    }

    /// Takes clients from the backlog while there is room; whether any came.
    fn accept(&mut self, now: Duration, engine: &mut Engine) -> bool {
        let before = self.served;
        while self.has_room(engine)
            && let Some(tuple) = engine.stack.accept()
        {
            self.served += 1;
            let flow = engine.stack.peek(&tuple);
            if flow.is_none_or(|flow| flow.failure().is_some() && flow.received() == 0) {
                log::info!("{}: left before its turn came", tuple.remote);
                engine.stack.remove(&tuple);
                continue;
            }
            match self.admit(now, engine, tuple) {
                Ok(client) => {
                    log::info!("established {tuple}");
                    self.clients.push(client);
                }
                Err(error) => {
                    log::warn!("{}: {error}", tuple.remote);
                    self.close(now, engine, tuple, true);
                }
            }
        }
        before != self.served
    }

    /// Whether there is room for another client. A process counts until it has been waited for, longer than its client
    /// may be there.
    fn has_room(&self, engine: &Engine) -> bool {
        self.clients.len().max(engine.reactor.children.len()) < self.service.limit
    }

    fn admit(&mut self, now: Duration, engine: &mut Engine, tuple: FiveTuple) -> Result<Client, Error> {
        let (kind, ends) = match (&self.service.command, &self.standard) {
            (Some(command), _) => {
                let process = Process::start(&mut engine.reactor.children, command, &tuple)?;
                (Ends::Process, ClientEnds::Process(process))
            }
            (None, standard) => {
                let alone = self.clients.is_empty();
                let place = standard.as_ref().map(|standard| standard.input.join(alone)).unwrap_or_default();
                (Ends::Shared, ClientEnds::Standard(place))
            }
        };
        Ok(Client {
            since: now,
            conversation: Conversation::new(now, tuple, self.service.policy, kind),
            ends,
        })
    }

    /// Reads standard input for those who wait for it, and resets who holds up the others.
    fn read_input(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        let Some(Standard { input, .. }) = &mut self.standard else { return Ok(false) };
        let places = self.clients.iter().filter_map(|client| match client.ends {
            // A client that takes no more input holds nobody up.
            ClientEnds::Standard(place) if !client.conversation.has_input_ended() => Some(place),
            _ => None,
        });
        let read = input.advance(now, places).map_err(stdio::Error::Input)?;
        if input.deadline().is_none_or(|at| at > now) {
            return Ok(read);
        }
        let (stalled, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.clients).into_iter().partition(
            |client| matches!(client.ends, ClientEnds::Standard(place) if input.stalled(now, place)),
        );
        self.clients = rest;
        for client in stalled {
            let tuple = *client.conversation.tuple();
            let error = Error::HeldUp(tuple.remote);
            log::warn!("{error}");
            self.departures.push_back(Self::depart(engine, &client, Err(error)));
            self.close(now, engine, tuple, true);
        }
        Ok(true)
    }

    /// A turn of every conversation; whether anything moved.
    fn converse(&mut self, now: Duration, engine: &mut Engine) -> Result<bool, Error> {
        let mut busy = false;
        let mut at = 0;
        while let Some(client) = self.clients.get_mut(at) {
            let stack = &mut engine.stack;
            let turn = match (&mut client.ends, &mut self.standard) {
                (ClientEnds::Process(process), _) => {
                    client.conversation.turn(now, stack, &mut process.output, &mut process.input)?
                }
                (ClientEnds::Standard(place), Some(Standard { input, output })) => {
                    client.conversation.turn(now, stack, &mut input.reader(place), output)?
                }
                (ClientEnds::Standard(_), None) => Turn::Done(Ok(())),
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

    /// Returns what went by.
    fn depart(engine: &Engine, client: &Client, result: Result<(), Error>) -> Departure {
        let tuple = *client.conversation.tuple();
        let summary = Summary::new(engine, &tuple, client.since);
        log::info!(
            "closed {}: {} bytes sent, {} received",
            tuple.remote,
            summary.counters.bytes_sent,
            summary.counters.bytes_received
        );
        Departure { tuple, summary, result }
    }

    fn finish(&mut self, now: Duration, engine: &mut Engine, client: Client, result: Result<(), Error>) {
        let tuple = *client.conversation.tuple();
        let broke = result.is_err();
        if let Err(error) = &result {
            log::warn!("{error}");
        }
        let departure = Self::depart(engine, &client, result);
        match client.ends {
            ClientEnds::Process(process) => {
                let pid = process.pid;
                // Its pipes close first.
                drop(process);
                self.departing.push((pid, departure));
                engine.reactor.children.release(now, pid, broke);
            }
            ClientEnds::Standard(_) => self.departures.push_back(departure),
        }
        self.close(now, engine, tuple, broke);
    }

    /// Tells of the clients whose process has ended.
    fn settle(&mut self, engine: &mut Engine) {
        for (pid, ended) in engine.reactor.children.take_ended() {
            let Some(at) = self.departing.iter().position(|(departing, _)| *departing == pid) else {
                continue;
            };
            let (_, mut departure) = self.departing.swap_remove(at);
            departure.summary.process = Some(ended);
            self.departures.push_back(departure);
        }
    }

    /// Leaves the rest of a connection to the stack.
    fn close(&mut self, now: Duration, engine: &mut Engine, tuple: FiveTuple, broke: bool) {
        if let Some(flow) = engine.stack.flow(&tuple).filter(|flow| broke && flow.phase() == Phase::Open) {
            flow.abort();
        }
        engine.stack.release(now, &tuple);
        if self.clients.is_empty() {
            self.idle_since = now;
        }
    }

    /// Who is gone and has not been told of yet.
    pub fn departed(&mut self) -> impl Iterator<Item = Departure> {
        self.departures.drain(..)
    }

    /// Resets the clients that are still there and leaves no process behind. Returns what had gone by with each; see
    /// [`Server::departed`] for the others.
    pub fn leave(&mut self, engine: &mut Engine) -> Vec<(FiveTuple, Summary)> {
        let mut left = Vec::with_capacity(self.clients.len());
        for client in std::mem::take(&mut self.clients) {
            let tuple = *client.conversation.tuple();
            let summary = Summary::new(engine, &tuple, client.since);
            engine.stack.flow(&tuple).map(Flow::abort);
            left.push((client, tuple, summary));
        }
        engine.stack.stop_listening();
        let now = engine.reactor.now();
        // The run is over: nothing is to be done about an error any more.
        if let Err(error) = engine.egress(now) {
            log::debug!("cannot reset what is left: {error}");
        }
        let left: Vec<_> = left
            .into_iter()
            .map(|(client, tuple, summary)| match client.ends {
                // Its pipes close first.
                ClientEnds::Process(process) => (Some(process.pid), tuple, summary),
                ClientEnds::Standard(_) => (None, tuple, summary),
            })
            .collect();
        engine.end_children(true);
        let ended: HashMap<_, _> = engine.reactor.children.take_ended().into_iter().collect();
        for (pid, mut departure) in self.departing.drain(..) {
            departure.summary.process = ended.get(&pid).copied();
            self.departures.push_back(departure);
        }
        log::info!("served {} clients", self.served);
        left.into_iter()
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

    fn deliver(&mut self, now: Duration, tuple: &FiveTuple, bytes: &[u8]) -> usize {
        let Some(client) = self.clients.iter_mut().find(|client| client.conversation.tuple() == tuple) else {
            return 0;
        };
        let output = match (&mut client.ends, self.standard.as_mut()) {
            (ClientEnds::Process(process), _) => &mut process.input,
            (ClientEnds::Standard(_), Some(standard)) => &mut standard.output,
            (ClientEnds::Standard(_), None) => return 0,
        };
        client.conversation.offer(now, bytes, output)
    }

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<Event>, Error> {
        let mut busy = self.accept(now, engine);
        busy |= self.read_input(now, engine)?;
        busy |= self.converse(now, engine)?;
        self.settle(engine);
        if let Some(departure) = self.departures.pop_front() {
            return Ok(Turn::Done(Event::Left(Box::new(departure))));
        }
        match self.quit_at() {
            Some(at) if at <= now && self.served > 0 => Ok(Turn::Done(Event::Over)),
            Some(at) if at <= now => Err(Error::NobodyCame(self.service.wait.unwrap_or_default())),
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
        if let Some(Standard { input, output }) = &self.standard {
            interests.extend(input.channel().interest().filter(|_| !self.clients.is_empty()));
            interests.extend(output.interest());
            due = [due, input.deadline(), input.channel().due(now)].into_iter().flatten().min();
        }
        for client in &self.clients {
            let own = match &client.ends {
                ClientEnds::Process(process) => {
                    let (input, output) = (&process.output, &process.input);
                    client.conversation.waits_for(now, stack, input, output, interests)
                }
                ClientEnds::Standard(_) => client.conversation.deadline(),
            };
            due = due.into_iter().chain(own).min();
        }
        due
    }
}
