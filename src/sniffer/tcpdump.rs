//! Renders a packet as tcpdump's line: `tcpdump -nn` without -v.
//!
//! Theory of operation: the decoder has read the headers; the order of TCP's options and the fields of
//! ICMP messages, which it does not keep, are read here from the frame. Sequence numbers count from the
//! first one of their conversation, so the formatter remembers conversations, a limited number of them.
//! Payloads of applications are not decoded: where tcpdump goes on behind `length N`, this line ends.
mod conversations;
mod icmp;
mod tcp;
mod time;

use super::{
    decode::{Arp, DecodedFrame, Ip, Network, Tcp, Transport},
    dump::link_header_length,
    frame::{CapturedFrame, FrameDirection, LinkType},
    text::AppendText,
};
use crate::{
    link::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    net::MacAddr,
    text::escape_control,
};
use conversations::Conversations;
use jiff::tz::TimeZone;
pub(crate) use time::TimeForm;
use time::Times;

/// Details of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpdumpOptions {
    /// The form of the time (-t).
    pub time: TimeForm,
    /// Show sequence numbers as they are (-S).
    pub absolute: bool,
    /// Show the link header (-e).
    pub link_header: bool,
}

/// A formatter of tcpdump's lines.
pub(super) struct TcpdumpFormatter {
    options: TcpdumpOptions,
    times: Times,
    conversations: Conversations,
}

impl TcpdumpFormatter {
    pub(super) fn new(options: TcpdumpOptions, zone: TimeZone) -> Self {
        TcpdumpFormatter {
            options,
            times: Times::new(options.time, zone),
            conversations: Conversations::default(),
        }
    }

    /// Appends the line of one packet with its line feed. `interface` adds the interface's name.
    pub(super) fn append(
        &mut self,
        out: &mut Vec<u8>,
        frame: &CapturedFrame<'_>,
        decoded: &DecodedFrame,
        interface: Option<&str>,
    ) {
        self.times.append(out, frame.time);
        if let Some(interface) = interface {
            out.text(&format!("{:<5} ", escape_control(interface)));
            out.text(match frame.direction {
                FrameDirection::Inbound => "In  ",
                FrameDirection::Outbound => "Out ",
            });
        }
        let link = self.options.link_header && append_link(out, frame, decoded);
        match &decoded.network {
            Network::Arp(arp) => {
                out.text(if link { "" } else { "ARP, " });
                append_arp(out, frame, decoded, arp);
            }
            Network::Ip(ip) => {
                if !link {
                    out.text(if ip.source.is_ipv4() { "IP " } else { "IP6 " });
                }
                self.append_ip(out, frame, decoded, ip);
            }
            Network::Unknown if !link => append_unknown(out, frame, decoded),
            Network::Unknown => {}
            Network::Malformed => out.text("[|truncated]"),
        }
        if let Some(problem) = decoded.problem {
            out.text(" [");
            out.display(problem);
            out.push(b']');
        }
        out.push(b'\n');
    }

    fn append_ip(&mut self, out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame, ip: &Ip) {
        let ports = match &ip.transport {
            Transport::Tcp(tcp) => Some((tcp.source, tcp.destination)),
            Transport::Udp(udp) => Some((udp.source, udp.destination)),
            Transport::Malformed { ports } => *ports,
            _ => None,
        };
        // The ends of an IPv6 fragment's ports stand behind the fragment.
        let fragment6 = ip.fragment.filter(|_| ip.source.is_ipv6());
        append_ends(out, ip, ports.filter(|_| fragment6.is_none()));
        if let Some(fragment) = fragment6 {
            out.text(" frag (");
            out.decimal(fragment.offset);
            out.push(b'|');
            out.decimal(ip.length);
            out.push(b')');
            if let Some((source, destination)) = ports {
                out.push(b' ');
                out.decimal(source);
                out.text(" > ");
                out.decimal(destination);
                out.push(b':');
            }
        }
        match &ip.transport {
            Transport::Tcp(tcp) => self.append_tcp(out, frame, decoded, ip, tcp),
            Transport::Udp(udp) => {
                out.text(" UDP, length ");
                out.decimal(announced(frame, decoded, udp.length));
            }
            Transport::Icmp(icmp) => icmp::append(out, frame, decoded, ip, icmp),
            Transport::Fragment if fragment6.is_some() => {}
            Transport::Fragment => append_protocol(out, ip),
            Transport::Unknown => {
                append_protocol(out, ip);
                out.push(b' ');
                out.decimal(ip.length);
            }
            Transport::Malformed { .. } => {}
        }
    }

