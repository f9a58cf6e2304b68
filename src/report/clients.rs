//! The outcome of watching a server's clients (`--compare -l`), as text and as JSON (docs/schema/reachability.json).
use super::{
    block::{self, Block},
    comparison::object::{Blamed, Source, legacy_source},
    counters::in_milliseconds,
};
use crate::{
    diagnose::{ClientCause, ClientEvidence, ClientFinding, ClientOutcome, ListeningSocket},
    net::{count, zone::endpoint},
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Maximum addresses that a line names, and that the object holds of a cause.
const MAX_NAMED: usize = 3;
const MAX_ADDRESSES: usize = 100;

/// The place of a watch.
#[derive(Clone, Debug)]
pub(crate) struct WatchedPort {
    /// This host's kernel, as uname -r names it.
    pub kernel_release: String,
    /// The number of the network namespace.
    pub netns: u64,
}

/// A watch that is over.
#[derive(Debug)]
pub(crate) struct ClientReport {
    object: Object,
    blocks: Vec<Block>,
    outcome: ClientOutcome,
}

/// The body of the object.
#[derive(Debug, Serialize)]
pub(super) struct Object {
    kernel_release: String,
    outcome: ClientOutcome,
    /// The first cause in words.
    summary: String,
    netns: u64,
    listeners: Vec<JsonListener>,
    causes: Vec<Cause>,
    /// SYNs of connections beyond the first 1000, of which nothing else is known.
    beyond_syns: u64,
    /// Connections that came too late to be judged.
    late_connections: usize,
    /// Increase of TcpExt.ListenOverflows in the network namespace, whatever the port.
    listen_overflows: u64,
    sources: BTreeMap<&'static str, Source>,
    ruleset_changed: bool,
    watched_ms: f64,
    duration_ms: f64,
}

/// A socket that listened.
#[derive(Debug, Serialize)]
struct JsonListener {
    address: String,
    /// Connections that waited for accept(2) when it was seen last, or with a full queue.
    queue: u32,
    backlog: u32,
    /// It still listened at the end.
    remains: bool,
}

#[derive(Debug, Serialize)]
struct Cause {
    outcome: ClientOutcome,
    summary: String,
    clients: usize,
    connections: usize,
    syns: u64,
    /// The first clients' addresses.
    addresses: Vec<String>,
    interfaces: Vec<String>,
    culprit: Option<Blamed>,
}

impl ClientReport {
    /// Returns a watch in its printable forms. `time` is that of the whole run.
    pub(crate) fn new(
        target: WatchedPort,
        evidence: &ClientEvidence,
        finding: &ClientFinding,
        time: Duration,
    ) -> ClientReport {
        let mut blocks: Vec<Block> = finding.causes.iter().map(|cause| block(cause, evidence)).collect();
        blocks.extend(beyond(evidence));
        let space = &evidence.space;
        let object = Object {
            kernel_release: target.kernel_release,
            outcome: finding.outcome,
            summary: finding.causes.first().map(|cause| cause.sentence.clone()).unwrap_or_default(),
            netns: target.netns,
            listeners: evidence.listeners.iter().map(JsonListener::new).collect(),
            causes: finding.causes.iter().map(Cause::new).collect(),
            beyond_syns: evidence.beyond_syns,
            late_connections: finding.late,
            listen_overflows: evidence.overflows,
            sources: BTreeMap::from([
                ("nft_trace", Source::new(&space.trace, space.trace.used)),
                ("taps", Source::new(&space.tap, false)),
                ("iptables_legacy", legacy_source(space)),
                ("drop_events", Source::new(&space.drop_events, space.drop_events.used)),
            ]),
            ruleset_changed: space.ruleset_changed,
            watched_ms: in_milliseconds(evidence.time),
            duration_ms: in_milliseconds(time),
        };
        ClientReport { object, blocks, outcome: finding.outcome }
    }

    /// Returns the text for a terminal of this width, in columns; `None` for a pipe.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        self.blocks.iter().map(|block| block.lines(width)).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// Returns the exit status: 0 only where all clients were answered; with `detailed`, a number for each outcome.
    pub(super) fn status(&self, detailed: bool) -> u8 {
        match self.outcome {
            ClientOutcome::Answered => 0,
            _ if !detailed => 1,
            ClientOutcome::NotHere => 3,
            ClientOutcome::ThisHost => 11,
            ClientOutcome::Unknown => 14,
        }
    }
}

/// Returns the text of a cause.
fn block(cause: &ClientCause, evidence: &ClientEvidence) -> Block {
    let mut details = Vec::new();
    if let Some(culprit) = &cause.culprit {
        details.push(("by", culprit.place.clone()));
        details.extend(culprit.text.clone().map(|text| ("", text)));
        details.extend(block::which(culprit, None).map(|which| ("which", which)));
    }
    if !cause.clients.is_empty() {
        details.push(("from", from(cause)));
    }
    if cause.culprit.is_none() {
        details.push(("server", listeners(&evidence.listeners)));
    }
    let culprits = cause.culprit.as_slice();
    details.extend(block::proof(culprits).map(|proof| ("proof", proof)));
    details.extend(culprits.first().and_then(|c| c.remedy.clone()).map(|remedy| ("try", remedy)));
    Block { conclusion: format!("{}: {}", cause.outcome.text(), cause.sentence), details }
}

/// Returns the clients of a cause, and how often they tried.
fn from(cause: &ClientCause) -> String {
    let named: Vec<_> = cause.clients.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = match cause.clients.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let tries = count(cause.connections as u64, "connection");
    let syns = if cause.syns > 0 { format!(", {}", count(cause.syns, "SYN")) } else { String::new() };
    let interfaces: Vec<_> = cause.interfaces.iter().take(MAX_NAMED).map(String::as_str).collect();
    let by = if interfaces.is_empty() { String::new() } else { format!(" by {}", interfaces.join(", ")) };
    format!("{}{more}: {tries}{syns}{by}", named.join(", "))
}

/// Returns what listens.
fn listeners(all: &[ListeningSocket]) -> String {
    let ends: Vec<_> = all.iter().filter(|l| l.remains).map(|l| endpoint(&l.socket.address)).collect();
    match ends.as_slice() {
        [] => "nothing listens on the port".to_owned(),
        ends if ends.len() <= MAX_NAMED => format!("a process listens on {}", ends.join(", ")),
        ends => format!("processes listen on {} addresses", ends.len()),
    }
}

/// Returns that more clients came than are kept.
fn beyond(evidence: &ClientEvidence) -> Option<Block> {
    (evidence.beyond_syns > 0).then(|| Block {
        conclusion: format!(
            "not judged: {} of connections beyond the first {}",
            count(evidence.beyond_syns, "SYN"),
            evidence.connections.len()
        ),
        details: Vec::new(),
    })
}

impl JsonListener {
    fn new(listening: &ListeningSocket) -> JsonListener {
        let socket = &listening.socket;
        JsonListener {
            address: endpoint(&socket.address),
            queue: socket.queue,
            backlog: socket.backlog,
            remains: listening.remains,
        }
    }
}

impl Cause {
    fn new(cause: &ClientCause) -> Cause {
        Cause {
            outcome: cause.outcome,
            summary: cause.sentence.clone(),
            clients: cause.clients.len(),
            connections: cause.connections,
            syns: cause.syns,
            addresses: cause.clients.iter().take(MAX_ADDRESSES).map(ToString::to_string).collect(),
            interfaces: cause.interfaces.iter().cloned().collect(),
            culprit: cause.culprit.clone().map(|culprit| Blamed::new(culprit, crate::net::Protocol::Tcp)),
        }
    }
}
