//! The outcome of a run as data, for scripts (`--json`): one object on a line, for success and failure alike. With
//! `-k`, each client has an object of its own as soon as it is over, before that of the run.
use super::{Error, Verdict};
use crate::{
    net::{FiveTuple, Protocol},
    runtime::{Egress, children::Ended},
    session::{self, Summary, datagrams::DatagramSummary, server::Departure},
    stack::Discards,
    stdio::{Writer, stderr},
};
use serde::{Serialize, Serializer};
use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

/// What is known at the end; what was not reached stays null. Times are in milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Where it goes; nowhere unless it is asked for.
    #[serde(skip)]
    output: Option<Output>,
    verdict: Option<Verdict>,
    /// The words of the failure.
    error: Option<String>,
    flow: Option<Ends>,
    route: Option<Way>,
    timings: Timings,
    /// What went over the connection.
    traffic: Option<Traffic>,
    /// What went by UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams: Option<Datagrams>,
    /// Packets that the guard has kept from the kernel.
    kept_from_kernel: Option<u64>,
    /// The status of the process of --exec, as a shell reports it: 128 + the number of a signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_status: Option<u8>,
    /// What became of that process.
    #[serde(skip)]
    process: Option<Ended>,
    /// What came while the handshake was under way and was no part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    discarded: Option<Discarded>,
    /// How many clients -k has served.
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<u64>,
    /// The results of -z, in the order of the ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port>,
}

#[derive(Debug)]
enum Output {
    Stderr,
    File { file: Writer, name: String },
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Ends {
    /// Null until there is a port to send from.
    local: Option<SocketAddr>,
    remote: SocketAddr,
}

#[derive(Clone, Debug, Serialize)]
struct Way {
    interface: String,
    source: IpAddr,
    next_hop: String,
    mtu: u32,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Timings {
    /// Finding the next hop's link address, by ARP or neighbour discovery.
    #[serde(serialize_with = "milliseconds")]
    neighbour: Option<Duration>,
    /// From the first SYN to the end of the handshake.
    #[serde(serialize_with = "milliseconds")]
    connect: Option<Duration>,
    /// From the end of the handshake, or from the start where there is none, to the peer's first data.
    #[serde(serialize_with = "milliseconds")]
    first_byte: Option<Duration>,
    /// The same to the end.
    #[serde(serialize_with = "milliseconds")]
    close: Option<Duration>,
}

#[derive(Clone, Debug, Serialize)]
struct Traffic {
    bytes_sent: u64,
    bytes_received: u64,
    /// Segments with a wrong checksum or header length.
    invalid: u64,
    /// Segments with data, those sent again included.
    segments_sent: u64,
    segments_lost: u64,
    segments_retransmitted: u64,
    /// Those of them that the peer had already.
    spurious_retransmissions: u64,
    /// Times that the retransmission timer ran out.
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
    /// Frames that found the receive buffer full.
    lost: u64,
    /// Datagrams that this host's own egress dropped.
    egress_drops: u64,
    /// Datagrams of others than whom we talk with.
    strangers: u64,
    /// Datagrams with a wrong checksum or length.
    invalid: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Discarded {
    segments: u64,
    /// The last of them, in words.
    last: String,
}

#[derive(Clone, Debug, Serialize)]
struct Port {
    address: IpAddr,
    port: u16,
    protocol: &'static str,
    /// In the words of the port's line.
    state: String,
    /// Null for an open port.
    failure: Option<Verdict>,
    error: Option<String>,
}

impl Report {
    /// A report that goes to `file`, which is made now, or to stderr. A FIFO waits for its reader.
    ///
    /// # Errors
    /// Those of making the file.
    pub fn to(file: Option<&Path>) -> Result<Report, Error> {
        let output = match file {
            None => Output::Stderr,
            Some(path) => {
                let name = path.display().to_string();
                match Writer::create(path, false) {
                    Ok(file) => Output::File { file, name },
                    Err(error) => return Err(Error::Report { to: name, error }),
                }
            }
        };
        Ok(Report { output: Some(output), ..Report::default() })
    }

