//! The matcher of bpf/flow.h once more, in Rust, for hosts that let netkat load no program. A packet is parsed
//! into values first and judged afterwards; the tests hold both matchers against each other.

use super::FlowFilter;
use crate::net::{FiveTuple, Protocol};
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The verdict on a packet: `enum verdict` in bpf/flow.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours.
    Foreign,
    /// A segment or datagram of ours, or its first fragment.
    Flow,
    /// A later fragment, without ports: perhaps ours.
    Fragment,
    /// An ICMP error about our packet, ARP or neighbour discovery for our address.
    Control,
    /// A datagram to a group or to all hosts: the kernel gets it, too, for the other members.
    Shared,
    /// Perhaps the ACK of our SYN cookie: the kernel sees it, too.
    Unsure,
}

/// The content of a flow table.
#[derive(Clone, Debug, Default)]
pub struct KnownFlows {
    /// Our flows.
    pub flows: HashSet<FiveTuple>,
    /// SYN cookies are in flight, so segments of other flows may be ours.
    pub unsure: bool,
}

/// The addressee of a frame by its link header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// Another host.
    Others,
    /// All hosts, or the members of a group.
    Group,
    /// This host, or the assumed link address.
    Us,
}

/// A packet with what its frame says of it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The addressee.
    pub to: Addressee,
    /// The network protocol's ethertype, in host byte order.
    pub ethertype: u16,
    /// The frame from its network header on.
    pub network: &'a [u8],
}

/// The content of a frame, as far as its headers are whole.
enum Network<'a> {
    Ip(Packet<'a>),
    Arp { sender: Ipv4Addr, target: Ipv4Addr },
    Other,
}

struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    later_fragment: bool,
    body: &'a [u8],
}

impl Packet<'_> {
    fn ports(&self) -> Option<(u16, u16)> {
        let &[a, b, c, d] = self.body.first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

fn network<'a>(frame: &Frame<'a>) -> Network<'a> {
    match frame.ethertype {
        0x0800 => ipv4(frame.network).map_or(Network::Other, Network::Ip),
        0x86dd => ipv6(frame.network).map_or(Network::Other, Network::Ip),
        0x0806 => arp(frame.network).unwrap_or(Network::Other),
        _ => Network::Other,
    }
}

fn arp(bytes: &[u8]) -> Option<Network<'_>> {
    let h: &[u8; 28] = bytes.first_chunk()?;
    let address = |at: usize| Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]);
    (h[2..6] == [8, 0, 6, 4]).then(|| Network::Arp { sender: address(14), target: address(24) })
}

fn ipv4(bytes: &[u8]) -> Option<Packet<'_>> {
    let h: &[u8; 20] = bytes.first_chunk()?;
    let length = usize::from(h[0] & 15) * 4;
    if h[0] >> 4 != 4 || length < 20 {
        return None;
    }
    Some(Packet {
        source: Ipv4Addr::new(h[12], h[13], h[14], h[15]).into(),
        destination: Ipv4Addr::new(h[16], h[17], h[18], h[19]).into(),
        protocol: h[9],
        later_fragment: (h[6] & 0x1f, h[7]) != (0, 0),
        body: bytes.get(length..).unwrap_or_default(),
    })
}

fn ipv6(bytes: &[u8]) -> Option<Packet<'_>> {
    let (h, mut body) = bytes.split_first_chunk::<40>()?;
    if h[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| {
        let bytes = h.get(at..).and_then(<[u8]>::first_chunk::<16>);
        Ipv6Addr::from(bytes.copied().unwrap_or_default())
    };
    let (mut protocol, mut later_fragment) = (h[6], false);
    // At most eight extension headers are looked into.
    for _ in 0..8 {
        let length = match protocol {
            0 | 43 | 60 | 135 => (usize::from(*body.get(1)?) + 1) * 8,
            51 => (usize::from(*body.get(1)?) + 2) * 4,
            44 => body.first_chunk::<8>()?.len(),
            _ => break,
        };
        let fragment = body.first_chunk::<4>().filter(|_| protocol == 44);
        later_fragment = fragment.is_some_and(|[_, _, high, low]| (*high, low & 0xf8) != (0, 0));
        protocol = *body.first()?;
        body = body.get(length..).unwrap_or_default();
        if later_fragment {
            break;
        }
    }
    Some(Packet {
        source: address(8).into(),
        destination: address(24).into(),
        protocol,
        later_fragment,
        body,
    })
}

/// Returns whether an address is the flow's.
fn is_local(filter: &FlowFilter, address: IpAddr) -> bool {
    let loopback = filter.loopback_network && address.is_ipv4() && address.is_loopback();
    // Without any IPv4 address the flow does not speak IPv4.
    let speaks = filter.local_addresses.iter().any(IpAddr::is_ipv4);
    loopback && speaks || filter.local_addresses.contains(&address)
}

