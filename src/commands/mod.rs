//! The commands, a file each, which reads like its section of the manual.
mod attempt;
mod closing;
mod compare;
mod connect;
mod datagrams;
mod listen;
mod mtu;
mod ping;
mod race;
mod run;
mod scan;
mod sniff;
mod target;
mod trace;

use crate::{
    net::{Protocol, zone::ScopedIp},
    report::{JsonReport, ReportPlace, logging},
    runtime::{Engine, Setup},
    session::Command,
    stdio::{self, StandardStreams, StreamOptions, Writer},
};

pub(crate) use attempt::Attempt;
pub(crate) use compare::{Compare, CompareClients, Identity};
pub(crate) use connect::Connect;
pub(crate) use datagrams::{DatagramConnect, DatagramListen};
pub(crate) use listen::Listen;
pub(crate) use mtu::PathMtu;
pub(crate) use ping::{MAX_KERNEL_TARGETS, MAX_PING_TARGETS, Ping};
pub(crate) use run::Run;
pub(crate) use scan::{MAX_SCAN_TARGETS, PROBE_BUFFER, Patience, Scan, ScannedHost, Wanted};
pub(crate) use sniff::{Sniff, Source, list_interfaces};
pub(crate) use target::Target;
pub(crate) use trace::PathTrace;

/// Says which port a listener has. A port that netkat chose is news in any case, in a line of its own.
fn announce(engine: &Engine, setup: &Setup, report: &mut JsonReport) {
    let (port, kind) = (engine.port(), if setup.protocol == Protocol::Udp { "UDP port" } else { "port" });
    let addresses = if setup.groups.only { &setup.groups.addresses } else { &setup.local };
    let zone = match setup.interfaces.as_slice() {
        [only] => only.index,
        _ => 0,
    };
    let addresses: Vec<_> = addresses.iter().map(|ip| ScopedIp::new(*ip, zone)).collect();
    report.listening(setup.protocol, &addresses, port);
    match setup.port {
        0 => logging::announce(&format!("listening on {kind} {port}")),
        _ => log::info!("listening on {kind} {port}"),
    }
}

/// Opens standard output for a command's text; `None` if JSON objects take its place there.
fn text_output(report: &JsonReport) -> Result<Option<Writer>, stdio::Error> {
    match report.is_on(&ReportPlace::Stdout) {
        true => Ok(None),
        false => Writer::output().map(Some).map_err(stdio::Error::Output),
    }
}

/// Opens standard input and output with their options; `None` if the peer gets a process of `command`
/// instead.
fn standard_streams(
    stream_options: &StreamOptions,
    command: Option<&Command>,
) -> Result<Option<StandardStreams>, stdio::Error> {
    command.is_none().then(|| stream_options.open()).transpose()
}
