//! Pinging (`--ping`): the time from SYN to SYN-ACK of ports, again and again.
//!
//! All probes leave from one local port, so that one guard drops the kernel's copy of every answer, and a probe takes the
//! path of its flow. The times are the kernel's, of sending and of arrival. A connection that a SYN-ACK would open is
//! reset at once, before it reaches an application.
mod answers;
mod departures;
mod in_flight;
mod kernel_path;
mod pinger;
mod schedule;
mod targets;

use super::{target::Target, text_output};
use crate::{
    kernel::DialOptions,
    link::PathObserver,
    net::Protocol,
    report::{Error, JsonReport, Pinging},
    stack::Settings,
    stdio,
};
use kernel_path::KernelPath;
use nix::sys::signal::Signal;
use pinger::Pinger;
use std::{io::Write, time::Duration};

/// Maximum targets.
pub(crate) const MAX_PING_TARGETS: usize = 10_000;
/// Maximum targets of --both, each of which takes a descriptor.
pub(crate) const MAX_KERNEL_TARGETS: usize = 500;

/// Pings to make.
#[derive(Debug)]
pub(crate) struct Ping {
    pub protocol: Protocol,
    /// The hosts, each by all of its addresses, of which the first with a route is pinged.
    pub hosts: Vec<Target>,
    /// The ports of each host, at least one.
    pub ports: Vec<u16>,
    /// Pings of each target; `None` until a signal comes.
    pub count: Option<u64>,
    /// Time between two pings of a target.
    pub interval: Duration,
    /// Longest wait for an answer.
    pub wait: Duration,
    pub settings: Settings,
    /// Connect by the kernel's path, too.
    pub both: Option<DialOptions>,
}

impl Ping {
    /// Pings, and prints a line for each answer, then the sums.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let output = text_output(report)?;
        let _stamps = PathObserver::stamps();
        let mut opened = targets::open(self, report)?;
        let mut observer = PathObserver::open(self.protocol, opened.engine.port())?;
        let kernel = match &self.both {
            Some(options) => Some(KernelPath::open(self, options, &opened.targets)?),
            None => None,
        };
        opened.engine.enter_sandbox()?;
        let mut pinger = Pinger::new(self, opened.targets, kernel, &mut observer, output, report);
        let result = opened.engine.run(&mut pinger);
        let (targets, mut output) = pinger.finish();
        let pinging = Pinging::new(self.protocol, targets);
        if let Some(output) = &mut output {
            output.write_all(pinging.text().as_bytes()).map_err(stdio::Error::Output)?;
        }
        report.pinged(pinging);
        match result {
            // Ctrl-C is the ordinary end, as ping(8)'s: the status tells what was answered.
            Err(error) if error.signal() == Some(Signal::SIGINT) => Ok(()),
            result => result,
        }
    }
}
