//! The outcome of a comparison (`--compare`), as text and as JSON (docs/schema/comparison.json).
pub(super) mod object;
mod text;

use super::{JsonReport, Verdict, block::Block};
use crate::diagnose::{Evidence, Finding, Outcome, Word};
pub(super) use object::Object;
use std::time::Duration;

/// The comparison as a report.
#[derive(Clone, Debug)]
pub(crate) struct ComparedTarget {
    /// This host's kernel, as uname -r names it.
    pub kernel_release: String,
    /// The number of the network namespace.
    pub netns: u64,
    /// Number of trials that were made.
    pub trials: usize,
}

/// A comparison that is over.
#[derive(Debug)]
pub(crate) struct Comparison {
    object: Object,
    text: Block,
    word: Word,
    raw: Verdict,
}

impl Comparison {
    /// Returns a comparison in its printable forms.
    pub(crate) fn new(
        target: ComparedTarget,
        evidence: &Evidence,
        finding: &Finding,
        raw: JsonReport,
        time: Duration,
    ) -> Comparison {
        let verdict = verdict(&evidence.raw.outcome);
        Comparison {
            object: Object::new(&target, evidence, finding, raw, time),
            text: text::block(evidence, finding),
            word: finding.word,
            raw: verdict,
        }
    }

    /// Returns the text for a terminal of this width, in columns; `None` for a pipe.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        self.text.lines(width)
    }

    /// Returns the object, with the time that the look-up of the host's name took.
    pub(super) fn object(&mut self, name: Option<Duration>) -> &Object {
        self.object.looked_up(name);
        &self.object
    }

    /// Returns the exit status: 0 only where nothing differs; with `detailed`, a number for each kind of
    /// difference.
    pub(super) fn status(&self, detailed: bool) -> u8 {
        match self.word {
            Word::Same => 0,
            _ if !detailed => 1,
            Word::Captured => 10,
            Word::ThisHost => 11,
            Word::OnlyTheKernel => 12,
            Word::Inconsistent => 13,
            Word::Unknown => 14,
            Word::NotHere => self.raw.status(true),
        }
    }
}

/// Returns the verdict that an outcome is.
fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Connected => Verdict::Done,
        Outcome::TimedOut => Verdict::TimedOut,
        Outcome::Refused => Verdict::Refused,
        Outcome::Rejected { .. } => Verdict::Rejected,
        Outcome::NoRoute => Verdict::NoRoute,
        Outcome::NoNeighbour => Verdict::NoNeighbour,
        Outcome::EgressDropped => Verdict::EgressDropped,
        Outcome::Failed(_) => Verdict::Failed,
    }
}
