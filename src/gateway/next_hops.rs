//! Where packets go: the route look-up, which needs no privilege, and the neighbours' link addresses.
//!
//! The kernel's neighbour table is asked first. An address that it lacks is solicited over the packet socket,
//! since making the kernel resolve it takes CAP_NET_ADMIN. A neighbour that has gone silent is solicited again:
//! its address may have moved to another link address.
use super::packet::{Content, Packet};
use crate::{
    host::{
        interface::{Framing, Interface},
        monitor::Monitor,
        neighbour::NeighbourState,
        route::Query,
    },
    link::{LinkHeader, NextHop},
    neighbour::{Announcement, AnnouncementSource, LocalAddress, Message},
    net::{MacAddr, Protocol, ip_protocol::UDP},
    runtime::NextHopAddress,
};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Interval of solicitations, and their number (RFC 4861, section 10).
const SOLICIT_INTERVAL: Duration = Duration::from_secs(1);
const MAX_SOLICITATIONS: u8 = 3;
/// Silence of a neighbour in use after which it is solicited.
const SILENCE: Duration = Duration::from_secs(2);
/// Maximum neighbours remembered.
const MAX_NEIGHBOURS: usize = 4096;

/// The way of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub interface: u32,
    /// The neighbour to send to; `None` where the link has no addresses or the user named one.
    pub neighbour: Option<IpAddr>,
    /// Maximum packet, in bytes.
    pub mtu: u32,
}

/// The state of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    Known(NextHop),
    /// The neighbour has been asked.
    Pending,
    /// The neighbour does not answer.
    Failed,
}

/// Routes and neighbours.
pub(super) struct NextHops {
    pub monitor: Monitor,
    /// The interfaces that the packet socket sends by and the guards watch, by index.
    pub interfaces: HashMap<u32, Interface>,
    /// Index of the egress interface, to which link-local addresses belong.
    egress: u32,
    /// The next hop that the user chose.
    via: Option<NextHopAddress>,
    /// The interface that the user chose.
    bound: Option<u32>,
    assumed: Option<LocalAddress>,
    neighbours: HashMap<(u32, IpAddr), Entry>,
    /// A neighbour has another link address than before.
    moved: bool,
    solicitations: Vec<Message>,
}

/// The state of a neighbour.
#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Option<MacAddr>,
    /// The administrator entered the address, and no announcement changes it.
    fixed: bool,
    heard: Duration,
    used: Duration,
    asked: Option<Duration>,
    /// Solicitations since the neighbour was last heard.
    asks: u8,
}

impl NextHops {
    pub(crate) fn new(
        monitor: Monitor,
        interfaces: &[Interface],
        via: Option<NextHopAddress>,
        bound: Option<u32>,
        assumed: Option<LocalAddress>,
    ) -> NextHops {
        NextHops {
            monitor,
            interfaces: interfaces.iter().map(|interface| (interface.index, interface.clone())).collect(),
            egress: interfaces.first().map_or(0, |interface| interface.index),
            via,
            bound,
            assumed,
            neighbours: HashMap::new(),
            moved: false,
            solicitations: Vec::new(),
        }
    }

    /// Returns the way of a packet's flow; `None` if there is none through a guarded interface.
    pub(crate) fn way(&mut self, packet: &Packet) -> Option<Way> {
        let (source, destination) = (packet.header.source, packet.header.destination);
        if destination.is_multicast() || destination.is_loopback() || destination.is_unspecified() {
            return None;
        }
        if let Some(NextHopAddress::Mac(_)) = self.via {
            let interface = self.interfaces.get(&self.bound?)?;
            let mtu = interface.mtu_towards(destination);
            return Some(Way { interface: interface.index, neighbour: None, mtu });
        }
        let towards = match self.via {
            Some(NextHopAddress::Ip(via)) if via.is_ipv4() == destination.is_ipv4() => via,
            Some(_) => return None,
            None => destination,
        };
        let query = self.query(packet, source, towards);
        let departure =
            self.monitor.departure(&query).inspect_err(|error| log::debug!("{destination}: {error}")).ok()?;
        let Some(interface) = self.interfaces.get(&departure.interface) else {
            log::info!(
                "{destination}: its way out is interface {}, which netkat does not watch; name it with -i",
                departure.interface
            );
            return None;
        };
        let link = interface.mtu_towards(destination);
        let mtu = departure.mtu.filter(|_| self.via.is_none()).map_or(link, |mtu| mtu.min(link));
        let neighbour = match interface.framing() {
            Ok(Framing::Ethernet) => Some(if self.via.is_some() { towards } else { departure.next_hop }),
            Ok(Framing::None) => None,
            _ => return None,
        };
        Some(Way { interface: interface.index, neighbour, mtu })
    }

