//! UDP (`-u`): sends each read of standard input as a datagram, and writes out the datagrams that arrive.
//!
//! UDP has no end of a session, so the input's end and the clock decide: a client waits for a second to
//! hear the answer, a server until it is interrupted, unless -q says otherwise.
use super::{
    attempt::{Attempt, Opened},
    target::Target,
};
use crate::{
    net::zone::endpoint,
    report::{Error, JsonReport},
    runtime::{Engine, Port, Setup, assume},
    session::{
        Access, Policy,
        datagrams::{DatagramConversation, Role},
    },
    stack::{Audience, DatagramService},
    stdio::{self, Stream},
};
use std::{net::SocketAddr, time::Duration};

/// Time that a client waits for the answer after the input's end.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// A UDP client of one address.
#[derive(Clone, Debug)]
pub(crate) struct DatagramConnect {
    /// The host, of whose addresses the first is taken whose next hop answers: UDP itself shows no sign of a peer.
    pub target: Target,
    /// Longest wait for the next hop's link address.
    pub wait: Duration,
    pub policy: Policy,
    /// Pause after each line of the input, which makes each line a datagram.
    pub delay: Option<Duration>,
}

impl DatagramConnect {
    /// Sends and receives until the session ends.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let (engine, remote, interface) =
            self.target.first(report, |attempt, report| attempt.open_datagrams(self.wait, report))?;
        self.relay(remote, engine, &interface, report)
    }

    fn relay(
        &self,
        remote: SocketAddr,
        mut engine: Engine,
        interface: &str,
        report: &mut JsonReport,
    ) -> Result<(), Error> {
        let streams = streams()?;
        engine.enter_sandbox()?;
        let policy = Policy {
            quit_after: self.policy.quit_after.or(match self.policy.no_shutdown {
                true => None,
                false => Some(ANSWER_WAIT),
            }),
            ..self.policy
        };
        let role = Role::Client { remote, interface };
        relay(&mut engine, role, policy, self.delay, streams, report)
    }
}

impl Attempt {
    /// Opens everything. Returns also the peer, and the name of the interface that datagrams leave by.
    fn open_datagrams(
        &self,
        wait: Duration,
        report: &mut JsonReport,
    ) -> Result<(Engine, SocketAddr, String), Error> {
        let Opened { mut engine, origin } = self.open(&[self.remote.port()], wait, report)?;
        let tuple = origin.dial_datagrams(&mut engine, self.remote.port());
        log::info!("sending to {} from {}", endpoint(&tuple.remote), endpoint(&tuple.local));
        Ok((engine, tuple.remote, origin.egress(self.remote.port()).interface.name.clone()))
    }
}

/// A UDP port to serve.
#[derive(Clone, Debug)]
pub(crate) struct DatagramListen {
    pub setup: Setup,
    pub access: Access,
    /// Longest wait for the first datagram.
    pub wait: Option<Duration>,
    /// Serve every peer, not only the first one; input goes to the peer that spoke last.
    pub keep_open: bool,
    pub policy: Policy,
    /// Pause after each line of the input, which makes each line a datagram.
    pub delay: Option<Duration>,
}

impl DatagramListen {
    /// Opens the port and serves it until the session ends.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let mut engine = Engine::open(&self.setup, Port::take(&self.setup)?)?;
        let streams = streams()?;
        engine.enter_sandbox()?;
        if let Some(assumed) = self.setup.assumed {
            assume::assume(&mut engine, assumed)?;
        }
        let gate = self.access.clone().gate();
        let paths = engine.paths(&self.setup.interfaces);
        engine.stack.datagrams.serve(DatagramService {
            audience: if self.keep_open { Audience::All } else { Audience::First },
            gate,
            paths,
        });
        super::announce(&engine, &self.setup, report);
        let role = Role::Server { wait: self.wait };
        relay(&mut engine, role, self.policy, self.delay, streams, report)
    }
}

/// Opens standard input and output, while the process may still open files.
fn streams() -> Result<(Stream, Stream), Error> {
    Ok((Stream::input().map_err(stdio::Error::Input)?, Stream::output().map_err(stdio::Error::Output)?))
}

/// Relays datagrams until the session ends, and reports the counters.
fn relay(
    engine: &mut Engine,
    role: Role<'_>,
    policy: Policy,
    delay: Option<Duration>,
    streams: (Stream, Stream),
    report: &mut JsonReport,
) -> Result<(), Error> {
    let conversation = DatagramConversation::new(engine.reactor.now(), role, policy, delay, streams);
    let (summary, result) = conversation.run(engine);
    report.datagrams(&summary);
    Ok(result?)
}
