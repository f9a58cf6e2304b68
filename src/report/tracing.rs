//! The outcome of a trace (`--trace`), as text and as JSON (docs/schema/trace.json).
use super::{Verdict, counters::in_milliseconds};
use crate::{
    net::{
        Protocol, count,
        zone::{ScopedIp, endpoint, zone_of},
    },
    path::{Change, End, Fate, Hop, Label, Reached, Reply, ReplyKind, Trace},
    stack::icmp::Reason,
};
use serde::Serialize;
use std::{
    collections::HashMap,
    fmt::Write,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A path that was traced.
#[derive(Debug)]
pub(crate) struct TracedPath {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub trace: Trace,
    pub end: End,
    pub probes: u64,
    /// From the first SYN to the SYN-ACK.
    pub connected: Option<Duration>,
    /// The peer's MSS option.
    pub peer_mss: Option<u16>,
}

/// A trace that is over.
#[derive(Debug)]
pub(crate) struct Tracing {
    text: String,
    object: Object,
    verdict: Verdict,
}

/// The body of the object.
#[derive(Debug, Serialize)]
pub(super) struct Object {
    verdict: Verdict,
    /// The conclusion in words.
    summary: String,
    hops_at_most: u8,
    /// The first hop at which the paths have different addresses.
    parts_at_hop: Option<u8>,
    paths: Vec<Path>,
}

#[derive(Debug, Serialize)]
struct Path {
    local: String,
    remote: String,
    end: &'static str,
    /// The hop of the end: the far end's, the router's that rejects, or the last one that answers.
    end_hop: Option<u8>,
    /// The router's address, or the far end's.
    end_address: Option<String>,
    /// How the far end answered.
    answer: Option<&'static str>,
    connect_ms: Option<f64>,
    peer_mss_bytes: Option<u16>,
    hops: Vec<JsonHop>,
}

#[derive(Debug, Serialize)]
struct JsonHop {
    hop: u8,
    addresses: Vec<Address>,
    state: &'static str,
    sent_packets: usize,
    /// In the order of sending; null without an answer.
    round_trips_ms: Vec<Option<f64>>,
    /// The kind of the answer.
    answer: Option<String>,
    next_hop_mtu_bytes: Option<u32>,
    changes: Vec<Change>,
    mpls: Vec<Label>,
}

#[derive(Debug, Serialize)]
struct Address {
    address: String,
    name: Option<String>,
}

impl Tracing {
    /// Returns a trace in its printable forms.
    pub(crate) fn new(
        protocol: Protocol,
        hops: u8,
        paths: Vec<TracedPath>,
        parts: Option<u8>,
        names: &HashMap<IpAddr, String>,
    ) -> Tracing {
        let mut text = String::new();
        for path in &paths {
            lines(&mut text, protocol, path, names);
        }
        if let (Some(hop), true) = (parts, paths.len() > 1) {
            part_lines(&mut text, hop, &paths);
        }
        let worst =
            paths.iter().map(|path| (verdict(&path.end), path)).min_by_key(|(verdict, _)| verdict.reach());
        let verdict = worst.as_ref().map_or(Verdict::Failed, |(verdict, _)| *verdict);
        let summary = worst.map(|(_, path)| conclusion(path)).unwrap_or_default();
        let paths = paths.iter().map(|path| Path::new(path, names)).collect();
        Tracing {
            text,
            object: Object { verdict, summary, hops_at_most: hops, parts_at_hop: parts, paths },
            verdict,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// Returns the exit status: as of a connection.
    pub(super) fn status(&self, detailed: bool) -> u8 {
        self.verdict.status(detailed)
    }
}

/// Returns the verdict of a connection that ends so.
fn verdict(end: &End) -> Verdict {
    match end {
        End::Reached { by: Reached::SynAck | Reached::Acknowledged | Reached::Datagram, .. } => Verdict::Done,
        End::Reached { by: Reached::Reset | Reached::PortUnreachable, .. } | End::ResetBy { .. } => {
            Verdict::Refused
        }
        End::Rejected { .. } => Verdict::Rejected,
        End::DiesAfter { .. } | End::TooFar { .. } | End::NoAnswer => Verdict::TimedOut,
    }
}

/// Returns the last line of a path.
fn conclusion(path: &TracedPath) -> String {
    let remote = endpoint(&path.remote);
    let zone = zone_of(&path.local).unwrap_or_default();
    let scoped = |ip| ScopedIp::new(ip, zone);
    let probes = count(path.probes, "probe");
    match path.end {
        End::Reached { by, hop } => format!("reached: {} from {remote}, hop {hop}", by.words().1),
        End::ResetBy { hop, from } => format!(
            "refused by hop {hop} ({}), it seems: the RST in the name of {remote} arrives with the TTL of that hop",
            scoped(from)
        ),
        End::Rejected { hop, from, reason } => format!("rejected by hop {hop} ({}): {reason}", scoped(from)),
        End::DiesAfter { hop, from } => {
            format!("dies after hop {hop} ({}): no answer from beyond it to {probes}", scoped(from))
        }
        End::TooFar { hops } => format!("{remote} is further than {hops} hops; allow more with --ttl"),
        End::NoAnswer => format!("no answer: neither {remote} nor any hop answered {probes}"),
    }
}

/// Writes the lines of a path.
fn lines(text: &mut String, protocol: Protocol, path: &TracedPath, names: &HashMap<IpAddr, String>) {
    let TracedPath { local, remote, trace, .. } = path;
    let _ = writeln!(text, "trace of {protocol} {} -> {}", endpoint(local), endpoint(remote));
    let zone = zone_of(local).unwrap_or_default();
    let last = trace.last().unwrap_or_default();
    let mut shown: Vec<Change> = Vec::new();
    for (number, hop) in (1..=last).zip(&trace.hops) {
        let fate = trace.fate(number);
        if fate == Fate::Silent {
            let _ = writeln!(text, "{number:>3}  *  silent");
            continue;
        }
        let addresses: Vec<String> = hop.addresses().into_iter().map(|ip| named(ip, zone, names)).collect();
        let _ = write!(text, "{number:>3}  {}  {}", addresses.join(", "), round_trips(hop));
        if let Some(answer) = hop.replies().find_map(words) {
            let _ = write!(text, "  {answer}");
        }
        if let End::Rejected { hop: rejecting, reason, .. } = path.end
            && rejecting == number
            && hop.replies().all(|reply| reply.kind == ReplyKind::Exceeded)
        {
            let _ = write!(text, "  rejects what it forwards: {reason}");
        }
        text.push_str(match fate {
            Fate::LimitsIcmp => "  limits its ICMP errors",
            Fate::Loses => "  loses packets",
            Fate::OnlyEstablished => "  reached by the established connection only",
            Fate::Answers | Fate::Silent => "",
        });
        text.push('\n');
        let changes = changes(hop);
        for change in changes.iter().filter(|change| !shown.contains(change)) {
            let _ = writeln!(text, "       before it: {}", change.words());
        }
        shown.extend(changes);
        for label in labels(hop) {
            let Label { label, traffic_class, ttl, .. } = label;
            let _ = writeln!(text, "       MPLS label {label}, traffic class {traffic_class}, TTL {ttl}");
        }
    }
    let _ = writeln!(text, "{}", conclusion(path));
}

/// Writes where paths part.
fn part_lines(text: &mut String, hop: u8, paths: &[TracedPath]) {
    let mut ports: Vec<(IpAddr, Vec<String>)> = Vec::new();
    for path in paths {
        let at = path.trace.hops.get(usize::from(hop) - 1);
        let Some(ip) = at.and_then(|hop| hop.addresses().first().copied()) else { continue };
        let port = path.local.port().to_string();
        match ports.iter_mut().find(|(known, _)| *known == ip) {
            Some((_, ports)) => ports.push(port),
            None => ports.push((ip, vec![port])),
        }
    }
    let zone = paths.first().and_then(|path| zone_of(&path.local)).unwrap_or_default();
    let _ = writeln!(text, "paths part at hop {hop}:");
    for (ip, ports) in ports {
        let _ = writeln!(text, "     {} from source port {}", ScopedIp::new(ip, zone), ports.join(", "));
    }
}

fn named(ip: IpAddr, zone: u32, names: &HashMap<IpAddr, String>) -> String {
    let address = ScopedIp::new(ip, zone);
    names.get(&ip).map_or_else(|| address.to_string(), |name| format!("{address} ({name})"))
}

fn round_trips(hop: &Hop) -> String {
    let times = hop.probes.iter().map(|reply| match reply.as_ref().and_then(|reply| reply.round_trip) {
        Some(time) => format!("{:.3} ms", in_milliseconds(time)),
        None => "*".to_owned(),
    });
    times.collect::<Vec<_>>().join("  ")
}

/// Returns an answer in words, unless it is the ordinary one of a hop.
fn words(reply: &Reply) -> Option<String> {
    match reply.kind {
        ReplyKind::Exceeded => None,
        ReplyKind::TooBig(mtu) => Some(format!("next link's MTU {mtu}")),
        ReplyKind::Rejected(reason) => Some(format!("rejects: {reason}")),
        ReplyKind::Reached(by) => Some(by.words().1.to_owned()),
    }
}

/// Returns the identifier of an answer.
fn identifier(kind: ReplyKind) -> String {
    match kind {
        ReplyKind::Exceeded => "hop_limit_exceeded".to_owned(),
        ReplyKind::TooBig(_) => "packet_too_big".to_owned(),
        ReplyKind::Rejected(Reason::Unreachable(code)) => format!("unreachable_code_{code}"),
        ReplyKind::Rejected(reason) => reason.to_string().replace([' ', '/'], "_").replace(['(', ')'], ""),
        ReplyKind::Reached(by) => by.words().0.to_owned(),
    }
}

/// Returns what the hop's answers show to have changed, each change once.
fn changes(hop: &Hop) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    for change in hop.replies().flat_map(|reply| &reply.changes) {
        // Another number of each probe is one change of that field.
        if all.iter().all(|known| known.field != change.field) {
            all.push(change.clone());
        }
    }
    all
}

fn labels(hop: &Hop) -> Vec<Label> {
    hop.replies().find(|reply| !reply.labels.is_empty()).map(|reply| reply.labels.clone()).unwrap_or_default()
}

impl Path {
    fn new(path: &TracedPath, names: &HashMap<IpAddr, String>) -> Path {
        let zone = zone_of(&path.local).unwrap_or_default();
        let scoped = |ip| Some(ScopedIp::new(ip, zone).to_string());
        let target = || scoped(path.remote.ip());
        let (end, end_hop, end_address, answer) = match path.end {
            End::Reached { by, hop } => ("reached", Some(hop), target(), Some(by.words().0)),
            End::ResetBy { hop, from } => {
                ("reset_by_hop", Some(hop), scoped(from), Some(Reached::Reset.words().0))
            }
            End::Rejected { hop, from, .. } => ("rejected", Some(hop), scoped(from), None),
            End::DiesAfter { hop, from } => ("dies_after_hop", Some(hop), scoped(from), None),
            End::TooFar { hops } => ("too_far", Some(hops), None, None),
            End::NoAnswer => ("no_answer", None, None, None),
        };
        let last = path.trace.last().unwrap_or_default();
        let hops = (1..=last).zip(&path.trace.hops).map(|(number, hop)| JsonHop {
            hop: number,
            addresses: hop
                .addresses()
                .into_iter()
                .map(|ip| Address {
                    address: ScopedIp::new(ip, zone).to_string(),
                    name: names.get(&ip).cloned(),
                })
                .collect(),
            state: match path.trace.fate(number) {
                Fate::Answers => "answers",
                Fate::Silent => "silent",
                Fate::LimitsIcmp => "limits_icmp",
                Fate::Loses => "loses",
                Fate::OnlyEstablished => "only_established",
            },
            sent_packets: hop.probes.len(),
            round_trips_ms: hop
                .probes
                .iter()
                .map(|reply| reply.as_ref().and_then(|reply| reply.round_trip).map(in_milliseconds))
                .collect(),
            answer: hop.replies().next_back().map(|reply| identifier(reply.kind)),
            next_hop_mtu_bytes: hop.replies().find_map(|reply| match reply.kind {
                ReplyKind::TooBig(mtu) => Some(mtu),
                _ => None,
            }),
            changes: changes(hop),
            mpls: labels(hop),
        });
        Path {
            local: endpoint(&path.local),
            remote: endpoint(&path.remote),
            end,
            end_hop,
            end_address,
            answer,
            connect_ms: path.connected.map(in_milliseconds),
            peer_mss_bytes: path.peer_mss,
            hops: hops.collect(),
        }
    }
}
