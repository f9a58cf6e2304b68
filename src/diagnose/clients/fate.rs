//! The fate of one connection: the first of these rules that applies.
//!
//! Only an event about one of its own packets makes a culprit proven.
use super::{
    super::{
        decide::{
            dropped::{self, Surroundings},
            legacy,
            position::ReversePath,
        },
        drop_event::DropEvent,
        finding::{Action, Certainty, Culprit, CulpritKind},
        packet::Subject,
    },
    ClientConnection, ClientEvidence, ClientOutcome,
    listener::{full, nothing_listens},
    position,
};
use crate::net::zone::endpoint;

/// The words of SYNs and of SYN-ACKs before the clients.
pub(super) const SYNS: &str = "the SYNs of";
pub(super) const ANSWERS: &str = "the answers (SYN-ACK) to";

/// The fate of a connection. Those with the same words and the same culprit are one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub outcome: ClientOutcome,
    /// The sentence around the clients.
    pub before: &'static str,
    pub after: String,
    pub culprit: Option<Culprit>,
}

impl Fate {
    pub(super) fn new(outcome: ClientOutcome, before: &'static str, after: impl Into<String>) -> Fate {
        Fate { outcome, before, after: after.into(), culprit: None }
    }

    /// Returns that something of this host stops the packets of a kind.
    pub(super) fn stopped(
        evidence: &ClientEvidence,
        connection: &ClientConnection,
        subject: Subject,
        done: &str,
        culprit: Culprit,
    ) -> Fate {
        let (before, direction) = if subject == Subject::Syn { (SYNS, "in") } else { (ANSWERS, "out") };
        let culprit = Culprit {
            packet: Some(subject),
            direction: culprit.direction.or(Some(direction)),
            interface: culprit.interface.or_else(|| {
                Some(connection.interface.clone()).filter(|name| !name.is_empty() && subject == Subject::Syn)
            }),
            namespace: evidence.space.name.clone(),
            ..culprit
        };
        let after = format!("are {done}");
        Fate { outcome: ClientOutcome::ThisHost, before, after, culprit: Some(culprit) }
    }
}

