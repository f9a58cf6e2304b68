//! The decision: from evidence to a finding, by rules of which the first that applies decides.
//!
//! Nothing is guessed. "proven" takes an event about this very packet; "not here" takes the SYN seen leaving;
//! what positions and counters leave is "inferred".
mod dropped;
mod legacy;
mod place;
mod position;

use super::{
    belongs,
    evidence::{Evidence, Outcome, Space},
    finding::{Action, Certainty, Culprit, CulpritKind, Finding, Word},
    observation::Observation,
    packet::Subject,
};
use crate::{
    host::{
        nf_trace::{TraceKind, TraceVerdict},
        policy_route::Refusal,
    },
    net::count,
};
use nix::errno::Errno;

/// The routing tables that have names (ip-route(8)).
const MAIN: u32 = 254;
const LOCAL: u32 = 255;

/// Decides what stands in the way of the kernel's attempt.
pub(crate) fn decide(evidence: &Evidence) -> Finding {
    let connected = evidence.kernel.outcome == Outcome::Connected;
    let mut finding = if connected { connected_finding(evidence) } else { failed_finding(evidence) };
    if let Some(culprit) = finding.culprits.first_mut() {
        if !connected {
            dropped::corroborate(evidence, culprit);
        }
        name_owner(culprit);
    }
    finding.kernel_note = kernel_note(evidence);
    finding
}

/// Names the program that loaded the eBPF program which is the culprit.
fn name_owner(culprit: &mut Culprit) {
    let by_program =
        matches!(culprit.kind, CulpritKind::TcProgram | CulpritKind::CgroupProgram | CulpritKind::XdpProgram);
    if by_program && let Some((owner, command)) = belongs::owner_of_program(&culprit.place) {
        culprit.belongs_to = Some(owner);
        culprit.remedy = Some(command.to_owned());
    }
}

fn finding(word: Word, sentence: impl Into<String>, culprits: Vec<Culprit>) -> Finding {
    Finding { word, sentence: sentence.into(), culprits, kernel_note: String::new() }
}

fn connected_finding(evidence: &Evidence) -> Finding {
    let asked = evidence.asked;
    let peer = evidence.kernel.reported.and_then(|reported| reported.peer);
    if let Some(peer) = peer.filter(|peer| (peer.ip(), peer.port()) != (asked.ip(), asked.port())) {
        let mut culprit = Culprit::new(
            Action::Translate,
            CulpritKind::Other,
            Certainty::Proven,
            format!("a program of the control group gave connect() the destination {peer}"),
        );
        culprit.translated_to = Some(peer);
        culprit.evidence = vec!["getpeername".to_owned()];
        return captured(evidence, culprit);
    }
    if let Some(culprit) = translation(evidence) {
        return captured(evidence, culprit);
    }
    match evidence.raw.outcome {
        Outcome::Connected => {
            finding(Word::Same, format!("nothing on this host stands between it and {asked}"), Vec::new())
        }
        Outcome::EgressDropped => {
            let noun = Subject::Syn.noun(evidence.protocol);
            let place = format!("egress of {}, which the kernel's {noun} passed", evidence.raw.interface);
            let culprit = Culprit::new(Action::Drop, CulpritKind::Other, Certainty::Inferred, place);
            finding(Word::OnlyTheKernel, format!("netkat's {noun} is dropped on its way out"), vec![culprit])
        }
        _ => finding(
            Word::OnlyTheKernel,
            format!("the kernel reaches {asked}, netkat's own path does not"),
            Vec::new(),
        ),
    }
}

fn captured(evidence: &Evidence, culprit: Culprit) -> Finding {
    let sentence =
        format!("this host answers for {}, a client outside may get another answer", evidence.asked);
    finding(Word::Captured, sentence, vec![culprit])
}

