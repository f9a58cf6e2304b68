//! A packet as an object of JSON, one a line: what the line of text says, and what it has no room for. Fields that a
//! packet does not have are left out.
use std::{borrow::Cow, fmt::Display, net::IpAddr};

use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeSeq};

use super::{
    Checksum, Direction, Observed,
    decode::{Arp, Decoded, Fragment, Icmp, Ip, Network, Tcp, Transport, Udp},
    names, payload,
    text::escaped,
};

#[derive(Serialize)]
struct Packet<'a> {
    /// RFC 3339, UTC, nanoseconds.
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<Cow<'a, str>>,
    direction: &'static str,
    /// On the wire, in bytes.
    length: usize,
    captured: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ethertype: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vlan: Vec<Vlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arp: Option<&'a Arp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpHeader<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<&'a Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<&'a Udp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gso_size: Option<u16>,
    /// The checksum field holds the pseudo-header's sum only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    checksum_partial: bool,
    /// The guard dropped the kernel's copy.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    guarded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

#[derive(Serialize)]
struct Vlan {
    tpid: u16,
    id: u16,
    priority: u8,
}

#[derive(Serialize)]
struct IpHeader<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
    ttl: u8,
    length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<Fragment>,
    #[serde(skip_serializing_if = "<[u8]>::is_empty")]
    extensions: &'a [u8],
}

#[derive(Serialize)]
struct Message<'a> {
    name: &'static str,
    #[serde(flatten)]
    icmp: &'a Icmp,
}

/// Appends the object of one packet, with its line feed; `payload` adds the payload in hexadecimal.
pub fn append(
    out: &mut Vec<u8>,
    frame: &Observed<'_>,
    decoded: &Decoded,
    interface: Option<&str>,
    payload: bool,
) {
    let ip = match &decoded.network {
        Network::Ip(ip) => Some(ip),
        _ => None,
    };
    let transport = ip.map(|ip| &ip.transport);
    let mac = |mac: Option<crate::net::MacAddr>| mac.map(|mac| mac.to_string());
    let packet = Packet {
        time: time(frame),
        interface: interface.map(escaped),
        direction: match frame.direction {
            Direction::Receive => "recv",
            Direction::Send => "send",
        },
        length: frame.length,
        captured: frame.captured(),
        source_mac: mac(decoded.link.source),
        destination_mac: mac(decoded.link.destination),
        ethertype: decoded.link.ethertype,
        vlan: (decoded.link.vlan.iter())
            .map(|tag| Vlan { tpid: tag.tpid, id: tag.id(), priority: tag.priority() })
            .collect(),
        arp: match &decoded.network {
            Network::Arp(arp) => Some(arp),
            _ => None,
        },
        ip: ip.map(header),
        tcp: match transport {
            Some(Transport::Tcp(tcp)) => Some(tcp),
            _ => None,
        },
        udp: match transport {
            Some(Transport::Udp(udp)) => Some(udp),
            _ => None,
        },
        icmp: match (ip, transport) {
            (Some(ip), Some(Transport::Icmp(icmp))) => {
                Some(Message { name: names::icmp(ip.protocol, icmp.kind).unwrap_or("unknown"), icmp })
            }
            _ => None,
        },
        gso_size: frame.gso,
        checksum_partial: frame.checksum == Checksum::Partial,
        guarded: frame.guarded,
        problem: decoded.problem.map(|problem| format!("{}: {problem}", problem.verdict())),
        payload: payload.then(|| hex(payload::bytes(frame, decoded.payload.clone()))),
    };
    // Writing to a Vec can't fail, and all keys are strings.
    let _ = serde_json::to_writer(&mut *out, &packet);
    out.push(b'\n');
}

fn header(ip: &Ip) -> IpHeader<'_> {
    IpHeader {
        source: ip.source,
        destination: ip.destination,
        protocol: ip.protocol,
        id: ip.id,
        ttl: ip.ttl,
        length: ip.length,
        fragment: ip.fragment,
        extensions: &ip.extensions,
    }
}

/// Times that no calendar has (beyond the year 9999, from a forged file) are shown as the epoch.
fn time(frame: &Observed<'_>) -> String {
    let seconds = i64::try_from(frame.time.as_secs()).unwrap_or(i64::MAX);
    let nanoseconds = i32::try_from(frame.time.subsec_nanos()).unwrap_or_default();
    let time = Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

fn hex(bytes: impl Iterator<Item = u8>) -> String {
    bytes
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

/// Serialises what has a `Display` as a string.
pub(super) fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Serialises TCP flags as a list of their names (RFC 9293, section 3.1).
pub(super) fn flags<S: Serializer>(flags: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for (bit, name) in ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"].iter().enumerate() {
        if flags >> bit & 1 == 1 {
            list.serialize_element(name)?;
        }
    }
    list.end()
}
