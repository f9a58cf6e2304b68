//! The headers of a packet, whole as it was sent or cut as an ICMP error quotes it, and what differs between
//! the two.
use crate::{
    net::zone::endpoint,
    segment::{Segment, SeqNumber},
    stack::ip::{self, TCP},
};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// The headers of a packet. What a quote does not reach is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
    pub hop_limit: u8,
    pub traffic_class: u8,
    /// IPv4's identification.
    pub id: Option<u16>,
    pub dont_fragment: bool,
    /// IPv6's flow label.
    flow_label: Option<u32>,
    /// Length of the packet by its IP header, in bytes.
    pub total_len: usize,
    /// Length of all headers, in bytes.
    headers: Option<usize>,
    /// The transport's checksum.
    pub checksum: Option<u16>,
    /// TCP's sequence number.
    pub seq: Option<SeqNumber>,
    /// The whole TCP header.
    pub segment: Option<Segment>,
}

impl Headers {
    /// Reads the headers of a packet up to the ports, at least.
    pub(crate) fn read(packet: &[u8]) -> Option<Headers> {
        let header = ip::parse(packet, true).ok()?;
        if header.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return None;
        }
        let fixed: &[u8; ip::IPV4_HEADER] = packet.first_chunk()?;
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let v4 = header.source.is_ipv4();
        let word = u32::from_be_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
        let transport = packet.get(header.transport..header.end)?;
        let &[a, b, c, d, rest @ ..] = transport.first_chunk::<8>()?;
        let tcp = header.protocol == TCP;
        Some(Headers {
            source: SocketAddr::new(header.source, u16::from_be_bytes([a, b])),
            destination: SocketAddr::new(header.destination, u16::from_be_bytes([c, d])),
            protocol: header.protocol,
            hop_limit: header.hop_limit,
            traffic_class: if v4 { fixed[1] } else { (word >> 20) as u8 },
            id: v4.then(|| half(4)),
            dont_fragment: !v4 || fixed[6] & 0x40 != 0,
            flow_label: (!v4).then_some(word & 0xf_ffff),
            total_len: if v4 { half(2).into() } else { usize::from(half(4)) + ip::IPV6_HEADER },
            headers: if tcp { transport.get(12).map(|byte| usize::from(byte >> 4) * 4) } else { Some(8) }
                .map(|length| header.transport + length),
            checksum: transport
                .get(if tcp { 16..18 } else { 6..8 })
                .and_then(|bytes| Some(u16::from_be_bytes(bytes.try_into().ok()?))),
            seq: tcp.then(|| SeqNumber(u32::from_be_bytes(rest))),
            segment: if tcp { Segment::parse(transport) } else { None },
        })
    }

    /// Returns the length of the transport's payload by the IP header, in bytes.
    pub(crate) fn payload_len(&self) -> Option<usize> {
        self.total_len.checked_sub(self.headers?)
    }

    /// Returns whether this is the packet `sent`, whatever a NAT made of one of its ends.
    pub(crate) fn is_of(&self, sent: &Headers) -> bool {
        let (source, destination) = (self.source == sent.source, self.destination == sent.destination);
        let ports =
            self.source.port() == sent.source.port() || self.destination.port() == sent.destination.port();
        self.protocol == sent.protocol
            && match (self.seq, sent.seq) {
                // An initial sequence number is nothing that others guess.
                (Some(quoted), Some(sent)) if quoted == sent => source || destination || ports,
                (Some(_), _) => source && destination,
                _ => source || destination,
            }
    }
}

/// A header field that differs between a packet as sent and as quoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub field: &'static str,
    pub sent: String,
    pub quoted: String,
}

impl Change {
    fn new(field: &'static str, sent: impl ToString, quoted: impl ToString) -> Change {
        Change { field, sent: sent.to_string(), quoted: quoted.to_string() }
    }

    /// Returns the change for people.
    pub(crate) fn words(&self) -> String {
        let name = match self.field {
            "source" => "source (NAT)",
            "destination" => "destination (NAT)",
            "reporter" => return format!("its errors come in the name of {} (DNAT)", self.quoted),
            "dscp" => "DSCP",
            "ecn" => "ECN",
            "hop_limit" => "TTL",
            "mss" => "MSS",
            "dont_fragment" => "DF",
            "window_scale" => "window scale",
            "sack_permitted" => "SACK permitted",
            "length" => "length",
            other => return format!("{} {} -> {}", other.replace('_', " "), self.sent, self.quoted),
        };
        format!("{name} {} -> {}", self.sent, self.quoted)
    }
}

/// Returns what has changed of a packet on the way to the router that quotes it. `expired` says that it was
/// dropped for its hop limit, which is 1 or 0 then.
pub(crate) fn changes(sent: &Headers, quoted: &Headers, expired: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut note = |field, sent: String, quoted: String| {
        if sent != quoted {
            changes.push(Change { field, sent, quoted });
        }
    };
    note("source", endpoint(&sent.source), endpoint(&quoted.source));
    note("destination", endpoint(&sent.destination), endpoint(&quoted.destination));
    note("dscp", (sent.traffic_class >> 2).to_string(), (quoted.traffic_class >> 2).to_string());
    note("ecn", (sent.traffic_class & 3).to_string(), (quoted.traffic_class & 3).to_string());
    if expired && quoted.hop_limit > 1 {
        note("hop_limit", "1".to_owned(), quoted.hop_limit.to_string());
    }
    note("dont_fragment", sent.dont_fragment.to_string(), quoted.dont_fragment.to_string());
    note("length", sent.total_len.to_string(), quoted.total_len.to_string());
    if let (Some(sent), Some(quoted)) = (sent.id, quoted.id) {
        note("identification", sent.to_string(), quoted.to_string());
    }
    if let (Some(sent), Some(quoted)) = (sent.flow_label, quoted.flow_label) {
        note("flow_label", format!("{sent:#x}"), format!("{quoted:#x}"));
    }
    if let (Some(sent), Some(quoted)) = (sent.seq, quoted.seq) {
        note("sequence_number", sent.0.to_string(), quoted.0.to_string());
    }
    if let (Some(sent), Some(quoted)) = (sent.segment, quoted.segment) {
        let number = |value: Option<u16>| value.map_or("none".to_owned(), |value| value.to_string());
        note("mss", number(sent.options.mss), number(quoted.options.mss));
        let scale = |value: Option<u8>| number(value.map(u16::from));
        note("window_scale", scale(sent.options.window_scale), scale(quoted.options.window_scale));
        note(
            "sack_permitted",
            sent.options.sack_permitted.to_string(),
            quoted.options.sack_permitted.to_string(),
        );
        let stamp = |segment: &Segment| segment.options.timestamps.map_or("none", |_| "there").to_owned();
        note("timestamps", stamp(&sent), stamp(&quoted));
        note("window", sent.window.to_string(), quoted.window.to_string());
    }
    changes
}

/// Returns the change that an error shows whose sender has the destination's address, though the packet has not
/// come so far: a DNAT translates the errors of routers behind it, too (nf_nat_icmp_reply_translation() in
/// net/netfilter/nf_nat_proto.c).
pub(crate) fn in_the_name_of(destination: IpAddr) -> Change {
    Change::new("reporter", "a router", destination)
}
