//! Rules of iptables-legacy that counters leave as culprits.
use super::{
    super::{
        belongs,
        evidence::{Evidence, Space},
        finding::{Action, Certainty, Culprit, CulpritKind, Finding, Word},
        legacy::{LegacyEffect, LegacySuspect},
        packet::Subject,
    },
    finding, in_namespace, place,
};

/// Returns that a rule ended a packet, if counters leave any.
pub(super) fn infer(evidence: &Evidence, space: &Space) -> Option<Finding> {
    let suspects = &space.legacy.suspects;
    let mut culprit = culprit(evidence, space, suspects)?;
    let left = space.at_devices(Subject::Syn, true).next().is_some();
    let subject = if left { Subject::SynAck } else { Subject::Syn };
    culprit.packet = Some(subject);
    culprit.direction = Some(if left { "in" } else { "out" });
    let rounds: Vec<_> = space.legacy.rounds.iter().map(ToString::to_string).collect();
    culprit.evidence = vec![format!(
        "counters: {} of {} rules that stop packets moved with each round of {} connections",
        suspects.len(),
        space.legacy.considered,
        rounds.join(", ")
    )];
    let done = match culprit.action {
        Action::Reject => "rejected",
        Action::Queue => "handed to a program that does not answer",
        _ if culprit.kind == CulpritKind::LegacyPolicy => "dropped by the policy of a chain",
        _ => "dropped",
    };
    let sentence = format!("{} is {done}{}", subject.words(evidence.protocol), in_namespace(evidence, space));
    Some(finding(Word::ThisHost, sentence, vec![culprit]))
}

/// Returns the rule that translated the SYN, if counters leave any.
pub(super) fn translation(evidence: &Evidence, space: &Space) -> Option<Culprit> {
    let mut culprit = culprit(evidence, space, &space.legacy.translations)?;
    culprit.packet = Some(Subject::Syn);
    culprit.evidence = vec!["counters".to_owned()];
    Some(culprit)
}

/// Returns the suspects as one culprit: the only one, or one of several.
fn culprit(evidence: &Evidence, space: &Space, suspects: &[LegacySuspect]) -> Option<Culprit> {
    let first = suspects.first()?;
    let program = if evidence.asked.is_ipv4() { "iptables-legacy" } else { "ip6tables-legacy" };
    let at = |suspect: &LegacySuspect| {
        let LegacySuspect { table, chain, position, .. } = suspect;
        match suspect.is_policy {
            true => format!("{program} -t {table}, chain {chain}: its policy"),
            false => format!("{program} -t {table}, chain {chain}, rule {position}"),
        }
    };
    let action = match first.effect {
        LegacyEffect::Ends(action) => action,
        LegacyEffect::Translates => Action::Translate,
    };
    let kind = if first.is_policy { CulpritKind::LegacyPolicy } else { CulpritKind::LegacyRule };
    let places = suspects.iter().map(at).collect::<Vec<_>>().join("; ");
    let [only] = suspects else {
        let mut culprit = Culprit::new(action, kind, Certainty::Inferred, format!("one of: {places}"));
        culprit.namespace = space.name.clone();
        return Some(culprit);
    };
    let mut culprit = Culprit::new(action, kind, Certainty::Inferred, places);
    culprit.namespace = space.name.clone();
    culprit.table = Some(only.table.clone());
    culprit.chain = Some(only.chain.clone());
    culprit.tool = Some(program.to_owned());
    culprit.text = Some(only.text.clone()).filter(|text| !text.is_empty() && !only.is_policy);
    culprit.belongs_to = belongs::owner(&only.table, std::slice::from_ref(&only.chain), &[]);
    culprit.remedy = Some(match only.is_policy {
        true => format!("{program} -t {} -S {}", only.table, place::quoted(&only.chain)),
        false => format!("{program} -t {} -S {} {}", only.table, place::quoted(&only.chain), only.position),
    });
    Some(culprit)
}
