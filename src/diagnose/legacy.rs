//! Rules of iptables-legacy by their counters: which of those that could have ended a packet moved.
//!
//! A table's entries are read before and after packets of ours. A rule whose counter moved by less than the
//! number of packets did not end them. What is left is a suspect: others' packets may have moved it, too.
use super::{finding::Action, rule_text::legacy::legacy_rule};
use crate::{host::rules::Family, kernel::LegacyBlob};
use std::collections::HashMap;

/// The base chains, by the numbers of their hooks.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Size of struct xt_entry_target without its data, in bytes, and of an extension's name.
const TARGET_HEADER: usize = 32;
const NAME: usize = 29;
/// Maximum length of a chain's name, in characters.
const CHAIN: usize = 64;

/// The effect of a rule that ends or translates a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LegacyEffect {
    Ends(Action),
    Translates,
}

/// A rule that may be to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegacySuspect {
    pub table: String,
    pub chain: String,
    /// The rule's number in its chain, from 1.
    pub position: usize,
    pub is_policy: bool,
    pub effect: LegacyEffect,
    /// The rule in iptables' words.
    pub text: String,
}

impl LegacySuspect {
    /// Returns whether the rule may stop a client's SYN to a TCP port, or the SYN-ACK from it, as far as its text tells.
    pub(crate) fn may_stop_client(&self, port: u16) -> bool {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        let value = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            // "! --dport 80" excludes a port.
            let inverted = at.checked_sub(1).and_then(|before| words.get(before)) == Some(&"!");
            words.get(at + 1).filter(|_| !inverted).copied()
        };
        let is = |flag: &str| match value(flag).map(str::parse::<u16>) {
            Some(Ok(number)) => number == port,
            _ => true,
        };
        let tcp = value("-p").is_none_or(|protocol| matches!(protocol, "tcp" | "6" | "all"));
        // A rule for the SYN names the port as its destination, one for the answer as its source.
        tcp && (is("--dport") && value("--sport").is_none() || is("--sport") && value("--dport").is_none())
    }
}

/// A rule of a table: its place and its counter.
#[derive(Clone, Debug)]
struct Entry<'a> {
    bytes: &'a [u8],
    at: usize,
    chain: usize,
    position: usize,
    packets: u64,
    effect: Option<LegacyEffect>,
}

/// Suspects by table and offset, and the number of packets that each has to have counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineup {
    /// By table's name and entry's offset.
    suspects: Vec<(String, usize)>,
    /// Rules that could have ended a packet.
    pub considered: usize,
}

impl Lineup {
    /// Returns the rules whose counters moved by at least `packets` between two readings.
    pub(crate) fn new(
        before: &[LegacyBlob],
        after: &[LegacyBlob],
        packets: u64,
        translations: bool,
    ) -> Lineup {
        let mut lineup = Lineup::default();
        for (before, after) in pairs(before, after) {
            let (old, new) = (entries(before), entries(after));
            for (old, new) in old.iter().zip(&new) {
                let wanted = match new.effect {
                    Some(LegacyEffect::Translates) => translations,
                    Some(LegacyEffect::Ends(_)) => !translations,
                    None => false,
                };
                lineup.considered += usize::from(wanted);
                if wanted && new.packets.saturating_sub(old.packets) >= packets.max(1) {
                    lineup.suspects.push((after.table.clone(), new.at));
                }
            }
        }
        lineup
    }

    /// Keeps the suspects that are in another line-up, too.
    pub(crate) fn narrow(&mut self, other: &Lineup) {
        self.suspects.retain(|suspect| other.suspects.contains(suspect));
    }

    /// Returns how many suspects are left.
    pub(crate) fn len(&self) -> usize {
        self.suspects.len()
    }

