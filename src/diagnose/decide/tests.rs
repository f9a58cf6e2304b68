//! Each row of the decision by its evidence.
use super::*;
use crate::{
    diagnose::{
        drop_event::DropEvent,
        evidence::{KernelPath, NeighbourState, Programs, RawPath, Refused, Seen, SourceState},
        observation::{Ends, RuleFacts, Step, join, tests::step},
        packet::PacketHeader,
        packet::tests::tcp,
        rule_text::{RuleText, Translation},
    },
    kernel::AttemptOutcome,
    net::Protocol,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Network and transport header.
type Packet = (Vec<u8>, Vec<u8>);

const LOCAL: &str = "10.0.0.1:5000";
const ASKED: &str = "10.0.0.2:80";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn syn() -> Packet {
    tcp(LOCAL, ASKED, 2, 7, 0)
}

fn syn_ack() -> Packet {
    tcp(ASKED, LOCAL, 0x12, 90, 8)
}

/// Evidence of an attempt without an answer, and of netkat's that connected.
fn silent(space: Space) -> Evidence {
    Evidence {
        protocol: Protocol::Tcp,
        asked: at(ASKED),
        kernel: KernelPath {
            outcome: Outcome::TimedOut,
            reported: None,
            time: Duration::from_secs(3),
            local: Some(at(LOCAL)),
        },
        raw: raw(Outcome::Connected),
        spaces: vec![space],
        refused: None,
        neighbour: None,
        user: 0,
        cgroup: None,
        connect_programs: Vec::new(),
        elsewhere: false,
    }
}

fn raw(outcome: Outcome) -> RawPath {
    RawPath {
        outcome,
        error: None,
        time: Duration::from_millis(1),
        local: Some(at(LOCAL)),
        next_hop: "10.0.0.2".to_owned(),
        interface: "eth0".to_owned(),
        other_port: None,
        past_egress: None,
    }
}

fn reported(evidence: &mut Evidence, outcome: Outcome, errno: Option<Errno>) {
    evidence.kernel.outcome = outcome;
    let errno = errno.map(|errno| errno as i32);
    evidence.kernel.reported = Some(AttemptOutcome { errno, ..AttemptOutcome::default() });
}

/// A namespace with a trace of these steps and these packets at eth0: bytes, and whether they go out.
fn space(steps: Vec<Step>, seen: &[(Packet, bool)]) -> Space {
    let mut ends = Ends { protocol: Protocol::Tcp, local: vec![at(LOCAL)], sequence: Some(7) };
    let seen = seen.iter().map(|((network, transport), outgoing)| {
        let header = PacketHeader::of_parts(network, transport).expect("a packet");
        let subject = ends.subject(&header).expect("the attempt's");
        Seen { subject, header, outgoing: *outgoing, interface: "eth0".to_owned() }
    });
    let used = SourceState { used: true, ..SourceState::default() };
    Space {
        name: "here".to_owned(),
        seen: seen.collect(),
        observations: join(steps, &mut ends),
        trace: used.clone(),
        tap: used,
        ..Space::default()
    }
}

fn with_rule(mut step: Step, text: RuleText) -> Step {
    step.rule = Some(Arc::new(RuleFacts { text, position: Some((1, 2)) }));
    step
}

fn own(packet: Packet, chain: &str) -> Step {
    step(packet, 1, true, chain, TraceVerdict::Continue)
}

fn drop_rule(packet: Packet, chain: &str) -> Step {
    with_rule(step(packet, 1, false, chain, TraceVerdict::Drop), RuleText::default())
}

fn told(evidence: &Evidence) -> String {
    let found = decide(evidence);
    let culprits = found.culprits.iter().map(|c| {
        let certainty = format!("{:?}", c.certainty).to_lowercase();
        format!("{certainty}: {}", c.place)
    });
    let culprits: Vec<_> = culprits.collect();
    format!("{}: {} [{}] {}", found.word.text(), found.sentence, culprits.join(" | "), found.kernel_note)
}

#[test]
fn a_rule_that_ended_the_syn_is_proven() {
    let steps = vec![own(syn(), "output"), drop_rule(syn(), "OUTPUT")];
    assert_eq!(
        told(&silent(space(steps, &[]))),
        "this host: our SYN is dropped [proven: iptables (nft), table filter, chain OUTPUT, rule 1 of 2 \
         (ip filter OUTPUT, handle 3)] 1 of 1 SYN stopped before it left"
    );
}

#[test]
fn lost_events_make_it_inferred() {
    let mut here = space(vec![own(syn(), "output"), drop_rule(syn(), "OUTPUT")], &[]);
    here.trace.lost = true;
    assert!(told(&silent(here)).contains("[inferred: iptables"));
}

#[test]
fn the_syn_comes_before_the_answer_and_neither_counts_for_a_connection() {
    let steps = vec![
        own(syn(), "output"),
        step(syn_ack(), 2, true, "prerouting", TraceVerdict::Continue),
        with_rule(step(syn_ack(), 2, false, "INPUT", TraceVerdict::Drop), RuleText::default()),
    ];
    let mut evidence = silent(space(steps, &[(syn(), true), (syn_ack(), false)]));
    let text = told(&evidence);
    assert!(text.starts_with("this host: the answer (SYN-ACK) is dropped [proven"), "{text}");
    assert!(text.ends_with("1 SYN left eth0, 1 SYN-ACK came back"), "{text}");
    // A lost duplicate is no culprit.
    reported(&mut evidence, Outcome::Connected, None);
    assert!(told(&evidence).starts_with("same: nothing on this host stands between it and 10.0.0.2:80"));
}

#[test]
fn a_rejection_a_queue_and_a_policy_have_their_own_words() {
    let reject = RuleText { rejects: true, ..RuleText::default() };
    let steps =
        vec![own(syn(), "output"), with_rule(step(syn(), 1, false, "OUTPUT", TraceVerdict::Drop), reject)];
    assert!(told(&silent(space(steps, &[]))).starts_with("this host: our SYN is rejected"));

    let queue = step(syn(), 1, false, "OUTPUT", TraceVerdict::Queue(9));
    let steps = vec![own(syn(), "output"), with_rule(queue, RuleText::default())];
    let found = decide(&silent(space(steps, &[])));
    assert_eq!(found.sentence, "our SYN is handed to a program that does not answer");
    assert_eq!(found.culprits[0].note.as_deref(), Some("queue 9 has no listener"));

    let mut policy = step(syn(), 1, false, "OUTPUT", TraceVerdict::Drop);
    policy.event.kind = TraceKind::Policy;
    policy.event.handle = None;
    policy.rule = Some(Arc::new(RuleFacts { position: Some((0, 2)), ..RuleFacts::default() }));
    let text = told(&silent(space(vec![own(syn(), "output"), policy], &[])));
    assert!(text.contains("dropped by the policy of a chain"), "{text}");
    assert!(text.contains("chain OUTPUT: policy drop, none of its 2 rules matched"), "{text}");
}

#[test]
fn a_queue_that_gives_the_packet_back_is_no_culprit() {
    let steps = vec![
        own(syn(), "output"),
        with_rule(step(syn(), 1, false, "OUTPUT", TraceVerdict::Queue(9)), RuleText::default()),
        own(syn(), "postrouting"),
    ];
    let mut evidence = silent(space(steps, &[(syn(), true)]));
    evidence.raw = raw(Outcome::TimedOut);
    assert!(told(&evidence).starts_with("not here: 1 SYN left eth0 unchanged, and nothing came back"));
}

#[test]
fn a_translation_is_captured_and_comes_second_to_a_drop() {
    let dnat = RuleText { translates: Some(Translation::Destination), ..RuleText::default() };
    let moved = || tcp(LOCAL, "10.0.0.3:81", 2, 7, 0);
    let steps = || {
        vec![
            own(syn(), "output"),
            with_rule(step(syn(), 1, false, "OUTPUT", TraceVerdict::Accept), dnat.clone()),
            own(moved(), "postrouting"),
        ]
    };
    let mut evidence = silent(space(steps(), &[(moved(), true)]));
    reported(&mut evidence, Outcome::Connected, None);
    let found = decide(&evidence);
    assert_eq!(found.word, Word::Captured);
    assert_eq!(found.culprits[0].translated_to, Some(at("10.0.0.3:81")));

    let mut all = steps();
    all.push(with_rule(step(moved(), 1, false, "POSTROUTING", TraceVerdict::Drop), RuleText::default()));
    let found = decide(&silent(space(all, &[])));
    assert_eq!(found.word, Word::ThisHost);
    assert_eq!(found.culprits.len(), 2);
}

#[test]
fn not_here_takes_a_syn_that_was_seen_leaving() {
    let mut evidence = silent(space(vec![own(syn(), "output"), own(syn(), "postrouting")], &[]));
    evidence.raw = raw(Outcome::TimedOut);
    let text = told(&evidence);
    assert!(text.starts_with("this host: our SYN is dropped on its way out"), "{text}");
    assert!(text.contains("[inferred: one of: the queueing discipline of eth0, a program"), "{text}");

    evidence.spaces[0].tap = SourceState::unused("closed");
    assert!(told(&evidence).starts_with("unknown: "), "{}", told(&evidence));
    evidence.spaces[0] = space(vec![own(syn(), "output")], &[(syn(), true)]);
    assert!(told(&evidence).starts_with("not here: 1 SYN left eth0 unchanged, and nothing came back"));
    // netkat's own path was answered: that is no proof of a fault elsewhere.
    evidence.raw = raw(Outcome::Connected);
    assert!(
        told(&evidence)
            .starts_with("unknown: the kernel's SYN left this host, but only netkat's was answered")
    );
}

#[test]
fn a_silent_neighbour_is_not_here() {
    let mut evidence = silent(space(vec![own(syn(), "output"), own(syn(), "postrouting")], &[]));
    evidence.raw = raw(Outcome::NoNeighbour);
    let address = at(ASKED).ip();
    evidence.neighbour = Some(NeighbourState { address, interface: "eth0".to_owned(), failed: true });
    assert!(told(&evidence).starts_with("not here: 10.0.0.2 does not answer ARP on eth0"));
}

/// A neighbour whose answer a rule of this host drops is not silent.
#[test]
fn a_dropped_answer_of_a_neighbour_is_this_host() {
    let reply = || {
        (vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1], vec![])
    };
    let steps = vec![
        own(syn(), "output"),
        own(syn(), "postrouting"),
        step(reply(), 2, true, "input", TraceVerdict::Continue),
        with_rule(step(reply(), 2, false, "in", TraceVerdict::Drop), RuleText::default()),
    ];
    let mut evidence = silent(space(steps, &[]));
    evidence.raw = raw(Outcome::NoNeighbour);
    let address = at(ASKED).ip();
    evidence.neighbour = Some(NeighbourState { address, interface: "eth0".to_owned(), failed: true });
    assert!(
        told(&evidence).starts_with("this host: the neighbour's answer is dropped [proven"),
        "{}",
        told(&evidence)
    );
    // It came again, and was heard.
    evidence.neighbour = Some(NeighbourState { address, interface: "eth0".to_owned(), failed: false });
    assert!(
        told(&evidence).starts_with("this host: our SYN is dropped on its way out"),
        "{}",
        told(&evidence)
    );
}

