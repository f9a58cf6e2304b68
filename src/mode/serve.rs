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
//! With a command, each client has a process of its own instead (see [`super::exec`]). Clients beyond the
//! limit wait in the backlog. What goes wrong with one client is logged, and the rest goes on.
use super::{
    Error, Report,
    broadcast::{Broadcast, Place},
    conversation::{Channel, Conversation, Ends, Turn},
    dialogue::Dialogue,
    engine::Engine,
    exec::{Command, Process},
    session::Summary,
    transcript::{Direction, Taps},
};
use crate::{
    net::FiveTuple,
    reactor::{BUSY_TURNS, Interest},
    relay::Policy,
    stack::{Flow, Phase},
};
use nix::unistd::Pid;
use std::{collections::HashMap, time::Duration};

/// How to serve.
#[derive(Debug)]
pub struct Service {
    /// Clients at once, at least 1.
    pub limit: usize,
    pub policy: Policy,
    /// Leave when nobody has been there for so long.
    pub wait: Option<Duration>,
    /// A process for each client, instead of standard input and output.
    pub command: Option<Command>,
}

/// Serves until a signal comes, nobody does for long enough, or standard output fails.
/// Says in `report` what each client came to.
pub fn run(engine: &mut Engine, service: &Service, taps: Taps, report: &mut Report) -> Result<(), Error> {
    let mut server = Server {
        report,
        standard: taps.standard.map(|(input, output)| Standard { input: Broadcast::new(input), output }),
        idle_since: engine.reactor.now(),
        engine,
        service,
        clients: Vec::new(),
        visits: Dialogue::default(),
        departed: Vec::new(),
        served: 0,
    };
    let result = server.serve();
    server.leave(result.as_ref().copied());
    result
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

/// What a client came to whose process is still to end.
struct Departed {
    pid: Pid,
    tuple: FiveTuple,
    summary: Summary,
    result: Result<(), Error>,
}

enum ClientEnds {
    Standard(Place),
    Process(Process),
}

struct Server<'e> {
    engine: &'e mut Engine,
    report: &'e mut Report,
    service: &'e Service,
    standard: Option<Standard>,
    clients: Vec<Client>,
    /// Clients come and go: one after the other in quick succession, it is a dialogue, too.
    visits: Dialogue,
    /// Clients whose process has not been waited for.
    departed: Vec<Departed>,
    served: u64,
    idle_since: Duration,
}

