//! The place of a rule, in the words of the tool that manages it.
use super::super::{
    belongs,
    evidence::Space,
    finding::{Action, Certainty, Culprit, CulpritKind},
    observation::{Observation, Step},
    rule_text::Translation,
};
use crate::{
    host::nf_trace::{TraceKind, TraceVerdict},
    text,
};

/// Maximum length of a name, in characters. nf_tables allows 255 bytes (NFT_NAME_MAXLEN).
const NAME: usize = 128;
/// The tables of iptables.
const IPTABLES_TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
/// Its base chains.
const IPTABLES_CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

fn name(bytes: &[u8]) -> String {
    text::beginning(&String::from_utf8_lossy(bytes), NAME)
}

/// Returns nf_tables' word for a family (NFPROTO_*).
fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

/// What ended a packet, and in which word.
pub(crate) struct Ended {
    pub culprit: Culprit,
    /// "dropped", "rejected" and the like.
    pub done: &'static str,
}

/// Returns what ended a packet, if a rule or a policy did.
pub(crate) fn ended(space: &Space, observation: &Observation) -> Option<Ended> {
    let (index, step) = observation.end()?;
    let rejects = step.rule.as_ref().is_some_and(|rule| rule.text.rejects);
    let action = match step.event.verdict? {
        TraceVerdict::Queue(_) => Action::Queue,
        TraceVerdict::Stolen => Action::Steal,
        _ if rejects => Action::Reject,
        _ => Action::Drop,
    };
    let done = match action {
        Action::Reject => "rejected",
        Action::Queue => "handed to a program that does not answer",
        Action::Steal => "taken by a rule",
        _ if step.event.kind == TraceKind::Policy => "dropped by the policy of a chain",
        _ => "dropped",
    };
    Some(Ended { culprit: culprit(space, observation, index, action)?, done })
}

/// Returns the last rule that translated a packet's destination.
pub(crate) fn translated(space: &Space, observation: &Observation) -> Option<Culprit> {
    let translates = |step: &Step| {
        let translation = step.rule.as_ref().and_then(|rule| rule.text.translates);
        translation == Some(Translation::Destination)
    };
    let index = observation.steps.iter().rposition(translates)?;
    culprit(space, observation, index, Action::Translate)
}

/// Returns the culprit that a step of a packet's way is.
pub(super) fn culprit(
    space: &Space,
    observation: &Observation,
    index: usize,
    action: Action,
) -> Option<Culprit> {
    let step = observation.steps.get(index)?;
    let event = &step.event;
    let jumps = observation.jumps(index);
    let chains: Vec<String> = jumps.iter().map(|(chain, _)| name(chain)).collect();
    let facts = step.rule.as_ref();
    let mut comments: Vec<String> = jumps
        .iter()
        .filter_map(|(_, step)| step.and_then(|step| step.rule.as_ref()?.text.comment.clone()))
        .collect();
    comments.extend(facts.and_then(|facts| facts.text.comment.clone()));
    let is_policy = event.kind == TraceKind::Policy;
    let (table, chain) = (name(&event.table), name(&event.chain));
    let tool = tool(family(event.family), &table, &chains);
    let certainty = if space.trace.lost { Certainty::Inferred } else { Certainty::Proven };
    let kind = if is_policy { CulpritKind::NftPolicy } else { CulpritKind::NftRule };
    let place = place(&tool, step, &table, &chains, decided_nothing(observation, step));
    let remedy = remedy(&tool, family(event.family), &table, &chain, facts.and_then(|f| f.position));
    let element = facts.and_then(|facts| facts.text.elements.first()).map(|found| match &found.set {
        Some(set) => format!("{} of set {set}", found.element),
        None => found.element.clone(),
    });
    let hook = observation.hook_of(index);
    let incoming = matches!(hook.as_deref(), Some("prerouting" | "input" | "ingress" | "forward"));
    Some(Culprit {
        packet: Some(observation.subject),
        direction: Some(if incoming { "in" } else { "out" }),
        namespace: space.name.clone(),
        hook,
        family: Some(family(event.family)),
        handle: event.handle.filter(|_| !is_policy),
        position: facts.and_then(|facts| facts.position).filter(|_| !is_policy),
        text: facts.map(|facts| facts.text.text.clone()).filter(|text| !is_policy && !text.is_empty()),
        comment: facts.and_then(|facts| facts.text.comment.clone()).filter(|_| !is_policy),
        element: element.filter(|_| !is_policy),
        belongs_to: belongs::owner(&table, &chains, &comments),
        note: note(space, step),
        table: Some(table),
        chain: Some(chain),
        jumps: chains,
        tool: Some(tool),
        evidence: vec!["nft trace".to_owned()],
        remedy: Some(remedy),
        ..Culprit::new(action, kind, certainty, place)
    })
}

