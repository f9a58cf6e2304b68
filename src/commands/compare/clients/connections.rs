//! The connections that clients try to make, by their ends: a table of bounded size that all sources fill.
use super::{CompareClients, limit::TraceLimit};
use crate::{
    diagnose::{ClientConnection, PacketHeader, PacketKind, PacketWay, Subject},
    host::{interface::Interface, nf_trace::TraceEvent},
    link::Observed,
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Maximum connections that are kept.
const MAX_CONNECTIONS: usize = 1000;
/// An answer may take this long; a connection that came later in a watch is not judged by its silence.
const ANSWER_TIME: Duration = Duration::from_millis(200);

/// The connections seen so far.
pub(super) struct Connections {
    asked: SocketAddr,
    families: [bool; 2],
    /// Index of the only interface whose SYNs count.
    interface: Option<u32>,
    interfaces: Vec<Interface>,
    list: Vec<Tracked>,
    by_ends: HashMap<(SocketAddr, SocketAddr), usize>,
    /// By client and the SYN's sequence number, which no translation of the server's end changes.
    by_sequence: HashMap<(SocketAddr, u32), usize>,
    limit: TraceLimit,
    /// SYNs of connections beyond those that are kept.
    beyond: u64,
}

/// A connection, and what tells its packets apart.
struct Tracked {
    connection: ClientConnection,
    first: Instant,
    sequence: u32,
    /// The interface at which SYN-ACKs are counted: a bridge and its port both see them.
    answers_at: Option<u32>,
    answered: bool,
}

impl Connections {
    pub(super) fn new(asked: &CompareClients, interfaces: Vec<Interface>, now: Instant) -> Connections {
        Connections {
            asked: asked.asked,
            families: asked.families,
            interface: asked.interface.as_ref().map(|interface| interface.index),
            interfaces,
            list: Vec::new(),
            by_ends: HashMap::new(),
            by_sequence: HashMap::new(),
            limit: TraceLimit::new(now),
            beyond: 0,
        }
    }

    /// Returns the connection with this index.
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut ClientConnection> {
        self.list.get_mut(index).map(|tracked| &mut tracked.connection)
    }

    /// Returns the connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ClientConnection> {
        self.list.iter().map(|tracked| &tracked.connection)
    }

    /// Returns the connections of a watch that has ended, after `ask` has asked about them by the interfaces' names, and
    /// the number of SYNs of connections that were not kept.
    pub(super) fn finish(
        mut self,
        end: Instant,
        ask: impl FnOnce(&mut [ClientConnection], &dyn Fn(u32) -> String),
    ) -> (Vec<ClientConnection>, u64) {
        let tracked = std::mem::take(&mut self.list);
        let late = |tracked: Tracked| ClientConnection {
            late: end.saturating_duration_since(tracked.first) < ANSWER_TIME,
            ..tracked.connection
        };
        let mut connections: Vec<_> = tracked.into_iter().map(late).collect();
        ask(&mut connections, &|index| self.interface_name(index));
        (connections, self.beyond)
    }

    /// Takes a packet at a device.
    pub(super) fn observe(&mut self, packet: &Observed, header: &PacketHeader, now: Instant) {
        match (header.kind, packet.outgoing) {
            (PacketKind::Syn, false) => self.syn(packet, header, now),
            (PacketKind::Syn, true) => self.forwarded(packet, header),
            (PacketKind::SynAck, true) => self.answer(packet, header),
            (PacketKind::Reset, true) => {
                if let Some(tracked) = self.answered_by(header)
                    && header.acknowledgment == tracked.sequence.wrapping_add(1)
                {
                    tracked.connection.resets += 1;
                }
            }
            _ => {}
        }
    }

    /// A SYN came in.
    fn syn(&mut self, packet: &Observed, header: &PacketHeader, now: Instant) {
        if header.destination.port() != self.asked.port() {
            return;
        }
        // Each one counts against the limit, also of ends that nobody asked for. A bridge's port and the bridge both
        // see it: too little room is on the safe side.
        let room = self.limit.leaves_room(now);
        if self.interface.is_some_and(|index| index != packet.interface) {
            return;
        }
        let Some(index) = self.opened(header, packet.interface, now) else {
            self.beyond += u64::from(self.is_asked(header));
            return;
        };
        let Some(tracked) = self.list.get_mut(index) else { return };
        let connection = &mut tracked.connection;
        connection.traceable |= room;
        if connection.interface_index != packet.interface {
            return;
        }
        let again = tracked.sequence == header.sequence;
        connection.other_host = packet.other_host && (connection.syns == 0 || connection.other_host);
        connection.repeated |= tracked.answered && again;
        connection.syns += 1;
        if !again {
            // The client has opened another connection from the same port.
            tracked.answered = false;
            tracked.sequence = header.sequence;
            self.by_sequence.insert((header.source, header.sequence), index);
        }
    }

    /// A SYN left: it was not for this host.
    fn forwarded(&mut self, packet: &Observed, header: &PacketHeader) {
        let name = self.interface_name(packet.interface);
        let loopback = self.interfaces.iter().any(|i| i.index == packet.interface && i.loopback);
        if let Some(tracked) = self.known(header)
            && tracked.connection.syns > 0
            && tracked.connection.interface_index != packet.interface
            && !loopback
        {
            tracked.connection.forwarded_by.get_or_insert(name);
        }
    }

    /// A SYN-ACK left.
    fn answer(&mut self, packet: &Observed, header: &PacketHeader) {
        let Some(tracked) = self.answered_by(header) else { return };
        if *tracked.answers_at.get_or_insert(packet.interface) == packet.interface {
            tracked.connection.answers += 1;
            tracked.answered = true;
        }
    }

    /// Returns the connection of a packet from the server's end.
    fn answered_by(&mut self, header: &PacketHeader) -> Option<&mut Tracked> {
        let index = *self.by_ends.get(&(header.destination, header.source))?;
        self.list.get_mut(index)
    }

    /// Returns the connection of a SYN, whose server's end may have been translated.
    fn known(&mut self, header: &PacketHeader) -> Option<&mut Tracked> {
        let index = self.find(header)?;
        self.list.get_mut(index)
    }

    fn find(&self, header: &PacketHeader) -> Option<usize> {
        let by_ends = self.by_ends.get(&(header.source, header.destination));
        by_ends.or_else(|| self.by_sequence.get(&(header.source, header.sequence))).copied()
    }

    /// Returns the connection of a traced packet, and what the packet is in it.
    pub(super) fn of_traced(
        &mut self,
        header: &PacketHeader,
        event: &TraceEvent,
        now: Instant,
    ) -> Option<(usize, Subject)> {
        match header.kind {
            PacketKind::Syn if header.destination.port() == self.asked.port() => {
                let interface = event.input.unwrap_or(0);
                if self.interface.is_some_and(|index| index != interface) {
                    return self.find(header).map(|index| (index, Subject::Syn));
                }
                self.opened(header, interface, now).map(|index| (index, Subject::Syn))
            }
            PacketKind::SynAck => {
                let by_ends = self.by_ends.get(&(header.destination, header.source)).copied();
                let sequence = header.acknowledgment.wrapping_sub(1);
                let by_sequence = || self.by_sequence.get(&(header.destination, sequence)).copied();
                by_ends.or_else(by_sequence).map(|index| (index, Subject::SynAck))
            }
            _ => None,
        }
    }

    /// Returns the connection of a packet that the kernel dropped, and what the packet is in it. `first` says that no
    /// other source can have seen it.
    pub(super) fn of_dropped(
        &mut self,
        header: &PacketHeader,
        first: Option<u32>,
        now: Instant,
    ) -> Option<(usize, Subject)> {
        match (header.kind, first) {
            (PacketKind::Syn, Some(interface)) if header.destination.port() == self.asked.port() => {
                if self.interface.is_some_and(|index| index != interface) {
                    return None;
                }
                self.opened(header, interface, now).map(|index| (index, Subject::Syn))
            }
            (PacketKind::Syn, _) => self.find(header).map(|index| (index, Subject::Syn)),
            (PacketKind::SynAck, _) => {
                let index = *self.by_ends.get(&(header.destination, header.source))?;
                Some((index, Subject::SynAck))
            }
            _ => None,
        }
    }

    /// Returns the index of a SYN's connection, which is made if there is none and it is asked for.
    fn opened(&mut self, header: &PacketHeader, interface: u32, now: Instant) -> Option<usize> {
        if let Some(index) = self.find(header) {
            return Some(index);
        }
        let (client, server) = (header.source, header.destination);
        if !self.is_asked(header) || self.list.len() >= MAX_CONNECTIONS {
            return None;
        }
        let connection = ClientConnection {
            client,
            server,
            interface: if interface == 0 { String::new() } else { self.interface_name(interface) },
            interface_index: interface,
            syns: 0,
            repeated: false,
            other_host: false,
            answers: 0,
            resets: 0,
            forwarded_by: None,
            traceable: false,
            syn: PacketWay::default(),
            answer: PacketWay::default(),
            drops: Vec::new(),
            late: false,
            is_local: None,
            way_back: None,
            refused: None,
            silent_neighbour: None,
        };
        let index = self.list.len();
        let sequence = header.sequence;
        self.list.push(Tracked { connection, first: now, sequence, answers_at: None, answered: false });
        self.by_ends.insert((client, server), index);
        self.by_sequence.insert((client, sequence), index);
        Some(index)
    }

    /// Returns whether a SYN is for the end that is asked for.
    fn is_asked(&self, header: &PacketHeader) -> bool {
        let [v4, v6] = self.families;
        let server = header.destination.ip();
        let is_end = self.asked.ip().is_unspecified() || self.asked.ip() == server;
        is_end && if server.is_ipv4() { v4 } else { v6 }
    }

    /// Returns the name that an interface had when the watch began.
    fn interface_name(&self, index: u32) -> String {
        let known = self.interfaces.iter().find(|interface| interface.index == index);
        known.map_or_else(|| format!("interface {index}"), |interface| interface.name.clone())
    }

    /// Returns the index of an interface.
    pub(super) fn interface_index(&self, name: &str) -> Option<u32> {
        self.interfaces.iter().find(|interface| interface.name == name).map(|interface| interface.index)
    }
}
