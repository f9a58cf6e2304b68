//! Renders a packet as one line of text.
//!
//! Theory of operation: fields, order and spacing are those of gVisor's sniffer
//! (pkg/tcpip/link/sniffer/sniffer.go, `logPacket`), so that existing grep patterns match. Fields that
//! gVisor lacks follow at the end of the line as ` name:value`, each only if the packet has it. The
//! text of the date is cached for a second. Only numbers and addresses come from the wire, and
//! interface names are escaped, so no control character reaches the terminal.
mod tcp;

use std::{net::IpAddr, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    decode::{Arp, DecodedFrame, Icmp, Ip, LinkLayer, Network, Problem, Transport, Tunnel, Udp},
    frame::{CapturedFrame, LinkType},
    names,
    text::AppendText,
};
use crate::text::escape_control;

/// A formatter of packets as lines.
pub struct LineFormatter {
    process: u32,
    zone: TimeZone,
    /// The second that `date` shows.
    second: Option<u64>,
    date: Vec<u8>,
}

impl LineFormatter {
    /// Returns a formatter that shows this process id, and times in this zone.
    pub fn new(process: u32, zone: TimeZone) -> Self {
        LineFormatter { process, zone, second: None, date: Vec::new() }
    }

    /// Returns a formatter for this process and local time. Reads the time zone at once, because
    /// the sandbox closes the file system later.
    pub(crate) fn local() -> Self {
        LineFormatter::new(std::process::id(), TimeZone::system())
    }

    /// Returns the zone of the times.
    pub(super) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Appends the line of one packet with its line feed. `interface` adds the interface's name.
    pub fn append(
        &mut self,
        out: &mut Vec<u8>,
        frame: &CapturedFrame<'_>,
        decoded: &DecodedFrame,
        interface: Option<&str>,
    ) {
        self.append_prefix(out, frame.time);
        out.text(names::direction(frame.direction));
        append_packet(out, frame, decoded);
        let (captured, length) = (frame.captured(), frame.length);
        if captured < length {
            out.text(" cut: ");
            out.decimal(captured);
            out.text(" of ");
            out.decimal(length);
            out.text(" bytes captured");
        }
        if let Some(interface) = interface {
            out.text(" if:");
            out.text(&escape_control(interface));
        }
        out.push(b'\n');
    }

    /// Appends glog's prefix: severity, month, day, time, process, file. glog leaves out the year,
    /// too.
    fn append_prefix(&mut self, out: &mut Vec<u8>, time: Duration) {
        let second = time.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            // A time beyond the year 9999, from a forged file, is shown as the epoch.
            let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
            let time = self.zone.to_datetime(time.unwrap_or(Timestamp::UNIX_EPOCH));
            let date = &mut self.date;
            date.clear();
            date.push(b'I');
            date.two_digits(time.month().unsigned_abs());
            date.two_digits(time.day().unsigned_abs());
            date.push(b' ');
            date.two_digits(time.hour().unsigned_abs());
            date.push(b':');
            date.two_digits(time.minute().unsigned_abs());
            date.push(b':');
            date.two_digits(time.second().unsigned_abs());
            date.push(b'.');
        }
        out.extend_from_slice(&self.date);
        let micros = time.subsec_micros();
        out.two_digits((micros / 10_000) as u8);
        out.two_digits((micros / 100 % 100) as u8);
        out.two_digits((micros % 100) as u8);
        out.push(b' ');
        out.decimal(self.process);
        out.text(" sniffer] ");
    }
}

/// Appends a packet, and behind a bar the packet that it carries in a tunnel.
fn append_packet(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame) {
    let mut packet = decoded;
    append_layers(out, Some(frame), packet);
    while let Some(inner) = &packet.inner {
        append_tunnel(out, &inner.tunnel, is_over_udp(&packet.network));
        packet = &inner.packet;
        append_layers(out, None, packet);
    }
}

/// Returns whether a tunnel's header follows a UDP header, whose line does not begin with the tunnel's name.
fn is_over_udp(network: &Network) -> bool {
    matches!(network, Network::Ip(Ip { transport: Transport::Udp(_), .. }))
}

