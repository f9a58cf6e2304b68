//! UDP: each read of standard input is a datagram; each datagram is a write to a standard output that keeps them
//! apart, as some sockets do, and elsewhere those that came together are written together.
//!
//! Nothing tells the end of a conversation, so the input's end and the clock must: a client stays for a second
//! to hear the answer, a server until it is interrupted, unless -q says otherwise.
use super::attempt::{Attempt, Opened};
use crate::{
    report::{Error, JsonReport},
    runtime::{Engine, Port, Setup, assume},
    session::{
        Access, Policy,
        datagrams::{DatagramConversation, Role},
    },
    stack::{Audience, DatagramService},
    stdio::{self, Stream},
};
use std::time::Duration;

/// How long a client stays after the input's end to hear the answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Datagrams to and from one address.
#[derive(Clone, Debug)]
pub struct DatagramConnect {
    /// At least one. The first whose next hop answers is taken: UDP itself cannot tell whether anybody is there.
    pub attempts: Vec<Attempt>,
    /// How long the next hop's answer may take.
    pub wait: Duration,
    pub policy: Policy,
    /// A pause after each line of the input, which is a datagram then.
    pub delay: Option<Duration>,
}

impl DatagramConnect {
    pub fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let mut attempts = self.attempts.iter().peekable();
        loop {
            let Some(attempt) = attempts.next() else { return Ok(()) };
            match attempt.open_datagrams(self.wait, report) {
                Ok(mut engine) => {
                    let streams = streams()?;
                    engine.enter_sandbox()?;
                    let policy = Policy {
                        quit_after: self.policy.quit_after.or(match self.policy.no_shutdown {
                            true => None,
                            false => Some(ANSWER_WAIT),
                        }),
                        ..self.policy
                    };
                    let interface = &attempt.egress.interface.name;
                    let role = Role::Client { remote: attempt.remote, interface };
                    return talk(&mut engine, role, policy, self.delay, streams, report);
                }
                Err(error) if error.signal().is_some() => return Err(error),
                Err(error) if attempts.peek().is_none() => return Err(error),
                Err(error) => log::info!("{error}; trying the next address"),
            }
        }
    }
}

impl Attempt {
    fn open_datagrams(&self, wait: Duration, report: &mut JsonReport) -> Result<Engine, Error> {
        report.attempt(self.remote, &self.egress);
        let Opened { mut engine, origin, resolution } = self.open(wait)?;
        report.attempt(self.remote, &origin.egress);
        report.resolved(resolution);
        let tuple = origin.dial_datagrams(&mut engine, self.remote);
        log::info!("sending to {} from {}", self.remote, tuple.local);
        Ok(engine)
    }
}

/// A UDP port to serve.
#[derive(Clone, Debug)]
pub struct DatagramListen {
    pub setup: Setup,
    pub access: Access,
    /// How long to wait for the first datagram.
    pub wait: Option<Duration>,
    /// Serve everybody, not only whoever speaks first; input goes to whoever spoke last.
    pub keep_open: bool,
    pub policy: Policy,
    /// A pause after each line of the input, which is a datagram then.
    pub delay: Option<Duration>,
}

impl DatagramListen {
    pub fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let mut engine = Engine::open(&self.setup, Port::take(&self.setup)?)?;
        let streams = streams()?;
        engine.enter_sandbox()?;
        if let Some(persona) = self.setup.persona {
            assume::assume(&mut engine, persona)?;
        }
        let access = self.access.clone();
        let paths = engine.paths(&self.setup.interfaces);
        engine.stack.datagrams.serve(DatagramService {
            audience: if self.keep_open { Audience::All } else { Audience::First },
            gate: Box::new(move |peer| access.admit(peer)),
            paths,
        });
        log::info!("listening on UDP port {}", engine.port());
        let role = Role::Server { wait: self.wait };
        talk(&mut engine, role, self.policy, self.delay, streams, report)
    }
}

/// Standard input and output, while this process may still open anything.
fn streams() -> Result<(Stream, Stream), Error> {
    Ok((Stream::input().map_err(stdio::Error::Input)?, Stream::output().map_err(stdio::Error::Output)?))
}

/// Talks until it is over, and reports what went by.
fn talk(
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
