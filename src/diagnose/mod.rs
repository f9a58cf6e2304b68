//! Diagnosis: what the kernel did with the packets of one attempt, and who is to blame.
//!
//! [`Evidence`] is what the sources saw of the attempt: traces of rules, packets at the devices, conntrack,
//! routes. [`decide()`] turns it into a [`Finding`] without any question: it is a pure function,
//! tested row by row.
pub(crate) mod belongs;
mod clients;
mod decide;
mod drop_event;
mod evidence;
mod finding;
mod legacy;
mod observation;
mod packet;
pub(crate) mod rule_text;

pub(crate) use clients::{
    ClientCause, ClientConnection, ClientEvidence, ClientFinding, ClientOutcome, ClientTranslation,
    ListeningSocket, PacketEnd, PacketWay, SocketPrograms, decide_clients,
};
pub(crate) use decide::{decide, place};
pub(crate) use drop_event::DropEvent;
pub(crate) use evidence::{
    Evidence, KernelPath, LegacyEvidence, NeighbourState, Outcome, Programs, RawPath, Refused, Seen,
    SourceState, Space,
};
pub(crate) use finding::{Action, Certainty, Culprit, CulpritKind, Finding, Word};
pub(crate) use legacy::{LegacySuspect, Lineup};
pub(crate) use observation::{Ends, Observation, RuleFacts, Step, continues, join};
pub(crate) use packet::{PacketHeader, PacketKind, Subject};