/// Appends the headers of one packet, `frame` only for the outermost.
fn append_layers(out: &mut Vec<u8>, frame: Option<&CapturedFrame<'_>>, decoded: &DecodedFrame) {
    match &decoded.network {
        Network::Arp(arp) => append_arp(out, arp),
        Network::Ip(ip) => append_ip(out, frame, decoded, ip),
        Network::Unknown => append_unknown_network(out, frame, decoded),
        Network::Malformed => {}
    }
    let shown = matches!(decoded.network, Network::Ip(Ip { transport: Transport::Malformed { .. }, .. }));
    if let Some(problem) = decoded.problem.filter(|_| !shown) {
        append_problem(out, problem);
    }
    for tag in &decoded.link.vlan {
        out.text(" vlan:");
        out.decimal(tag.id());
    }
}

/// Appends the fields of a tunnel's header, behind its name if the packet does not begin with that.
fn append_tunnel(out: &mut Vec<u8>, tunnel: &Tunnel, named: bool) {
    if named {
        out.push(b' ');
        out.text(tunnel.name());
    }
    let mut field = |name: &str, value: Option<u32>| {
        if let Some(value) = value {
            out.push(b' ');
            out.text(name);
            out.push(b':');
            out.decimal(value);
        }
    };
    match tunnel {
        Tunnel::Ipip | Tunnel::SixInFour | Tunnel::FourInSix | Tunnel::SixInSix => {}
        Tunnel::Gre { key, sequence, call } => {
            field("key", *key);
            field("seq", *sequence);
            field("call", call.map(u32::from));
        }
        Tunnel::Erspan { version, session } => {
            field("type", Some((*version).into()));
            field("session", session.map(u32::from));
        }
        Tunnel::Vxlan { vni } | Tunnel::Geneve { vni } => field("vni", Some(*vni)),
        Tunnel::Mpls { labels } => {
            for entry in labels {
                field("label", Some(entry.label));
                field("ttl", Some(entry.ttl.into()));
            }
        }
        Tunnel::Pppoe { session } => field("session", Some((*session).into())),
    }
    out.text(" |");
}

fn append_problem(out: &mut Vec<u8>, problem: Problem) {
    out.push(b' ');
    out.text(problem.label());
    out.text(": ");
    out.display(problem);
}

fn append_arp(out: &mut Vec<u8>, arp: &Arp) {
    out.text(" arp ");
    out.ip(arp.sender.into());
    out.text(" (");
    out.mac(arp.sender_mac);
    out.text(") -> ");
    out.ip(arp.target.into());
    out.text(" (");
    out.mac(arp.target_mac);
    out.text(") valid:");
    out.text(if arp.valid { "true" } else { "false" });
}

fn append_unknown_network(out: &mut Vec<u8>, frame: Option<&CapturedFrame<'_>>, decoded: &DecodedFrame) {
    let link = &decoded.link;
    if let Some(inner) = &decoded.inner {
        out.push(b' ');
        out.text(inner.tunnel.name());
        return append_macs(out, link);
    }
    match frame.map(|frame| frame.link_type) {
        Some(LinkType::Other(number)) => {
            out.text(" unknown link type: ");
            out.decimal(number);
            append_comment(out, names::link_type(number));
        }
        _ => out.text(" unknown network protocol"),
    }
    if let Some(protocol) = link.ppp {
        out.text(": ppp 0x");
        out.hex(protocol.into(), 4);
        append_comment(out, names::ppp(protocol));
    } else if let Some(ethertype) = link.ethertype {
        out.text(": 0x");
        out.hex(ethertype.into(), 4);
        append_comment(out, names::ethertype(ethertype));
    }
    append_macs(out, link);
    out.text(" len:");
    out.decimal(match frame {
        Some(frame) => frame.length.saturating_sub(decoded.payload.start),
        None => decoded.payload.len(),
    });
}

fn append_macs(out: &mut Vec<u8>, link: &LinkLayer) {
    if let Some(source) = link.source {
        out.push(b' ');
        out.mac(source);
    }
    if let Some(destination) = link.destination {
        out.text(" -> ");
        out.mac(destination);
    }
}

