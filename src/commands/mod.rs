//! What netkat can do, a file each: every one reads like its section of the manual.
mod attempt;
mod connect;
mod datagrams;
mod listen;
mod scan;
mod sniff;

use crate::{
    session::Command,
    stdio::{self, Recording, Taps},
};

pub use attempt::Attempt;
pub use connect::Connect;
pub use datagrams::{DatagramConnect, DatagramListen};
pub use listen::Listen;
pub use scan::{PROBE_BUFFER, Scan};
pub use sniff::{Sniff, Source};

/// Standard input and output with their copies; none where the peer talks to processes of `command`.
fn standard_streams(recording: &Recording, command: Option<&Command>) -> Result<Option<Taps>, stdio::Error> {
    command.is_none().then(|| recording.open()).transpose()
}
