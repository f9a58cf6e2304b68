//! The kernel's end of a measurement: the peer of netkat, nc and the others in scripts/bench, and
//! the clock.
//!
//! Theory of operation: each run of this program plays one role, in the network namespace of its
//! end. The line "ready" on stderr announces the listener; the last line on stderr is the result, a
//! JSON object. The clock runs here, because this end knows when everything has arrived. So neither
//! the start of a tool nor its exit counts. Standard input and output carry payload in roles that
//! have any.
mod datagrams;
mod pipes;
mod stream;

use clap::Parser;
use serde_json::Value;
use std::error::Error;

/// One end of a measurement; its result is the last line on stderr.
#[derive(Parser)]
enum Role {
    /// Send, receive, or both on TCP connections until the peer ends them
    Stream(stream::Stream),
    /// Echo the data of one TCP connection
    Echo(stream::Echo),
    /// Make short TCP connections, one after the other
    Connect(stream::Connect),
    /// Time round trips: a message to standard output, its echo from standard input
    Ping(pipes::Ping),
    /// Write to standard output
    Feed(pipes::Feed),
    /// Read standard input to its end
    Drain(pipes::Drain),
    /// Send UDP datagrams as fast as possible
    Blast(datagrams::Blast),
    /// Receive UDP datagrams until they stop
    Collect(datagrams::Collect),
}

fn main() -> Result<(), Box<dyn Error>> {
    let result: Value = match Role::parse() {
        Role::Stream(role) => role.run(),
        Role::Echo(role) => role.run(),
        Role::Connect(role) => role.run(),
        Role::Ping(role) => role.run(),
        Role::Feed(role) => role.run(),
        Role::Drain(role) => role.run(),
        Role::Blast(role) => role.run(),
        Role::Collect(role) => role.run(),
    }?;
    eprintln!("{result}");
    Ok(())
}
