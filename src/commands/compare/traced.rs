//! The trace of one namespace: the table that marks the attempt's packets, the kernel's events about them, and the
//! rules that these name.
use super::{ruleset::Ruleset, watch::Settings};
use crate::{
    diagnose::{Ends, PacketHeader, PacketKind, Step, Subject, rule_text::Headers},
    host::{
        interface::Interface,
        netlink::NetlinkError,
        nf_trace::{TraceMonitor, TraceVerdict},
    },
    kernel::{TracePlaces, TraceTable},
};
use nix::errno::Errno;
use std::collections::HashMap;

/// Maximum devices with a chain of their own at ingress.
const MAX_DEVICES: usize = 64;
/// Maximum events of the attempt's packets that are kept.
const MAX_STEPS: usize = 20_000;

/// The packets of the attempt that were already stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stopped {
    /// A rule has ended the SYN or our datagram, and would do so again.
    pub syn: bool,
    /// A rule or a policy has ended a packet.
    pub any: bool,
}

/// Network and transport header.
type RawHeaders = (Vec<u8>, Vec<u8>);

/// A trace under way.
pub(super) struct Traced {
    pub monitor: TraceMonitor,
    pub table: TraceTable,
    pub ruleset: Ruleset,
    pub steps: Vec<Step>,
    /// By trace id: the headers of the attempt's packets.
    packets: HashMap<u32, RawHeaders>,
}

impl Traced {
    /// Makes the table, and subscribes to the trace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EOPNOTSUPP and the like where the kernel lacks nf_tables.
    pub(crate) fn open(settings: &Settings, interfaces: &[Interface]) -> Result<Traced, NetlinkError> {
        let mut devices: Vec<String> =
            interfaces.iter().filter(|interface| interface.up).map(|i| i.name.clone()).collect();
        devices.sort_by_key(|name| Some(name.as_str()) != settings.interface);
        devices.truncate(MAX_DEVICES);
        let bridges = interfaces.iter().any(|interface| interface.kind.as_deref() == Some("bridge"));
        // The reader before the table, whose changes count; the subscription, too: it misses nothing that the
        // table's rules mark.
        let ruleset = Ruleset::open()?;
        let monitor = TraceMonitor::open()?;
        let arp = settings.neighbour.is_some_and(|neighbour| neighbour.is_ipv4());
        let places = TracePlaces { devices, bridges, arp };
        let mut table = TraceTable::create(&places, settings.lifetime, settings.owner)
            // A kernel may lack the families netdev, bridge or arp.
            .or_else(|error| match error.errno() {
                Some(Errno::EPERM) => Err(error),
                _ => TraceTable::create(&TracePlaces::default(), settings.lifetime, settings.owner),
            })?;
        table.watch(settings.protocol, settings.end)?;
        if let Some(neighbour) = settings.neighbour {
            table.watch_neighbour(neighbour, settings.end.port())?;
        }
        Ok(Traced { monitor, table, ruleset, steps: Vec::new(), packets: HashMap::new() })
    }

    /// Takes the events that have arrived, and reads the rules that they name.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn collect(&mut self, ends: &mut Ends, stopped: &mut Stopped) -> Result<(), NetlinkError> {
        for event in self.monitor.take()? {
            let own = event.table == self.table.name().as_bytes();
            let mut step = Step { event, own, rule: None };
            let event = &step.event;
            if !event.network_header.is_empty() {
                let header = PacketHeader::of_parts(&event.network_header, &event.transport_header);
                let headers = (event.network_header.clone(), event.transport_header.clone());
                // In others' chains a packet that a rule of ours has marked is known by its headers.
                let ours = self.packets.get(&event.id) == Some(&headers)
                    || header.is_some_and(|header| {
                        ends.learn(&header);
                        ends.traced_subject(&header, &step).is_some()
                    });
                // Traces of others must not fill the memory.
                match ours {
                    true => self.packets.insert(event.id, headers),
                    false => self.packets.remove(&event.id),
                };
            }
            let Some((network, transport)) = self.packets.get(&event.id) else { continue };
            let headers = Headers { network, transport };
            step.rule = if own { None } else { self.ruleset.facts(event, headers) };
            note_stop(&step, PacketHeader::of_parts(network, transport), ends, stopped);
            if self.steps.len() < MAX_STEPS {
                self.steps.push(step);
            }
        }
        Ok(())
    }
}

/// Notes that a step has ended a packet. A queue's program may give it back.
fn note_stop(step: &Step, header: Option<PacketHeader>, ends: &Ends, stopped: &mut Stopped) {
    if step.own || !step.event.ends_the_packet() {
        return;
    }
    stopped.any = true;
    let is_syn = header.is_some_and(|header| match header.kind {
        // After a translation of the source, its end is not known yet.
        PacketKind::Datagram => ends.subject(&header) != Some(Subject::SynAck),
        kind => kind == PacketKind::Syn,
    });
    let queued = matches!(step.event.verdict, Some(TraceVerdict::Queue(_)));
    let varies = step.rule.as_ref().is_some_and(|rule| rule.text.varies);
    stopped.syn |= is_syn && !queued && !varies;
}
