//! Renders a packet as one line of text.
//!
//! Theory of operation: fields, order and spacing are those of gVisor's sniffer
//! (pkg/tcpip/link/sniffer/sniffer.go, `logPacket`), so that existing grep patterns match. Fields that
//! gVisor lacks follow at the end of the line as ` name:value`, each only if the packet has it. The
//! text of the date is cached for a second. Only numbers and addresses come from the wire, and
//! interface names are escaped, so no control character reaches the terminal.
use std::{net::IpAddr, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    decode::{Arp, DecodedFrame, Icmp, Ip, Network, Problem, Tcp, TcpOptions, Transport, Udp},
    frame::{CapturedFrame, LinkType},
    names,
    text::AppendText,
};
use crate::{
    net::ip_protocol::{ICMP, ICMPV6},
    text::escape_control,
};

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

fn append_unknown_network(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame) {
    let link = &decoded.link;
    if let LinkType::Other(number) = frame.link_type {
        out.text(" unknown link type: ");
        out.decimal(number);
    } else {
        out.text(" unknown network protocol");
    }
    if let Some(ethertype) = link.ethertype {
        out.text(": 0x");
        out.hex(ethertype.into(), 4);
        append_comment(out, names::ethertype(ethertype));
    }
    if let Some(source) = link.source {
        out.push(b' ');
        out.mac(source);
    }
    if let Some(destination) = link.destination {
        out.text(" -> ");
        out.mac(destination);
    }
    out.text(" len:");
    out.decimal(frame.length.saturating_sub(decoded.payload.start));
}

fn append_ip(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame, ip: &Ip) {
    let is_icmp = matches!(ip.protocol, ICMP | ICMPV6);
    out.push(b' ');
    match &ip.transport {
        Transport::Tcp(tcp) => {
            append_head(out, ip, Some((tcp.source, tcp.destination)), tcp.length);
            append_tcp(out, tcp);
        }
        Transport::Udp(udp) => {
            append_head(out, ip, Some((udp.source, udp.destination)), udp.length);
            append_udp(out, udp);
        }
        Transport::Icmp(icmp) => append_icmp(out, ip, Some(icmp)),
        Transport::Unknown => append_unknown_transport(out, ip),
        Transport::Fragment if is_icmp => append_icmp(out, ip, None),
        Transport::Fragment => append_head(out, ip, Some((0, 0)), ip.length),
        Transport::Malformed { ports } => {
            append_head(out, ip, (!is_icmp).then(|| ports.unwrap_or_default()), ip.length);
            if let Some(problem) = decoded.problem {
                append_problem(out, problem);
            }
        }
    }
    append_extras(out, frame, ip);
}

/// Appends protocol, both ends, payload length and identification.
fn append_head(out: &mut Vec<u8>, ip: &Ip, ports: Option<(u16, u16)>, length: usize) {
    out.text(names::transport(ip.protocol));
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

fn append_tcp(out: &mut Vec<u8>, tcp: &Tcp) {
    out.text(" flags: ");
    for (bit, letter) in b"FSRPAU".iter().enumerate() {
        out.push(if tcp.flags >> bit & 1 == 1 { *letter } else { b' ' });
    }
    out.text(" seqnum: ");
    out.decimal(tcp.sequence);
    out.text(" ack: ");
    out.decimal(tcp.acknowledgement);
    out.text(" win: ");
    out.decimal(tcp.window);
    out.text(" xsum:0x");
    out.hex(tcp.checksum.into(), 1);
    out.text(" options: {");
    let options = &tcp.options;
    if tcp.flags & Tcp::SYN != 0 {
        append_syn_options(out, options);
    } else {
        append_segment_options(out, options);
    }
    out.push(b'}');
    if !options.others.is_empty() {
        out.text(" other options:[");
        out.joined(b' ', &options.others, |out, kind| out.decimal(*kind));
        out.push(b']');
    }
}

/// Appends the options of a SYN. Without the option, the MSS is 536 (RFC 9293, section 3.7.1), and
/// the window scale is none, written -1.
fn append_syn_options(out: &mut Vec<u8>, options: &TcpOptions) {
    out.text("MSS:");
    out.decimal(options.mss.unwrap_or(536));
    out.text(" WS:");
    out.decimal(options.window_scale.map_or(-1, i16::from));
    out.push(b' ');
    append_timestamps(out, options);
    out.text(" SACKPermitted:");
    out.text(if options.sack_permitted { "true" } else { "false" });
}

fn append_segment_options(out: &mut Vec<u8>, options: &TcpOptions) {
    append_timestamps(out, options);
    out.text(" SACKBlocks:[");
    out.joined(b' ', &options.sack, |out, (start, end)| {
        out.text("{Start:");
        out.decimal(*start);
        out.text(" End:");
        out.decimal(*end);
        out.push(b'}');
    });
    out.push(b']');
}

fn append_timestamps(out: &mut Vec<u8>, options: &TcpOptions) {
    let (value, echo) = options.timestamps.unwrap_or_default();
    out.text(if options.timestamps.is_some() { "TS:true TSVal:" } else { "TS:false TSVal:" });
    out.decimal(value);
    out.text(" TSEcr:");
    out.decimal(echo);
}

fn append_udp(out: &mut Vec<u8>, udp: &Udp) {
    out.text(" xsum: 0x");
    out.hex(udp.checksum.into(), 1);
}

/// Appends an ICMP message, or a later fragment of one, whose type is unknown.
fn append_icmp(out: &mut Vec<u8>, ip: &Ip, icmp: Option<&Icmp>) {
    let name = icmp.and_then(|icmp| names::icmp(ip.protocol, icmp.kind));
    out.text("icmp ");
    append_ends(out, ip.source, ip.destination, None);
    out.push(b' ');
    out.text(name.unwrap_or("unknown"));
    append_length_and_id(out, ip, ip.length);
    out.text(" code:");
    out.decimal(icmp.map_or(0, |icmp| icmp.code));
    let Some(icmp) = icmp else { return };
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
fn append_extras(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, ip: &Ip) {
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
    if let Some(gso_size) = frame.gso_size {
        out.text(" gso:");
        out.decimal(gso_size);
    }
    if frame.checksum_partial && matches!(ip.transport, Transport::Tcp(_) | Transport::Udp(_)) {
        out.text(" csum:partial");
    }
}
