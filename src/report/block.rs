//! A block of text about a finding: the conclusion first, then labelled lines that it rests on.
use crate::{
    diagnose::{Certainty, Culprit},
    text,
};
use std::time::Duration;

/// Maximum length of a line in a pipe, in characters.
const PIPE_WIDTH: usize = 200;
/// Minimum width that lines are cut to, in columns.
const MIN_WIDTH: usize = 40;

/// The lines of a block, not yet cut.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub conclusion: String,
    /// Label and line; the lines below the first of a label have none.
    pub details: Vec<(&'static str, String)>,
}

impl Block {
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
pub(super) fn which(culprit: &Culprit, translation: Option<&Culprit>) -> Option<String> {
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

/// Returns the culprits' sources, each once, and how sure they make it.
pub(super) fn proof(culprits: &[Culprit]) -> Option<String> {
    let mut sources: Vec<&str> = Vec::new();
    for source in culprits.iter().flat_map(|culprit| &culprit.evidence) {
        if !sources.contains(&source.as_str()) {
            sources.push(source);
        }
    }
    let inferred = culprits.first().is_some_and(|c| c.certainty == Certainty::Inferred);
    let certainty = if inferred { " (inferred)" } else { "" };
    (!sources.is_empty()).then(|| format!("{}{certainty}", sources.join("; ")))
}

/// Returns a time with two significant digits.
pub(super) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}
