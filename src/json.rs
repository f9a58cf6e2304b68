//! The frame of every JSON object that netkat prints: its schema, netkat's version and the time. docs/json.md
//! says what is stable.
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::io;

/// The schema of an object, by its file in docs/schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The outcome of a run: a connection, a listener, datagrams, wrong usage.
    Outcome,
    /// The outcome of -z.
    Scan,
    /// A port of -z.
    Port,
    /// The outcome of --run.
    Run,
    /// A client of -k.
    Client,
    /// The outcome of --compare.
    Comparison,
    /// The outcome of --compare -l.
    Reachability,
    /// The outcome of --trace.
    Trace,
    /// The outcome of --mtu.
    Mtu,
    /// The outcome of --ping.
    Ping,
    /// A ping.
    Probe,
    /// A packet of -d, --sniff or --read.
    Packet,
    /// A log line.
    Log,
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Schema::Outcome => "netkat.outcome/1",
            Schema::Scan => "netkat.scan/1",
            Schema::Port => "netkat.port/1",
            Schema::Run => "netkat.run/1",
            Schema::Client => "netkat.client/1",
            Schema::Comparison => "netkat.comparison/1",
            Schema::Reachability => "netkat.reachability/1",
            Schema::Trace => "netkat.trace/1",
            Schema::Mtu => "netkat.mtu/1",
            Schema::Ping => "netkat.ping/1",
            Schema::Probe => "netkat.probe/1",
            Schema::Packet => "netkat.packet/1",
            Schema::Log => "netkat.log/1",
        })
    }
}

/// An object with its frame. The body's fields follow the frame's.
#[derive(Debug, Serialize)]
pub(crate) struct Framed<T> {
    schema: Schema,
    version: &'static str,
    /// RFC 3339, UTC, nanoseconds.
    time: String,
    #[serde(flatten)]
    body: T,
}

impl<T: Serialize> Framed<T> {
    /// Frames a body that is of this time.
    pub(crate) fn at(time: Timestamp, schema: Schema, body: T) -> Framed<T> {
        Framed { schema, version: env!("CARGO_PKG_VERSION"), time: format!("{time:.9}"), body }
    }

    /// Frames a body that is of now.
    pub(crate) fn now(schema: Schema, body: T) -> Framed<T> {
        Framed::at(Timestamp::now(), schema, body)
    }

    /// Returns the object as a line, without its line feed.
    ///
    /// # Errors
    /// Those of serde_json: a map whose keys are no text.
    pub(crate) fn line(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}
