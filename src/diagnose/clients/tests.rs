use super::{
    super::{
        evidence::{Programs, SourceState, Space},
        finding::{Action, Certainty, Culprit, CulpritKind},
        legacy::LegacyEffect,
        packet::Subject,
    },
    *,
};
use crate::host::policy_route::Refusal;

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an end")
}

fn used() -> SourceState {
    SourceState { used: true, ..SourceState::default() }
}

/// A connection whose SYN was seen at eth0, and nothing else of it.
fn connection(client: &str) -> ClientConnection {
    ClientConnection {
        client: end(client),
        server: end("10.0.0.1:80"),
        interface: "eth0".to_owned(),
        interface_index: 2,
        syns: 1,
        repeated: false,
        other_host: false,
        answers: 0,
        resets: 0,
        forwarded_by: None,
        traceable: true,
        syn: PacketWay::default(),
        answer: PacketWay::default(),
        drops: Vec::new(),
        late: false,
        is_local: None,
        way_back: None,
        refused: None,
        silent_neighbour: None,
    }
}

fn evidence(connections: Vec<ClientConnection>) -> ClientEvidence {
    let space = Space {
        name: "here".to_owned(),
        trace: used(),
        tap: used(),
        drop_events: used(),
        ..Space::default()
    };
    let rule = Culprit::new(
        Action::Drop,
        CulpritKind::NftRule,
        Certainty::Proven,
        "nft inet fw, chain in, rule 1 of 1 (handle 2)".to_owned(),
    );
    let rule = Culprit { evidence: vec!["nft trace".to_owned()], ..rule };
    ClientEvidence {
        asked: end("[::]:80"),
        time: Duration::from_secs(3),
        space,
        connections,
        beyond_syns: 0,
        ends: vec![PacketEnd { culprit: rule, done: "dropped" }],
        translations: Vec::new(),
        listeners: vec![listening("0.0.0.0:80", 0, 5)],
        overflows: 0,
        request_drops: 0,
        legacy: [Vec::new(), Vec::new()],
        programs: HashMap::new(),
        socket_programs: SocketPrograms::default(),
    }
}

fn listening(address: &str, queue: u32, backlog: u32) -> ListeningSocket {
    let socket =
        Listener { address: end(address), interface: 0, v6_only: false, cgroup: None, queue, backlog };
    ListeningSocket { socket, remains: true }
}

fn way(hooks: &[&str]) -> PacketWay {
    PacketWay { hooks: hooks.iter().map(|hook| (*hook).to_owned()).collect(), ..PacketWay::default() }
}

fn drop_event(subject: Subject, reason: &str, symbol: &str) -> DropEvent {
    DropEvent {
        subject,
        interface: Some("eth0".to_owned()),
        reason: Some(reason.to_owned()),
        symbol: symbol.to_owned(),
    }
}

/// Returns each cause as a line: outcome, sentence, place, certainty.
fn lines(evidence: &ClientEvidence) -> Vec<String> {
    let finding = decide_clients(evidence);
    let line = |cause: &ClientCause| {
        let culprit = cause.culprit.as_ref().map(|culprit| {
            let inferred = culprit.certainty == Certainty::Inferred;
            format!(" | {}{}", culprit.place, if inferred { " (inferred)" } else { "" })
        });
        format!("{}: {}{}", cause.outcome.text(), cause.sentence, culprit.unwrap_or_default())
    };
    finding.causes.iter().map(line).collect()
}

