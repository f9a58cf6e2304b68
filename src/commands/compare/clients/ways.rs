//! The ways of clients' packets through netfilter, joined from trace events as they come.
//!
//! Only packets on their way are kept, and of those that are over the hooks they came to and what ended them. So many
//! clients need no more memory than few.
use super::{super::ruleset::Ruleset, connections::Connections};
use crate::{
    diagnose::{
        ClientTranslation, Observation, PacketEnd, PacketHeader, RuleFacts, Space, Step, Subject, continues,
        place, rule_text::Headers,
    },
    host::nf_trace::{TraceEvent, TraceKind, TraceVerdict},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

/// Maximum packets on their way that are followed at once.
const MAX_OPEN: usize = 256;
/// Maximum events of one packet that are kept.
const MAX_STEPS: usize = 512;
/// Maximum rules whose text is kept.
const MAX_RULES: usize = 4096;
/// Maximum rules and policies that ended packets.
const MAX_ENDS: usize = 256;
/// Packets of one end whose elements of sets are compared.
const COMPARED: u8 = 16;

/// A rule by family, table, chain and handle; a policy has no handle.
type RuleName = (u8, Vec<u8>, Vec<u8>, Option<u64>);

/// The packets on their way, and what ended those before.
pub(super) struct Ways {
    /// The own table's name.
    own: Vec<u8>,
    open: HashMap<u32, Open>,
    /// The ids of open packets, oldest first. An id may be here twice.
    order: VecDeque<u32>,
    rules: HashMap<RuleName, Option<Arc<RuleFacts>>>,
    /// The rules and policies that ended packets, each with the number of packets whose elements were compared.
    ends: Vec<(PacketEnd, u8)>,
    by_name: HashMap<(Subject, RuleName, Option<String>), usize>,
    translations: Vec<ClientTranslation>,
    /// For the words of places: namespace and queues.
    space: Space,
}

/// A packet on its way.
struct Open {
    connection: usize,
    observation: Observation,
    network: Vec<u8>,
    transport: Vec<u8>,
}

impl Ways {
    /// `own` is the name of the table whose chains tell how far packets come.
    pub(super) fn new(own: &str, space: Space) -> Ways {
        Ways {
            own: own.as_bytes().to_vec(),
            open: HashMap::new(),
            order: VecDeque::new(),
            rules: HashMap::new(),
            ends: Vec::new(),
            by_name: HashMap::new(),
            translations: Vec::new(),
            space,
        }
    }

    /// Takes an event, and reads the rule that it names if it is a client's.
    pub(super) fn take(
        &mut self,
        event: TraceEvent,
        ruleset: &mut Ruleset,
        connections: &mut Connections,
        now: Instant,
    ) {
        let id = event.id;
        let mut step = Step { own: event.table == self.own, event, rule: None };
        if !step.event.network_header.is_empty() {
            self.join(&step, connections, now);
        }
        let Some(mut open) = self.open.remove(&id) else { return };
        let way = connections.get_mut(open.connection).map(|connection| match open.observation.subject {
            Subject::Syn => &mut connection.syn,
            _ => &mut connection.answer,
        });
        if let Some(way) = way.filter(|_| step.own) {
            let chain = String::from_utf8_lossy(&step.event.chain).into_owned();
            let hook = if chain.starts_with("ingress") { "ingress".to_owned() } else { chain };
            if !way.came_to(&hook) {
                way.hooks.push(hook);
            }
        }
        if !step.own {
            let headers = Headers { network: &open.network, transport: &open.transport };
            step.rule = self.facts(&step.event, headers, ruleset);
        }
        let queued = matches!(step.event.verdict, Some(TraceVerdict::Queue(_)));
        let over = !step.own && step.event.ends_the_packet() && !queued;
        if open.observation.steps.len() < MAX_STEPS || over {
            open.observation.steps.push(step);
        }
        match over {
            true => self.close(open, ruleset, connections),
            false => drop(self.open.insert(id, open)),
        }
    }

    /// Finds the packet of an event with headers: that of the event's id, or another one.
    fn join(&mut self, step: &Step, connections: &mut Connections, now: Instant) {
        let event = &step.event;
        let header = PacketHeader::of_parts(&event.network_header, &event.transport_header);
        let headers = (event.network_header.clone(), event.transport_header.clone());
        if let (Some(open), Some(header)) = (self.open.get_mut(&event.id), &header)
            && continues(&open.observation, header, step)
        {
            if open.observation.header != *header && !open.observation.later.contains(header) {
                open.observation.later.push(*header);
            }
            (open.network, open.transport) = headers;
            self.note_translation(event.id, header, connections);
            return;
        }
        if let Some(before) = self.open.remove(&event.id) {
            self.close_unread(before, connections);
        }
        let found = header.and_then(|header| Some((header, connections.of_traced(&header, event, now)?)));
        let Some((header, (connection, subject))) = found else { return };
        if self.order.len() >= MAX_OPEN
            && let Some(oldest) = self.order.pop_front()
            && let Some(open) = self.open.remove(&oldest)
        {
            self.close_unread(open, connections);
        }
        let observation = Observation { subject, header, later: Vec::new(), steps: Vec::new() };
        let (network, transport) = headers;
        self.open.insert(event.id, Open { connection, observation, network, transport });
        self.order.push_back(event.id);
    }

    /// Notes what gave a SYN the destination that it has now, if it is another one.
    fn note_translation(&mut self, id: u32, header: &PacketHeader, connections: &mut Connections) {
        let Some(open) = self.open.get(&id) else { return };
        let Observation { subject, header: first, .. } = &open.observation;
        let connection = connections.get_mut(open.connection);
        let Some(connection) = connection.filter(|connection| {
            *subject == Subject::Syn
                && first.destination != header.destination
                && connection.syn.translated.is_none()
        }) else {
            return;
        };
        let by = place::translated(&self.space, &open.observation);
        let found = ClientTranslation { to: header.destination, by };
        let known = self.translations.iter().position(|known| *known == found);
        connection.syn.translated = known.or_else(|| {
            (self.translations.len() < MAX_ENDS).then(|| {
                self.translations.push(found);
                self.translations.len() - 1
            })
        });
    }

    /// Returns what is known of an event's rule. A rule is read when a packet first meets it.
    fn facts(
        &mut self,
        event: &TraceEvent,
        headers: Headers,
        ruleset: &mut Ruleset,
    ) -> Option<Arc<RuleFacts>> {
        if event.handle.is_none() && !event.ends_the_packet() {
            return None;
        }
        let name = name(event);
        if let Some(known) = self.rules.get(&name) {
            return known.clone();
        }
        let facts = ruleset.fresh(event, headers);
        if self.rules.len() < MAX_RULES {
            self.rules.insert(name, facts.clone());
        }
        facts
    }

    /// Notes what ended a packet, and reads the rule again for the set's element that this packet met.
    fn close(&mut self, mut open: Open, ruleset: &mut Ruleset, connections: &mut Connections) {
        let last = open.observation.steps.last().filter(|step| step.event.kind == TraceKind::Rule);
        let compares = last.is_some_and(|step| {
            let known = self.by_name.get(&self.end_name(&open.observation, step));
            let known = known.and_then(|index| self.ends.get(*index));
            known.is_none_or(|(end, compared)| end.culprit.element.is_some() && *compared < COMPARED)
        });
        if compares && let Some(step) = open.observation.steps.last_mut() {
            let headers = Headers { network: &open.network, transport: &open.transport };
            // A rule that is gone since keeps the text that it had.
            step.rule = ruleset.fresh(&step.event, headers).or_else(|| step.rule.take());
        }
        self.note_end(&open, compares, connections);
    }

    /// Notes what ended a packet whose rule is read already: a queue, if anything.
    fn close_unread(&mut self, open: Open, connections: &mut Connections) {
        self.note_end(&open, false, connections);
    }

    fn note_end(&mut self, open: &Open, compared: bool, connections: &mut Connections) {
        let observation = &open.observation;
        let Some((_, step)) = observation.end() else { return };
        let name = self.end_name(observation, step);
        let index = match self.by_name.get(&name) {
            Some(index) => *index,
            None => {
                let Some(place::Ended { culprit, done }) = place::ended(&self.space, observation) else {
                    return;
                };
                if self.ends.len() >= MAX_ENDS {
                    return;
                }
                self.ends.push((PacketEnd { culprit, done }, 0));
                self.by_name.insert(name, self.ends.len() - 1);
                self.ends.len() - 1
            }
        };
        if let Some((end, count)) = self.ends.get_mut(index).filter(|_| compared) {
            *count += 1;
            let found = place::ended(&self.space, observation).and_then(|ended| ended.culprit.element);
            if end.culprit.element != found {
                // Clients met different elements: none of them is the cause's.
                end.culprit.element = None;
            }
        }
        let Some(connection) = connections.get_mut(open.connection) else { return };
        let way = match observation.subject {
            Subject::Syn => &mut connection.syn,
            _ => &mut connection.answer,
        };
        way.ended.get_or_insert(index);
    }

    /// Returns the name of what ended a packet: by whom, what, and at which hook.
    fn end_name(&self, observation: &Observation, step: &Step) -> (Subject, RuleName, Option<String>) {
        let hook = observation.hook_of(observation.steps.len());
        (observation.subject, name(&step.event), hook)
    }

    /// Returns what ended packets, and what gave them other destinations. A packet that still waits in a queue was ended
    /// there.
    pub(super) fn finish(
        mut self,
        connections: &mut Connections,
    ) -> (Vec<PacketEnd>, Vec<ClientTranslation>) {
        let open: Vec<Open> = self.open.drain().map(|(_, open)| open).collect();
        for packet in open {
            self.close_unread(packet, connections);
        }
        (self.ends.into_iter().map(|(end, _)| end).collect(), self.translations)
    }
}

fn name(event: &TraceEvent) -> RuleName {
    let handle = event.handle.filter(|_| event.kind == TraceKind::Rule);
    (event.family, event.table.clone(), event.chain.clone(), handle)
}
