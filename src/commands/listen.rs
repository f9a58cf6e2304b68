//! Listening: one client, then out; or, with `-k`, all that come.
use crate::{
    report::{Error, JsonReport},
    runtime::{Engine, Port, Setup, assume},
    session::{
        self, Access, Command, Policy,
        server::{Event, Server, Service},
        single,
    },
    stack::Listener,
    stdio::{Recording, Taps},
};
use std::time::Duration;

/// Connections that wait to be accepted.
const BACKLOG: usize = 256;
/// Handshakes of which a record is kept, like Linux's net.ipv4.tcp_max_syn_backlog; about 250 bytes each.
const HALF_OPEN: usize = 4096;

/// A port to serve.
#[derive(Clone, Debug)]
pub struct Listen {
    pub setup: Setup,
    /// How long to wait for a client.
    pub wait: Option<Duration>,
    pub policy: Policy,
    pub access: Access,
    /// Go on after the first client, with so many at once.
    pub keep_open: Option<usize>,
    /// What each client talks to, instead of standard input and output.
    pub command: Option<Command>,
    pub recording: Recording,
}

impl Listen {
    pub fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let taps = super::standard_streams(&self.recording, self.command.as_ref())?;
        let flows = HALF_OPEN + BACKLOG + self.keep_open.unwrap_or(1);
        let mut engine = Engine::open(&Setup { flows, ..self.setup.clone() }, Port::take(&self.setup)?)?;
        engine.enter_sandbox()?;
        if let Some(persona) = self.setup.persona {
            assume::assume(&mut engine, persona)?;
        }
        let access = self.access.clone();
        let paths = engine.paths(&self.setup.interfaces);
        engine.stack.listen(Listener {
            backlog: BACKLOG,
            half_open: HALF_OPEN,
            gate: Box::new(move |address| access.admit(address)),
            paths,
        });
        log::info!("listening on port {}", engine.port());
        match self.keep_open {
            Some(limit) => self.serve_many(&mut engine, limit, taps, report),
            None => self.serve_one(&mut engine, taps, report),
        }
    }

    fn serve_many(
        &self,
        engine: &mut Engine,
        limit: usize,
        taps: Option<Taps>,
        report: &mut JsonReport,
    ) -> Result<(), Error> {
        let service = Service { limit, policy: self.policy, wait: self.wait, command: self.command.clone() };
        let mut server = Server::new(engine.reactor.now(), service, taps);
        let result = loop {
            match engine.run(&mut server) {
                Ok(Event::Left(client)) => report.client(&client),
                Ok(Event::Over) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let remaining = server.leave(engine);
        server.departed().for_each(|client| report.client(&client));
        for (tuple, summary) in remaining {
            report.remaining_client(&tuple, &summary, result.as_ref().copied());
        }
        report.served(server.served(), engine.kept());
        Ok(result?)
    }

    fn serve_one(
        &self,
        engine: &mut Engine,
        taps: Option<Taps>,
        report: &mut JsonReport,
    ) -> Result<(), Error> {
        let deadline = self.wait.map(|wait| engine.reactor.now() + wait);
        let Some(tuple) = engine.run_until(deadline, |stack| stack.accept())? else {
            return Err(session::Error::NobodyCame(self.wait.unwrap_or_default()).into());
        };
        engine.stack.stop_listening();
        log::info!("established {tuple}");
        report.flow(&tuple);
        let (summary, result) = single::run(engine, tuple, self.policy, self.command.as_ref(), taps);
        report.summary(&summary);
        Ok(result?)
    }
}
