//! The JSON object of a comparison. docs/schema/comparison.json describes it.
use super::{ComparedTarget, verdict};
use crate::{
    diagnose::{
        Action, Certainty, Culprit, CulpritKind, Evidence, Finding, Outcome, SourceState, Space, Subject,
        Word, belongs::Owner,
    },
    net::Protocol,
    report::{
        JsonReport, Verdict,
        counters::{in_milliseconds, milliseconds},
    },
};
use serde::Serialize;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

#[derive(Debug, Serialize)]
pub(in crate::report) struct Object {
    kernel_release: String,
    difference: Word,
    summary: String,
    probe: Probe,
    kernel: Kernel,
    raw: JsonReport,
    /// The outcome past the programs at egress and the queueing disciplines, where our own egress dropped the attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    past_egress: Option<Verdict>,
    culprits: Vec<Blamed>,
    sources: BTreeMap<&'static str, Source>,
    ruleset_changed: bool,
    /// Look-up of the host's name; null for an address.
    #[serde(rename = "name_ms", serialize_with = "milliseconds")]
    name: Option<Duration>,
    duration_ms: f64,
}

#[derive(Debug, Serialize)]
struct Probe {
    /// The user of the kernel's attempt.
    user: u32,
    /// The folder of its control group; null where no hierarchy of version 2 is mounted.
    cgroup: Option<String>,
    /// The number of its network namespace.
    netns: u64,
    /// Times that both attempts were made.
    trials: usize,
}

#[derive(Debug, Serialize)]
struct Kernel {
    verdict: Verdict,
    /// Null where the attempt was ended because its end was clear.
    errno: Option<String>,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    translated_to: Option<SocketAddr>,
    connect_ms: Option<f64>,
    /// SYNs that the kernel made.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_syns: Option<usize>,
    /// SYNs that left by a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_syns: Option<usize>,
    /// UDP: datagrams that the kernel made.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_datagrams: Option<usize>,
    /// UDP: datagrams that left by a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_datagrams: Option<usize>,
    /// Answers that came in by a device.
    answers: usize,
    interface: Option<String>,
}

#[derive(Debug, Serialize)]
struct Blamed {
    action: Action,
    kind: CulpritKind,
    place: String,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    /// The rule's number in its chain, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    /// The number of rules in the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    element: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jumps: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    belongs_to: Option<Belonging>,
    #[serde(skip_serializing_if = "Option::is_none")]
    translated_to: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    certainty: Certainty,
    evidence: Vec<String>,
    #[serde(rename = "try", skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Belonging {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
}

#[derive(Debug, Serialize)]
struct Source {
    used: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<bool>,
}

impl Object {
    pub(crate) fn new(
        target: &ComparedTarget,
        evidence: &Evidence,
        finding: &Finding,
        mut raw: JsonReport,
        time: Duration,
    ) -> Object {
        raw.settle(verdict(&evidence.raw.outcome), evidence.raw.error.clone());
        Object {
            kernel_release: target.kernel_release.clone(),
            difference: finding.word,
            summary: finding.sentence.clone(),
            probe: Probe {
                user: evidence.user,
                cgroup: evidence.cgroup.clone(),
                netns: target.netns,
                trials: target.trials,
            },
            kernel: Kernel::new(evidence),
            raw,
            past_egress: evidence.raw.past_egress.as_ref().map(verdict),
            culprits: finding
                .culprits
                .iter()
                .map(|culprit| Blamed::new(culprit.clone(), evidence.protocol))
                .collect(),
            sources: sources(&evidence.spaces),
            ruleset_changed: evidence.spaces.iter().any(|space| space.ruleset_changed),
            name: None,
            duration_ms: in_milliseconds(time),
        }
    }
    /// Notes how long the look-up of the host's name took.
    pub(crate) fn looked_up(&mut self, name: Option<Duration>) {
        self.name = name;
    }
}