/// Judges a packet by its addresses and ports; `from_us` for one that we have sent.
fn flow_verdict(filter: &FlowFilter, packet: &Packet, from_us: bool) -> Verdict {
    let (ours, theirs) =
        if from_us { (packet.source, packet.destination) } else { (packet.destination, packet.source) };
    let addresses = (from_us || !filter.groups_only)
        && is_local(filter, ours)
        && filter.remote_address.is_none_or(|remote| remote == theirs)
        && filter.protocol.number() == packet.protocol;
    if !addresses {
        return Verdict::Foreign;
    }
    if packet.later_fragment {
        return Verdict::Fragment;
    }
    let Some((source, destination)) = packet.ports() else { return Verdict::Foreign };
    let (ours, theirs) = if from_us { (source, destination) } else { (destination, source) };
    let ports = ours == filter.local_port && filter.remote_port.is_none_or(|remote| remote == theirs);
    if ports { Verdict::Flow } else { Verdict::Foreign }
}

/// Judges a datagram to one of the flow's groups, which the kernel gets, too.
fn group_verdict(filter: &FlowFilter, packet: &Packet) -> Verdict {
    let group = (filter.protocol, packet.protocol) == (Protocol::Udp, 17)
        && filter.groups.contains(&packet.destination);
    match packet.ports() {
        _ if group && packet.later_fragment => Verdict::Fragment,
        Some((source, destination))
            if group
                && destination == filter.local_port
                && filter.remote_port.is_none_or(|remote| remote == source) =>
        {
            Verdict::Shared
        }
        _ => Verdict::Foreign,
    }
}

/// Judges a packet to our port where there is a flow table: ours are its flows, and SYNs without ACK, RST or FIN.
fn look_up_flow(filter: &FlowFilter, table: &KnownFlows, packet: &Packet) -> Verdict {
    let Some((source, destination)) = packet.ports() else { return Verdict::Foreign };
    let flow = FiveTuple {
        protocol: filter.protocol,
        local: SocketAddr::new(packet.destination, destination),
        remote: SocketAddr::new(packet.source, source),
    };
    let opens = packet.body.get(13).is_some_and(|flags| flags & 0b1_0111 == 0b10);
    match filter.protocol {
        _ if table.flows.contains(&flow) => Verdict::Flow,
        Protocol::Tcp if opens => Verdict::Flow,
        Protocol::Tcp if table.unsure => Verdict::Unsure,
        _ => Verdict::Foreign,
    }
}

/// Judges an arriving frame.
pub fn arriving(filter: &FlowFilter, table: &KnownFlows, frame: &Frame<'_>) -> Verdict {
    let is_local = |address: IpAddr| is_local(filter, address);
    let to = frame.to;
    if to == Addressee::Others {
        return Verdict::Foreign;
    }
    let packet = match network(frame) {
        Network::Ip(packet) => packet,
        Network::Arp { sender, target } if filter.neighbour_discovery => {
            let ours = is_local(target.into()) || is_local(sender.into());
            return if ours { Verdict::Control } else { Verdict::Foreign };
        }
        _ => return Verdict::Foreign,
    };
    // Another family than the flow's is not looked at.
    let family = |address: &IpAddr| address.is_ipv4() == packet.destination.is_ipv4();
    if !filter.local_addresses.iter().any(family) {
        return Verdict::Foreign;
    }
    let verdict = group_verdict(filter, &packet);
    if verdict != Verdict::Foreign {
        return verdict;
    }
    if to == Addressee::Us {
        let verdict = flow_verdict(filter, &packet, false);
        if verdict == Verdict::Flow && filter.table > 0 {
            return look_up_flow(filter, table, &packet);
        }
        if verdict != Verdict::Foreign || packet.later_fragment {
            return verdict;
        }
    } else if packet.later_fragment || packet.destination.is_ipv4() {
        return Verdict::Foreign;
    }
    let Some(&kind) = packet.body.first() else { return Verdict::Foreign };
    let quoted = packet.body.get(8..).unwrap_or_default();
    let quoted = match (packet.destination, packet.protocol, kind) {
        (IpAddr::V4(_), 1, 3 | 11 | 12) => ipv4(quoted),
        (IpAddr::V6(_), 58, 1..=4) if to == Addressee::Us => ipv6(quoted),
        (IpAddr::V6(_), 58, 135 | 136) if filter.neighbour_discovery => {
            let Some(target) = quoted.first_chunk::<16>() else { return Verdict::Foreign };
            let ours = is_local(Ipv6Addr::from(*target).into()) || is_local(packet.destination);
            return if ours { Verdict::Control } else { Verdict::Foreign };
        }
        _ => None,
    };
    match quoted {
        Some(quoted) if flow_verdict(filter, &quoted, true) == Verdict::Flow => Verdict::Control,
        _ => Verdict::Foreign,
    }
}

/// Returns whether a departing frame is an IPv4 packet of the flow.
pub fn departing(filter: &FlowFilter, frame: &Frame<'_>) -> bool {
    matches!(network(frame), Network::Ip(packet)
        if packet.source.is_ipv4() && flow_verdict(filter, &packet, true) == Verdict::Flow)
}
