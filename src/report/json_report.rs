//! The outcome of a run as JSON (`--json`): one object on one line, for success and failure alike. With
//! `-k`, each client has an object of its own, written when it disconnects.
use super::{Comparison, Error, Failure, Tried, Verdict, command_report::CommandRun};
use crate::{
    net::{
        FiveTuple, Protocol,
        zone::{self, ScopedIp},
    },
    runtime::{Egress, children::Ended},
    session::{self, Summary, datagrams::DatagramSummary, server::ClosedClient},
    stack::Discards,
    stdio::{Writer, stderr},
    text,
};
use serde::{Serialize, Serializer};
use std::{
    io::{self, Write},
    net::SocketAddr,
    ops::Not,
    path::Path,
    time::Duration,
};

/// Maximum lines about addresses that could not be reached.
const MAX_LINES: usize = 16;

/// A JSON object that the run fills in step by step; a step that was not reached stays null. Times are in
/// milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct JsonReport {
    /// Where the object is written; `None` without --json.
    #[serde(skip)]
    output: Option<Destination>,
    verdict: Option<Verdict>,
    /// The failure's message.
    error: Option<String>,
    flow: Option<Addresses>,
    route: Option<Route>,
    timings: Timings,
    /// Counters of the TCP connection.
    traffic: Option<Traffic>,
    /// Counters of the UDP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams: Option<Datagrams>,
    /// Packets that the guard dropped before the kernel's stack.
    pub(super) kept_from_kernel: Option<u64>,
    /// Status of the process of --exec or --run, as a shell reports it: 128 + the number of the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exec_status: Option<u8>,
    /// The command of --run and its traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<CommandRun>,
    /// How that process ended.
    #[serde(skip)]
    process: Option<Ended>,
    /// Segments dropped during the handshake because they answered nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    discarded: Option<Discarded>,
    /// The addresses of the host, if it has several, in the order in which they were tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<Tried>,
    /// The port of -l.
    #[serde(skip_serializing_if = "Option::is_none")]
    listening: Option<Listening>,
    /// Clients that -k has served.
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<u64>,
    /// The outcome of --compare, whose object takes this one's place.
    #[serde(skip)]
    comparison: Option<Box<Comparison>>,
    /// Results of -z, in the order of the ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<ProbedPort>,
}