    /// Returns the suspects in words.
    pub(crate) fn describe(&self, tables: &[LegacyBlob]) -> Vec<LegacySuspect> {
        let mut described = Vec::new();
        for table in tables {
            let names = chain_names(table);
            let chain_at = |at: usize| names.get(&at).cloned();
            for entry in entries(table) {
                let Some(effect) = entry.effect else { continue };
                if !self.suspects.iter().any(|(name, at)| *name == table.table && *at == entry.at) {
                    continue;
                }
                let chain = chain_at(entry.chain).unwrap_or_else(|| "?".to_owned());
                let v6 = table.family == Family::V6;
                let text = legacy_rule(entry.bytes, &chain, v6, chain_at).map(|(text, _)| text);
                described.push(LegacySuspect {
                    table: table.table.clone(),
                    position: entry.position,
                    is_policy: table.policies.contains(&Some(entry.at)),
                    effect,
                    text: text.unwrap_or_default(),
                    chain,
                });
            }
        }
        described
    }
}

/// Returns tables that are the same in both readings.
fn pairs<'a>(
    before: &'a [LegacyBlob],
    after: &'a [LegacyBlob],
) -> impl Iterator<Item = (&'a LegacyBlob, &'a LegacyBlob)> {
    after.iter().filter_map(|after| {
        let same =
            |before: &&LegacyBlob| before.table == after.table && before.entries.len() == after.entries.len();
        before.iter().find(same).map(|before| (before, after))
    })
}

/// Returns the chains' names by the offset of their first rule.
fn chain_names(table: &LegacyBlob) -> HashMap<usize, String> {
    let mut names: HashMap<usize, String> =
        table.chains.iter().zip(HOOKS).filter_map(|(at, name)| at.map(|at| (at, name.to_owned()))).collect();
    let mut at = 0;
    while let Some((target, next)) = extent(table, at) {
        if let Some((b"ERROR", info)) = extension(&table.entries, target, next) {
            let name = info.split(|byte| *byte == 0).next().unwrap_or_default();
            names.insert(next, crate::text::beginning(&String::from_utf8_lossy(name), CHAIN));
        }
        at = next;
    }
    names
}

/// Returns the rules of a table, in their order, without the heads of chains.
fn entries(table: &LegacyBlob) -> Vec<Entry<'_>> {
    let counters = if table.family == Family::V6 { 152 } else { 96 };
    let (mut at, mut chain, mut position) = (0, 0, 0);
    let mut found = Vec::new();
    while let Some((target, next)) = extent(table, at) {
        if table.chains.contains(&Some(at)) {
            (chain, position) = (at, 0);
        }
        let Some((name, info)) = extension(&table.entries, target, next) else { break };
        if name == b"ERROR" {
            (chain, position) = (next, 0);
        } else if let Some(bytes) = table.entries.get(at..next) {
            position += 1;
            let packets = bytes.get(counters..).and_then(|rest| rest.first_chunk());
            let packets = packets.map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            found.push(Entry { bytes, at, chain, position, packets, effect: effect(name, info) });
        }
        at = next;
    }
    found
}

/// Returns what a target does, if it ends or translates a packet.
fn effect(name: &[u8], info: &[u8]) -> Option<LegacyEffect> {
    match name {
        b"" => match i32::from_ne_bytes(*info.first_chunk()?) {
            // -NF_DROP - 1 and -NF_QUEUE - 1.
            -1 => Some(LegacyEffect::Ends(Action::Drop)),
            -4 => Some(LegacyEffect::Ends(Action::Queue)),
            _ => None,
        },
        b"REJECT" => Some(LegacyEffect::Ends(Action::Reject)),
        b"NFQUEUE" => Some(LegacyEffect::Ends(Action::Queue)),
        b"DNAT" | b"REDIRECT" | b"NETMAP" => Some(LegacyEffect::Translates),
        _ => None,
    }
}

/// Returns the offsets of an entry's target and of the next entry.
fn extent(table: &LegacyBlob, at: usize) -> Option<(usize, usize)> {
    let (offsets, header) = if table.family == Family::V6 { (140, 168) } else { (88, 112) };
    let half = |at: usize| {
        let bytes = table.entries.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_ne_bytes(*bytes)))
    };
    let (target, next) = (at + half(at + offsets)?, at + half(at + offsets + 2)?);
    (at + header <= target && target < next && next <= table.entries.len()).then_some((target, next))
}

