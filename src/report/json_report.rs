//! The outcome of a run as JSON (`--json`): one object on one line, for success and failure alike. With
//! `-k`, each client has an object of its own, written when it disconnects; with `-z`, each port, as soon as it is
//! known.
use super::{
    Asked, ClientReport, Comparison, Error, Failure, Mode, MtuReport, PingLine, Pinging, ProbedPort,
    ReportPlace, Tracing, Tried, Verdict,
    command_report::CommandRun,
    counters::{Datagrams, PathSizes, Timings, Traffic},
    destination::Destination,
    proxy_header::ProxyHeader,
};
use crate::{
    json::Schema,
    net::{
        FiveTuple, Protocol,
        zone::{self, ScopedIp},
    },
    runtime::{Egress, children::Ended},
    session::{self, Summary, datagrams::DatagramSummary, server::ClosedClient},
    stack::Discards,
    text,
};
use serde::{Serialize, Serializer};
use std::{net::SocketAddr, ops::Not, time::Duration};

/// Maximum lines about addresses that could not be reached.
const MAX_LINES: usize = 16;

/// The body of an object that the run fills in step by step; a step that was not reached stays null.
#[derive(Debug, Default, Serialize)]
pub struct JsonReport {
    /// Where the objects are written; `None` without --json.
    #[serde(skip)]
    destination: Option<Destination>,
    /// Left out for wrong usage that the parser found.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
    verdict: Option<Verdict>,
    /// The failure's message.
    error: Option<String>,
    flow: Option<Addresses>,
    route: Option<Route>,
    timings: Timings,
    /// Counters of the TCP connection.
    traffic: Option<Traffic>,
    /// Packet sizes of the TCP connection's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathSizes>,
    /// The PROXY protocol header, which a client sent or a listener read.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<ProxyHeader>,
    /// Counters of the UDP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams: Option<Datagrams>,
    /// Packets that the guard dropped before the kernel's stack.
    pub(super) guard_dropped_packets: Option<u64>,
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
    /// The outcome of --compare -l, likewise.
    #[serde(skip)]
    watched: Option<Box<ClientReport>>,
    /// The outcome of --trace, whose object takes this one's place.
    #[serde(skip)]
    tracing: Option<Box<Tracing>>,
    /// The outcome of --mtu, likewise.
    #[serde(skip)]
    measured: Option<Box<MtuReport>>,
    /// The outcome of --ping, likewise.
    #[serde(skip)]
    pinging: Option<Box<Pinging>>,
    /// Results of -z, in the order of the ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<ProbedPort>,
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
    protocol: Protocol,
    addresses: Vec<String>,
    port: u16,
}

#[derive(Clone, Debug, Serialize)]
struct Route {
    interface: String,
    source: String,
    next_hop: String,
    mtu_bytes: u32,
    /// The interface is a pod's veth, so the node's rules see the packets.
    #[serde(skip_serializing_if = "Not::not")]
    pod_veth: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Discarded {
    segments: u64,
    /// The last of these segments, in words.
    last: String,
}

/// The body of an object beside the run's own.
#[derive(Serialize)]
struct Part<'a, T> {
    asked: &'a Option<Asked>,
    #[serde(flatten)]
    part: T,
}

/// The body of a measurement of one flow.
#[derive(Serialize)]
struct Measured<'a, T> {
    flow: &'a Option<Addresses>,
    route: &'a Option<Route>,
    timings: &'a Timings,
    #[serde(flatten)]
    part: T,
}

/// A client of -k.
#[derive(Serialize)]
struct Client {
    verdict: Verdict,
    error: Option<String>,
    flow: Addresses,
    timings: Timings,
    traffic: Traffic,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathSizes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<ProxyHeader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_status: Option<u8>,
}