fn failed_finding(evidence: &Evidence) -> Finding {
    if let Some(found) = no_packet(evidence) {
        return found;
    }
    let translation = translation(evidence);
    let stopped = terminal(evidence)
        .or_else(|| position::answered_from_elsewhere(evidence))
        .or_else(|| position::infer(evidence));
    if let Some(mut found) = stopped {
        found.culprits.extend(translation);
        return found;
    }
    if let Some(found) = position::not_here(evidence) {
        return match translation {
            // The answer of another destination than was asked for is this host's doing.
            Some(culprit) => captured(evidence, culprit),
            None => found,
        };
    }
    match translation {
        Some(culprit) => captured(evidence, culprit),
        None => finding(Word::Unknown, position::unknown(evidence), Vec::new()),
    }
}

/// The first row: connect(2) failed before a packet was made.
fn no_packet(evidence: &Evidence) -> Option<Finding> {
    let reported = evidence.kernel.reported.filter(|reported| reported.at_once)?;
    let errno = Errno::from_raw(reported.errno?);
    let packets = evidence.spaces.iter().any(|space| {
        space.ways(Subject::Syn).next().is_some() || space.at_devices(Subject::Syn, true).next().is_some()
    });
    if packets {
        return None;
    }
    let said = format!("connect() says {errno:?}");
    let culprit = match evidence.refused.as_ref().and_then(|refused| refused.by.clone()) {
        Some(refusal) => {
            let mut culprit = refusal_culprit(&refusal, evidence);
            culprit.evidence = vec![said, "route look-up".to_owned()];
            culprit
        }
        None if errno == Errno::EPERM && !evidence.connect_programs.is_empty() => {
            let programs = evidence.connect_programs.join(", ");
            let several = if evidence.connect_programs.len() > 1 { "one of: " } else { "" };
            let at = evidence.cgroup.as_ref().map(|group| format!(" at {group}")).unwrap_or_default();
            let mut culprit = Culprit::new(
                Action::Refuse,
                CulpritKind::CgroupProgram,
                Certainty::Inferred,
                format!("{several}{programs}{at}"),
            );
            culprit.evidence = vec![said, "programs of the control group".to_owned()];
            culprit
        }
        None => Culprit {
            evidence: vec![said],
            ..Culprit::new(
                Action::Refuse,
                CulpritKind::Other,
                Certainty::Inferred,
                "one of: a cgroup/connect program, an IPsec policy, a Linux security module, seccomp, another policy of \
                 the kernel"
                    .to_owned(),
            )
        },
    };
    let sentence = match culprit.action {
        Action::Refuse => "connect() is refused before any packet",
        _ => "no packet was made",
    };
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// Returns the rule or route that refuses as a culprit.
fn refusal_culprit(refusal: &Refusal, evidence: &Evidence) -> Culprit {
    let destination = evidence.asked.ip();
    let v = if destination.is_ipv4() { "-4" } else { "-6" };
    let (kind, place, remedy) = match refusal {
        Refusal::Rule(text) => {
            (CulpritKind::PolicyRule, format!("policy rule \"{text}\""), format!("ip {v} rule"))
        }
        Refusal::Route(text, table) => {
            let table = match *table {
                MAIN => "main".to_owned(),
                LOCAL => "local".to_owned(),
                number => number.to_string(),
            };
            let remedy = format!("ip {v} route show table {table}");
            (CulpritKind::Route, format!("route {text} (table {table})"), remedy)
        }
        Refusal::NoEntry => (
            CulpritKind::Route,
            format!("no route: no routing table has an entry for {destination}"),
            format!("ip route get {destination}"),
        ),
    };
    let culprit = Culprit::new(Action::NoPacket, kind, Certainty::Proven, place);
    Culprit { remedy: Some(remedy), packet: Some(Subject::Syn), direction: Some("out"), ..culprit }
}

/// Returns what gave the SYN another destination.
fn translation(evidence: &Evidence) -> Option<Culprit> {
    evidence.spaces.iter().find_map(|space| {
        let to = space.translated_to(evidence.asked)?;
        let by_rule = space
            .translation()
            .and_then(|(observation, index, _)| place::culprit(space, observation, index, Action::Translate));
        let by_rule = by_rule.or_else(|| legacy::translation(evidence, space));
        let mut culprit = by_rule.unwrap_or_else(|| {
            let place = "an existing conntrack entry, or a program that translates".to_owned();
            let mut culprit =
                Culprit::new(Action::Translate, CulpritKind::Conntrack, Certainty::Inferred, place);
            culprit.namespace = space.name.clone();
            culprit
        });
        if space.answers_from.is_some() {
            culprit.evidence.push("conntrack".to_owned());
        }
        culprit.translated_to = Some(to);
        Some(culprit)
    })
}

/// A verdict that ended a packet of the attempt.
fn terminal(evidence: &Evidence) -> Option<Finding> {
    let mut candidates: Vec<(Subject, usize, &Space, &Observation)> = Vec::new();
    for (place, space) in evidence.spaces.iter().enumerate() {
        let ended = space.observations.iter().filter(|observation| observation.end().is_some());
        candidates.extend(ended.map(|observation| (observation.subject, place, space, observation)));
    }
    // A question that was dropped and asked again, or an answer that came twice, is no culprit.
    let resolved = !evidence.neighbour.as_ref().is_some_and(|neighbour| neighbour.failed);
    candidates.retain(|(subject, ..)| {
        !(resolved && matches!(subject, Subject::NeighbourQuestion | Subject::NeighbourAnswer))
    });
    candidates.sort_by_key(|(subject, place, ..)| (*subject, *place));
    let (subject, _, space, observation) = candidates.into_iter().next()?;
    let (index, step) = observation.end()?;
    let rejects = step.rule.as_ref().is_some_and(|rule| rule.text.rejects);
    let action = match step.event.verdict? {
        TraceVerdict::Queue(_) => Action::Queue,
        TraceVerdict::Stolen => Action::Steal,
        _ if rejects => Action::Reject,
        _ => Action::Drop,
    };
    let culprit = place::culprit(space, observation, index, action)?;
    let is_policy = step.event.kind == TraceKind::Policy;
    let done = match action {
        Action::Reject => "rejected",
        Action::Queue => "handed to a program that does not answer",
        Action::Steal => "taken by a rule",
        _ if is_policy => "dropped by the policy of a chain",
        _ => "dropped",
    };
    let sentence = format!("{} is {done}{}", subject.words(evidence.protocol), in_namespace(evidence, space));
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// Returns in which of several namespaces something happened.
fn in_namespace(evidence: &Evidence, space: &Space) -> String {
    match evidence.spaces.len() {
        0 | 1 => String::new(),
        _ => format!(" in the {}'s namespace", space.name),
    }
}

/// Says how many packets were seen where.
fn kernel_note(evidence: &Evidence) -> String {
    let Some(first) = evidence.spaces.first() else { return String::new() };
    let noun = Subject::Syn.noun(evidence.protocol);
    let sent = first.ways(Subject::Syn).filter(|way| way.came_to("output")).count() as u64;
    let left: Vec<_> = first.at_devices(Subject::Syn, true).collect();
    let dropped = first.ways(Subject::Syn).filter(|way| way.end().is_some()).count() as u64;
    if left.is_empty() {
        return match (sent, dropped) {
            (0, _) => String::new(),
            (_, 0) => format!("{} made, none left", count(sent, noun)),
            (1, _) => format!("1 of 1 {noun} stopped before it left"),
            _ => format!("{dropped} of {} stopped before they left", count(sent, noun)),
        };
    }
    let interface = left.first().map(|seen| seen.interface.as_str()).unwrap_or_default();
    let back = [Subject::SynAck, Subject::Reset, Subject::Icmp]
        .into_iter()
        .filter_map(|subject| match first.at_devices(subject, false).count() {
            0 => None,
            number => Some(count(number as u64, subject.noun(evidence.protocol))),
        })
        .collect::<Vec<_>>();
    let back = if back.is_empty() { "nothing".to_owned() } else { back.join(", ") };
    format!("{} left {interface}, {back} came back", count(left.len() as u64, noun))
}

#[cfg(test)]
mod tests;