/// Decides one connection of one client.
fn one(change: impl FnOnce(&mut ClientConnection), around: impl FnOnce(&mut ClientEvidence)) -> String {
    let mut connection = connection("10.0.0.2:5000");
    change(&mut connection);
    let mut evidence = evidence(vec![connection]);
    around(&mut evidence);
    let mut lines = lines(&evidence);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

const SYNS: &str = "the SYNs of 1 client";
const INPUT: [&str; 3] = ["ingress", "prerouting", "input"];

#[test]
fn answers_decide_first() {
    assert_eq!(one(|c| c.answers = 1, |_| {}), format!("answered: {SYNS} are answered"));
    // A rule with a limit stopped one SYN, and the next was answered.
    let limited = |c: &mut ClientConnection| {
        c.answers = 1;
        c.syn.ended = Some(0);
    };
    assert_eq!(one(limited, |_| {}), format!("answered: {SYNS} are answered"));
    let lost = |c: &mut ClientConnection| (c.answers, c.repeated) = (2, true);
    assert_eq!(
        one(lost, |_| {}),
        "not here: the answers (SYN-ACK) to 1 client leave this host, and the SYNs come again: the answers do not arrive"
    );
    let unfinished =
        "unknown: the answers (SYN-ACK) to 1 client are repeated: no ACK completes the handshakes";
    assert_eq!(one(|c| c.answers = 3, |_| {}), unfinished);
    let full = |e: &mut ClientEvidence| {
        e.overflows = 2;
        e.listeners = vec![listening("0.0.0.0:80", 6, 5)];
    };
    let queue =
        "the listener on 0.0.0.0:80: its accept queue is full (6 connections in a backlog of 5) (inferred)";
    assert_eq!(one(|c| c.answers = 3, full), format!("this host: {SYNS} are dropped | {queue}"));
    // Past a translation the device shows other ports: the trace alone saw the connection.
    let translated = |c: &mut ClientConnection| {
        c.syns = 0;
        c.answer = way(&["output", "postrouting"]);
    };
    assert_eq!(one(translated, |_| {}), format!("answered: {SYNS} are answered"));
}

#[test]
fn a_rule_is_proven_by_trace_and_drop_event() {
    let rule = "nft inet fw, chain in, rule 1 of 1 (handle 2)";
    let ended = |c: &mut ClientConnection| {
        c.syn = PacketWay { ended: Some(0), ..way(&INPUT) };
        c.drops = vec![drop_event(Subject::Syn, "NETFILTER_DROP", "nf_hook_slow")];
    };
    assert_eq!(one(ended, |_| {}), format!("this host: {SYNS} are dropped | {rule}"));
    let unseen = |c: &mut ClientConnection| c.syn = PacketWay { ended: Some(0), ..way(&INPUT) };
    assert_eq!(one(unseen, |_| {}), format!("this host: {SYNS} are dropped | {rule} (inferred)"));
    // Without drop events, or where some were lost, the trace is enough; not where its own events were lost.
    let proven = format!("this host: {SYNS} are dropped | {rule}");
    assert_eq!(one(unseen, |e| e.space.drop_events = SourceState::unused("no")), proven);
    assert_eq!(one(unseen, |e| e.space.drop_events.lost = true), proven);
    assert_eq!(one(ended, |e| e.space.trace.lost = true), format!("{proven} (inferred)"));
    let answer = |c: &mut ClientConnection| {
        c.syn = way(&INPUT);
        c.answer = PacketWay { ended: Some(0), ..way(&["output"]) };
        c.drops = vec![drop_event(Subject::SynAck, "NETFILTER_DROP", "nf_hook_slow")];
    };
    let sentence = "the answers (SYN-ACK) to 1 client are dropped";
    assert_eq!(one(answer, |_| {}), format!("this host: {sentence} | {rule}"));
}

#[test]
fn drop_events_name_what_no_rule_did() {
    let dropped = |reason: &'static str, symbol: &'static str| {
        move |c: &mut ClientConnection| {
            c.syn = way(&INPUT);
            c.drops = vec![drop_event(Subject::Syn, reason, symbol)];
        }
    };
    let without = |e: &mut ClientEvidence| e.listeners.clear();
    assert_eq!(
        one(dropped("NO_SOCKET", "tcp_v4_rcv"), without),
        format!("this host: {SYNS} are refused | the kernel: nothing listens on 10.0.0.1:80")
    );
    let elsewhere = |e: &mut ClientEvidence| e.listeners = vec![listening("127.0.0.1:80", 0, 5)];
    assert_eq!(
        one(dropped("NO_SOCKET", "tcp_v4_rcv"), elsewhere),
        format!(
            "this host: {SYNS} are refused | the kernel: nothing listens on 10.0.0.1:80, only on 127.0.0.1:80"
        )
    );
    assert_eq!(
        one(dropped("IP_INADDRERRORS", "ip_error"), |_| {}),
        format!(
            "this host: {SYNS} are dropped | the kernel: 10.0.0.1 is no address of this host, and forwarding is off \
             (net.ipv4.ip_forward)"
        )
    );
    let hook = "a netfilter hook that nf_tables does not trace: a program (BPF), or a module (inferred)";
    assert_eq!(
        one(dropped("NETFILTER_DROP", "nf_hook_slow"), |_| {}),
        format!("this host: {SYNS} are dropped | {hook}")
    );
    // A packet that was not traced does not prove that.
    let untraced = |c: &mut ClientConnection| {
        c.drops = vec![drop_event(Subject::Syn, "NETFILTER_DROP", "nf_hook_slow")];
        c.traceable = false;
    };
    let beyond = "a rule or a program of netfilter (the packet was beyond the trace's limit) (inferred)";
    assert_eq!(one(untraced, |_| {}), format!("this host: {SYNS} are dropped | {beyond}"));
    let suspect = LegacySuspect {
        table: "filter".to_owned(),
        chain: "INPUT".to_owned(),
        position: 3,
        is_policy: false,
        effect: LegacyEffect::Ends(Action::Drop),
        text: "-A INPUT -p tcp -j DROP".to_owned(),
    };
    assert_eq!(
        one(dropped("NETFILTER_DROP", "nf_hook_slow"), |e| e.legacy = [vec![suspect.clone()], Vec::new()]),
        format!("this host: {SYNS} are dropped | iptables-legacy -t filter, chain INPUT, rule 3 (inferred)")
    );
    // The suspects of the other family are none.
    assert_eq!(
        one(dropped("NETFILTER_DROP", "nf_hook_slow"), |e| e.legacy = [Vec::new(), vec![suspect]]),
        format!("this host: {SYNS} are dropped | {hook}")
    );
    // Frees that lose nothing are no drops.
    assert_eq!(
        one(dropped("TCP_RESET", "tcp_v4_rcv"), |_| {}),
        format!("unknown: {SYNS} come to the input hook, and no answer is made")
    );
}

#[test]
fn resets_and_positions_infer() {
    let without = |e: &mut ClientEvidence| e.listeners.clear();
    let refused = |c: &mut ClientConnection| c.resets = 1;
    let nothing = "the kernel: nothing listens on 10.0.0.1:80 (inferred)";
    assert_eq!(one(refused, without), format!("this host: {SYNS} are refused | {nothing}"));
    assert_eq!(
        one(refused, |_| {}),
        format!("unknown: {SYNS} are answered by resets, although a process listens on 0.0.0.0:80")
    );
    let to = |hooks: &'static [&'static str]| move |c: &mut ClientConnection| c.syn = way(hooks);
    assert_eq!(one(to(&INPUT), without), format!("this host: {SYNS} are dropped | {nothing}"));
    let program = |e: &mut ClientEvidence| {
        let ingress =
            vec!["tcx ingress program a (id 1)".to_owned(), "tcx ingress program b (id 2)".to_owned()];
        e.programs.insert("eth0".to_owned(), Programs { ingress, ..Programs::default() });
    };
    assert_eq!(
        one(to(&[]), program),
        format!(
            "this host: {SYNS} are dropped | one of: tcx ingress program a (id 1) on eth0, tcx ingress program b (id 2) \
             on eth0 (inferred)"
        )
    );
    // Beyond the trace's limit, or where it lost events, absence says nothing.
    let untraceable = |c: &mut ClientConnection| c.traceable = false;
    let left_out =
        format!("unknown: {SYNS} come in, and no answer is made; the trace's 50 SYNs a second left them out");
    assert_eq!(one(untraceable, |_| {}), left_out);
    let silent = format!("unknown: {SYNS} come in, and no answer is made");
    assert_eq!(one(to(&[]), |e| e.space.trace.lost = true), silent);
    let routed = |c: &mut ClientConnection| {
        c.syn = way(&["ingress", "prerouting"]);
        c.is_local = Some(true);
        c.way_back = Some("eth1".to_owned());
    };
    let strict = |e: &mut ClientEvidence| {
        e.space.reverse_path_drops = 1;
        e.space.strict = vec!["eth0".to_owned()];
    };
    let filter = "rp_filter (strict) on eth0: the SYN came in by eth0, the way to 10.0.0.2 leads by eth1";
    assert_eq!(one(routed, strict), format!("this host: {SYNS} are dropped | {filter} (inferred)"));
    // A way back by the same interface passes the filter, whoever moved the counter.
    let same = |c: &mut ClientConnection| {
        routed(c);
        c.way_back = Some("eth0".to_owned());
    };
    let routing = "routing of what comes in by eth0: the kernel delivers it to no socket (inferred)";
    assert_eq!(one(same, strict), format!("this host: {SYNS} are dropped | {routing}"));
    let foreign = |c: &mut ClientConnection| {
        routed(c);
        c.is_local = Some(false);
    };
    assert_eq!(
        one(foreign, |_| {}),
        format!(
            "this host: {SYNS} are dropped | the kernel: 10.0.0.1 is no address of this host, and forwarding is off \
             (net.ipv4.ip_forward) (inferred)"
        )
    );
    // A queue that was full without an overflow dropped nothing.
    let full = |e: &mut ClientEvidence| e.listeners = vec![listening("0.0.0.0:80", 6, 5)];
    assert_eq!(
        one(to(&INPUT), full),
        format!("unknown: {SYNS} come to the input hook, and no answer is made")
    );
}