    /// A connection is tried, this way.
    pub fn attempt(&mut self, remote: SocketAddr, egress: &Egress) {
        self.flow = Some(Ends { local: None, remote });
        self.route = Some(Way {
            interface: egress.interface.name.clone(),
            source: egress.source,
            next_hop: egress.next_hop.to_string(),
            mtu: egress.mtu,
        });
    }

    pub fn resolved(&mut self, time: Duration) {
        self.timings.neighbour = Some(time);
    }

    pub fn flow(&mut self, tuple: &FiveTuple) {
        self.flow = Some(Ends { local: Some(tuple.local), remote: tuple.remote });
    }

    /// The handshake is over, or was given up.
    pub fn discarded(&mut self, discards: Option<Discards>) {
        let words =
            |discards: Discards| Discarded { segments: discards.count, last: discards.last.to_string() };
        self.discarded = discards.map(words);
    }

    pub fn connected(&mut self, time: Duration) {
        self.timings.connect = Some(time);
    }

    /// The connection is over.
    pub fn summary(&mut self, summary: &Summary) {
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

    /// The exchange of datagrams is over.
    pub fn datagrams(&mut self, summary: &DatagramSummary) {
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

    /// The exit status that a process of --exec has chosen for the run: its own, unless it had to be asked to go.
    pub fn exec_status(&self) -> Option<u8> {
        self.process.filter(|ended| !ended.asked).map(|ended| ended.exit.code())
    }

    /// One of many clients is gone, and its process, if it had one: its object is written at once.
    pub fn client(&mut self, client: &Departure) {
        self.remaining_client(&client.tuple, &client.summary, client.result.as_ref().copied());
    }

    /// The same for a client that was there when the run ended, with `result`.
    pub fn remaining_client(
        &mut self,
        tuple: &FiveTuple,
        summary: &Summary,
        result: Result<(), &session::Error>,
    ) {
        if self.output.is_none() {
            return;
        }
        let mut client = Report {
            verdict: Some(result.err().map_or(Verdict::Done, Verdict::from)),
            error: result.err().map(ToString::to_string),
            ..Report::default()
        };
        client.flow(tuple);
        client.summary(summary);
        // All clients share the guard.
        client.kept_from_kernel = None;
        self.write(&client);
    }

    /// So many clients have been served, and so many packets kept from the kernel.
    pub fn served(&mut self, clients: u64, kept: u64) {
        self.clients = Some(clients);
        self.kept_from_kernel = Some(kept);
    }

    pub fn port(&mut self, at: SocketAddr, protocol: Protocol, state: String, result: Result<(), &Error>) {
        self.ports.push(Port {
            address: at.ip(),
            port: at.port(),
            protocol: match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            },
            state,
            failure: result.err().map(Verdict::from),
            error: result.err().map(ToString::to_string),
        });
    }

    /// The run is over: writes its object.
    pub fn conclude(mut self, verdict: Verdict, error: Option<String>) {
        let output = self.output.take();
        (self.verdict, self.error) = (Some(verdict), error);
        Report { output, ..Report::default() }.write(&self);
    }

    /// Writes an object. What can't be written is said, and changes nothing about the outcome.
    fn write(&mut self, object: &Report) {
        let (written, to) = match &mut self.output {
            None => return,
            Some(Output::Stderr) => (line(object).map(|line| stderr::say(&line)), "stderr"),
            Some(Output::File { file, name }) => {
                (line(object).and_then(|line| file.write_all(format!("{line}\n").as_bytes())), name.as_str())
            }
        };
        if let Err(error) = written {
            log::error!("cannot write the report to {to}: {error}");
        }
    }
}

/// An object in one line.
fn line(object: &Report) -> io::Result<String> {
    Ok(serde_json::to_string(object)?)
}

fn milliseconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: finer digits are noise.
    time.map(|time| time.as_micros() as f64 / 1e3).serialize(serializer)
}