    fn query(&self, packet: &Packet, source: IpAddr, destination: IpAddr) -> Query {
        let ports = match packet.content {
            Content::Flow { key, remote, .. } => Some((key.local.port(), remote.port())),
            _ => None,
        };
        let link_local = |address| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let zone = Some(self.egress).filter(|_| link_local(destination));
        let interface = self.bound.or(zone);
        // With both, IPv6 prefers a longer prefix through another interface: see host/route.rs.
        let by_source = self.assumed.is_none() && (source.is_ipv4() || interface.is_none());
        Query {
            destination,
            // The kernel knows no route from an assumed address.
            source: Some(source).filter(|_| by_source),
            interface,
            protocol: if packet.header.protocol == UDP { Protocol::Udp } else { Protocol::Tcp },
            source_port: ports.map(|(source, _)| source).filter(|port| *port > 0),
            destination_port: ports.map(|(_, destination)| destination).filter(|port| *port > 0),
            traffic_class: packet.traffic_class,
            user: None,
        }
    }

    /// Returns the next hop of a way with its link address, which is solicited from `local` if it is unknown.
    pub(crate) fn resolve(&mut self, now: Duration, way: &Way, local: IpAddr) -> Resolution {
        let Some(interface) = self.interfaces.get(&way.interface) else { return Resolution::Failed };
        let source = self.assumed.map(|assumed| assumed.mac).or(interface.mac).unwrap_or_default();
        let known = |header| Resolution::Known(NextHop { interface: way.interface, header });
        let Some(neighbour) = way.neighbour else {
            return known(match self.via {
                Some(NextHopAddress::Mac(destination)) => LinkHeader::Ethernet { destination, source },
                _ => LinkHeader::None,
            });
        };
        let at = (way.interface, neighbour);
        if !self.neighbours.contains_key(&at) {
            self.look_up(now, at);
        }
        let Some(entry) = self.neighbours.get_mut(&at) else { return Resolution::Failed };
        entry.used = now;
        let silent = !entry.fixed && now >= entry.heard + SILENCE;
        if entry.mac.is_none() || silent {
            let due = entry.asked.is_none_or(|asked| now >= asked + SOLICIT_INTERVAL);
            if due {
                entry.asked = Some(now);
                entry.asks = entry.asks.saturating_add(1);
                let asker = LocalAddress { address: local, mac: source, interface: way.interface };
                if local.is_ipv4() == neighbour.is_ipv4() {
                    log::debug!("asking for the link address of {neighbour}");
                    self.solicitations.push(asker.solicit(neighbour));
                }
            }
        }
        match entry.mac {
            Some(destination) => known(LinkHeader::Ethernet { destination, source }),
            None if entry.asks > MAX_SOLICITATIONS => {
                // The next packet asks again.
                entry.asks = 0;
                Resolution::Failed
            }
            None => Resolution::Pending,
        }
    }

    /// Enters a neighbour with what the kernel's table has of it.
    fn look_up(&mut self, now: Duration, at: (u32, IpAddr)) {
        if self.neighbours.len() >= MAX_NEIGHBOURS {
            self.neighbours.retain(|_, entry| now < entry.used + SILENCE);
        }
        let found = self.monitor.neighbour(at.0, at.1).ok().flatten().filter(|found| found.valid());
        let permanent = found.is_some_and(|found| found.state == NeighbourState::Permanent);
        let mac = found.and_then(|found| found.mac);
        let entry = Entry { mac, fixed: permanent, heard: now, used: now, asked: None, asks: 0 };
        self.neighbours.insert(at, entry);
    }

    /// Notes that a flow's peer has been heard, and so the neighbour that leads to it.
    pub(crate) fn confirm(&mut self, now: Duration, way: &Way) {
        if let Some(neighbour) = way.neighbour
            && let Some(entry) = self.neighbours.get_mut(&(way.interface, neighbour))
        {
            (entry.heard, entry.asks) = (now, 0);
        }
    }

    /// Follows a link address that the kernel, or the neighbour itself, has announced.
    pub(crate) fn learn(&mut self, now: Duration, interface: u32, address: IpAddr, mac: MacAddr) {
        if let Some(entry) = self.neighbours.get_mut(&(interface, address))
            && !entry.fixed
        {
            if entry.mac.is_some_and(|was| was != mac) {
                log::info!("neighbour {address} is at {mac} now");
                self.moved = true;
            }
            (entry.mac, entry.heard, entry.asks) = (Some(mac), now, 0);
        }
    }

    /// Returns whether a neighbour's link address has changed since the previous call.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Handles a neighbour's announcement by ARP or NDP.
    pub(crate) fn handle(&mut self, now: Duration, interface: u32, announcement: &Announcement) {
        let Announcement { address, mac, source } = *announcement;
        let known = self.neighbours.get(&(interface, address)).is_some_and(|entry| entry.mac.is_some());
        if source != AnnouncementSource::Proxy || !known {
            self.learn(now, interface, address, mac);
        }
    }

    /// Forgets all neighbours, whose interface or table has changed.
    pub(crate) fn forget_neighbours(&mut self) {
        self.neighbours.clear();
    }

    /// Returns the solicitations that are due.
    pub(crate) fn take_solicitations(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.solicitations)
    }
}