#[test]
fn answers_that_come_in_and_go_no_further_are_located() {
    let seen = [(syn(), true), (syn_ack(), false)];
    let text = told(&silent(space(vec![own(syn(), "output")], &seen)));
    assert!(
        text.contains("[inferred: a program at the ingress of eth0 that the kernel did not list]"),
        "{text}"
    );
    let prerouting = step(syn_ack(), 2, true, "prerouting", TraceVerdict::Continue);
    let mut here = space(vec![own(syn(), "output"), prerouting], &seen);
    here.reverse_path_drops = 2;
    here.strict = vec!["eth0".to_owned()];
    here.way_back = Some("eth1".to_owned());
    let text = told(&silent(here));
    let place = "rp_filter (strict) on eth0: the answer came in by eth0, the way to 10.0.0.2 leads by eth1";
    assert!(text.contains(place), "{text}");
}

#[test]
fn errno_and_tables_name_what_refuses_a_packet() {
    let mut evidence = silent(space(Vec::new(), &[]));
    evidence.raw = raw(Outcome::NoRoute);
    let errno = Some(Errno::EINVAL as i32);
    evidence.kernel.reported = Some(AttemptOutcome { errno, at_once: true, ..AttemptOutcome::default() });
    evidence.kernel.outcome = Outcome::NoRoute;
    let refusal = Refusal::Route("blackhole 10.0.0.2".to_owned(), 254);
    evidence.refused = Some(Refused { errno: Errno::EINVAL, by: Some(refusal) });
    let text = told(&evidence);
    assert!(
        text.starts_with("this host: no packet was made [proven: route blackhole 10.0.0.2 (table main)]"),
        "{text}"
    );
    evidence.refused = None;
    let text = told(&evidence);
    assert!(
        text.starts_with("this host: connect() is refused before any packet [inferred: one of:"),
        "{text}"
    );
}