impl JsonReport {
    /// Returns a report to a place, which is opened now.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn to(place: ReportPlace) -> Result<JsonReport, Failure> {
        Ok(JsonReport { destination: Some(Destination::open(place)?), ..JsonReport::default() })
    }

    /// Returns whether objects are written to this place.
    pub(crate) fn is_on(&self, place: &ReportPlace) -> bool {
        self.destination.as_ref().is_some_and(|destination| destination.place() == place)
    }

    /// Notes what is asked for.
    pub(crate) fn ask(&mut self, asked: Asked) {
        self.asked = Some(asked);
    }

    /// Notes how long the look-up of the host's name took.
    pub(crate) fn looked_up(&mut self, time: Duration) {
        self.timings.name = Some(time);
    }

    /// Notes which address is tried.
    pub(crate) fn attempt(&mut self, remote: SocketAddr) {
        self.flow = Some(Addresses { local: None, remote });
        self.route = None;
        self.ask_for_address(remote);
    }

    /// Notes the route to it, whose interface is the address's zone.
    pub(crate) fn route(&mut self, egress: &Egress) {
        let interface = &egress.interface;
        if let Some(Addresses { remote, .. }) = &mut self.flow {
            *remote = zone::scoped(remote.ip(), remote.port(), interface.index);
            let remote = *remote;
            self.ask_for_address(remote);
        }
        self.route = Some(Route {
            interface: interface.name.clone(),
            source: ScopedIp::new(egress.source, interface.index).to_string(),
            next_hop: egress.next_hop.on(interface.index),
            mtu_bytes: egress.mtu,
            pod_veth: egress.pod_veth,
        });
    }

    fn ask_for_address(&mut self, remote: SocketAddr) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.mode != Mode::Listen) {
            asked.address = Some(remote);
        }
    }

    /// Notes how long the resolution of the next hop took.
    pub(crate) fn resolved(&mut self, time: Duration) {
        self.timings.neighbour = Some(time);
    }

    /// Notes the addresses and the port of a listener.
    pub(crate) fn listening(&mut self, protocol: Protocol, addresses: &[ScopedIp], port: u16) {
        let addresses = addresses.iter().map(ScopedIp::to_string).collect();
        self.listening = Some(Listening { protocol, addresses, port });
    }

    /// Notes what became of each address.
    pub(crate) fn tried(&mut self, tried: impl Iterator<Item = Tried>) {
        self.attempts = tried.collect();
    }

    /// Prints a line for each address that was tried. Returns the error for all of them, with the verdict of the one
    /// that came furthest.
    pub(crate) fn none_reached(&self, host: &str) -> Error {
        let failed = || self.attempts.iter().filter_map(|tried| tried.verdict);
        // The object has them as well.
        let lines = if self.is_on(&ReportPlace::Stderr) { 0 } else { MAX_LINES };
        for error in self.attempts.iter().filter_map(|tried| tried.error.as_deref()).take(lines) {
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
        self.guard_dropped_packets = Some(summary.kept);
        self.process = summary.process;
        self.exec_status = summary.process.map(|ended| ended.exit.code());
        self.traffic = Some(summary.into());
        self.path = summary.path.as_ref().map(PathSizes::from);
        self.proxy_protocol = summary.header.as_ref().map(ProxyHeader::from);
    }

    /// Notes the counters of a UDP port that is closed.
    pub(crate) fn datagrams(&mut self, summary: &DatagramSummary) {
        if let Some(peer) = &summary.peer {
            self.flow(peer);
        }
        self.timings.first_byte = summary.first_byte;
        self.timings.close = Some(summary.duration);
        self.guard_dropped_packets = Some(summary.kept);
        self.datagrams = Some(summary.into());
    }

    /// Notes the outcome of --compare.
    pub(crate) fn compared(&mut self, address: SocketAddr, comparison: Comparison) {
        self.ask_for_address(address);
        self.comparison = Some(Box::new(comparison));
    }

    /// Notes the outcome of --compare -l.
    pub(crate) fn watched(&mut self, watched: ClientReport) {
        self.watched = Some(Box::new(watched));
    }

    /// Notes the outcome of --trace.
    pub(crate) fn traced(&mut self, tracing: Tracing) {
        self.tracing = Some(Box::new(tracing));
    }

    /// Notes the outcome of --mtu.
    pub(crate) fn measured(&mut self, measured: MtuReport) {
        self.measured = Some(Box::new(measured));
    }

    /// Notes the outcome of --ping, whose verdict is its own however the run ended.
    pub(crate) fn pinged(&mut self, pinging: Pinging) {
        self.pinging = Some(Box::new(pinging));
    }

    /// Writes the object of a ping.
    pub(crate) fn pinged_once(&mut self, line: &PingLine) {
        if let Some(destination) = &mut self.destination {
            destination.write(Schema::Probe, &Part { asked: &self.asked, part: line });
        }
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
        let tracing = || self.tracing.as_ref().map(|tracing| tracing.status(detailed));
        let measured = || self.measured.as_ref().map(|measured| measured.status(detailed));
        let compared = self.comparison.as_ref().map(|comparison| comparison.status(detailed));
        let watched = || self.watched.as_ref().map(|watched| watched.status(detailed));
        let pinging = || self.pinging.as_ref().map(|pinging| pinging.status(detailed));
        let reached = compared.or_else(watched).or_else(tracing).or_else(measured).or_else(pinging);
        reached.or_else(process)
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
        let Some(destination) = &mut self.destination else { return };
        let client = Client {
            verdict: result.err().map_or(Verdict::Done, Verdict::from),
            error: result.err().map(ToString::to_string),
            flow: Addresses { local: Some(tuple.local), remote: tuple.remote },
            timings: Timings::from(summary),
            traffic: summary.into(),
            path: summary.path.as_ref().map(PathSizes::from),
            proxy_protocol: summary.header.as_ref().map(ProxyHeader::from),
            exec_status: summary.process.map(|ended| ended.exit.code()),
        };
        destination.write(Schema::Client, &Part { asked: &self.asked, part: client });
    }

    /// Notes the number of clients served, and of packets that the guard dropped.
    pub(crate) fn served(&mut self, clients: u64, kept: u64) {
        self.clients = Some(clients);
        self.guard_dropped_packets = Some(kept);
    }

    /// Writes the object of a port whose state is final.
    pub(crate) fn probed(&mut self, port: &ProbedPort) {
        if let Some(destination) = &mut self.destination {
            destination.write(Schema::Port, &Part { asked: &self.asked, part: port });
        }
    }

    /// Notes a port in the order of the ports.
    pub(crate) fn port(&mut self, port: ProbedPort) {
        if self.destination.is_some() {
            self.ports.push(port);
        }
    }

    /// Writes the run's own object.
    ///
    /// # Errors
    /// The first error of writing this object, or one before it.
    pub(crate) fn conclude(mut self, verdict: Verdict, error: Option<String>) -> Result<(), Failure> {
        let Some(mut destination) = self.destination.take() else { return Ok(()) };
        match self.comparison.take() {
            Some(mut comparison) if error.is_none() => {
                let part = comparison.object(self.timings.name);
                destination.write(Schema::Comparison, &Part { asked: &self.asked, part });
            }
            None if error.is_none() && self.watched.is_some() => {
                let part = self.watched.as_ref().map(|watched| watched.object());
                destination.write(Schema::Reachability, &Part { asked: &self.asked, part });
            }
            None if error.is_none() && self.tracing.is_some() => {
                let part = self.measurement(self.tracing.as_ref().map(|tracing| tracing.object()));
                destination.write(Schema::Trace, &Part { asked: &self.asked, part });
            }
            None if error.is_none() && self.measured.is_some() => {
                let part = self.measurement(self.measured.as_deref());
                destination.write(Schema::Mtu, &Part { asked: &self.asked, part });
            }
            None if self.pinging.is_some() => {
                let part = self.measurement(self.pinging.as_deref());
                destination.write(Schema::Ping, &Part { asked: &self.asked, part });
            }
            _ => {
                self.settle(verdict, error);
                destination.write(self.schema(), &self);
            }
        }
        destination.finish()
    }

    /// Returns the body of a measurement, with the flow's own parts.
    fn measurement<T>(&self, part: T) -> Measured<'_, T> {
        Measured { flow: &self.flow, route: &self.route, timings: &self.timings, part }
    }

    fn schema(&self) -> Schema {
        match self.asked.as_ref().map(|asked| asked.mode) {
            Some(Mode::Scan) => Schema::Scan,
            Some(Mode::Run) => Schema::Run,
            Some(Mode::Connect | Mode::Listen | Mode::Compare | Mode::Trace | Mode::Mtu | Mode::Ping)
            | None => Schema::Outcome,
        }
    }
}

/// Writes address and port, with the name of the zone.
pub(super) fn endpoint<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    zone::endpoint(address).serialize(serializer)
}

fn optional_endpoint<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.as_ref().map(zone::endpoint).serialize(serializer)
}