#[derive(Debug)]
enum Destination {
    Stderr,
    File { file: Writer, name: String },
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Addresses {
    /// Null until netkat has a local port.
    #[serde(serialize_with = "optional_endpoint")]
    local: Option<SocketAddr>,
    #[serde(serialize_with = "endpoint")]
    remote: SocketAddr,
}

#[derive(Clone, Debug, Serialize)]
struct Listening {
    protocol: &'static str,
    addresses: Vec<String>,
    port: u16,
}

#[derive(Clone, Debug, Serialize)]
struct Route {
    interface: String,
    source: String,
    next_hop: String,
    mtu: u32,
    /// The interface is a pod's veth, so the node's rules see the packets.
    #[serde(skip_serializing_if = "Not::not")]
    pod_veth: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Timings {
    /// Resolution of the next hop's link address, by ARP or neighbour discovery.
    #[serde(serialize_with = "milliseconds")]
    neighbour: Option<Duration>,
    /// From the first SYN to the end of the handshake.
    #[serde(serialize_with = "milliseconds")]
    connect: Option<Duration>,
    /// From the end of the handshake, or from the start where there is none, to the peer's first data.
    #[serde(serialize_with = "milliseconds")]
    first_byte: Option<Duration>,
    /// From the end of the handshake, or from the start where there is none, to the end.
    #[serde(serialize_with = "milliseconds")]
    close: Option<Duration>,
}

#[derive(Clone, Debug, Serialize)]
struct Traffic {
    bytes_sent: u64,
    bytes_received: u64,
    /// Segments with a wrong checksum or header length.
    invalid: u64,
    /// Segments with data, retransmissions included.
    segments_sent: u64,
    segments_lost: u64,
    segments_retransmitted: u64,
    /// Retransmissions that the peer reported as duplicates (DSACK).
    spurious_retransmissions: u64,
    /// Expiries of the retransmission timer.
    timeouts: u64,
    tail_probes: u64,
    #[serde(serialize_with = "milliseconds")]
    smoothed_rtt: Option<Duration>,
    #[serde(serialize_with = "milliseconds")]
    min_rtt: Option<Duration>,
    congestion_control: String,
    /// In bytes.
    congestion_window: u64,
    /// In bytes a second.
    bandwidth: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Datagrams {
    datagrams_sent: u64,
    bytes_sent: u64,
    datagrams_received: u64,
    bytes_received: u64,
    /// Frames that the kernel dropped because the receive buffer was full.
    lost: u64,
    /// Datagrams that this host's own egress dropped.
    egress_drops: u64,
    /// Datagrams from other hosts than the peer.
    strangers: u64,
    /// Datagrams with a wrong checksum or length.
    invalid: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Discarded {
    segments: u64,
    /// The last of these segments, in words.
    last: String,
}

#[derive(Clone, Debug, Serialize)]
struct ProbedPort {
    address: String,
    port: u16,
    protocol: &'static str,
    /// State as in the port's line on standard output.
    state: String,
    /// Null for an open port.
    failure: Option<Verdict>,
    error: Option<String>,
}

impl JsonReport {
    /// Returns a report to `file`, which is created now, or to stderr. A FIFO waits for its reader. The file
    /// `-` is standard output.
    ///
    /// # Errors
    /// Those of creating the file.
    pub fn to(file: Option<&Path>) -> Result<JsonReport, Failure> {
        let output = match file {
            None => Destination::Stderr,
            Some(path) => {
                let name = path.display().to_string();
                match Writer::create(path, false) {
                    Ok(file) => Destination::File { file, name },
                    Err(error) => return Err(Error::Report { to: name, error }.into()),
                }
            }
        };
        Ok(JsonReport { output: Some(output), ..JsonReport::default() })
    }

    /// Notes which address is tried.
    pub(crate) fn attempt(&mut self, remote: SocketAddr) {
        self.flow = Some(Addresses { local: None, remote });
        self.route = None;
    }

    /// Notes the route to it, whose interface is the address's zone.
    pub(crate) fn route(&mut self, egress: &Egress) {
        let interface = &egress.interface;
        if let Some(Addresses { remote, .. }) = &mut self.flow {
            *remote = zone::scoped(remote.ip(), remote.port(), interface.index);
        }
        self.route = Some(Route {
            interface: interface.name.clone(),
            source: ScopedIp::new(egress.source, interface.index).to_string(),
            next_hop: egress.next_hop.on(interface.index),
            mtu: egress.mtu,
            pod_veth: egress.pod_veth,
        });
    }

    /// Notes how long the resolution of the next hop took.
    pub(crate) fn resolved(&mut self, time: Duration) {
        self.timings.neighbour = Some(time);
    }

    /// Notes the addresses and the port of a listener.
    pub(crate) fn listening(&mut self, protocol: Protocol, addresses: &[ScopedIp], port: u16) {
        let addresses = addresses.iter().map(ScopedIp::to_string).collect();
        self.listening = Some(Listening { protocol: name(protocol), addresses, port });
    }

    /// Notes what became of each address.
    pub(crate) fn tried(&mut self, tried: impl Iterator<Item = Tried>) {
        self.attempts = tried.collect();
    }

    /// Prints a line for each address that was tried. Returns the error for all of them, with the verdict of the one
    /// that came furthest.
    pub(crate) fn none_reached(&self, host: &str) -> Error {
        let failed = || self.attempts.iter().filter_map(|tried| tried.verdict);
        for error in self.attempts.iter().filter_map(|tried| tried.error.as_deref()).take(MAX_LINES) {
            log::error!("{}", text::one_line(error));
        }
        let mut kinds: Vec<String> = Vec::new();
        for kind in failed().map(|verdict| verdict.to_string()) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Error::NoneReached {
            host: host.to_owned(),
            addresses: self.attempts.len(),
            kinds: kinds.join(", "),
            verdict: failed().max_by_key(|verdict| verdict.reach()).unwrap_or(Verdict::Failed),
        }
    }

    /// Notes both ends of the connection.
    pub(crate) fn flow(&mut self, tuple: &FiveTuple) {
        self.flow = Some(Addresses { local: Some(tuple.local), remote: tuple.remote });
    }

    /// Notes the segments that were dropped during the handshake.
    pub(crate) fn discarded(&mut self, discards: Option<Discards>) {
        let words =
            |discards: Discards| Discarded { segments: discards.count, last: discards.last.to_string() };
        self.discarded = discards.map(words);
    }

    /// Notes how long the handshake took.
    pub(crate) fn connected(&mut self, time: Duration) {
        self.timings.connect = Some(time);
    }

    /// Notes the counters of a closed connection.
    pub(crate) fn summary(&mut self, summary: &Summary) {
        self.timings.first_byte = summary.first_byte;
        self.timings.close = Some(summary.duration);
        self.kept_from_kernel = Some(summary.kept);
        self.process = summary.process;
        self.exec_status = summary.process.map(|ended| ended.exit.code());
        let (counters, stats) = (&summary.counters, &summary.stats);
        self.traffic = Some(Traffic {
            bytes_sent: counters.bytes_sent,
            bytes_received: counters.bytes_received,
            invalid: counters.invalid,
            segments_sent: stats.segments_sent,
            segments_lost: stats.segments_lost(),
            segments_retransmitted: stats.segments_retransmitted,
            spurious_retransmissions: stats.duplicate_sacks,
            timeouts: stats.timeouts,
            tail_probes: stats.tail_probes,
            smoothed_rtt: stats.smoothed_rtt,
            min_rtt: stats.min_rtt,
            congestion_control: stats.algorithm.to_string(),
            congestion_window: stats.congestion_window,
            bandwidth: stats.bandwidth,
        });
    }

    /// Notes the counters of a UDP port that is closed.
    pub(crate) fn datagrams(&mut self, summary: &DatagramSummary) {
        if let Some(peer) = &summary.peer {
            self.flow(peer);
        }
        self.timings.first_byte = summary.first_byte;
        self.timings.close = Some(summary.duration);
        self.kept_from_kernel = Some(summary.kept);
        let counters = &summary.counters;
        self.datagrams = Some(Datagrams {
            datagrams_sent: counters.datagrams_sent,
            bytes_sent: counters.bytes_sent,
            datagrams_received: counters.datagrams_received,
            bytes_received: counters.bytes_received,
            lost: summary.lost,
            egress_drops: counters.egress_drops,
            strangers: counters.strangers,
            invalid: counters.invalid,
        });
    }

    /// Notes the outcome of --compare.
    pub(crate) fn compared(&mut self, comparison: Comparison) {
        self.comparison = Some(Box::new(comparison));
    }

    /// Notes how a path of --compare ended, which is part of another object.
    pub(super) fn settle(&mut self, verdict: Verdict, error: Option<String>) {
        (self.verdict, self.error) = (Some(verdict), error);
    }

    /// Returns the exit status that the run chose for itself: that of --compare, `detailed` or not, of --run, or
    /// the --exec process's, unless netkat had to end it.
    pub(crate) fn status(&self, detailed: bool) -> Option<u8> {
        if self.command.is_some() {
            return self.exec_status;
        }
        let process = || self.process.filter(|ended| !ended.asked).map(|ended| ended.exit.code());
        self.comparison.as_ref().map(|comparison| comparison.status(detailed)).or_else(process)
    }

    /// Writes the object of a client of -k that has disconnected.
    pub(crate) fn client(&mut self, client: &ClosedClient) {
        self.remaining_client(&client.tuple, &client.summary, client.result.as_ref().copied());
    }

    /// Writes the object of a client that was still connected when the run ended with `result`.
    pub(crate) fn remaining_client(
        &mut self,
        tuple: &FiveTuple,
        summary: &Summary,
        result: Result<(), &session::Error>,
    ) {
        if self.output.is_none() {
            return;
        }
        let mut client = JsonReport {
            verdict: Some(result.err().map_or(Verdict::Done, Verdict::from)),
            error: result.err().map(ToString::to_string),
            ..JsonReport::default()
        };
        client.flow(tuple);
        client.summary(summary);
        // All clients share one guard.
        client.kept_from_kernel = None;
        self.write(&client);
    }

    /// Notes the number of clients served, and of packets that the guard dropped.
    pub(crate) fn served(&mut self, clients: u64, kept: u64) {
        self.clients = Some(clients);
        self.kept_from_kernel = Some(kept);
    }

    /// Notes the result of a probe.
    pub(crate) fn port(
        &mut self,
        at: SocketAddr,
        protocol: Protocol,
        state: String,
        result: Result<(), &Error>,
    ) {
        self.ports.push(ProbedPort {
            address: ScopedIp::from(at).to_string(),
            port: at.port(),
            protocol: name(protocol),
            state,
            failure: result.err().map(Verdict::from),
            error: result.err().map(ToString::to_string),
        });
    }

    /// Writes the run's own object.
    pub(crate) fn conclude(mut self, verdict: Verdict, error: Option<String>) {
        let output = self.output.take();
        let mut to = JsonReport { output, ..JsonReport::default() };
        match self.comparison.take() {
            Some(comparison) if error.is_none() => to.write(comparison.object()),
            _ => {
                self.settle(verdict, error);
                to.write(&self);
            }
        }
    }

    /// Writes an object. An error of writing is logged and does not change the outcome.
    fn write(&mut self, object: &impl Serialize) {
        let (written, to) = match &mut self.output {
            None => return,
            Some(Destination::Stderr) => (line(object).map(|line| stderr::print_line(&line)), "stderr"),
            Some(Destination::File { file, name }) => {
                (line(object).and_then(|line| file.write_all(format!("{line}\n").as_bytes())), name.as_str())
            }
        };
        if let Err(error) = written {
            log::error!("cannot write the report to {to}: {error}");
        }
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Returns an object as one line.
fn line(object: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(object)?)
}

/// Writes address and port, with the name of the zone.
pub(super) fn endpoint<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    zone::endpoint(address).serialize(serializer)
}

fn optional_endpoint<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.as_ref().map(zone::endpoint).serialize(serializer)
}

fn milliseconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: finer digits are noise.
    time.map(|time| time.as_micros() as f64 / 1e3).serialize(serializer)
}