#[test]
fn only_the_kernel_connects() {
    let mut evidence = silent(space(Vec::new(), &[]));
    reported(&mut evidence, Outcome::Connected, None);
    evidence.raw = raw(Outcome::TimedOut);
    assert!(told(&evidence).starts_with("only the kernel: the kernel reaches 10.0.0.2:80"));
}

fn dropped(subject: Subject, reason: &str) -> DropEvent {
    DropEvent {
        subject,
        interface: Some("eth0".to_owned()),
        reason: Some(reason.to_owned()),
        symbol: "somewhere".to_owned(),
    }
}

/// A namespace whose drop events are seen.
fn watched(space: Space, drops: Vec<DropEvent>) -> Evidence {
    let drop_events = SourceState { used: true, ..SourceState::default() };
    silent(Space { drop_events, drops, ..space })
}

#[test]
fn a_rule_and_a_drop_event_must_agree() {
    let stopped = || space(vec![own(syn(), "output"), drop_rule(syn(), "OUTPUT")], &[]);
    let agreed = decide(&watched(stopped(), vec![dropped(Subject::Syn, "NETFILTER_DROP")]));
    let culprit = agreed.culprits.first().expect("a culprit");
    assert_eq!(
        (culprit.certainty, culprit.evidence.join("; ")),
        (Certainty::Proven, "nft trace; drop event NETFILTER_DROP".to_owned())
    );
    for others in
        [vec![], vec![dropped(Subject::Syn, "TC_EGRESS")], vec![dropped(Subject::SynAck, "NETFILTER_DROP")]]
    {
        let alone = decide(&watched(stopped(), others));
        assert_eq!(alone.culprits.first().map(|culprit| culprit.certainty), Some(Certainty::Inferred));
    }
}

