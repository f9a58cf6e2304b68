//! Listening: one client, then out.
use super::{
    Error, Policy, disguise,
    engine::{Engine, Port, Setup, path},
    session,
};
use crate::stack::{Admission, Listener};
use std::time::Duration;

/// Connections that wait to be accepted.
const BACKLOG: usize = 128;
/// Handshakes under way.
const HALF_OPEN: usize = 1024;

/// A port to serve.
#[derive(Clone, Debug)]
pub struct Listen {
    pub setup: Setup,
    /// How long to wait for a client.
    pub wait: Option<Duration>,
    pub policy: Policy,
}

impl Listen {
    pub fn run(&self) -> Result<(), Error> {
        let mut engine = Engine::open(&self.setup, Port::take(&self.setup)?)?;
        engine.drop_privileges()?;
        if let Some(persona) = self.setup.persona {
            disguise::assume(&mut engine, persona)?;
        }
        engine.stack.listen(Listener {
            backlog: BACKLOG,
            half_open: HALF_OPEN,
            gate: Box::new(|_| Admission::Accept),
            paths: self.setup.interfaces.iter().map(|i| (i.index, path(i, i.mtu))).collect(),
        });
        log::info!("listening on port {}", engine.port());
        let deadline = self.wait.map(|wait| engine.reactor.now() + wait);
        let Some(tuple) = engine.run_until(deadline, |stack| stack.accept())? else {
            return Err(Error::NobodyCame(self.wait.unwrap_or_default()));
        };
        engine.stack.stop_listening();
        log::info!("established {tuple}");
        let counters = session::run(&mut engine, tuple, self.policy)?;
        log::info!(
            "closed {}: {} bytes sent, {} received",
            tuple.remote,
            counters.bytes_sent,
            counters.bytes_received
        );
        Ok(())
    }
}
