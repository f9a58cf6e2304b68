//! Running (`--run`, `--shell`): a program whose own kernel connections pass beside the host's firewall.
//!
//! The program gets a network namespace with this host's addresses. netkat moves its packets, reports what they
//! were, and exits with its status once they are delivered.
use crate::{
    gateway::{Gateway, GatewaySetup, Outcome, ephemeral_ports},
    net::count,
    report::{Error, JsonReport},
};

/// A command to run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub setup: GatewaySetup,
}

impl Run {
    /// Runs the command to its end, and that of all processes that it leaves.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let mut setup = self.setup.clone();
        let ports = ephemeral_ports();
        setup.namespace.ephemeral_ports = ports.range.clone();
        let outcome = Gateway::open(&setup)?.run()?;
        tell(&outcome);
        report.command(&outcome);
        Ok(())
    }
}

/// Logs the traffic.
fn tell(outcome: &Outcome) {
    let Outcome { status, flows, ports, refused, sent, received, fast, kept, foreign, lost, .. } = outcome;
    log::info!(
        "the command ended with status {status}: {}; {} in {} sent, {} in {} received",
        count(*flows, "flow"),
        count(sent.bytes, "byte"),
        count(sent.packets, "packet"),
        count(received.bytes, "byte"),
        count(received.packets, "packet"),
    );
    if fast.packets > 0 {
        log::info!(
            "the fast path took {} in {} of both",
            count(fast.bytes, "byte"),
            count(fast.packets, "packet")
        );
    }
    log::info!(
        "{} leased, {} refused; {} kept from this host's kernel, {} of the command's dropped",
        count(*ports, "port"),
        refused,
        count(*kept, "packet"),
        foreign,
    );
    let [from_command, from_wire] = lost;
    if *from_command > 0 || *from_wire > 0 {
        log::info!(
            "receive buffers were full: {from_command} packets from the command lost, {from_wire} to it"
        );
    }
}