#[test]
fn what_is_for_others_is_not_here() {
    assert_eq!(
        one(|c| c.other_host = true, |_| {}),
        format!("not here: {SYNS} come in frames for another link address")
    );
    let forwarded = |c: &mut ClientConnection| {
        c.forwarded_by = Some("eth1".to_owned());
        c.syn = way(&["ingress", "prerouting", "forward", "postrouting"]);
    };
    assert_eq!(
        one(forwarded, |_| {}),
        format!("not here: {SYNS} are forwarded by eth1, and nothing comes back")
    );
}

#[test]
fn causes_are_sorted_and_grouped() {
    let with = |client: &str, change: &dyn Fn(&mut ClientConnection)| {
        let mut connection = connection(client);
        change(&mut connection);
        connection
    };
    let answered = |c: &mut ClientConnection| c.answers = 1;
    let ruled = |c: &mut ClientConnection| {
        c.syn = PacketWay { ended: Some(0), ..way(&INPUT) };
        c.drops = vec![drop_event(Subject::Syn, "NETFILTER_DROP", "nf_hook_slow")];
        c.syns = 2;
    };
    let unsure = |c: &mut ClientConnection| c.syn = PacketWay { ended: Some(0), ..way(&INPUT) };
    let silent = |c: &mut ClientConnection| c.syn = way(&INPUT);
    let late = |c: &mut ClientConnection| c.late = true;
    let all = evidence(vec![
        with("10.0.0.2:1", &answered),
        with("10.0.0.3:1", &answered),
        with("10.0.0.4:1", &answered),
        with("10.0.0.5:1", &silent),
        with("10.0.0.6:1", &ruled),
        with("10.0.0.6:2", &ruled),
        with("10.0.0.7:1", &ruled),
        with("10.0.0.8:1", &late),
    ]);
    let finding = decide_clients(&all);
    let told: Vec<_> = finding
        .causes
        .iter()
        .map(|cause| (cause.outcome, cause.clients.len(), cause.connections, cause.syns))
        .collect();
    assert_eq!(
        told,
        [
            (ClientOutcome::ThisHost, 2, 3, 6),
            (ClientOutcome::Unknown, 1, 1, 1),
            (ClientOutcome::Answered, 3, 3, 3),
        ]
    );
    assert_eq!((finding.outcome, finding.late), (ClientOutcome::ThisHost, 1));
    // One packet without its proof makes the cause an inference.
    let mixed = evidence(vec![with("10.0.0.6:1", &ruled), with("10.0.0.7:1", &unsure)]);
    assert_eq!(lines(&mixed).len(), 1);
    assert!(lines(&mixed)[0].ends_with("(inferred)"), "{:?}", lines(&mixed));
}

