//! Observations: the trace events of one packet on its way through netfilter, joined by the packet's headers.
//!
//! The kernel's id of a trace is a hash of the packet's address in memory, which the next packet may have,
//! too. So the headers, which the first event of each base chain carries, say whose the events are. A
//! packet of the attempt is known by the SYN's sequence number even after its addresses were translated.
use super::{
    packet::{PacketHeader, PacketKind, Subject},
    rule_text::RuleText,
};
use crate::{
    host::nf_trace::{TraceEvent, TraceKind, TraceVerdict},
    net::Protocol,
};
use std::{collections::HashMap, net::SocketAddr, sync::Arc};

/// A rule's text and place.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleFacts {
    pub text: RuleText,
    /// The rule's number in its chain, from 1, and the number of rules; only where the rule decided.
    pub position: Option<(usize, usize)>,
}

/// One event of a packet's way.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub event: TraceEvent,
    /// The event is of netkat's own trace table, whose chains only show how far the packet came.
    pub own: bool,
    /// The rule's text and place.
    pub rule: Option<Arc<RuleFacts>>,
}

/// A packet's way through netfilter.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub subject: Subject,
    pub header: PacketHeader,
    /// Headers that the packet had later, after a translation.
    pub later: Vec<PacketHeader>,
    pub steps: Vec<Step>,
}

impl Observation {
    /// Returns the step that ended the packet. A queue does, unless its program gave the packet back.
    pub(crate) fn end(&self) -> Option<(usize, &Step)> {
        let last = self.steps.len().saturating_sub(1);
        self.steps.iter().enumerate().find(|(index, step)| match step.event.verdict {
            Some(TraceVerdict::Queue(_)) => *index == last,
            _ => !step.own && step.event.ends_the_packet(),
        })
    }

    /// Returns whether the packet came to a hook, by the events of netkat's own chains.
    pub(crate) fn came_to(&self, hook: &str) -> bool {
        self.steps.iter().any(|step| step.own && step.event.chain == hook.as_bytes())
    }

    /// Returns the hook that a step belongs to: the last own chain's before it.
    pub(crate) fn hook_of(&self, index: usize) -> Option<String> {
        let before = self.steps.get(..index)?.iter().rev().find(|step| step.own)?;
        let name = String::from_utf8_lossy(&before.event.chain).into_owned();
        Some(if name.starts_with("ingress") { "ingress".to_owned() } else { name })
    }

    /// Returns the last mark that the packet had.
    pub(crate) fn mark(&self) -> Option<u32> {
        self.steps.iter().rev().find_map(|step| step.event.mark)
    }

    /// Returns the chains that led to a step, the base chain first, the step's own last.
    pub(crate) fn jumps(&self, index: usize) -> Vec<(&[u8], Option<&Step>)> {
        let Some(step) = self.steps.get(index) else { return Vec::new() };
        let mut path = vec![(step.event.chain.as_slice(), None)];
        let before = self.steps.get(..index).unwrap_or_default();
        for earlier in before.iter().rev() {
            let same_table =
                (earlier.event.family, &earlier.event.table) == (step.event.family, &step.event.table);
            let leads = earlier.event.jump.as_deref() == path.last().map(|(chain, _)| *chain);
            if same_table && leads && earlier.event.jump.is_some() {
                path.push((earlier.event.chain.as_slice(), Some(earlier)));
            }
        }
        path.reverse();
        path
    }
}

/// The protocol, addresses, ports and sequence number that identify the attempt's packets.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub protocol: Protocol,
    /// The attempt's own end, and those that translations gave it.
    pub local: Vec<SocketAddr>,
    /// The SYN's sequence number, once it is known. UDP has none.
    pub sequence: Option<u32>,
}

