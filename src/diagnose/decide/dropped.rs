//! The decision by drop events, where no rule of nf_tables decided.
use super::{
    super::{
        drop_event::{self, DropEvent},
        evidence::{Evidence, Space},
        finding::{Action, Certainty, Culprit, CulpritKind, Finding, Word},
        packet::Subject,
    },
    finding, in_namespace,
    position::{list_listeners, one_of, reverse_path_filter},
};

/// Returns what the kernel says to have dropped a packet of the attempt.
pub(super) fn infer(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let event = space.drops.iter().filter(|event| event.is_a_loss()).min_by_key(|event| event.subject)?;
    let outgoing =
        event.subject == Subject::Syn && evidence.spaces.first().is_some_and(|s| s.name == space.name);
    let mut culprit = culprit(evidence, space, event);
    culprit.packet = Some(event.subject);
    culprit.direction = Some(if outgoing { "out" } else { "in" });
    culprit.namespace = space.name.clone();
    culprit.interface = event.interface.clone();
    culprit.evidence.insert(0, event.source());
    let by_program = matches!(culprit.kind, CulpritKind::TcProgram | CulpritKind::CgroupProgram);
    let way = match (outgoing, by_program) {
        (true, true) => " on its way out by a program",
        (true, false) if culprit.kind == CulpritKind::Qdisc => " on its way out",
        _ => "",
    };
    let sentence = format!(
        "{} is dropped{way}{}",
        event.subject.words(evidence.protocol),
        in_namespace(evidence, space)
    );
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// Returns who is to blame for a drop.
fn culprit(evidence: &Evidence, space: &Space, event: &DropEvent) -> Culprit {
    let interface = event.interface.as_deref().unwrap_or("the device");
    let on = |programs: &[String]| programs.iter().map(|p| format!("{p} on {interface}")).collect::<Vec<_>>();
    let programs = &space.programs;
    let has = |parts: &[&str]| parts.iter().any(|part| event.symbol.contains(part));
    match event.known_reason() {
        Some("NETFILTER_DROP") => untraced_hook(),
        Some("TC_EGRESS") => with_remedy(
            blamed(
                CulpritKind::TcProgram,
                on(&programs.egress),
                format!("a filter of tc at the egress of {interface}"),
            ),
            format!("tc filter show dev {interface} egress"),
        ),
        Some("TC_INGRESS") => with_remedy(
            blamed(
                CulpritKind::TcProgram,
                on(&programs.ingress),
                format!("a filter of tc at the ingress of {interface}"),
            ),
            format!("tc filter show dev {interface} ingress"),
        ),
        Some("BPF_CGROUP_EGRESS") => blamed(
            CulpritKind::CgroupProgram,
            programs.cgroup_egress.clone(),
            "a cgroup_skb egress program".to_owned(),
        ),
        // The socket's control group is the attempt's.
        Some("SOCKET_FILTER") if !programs.cgroup_ingress.is_empty() => {
            blamed(CulpritKind::CgroupProgram, programs.cgroup_ingress.clone(), String::new())
        }
        Some("BPF_CGROUP_INGRESS") => blamed(
            CulpritKind::CgroupProgram,
            programs.cgroup_ingress.clone(),
            "a cgroup_skb ingress program".to_owned(),
        ),
        Some("XDP") => xdp(space, interface),
        Some("QDISC_DROP" | "QDISC_OVERLIMIT" | "QDISC_CONGESTED" | "QDISC_BURST_DROP") => with_remedy(
            proven(CulpritKind::Qdisc, format!("the queueing discipline of {interface}")),
            format!("tc -s qdisc show dev {interface}"),
        ),
        Some("IP_RPFILTER") => {
            let mut culprit = reverse_path_filter(evidence, space, interface);
            culprit.certainty = Certainty::Proven;
            culprit.evidence.retain(|source| space.reverse_path_drops > 0 || !source.starts_with("counter"));
            culprit
        }
        Some("NO_SOCKET") => with_remedy(
            proven(CulpritKind::Listener, format!("the kernel: nothing listens on {}", evidence.asked)),
            list_listeners(evidence),
        ),
        None if has(&["xdp"]) => xdp(space, interface),
        None if has(&["tc_", "tcf_", "cls", "handle_egress"]) => {
            let programs = if event.subject == Subject::Syn { &programs.egress } else { &programs.ingress };
            blamed(CulpritKind::TcProgram, on(programs), format!("a filter of tc on {interface}"))
        }
        None => untraced_hook(),
        Some(reason) => {
            let at = match event.symbol.as_str() {
                "" => reason.to_owned(),
                symbol => format!("{reason} at {symbol}"),
            };
            let place = match drop_event::words(reason) {
                Some(words) => format!("the kernel: {words} ({at})"),
                None => format!("the kernel: {at}"),
            };
            let culprit = proven(CulpritKind::Other, place);
            match reason {
                "XFRM_POLICY" => with_remedy(culprit, "ip xfrm policy".to_owned()),
                _ => culprit,
            }
        }
    }
}

/// A hook of netfilter dropped the packet, and no rule of nf_tables did.
fn untraced_hook() -> Culprit {
    let place = "a netfilter hook that nf_tables does not trace: a program (BPF), or a module";
    Culprit::new(Action::Drop, CulpritKind::NetfilterProgram, Certainty::Inferred, place.to_owned())
}

fn xdp(space: &Space, interface: &str) -> Culprit {
    let programs: Vec<_> =
        space.programs.xdp.iter().map(|program| format!("{program} on {interface}")).collect();
    let unlisted = format!("an XDP program on {interface} that the kernel did not list");
    with_remedy(
        blamed(CulpritKind::XdpProgram, programs, unlisted),
        format!("ip -d link show dev {interface}"),
    )
}

/// Returns the only candidate as proven, several as "one of". Without any, `unlisted` is all that is known.
fn blamed(kind: CulpritKind, candidates: Vec<String>, unlisted: String) -> Culprit {
    match candidates.as_slice() {
        [] => Culprit::new(Action::Drop, kind, Certainty::Inferred, unlisted),
        [only] => proven(kind, only.clone()),
        _ => one_of(kind, candidates),
    }
}

fn proven(kind: CulpritKind, place: String) -> Culprit {
    Culprit::new(Action::Drop, kind, Certainty::Proven, place)
}

fn with_remedy(culprit: Culprit, remedy: String) -> Culprit {
    Culprit { remedy: Some(remedy), ..culprit }
}

/// Adds the drop event of a culprit's packet to its evidence. Without one, a rule that dropped the packet is not
/// proven, if events would have come.
pub(super) fn corroborate(evidence: &Evidence, culprit: &mut Culprit) {
    let Some(space) = evidence.spaces.iter().find(|space| space.name == culprit.namespace) else { return };
    if !space.drop_events.used {
        return;
    }
    let by_rule = matches!(culprit.kind, CulpritKind::NftRule | CulpritKind::NftPolicy);
    let ended = by_rule && matches!(culprit.action, Action::Drop | Action::Reject);
    let of_packet = |event: &&DropEvent| culprit.packet == Some(event.subject);
    let fits = |event: &&DropEvent| if by_rule { event.is_by_netfilter() } else { event.is_a_loss() };
    match space.drops.iter().filter(of_packet).find(fits) {
        Some(event) => {
            let source = event.source();
            if !culprit.evidence.contains(&source) {
                culprit.evidence.push(source);
            }
        }
        // Neighbours' packets are no events' subject.
        None if ended
            && !space.drop_events.lost
            && !matches!(culprit.packet, Some(Subject::NeighbourQuestion | Subject::NeighbourAnswer)) =>
        {
            culprit.certainty = Certainty::Inferred;
        }
        None => {}
    }
}
