//! The text of a comparison: the conclusion first, then what it rests on.
use crate::{
    diagnose::{Certainty, Culprit, Evidence, Finding, Outcome},
    net::{Protocol, zone::endpoint},
    text,
};
use std::time::Duration;

/// Maximum length of a line in a pipe, in characters.
const PIPE_WIDTH: usize = 200;
/// Minimum width that lines are cut to, in columns.
const MIN_WIDTH: usize = 40;
/// Width of an outcome with its time, in characters.
const OUTCOME: usize = 24;

/// The lines of the text, not yet cut.
#[derive(Clone, Debug)]
pub(super) struct Block {
    conclusion: String,
    /// Label and line; the lines below the first of a label have none.
    details: Vec<(&'static str, String)>,
}

impl Block {
    pub(crate) fn new(evidence: &Evidence, finding: &Finding) -> Block {
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
        details.extend(
            raw.past_egress
                .as_ref()
                .and_then(|past| past_egress(past, evidence.protocol))
                .map(|past| ("", past)),
        );
        details.extend(proof(finding).map(|proof| ("proof", proof)));
        details.extend(finding.culprits.first().and_then(|c| c.remedy.clone()).map(|remedy| ("try", remedy)));
        Block { conclusion: format!("{}: {}", finding.word.text(), finding.sentence), details }
    }

    /// Returns the lines, each without control characters and cut to the width.
    pub(crate) fn lines(&self, width: Option<usize>) -> String {
        let width = width.map_or(PIPE_WIDTH, |width| width.max(MIN_WIDTH));
        let cut = |line: &str| {
            let long = line.chars().count() > width;
            text::beginning(line, if long { width - 1 } else { width })
        };
        let mut lines = cut(&self.conclusion);
        lines.push('\n');
        for (label, line) in &self.details {
            lines.push_str(&cut(&format!("  {label:<6}  {line}")));
            lines.push('\n');
        }
        lines
    }
}

/// Returns what a culprit belongs to, and what else is to be said of it.
fn which(culprit: &Culprit, translation: Option<&Culprit>) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(culprit.belongs_to.as_ref().map(|owner| owner.text()));
    parts.extend(culprit.element.as_ref().map(|element| format!("element {element}")));
    parts.extend(culprit.comment.as_ref().map(|comment| format!("comment \"{comment}\"")));
    parts.extend(culprit.note.clone());
    if let Some(translation) = translation
        && let Some(to) = translation.translated_to
    {
        parts.push(format!("translated to {to} before, by {}", translation.place));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns the sources, each once, and how sure they make it.
fn proof(finding: &Finding) -> Option<String> {
    let mut sources: Vec<&str> = Vec::new();
    for source in finding.culprits.iter().flat_map(|culprit| &culprit.evidence) {
        if !sources.contains(&source.as_str()) {
            sources.push(source);
        }
    }
    let inferred = finding.culprits.first().is_some_and(|c| c.certainty == Certainty::Inferred);
    let certainty = if inferred { " (inferred)" } else { "" };
    (!sources.is_empty()).then(|| format!("{}{certainty}", sources.join("; ")))
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

/// Returns a time with two significant digits.
fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}