/// Returns what became of a connection; `None` where it is too early to tell.
pub(super) fn of(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Fate> {
    let seen = answered(evidence, connection)
        .or_else(|| ended(evidence, connection))
        .or_else(|| dropped(evidence, connection))
        .or_else(|| not_for_us(connection))
        .or_else(|| refused(evidence, connection));
    // From here on silence decides, which lost packets or a late SYN may explain, too.
    seen.or_else(|| {
        let silent = || match evidence.space.tap.lost {
            true => {
                let after = "come in; an answer may be among packets that netkat lost";
                Fate::new(ClientOutcome::Unknown, SYNS, after)
            }
            false => translated(evidence, connection, "and nothing comes back")
                .or_else(|| forwarded(connection))
                .unwrap_or_else(|| position::infer(evidence, connection)),
        };
        (!connection.late).then(silent)
    })
}

/// A SYN-ACK left this host.
fn answered(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Fate> {
    // Past a translation the device shows other ports than the trace.
    let traced = connection.syns == 0
        && connection.answer.came_to("postrouting")
        && connection.answer.ended.is_none()
        && connection.drops.is_empty();
    if connection.answers == 0 && !traced {
        return None;
    }
    if connection.repeated {
        let after = "leave this host, and the SYNs come again: the answers do not arrive";
        return Some(Fate::new(ClientOutcome::NotHere, ANSWERS, after));
    }
    if connection.answers > 1 {
        return Some(full(evidence, connection).unwrap_or_else(|| {
            let after = "are repeated: no ACK completes the handshakes";
            Fate::new(ClientOutcome::Unknown, ANSWERS, after)
        }));
    }
    Some(Fate::new(ClientOutcome::Answered, SYNS, "are answered"))
}

/// A rule or a policy of nf_tables ended a packet.
fn ended(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Fate> {
    let ways = [(Subject::Syn, &connection.syn), (Subject::SynAck, &connection.answer)];
    let (subject, end) = ways.into_iter().find_map(|(subject, way)| {
        let end = evidence.ends.get(way.ended?)?;
        Some((subject, end))
    })?;
    let mut culprit = end.culprit.clone();
    culprit.packet = Some(subject);
    if evidence.space.trace.lost {
        culprit.certainty = Certainty::Inferred;
    }
    dropped::corroborate_by(&mut culprit, &connection.drops, &evidence.space.drop_events);
    Some(Fate::stopped(evidence, connection, subject, end.done, culprit))
}

/// The kernel said that it dropped a packet.
fn dropped(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Fate> {
    let losses = connection.drops.iter().filter(|event| event.is_a_loss());
    let event = losses.min_by_key(|event| event.subject)?;
    let subject = event.subject;
    let way = if subject == Subject::Syn { &connection.syn } else { &connection.answer };
    let v4 = connection.server.is_ipv4();
    let mut done = "dropped";
    let mut culprit = match event.known_reason() {
        Some("NO_SOCKET") if subject == Subject::Syn => {
            done = "refused";
            Culprit { certainty: Certainty::Proven, ..nothing_listens(evidence, connection) }
        }
        Some("IP_INADDRERRORS") => {
            Culprit { certainty: Certainty::Proven, ..position::not_local(connection) }
        }
        _ if event.is_by_netfilter() => {
            match legacy::culprit(v4, &evidence.space.name, evidence.suspects(v4)) {
                Some(culprit) => {
                    done = legacy::done(&culprit);
                    Culprit { evidence: vec![position::counted()], ..culprit }
                }
                None if way.hooks.is_empty() || evidence.space.trace.lost => beyond_the_trace(evidence),
                None => by_kernel(evidence, connection, event),
            }
        }
        _ => by_kernel(evidence, connection, event),
    };
    culprit.evidence.insert(0, event.source());
    culprit.interface = event.interface.clone();
    Some(Fate::stopped(evidence, connection, subject, done, culprit))
}

/// Returns what a drop event alone names.
fn by_kernel(evidence: &ClientEvidence, connection: &ClientConnection, event: &DropEvent) -> Culprit {
    let at = event.interface.as_deref().unwrap_or(&connection.interface);
    let around = Surroundings {
        protocol: crate::net::Protocol::Tcp,
        programs: &evidence.programs_at(at),
        outgoing: event.subject != Subject::Syn,
        end: connection.server,
        reverse_path: reverse_path(evidence, connection),
    };
    dropped::culprit(&around, event)
}

/// Netfilter dropped a packet that was not traced.
fn beyond_the_trace(evidence: &ClientEvidence) -> Culprit {
    let why = match evidence.space.trace.used {
        true => "the packet was beyond the trace's limit",
        false => "there is no trace",
    };
    let place = format!("a rule or a program of netfilter ({why})");
    Culprit::new(Action::Drop, CulpritKind::Other, Certainty::Inferred, place)
}

/// The frames are for others.
fn not_for_us(connection: &ClientConnection) -> Option<Fate> {
    let after = "come in frames for another link address";
    connection.other_host.then(|| Fate::new(ClientOutcome::NotHere, SYNS, after))
}

/// The packets went on to others.
fn forwarded(connection: &ClientConnection) -> Option<Fate> {
    let by = connection.forwarded_by.as_ref()?;
    let after = format!("are forwarded by {by}, and nothing comes back");
    Some(Fate::new(ClientOutcome::NotHere, SYNS, after))
}

/// A rule of this host sent the SYN on to another end, with this result.
fn translated(evidence: &ClientEvidence, connection: &ClientConnection, result: &str) -> Option<Fate> {
    let translation = evidence.translations.get(connection.syn.translated?)?;
    let mut culprit = translation.by.clone().unwrap_or_else(|| {
        let place = match evidence.space.legacy.present {
            true => "a rule of iptables-legacy, IPVS, or a program that translates",
            false => "IPVS, or a program that translates",
        };
        Culprit::new(Action::Translate, CulpritKind::Conntrack, Certainty::Inferred, place.to_owned())
    });
    culprit.translated_to = Some(translation.to);
    let done = format!("sent on to {}, {result}", endpoint(&translation.to));
    Some(Fate::stopped(evidence, connection, Subject::Syn, &done, culprit))
}

/// A reset left that answers the SYN.
fn refused(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Fate> {
    if connection.resets == 0 {
        return None;
    }
    if let Some(fate) = translated(evidence, connection, "and refused there") {
        return Some(fate);
    }
    if let Some(culprit) = position::by_counters(evidence, connection) {
        return Some(Fate::stopped(evidence, connection, Subject::Syn, legacy::done(&culprit), culprit));
    }
    if let Some(listening) = evidence.takers(connection.server.ip(), connection.interface_index).next() {
        let listens = endpoint(&listening.socket.address);
        let after = format!("are answered by resets, although a process listens on {listens}");
        return Some(Fate::new(ClientOutcome::Unknown, SYNS, after));
    }
    let mut culprit = nothing_listens(evidence, connection);
    culprit.evidence.insert(0, "reset of this host".to_owned());
    Some(Fate::stopped(evidence, connection, Subject::Syn, "refused", culprit))
}

/// Returns the way back to the client, as the reverse path filter looks at it.
pub(super) fn reverse_path<'a>(
    evidence: &'a ClientEvidence,
    connection: &'a ClientConnection,
) -> ReversePath<'a> {
    ReversePath {
        packet: "the SYN",
        sender: connection.client.ip(),
        strict: &evidence.space.strict,
        way_back: connection.way_back.as_deref(),
        drops: evidence.space.reverse_path_drops,
    }
}