#[test]
fn a_drop_event_names_the_programs_of_its_place() {
    let seen = [(syn(), true), (syn_ack(), false)];
    let with = |reason: &str, programs: &[&str]| {
        let names: Vec<String> = programs.iter().map(|name| (*name).to_owned()).collect();
        let programs = Programs { ingress: names.clone(), xdp: names, ..Programs::default() };
        let space = Space { programs, ..space(vec![own(syn(), "output")], &seen) };
        let found = decide(&watched(space, vec![dropped(Subject::SynAck, reason)]));
        let culprit = found
            .culprits
            .first()
            .map(|c| format!("{}: {}", format!("{:?}", c.certainty).to_lowercase(), c.place));
        culprit.unwrap_or_else(|| found.word.text().to_owned())
    };
    assert_eq!(with("TC_INGRESS", &["a"]), "proven: a on eth0");
    assert_eq!(with("TC_INGRESS", &["a", "b"]), "inferred: one of: a on eth0, b on eth0");
    assert_eq!(with("TC_INGRESS", &[]), "inferred: a filter of tc at the ingress of eth0");
    assert_eq!(with("XDP", &["a"]), "proven: a on eth0");
    assert_eq!(
        with("XFRM_POLICY", &[]),
        "proven: the kernel: an IPsec policy refuses it (XFRM_POLICY at somewhere)"
    );
    assert_eq!(with("NEW_REASON", &[]), "proven: the kernel: NEW_REASON at somewhere");
    // Freed, but not lost: positions decide.
    assert!(with("TCP_RESET", &[]).starts_with("inferred: a program at the ingress of eth0"));
}
