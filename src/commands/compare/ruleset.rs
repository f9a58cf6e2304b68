//! The rules of a namespace, asked for while the trace reports them: a rule that is rewritten a moment later
//! is still named.
use crate::{
    diagnose::{
        RuleFacts,
        rule_text::{
            self, Headers,
            set::{SetDescription, SetElement},
        },
    },
    host::{
        interface,
        netlink::NetlinkError,
        nf_tables::{NfTables, RawSet},
        nf_trace::{TraceEvent, TraceKind},
    },
};
use std::{collections::HashMap, sync::Arc};

/// A set by family, table and name.
type SetKey = (u8, Vec<u8>, Vec<u8>);

/// A rule by family, table, chain and handle, and the headers of the packet that it judged.
type RuleKey = (u8, Vec<u8>, Vec<u8>, u64, Vec<u8>);

/// A reader of rules, with a cache of what it has read.
pub(super) struct Ruleset {
    tables: NfTables,
    sets: HashMap<SetKey, RawSet>,
    facts: HashMap<RuleKey, Option<Arc<RuleFacts>>>,
    generation: Option<u32>,
}

impl Ruleset {
    /// Opens a reader in the calling thread's namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub(crate) fn open() -> Result<Ruleset, NetlinkError> {
        let mut tables = NfTables::open()?;
        let generation = tables.generation().ok();
        Ok(Ruleset { tables, sets: HashMap::new(), facts: HashMap::new(), generation })
    }

    /// Returns whether others have changed the rules since the reader was opened, of whose changes
    /// `commits` are netkat's.
    pub(crate) fn has_changed(&mut self, commits: u32) -> bool {
        let now = self.tables.generation().ok();
        now.zip(self.generation).is_some_and(|(now, before)| now != before.wrapping_add(commits))
    }

    /// Returns what is known of the rule of an event, or of the policy's chain.
    pub(crate) fn facts(&mut self, event: &TraceEvent, headers: Headers) -> Option<Arc<RuleFacts>> {
        match (event.kind, event.handle) {
            (TraceKind::Rule, Some(handle)) => {
                let packet = [headers.network, headers.transport].concat();
                let key = (event.family, event.table.clone(), event.chain.clone(), handle, packet);
                if let Some(known) = self.facts.get(&key) {
                    return known.clone();
                }
                let facts = self.rule(event, handle, headers).map(Arc::new);
                self.facts.insert(key, facts.clone());
                facts
            }
            (TraceKind::Policy, _) if event.ends_the_packet() => {
                let rules = self.tables.rules(event.family, &event.table, &event.chain).ok()?;
                let position = Some((0, rules.len()));
                Some(Arc::new(RuleFacts { position, ..RuleFacts::default() }))
            }
            _ => None,
        }
    }

    /// Returns what is known of the rule of an event, or of the policy's chain, as it is now. Nothing is kept, so a long
    /// watch needs no more memory than a short one, and no set is out of date.
    pub(crate) fn fresh(&mut self, event: &TraceEvent, headers: Headers) -> Option<Arc<RuleFacts>> {
        self.sets.clear();
        self.facts.clear();
        let facts = self.facts(event, headers);
        self.facts.clear();
        facts
    }

    fn rule(&mut self, event: &TraceEvent, handle: u64, headers: Headers) -> Option<RuleFacts> {
        let rule = self.tables.rule(event.family, &event.table, &event.chain, handle).ok()??;
        let mut table = Table { ruleset: self, family: event.family, name: &event.table };
        let text = rule_text::render(event.family, &rule.attributes, &mut table, Some(headers));
        // The whole chain is read only where the rule decides: it may have thousands.
        let decides = event.ends_the_packet() || text.translates.is_some() || text.mark.is_some();
        let position = decides.then(|| self.position(event, handle)).flatten();
        Some(RuleFacts { text, position })
    }

    fn position(&mut self, event: &TraceEvent, handle: u64) -> Option<(usize, usize)> {
        let rules = self.tables.rules(event.family, &event.table, &event.chain).ok()?;
        let index = rules.iter().position(|rule| rule.handle() == Some(handle))?;
        Some((index + 1, rules.len()))
    }

    fn set(&mut self, key: SetKey) -> &RawSet {
        let Ruleset { tables, sets, .. } = self;
        let (family, table, name) = key.clone();
        sets.entry(key).or_insert_with(|| {
            tables.set(family, &table, &name).unwrap_or_else(|error| {
                log::debug!("cannot read the set {}: {error}", String::from_utf8_lossy(&name));
                RawSet::default()
            })
        })
    }
}

/// The sets and interfaces that the text of a table's rules refers to.
struct Table<'a> {
    ruleset: &'a mut Ruleset,
    family: u8,
    name: &'a [u8],
}

impl Table<'_> {
    fn raw(&mut self, set: &[u8]) -> &RawSet {
        self.ruleset.set((self.family, self.name.to_vec(), set.to_vec()))
    }
}

impl rule_text::Ruleset for Table<'_> {
    fn set(&mut self, name: &[u8]) -> Option<SetDescription> {
        let raw = self.raw(name);
        (!raw.attributes.is_empty()).then(|| SetDescription::parse(&raw.attributes))
    }

    fn elements(&mut self, name: &[u8]) -> Vec<SetElement> {
        self.raw(name).elements.iter().flat_map(|message| SetElement::parse_all(message)).collect()
    }

    fn elements_at(&mut self, name: &[u8], _: &[u8]) -> Vec<SetElement> {
        self.elements(name)
    }

    fn interface(&mut self, index: u32) -> Option<String> {
        interface::name(index)
    }
}
