//! The commands, a file each, which reads like its section of the manual.
mod attempt;
mod connect;
mod datagrams;
mod listen;
mod run;
mod scan;
mod sniff;

use crate::{
    session::Command,
    stdio::{self, StandardStreams, StreamOptions},
};

pub(crate) use attempt::Attempt;
pub(crate) use connect::Connect;
pub(crate) use datagrams::{DatagramConnect, DatagramListen};
pub(crate) use listen::Listen;
pub(crate) use run::Run;
pub(crate) use scan::{PROBE_BUFFER, Scan};
pub(crate) use sniff::{Sniff, Source, list_interfaces};

/// Opens standard input and output with their options; `None` if the peer gets a process of `command`
/// instead.
fn standard_streams(
    stream_options: &StreamOptions,
    command: Option<&Command>,
) -> Result<Option<StandardStreams>, stdio::Error> {
    command.is_none().then(|| stream_options.open()).transpose()
}
