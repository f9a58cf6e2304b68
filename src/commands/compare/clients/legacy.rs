//! The tables of iptables-legacy before and after the watch: rules whose counters moved by at least the SYNs that nothing
//! answered.
use super::connections::Connections;
use crate::{
    diagnose::{ClientConnection, LegacySuspect, Lineup},
    host::rules::Family,
    kernel::{LegacyBlob, LegacyReader},
};
use std::io;

/// The tables of one family.
pub(super) struct ClientLegacy {
    family: Family,
    reader: io::Result<LegacyReader>,
    before: Vec<LegacyBlob>,
}

impl ClientLegacy {
    /// Reads the tables in the calling thread's network namespace.
    pub(super) fn open(family: Family) -> ClientLegacy {
        let reader = LegacyReader::open(family);
        let before = reader.as_ref().ok().and_then(|reader| reader.read().ok()).unwrap_or_default();
        ClientLegacy { family, reader, before }
    }

    /// Returns whether there are any.
    pub(super) fn is_present(&self) -> bool {
        !self.before.is_empty()
    }

    /// Returns why the tables cannot be read.
    pub(super) fn unreadable(&self) -> Option<String> {
        self.reader.as_ref().err().map(ToString::to_string)
    }

    /// Returns the rules that may have stopped the clients' packets.
    pub(super) fn suspects(&self, connections: &Connections, port: u16) -> Vec<LegacySuspect> {
        let Some(after) = self.reader.as_ref().ok().and_then(|reader| reader.read().ok()) else {
            return Vec::new();
        };
        let lost: u64 =
            connections.iter().filter(|c| self.is_unexplained(c)).map(|connection| connection.syns).sum();
        if lost == 0 {
            return Vec::new();
        }
        let suspects = Lineup::new(&self.before, &after, lost, false).describe(&after);
        suspects.into_iter().filter(|suspect| suspect.may_stop_client(port)).collect()
    }

    /// Returns whether nothing but a rule that is not traced explains a connection's silence.
    fn is_unexplained(&self, connection: &ClientConnection) -> bool {
        let v4 = self.family == Family::V4;
        let elsewhere = connection.other_host || connection.forwarded_by.is_some();
        connection.server.is_ipv4() == v4
            && connection.answers == 0
            && connection.syn.ended.is_none()
            && connection.answer.ended.is_none()
            && !elsewhere
            && connection.drops.iter().all(|event| !event.is_a_loss() || event.is_by_netfilter())
    }
}
