//! The command's flows: the ports that they hold on the host, their entries in the flow table, their traffic.
//!
//! A flow begins with the command's first packet, or with a packet to a published port, and ends when the
//! command's kernel has no socket for it any more, TIME-WAIT included (sock_diag(7)). Its port is held for as
//! long as it has flows.
use super::{
    fast_flows::{FastFlows, RIPE},
    next_hops::{NextHops, Way},
    packet::{Content, Packet},
    refusal::Refusal,
};
use crate::{
    host::netlink::{Netlink, NetlinkError},
    kernel::{FastFlow, FlowKey, FlowTable, PortHold, SilentSockets},
    link::NextHop,
    net::{
        Protocol,
        ip_protocol::{TCP, UDP},
    },
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Maximum flows at once.
pub(super) const MAX_FLOWS: usize = 65_536;
/// Maximum datagrams whose later fragments may follow.
const MAX_FRAGMENTED: usize = 1024;
/// Time in which a datagram's fragments leave.
const FRAGMENT_LIFETIME: Duration = Duration::from_secs(2);
/// Silence after which a flow without a socket ends: its last packets may still be in flight.
const LINGER: Duration = Duration::from_secs(2);
/// Silence after which a UDP flow ends although its socket exists.
const UDP_IDLE: Duration = Duration::from_secs(180);
/// Silence after which a series of echo requests ends.
const ECHO_IDLE: Duration = Duration::from_secs(60);

/// TCP_FIN_WAIT1, TCP_LAST_ACK and TCP_CLOSING of include/net/tcp_states.h: the states in which a socket that
/// no process has waits for acknowledgments.
const UNDELIVERED: u32 = 1 << 4 | 1 << 9 | 1 << 11;

/// Packets and bytes of one direction, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// A flow of the command's.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub key: FlowKey,
    /// The peer's address and port, where the flow has only one.
    pub remote: SocketAddr,
    pub sent: Traffic,
    pub received: Traffic,
    /// The way of its packets, while it holds.
    pub(super) way: Option<Way>,
    /// The next hop of the last packet that netkat sent.
    pub(super) next_hop: Option<NextHop>,
    /// The flow's place on the fast path. What it carries there is not in `sent` and `received` yet.
    pub(super) fast: Option<FastFlow>,
    /// Packets from which on the flow may be nominated for the fast path.
    pub(super) ripe_at: u64,
    pub(super) last: Duration,
}

impl Flow {
    /// Returns the number of packets of both directions.
    pub(super) fn packets(&self) -> u64 {
        self.sent.packets + self.received.packets
    }
}

/// The flows, their ports, and the flow table.
pub(super) struct Flows {
    flows: HashMap<FlowKey, Flow>,
    holds: HashMap<(Protocol, u16), PortHold>,
    silent: SilentSockets,
    published: HashSet<(Protocol, u16)>,
    /// The ports are the host's, so each is held there.
    holding: bool,
    /// Datagrams whose later fragments may follow, by source, destination and identification.
    fragmented: HashMap<(IpAddr, IpAddr, u32), (FlowKey, Duration)>,
    fast: FastFlows,
    /// Flows that have ended, for the report.
    pub ended: Ended,
}

/// The remains of ended flows.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub flows: u64,
    pub ports: u64,
    /// Ports that the host used.
    pub refused: u64,
    pub sent: Traffic,
    pub received: Traffic,
    /// The flows themselves, if they are to be reported.
    pub reported: Option<Vec<Flow>>,
}

/// The published ports, and what holds them on the host.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub ports: Vec<(Protocol, u16)>,
    pub holds: HashMap<(Protocol, u16), PortHold>,
    /// The sockets that hold further ports.
    pub silent: SilentSockets,
}

