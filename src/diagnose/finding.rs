//! The finding: what stands in the way, and how sure that is.
use super::Subject;
use serde::Serialize;
use std::net::SocketAddr;

/// The first word of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Both paths connected, and no address was translated.
    Same,
    /// The kernel's path led to another destination.
    Captured,
    /// Something of this host stops the kernel's path.
    ThisHost,
    /// Only the kernel's path connected.
    OnlyTheKernel,
    /// Trials differ, and no culprit explains it.
    Inconsistent,
    /// Both paths fail alike, and nothing of this host touched the packets.
    NotHere,
    /// The kernel's path failed, and nothing was seen to do it.
    Unknown,
}

impl Word {
    /// Returns the word as text has it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Word::Same => "same",
            Word::Captured => "captured",
            Word::ThisHost => "this host",
            Word::OnlyTheKernel => "only the kernel",
            Word::Inconsistent => "inconsistent",
            Word::NotHere => "not here",
            Word::Unknown => "unknown",
        }
    }
}

/// An action on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Drop,
    Reject,
    Translate,
    Queue,
    Steal,
    Refuse,
    NoPacket,
}

/// The kind of a culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CulpritKind {
    NftRule,
    NftPolicy,
    LegacyRule,
    LegacyPolicy,
    Route,
    PolicyRule,
    ReversePathFilter,
    Listener,
    TcProgram,
    CgroupProgram,
    XdpProgram,
    NetfilterProgram,
    Qdisc,
    Conntrack,
    Other,
}

/// The certainty of a culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Certainty {
    /// Events about this very packet say so.
    Proven,
    /// Positions and counters leave nothing else.
    Inferred,
}

/// A rule, program, route or other thing that acted on the packets. All names are foreign text, made safe for a
/// terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Culprit {
    pub action: Action,
    pub kind: CulpritKind,
    pub packet: Option<Subject>,
    /// "out" or "in".
    pub direction: Option<&'static str>,
    /// The network namespace: "here", "pod", "node".
    pub namespace: String,
    pub interface: Option<String>,
    pub hook: Option<String>,
    pub family: Option<&'static str>,
    pub table: Option<String>,
    pub chain: Option<String>,
    pub handle: Option<u64>,
    pub position: Option<(usize, usize)>,
    /// The program that manages the rule: "iptables-nft", "nft", "kube-proxy".
    pub tool: Option<String>,
    /// The rule's text.
    pub text: Option<String>,
    pub element: Option<String>,
    pub comment: Option<String>,
    /// The chains that led there.
    pub jumps: Vec<String>,
    pub belongs_to: Option<super::belongs::Owner>,
    /// The new destination.
    pub translated_to: Option<SocketAddr>,
    pub certainty: Certainty,
    pub evidence: Vec<String>,
    /// The place as one line.
    pub place: String,
    /// A note that belongs to it: a queue without a listener, an identity.
    pub note: Option<String>,
    /// One command that shows more.
    pub remedy: Option<String>,
}

impl Culprit {
    /// Returns a culprit of which nothing but this is known.
    pub(crate) fn new(action: Action, kind: CulpritKind, certainty: Certainty, place: String) -> Culprit {
        Culprit {
            action,
            kind,
            packet: None,
            direction: None,
            namespace: "here".to_owned(),
            interface: None,
            hook: None,
            family: None,
            table: None,
            chain: None,
            handle: None,
            position: None,
            tool: None,
            text: None,
            element: None,
            comment: None,
            jumps: Vec::new(),
            belongs_to: None,
            translated_to: None,
            certainty,
            evidence: Vec::new(),
            place,
            note: None,
            remedy: None,
        }
    }
}

/// The conclusion: the obstacles, with their evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub word: Word,
    pub sentence: String,
    /// The first one decides; a translation before it comes second. With several of which one did it, all
    /// are inferred.
    pub culprits: Vec<Culprit>,
    /// The observations of the kernel's path.
    pub kernel_note: String,
}