impl Server<'_> {
    /// The loop: frames in, bytes both ways, frames out; sleep only when none of it moved.
    fn serve(&mut self) -> Result<(), Error> {
        let mut busy_turns = 0;
        loop {
            let now = self.engine.reactor.now();
            let mut busy = self.ingress(now)?;
            busy |= self.accept(now);
            busy |= self.read_input(now)?;
            busy |= self.turn(now)?;
            self.settle();
            busy |= self.engine.egress(now)?;
            let quit =
                self.service.wait.filter(|_| self.clients.is_empty()).map(|wait| self.idle_since + wait);
            if quit.is_some_and(|at| at <= now) {
                let waited = self.service.wait.unwrap_or_default();
                return if self.served > 0 { Ok(()) } else { Err(Error::NobodyCame(waited)) };
            }
            busy_turns = if busy { busy_turns + 1 } else { 0 };
            if !busy || busy_turns >= BUSY_TURNS {
                self.wait(if busy { Some(now) } else { quit })?;
                busy_turns = 0;
            }
        }
    }

    /// Takes what has arrived, and writes out at once what is worth it.
    fn ingress(&mut self, now: Duration) -> Result<bool, Error> {
        let (clients, standard) = (&mut self.clients, &mut self.standard);
        self.engine.ingress_to(now, &mut |tuple, bytes| {
            let Some(client) = clients.iter_mut().find(|client| client.conversation.tuple() == tuple) else {
                return 0;
            };
            let output = match (&mut client.ends, standard.as_mut()) {
                (ClientEnds::Process(process), _) => &mut process.input,
                (ClientEnds::Standard(_), Some(standard)) => &mut standard.output,
                (ClientEnds::Standard(_), None) => return 0,
            };
            client.conversation.offer(now, bytes, output)
        })
    }

    /// Takes clients from the backlog while there is room; whether any came.
    fn accept(&mut self, now: Duration) -> bool {
        let before = self.served;
        while self.has_room()
            && let Some(tuple) = self.engine.stack.accept()
        {
            self.served += 1;
            let flow = self.engine.stack.peek(&tuple);
            if flow.is_none_or(|flow| flow.failure().is_some() && flow.received() == 0) {
                log::info!("{}: left before its turn came", tuple.remote);
                self.engine.stack.remove(&tuple);
                continue;
            }
            match self.admit(now, tuple) {
                Ok(client) => {
                    log::info!("established {tuple}");
                    self.visits.moved(now, Direction::Received);
                    self.clients.push(client);
                }
                Err(error) => {
                    log::warn!("{}: {error}", tuple.remote);
                    self.close(now, tuple, true);
                }
            }
        }
        before != self.served
    }

    /// Whether there is room for another client. A process counts until it has been waited for, longer than its client
    /// may be there.
    fn has_room(&self) -> bool {
        self.clients.len().max(self.engine.reactor.children.len()) < self.service.limit
    }

    fn admit(&mut self, now: Duration, tuple: FiveTuple) -> Result<Client, Error> {
        let (kind, ends) = match (&self.service.command, &self.standard) {
            (Some(command), _) => {
                let process = Process::start(&mut self.engine.reactor.children, command, &tuple)?;
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
    fn read_input(&mut self, now: Duration) -> Result<bool, Error> {
        let Some(Standard { input, .. }) = &mut self.standard else { return Ok(false) };
        let places = self.clients.iter().filter_map(|client| match client.ends {
            // A client that takes no more input holds nobody up.
            ClientEnds::Standard(place) if !client.conversation.has_input_ended() => Some(place),
            _ => None,
        });
        let read = input.advance(now, places).map_err(Error::Input)?;
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
            let summary = self.summary(&client);
            self.report.client(&tuple, &summary, Err(&error), None);
            self.close(now, tuple, true);
        }
        Ok(true)
    }

    /// A turn of every conversation; whether anything moved.
    fn turn(&mut self, now: Duration) -> Result<bool, Error> {
        let mut busy = false;
        let mut at = 0;
        while let Some(client) = self.clients.get_mut(at) {
            let stack = &mut self.engine.stack;
            let turn = match (&mut client.ends, &mut self.standard) {
                (ClientEnds::Process(process), _) => {
                    client.conversation.turn(now, stack, &mut process.output, &mut process.input)?
                }
                (ClientEnds::Standard(place), Some(Standard { input, output })) => {
                    client.conversation.turn(now, stack, &mut input.reader(place), output)?
                }
                (ClientEnds::Standard(_), None) => Turn::Finished(Ok(())),
            };
            match turn {
                Turn::Idle => at += 1,
                Turn::Busy => {
                    busy = true;
                    at += 1;
                }
                Turn::Finished(result) => {
                    busy = true;
                    let client = self.clients.swap_remove(at);
                    self.finish(now, client, result);
                }
            }
        }
        Ok(busy)
    }

    /// What went by, at the end of a connection.
    fn summary(&self, client: &Client) -> Summary {
        let tuple = client.conversation.tuple();
        let summary = Summary::new(self.engine, tuple, client.since);
        log::info!(
            "closed {}: {} bytes sent, {} received",
            tuple.remote,
            summary.counters.bytes_sent,
            summary.counters.bytes_received
        );
        summary
    }

    fn finish(&mut self, now: Duration, client: Client, result: Result<(), Error>) {
        let tuple = *client.conversation.tuple();
        let summary = self.summary(&client);
        let broke = result.is_err();
        if let Err(error) = &result {
            log::warn!("{error}");
        }
        match client.ends {
            ClientEnds::Process(process) => {
                let pid = process.pid;
                // Its pipes close first.
                drop(process);
                self.departed.push(Departed { pid, tuple, summary, result });
                self.engine.reactor.children.release(now, pid, broke);
            }
            ClientEnds::Standard(_) => self.report.client(&tuple, &summary, result.as_ref().copied(), None),
        }
        self.close(now, tuple, broke);
        self.visits.moved(now, Direction::Sent);
    }

    /// Reports the clients whose process has ended.
    fn settle(&mut self) {
        for (pid, ended) in self.engine.reactor.children.take_ended() {
            let Some(at) = self.departed.iter().position(|departed| departed.pid == pid) else { continue };
            let Departed { tuple, summary, result, .. } = self.departed.swap_remove(at);
            self.report.client(&tuple, &summary, result.as_ref().copied(), Some(ended));
        }
    }

    /// Leaves the rest of a connection to the stack.
    fn close(&mut self, now: Duration, tuple: FiveTuple, broke: bool) {
        if let Some(flow) = self.engine.stack.flow(&tuple).filter(|flow| broke && flow.phase() == Phase::Open)
        {
            flow.abort();
        }
        self.engine.stack.release(now, &tuple);
        if self.clients.is_empty() {
            self.idle_since = now;
        }
    }

    fn wait(&mut self, deadline: Option<Duration>) -> Result<(), Error> {
        let mut interests = Vec::with_capacity(2 * self.clients.len() + 2);
        let mut waits = Vec::with_capacity(interests.capacity());
        let mut deadline = deadline;
        if let Some(Standard { input, output }) = &self.standard {
            let reads = input.channel().interest().filter(|_| !self.clients.is_empty());
            for (wait, interest) in [(Wait::Input, reads), (Wait::Output, output.interest())] {
                waits.extend(interest.is_some().then_some(wait));
                interests.extend(interest);
            }
            let due = input.channel().due(self.engine.reactor.now());
            deadline = [deadline, input.deadline(), due].into_iter().flatten().min();
        }
        for (at, client) in self.clients.iter().enumerate() {
            deadline = deadline.into_iter().chain(client.conversation.deadline()).min();
            let ClientEnds::Process(process) = &client.ends else { continue };
            let reads =
                process.output.interest().filter(|_| client.conversation.wants_input(&self.engine.stack));
            let hangs_up = client.conversation.awaits_hang_up();
            let writes = process.input.interest().or_else(|| process.input.hang_up().filter(|_| hangs_up));
            for (wait, interest) in [(Wait::ProcessOutput(at), reads), (Wait::ProcessInput(at), writes)] {
                waits.extend(interest.is_some().then_some(wait));
                interests.extend(interest);
            }
        }
        let dialogues = self.clients.iter().map(|client| client.conversation.awake_until(&self.engine.stack));
        let awake_until = dialogues.chain([self.visits.awake_until()]).flatten().max();
        self.engine.wait_awake(&mut interests, deadline, awake_until)?;
        let ready: Vec<Wait> = waits
            .into_iter()
            .zip(interests.iter().map(|interest: &Interest<'_>| interest.ready))
            .filter_map(|(wait, ready)| ready.then_some(wait))
            .collect();
        ready.into_iter().for_each(|wait| self.ready(wait));
        Ok(())
    }

    fn ready(&mut self, wait: Wait) {
        match (wait, &mut self.standard) {
            (Wait::Input, Some(standard)) => standard.input.channel().unblock(),
            (Wait::Output, Some(standard)) => standard.output.unblock(),
            (Wait::ProcessOutput(at) | Wait::ProcessInput(at), _) => {
                let Some(Client { conversation, ends: ClientEnds::Process(process), .. }) =
                    self.clients.get_mut(at)
                else {
                    return;
                };
                match wait {
                    Wait::ProcessOutput(_) => process.output.unblock(),
                    _ if process.input.is_blocked() => process.input.unblock(),
                    _ => conversation.output_closed(&mut process.input),
                }
            }
            _ => {}
        }
    }

    /// Resets who is still there and leaves no process behind; errors don't matter any more.
    fn leave(&mut self, result: Result<(), &Error>) {
        let clients = std::mem::take(&mut self.clients);
        let summaries: Vec<_> = clients.iter().map(|client| self.summary(client)).collect();
        for client in &clients {
            self.engine.stack.flow(client.conversation.tuple()).map(Flow::abort);
        }
        self.engine.stack.stop_listening();
        let now = self.engine.reactor.now();
        if let Err(error) = self.engine.egress(now) {
            log::debug!("cannot reset what is left: {error}");
        }
        let left: Vec<_> = clients
            .into_iter()
            .zip(summaries)
            .map(|(client, summary)| {
                let tuple = *client.conversation.tuple();
                match client.ends {
                    ClientEnds::Process(process) => (Some(process.pid), tuple, summary),
                    ClientEnds::Standard(_) => (None, tuple, summary),
                }
            })
            .collect();
        self.engine.end_children(true);
        let ended: HashMap<_, _> = self.engine.reactor.children.take_ended().into_iter().collect();
        for Departed { pid, tuple, summary, result } in std::mem::take(&mut self.departed) {
            self.report.client(&tuple, &summary, result.as_ref().copied(), ended.get(&pid).copied());
        }
        for (pid, tuple, summary) in left {
            self.report.client(&tuple, &summary, result, pid.and_then(|pid| ended.get(&pid).copied()));
        }
        log::info!("served {} clients", self.served);
        self.report.served(self.served, self.engine.kept());
    }
}

/// What a wait was for; of a process, the client's place among the clients.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Input,
    Output,
    ProcessOutput(usize),
    ProcessInput(usize),
}
