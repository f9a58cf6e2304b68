//! The text of a comparison.
use crate::{
    diagnose::{Evidence, Finding, Outcome},
    net::{Protocol, zone::endpoint},
    report::block::{Block, proof, time, which},
};
use std::time::Duration;

/// Width of an outcome with its time, in characters.
const OUTCOME: usize = 24;

/// Returns a comparison's block.
pub(super) fn block(evidence: &Evidence, finding: &Finding) -> Block {
    let mut details = Vec::new();
    if let Some(culprit) = finding.culprits.first() {
        details.push(("by", culprit.place.clone()));
        details.extend(culprit.text.clone().map(|text| ("", text)));
        details.extend(which(culprit, finding.culprits.get(1)).map(|which| ("which", which)));
    }
    let outcome = |of| outcome(of, evidence.protocol);
    let kernel = timed(&outcome(&evidence.kernel.outcome), evidence.kernel.time);
    let kernel = match evidence.kernel.reported {
        None => format!("no answer in {}", time(evidence.kernel.time)),
        Some(_) => kernel,
    };
    let note = match (&evidence.kernel.outcome, finding.culprits.iter().find_map(|c| c.translated_to)) {
        (Outcome::Connected, Some(to)) => format!("to {to}"),
        _ => finding.kernel_note.clone(),
    };
    details.push(("kernel", columns(&kernel, &note)));
    let raw = &evidence.raw;
    let path = raw.local.map(|local| {
        let (local, remote) = (endpoint(&local), endpoint(&evidence.asked));
        let hop = format!("{local} > {remote} via {}, {}", raw.next_hop, raw.interface);
        let port = raw.other_port.as_ref().map(|why| format!(" (another source port: {why})"));
        format!("{hop}{}", port.unwrap_or_default())
    });
    let path = path.or_else(|| raw.error.clone()).unwrap_or_default();
    details.push(("raw", columns(&timed(&outcome(&raw.outcome), raw.time), &path)));
    let past = raw.past_egress.as_ref().and_then(|past| past_egress(past, evidence.protocol));
    details.extend(past.map(|past| ("", past)));
    details.extend(proof(&finding.culprits).map(|proof| ("proof", proof)));
    details.extend(finding.culprits.first().and_then(|c| c.remedy.clone()).map(|remedy| ("try", remedy)));
    Block { conclusion: format!("{}: {}", finding.word.text(), finding.sentence), details }
}

fn columns(outcome: &str, rest: &str) -> String {
    if rest.is_empty() { outcome.to_owned() } else { format!("{outcome:<OUTCOME$}  {rest}") }
}

/// Returns the outcome of the path past tc, tcx and the root queueing discipline, if it tells where the other was dropped.
fn past_egress(past: &Outcome, protocol: Protocol) -> Option<String> {
    let told = *past != Outcome::EgressDropped;
    told.then(|| {
        columns(&outcome(past, protocol), "past tc, tcx and the queueing discipline, one of which drops")
    })
}

/// Returns an outcome in words.
fn outcome(outcome: &Outcome, protocol: Protocol) -> String {
    match outcome {
        Outcome::Connected if protocol == Protocol::Udp => "answered".to_owned(),
        Outcome::Connected => "connected".to_owned(),
        Outcome::TimedOut if protocol == Protocol::Udp => "no answer".to_owned(),
        Outcome::TimedOut => "timed out".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Rejected { error, .. } => format!("rejected ({error})"),
        Outcome::NoRoute => "no route".to_owned(),
        Outcome::NoNeighbour => "no neighbour".to_owned(),
        Outcome::EgressDropped => "dropped by this host's own egress".to_owned(),
        Outcome::Failed(_) => "failed".to_owned(),
    }
}

fn timed(outcome: &str, after: Duration) -> String {
    if after.is_zero() { outcome.to_owned() } else { format!("{outcome} after {}", time(after)) }
}