impl Flows {
    /// Returns no flows, with the ports that are published and held already. An assumed address has ports
    /// of its own, which need no `holding`.
    pub(crate) fn new(published: Published, holding: bool, report: bool, fast: FastFlows) -> Flows {
        let Published { ports, holds, silent } = published;
        Flows {
            flows: HashMap::new(),
            ended: Ended { ports: holds.len() as u64, reported: report.then(Vec::new), ..Ended::default() },
            published: ports.into_iter().collect(),
            holding,
            holds,
            silent,
            fragmented: HashMap::new(),
            fast,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Returns the flow of a packet that the command sends, new if need be.
    ///
    /// # Errors
    /// The refusal to answer the packet with; `None` to drop it without a word.
    pub(crate) fn leaving(
        &mut self,
        now: Duration,
        packet: &Packet,
        table: Option<&mut FlowTable>,
    ) -> Result<&mut Flow, Option<Refusal>> {
        let fragment = packet.fragment_id().map(|id| (packet.header.source, packet.header.destination, id));
        let key = match packet.content {
            Content::Flow { key, remote, opening } => {
                if !self.flows.contains_key(&key) {
                    // A flow of others could not be told from the command's if it began in the middle.
                    if key.protocol == TCP && !opening {
                        return Err(None);
                    }
                    self.open(now, key, remote, table).map_err(Some)?;
                }
                self.remember(now, fragment, key);
                key
            }
            Content::Fragment => {
                let known = fragment.and_then(|fragment| self.fragmented.get(&fragment));
                known.map(|(key, _)| *key).ok_or(None)?
            }
            Content::Error { about } => about,
        };
        let flow = self.flows.get_mut(&key).ok_or(None)?;
        flow.last = now;
        Ok(flow)
    }

    /// Returns the flow of a packet that has arrived: a known one, or one that opens at a published port.
    pub(crate) fn arriving(
        &mut self,
        now: Duration,
        packet: &Packet,
        table: Option<&mut FlowTable>,
    ) -> Option<&mut Flow> {
        let key = match packet.content {
            Content::Flow { key, remote, opening } => {
                if !self.flows.contains_key(&key) {
                    let protocol = if key.protocol == TCP { Protocol::Tcp } else { Protocol::Udp };
                    let published = self.published.contains(&(protocol, key.local.port()))
                        && (opening || key.protocol == UDP);
                    if !published || self.open(now, key, remote, table).is_err() {
                        return None;
                    }
                }
                key
            }
            Content::Error { about } => about,
            Content::Fragment => return None,
        };
        let flow = self.flows.get_mut(&key)?;
        flow.last = now;
        Some(flow)
    }

    /// Begins a flow: holds its port, and enters it into the flow table before its first packet leaves.
    fn open(
        &mut self,
        now: Duration,
        key: FlowKey,
        remote: SocketAddr,
        table: Option<&mut FlowTable>,
    ) -> Result<(), Refusal> {
        if self.flows.len() >= MAX_FLOWS {
            return Err(Refusal::PortInUse);
        }
        let port = key.local.port();
        let protocol = match key.protocol {
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            _ => None,
        };
        if let Some(protocol) = protocol.filter(|_| self.holding)
            && !self.holds.contains_key(&(protocol, port))
        {
            let hold = PortHold::take(protocol, port, &mut self.silent).map_err(|error| {
                log::info!("{protocol} port {port}: the command cannot have it: {error}");
                self.ended.refused += 1;
                Refusal::PortInUse
            })?;
            log::debug!("{protocol} port {port}: held for the command");
            self.ended.ports += 1;
            self.holds.insert((protocol, port), hold);
        }
        if !table.is_some_and(|table| table.insert(key)) {
            log::warn!("the flow table is full: no more connections until others end");
            return Err(Refusal::PortInUse);
        }
        log::debug!("flow: protocol {}: {} -> {remote}", key.protocol, key.local);
        let (sent, received) = (Traffic::default(), Traffic::default());
        let flow = Flow {
            key,
            remote,
            sent,
            received,
            way: None,
            next_hop: None,
            fast: None,
            ripe_at: RIPE,
            last: now,
        };
        self.flows.insert(key, flow);
        Ok(())
    }

    /// Lets later fragments of a datagram follow its first one.
    fn remember(&mut self, now: Duration, fragment: Option<(IpAddr, IpAddr, u32)>, key: FlowKey) {
        let Some(fragment) = fragment else { return };
        if self.fragmented.len() >= MAX_FRAGMENTED {
            self.fragmented.retain(|_, (_, at)| now < *at + FRAGMENT_LIFETIME);
        }
        if self.fragmented.len() < MAX_FRAGMENTED {
            self.fragmented.insert(fragment, (key, now));
        }
    }

    /// Ends the flows that the command's kernel has no socket for.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(crate) fn sweep(
        &mut self,
        now: Duration,
        sockets: &mut Netlink<SockDiagMessage>,
        mut table: Option<&mut FlowTable>,
    ) -> Result<(), NetlinkError> {
        let mut connections = HashSet::new();
        list(sockets, TCP, StateFlags::all(), |id| {
            connections.insert((id.source_port, id.destination_address.to_canonical(), id.destination_port));
        })?;
        let mut datagrams = HashSet::new();
        list(sockets, UDP, StateFlags::all(), |id| {
            datagrams.insert(id.source_port);
        })?;
        let Flows { flows, ended, fast, .. } = self;
        flows.retain(|key, flow| {
            let silence = now.saturating_sub(flow.last);
            let (port, remote) = (key.local.port(), key.remote);
            let lives = silence < LINGER
                || match key.protocol {
                    TCP => connections.contains(&(port, remote.ip(), remote.port())),
                    UDP => silence < UDP_IDLE && datagrams.contains(&port),
                    _ => silence < ECHO_IDLE,
                };
            if !lives {
                fast.leave(flow, "ended");
                if let Some(table) = &mut table {
                    table.remove(*key);
                }
                ended.note(flow.clone());
            }
            lives
        });
        let used: HashSet<(u8, u16)> =
            self.flows.keys().map(|key| (key.protocol, key.local.port())).collect();
        let published = &self.published;
        self.holds.retain(|port, _| published.contains(port) || used.contains(&(port.0.number(), port.1)));
        Ok(())
    }

    /// Forgets where the flows' packets go.
    pub(crate) fn forget_ways(&mut self) {
        self.leave_fast_path();
        self.flows.values_mut().for_each(|flow| flow.way = None);
    }

    /// Nominates a flow for the fast path, if it is ripe.
    pub(crate) fn consider(&mut self, now: Duration, key: &FlowKey) {
        if let Some(flow) = self.flows.get_mut(key)
            && self.fast.accepts(flow)
        {
            self.fast.nominate(now, flow);
        }
    }

    /// Puts nominated flows onto the fast path. `idle` says that no packet waits in the packet sockets.
    pub(crate) fn promote(&mut self, now: Duration, idle: bool) {
        self.fast.promote(now, idle, &mut self.flows);
    }

    /// Counts what took the fast path, and takes flows off it whose next packets are to pass netkat.
    pub(crate) fn follow(&mut self, now: Duration, hops: &mut NextHops) {
        self.flows.values_mut().for_each(|flow| self.fast.follow(now, flow, hops));
    }

    /// Takes all flows off the fast path, and makes their next packets find their next hops.
    pub(crate) fn leave_fast_path(&mut self) {
        for flow in self.flows.values_mut() {
            self.fast.leave(flow, "routes or neighbours have changed");
            flow.next_hop = None;
        }
    }

    /// Returns what took the fast path, both directions.
    pub(crate) fn carried_fast(&self) -> Traffic {
        self.fast.carried()
    }

    /// Lets no flow take the fast path any more.
    pub(crate) fn close_fast_path(&mut self) {
        self.leave_fast_path();
        self.fast.close();
    }

    /// Ends all flows, for the report.
    pub(crate) fn end(&mut self) {
        for (_, mut flow) in self.flows.drain() {
            self.fast.leave(&mut flow, "ended");
            self.ended.note(flow);
        }
    }
}

/// Maximum flows that a report names.
const MAX_REPORTED: usize = 10_000;

impl Ended {
    fn note(&mut self, flow: Flow) {
        self.flows += 1;
        for (total, of) in [(&mut self.sent, flow.sent), (&mut self.received, flow.received)] {
            total.packets += of.packets;
            total.bytes += of.bytes;
        }
        if let Some(reported) = self.reported.as_mut().filter(|reported| reported.len() < MAX_REPORTED) {
            reported.push(flow);
        }
    }
}

/// Returns whether sockets without a process wait for acknowledgments of what they have sent.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn is_undelivered(sockets: &mut Netlink<SockDiagMessage>) -> Result<bool, NetlinkError> {
    let mut found = false;
    list(sockets, TCP, StateFlags::from_bits_retain(UNDELIVERED), |_| found = true)?;
    Ok(found)
}

/// Lists the namespace's sockets of a protocol that are in one of these states.
fn list(
    sockets: &mut Netlink<SockDiagMessage>,
    protocol: u8,
    states: StateFlags,
    mut each: impl FnMut(&SocketId),
) -> Result<(), NetlinkError> {
    for family in [AF_INET, AF_INET6] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id: SocketId::new_v6(),
        });
        for answer in sockets.dump(request)? {
            if let SockDiagMessage::InetResponse(socket) = answer {
                each(&socket.header.socket_id);
            }
        }
    }
    Ok(())
}
