//! The fate of a connection by the places where its packets were seen, where nothing ended them.
use super::{
    super::{
        decide::{legacy, position::one_of, refusal_culprit},
        evidence::Programs,
        finding::{Action, Certainty, Culprit, CulpritKind},
        packet::Subject,
    },
    ClientConnection, ClientEvidence, ClientOutcome,
    fate::{ANSWERS, Fate, SYNS, reverse_path},
    listener::{full, nothing_listens},
};
use crate::{host::policy_route::Refusal, kernel::HANDSHAKE_RATE};

/// The source of what positions leave.
const POSITIONS: &str = "positions (own chains, tap)";

/// Returns what positions, counters and sockets leave, or that nothing is known.
pub(super) fn infer(evidence: &ClientEvidence, connection: &ClientConnection) -> Fate {
    let stopped = |subject, done, mut culprit: Culprit| {
        culprit.evidence.push(POSITIONS.to_owned());
        Fate::stopped(evidence, connection, subject, done, culprit)
    };
    let (trace, syn) = (&evidence.space.trace, &connection.syn);
    let traced = trace.used && !trace.lost;
    if traced && syn.hooks.is_empty() && connection.traceable && connection.syns > 0 {
        return stopped(Subject::Syn, "dropped", at_ingress(evidence, connection));
    }
    if traced && syn.came_to("prerouting") && !syn.came_to("input") && !syn.came_to("forward") {
        return stopped(Subject::Syn, "dropped", in_routing(evidence, connection));
    }
    if let Some(fate) = unroutable(evidence, connection).or_else(|| unresolved(connection)) {
        return fate;
    }
    if let Some(culprit) = on_the_way_out(evidence, connection) {
        return stopped(Subject::SynAck, "dropped", culprit);
    }
    if let Some(culprit) = by_counters(evidence, connection) {
        return stopped(Subject::Syn, legacy::done(&culprit), culprit);
    }
    if syn.came_to("forward") {
        return Fate::new(ClientOutcome::Unknown, SYNS, "are lost on their way through this host");
    }
    let here = syn.came_to("input") || connection.is_local != Some(false);
    if here && evidence.takers(connection.server.ip(), connection.interface_index).next().is_none() {
        return stopped(Subject::Syn, "dropped", nothing_listens(evidence, connection));
    }
    let programs = evidence.socket_programs.ingress.clone();
    if syn.came_to("input") && !programs.is_empty() && !evidence.reports_drops() && evidence.overflows == 0 {
        return stopped(Subject::Syn, "dropped", one_of(CulpritKind::CgroupProgram, programs));
    }
    full(evidence, connection).unwrap_or_else(|| {
        let after = match (trace.used, connection.traceable) {
            (true, false) => {
                format!(
                    "come in, and no answer is made; the trace's {HANDSHAKE_RATE} SYNs a second left them out"
                )
            }
            _ if syn.came_to("input") => "come to the input hook, and no answer is made".to_owned(),
            _ => "come in, and no answer is made".to_owned(),
        };
        Fate::new(ClientOutcome::Unknown, SYNS, after)
    })
}

