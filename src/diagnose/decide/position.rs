//! The decision by positions, where no rule decided: the attempt's packets at netkat's own chains and at the devices.
use super::{
    super::{
        evidence::{Evidence, Outcome, Programs, Space},
        finding::{Action, Certainty, Culprit, CulpritKind, Finding, Word},
        packet::{PacketKind, Subject},
    },
    dropped, finding, in_namespace, legacy, place, refusal_culprit, subject_words,
};
use crate::net::count;
use std::net::IpAddr;

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
        Some(refusal) => refusal_culprit(refusal, evidence.asked.ip()),
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
    let sentence = "our SYN is dropped, since its mark leads to no route";
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// Returns a culprit that positions leave: the only candidate, or one of several.
pub(in crate::diagnose) fn one_of(kind: CulpritKind, candidates: Vec<String>) -> Culprit {
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
    let sentence = format!("our SYN is dropped{}", in_namespace(evidence, space));
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
    let sentence = format!("our SYN is {sentence}{}", in_namespace(evidence, space));
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
        ReversePath::of_answer(evidence, space).culprit(interface)
    } else {
        let place = format!("routing of what comes in by {interface}: the kernel delivers it to no socket");
        Culprit::new(Action::Drop, CulpritKind::Other, Certainty::Inferred, place)
    };
    culprit.packet = Some(subject);
    culprit.direction = Some("in");
    culprit.interface = Some(interface.clone());
    culprit.namespace = space.name.clone();
    culprit.evidence.push("positions (own chains, tap)".to_owned());
    let sentence = format!("{} is dropped{}", subject_words(subject), in_namespace(evidence, space));
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// A packet that came in by another interface than the way back leads by.
#[derive(Clone, Copy, Debug)]
pub(in crate::diagnose) struct ReversePath<'a> {
    /// The packet in words: "the answer".
    pub packet: &'a str,
    pub sender: IpAddr,
    /// The interfaces with a strict filter.
    pub strict: &'a [String],
    /// The interface of the way back.
    pub way_back: Option<&'a str>,
    /// Increase of TcpExt.IPReversePathFilter, in packets.
    pub drops: u64,
}

impl<'a> ReversePath<'a> {
    pub(super) fn of_answer(evidence: &Evidence, space: &'a Space) -> ReversePath<'a> {
        ReversePath {
            packet: "the answer",
            sender: evidence.asked.ip(),
            strict: &space.strict,
            way_back: space.way_back.as_deref(),
            drops: space.reverse_path_drops,
        }
    }

    /// Returns the filter of the interface that the packet came in by as the culprit.
    pub(in crate::diagnose) fn culprit(&self, interface: &str) -> Culprit {
        let mode = if self.strict.iter().any(|name| name == interface) { "strict" } else { "loose" };
        let leads = self.way_back.map(|by| format!(", the way to {} leads by {by}", self.sender));
        let place = format!(
            "rp_filter ({mode}) on {interface}: {} came in by {interface}{}",
            self.packet,
            leads.unwrap_or_default()
        );
        let kind = CulpritKind::ReversePathFilter;
        let mut culprit = Culprit::new(Action::Drop, kind, Certainty::Inferred, place);
        culprit.evidence = vec![format!("counter IPReversePathFilter +{}", self.drops)];
        culprit.remedy = Some(format!("sysctl net.ipv4.conf.{interface}.rp_filter=2"));
        culprit
    }
}

/// A reset of this host itself: its own address has no listener.
fn nothing_listens(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let local = evidence.kernel.local.is_some_and(|local| local.ip() == evidence.asked.ip());
    let reset = space.at_devices(Subject::Reset, false).next().is_some();
    if !(local && reset && evidence.kernel.outcome == Outcome::Refused) {
        return None;
    }
    let place = format!("the kernel: nothing listens on {}", evidence.asked);
    let mut culprit = Culprit::new(Action::Refuse, CulpritKind::Listener, Certainty::Proven, place);
    culprit.packet = Some(Subject::Syn);
    culprit.evidence = vec!["tap".to_owned()];
    culprit.remedy = Some(format!("ss -ltn 'sport = :{}'", evidence.asked.port()));
    Some(finding(Word::ThisHost, "nothing listens there", vec![culprit]))
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
            let syns = count(left.len() as u64, "SYN");
            let xdp = match last.programs.xdp.as_slice() {
                [] => String::new(),
                programs => {
                    format!("; or {} dropped the answer, which no tap sees before", programs.join(" or "))
                }
            };
            format!("{syns} left {} unchanged, and nothing came back{xdp}", first.interface)
        }
        _ => return None,
    };
    Some(finding(Word::NotHere, sentence, Vec::new()))
}

/// Says what is known where nothing explains the failure.
pub(super) fn unknown(evidence: &Evidence) -> String {
    let left =
        evidence.spaces.last().is_some_and(|space| space.at_devices(Subject::Syn, true).next().is_some());
    match (&evidence.raw.outcome, left) {
        (Outcome::Connected, true) => {
            "the kernel's SYN left this host, but only netkat's was answered".to_owned()
        }
        (Outcome::Connected, false) => {
            "netkat connects, the kernel does not, and nothing was seen to stop it".to_owned()
        }
        _ => "the kernel does not connect, and nothing was seen to stop it".to_owned(),
    }
}
