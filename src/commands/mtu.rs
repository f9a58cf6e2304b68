//! Measuring the path's MTU (`--mtu`): which sizes of the flow's own packets arrive, who says which are too big, and
//! whether large ones are lost without a word.
//!
//! Over TCP, probes are repeats of bytes that the peer has, of any length: it acknowledges them again, and with SACK
//! says which (RFC 2883). Over UDP they are datagrams, which an answer or the host's own port unreachable proves to have
//! arrived.
mod answers;
mod prober;

use super::{
    attempt::Opened,
    closing::{close, reset_on_error},
    connect::answer,
    target::Target,
    text_output,
};
use crate::{
    link::PathObserver,
    net::{FiveTuple, Protocol},
    report::{Error, JsonReport, MtuReport},
    stack::Settings,
    stdio,
};
use prober::Prober;
use std::{io::Write, time::Duration};

/// A measurement to make.
#[derive(Debug)]
pub(crate) struct PathMtu {
    pub protocol: Protocol,
    pub target: Target,
    pub port: u16,
    pub settings: Settings,
    /// Longest time to connect.
    pub wait: Duration,
}

impl PathMtu {
    /// Measures, and prints what was found.
    pub(crate) fn run(&self, report: &mut JsonReport) -> Result<(), Error> {
        let mut output = text_output(report)?;
        let _stamps = PathObserver::stamps();
        let (mut opened, mut observer) = self.target.first(report, |attempt, report| {
            let opened = attempt.open(&[self.port], self.wait, report)?;
            let observer = PathObserver::open(self.protocol, opened.engine.port())?;
            Ok((opened, observer))
        })?;
        opened.engine.enter_sandbox()?;
        let tuple = self.connect(&mut opened, report)?;
        let Opened { engine, origin } = &mut opened;
        let (_, route) = origin.flow(engine, self.protocol, self.port);
        let egress = origin.egress(self.port);
        let round_trip = engine.stack.peek(&tuple).and_then(|flow| flow.recovery().stats().smoothed_rtt);
        let mut prober = Prober::new(tuple, route, self.settings.clone(), egress, round_trip, &mut observer);
        let result = engine.run(&mut prober);
        reset_on_error(engine, &tuple, result)?;
        let measured = MtuReport::new(&tuple, egress.interface.name.clone(), prober.finish());
        close(engine, &tuple)?;
        if let Some(output) = &mut output {
            output.write_all(measured.text().as_bytes()).map_err(stdio::Error::Output)?;
        }
        report.measured(measured);
        Ok(())
    }

    /// Opens the connection, if it is one.
    fn connect(&self, opened: &mut Opened, report: &mut JsonReport) -> Result<FiveTuple, Error> {
        let Opened { engine, origin } = opened;
        let (tuple, _) = origin.flow(engine, self.protocol, self.port);
        report.flow(&tuple);
        if self.protocol == Protocol::Udp {
            return Ok(tuple);
        }
        log::info!("dialing {tuple}");
        let start = engine.reactor.now();
        origin.dial(engine, self.port);
        let ended = engine.run_until(Some(start + self.wait), |stack| answer(stack, &tuple))?;
        ended.unwrap_or_else(|| Err(origin.silence(&engine.stack, &tuple, self.wait)))?;
        report.connected(engine.reactor.now() - start);
        if let Some(flow) = engine.stack.flow(&tuple) {
            flow.set_probed();
        }
        Ok(tuple)
    }
}