impl Kernel {
    fn new(evidence: &Evidence) -> Kernel {
        let kernel = &evidence.kernel;
        let first = evidence.spaces.first();
        let at_devices =
            |subject, outgoing| first.map_or(0, |space| space.at_devices(subject, outgoing).count());
        let sent = |space: &Space| space.ways(Subject::Syn).filter(|way| way.came_to("output")).count();
        let connected = kernel.outcome == Outcome::Connected;
        let of = |protocol, number| (evidence.protocol == protocol).then_some(number);
        let (sent, left) = (first.map_or(0, sent), at_devices(Subject::Syn, true));
        Kernel {
            verdict: verdict(&kernel.outcome),
            errno: kernel.errno().map(|errno| format!("{errno:?}")),
            local: kernel.local,
            peer: kernel.reported.and_then(|reported| reported.peer),
            translated_to: evidence.spaces.iter().find_map(|space| space.translated_to(evidence.asked)),
            connect_ms: connected.then(|| in_milliseconds(kernel.time)),
            sent_syns: of(Protocol::Tcp, sent),
            left_syns: of(Protocol::Tcp, left),
            sent_datagrams: of(Protocol::Udp, sent),
            left_datagrams: of(Protocol::Udp, left),
            answers: [Subject::SynAck, Subject::Reset, Subject::Icmp]
                .into_iter()
                .map(|subject| at_devices(subject, false))
                .sum(),
            interface: first
                .and_then(|space| space.at_devices(Subject::Syn, true).next())
                .map(|seen| seen.interface.clone()),
        }
    }
}

impl Blamed {
    fn new(culprit: Culprit, protocol: Protocol) -> Blamed {
        Blamed {
            action: culprit.action,
            kind: culprit.kind,
            place: culprit.place,
            namespace: culprit.namespace,
            packet: culprit.packet.map(|packet| packet.identifier(protocol)),
            direction: culprit.direction,
            interface: culprit.interface,
            hook: culprit.hook,
            family: culprit.family,
            table: culprit.table,
            chain: culprit.chain,
            handle: culprit.handle,
            position: culprit.position.map(|(number, _)| number),
            rules: culprit.position.map(|(_, rules)| rules),
            tool: culprit.tool,
            text: culprit.text,
            element: culprit.element,
            comment: culprit.comment,
            jumps: culprit.jumps,
            belongs_to: culprit.belongs_to.map(Belonging::new),
            translated_to: culprit.translated_to,
            note: culprit.note,
            certainty: culprit.certainty,
            evidence: culprit.evidence,
            remedy: culprit.remedy,
        }
    }
}

impl Belonging {
    fn new(owner: Owner) -> Belonging {
        match owner {
            Owner::Service { namespace, name, port } => Belonging {
                kind: "kubernetes_service",
                namespace: Some(namespace),
                name,
                port: Some(port).filter(|port| !port.is_empty()),
            },
            Owner::Program(name) => {
                Belonging { kind: "program", namespace: None, name: name.to_owned(), port: None }
            }
        }
    }
}

impl Source {
    fn new(state: &SourceState, counts: bool) -> Source {
        Source {
            used: state.used,
            why: state.why.clone(),
            events: counts.then_some(state.events),
            lost: counts.then_some(state.lost),
        }
    }
}

/// Returns the state of each source, in the first namespace.
fn sources(spaces: &[Space]) -> BTreeMap<&'static str, Source> {
    let none = Space {
        trace: SourceState::unused("no packet could be made"),
        tap: SourceState::unused("no packet could be made"),
        drop_events: SourceState::unused("no packet could be made"),
        ..Space::default()
    };
    let space = spaces.first().unwrap_or(&none);
    BTreeMap::from([
        ("nft_trace", Source::new(&space.trace, space.trace.used)),
        ("taps", Source::new(&space.tap, false)),
        ("iptables_legacy", legacy_source(space)),
        ("drop_events", Source::new(&space.drop_events, space.drop_events.used)),
        ("conntrack", Source::new(&space.conntrack, false)),
    ])
}

/// Returns the state of iptables-legacy's counters as a source.
fn legacy_source(space: &Space) -> Source {
    let legacy = &space.legacy;
    let why = match &legacy.unreadable {
        Some(error) => Some(format!("the tables' names cannot be read: {error}")),
        None => (!legacy.present).then(|| "no legacy tables".to_owned()),
    };
    Source { used: legacy.present, why, events: None, lost: None }
}
