//! Tracing (`--trace`): the hops of this very flow, from the port that the connection then uses.
//!
//! Probes with rising hop limits leave at once: SYNs, then, once the connection is established, repeats of a byte
//! that the peer has; with -u datagrams. Routers that drop one quote it, and so show what happened to it.
mod answers;
mod tracer;

use super::{attempt::Opened, target::Target, text_output};
use crate::{
    host::reverse_names::ReverseNames,
    link::PathObserver,
    net::Protocol,
    path::part_at,
    report::{Error, JsonReport, Tracing},
    stack::Settings,
    stdio,
};
use std::{io::Write, time::Duration};
use tracer::Tracer;

/// A trace to make.
#[derive(Debug)]
pub(crate) struct PathTrace {
    pub protocol: Protocol,
    pub target: Target,
    pub port: u16,
    /// Maximum hops.
    pub hops: u8,
    /// Number of source ports.
    pub paths: u16,
    pub settings: Settings,
    /// Longest time of each path.
    pub wait: Duration,
    /// Look up the routers' names.
    pub names: bool,
}

impl PathTrace {
    /// Traces all paths, and prints them.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let mut output = text_output(report)?;
        let _stamps = PathObserver::stamps();
        let mut names = self.names.then(ReverseNames::open).flatten();
        let mut paths = self.open(report)?;
        if let Some((Opened { engine, .. }, _)) = paths.first() {
            engine.enter_sandbox()?;
        }
        let mut traced = Vec::new();
        for (opened, observer) in &mut paths {
            // Routers limit their errors.
            let brief = !traced.is_empty();
            let path = Tracer::new(self, opened, observer, brief, report).run(opened, report)?;
            traced.push(path);
        }
        let traces: Vec<_> = traced.iter().map(|path| &path.trace).collect();
        let parts = part_at(&traces);
        let addresses = traces.iter().flat_map(|trace| &trace.hops).flat_map(|hop| hop.addresses());
        let names = names.as_mut().map(|names| names.look_up(addresses)).unwrap_or_default();
        let tracing = Tracing::new(self.protocol, self.hops, traced, parts, &names);
        if let Some(output) = &mut output {
            output.write_all(tracing.text().as_bytes()).map_err(stdio::Error::Output)?;
        }
        report.traced(tracing);
        Ok(())
    }

    /// Opens everything for each path: to the first address of the host that has a route and a neighbour.
    fn open(&self, report: &mut JsonReport) -> Result<Vec<(Opened, PathObserver)>, Error> {
        self.target.first(report, |attempt, report| {
            let (mut attempt, mut paths) = (attempt.clone(), Vec::new());
            let first = attempt.setup.port;
            for number in 0..self.paths {
                attempt.setup.port = if first == 0 { 0 } else { first.saturating_add(number) };
                let opened = attempt.open(&[self.port], self.wait, report)?;
                let observer = PathObserver::open(self.protocol, opened.engine.port())?;
                paths.push((opened, observer));
            }
            Ok(paths)
        })
    }
}
