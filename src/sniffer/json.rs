//! Renders a packet as a JSON object: all that its line of text shows, and more.
use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    decode::{Arp, DecodedFrame, Icmp, Ip, Network, Tcp, Transport, Tunnel, Udp},
    frame::{CapturedFrame, LinkType},
    names,
};
use crate::{
    json::{Framed, Schema},
    text::escape_control,
};

/// The body of a frame's object. Fields that the frame does not have are left out.
#[derive(Serialize)]
struct FrameObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<Cow<'a, str>>,
    direction: &'static str,
    /// Length on the wire.
    length_bytes: usize,
    captured_bytes: usize,
    /// Not all bytes were captured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    /// The number of a link type that the decoder does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    link_type: Option<u16>,
    #[serde(flatten)]
    packet: PacketObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gso_size_bytes: Option<u16>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    checksum_partial: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    guarded: bool,
    /// The innermost payload, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

/// The headers of a packet: the frame's own, or those in a tunnel.
#[derive(Default, Serialize)]
struct PacketObject<'a> {
    /// The header of the tunnel around this packet.
    #[serde(flatten)]
    tunnel: Option<&'a Tunnel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ethertype: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vlan: Vec<VlanObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ppp: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arp: Option<&'a Arp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<&'a Ip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<&'a Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<&'a Udp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<IcmpObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// The packet that this one carries in a tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    inner: Option<Box<PacketObject<'a>>>,
}

#[derive(Serialize)]
struct VlanObject {
    tpid: u16,
    id: u16,
    priority: u8,
}

#[derive(Serialize)]
struct IcmpObject<'a> {
    name: &'static str,
    #[serde(flatten)]
    icmp: &'a Icmp,
}

/// Appends the object of one packet with its line feed. `payload` adds the payload in hexadecimal.
pub fn append(
    out: &mut Vec<u8>,
    frame: &CapturedFrame<'_>,
    decoded: &DecodedFrame,
    interface: Option<&str>,
    payload: bool,
) {
    let captured = frame.captured();
    let object = FrameObject {
        interface: interface.map(escape_control),
        direction: names::direction(frame.direction),
        length_bytes: frame.length,
        captured_bytes: captured,
        cut: captured < frame.length,
        link_type: match frame.link_type {
            LinkType::Other(number) => Some(number),
            _ => None,
        },
        packet: PacketObject::new(decoded),
        gso_size_bytes: frame.gso_size,
        checksum_partial: frame.checksum_partial,
        guarded: frame.guarded,
        payload: payload.then(|| hex(frame.bytes(decoded.payload.clone()))),
    };
    // Writing to a Vec cannot fail, and all keys are strings.
    let _ = serde_json::to_writer(&mut *out, &Framed::at(time(frame), Schema::Packet, object));
    out.push(b'\n');
}

impl<'a> PacketObject<'a> {
    /// Returns the object of a packet with those in its tunnels, which the decoder bounds.
    fn new(decoded: &'a DecodedFrame) -> Self {
        let link = &decoded.link;
        let mut object = PacketObject {
            source_mac: link.source.map(|mac| mac.to_string()),
            destination_mac: link.destination.map(|mac| mac.to_string()),
            ethertype: link.ethertype,
            vlan: (link.vlan.iter())
                .map(|tag| VlanObject { tpid: tag.tpid, id: tag.id(), priority: tag.priority() })
                .collect(),
            ppp: link.ppp,
            problem: decoded.problem.map(|problem| format!("{}: {problem}", problem.label())),
            inner: decoded.inner.as_ref().map(|inner| {
                let packet = PacketObject::new(&inner.packet);
                Box::new(PacketObject { tunnel: Some(&inner.tunnel), ..packet })
            }),
            ..PacketObject::default()
        };
        match &decoded.network {
            Network::Arp(arp) => object.arp = Some(arp),
            Network::Ip(ip) => object.add_ip(ip),
            Network::Unknown | Network::Malformed => {}
        }
        object
    }

    fn add_ip(&mut self, ip: &'a Ip) {
        self.ip = Some(ip);
        match &ip.transport {
            Transport::Tcp(tcp) => self.tcp = Some(tcp),
            Transport::Udp(udp) => self.udp = Some(udp),
            Transport::Icmp(icmp) => {
                let name = names::icmp(ip.protocol, icmp.kind).unwrap_or("unknown");
                self.icmp = Some(IcmpObject { name, icmp });
            }
            Transport::Fragment | Transport::Unknown | Transport::Malformed { .. } => {}
        }
    }
}

/// Returns the time of a frame; a time beyond the year 9999, from a forged file, becomes the epoch.
fn time(frame: &CapturedFrame<'_>) -> Timestamp {
    let seconds = i64::try_from(frame.time.as_secs()).unwrap_or(i64::MAX);
    let nanoseconds = i32::try_from(frame.time.subsec_nanos()).unwrap_or_default();
    Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn hex(bytes: impl Iterator<Item = u8>) -> String {
    bytes
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}
