//! The decision by positions, where no rule decided: the attempt's packets at netkat's own chains and at the devices.
use super::{
    super::{
        evidence::{Evidence, Outcome, Programs, Space},
        finding::{Action, Certainty, Culprit, CulpritKind, Finding, Word},
        packet::{PacketHeader, PacketKind, Subject},
    },
    dropped, finding, in_namespace, legacy, place, refusal_culprit,
};
use crate::net::{Protocol, count};

/// Returns what positions, counters and look-ups leave as the culprit.
pub(super) fn infer(evidence: &Evidence) -> Option<Finding> {
    evidence.spaces.iter().find_map(|space| {
        legacy::infer(evidence, space)
            .or_else(|| refused_mark(evidence, space))
            .or_else(|| nothing_listens(evidence, space))
            .or_else(|| dropped::infer(evidence, space))
            .or_else(|| lost_on_the_way_out(evidence, space))
            .or_else(|| lost_on_the_way_in(evidence, space))
            .or_else(|| lost_on_the_node(evidence, space))
    })
}

/// The SYN got a mark for which there is no route.
fn refused_mark(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let (mark, refused) = space.refused_mark.as_ref()?;
    let mut culprit = match &refused.by {
        Some(refusal) => refusal_culprit(refusal, evidence),
        None => Culprit::new(
            Action::Drop,
            CulpritKind::PolicyRule,
            Certainty::Proven,
            format!("the routing policy for mark {mark:#x} ({:?})", refused.errno),
        ),
    };
    culprit.action = Action::Drop;
    culprit.namespace = space.name.clone();
    culprit.hook = Some("output".to_owned());
    culprit.evidence = vec!["nft trace".to_owned(), format!("route look-up with mark {mark:#x}")];
    let marked = space.ways(Subject::Syn).find_map(|way| {
        let by =
            way.steps.iter().position(|step| step.rule.as_ref().is_some_and(|r| r.text.mark.is_some()))?;
        place::culprit(space, way, by, Action::Drop)
    });
    culprit.note = marked.map(|rule| format!("reached since {} sets mark {mark:#x}", rule.place));
    let ours = Subject::Syn.words(evidence.protocol);
    let sentence = format!("{ours} is dropped, since its mark leads to no route");
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// Returns a culprit that positions leave: the only candidate, or one of several.
pub(super) fn one_of(kind: CulpritKind, candidates: Vec<String>) -> Culprit {
    let place = match candidates.as_slice() {
        [only] => only.clone(),
        several => format!("one of: {}", several.join(", ")),
    };
    Culprit::new(Action::Drop, kind, Certainty::Inferred, place)
}

/// A packet of a pod came to the node, and did not leave it.
fn lost_on_the_node(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let is_node = evidence.elsewhere && evidence.spaces.last().is_some_and(|last| last.name == space.name);
    let arrived = space.at_devices(Subject::Syn, false).next()?;
    let left = space.at_devices(Subject::Syn, true).next().is_some();
    let forwarded = space.ways(Subject::Syn).any(|way| way.came_to("forward") || way.came_to("input"));
    if !is_node || left || forwarded || evidence.kernel.outcome != Outcome::TimedOut {
        return None;
    }
    let mut candidates = vec!["forwarding is off (net.ipv4.ip_forward)".to_owned(), "no route".to_owned()];
    if space.reverse_path_drops > 0 {
        candidates = vec![format!("rp_filter on {}", arrived.interface)];
    }
    let mut culprit = one_of(CulpritKind::Other, candidates);
    culprit.packet = Some(Subject::Syn);
    culprit.direction = Some("in");
    culprit.interface = Some(arrived.interface.clone());
    culprit.namespace = space.name.clone();
    culprit.evidence = vec!["positions (own chains, tap)".to_owned()];
    let ours = Subject::Syn.words(evidence.protocol);
    let sentence = format!("{ours} is dropped{}", in_namespace(evidence, space));
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// The SYN came to a hook on its way out, and no further.
fn lost_on_the_way_out(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let way = space.ways(Subject::Syn).next()?;
    let left = space.at_devices(Subject::Syn, true).next().is_some();
    if left || !space.tap.used || neighbour_failed(evidence) {
        return None;
    }
    let (sentence, mut culprit) = if way.came_to("postrouting") {
        let Programs { egress, cgroup_egress, .. } = &space.programs;
        let mut candidates = egress.clone();
        candidates.extend(cgroup_egress.iter().cloned());
        let kind = match (egress.is_empty(), cgroup_egress.is_empty()) {
            (false, true) => CulpritKind::TcProgram,
            (true, false) => CulpritKind::CgroupProgram,
            _ => CulpritKind::Other,
        };
        if candidates.is_empty() {
            candidates.push(format!("the queueing discipline of {}", evidence.raw.interface));
            candidates.push("a program that the kernel did not list".to_owned());
        }
        let mut culprit = one_of(kind, candidates);
        culprit.remedy = Some(format!("tc filter show dev {} egress", evidence.raw.interface));
        ("dropped on its way out, behind netfilter", culprit)
    } else if way.came_to("output") {
        let candidates = vec!["a netfilter program".to_owned(), "a route for its mark".to_owned()];
        ("lost between output and postrouting", one_of(CulpritKind::Other, candidates))
    } else {
        return None;
    };
    culprit.interface = Some(evidence.raw.interface.clone()).filter(|_| way.came_to("postrouting"));
    culprit.packet = Some(Subject::Syn);
    culprit.direction = Some("out");
    culprit.namespace = space.name.clone();
    culprit.evidence = vec!["positions (own chains, tap)".to_owned()];
    let ours = Subject::Syn.words(evidence.protocol);
    let sentence = format!("{ours} is {sentence}{}", in_namespace(evidence, space));
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// An answer came in at a device, and did not come to the socket.
fn lost_on_the_way_in(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let (subject, arrived) = [Subject::SynAck, Subject::Reset, Subject::Icmp]
        .into_iter()
        .find_map(|subject| space.at_devices(subject, false).next().map(|seen| (subject, seen)))?;
    let timed_out = evidence.kernel.outcome == Outcome::TimedOut;
    if !timed_out || !space.trace.used {
        return None;
    }
    let came_to = |hook| space.ways(subject).any(|way| way.came_to(hook));
    let interface = &arrived.interface;
    let mut culprit = if !came_to("prerouting") {
        let mut candidates = space.programs.ingress.clone();
        if candidates.is_empty() {
            candidates.push(format!("a program at the ingress of {interface} that the kernel did not list"));
        }
        let mut culprit = one_of(CulpritKind::TcProgram, candidates);
        culprit.remedy = Some(format!("tc filter show dev {interface} ingress"));
        culprit
    } else if came_to("input") || came_to("forward") {
        return None;
    } else if space.reverse_path_drops > 0 {
        reverse_path_filter(evidence, space, interface)
    } else {
        let place = format!("routing of what comes in by {interface}: the kernel delivers it to no socket");
        Culprit::new(Action::Drop, CulpritKind::Other, Certainty::Inferred, place)
    };
    culprit.packet = Some(subject);
    culprit.direction = Some("in");
    culprit.interface = Some(interface.clone());
    culprit.namespace = space.name.clone();
    culprit.evidence.push("positions (own chains, tap)".to_owned());
    let sentence =
        format!("{} is dropped{}", subject.words(evidence.protocol), in_namespace(evidence, space));
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

pub(super) fn reverse_path_filter(evidence: &Evidence, space: &Space, interface: &str) -> Culprit {
    let strict = space.strict.iter().any(|name| name == interface);
    let mode = if strict { "strict" } else { "loose" };
    let leads =
        space.way_back.as_ref().map(|by| format!(", the way to {} leads by {by}", evidence.asked.ip()));
    let place = format!(
        "rp_filter ({mode}) on {interface}: the answer came in by {interface}{}",
        leads.unwrap_or_default()
    );
    let mut culprit = Culprit::new(Action::Drop, CulpritKind::ReversePathFilter, Certainty::Inferred, place);
    culprit.evidence = vec![format!("counter IPReversePathFilter +{}", space.reverse_path_drops)];
    culprit.remedy = Some(format!("sysctl net.ipv4.conf.{interface}.rp_filter=2"));
    culprit
}

/// A refusal of this host itself: its own address has no listener.
fn nothing_listens(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let local = evidence.kernel.local.is_some_and(|local| local.ip() == evidence.asked.ip());
    let (refusal, refused) = match (evidence.protocol, &evidence.kernel.outcome) {
        (Protocol::Tcp, outcome) => (Subject::Reset, *outcome == Outcome::Refused),
        (Protocol::Udp, outcome) => (Subject::Icmp, outcome.is_port_unreachable_by(evidence.asked.ip())),
    };
    if !(local && refused && space.at_devices(refusal, false).next().is_some()) {
        return None;
    }
    let place = format!("the kernel: nothing listens on {}", evidence.asked);
    let mut culprit = Culprit::new(Action::Refuse, CulpritKind::Listener, Certainty::Proven, place);
    culprit.packet = Some(Subject::Syn);
    culprit.evidence = vec!["tap".to_owned()];
    culprit.remedy = Some(list_listeners(evidence));
    Some(finding(Word::ThisHost, "nothing listens there", vec![culprit]))
}

/// Returns the command that lists the listeners of the port.
pub(super) fn list_listeners(evidence: &Evidence) -> String {
    let protocol = if evidence.protocol == Protocol::Tcp { "t" } else { "u" };
    format!("ss -l{protocol}n 'sport = :{}'", evidence.asked.port())
}

fn neighbour_failed(evidence: &Evidence) -> bool {
    evidence.neighbour.as_ref().is_some_and(|neighbour| neighbour.failed)
}

/// Returns that the packets left this host and failed beyond it, if that was seen.
pub(super) fn not_here(evidence: &Evidence) -> Option<Finding> {
    let last = evidence.spaces.last()?;
    let left: Vec<_> = last.at_devices(Subject::Syn, true).collect();
    if let Some(neighbour) = evidence.neighbour.as_ref().filter(|neighbour| neighbour.failed)
        && left.is_empty()
    {
        let protocol = if neighbour.address.is_ipv4() { "ARP" } else { "neighbour discovery" };
        let sentence = format!("{} does not answer {protocol} on {}", neighbour.address, neighbour.interface);
        return Some(finding(Word::NotHere, sentence, Vec::new()));
    }
    let first = left.first()?;
    let connected = evidence.raw.outcome == Outcome::Connected;
    if connected {
        return None;
    }
    let came = |subject| last.at_devices(subject, false).next();
    let sentence = match &evidence.kernel.outcome {
        Outcome::Refused => {
            let reset = came(Subject::Reset)?;
            format!("{} itself refused (RST)", reset.header.source.ip())
        }
        Outcome::Rejected { error, .. } => {
            let report = came(Subject::Icmp)?;
            matches!(report.header.kind, PacketKind::Icmp { .. }).then_some(())?;
            format!("{} rejected it ({error})", report.header.source.ip())
        }
        Outcome::TimedOut => {
            // Answers that came in and were not seen to be dropped are no silence of others.
            if came(Subject::SynAck).is_some() {
                return None;
            }
            let sent = count(left.len() as u64, Subject::Syn.noun(evidence.protocol));
            let xdp = match last.programs.xdp.as_slice() {
                [] => String::new(),
                programs => {
                    format!("; or {} dropped the answer, which no tap sees before", programs.join(" or "))
                }
            };
            format!("{sent} left {} unchanged, and nothing came back{xdp}", first.interface)
        }
        _ => return None,
    };
    Some(finding(Word::NotHere, sentence, Vec::new()))
}

/// Over UDP, a server with several addresses may answer from another one than was asked, which a connected socket
/// takes for another peer's.
pub(super) fn answered_from_elsewhere(evidence: &Evidence) -> Option<Finding> {
    let space = evidence.spaces.first().filter(|_| evidence.protocol == Protocol::Udp)?;
    let asked = space.translated_to(evidence.asked).unwrap_or(evidence.asked);
    let from = |header: &PacketHeader| (header.source.ip(), header.source.port());
    let elsewhere = space.at_devices(Subject::SynAck, false).find(|seen| {
        from(&seen.header) != (asked.ip(), asked.port())
            && from(&seen.header) != (evidence.asked.ip(), evidence.asked.port())
    })?;
    (evidence.kernel.outcome == Outcome::TimedOut).then_some(())?;
    let sentence =
        format!("the answer comes from {}, not from the address that was asked", elsewhere.header.source);
    Some(finding(Word::NotHere, sentence, Vec::new()))
}

/// Says what is known where nothing explains the failure.
pub(super) fn unknown(evidence: &Evidence) -> String {
    let left =
        evidence.spaces.last().is_some_and(|space| space.at_devices(Subject::Syn, true).next().is_some());
    let noun = Subject::Syn.noun(evidence.protocol);
    let (connects, does_not_connect, not) = match evidence.protocol {
        Protocol::Tcp => ("connects", "the kernel does not connect", "does not"),
        Protocol::Udp => ("is answered", "the kernel is not answered", "is not"),
    };
    match (&evidence.raw.outcome, left) {
        (Outcome::Connected, true) => {
            format!("the kernel's {noun} left this host, but only netkat's was answered")
        }
        (Outcome::Connected, false) => {
            format!("netkat {connects}, the kernel {not}, and nothing was seen to stop it")
        }
        _ => format!("{does_not_connect}, and nothing was seen to stop it"),
    }
}