    fn append_tcp(
        &mut self,
        out: &mut Vec<u8>,
        frame: &CapturedFrame<'_>,
        decoded: &DecodedFrame,
        ip: &Ip,
        tcp: &Tcp,
    ) {
        let relative = !self.options.absolute && tcp.flags & tcp::ACK != 0;
        let base = relative.then(|| self.conversations.base(ip, tcp));
        tcp::append(out, frame, decoded, ip, tcp, base.unwrap_or_default());
    }
}

/// Returns the length of a UDP payload by its own header, which in the first fragment of a datagram
/// exceeds the packet.
fn announced(frame: &CapturedFrame<'_>, decoded: &DecodedFrame, otherwise: usize) -> usize {
    let at = decoded.payload.start;
    let mut length = frame.bytes(at.saturating_sub(4)..at.saturating_sub(2));
    match (length.next(), length.next()) {
        (Some(high), Some(low)) if at >= 8 => {
            usize::from(u16::from_be_bytes([high, low])).checked_sub(8).unwrap_or(otherwise)
        }
        _ => otherwise,
    }
}

fn append_ends(out: &mut Vec<u8>, ip: &Ip, ports: Option<(u16, u16)>) {
    let end = |out: &mut Vec<u8>, ip, port: Option<u16>| {
        out.ip(ip);
        if let Some(port) = port {
            out.push(b'.');
            out.decimal(port);
        }
    };
    end(out, ip.source, ports.map(|(source, _)| source));
    out.text(" > ");
    end(out, ip.destination, ports.map(|(_, destination)| destination));
    out.push(b':');
}

fn append_protocol(out: &mut Vec<u8>, ip: &Ip) {
    out.text(" ip-proto-");
    out.decimal(ip.protocol);
}

fn append_arp(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame, arp: &Arp) {
    match arp.operation {
        1 => {
            out.text("Request who-has ");
            out.ip(arp.target.into());
            if arp.target_mac != MacAddr::default() {
                out.text(" (");
                out.mac(arp.target_mac);
                out.push(b')');
            }
            out.text(" tell ");
            out.ip(arp.sender.into());
        }
        2 => {
            out.text("Reply ");
            out.ip(arp.sender.into());
            out.text(" is-at ");
            out.mac(arp.sender_mac);
        }
        other => {
            out.text("operation ");
            out.decimal(other);
        }
    }
    out.text(", length ");
    out.decimal(frame.length.saturating_sub(link_header_length(frame, decoded)));
}

/// Appends the link header of an Ethernet frame. Returns whether there is one.
fn append_link(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame) -> bool {
    let link = &decoded.link;
    let (Some(source), Some(destination)) = (link.source, link.destination) else { return false };
    out.mac(source);
    out.text(" > ");
    out.mac(destination);
    let kind = |out: &mut Vec<u8>, number: u16| {
        out.text("ethertype ");
        out.text(match number {
            ETHERTYPE_IPV4 => "IPv4",
            ETHERTYPE_IPV6 => "IPv6",
            ETHERTYPE_ARP => "ARP",
            0x8100 => "802.1Q",
            0x88a8 => "802.1Q-QinQ",
            0x9100 => "802.1Q-9100",
            0x88cc => "LLDP",
            _ => "Unknown",
        });
        out.text(" (0x");
        out.hex(number.into(), 4);
        out.push(b')');
    };
    let inner = link.ethertype.unwrap_or_default();
    out.text(", ");
    kind(out, link.vlan.first().map_or(inner, |tag| tag.tpid));
    out.text(", length ");
    out.decimal(frame.length + if frame.vlan.is_some() { 4 } else { 0 });
    out.text(": ");
    for (at, tag) in link.vlan.iter().enumerate() {
        out.text("vlan ");
        out.decimal(tag.id());
        out.text(", p ");
        out.decimal(tag.priority());
        if tag.tci & 0x1000 != 0 {
            out.text(", DEI");
        }
        out.text(", ");
        kind(out, link.vlan.get(at + 1).map_or(inner, |tag| tag.tpid));
        out.text(if at + 1 < link.vlan.len() || decoded.network != Network::Unknown { ", " } else { "" });
    }
    true
}

fn append_unknown(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame) {
    if let LinkType::Other(number) = frame.link_type {
        out.text("link type ");
        out.decimal(number);
    } else {
        out.text("ethertype 0x");
        out.hex(decoded.link.ethertype.unwrap_or_default().into(), 4);
    }
    out.text(", length ");
    out.decimal(frame.length);
}
