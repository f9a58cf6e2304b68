//! The finding: the causes of what became of the clients, each with its clients.
use super::{
    super::{
        decide::name_owner,
        finding::{Certainty, Culprit},
    },
    ClientConnection, ClientEvidence,
    fate::{self, Fate},
};
use crate::net::{count, zone::endpoint};
use serde::Serialize;
use std::{collections::BTreeSet, net::IpAddr};

/// What became of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientOutcome {
    /// Something of this host stops them.
    ThisHost,
    /// They came in, and nothing was seen to answer or to stop them.
    Unknown,
    /// Nothing came in, or what left this host did not arrive.
    NotHere,
    /// They got a SYN-ACK.
    Answered,
}

impl ClientOutcome {
    /// Returns the outcome as text has it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            ClientOutcome::ThisHost => "this host",
            ClientOutcome::Unknown => "unknown",
            ClientOutcome::NotHere => "not here",
            ClientOutcome::Answered => "answered",
        }
    }
}

/// A cause, with the connections that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCause {
    pub outcome: ClientOutcome,
    pub sentence: String,
    pub culprit: Option<Culprit>,
    /// Addresses of clients.
    pub clients: BTreeSet<IpAddr>,
    pub connections: usize,
    pub syns: u64,
    /// The interfaces by which the SYNs came.
    pub interfaces: BTreeSet<String>,
}

/// The conclusion about all clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFinding {
    /// The worst outcome.
    pub outcome: ClientOutcome,
    /// What is wrong first, most clients first, then those that were answered.
    pub causes: Vec<ClientCause>,
    /// Connections that came too late to be judged.
    pub late: usize,
}

/// Decides what became of the clients.
pub(crate) fn decide_clients(evidence: &ClientEvidence) -> ClientFinding {
    let mut groups: Vec<(Fate, ClientCause)> = Vec::new();
    let mut late = 0;
    for connection in &evidence.connections {
        let Some(fate) = fate::of(evidence, connection) else {
            late += 1;
            continue;
        };
        match groups.iter_mut().find(|(known, _)| is_same(known, &fate)) {
            Some((known, cause)) => {
                // The weakest proof of its packets is the cause's.
                if let (Some(known), Some(new)) = (&mut known.culprit, fate.culprit)
                    && new.certainty == Certainty::Inferred
                {
                    *known = new;
                }
                cause.add(connection);
            }
            None => {
                let mut cause = ClientCause::new(fate.outcome);
                cause.add(connection);
                groups.push((fate, cause));
            }
        }
    }
    let mut causes: Vec<_> = groups.into_iter().map(|(fate, cause)| cause.told(fate)).collect();
    causes.sort_by_key(|cause| {
        (cause.outcome == ClientOutcome::Answered, std::cmp::Reverse(cause.clients.len()), cause.outcome)
    });
    if causes.is_empty() {
        causes.push(nothing_came(evidence, late));
    }
    let outcome = causes.iter().map(|cause| cause.outcome).min().unwrap_or(ClientOutcome::NotHere);
    ClientFinding { outcome, causes, late }
}

/// Returns whether two fates are one cause.
fn is_same(a: &Fate, b: &Fate) -> bool {
    let place = |fate: &Fate| fate.culprit.as_ref().map(|c| (c.place.clone(), c.text.clone(), c.action));
    (a.outcome, a.before, &a.after) == (b.outcome, b.before, &b.after) && place(a) == place(b)
}

/// No connection can be judged.
fn nothing_came(evidence: &ClientEvidence, late: usize) -> ClientCause {
    let asked = evidence.asked;
    let end = match asked.ip().is_unspecified() {
        true => format!("port {}", asked.port()),
        false => endpoint(&asked),
    };
    let seconds = evidence.time.as_secs_f64();
    let (outcome, sentence) = if late > 0 {
        (ClientOutcome::Unknown, format!("{} came too late to be judged", count(late as u64, "connection")))
    } else if !evidence.space.tap.used || evidence.space.tap.lost {
        (ClientOutcome::Unknown, "packets were lost, and no SYN was among the others".to_owned())
    } else {
        let mut programs: Vec<String> = evidence
            .programs
            .iter()
            .flat_map(|(name, at)| at.xdp.iter().map(move |program| format!("{program} on {name}")))
            .collect();
        programs.sort();
        let xdp = match programs.as_slice() {
            [] => String::new(),
            programs => format!("; or {} dropped it, which no tap sees before", programs.join(" or ")),
        };
        (ClientOutcome::NotHere, format!("no SYN for {end} came within {seconds:.1} s{xdp}"))
    };
    ClientCause { sentence, ..ClientCause::new(outcome) }
}

impl ClientCause {
    fn new(outcome: ClientOutcome) -> ClientCause {
        ClientCause {
            outcome,
            sentence: String::new(),
            culprit: None,
            clients: BTreeSet::new(),
            connections: 0,
            syns: 0,
            interfaces: BTreeSet::new(),
        }
    }

    fn add(&mut self, connection: &ClientConnection) {
        self.clients.insert(connection.client.ip());
        self.connections += 1;
        self.syns += connection.syns;
        if !connection.interface.is_empty() {
            self.interfaces.insert(connection.interface.clone());
        }
    }

    /// Returns the cause with the words for its clients.
    fn told(mut self, fate: Fate) -> ClientCause {
        let clients = count(self.clients.len() as u64, "client");
        self.sentence = format!("{} {clients} {}", fate.before, fate.after);
        self.culprit = fate.culprit;
        if let Some(culprit) = &mut self.culprit {
            name_owner(culprit);
        }
        self
    }
}
