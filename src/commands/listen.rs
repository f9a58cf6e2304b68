//! Listening (`-l`): serves one client and exits; with `-k`, serves every client.
use crate::{
    proxy_protocol::Versions,
    report::{Error, JsonReport},
    runtime::{Engine, Port, Setup, assume},
    session::{
        self, Access, Command, Policy, Prologue,
        server::{Event, Server, ServerOptions},
        single,
    },
    stack::Listener,
    stdio::{StandardStreams, StreamOptions},
};
use std::time::Duration;

/// Maximum connections that wait to be accepted.
const BACKLOG: usize = 256;
/// Maximum handshakes that are remembered, as Linux's net.ipv4.tcp_max_syn_backlog; about 250 bytes each.
const HALF_OPEN: usize = 4096;

/// A TCP port to serve.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    pub setup: Setup,
    /// Longest wait for a client; `None` waits for ever.
    pub wait: Option<Duration>,
    pub policy: Policy,
    pub access: Access,
    /// Versions of the PROXY protocol header with which each client has to begin.
    pub header: Option<Versions>,
    /// With `-k`: maximum clients at once.
    pub keep_open: Option<usize>,
    /// Command that each client gets a process of, instead of standard input and output.
    pub command: Option<Command>,
    pub stream_options: StreamOptions,
}

impl Listen {
    /// Opens the port and serves it until the session, the wait or a signal ends.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let streams = super::standard_streams(&self.stream_options, self.command.as_ref())?;
        let flows = HALF_OPEN + BACKLOG + self.keep_open.unwrap_or(1);
        let mut engine = Engine::open(&Setup { flows, ..self.setup.clone() }, Port::take(&self.setup)?)?;
        engine.enter_sandbox()?;
        if let Some(assumed) = self.setup.assumed {
            assume::assume(&mut engine, assumed)?;
        }
        let gate = self.access.clone().gate();
        let paths = engine.paths(&self.setup.interfaces);
        engine.stack.listen(Listener { backlog: BACKLOG, half_open: HALF_OPEN, gate, paths });
        super::announce(&engine, &self.setup, report);
        match self.keep_open {
            Some(limit) => self.serve_many(&mut engine, limit, streams, report),
            None => self.serve_one(&mut engine, streams, report),
        }
    }

    fn serve_many(
        &self,
        engine: &mut Engine,
        limit: usize,
        streams: Option<StandardStreams>,
        report: &mut JsonReport,
    ) -> Result<(), Error> {
        let options = ServerOptions {
            limit,
            policy: self.policy,
            wait: self.wait,
            command: self.command.clone(),
            header: self.header,
        };
        let mut server = Server::new(engine.reactor.now(), options, streams);
        let result = loop {
            match engine.run(&mut server) {
                Ok(Event::Closed(client)) => report.client(&client),
                Ok(Event::WaitExpired) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let remaining = server.shut_down(engine);
        server.take_closed().for_each(|client| report.client(&client));
        for (tuple, summary) in remaining {
            report.remaining_client(&tuple, &summary, result.as_ref().copied());
        }
        report.served(server.served(), engine.guard_drops());
        Ok(result?)
    }

    fn serve_one(
        &self,
        engine: &mut Engine,
        streams: Option<StandardStreams>,
        report: &mut JsonReport,
    ) -> Result<(), Error> {
        let deadline = self.wait.map(|wait| engine.reactor.now() + wait);
        let Some(tuple) = engine.run_until(deadline, |stack| stack.accept())? else {
            return Err(session::Error::NoClient(self.wait.unwrap_or_default()).into());
        };
        engine.stack.stop_listening();
        log::info!("established {tuple}");
        report.flow(&tuple);
        let prologue = self.header.map_or(Prologue::None, Prologue::Await);
        let (summary, result) =
            single::run(engine, tuple, prologue, self.policy, self.command.as_ref(), streams);
        report.summary(&summary);
        Ok(result?)
    }
}