fn append_ip(out: &mut Vec<u8>, frame: Option<&CapturedFrame<'_>>, decoded: &DecodedFrame, ip: &Ip) {
    let name = names::transport(ip.protocol);
    out.push(b' ');
    match &ip.transport {
        Transport::Tcp(tcp) => {
            append_head(out, name, ip, Some((tcp.source, tcp.destination)), tcp.length);
            tcp::append_tcp(out, tcp);
        }
        Transport::Udp(udp) => {
            append_head(out, name, ip, Some((udp.source, udp.destination)), udp.length);
            append_udp(out, udp);
        }
        Transport::Icmp(icmp) => append_icmp(out, ip, icmp),
        Transport::Unknown => match &decoded.inner {
            Some(inner) => append_head(out, inner.tunnel.name(), ip, None, ip.length),
            None => append_unknown_transport(out, ip),
        },
        Transport::Fragment => append_head(out, name, ip, None, ip.length),
        Transport::Malformed { ports } => {
            append_head(out, name, ip, *ports, ip.length);
            if let Some(problem) = decoded.problem {
                append_problem(out, problem);
            }
        }
    }
    append_extras(out, frame, ip);
}

/// Appends the protocol's name, both ends, payload length and identification. A packet whose ports are
/// unknown shows none: port 0 would be one.
fn append_head(out: &mut Vec<u8>, name: &str, ip: &Ip, ports: Option<(u16, u16)>, length: usize) {
    out.text(name);
    out.push(b' ');
    append_ends(out, ip.source, ip.destination, ports);
    append_length_and_id(out, ip, length);
}

fn append_ends(out: &mut Vec<u8>, source: IpAddr, destination: IpAddr, ports: Option<(u16, u16)>) {
    let end = |out: &mut Vec<u8>, ip, port: Option<u16>| {
        out.ip(ip);
        if let Some(port) = port {
            out.push(b':');
            out.decimal(port);
        }
    };
    end(out, source, ports.map(|(source, _)| source));
    out.text(" -> ");
    end(out, destination, ports.map(|(_, destination)| destination));
}

fn append_length_and_id(out: &mut Vec<u8>, ip: &Ip, length: usize) {
    out.text(" len:");
    out.decimal(length);
    out.text(" id:");
    out.hex(ip.id, 4);
}

/// Appends a name in parentheses.
fn append_comment(out: &mut Vec<u8>, name: Option<&str>) {
    if let Some(name) = name {
        out.text(" (");
        out.text(name);
        out.push(b')');
    }
}

fn append_udp(out: &mut Vec<u8>, udp: &Udp) {
    out.text(" xsum: 0x");
    out.hex(udp.checksum.into(), 1);
}

fn append_icmp(out: &mut Vec<u8>, ip: &Ip, icmp: &Icmp) {
    let name = names::icmp(ip.protocol, icmp.kind);
    out.text("icmp ");
    append_ends(out, ip.source, ip.destination, None);
    out.push(b' ');
    out.text(name.unwrap_or("unknown"));
    append_length_and_id(out, ip, ip.length);
    out.text(" code:");
    out.decimal(icmp.code);
    if name.is_none() {
        out.text(" type:");
        out.decimal(icmp.kind);
    }
    if let Some(target) = icmp.target {
        out.text(" target:");
        out.ip(target.into());
    }
    if let Some(mtu) = icmp.mtu {
        out.text(" mtu:");
        out.decimal(mtu);
    }
    if let Some(quoted) = &icmp.quoted {
        out.text(" about:");
        out.text(names::transport(quoted.protocol));
        out.push(b' ');
        append_ends(out, quoted.source, quoted.destination, quoted.ports);
    }
}

fn append_unknown_transport(out: &mut Vec<u8>, ip: &Ip) {
    append_ends(out, ip.source, ip.destination, None);
    out.text(" unknown transport protocol: ");
    out.decimal(ip.protocol);
    append_comment(out, names::other_transport(ip.protocol));
}

/// Appends the fields that gVisor's sniffer does not show.
fn append_extras(out: &mut Vec<u8>, frame: Option<&CapturedFrame<'_>>, ip: &Ip) {
    if let Some(fragment) = ip.fragment {
        out.text(" fragment offset:");
        out.decimal(fragment.offset);
        out.text(if fragment.more { " more:true" } else { " more:false" });
    }
    if !ip.extensions.is_empty() {
        out.text(" extensions:[");
        out.joined(b' ', &ip.extensions, |out, kind| out.text(names::extension(*kind)));
        out.push(b']');
    }
    let Some(frame) = frame else { return };
    if let Some(gso_size) = frame.gso_size {
        out.text(" gso:");
        out.decimal(gso_size);
    }
    if frame.checksum_partial && matches!(ip.transport, Transport::Tcp(_) | Transport::Udp(_)) {
        out.text(" csum:partial");
    }
}
