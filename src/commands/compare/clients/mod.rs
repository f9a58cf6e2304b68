//! Watching a server's clients (`--compare -l`): says why they do not reach it, without taking part.
//!
//! Order: everything opened, privileges given up but CAP_NET_ADMIN, which reading rules takes, the watch until its end,
//! the trace table removed, decision, output. Nothing of the server's is taken and nothing is sent.
mod connections;
mod drops;
mod legacy;
mod limit;
mod routes;
mod sockets;
mod trace;
mod watch;
mod ways;

use super::failed;
use crate::{
    commands::text_output,
    diagnose::decide_clients,
    host::interface::Interface,
    process::{
        capability::{self, Capability},
        namespace,
        sandbox::Sandbox,
        signals::Signals,
    },
    report::{ClientReport, Error, JsonReport, WatchedPort},
    stdio,
};
use std::{
    fs,
    io::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};
use watch::ClientWatch;

/// A server whose clients to watch.
#[derive(Debug)]
pub(crate) struct CompareClients {
    /// The end that clients ask for; an unspecified address is any of `families`.
    pub asked: SocketAddr,
    /// IPv4 and IPv6 count.
    pub families: [bool; 2],
    /// The only interface whose SYNs count.
    pub interface: Option<Interface>,
    /// The longest time of the watch.
    pub wait: Duration,
    /// End soon after the first proven cause.
    pub once: bool,
    pub sandbox: Sandbox,
    /// Give the trace table an owner where the kernel can.
    pub owner: bool,
    /// Watch what the kernel drops where the rights suffice.
    pub drop_events: bool,
}

impl CompareClients {
    /// Watches until the time is over or a signal comes, and prints what became of the clients.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        capability::require(Capability::NetRaw, "observe packets")?;
        capability::require(Capability::NetAdmin, "trace packets through the host's rules")?;
        let mut output = text_output(report)?;
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let target = WatchedPort { kernel_release: release.trim().to_owned(), netns: namespace::number() };
        let signals = Signals::catch().map_err(failed("watch for signals"))?;
        let start = Instant::now();
        let mut watch = ClientWatch::open(self)?;
        self.sandbox.enter(&[Capability::NetAdmin])?;
        log::info!("watching port {} for {} s", self.asked.port(), self.wait.as_secs_f64());
        watch.run(&signals)?;
        let evidence = watch.finish();
        log::debug!("evidence: {evidence:#?}");
        let finding = decide_clients(&evidence);
        let watched = ClientReport::new(target, &evidence, &finding, start.elapsed());
        if let Some(output) = &mut output {
            output.write_all(watched.text(width).as_bytes()).map_err(stdio::Error::Output)?;
        }
        report.watched(watched);
        Ok(())
    }
}
