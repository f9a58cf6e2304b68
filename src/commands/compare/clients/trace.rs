//! The trace of handshakes: the table that marks them, the kernel's events, and the ways that these tell.
use super::{
    super::{aftermath::queues, ruleset::Ruleset, traced::create_table},
    CompareClients,
    connections::Connections,
    ways::Ways,
};
use crate::{
    diagnose::{ClientTranslation, PacketEnd, Space},
    host::{interface::Interface, netlink::NetlinkError, nf_trace::TraceMonitor},
    kernel::TraceTable,
};
use std::time::{Duration, Instant};

/// Time that the rules of a table without an owner mark packets after netkat is killed.
const LIFETIME: Duration = Duration::from_secs(5);

/// Maximum datagrams of events that are taken at once.
const DATAGRAMS: usize = 4096;

/// A trace under way. The table is dropped before the rest is of no use.
pub(super) struct HandshakeTrace {
    pub monitor: TraceMonitor,
    table: TraceTable,
    ruleset: Ruleset,
    ways: Ways,
    port: u16,
}

/// The result of a trace.
#[derive(Default)]
pub(super) struct Traced {
    pub ends: Vec<PacketEnd>,
    pub translations: Vec<ClientTranslation>,
    /// Others have changed the rules meanwhile.
    pub ruleset_changed: bool,
}

impl HandshakeTrace {
    /// Makes the table in the calling thread's network namespace, and subscribes to the trace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EOPNOTSUPP and the like where the kernel lacks nf_tables.
    pub(super) fn open(
        asked: &CompareClients,
        interfaces: &[Interface],
    ) -> Result<HandshakeTrace, NetlinkError> {
        // The reader before the table, whose changes count; the subscription, too.
        let ruleset = Ruleset::open()?;
        let monitor = TraceMonitor::open()?;
        let first = asked.interface.as_ref().map(|interface| interface.name.as_str());
        let mut table = create_table(interfaces, first, false, LIFETIME, asked.owner)?;
        let port = asked.asked.port();
        table.watch_handshakes(port)?;
        let space = Space { name: "here".to_owned(), queues: queues(), ..Space::default() };
        let ways = Ways::new(table.name(), space);
        Ok(HandshakeTrace { monitor, table, ruleset, ways, port })
    }

    /// Takes the events that have arrived.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn collect(
        &mut self,
        connections: &mut Connections,
        now: Instant,
    ) -> Result<(), NetlinkError> {
        for event in self.monitor.take_some(DATAGRAMS)? {
            self.ways.take(event, &mut self.ruleset, connections, now);
        }
        Ok(())
    }

    /// Keeps the rules in force where the table has no owner.
    pub(super) fn refresh(&mut self) {
        if let Err(error) = self.table.keep_alive(self.port) {
            log::warn!("cannot keep the trace's rules in force: {error}");
        }
    }

    /// Removes the table.
    pub(super) fn finish(mut self, connections: &mut Connections) -> Traced {
        let (ends, translations) = self.ways.finish(connections);
        Traced { ends, translations, ruleset_changed: self.ruleset.has_changed(self.table.commits()) }
    }
}