impl Ends {
    /// Returns what a packet is in the attempt; `None` for packets of others.
    pub(crate) fn subject(&self, header: &PacketHeader) -> Option<Subject> {
        let is_local = |end: &SocketAddr| self.local.iter().any(|local| same(local, end));
        let answers = || {
            is_local(&header.destination)
                || self.sequence.is_some_and(|syn| header.acknowledgment == syn.wrapping_add(1))
        };
        match header.kind {
            PacketKind::Icmp { .. } => {
                let quoted = header.quoted.filter(|quoted| quoted.protocol == self.protocol)?;
                (is_local(&quoted.source) || is_local(&quoted.destination)).then_some(Subject::Icmp)
            }
            PacketKind::Datagram if self.protocol == Protocol::Udp => match header {
                _ if is_local(&header.source) => Some(Subject::Syn),
                _ if is_local(&header.destination) => Some(Subject::SynAck),
                _ => None,
            },
            _ if self.protocol == Protocol::Udp => None,
            PacketKind::Syn => {
                (is_local(&header.source) || self.sequence == Some(header.sequence)).then_some(Subject::Syn)
            }
            PacketKind::SynAck => answers().then_some(Subject::SynAck),
            PacketKind::Reset => (answers() && !is_local(&header.source)).then_some(Subject::Reset),
            _ => None,
        }
    }

    /// Returns what a traced packet is. A trace holds too little of an ICMP error to show what it quotes, and of
    /// neighbour discovery to show for whom it asks, but netkat's own rules mark only those of the attempt.
    pub(crate) fn traced_subject(&self, header: &PacketHeader, step: &Step) -> Option<Subject> {
        let marked = step.own && step.event.kind == TraceKind::Rule;
        self.subject(header).or(match header.kind {
            _ if !marked => None,
            PacketKind::Icmp { .. } => Some(Subject::Icmp),
            PacketKind::Neighbour { answer: false } => Some(Subject::NeighbourQuestion),
            PacketKind::Neighbour { answer: true } => Some(Subject::NeighbourAnswer),
            _ => None,
        })
    }

    /// Takes the sequence number of the attempt's SYN.
    pub(crate) fn learn(&mut self, header: &PacketHeader) {
        let ours = header.kind == PacketKind::Syn && self.local.iter().any(|end| same(end, &header.source));
        if ours && self.sequence.is_none() {
            self.sequence = Some(header.sequence);
        }
    }
}

/// Compares addresses and ports; a packet has no zone.
fn same(a: &SocketAddr, b: &SocketAddr) -> bool {
    (a.ip(), a.port()) == (b.ip(), b.port())
}

/// Joins trace events, in the order of their arrival, into observations of the attempt's packets.
pub(crate) fn join(steps: Vec<Step>, ends: &mut Ends) -> Vec<Observation> {
    let mut observations: Vec<Observation> = Vec::new();
    // By trace id: the observation that further events belong to; none for packets of others.
    let mut current: HashMap<u32, Option<usize>> = HashMap::new();
    for step in steps {
        let event = &step.event;
        if let Some(header) = PacketHeader::of_parts(&event.network_header, &event.transport_header) {
            ends.learn(&header);
            let subject = ends.traced_subject(&header, &step);
            let known = current.get(&event.id).copied().flatten();
            let goes_on = known.filter(|index| {
                observations.get(*index).is_some_and(|observation| continues(observation, &header, &step))
            });
            let index = match (goes_on, subject) {
                (Some(index), _) => {
                    if let Some(observation) = observations.get_mut(index)
                        && observation.header != header
                        && !observation.later.contains(&header)
                    {
                        observation.later.push(header);
                    }
                    Some(index)
                }
                (None, Some(subject)) => {
                    observations.push(Observation { subject, header, later: Vec::new(), steps: Vec::new() });
                    Some(observations.len() - 1)
                }
                (None, None) => None,
            };
            current.insert(event.id, index);
        }
        let known = current.get(&step.event.id).copied().flatten();
        if let Some(observation) = known.and_then(|index| observations.get_mut(index)) {
            observation.steps.push(step);
        }
    }
    observations
}