/// Returns whether no rule of the policy's chain matched.
fn decided_nothing(observation: &Observation, policy: &Step) -> bool {
    !observation.steps.iter().any(|step| {
        // The end of a chain is an event of a rule without a handle (Linux 6.12).
        step.event.kind == TraceKind::Rule
            && step.event.handle.is_some()
            && (step.event.family, &step.event.table, &step.event.chain)
                == (policy.event.family, &policy.event.table, &policy.event.chain)
    })
}

/// Returns the tool that a rule is listed by.
fn tool(family: &str, table: &str, chains: &[String]) -> String {
    let base = chains.first().map(String::as_str).unwrap_or_default();
    let by_iptables = IPTABLES_TABLES.contains(&table) && IPTABLES_CHAINS.contains(&base);
    match family {
        "ip" if by_iptables => "iptables-nft",
        "ip6" if by_iptables => "ip6tables-nft",
        "ip" | "ip6" if table == "kube-proxy" => "kube-proxy",
        _ => "nft",
    }
    .to_owned()
}

/// Returns a rule's or a policy's place.
fn place(tool: &str, step: &Step, table: &str, chains: &[String], untouched: bool) -> String {
    let event = &step.event;
    let family = family(event.family);
    let chain = chains.last().map(String::as_str).unwrap_or_default();
    let position = step.rule.as_ref().and_then(|rule| rule.position);
    let handle = event.handle.unwrap_or(0);
    let (head, aside) = match tool {
        "iptables-nft" => (format!("iptables (nft), table {table}"), format!("{family} {table} {chain}, ")),
        "ip6tables-nft" => (format!("ip6tables (nft), table {table}"), format!("{family} {table} {chain}, ")),
        "kube-proxy" => (format!("kube-proxy (nftables), {family} {table}"), String::new()),
        _ => (format!("nft {family} {table}"), String::new()),
    };
    if event.kind == TraceKind::Policy {
        let rules = match position {
            Some((_, 0)) => ", it has no rules".to_owned(),
            Some((_, 1)) => {
                format!(", its 1 rule {}", if untouched { "did not match" } else { "did not decide" })
            }
            Some((_, n)) => {
                format!(", none of its {n} rules {}", if untouched { "matched" } else { "decided" })
            }
            None => String::new(),
        };
        return format!("{head}, chain {chain}: policy drop{rules}");
    }
    let number = match position {
        Some((number, of)) => format!("rule {number} of {of} ({aside}handle {handle})"),
        None => format!("handle {handle} (the ruleset was rewritten meanwhile)"),
    };
    let way = match chains {
        [from, _] => format!(", jumped to from {from}"),
        [_, _, ..] => format!(", jumped {}", chains.join(" > ")),
        _ => String::new(),
    };
    format!("{head}, chain {chain}, {number}{way}")
}

/// Returns a word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), |word| word.into_owned())
}

/// Returns the command that lists a rule.
fn remedy(tool: &str, family: &str, table: &str, chain: &str, position: Option<(usize, usize)>) -> String {
    match tool {
        "iptables-nft" | "ip6tables-nft" => {
            let table = if table == "filter" { String::new() } else { format!("-t {table} ") };
            let number = position.filter(|(number, _)| *number > 0).map(|(number, _)| format!(" {number}"));
            format!("{tool} {table}-S {}{}", quoted(chain), number.unwrap_or_default())
        }
        _ => format!("nft -a list chain {family} {} {}", quoted(table), quoted(chain)),
    }
}

/// Returns what else is to be said of a rule: the queue's program, or why it may decide otherwise.
fn note(space: &Space, step: &Step) -> Option<String> {
    if let Some(TraceVerdict::Queue(number)) = step.event.verdict {
        let program = space.queues.iter().find(|(queue, _)| *queue == number);
        return Some(match program {
            Some((_, program)) => format!("queue {number}: {program}"),
            None => format!("queue {number} has no listener"),
        });
    }
    let rule = step.rule.as_ref()?;
    if rule.text.by_identity {
        return Some("the rule looks at the socket's owner: see --user".to_owned());
    }
    rule.text.varies.then(|| "the rule may decide otherwise next time".to_owned())
}
