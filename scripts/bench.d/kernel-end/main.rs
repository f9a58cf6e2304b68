//! The kernel's end of a measurement: what scripts/bench sets against netkat, nc and the others, and the clock.
//!
//! Theory of operation: each role is one run of this program, in the network namespace where its end belongs. A
//! line "ready" on stderr says that it can be reached; the last line on stderr is its result, a JSON object. The
//! clock runs here, at the end that can tell when everything has arrived, so that neither the start of a tool nor
//! its leave-taking counts. Standard input and output are payload, where a role has any.
mod datagrams;
mod pipes;
mod stream;

use clap::Parser;
use serde_json::Value;
use std::error::Error;

/// One end of a measurement; its result is the last line on stderr.
#[derive(Parser)]
enum Role {
    /// TCP connections that send, receive, or both; ended by the peer
    Stream(stream::Stream),
    /// Send back what comes on one TCP connection
    Echo(stream::Echo),
    /// Short TCP connections, one after the other
    Connect(stream::Connect),
    /// Time round trips: a message to standard output, its echo from standard input
    Ping(pipes::Ping),
    /// Write to standard output
    Feed(pipes::Feed),
    /// Read standard input to its end
    Drain(pipes::Drain),
    /// Send UDP datagrams as fast as can be
    Blast(datagrams::Blast),
    /// Receive UDP datagrams until no more come
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
