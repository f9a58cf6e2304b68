//! The evidence: what each source saw of the attempt.
use super::{
    drop_event::DropEvent,
    legacy::LegacySuspect,
    observation::{Observation, Step},
    packet::{PacketHeader, Subject},
};
use crate::{host::policy_route::Refusal, kernel::AttemptOutcome, net::Protocol};
use nix::errno::Errno;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Over UDP: answered.
    Connected,
    /// Silence.
    TimedOut,
    Refused,
    /// By an ICMP error, in words, of this sender.
    Rejected {
        error: String,
        by: Option<IpAddr>,
    },
    NoRoute,
    NoNeighbour,
    /// This host's own egress dropped what was sent.
    EgressDropped,
    Failed(String),
}

impl Outcome {
    /// Returns whether the host itself said that nothing listens there, which UDP says by an ICMP error.
    pub(crate) fn is_port_unreachable_by(&self, host: IpAddr) -> bool {
        matches!(self, Outcome::Rejected { error, by } if error.ends_with("port unreachable") && *by == Some(host))
    }
}

/// The kernel's own attempt.
#[derive(Clone, Debug)]
pub(crate) struct KernelPath {
    pub outcome: Outcome,
    /// connect(2)'s error; `None` where netkat ended the attempt, because its end was clear.
    pub reported: Option<AttemptOutcome>,
    /// The attempt's duration.
    pub time: Duration,
    /// The attempt's own end; `None` where no packet was made.
    pub local: Option<SocketAddr>,
}

impl KernelPath {
    /// Returns the errno of the attempt.
    pub(crate) fn errno(&self) -> Option<Errno> {
        self.reported.and_then(|reported| reported.errno).map(Errno::from_raw)
    }
}

/// The attempt by netkat's own stack.
#[derive(Clone, Debug)]
pub(crate) struct RawPath {
    pub outcome: Outcome,
    /// The words of its error.
    pub error: Option<String>,
    pub time: Duration,
    /// Local end, next hop and interface.
    pub local: Option<SocketAddr>,
    pub next_hop: String,
    pub interface: String,
    /// It had another source port than the kernel's attempt, for this reason.
    pub other_port: Option<String>,
    /// The outcome past the programs at egress and the queueing disciplines, where this host's own egress dropped the
    /// attempt.
    pub past_egress: Option<Outcome>,
}

/// A packet of the attempt at a device.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub subject: Subject,
    pub header: PacketHeader,
    pub outgoing: bool,
    pub interface: String,
}

/// The state of a source of evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceState {
    pub used: bool,
    /// Why it was not used.
    pub why: Option<String>,
    pub events: u64,
    /// Events were lost.
    pub lost: bool,
}

impl SourceState {
    /// Returns the state of a source that was not used.
    pub(crate) fn unused(why: impl Into<String>) -> SourceState {
        SourceState { why: Some(why.into()), ..SourceState::default() }
    }
}

/// Programs of others on the packets' way, each as its kind, name and id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    /// Of tc and tcx at the egress of the interface that the SYN leaves by.
    pub egress: Vec<String>,
    /// Of tc and tcx at the ingress of the interface that the answer came in by, or would.
    pub ingress: Vec<String>,
    /// XDP programs there.
    pub xdp: Vec<String>,
    /// Of the attempt's control group, for packets that are sent.
    pub cgroup_egress: Vec<String>,
    /// Of the attempt's control group, for packets that are received.
    pub cgroup_ingress: Vec<String>,
}

/// The result of iptables-legacy's counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct LegacyEvidence {
    /// There are such tables.
    pub present: bool,
    /// Why they could not be read.
    pub unreadable: Option<String>,
    /// Rules that may have ended a packet.
    pub suspects: Vec<LegacySuspect>,
    /// Rules that could have, before the rounds.
    pub considered: usize,
    /// Connections of each round.
    pub rounds: Vec<usize>,
    /// Rules that may have translated the SYN.
    pub translations: Vec<LegacySuspect>,
}