/// Returns whether a base chain's first event goes on with an observation: the packet has not ended, is the
/// same or its translation, and does not come to the same own chain again, as its retransmission does.
fn continues(observation: &Observation, header: &PacketHeader, step: &Step) -> bool {
    let same_packet = observation.header.kind == header.kind
        && observation.header.sequence == header.sequence
        && observation.header.acknowledgment == header.acknowledgment;
    let again = step.own
        && observation.steps.iter().any(|earlier| {
            earlier.own
                && earlier.event.kind == step.event.kind
                && (earlier.event.family, &earlier.event.chain) == (step.event.family, &step.event.chain)
        });
    let ended = observation
        .end()
        .is_some_and(|(_, step)| !matches!(step.event.verdict, Some(TraceVerdict::Queue(_))));
    same_packet && !ended && !again
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::packet::tests::tcp, *};

    /// Returns an event with headers, in a chain of the own table or of "filter".
    pub(in crate::diagnose) fn step(
        (network_header, transport_header): (Vec<u8>, Vec<u8>),
        id: u32,
        own: bool,
        chain: &str,
        verdict: TraceVerdict,
    ) -> Step {
        let event = TraceEvent {
            family: if own { 1 } else { 2 },
            table: if own { b"netkat-trace-1".to_vec() } else { b"filter".to_vec() },
            chain: chain.as_bytes().to_vec(),
            handle: Some(3),
            kind: TraceKind::Rule,
            verdict: Some(verdict),
            jump: None,
            id,
            network_header,
            transport_header,
            input: None,
            output: Some(2),
            mark: None,
        };
        Step { event, own, rule: None }
    }

    fn ends() -> Ends {
        let local = vec!["10.0.0.1:5000".parse().expect("an address")];
        Ends { protocol: Protocol::Tcp, local, sequence: None }
    }

    #[test]
    fn events_are_joined_by_header_and_not_by_id_alone() {
        let ours = || tcp("10.0.0.1:5000", "10.0.0.2:80", 2, 7, 0);
        let others = tcp("10.0.0.9:1", "10.0.0.2:80", 2, 9, 0);
        let steps = vec![
            step(ours(), 1, true, "output", TraceVerdict::Continue),
            step(ours(), 1, false, "OUTPUT", TraceVerdict::Drop),
            // Another packet in the same memory, then our retransmission there.
            step(others, 1, false, "OUTPUT", TraceVerdict::Drop),
            step(ours(), 1, true, "output", TraceVerdict::Continue),
            step(ours(), 1, false, "OUTPUT", TraceVerdict::Drop),
        ];
        let found = join(steps, &mut ends());
        assert_eq!(found.iter().map(|o| o.steps.len()).collect::<Vec<_>>(), [2, 2]);
        assert!(found.iter().all(|o| o.end().is_some_and(|(index, _)| index == 1)));
    }

    #[test]
    fn translated_packets_are_known_by_the_sequence_number() {
        let steps = vec![
            step(tcp("10.0.0.1:5000", "10.0.0.2:80", 2, 7, 0), 1, true, "output", TraceVerdict::Continue),
            step(
                tcp("10.0.0.1:2222", "10.0.0.3:81", 2, 7, 0),
                1,
                true,
                "postrouting",
                TraceVerdict::Continue,
            ),
            step(tcp("10.0.0.3:81", "10.0.0.1:2222", 0x12, 90, 8), 2, false, "INPUT", TraceVerdict::Drop),
        ];
        let found = join(steps, &mut ends());
        assert_eq!(found.iter().map(|o| o.subject).collect::<Vec<_>>(), [Subject::Syn, Subject::SynAck]);
        assert_eq!(found[0].later.len(), 1);
        assert!(found[0].came_to("postrouting") && !found[0].came_to("forward"));
    }

    #[test]
    fn a_way_of_jumps_is_followed_back() {
        let packet = || tcp("10.0.0.1:5000", "10.0.0.2:80", 2, 7, 0);
        let mut jump = step(packet(), 1, false, "OUTPUT", TraceVerdict::Jump);
        jump.event.jump = Some(b"DENY".to_vec());
        let steps = vec![
            step(packet(), 1, true, "output", TraceVerdict::Continue),
            jump,
            step(packet(), 1, false, "DENY", TraceVerdict::Drop),
        ];
        let found = join(steps, &mut ends());
        let chains: Vec<_> = found[0].jumps(2).into_iter().map(|(chain, _)| chain).collect();
        assert_eq!(chains, [b"OUTPUT".as_slice(), b"DENY"]);
        assert_eq!(found[0].hook_of(2).as_deref(), Some("output"));
    }
}