/// Returns the rule of iptables-legacy that counters leave, where no drop event would have told of it.
pub(super) fn by_counters(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Culprit> {
    let v4 = connection.server.is_ipv4();
    let suspects = Some(evidence.suspects(v4)).filter(|_| !evidence.reports_drops())?;
    let culprit = legacy::culprit(v4, &evidence.space.name, suspects)?;
    Some(Culprit { evidence: vec![counted()], ..culprit })
}

/// Returns the name of counters as a source.
pub(super) fn counted() -> String {
    "counters of iptables-legacy".to_owned()
}

/// The device saw a SYN that no chain saw.
fn at_ingress(evidence: &ClientEvidence, connection: &ClientConnection) -> Culprit {
    let interface = &connection.interface;
    let Programs { ingress, .. } = evidence.programs_at(interface);
    let candidates = match ingress.is_empty() {
        false => ingress.iter().map(|program| format!("{program} on {interface}")).collect(),
        true => vec![format!("a program at the ingress of {interface} that the kernel did not list")],
    };
    let mut culprit = one_of(CulpritKind::TcProgram, candidates);
    culprit.remedy = Some(format!("tc filter show dev {interface} ingress"));
    culprit
}

/// A SYN came to prerouting, and routing gave it to nobody.
fn in_routing(evidence: &ClientEvidence, connection: &ClientConnection) -> Culprit {
    let interface = &connection.interface;
    let filtered = evidence.space.reverse_path_drops > 0
        && connection.client.is_ipv4()
        && connection.way_back.as_ref() != Some(interface);
    if filtered {
        return reverse_path(evidence, connection).culprit(interface);
    }
    if connection.is_local == Some(false) {
        return not_local(connection);
    }
    // The kernel takes nothing from an address that it may send nothing to (fib_validate_source).
    let refusal = connection.refused.as_ref().and_then(|refused| refused.by.as_ref());
    if let Some(refusal) = refusal.filter(|refusal| **refusal != Refusal::NoEntry) {
        let mut culprit = refusal_culprit(refusal, connection.client.ip());
        culprit.action = Action::Drop;
        culprit.certainty = Certainty::Inferred;
        culprit.evidence = vec!["route look-up".to_owned()];
        return culprit;
    }
    let place = format!("routing of what comes in by {interface}: the kernel delivers it to no socket");
    Culprit::new(Action::Drop, CulpritKind::Other, Certainty::Inferred, place)
}

/// The end is no address of this host.
pub(super) fn not_local(connection: &ClientConnection) -> Culprit {
    let (setting, v) = match connection.server.is_ipv4() {
        true => ("net.ipv4.ip_forward", "-4"),
        false => ("net.ipv6.conf.all.forwarding", "-6"),
    };
    let address = connection.server.ip();
    let place =
        format!("the kernel: {address} is no address of this host, and forwarding is off ({setting})");
    let mut culprit = Culprit::new(Action::Drop, CulpritKind::Route, Certainty::Inferred, place);
    culprit.evidence = vec!["route look-up".to_owned()];
    culprit.remedy = Some(format!("ip {v} address show to {address}"));
    culprit
}

/// The kernel has no route for answers, and so makes none.
fn unroutable(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Fate> {
    let refused = connection.refused.as_ref()?;
    if !connection.syn.came_to("input") || !connection.answer.hooks.is_empty() {
        return None;
    }
    let mut culprit = match &refused.by {
        Some(refusal) => refusal_culprit(refusal, connection.client.ip()),
        None => {
            let place = format!("the routing policy for answers ({:?})", refused.errno);
            Culprit::new(Action::NoPacket, CulpritKind::PolicyRule, Certainty::Proven, place)
        }
    };
    culprit.certainty = Certainty::Inferred;
    culprit.evidence = vec!["route look-up".to_owned(), POSITIONS.to_owned()];
    Some(Fate::stopped(evidence, connection, Subject::SynAck, "not made: they have no route", culprit))
}

/// The next hop of answers does not tell its link address.
fn unresolved(connection: &ClientConnection) -> Option<Fate> {
    let hop = connection.silent_neighbour.filter(|_| connection.answer.came_to("postrouting"))?;
    let protocol = if hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let by = connection.way_back.as_ref().map(|by| format!(" on {by}")).unwrap_or_default();
    let after =
        format!("do not leave: {hop} does not answer {protocol}{by}, or a rule here drops its answer");
    Some(Fate::new(ClientOutcome::Unknown, ANSWERS, after))
}

/// A SYN-ACK was made and did not leave.
fn on_the_way_out(evidence: &ClientEvidence, connection: &ClientConnection) -> Option<Culprit> {
    let answer = &connection.answer;
    if !evidence.space.trace.used || evidence.space.trace.lost {
        return None;
    }
    if answer.came_to("postrouting") {
        let interface = connection.way_back.as_ref().unwrap_or(&connection.interface);
        let Programs { egress, cgroup_egress, .. } = evidence.programs_at(interface);
        let mut candidates: Vec<String> =
            egress.iter().map(|program| format!("{program} on {interface}")).collect();
        candidates.extend(cgroup_egress.iter().cloned());
        let kind = match (egress.is_empty(), cgroup_egress.is_empty()) {
            (false, true) => CulpritKind::TcProgram,
            (true, false) => CulpritKind::CgroupProgram,
            _ => CulpritKind::Other,
        };
        if candidates.is_empty() {
            candidates.push(format!("the queueing discipline of {interface}"));
            candidates.push("the neighbour, which does not answer".to_owned());
            candidates.push("a program that the kernel did not list".to_owned());
        }
        let mut culprit = one_of(kind, candidates);
        culprit.remedy = Some(format!("tc filter show dev {interface} egress"));
        return Some(culprit);
    }
    if !answer.came_to("output") {
        return None;
    }
    if let Some(culprit) = by_counters(evidence, connection) {
        return Some(culprit);
    }
    let candidates = vec!["a netfilter program".to_owned(), "a route for its mark".to_owned()];
    Some(one_of(CulpritKind::Other, candidates))
}
