//! The trials of a comparison: how often both attempts are made, and which of them is told.
use super::{Compare, failed};
use crate::{
    diagnose::{Evidence, Finding, Word},
    report::{Error, JsonReport},
};
use std::io;

/// Maximum trials where nothing explains a difference.
const TRIALS: usize = 3;

impl Compare {
    /// Makes both attempts as often as asked, or again where nothing explains a difference. Returns how often, and
    /// the trial that tells most.
    pub(super) fn trials(&self) -> Result<(usize, Trial), Error> {
        let mut made: Vec<Trial> = Vec::new();
        loop {
            let trial = self.gather()?;
            let finding = &trial.finding;
            log::debug!("evidence: {:#?}", trial.evidence);
            log::info!("trial {}: {}: {}", made.len() + 1, finding.word.text(), finding.sentence);
            let explained = !matches!(finding.word, Word::Unknown | Word::OnlyTheKernel | Word::Same)
                || !finding.culprits.is_empty()
                || made.is_empty() && finding.word == Word::Same;
            made.push(trial);
            let enough = match self.trials {
                Some(trials) => made.len() >= trials,
                None => explained || made.len() >= TRIALS,
            };
            if enough {
                let trials = made.len();
                return Ok((trials, settle(made).ok_or_else(|| failed("try")(io::ErrorKind::Other.into()))?));
            }
        }
    }
}

/// Both attempts, and what they mean.
pub(super) struct Trial {
    pub evidence: Evidence,
    pub raw: JsonReport,
    pub finding: Finding,
}

/// Returns the trial that tells most: where they differ, the first with a culprit.
fn settle(mut made: Vec<Trial>) -> Option<Trial> {
    let words: Vec<Word> = made.iter().map(|trial| trial.finding.word).collect();
    let last = made.pop()?;
    if words.iter().all(|word| *word == last.finding.word) {
        return Some(last);
    }
    made.push(last);
    let told = |trial: &Trial| {
        matches!(trial.finding.word, Word::ThisHost | Word::Captured) && !trial.finding.culprits.is_empty()
    };
    if let Some(at) = made.iter().position(told) {
        let mut best = made.swap_remove(at);
        let alike = words.iter().filter(|word| **word == best.finding.word).count();
        best.finding.sentence.push_str(&format!(", in {alike} of {} trials", words.len()));
        return Some(best);
    }
    let mut last = made.pop()?;
    let all: Vec<_> = words.iter().map(|word| word.text()).collect();
    last.finding.sentence = format!("{} trials differ: {}", words.len(), all.join(", "));
    last.finding.word = Word::Inconsistent;
    Some(last)
}
