//! The list of interfaces to sniff on, in the form of tcpdump's -D.
use super::stdout;
use crate::{
    host::interface::{self, Interface},
    report::Error,
    stdio,
    text::escape_control,
};
use std::io::Write;

/// Prints the interfaces with their indexes, and "any".
pub(crate) fn list_interfaces() -> Result<(), Error> {
    let mut text: String = interface::all()?.iter().map(line).collect();
    text.push_str("any (every interface) [Up, Running]\n");
    stdout()?.write_all(text.as_bytes()).map_err(|error| Error::Stdio(stdio::Error::Output(error)))
}

fn line(interface: &Interface) -> String {
    let flags = [("Up", interface.up), ("Running", interface.running), ("Loopback", interface.loopback)];
    let flags: Vec<_> = flags.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    format!("{}.{} [{}]\n", interface.index, escape_control(&interface.name), flags.join(", "))
}
