//! The tables of iptables-legacy in one namespace: read before and after the attempt, and around rounds of further
//! connections until their counters leave one rule.
use crate::{
    diagnose::{LegacyEvidence, Lineup},
    host::rules::Family,
    kernel::{LegacyBlob, legacy_tables},
};
use std::io;

/// Connections of each round. Small rounds drown in others' packets, large ones are a burden for the far end.
const ROUNDS: [usize; 4] = [3, 7, 13, 29];
/// Rounds whose SYNs may leave this host.
const GENTLE: usize = 2;

/// The tables before the attempt.
pub(super) struct LegacyWatch {
    family: Family,
    before: io::Result<Vec<LegacyBlob>>,
}

impl LegacyWatch {
    /// Reads the tables of a family.
    pub(crate) fn open(family: Family) -> LegacyWatch {
        LegacyWatch { family, before: legacy_tables(family) }
    }

    /// Returns whether there are any.
    pub(crate) fn is_present(&self) -> bool {
        self.before.as_ref().is_ok_and(|tables| !tables.is_empty())
    }

    /// Reads the tables again.
    pub(crate) fn read(&self) -> Vec<LegacyBlob> {
        legacy_tables(self.family).unwrap_or_default()
    }

    /// Returns what the counters say, where `after` was read behind the attempt. `round` makes so many
    /// connections and returns the tables then; `None` makes none.
    pub(crate) fn evidence(
        &self,
        after: Vec<LegacyBlob>,
        leaves: bool,
        mut round: Option<impl FnMut(usize) -> Vec<LegacyBlob>>,
    ) -> LegacyEvidence {
        let before = match &self.before {
            Ok(tables) => tables,
            Err(error) => {
                return LegacyEvidence { unreadable: Some(error.to_string()), ..LegacyEvidence::default() };
            }
        };
        let translations = Lineup::new(before, &after, 1, true).describe(&after);
        let mut evidence = LegacyEvidence { present: !after.is_empty(), translations, ..Default::default() };
        let Some(round) = &mut round else { return evidence };
        let mut lineup = Lineup::new(before, &after, 1, false);
        evidence.considered = lineup.considered;
        let mut last = after;
        for (number, size) in ROUNDS.into_iter().enumerate() {
            let enough = number >= GENTLE && (leaves || lineup.len() == 1);
            if lineup.len() == 0 || enough {
                break;
            }
            let next = round(size);
            lineup.narrow(&Lineup::new(&last, &next, size as u64, false));
            evidence.rounds.push(size);
            last = next;
        }
        evidence.suspects = lineup.describe(&last);
        evidence
    }
}