/// Returns name and data of a target.
fn extension(entries: &[u8], at: usize, end: usize) -> Option<(&[u8], &[u8])> {
    let bytes = entries.get(at..end)?;
    let name = bytes.get(2..2 + NAME)?.split(|byte| *byte == 0).next()?;
    Some((name, bytes.get(TARGET_HEADER..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule of IPv4 with a standard target.
    fn rule(verdict: i32, packets: u64) -> Vec<u8> {
        let mut bytes = vec![0; 152];
        bytes[88..90].copy_from_slice(&112_u16.to_ne_bytes());
        bytes[90..92].copy_from_slice(&152_u16.to_ne_bytes());
        bytes[96..104].copy_from_slice(&packets.to_ne_bytes());
        bytes[112..114].copy_from_slice(&40_u16.to_ne_bytes());
        bytes[144..148].copy_from_slice(&verdict.to_ne_bytes());
        bytes
    }

    fn table(counts: [u64; 3]) -> LegacyBlob {
        let [first, second, policy] = counts;
        LegacyBlob {
            family: Family::V4,
            table: "filter".to_owned(),
            chains: [None, None, None, Some(0), None],
            policies: [None, None, None, Some(304), None],
            entries: [rule(-1, first), rule(-1, second), rule(-2, policy)].concat(),
        }
    }

    #[test]
    fn who_counted_too_little_is_no_suspect() {
        let (before, after) = ([table([5, 5, 9])], [table([6, 8, 20])]);
        let mut lineup = Lineup::new(&before, &after, 1, false);
        assert_eq!((lineup.len(), lineup.considered), (2, 2));
        lineup.narrow(&Lineup::new(&before, &after, 3, false));
        let suspects = lineup.describe(&after);
        assert_eq!(suspects.len(), 1);
        assert_eq!((suspects[0].chain.as_str(), suspects[0].position), ("OUTPUT", 2));
        assert_eq!(suspects[0].text, "-A OUTPUT -j DROP");
        // A table that was rewritten between the readings tells nothing.
        let mut other = table([9, 9, 9]);
        other.entries.truncate(152);
        assert_eq!(Lineup::new(&before, &[other], 1, false).len(), 0);
    }

    #[test]
    fn rules_for_other_packets_are_no_suspects() {
        let may_stop = |text: &str| {
            let suspect = LegacySuspect {
                table: "filter".to_owned(),
                chain: "INPUT".to_owned(),
                position: 1,
                is_policy: false,
                effect: LegacyEffect::Ends(Action::Drop),
                text: text.to_owned(),
            };
            suspect.may_stop_client(7000)
        };
        for text in [
            "-A INPUT -j DROP",
            "-A INPUT -p tcp -m tcp --dport 7000 -j DROP",
            "-A OUTPUT -p tcp -m tcp --sport 7000 -j DROP",
            "-A INPUT -p tcp -m tcp ! --dport 22 -j DROP",
            "-A INPUT -p tcp -m tcp --dport 6000:8000 -j DROP",
            "",
        ] {
            assert!(may_stop(text), "{text}");
        }
        for text in [
            "-A INPUT -p udp -j DROP",
            "-A INPUT -p icmp -j DROP",
            "-A INPUT -p tcp -m tcp --dport 22 -j DROP",
            "-A OUTPUT -p tcp -m tcp --sport 22 -j DROP",
        ] {
            assert!(!may_stop(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_tables_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600), v6: bool) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let chains = [Some(0), Some(200), None, None, None];
            let table =
                LegacyBlob { family, table: "filter".to_owned(), chains, policies: chains, entries: bytes };
            let tables = [table];
            Lineup::new(&tables, &tables, 0, false).describe(&tables);
        }
    }
}
