//! The clients of a server on this host: what was seen of each SYN that came in, and what became of it.
//!
//! Nobody asks the server anything. [`ClientEvidence`] is what taps, traces, drop events, sockets and counters saw, and
//! [`decide_clients`] turns it into a [`ClientFinding`] without any question: it is a pure function, tested row by row.
mod fate;
mod finding;
mod listener;
mod position;

use super::{
    drop_event::DropEvent,
    evidence::{Programs, Refused, Space},
    finding::Culprit,
    legacy::LegacySuspect,
};
use crate::host::listeners::Listener;
pub(crate) use finding::{ClientCause, ClientFinding, ClientOutcome, decide_clients};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// All that was seen of the clients of a port.
#[derive(Clone, Debug)]
pub(crate) struct ClientEvidence {
    /// The end that clients ask for; an unspecified address is any.
    pub asked: SocketAddr,
    /// The duration of the watch.
    pub time: Duration,
    /// Sources, and what was read of the namespace. Observations and packets are those of the connections instead.
    pub space: Space,
    pub connections: Vec<ClientConnection>,
    /// SYNs of connections beyond those that are kept.
    pub beyond_syns: u64,
    /// What ended packets; connections name it by its index.
    pub ends: Vec<PacketEnd>,
    /// What gave SYNs another destination, likewise.
    pub translations: Vec<ClientTranslation>,
    pub listeners: Vec<ListeningSocket>,
    /// Increase of TcpExt.ListenOverflows, in SYNs and ACKs that met a full accept queue.
    pub overflows: u64,
    /// Increase of TcpExt.TCPReqQFullDrop, in SYNs that met a full queue of half-open connections, without SYN cookies.
    pub request_drops: u64,
    /// Rules of iptables-legacy whose counters moved by at least the unanswered SYNs: those of IPv4 and of IPv6.
    pub legacy: [Vec<LegacySuspect>; 2],
    /// Programs of others at the devices.
    pub programs: HashMap<String, Programs>,
    /// Programs that the packets of the listening sockets pass.
    pub socket_programs: SocketPrograms,
}

/// A connection that a client tried to make.
#[derive(Clone, Debug)]
pub(crate) struct ClientConnection {
    pub client: SocketAddr,
    /// The end that the client asked for.
    pub server: SocketAddr,
    /// The interface by which its SYN came in; empty where none was seen there.
    pub interface: String,
    pub interface_index: u32,
    /// SYNs at the device; 0 where only others of the sources saw it.
    pub syns: u64,
    /// A SYN came again after a SYN-ACK had left.
    pub repeated: bool,
    /// The SYNs' frames were for another link address.
    pub other_host: bool,
    /// SYN-ACKs that left by a device.
    pub answers: u64,
    /// Resets that left and answer the SYN.
    pub resets: u64,
    /// The interface by which the SYN left again.
    pub forwarded_by: Option<String>,
    /// The trace's limit left room for at least one of the SYNs.
    pub traceable: bool,
    /// The way of its SYNs, and of the SYN-ACKs to it.
    pub syn: PacketWay,
    pub answer: PacketWay,
    /// Its packets that the kernel dropped.
    pub drops: Vec<DropEvent>,
    /// The first SYN came so late that an answer may follow.
    pub late: bool,
    /// The end is this host's, by the routing tables; `None` where nobody asked them.
    pub is_local: Option<bool>,
    /// The interface of the way back to the client.
    pub way_back: Option<String>,
    /// What refuses a route to answers, if the kernel does.
    pub refused: Option<Refused>,
    /// The next hop of answers, if it does not answer for its link address.
    pub silent_neighbour: Option<IpAddr>,
}

/// The way of a connection's packets of one kind through netfilter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PacketWay {
    /// The hooks that they came to, by the names of netkat's own chains.
    pub hooks: Vec<String>,
    /// The index of what ended one of them.
    pub ended: Option<usize>,
    /// The index of what gave one of them another destination.
    pub translated: Option<usize>,
}

impl PacketWay {
    pub(crate) fn came_to(&self, hook: &str) -> bool {
        self.hooks.iter().any(|name| name == hook)
    }
}

/// A rule or a policy that ended packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PacketEnd {
    pub culprit: Culprit,
    /// "dropped", "rejected" and the like.
    pub done: &'static str,
}

/// A new destination of SYNs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientTranslation {
    pub to: SocketAddr,
    /// The rule, if it was traced.
    pub by: Option<Culprit>,
}

/// A socket that listened on the port during the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListeningSocket {
    /// As it was seen last; with a full accept queue if it was ever seen so.
    pub socket: Listener,
    /// It still listened at the end.
    pub remains: bool,
}

/// The programs of a control group, which the packets of its sockets pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketPrograms {
    pub ingress: Vec<String>,
    pub egress: Vec<String>,
}

impl ClientEvidence {
    /// Returns the sockets that take SYNs for an end by an interface.
    fn takers(&self, server: IpAddr, interface: u32) -> impl Iterator<Item = &ListeningSocket> {
        self.listeners.iter().filter(move |listening| listening.socket.takes(server, interface))
    }

    /// Returns the programs at an interface.
    fn programs_at(&self, interface: &str) -> Programs {
        Programs {
            cgroup_ingress: self.socket_programs.ingress.clone(),
            cgroup_egress: self.socket_programs.egress.clone(),
            ..self.programs.get(interface).cloned().unwrap_or_default()
        }
    }

    /// Returns whether the kernel would have reported each packet that it dropped.
    fn reports_drops(&self) -> bool {
        self.space.drop_events.used && !self.space.drop_events.lost
    }

    fn suspects(&self, v4: bool) -> &[LegacySuspect] {
        let [of_v4, of_v6] = &self.legacy;
        if v4 { of_v4 } else { of_v6 }
    }
}

#[cfg(test)]
mod tests;