#[test]
fn silence_is_told_as_what_it_is() {
    let nobody = || evidence(Vec::new());
    assert_eq!(lines(&nobody()), ["not here: no SYN for port 80 came within 3.0 s"]);
    let mut narrow = nobody();
    narrow.asked = end("10.0.0.1:80");
    let xdp = vec!["XDP program a (id 1)".to_owned()];
    narrow.programs.insert("eth0".to_owned(), Programs { xdp, ..Programs::default() });
    assert_eq!(
        lines(&narrow),
        [
            "not here: no SYN for 10.0.0.1:80 came within 3.0 s; or XDP program a (id 1) on eth0 dropped it, which no tap \
             sees before"
        ]
    );
    let mut lost = nobody();
    lost.space.tap.lost = true;
    assert_eq!(lines(&lost), ["unknown: packets were lost, and no SYN was among the others"]);
    let mut late = connection("10.0.0.2:1");
    late.late = true;
    assert_eq!(lines(&evidence(vec![late])), ["unknown: 1 connection came too late to be judged"]);
}

#[test]
fn translations_and_routes_are_told() {
    let by = Culprit::new(
        Action::Translate,
        CulpritKind::NftRule,
        Certainty::Proven,
        "nft inet nat, chain pre".to_owned(),
    );
    let sent_on = |e: &mut ClientEvidence| {
        e.translations = vec![ClientTranslation { to: end("10.0.0.9:81"), by: Some(by.clone()) }];
    };
    let translated = |c: &mut ClientConnection| {
        c.syn =
            PacketWay { translated: Some(0), ..way(&["ingress", "prerouting", "forward", "postrouting"]) };
    };
    assert_eq!(
        one(translated, sent_on),
        format!(
            "this host: {SYNS} are sent on to 10.0.0.9:81, and nothing comes back | nft inet nat, chain pre"
        )
    );
    let refused = |c: &mut ClientConnection| {
        translated(c);
        c.resets = 1;
    };
    assert_eq!(
        one(refused, sent_on),
        format!("this host: {SYNS} are sent on to 10.0.0.9:81, and refused there | nft inet nat, chain pre")
    );
    let answered = |c: &mut ClientConnection| {
        translated(c);
        c.answers = 1;
    };
    assert_eq!(one(answered, sent_on), format!("answered: {SYNS} are answered"));
    let no_route = |c: &mut ClientConnection| {
        c.syn = way(&INPUT);
        c.refused = Some(Refused { errno: nix::errno::Errno::ENETUNREACH, by: Some(Refusal::NoEntry) });
    };
    assert_eq!(
        one(no_route, |_| {}),
        "this host: the answers (SYN-ACK) to 1 client are not made: they have no route | no route: no routing table has an \
         entry for 10.0.0.2 (inferred)"
    );
    let silent = |c: &mut ClientConnection| {
        c.syn = way(&INPUT);
        c.answer = way(&["output", "postrouting"]);
        c.way_back = Some("eth0".to_owned());
        c.silent_neighbour = Some(c.client.ip());
    };
    assert_eq!(
        one(silent, |_| {}),
        "unknown: the answers (SYN-ACK) to 1 client do not leave: 10.0.0.2 does not answer ARP on eth0, or a rule here drops \
         its answer"
    );
    // Silence is no answer where packets were lost.
    assert_eq!(
        one(|c| c.syn = way(&INPUT), |e| e.space.tap.lost = true),
        format!("unknown: {SYNS} come in; an answer may be among packets that netkat lost")
    );
    // The kernel would have reported what a program drops.
    let programs = |e: &mut ClientEvidence| {
        e.socket_programs.ingress = vec!["cgroup_skb ingress program a (id 1)".to_owned()];
    };
    assert_eq!(
        one(|c| c.syn = way(&INPUT), programs),
        format!("unknown: {SYNS} come to the input hook, and no answer is made")
    );
    let cgroup = |e: &mut ClientEvidence| {
        e.space.drop_events = SourceState::unused("no");
        e.socket_programs.ingress = vec!["cgroup_skb ingress program a (id 1)".to_owned()]
    };
    assert_eq!(
        one(|c| c.syn = way(&INPUT), cgroup),
        format!("this host: {SYNS} are dropped | cgroup_skb ingress program a (id 1) (inferred)")
    );
    let half_open = |e: &mut ClientEvidence| e.request_drops = 1;
    let queue =
        "the listener on 0.0.0.0:80: its queue of half-open connections is full, and SYN cookies are off";
    assert_eq!(
        one(|c| c.syn = way(&INPUT), half_open),
        format!("this host: {SYNS} are dropped | {queue} (inferred)")
    );
}