/// The evidence from one network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    /// "here", or "pod" and "node".
    pub name: String,
    /// The ways of the attempt's packets, in the order of their first events.
    pub observations: Vec<Observation>,
    /// Its packets at the devices.
    pub seen: Vec<Seen>,
    /// The end that conntrack expects the answer from.
    pub answers_from: Option<SocketAddr>,
    pub trace: SourceState,
    pub tap: SourceState,
    pub conntrack: SourceState,
    pub drop_events: SourceState,
    /// Its packets that the kernel dropped.
    pub drops: Vec<DropEvent>,
    /// Increase of TcpExt.IPReversePathFilter, in packets.
    pub reverse_path_drops: u64,
    /// Other rules that may have taken the place of those in the evidence.
    pub ruleset_changed: bool,
    /// A mark of the SYN, and what refuses a route to a packet with it.
    pub refused_mark: Option<(u32, Refused)>,
    /// By queue number: the port id of the program that has bound it, and its name.
    pub queues: Vec<(u16, String)>,
    /// Strict reverse path filters, by interface.
    pub strict: Vec<String>,
    /// The interface of the way back to an answer's sender.
    pub way_back: Option<String>,
    pub legacy: LegacyEvidence,
    /// Programs that packets pass at the devices.
    pub programs: Programs,
}

impl Space {
    /// Returns the packets of a kind that were seen in one direction, at the first device that saw one: a
    /// packet may pass several, as a bridge and its port.
    pub(crate) fn at_devices(&self, subject: Subject, outgoing: bool) -> impl Iterator<Item = &Seen> {
        let fits = move |seen: &&Seen| seen.subject == subject && seen.outgoing == outgoing;
        let first = self.seen.iter().find(fits).map(|seen| seen.interface.as_str());
        self.seen.iter().filter(fits).filter(move |seen| Some(seen.interface.as_str()) == first)
    }

    /// Returns the observations of a kind of packet.
    pub(crate) fn ways(&self, subject: Subject) -> impl Iterator<Item = &Observation> {
        self.observations.iter().filter(move |observation| observation.subject == subject)
    }

    /// Returns the last rule that translated the destination, with its observation.
    pub(crate) fn translation(&self) -> Option<(&Observation, usize, &Step)> {
        let translates = |step: &Step| {
            use super::rule_text::Translation;
            step.rule.as_ref().is_some_and(|rule| rule.text.translates == Some(Translation::Destination))
        };
        self.ways(Subject::Syn).find_map(|observation| {
            let mut steps = observation.steps.iter().enumerate().rev();
            steps.find(|(_, step)| translates(step)).map(|(index, step)| (observation, index, step))
        })
    }

    /// Returns the destination that the SYN got by a translation.
    pub(crate) fn translated_to(&self, asked: SocketAddr) -> Option<SocketAddr> {
        let other = |end: SocketAddr| (end.ip(), end.port()) != (asked.ip(), asked.port());
        let later = self.ways(Subject::Syn).flat_map(|o| [&o.header].into_iter().chain(&o.later));
        let by_header = || later.map(|header| header.destination).find(|end| other(*end));
        self.answers_from.filter(|end| other(*end)).or_else(by_header)
    }
}

/// The reason why there is no route.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub errno: Errno,
    pub by: Option<Refusal>,
}

/// The next hop in the neighbour table, after the attempt.
#[derive(Clone, Debug)]
pub(crate) struct NeighbourState {
    pub address: IpAddr,
    pub interface: String,
    /// It did not answer.
    pub failed: bool,
}

/// All that is known of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub protocol: Protocol,
    pub asked: SocketAddr,
    pub kernel: KernelPath,
    pub raw: RawPath,
    /// The first namespace of the packet's way first.
    pub spaces: Vec<Space>,
    /// The look-up of the attempt's route failed.
    pub refused: Option<Refused>,
    pub neighbour: Option<NeighbourState>,
    /// The user of the kernel's attempt.
    pub user: u32,
    /// The control group of the kernel's attempt.
    pub cgroup: Option<String>,
    /// The programs that its connect(2) passes.
    pub connect_programs: Vec<String>,
    /// The kernel's attempt was made in another network namespace than netkat's.
    pub elsewhere: bool,
}
