//! A packet as one line of text, in the form of gVisor's sniffer (pkg/tcpip/link/sniffer/sniffer.go, `logPacket`).
//!
//! Theory of operation: fields, their order and spacing are gVisor's, so that what people grep for stays where
//! it is; whatever gVisor does not show follows at the end of the line, each as ` name:value` and only where
//! there is something to say. Lines are appended to the caller's buffer; the text of the date changes once a
//! second and is kept.
//! Nothing but numbers and addresses comes from the wire, and names of interfaces are escaped, so no control character
//! reaches the terminal.
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use super::{
    Checksum, Direction, LinkType, Observed,
    decode::{Arp, Decoded, Icmp, Ip, Network, Problem, Tcp, TcpOptions, Transport, Udp},
    names,
    text::{Text, escaped},
};

/// Writes packets as lines.
pub struct Lines {
    process: u32,
    zone: TimeZone,
    /// The second that `date` is the text of.
    second: Option<u64>,
    date: Vec<u8>,
}

impl Lines {
    /// Lines that name this process id and show time in this zone.
    pub fn new(process: u32, zone: TimeZone) -> Self {
        Lines { process, zone, second: None, date: Vec::new() }
    }

    /// Lines of this process in local time. The zone is read here, while the file system can still be reached.
    pub fn local() -> Self {
        Lines::new(std::process::id(), TimeZone::system())
    }

    /// Appends the line of one packet, with its line feed. `interface` is named where there is more than one.
    pub fn append(
        &mut self,
        out: &mut Vec<u8>,
        frame: &Observed<'_>,
        decoded: &Decoded,
        interface: Option<&str>,
    ) {
        self.prefix(out, frame.time);
        out.text(match frame.direction {
            Direction::Receive => "recv",
            Direction::Send => "send",
        });
        match &decoded.network {
            Network::Arp(arp) => self::arp(out, arp),
            Network::Ip(ip) => self::ip(out, frame, decoded, ip),
            Network::Unknown => unknown_network(out, frame, decoded),
            Network::Malformed => {}
        }
        let shown = matches!(decoded.network, Network::Ip(Ip { transport: Transport::Malformed { .. }, .. }));
        if let Some(problem) = decoded.problem.filter(|_| !shown) {
            self::problem(out, problem);
        }
        for tag in &decoded.link.vlan {
            out.text(" vlan:");
            out.decimal(tag.id());
        }
        if let Some(interface) = interface {
            out.text(" if:");
            out.text(&escaped(interface));
        }
        out.push(b'\n');
    }

    /// glog's prefix: severity, month, day, time, process, file. The year is missing there too.
    fn prefix(&mut self, out: &mut Vec<u8>, time: Duration) {
        let second = time.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            // Times that no calendar has (beyond the year 9999, from a forged file) are shown as the epoch.
            let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
            let time = self.zone.to_datetime(time.unwrap_or(Timestamp::UNIX_EPOCH));
            self.date.clear();
            self.date.push(b'I');
            self.date.two(time.month().unsigned_abs());
            self.date.two(time.day().unsigned_abs());
            self.date.push(b' ');
            self.date.two(time.hour().unsigned_abs());
            self.date.push(b':');
            self.date.two(time.minute().unsigned_abs());
            self.date.push(b':');
            self.date.two(time.second().unsigned_abs());
            self.date.push(b'.');
        }
        out.extend_from_slice(&self.date);
        let micros = time.subsec_micros();
        out.two((micros / 10_000) as u8);
        out.two((micros / 100 % 100) as u8);
        out.two((micros % 100) as u8);
        out.push(b' ');
        out.decimal(self.process);
        out.text(" sniffer] ");
    }
}

fn problem(out: &mut Vec<u8>, problem: Problem) {
    out.push(b' ');
    out.text(problem.verdict());
    out.text(": ");
    out.display(problem);
}

fn arp(out: &mut Vec<u8>, arp: &Arp) {
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

fn unknown_network(out: &mut Vec<u8>, frame: &Observed<'_>, decoded: &Decoded) {
    let link = &decoded.link;
    if let LinkType::Other(number) = frame.link {
        out.text(" unknown link type: ");
        out.decimal(number);
    } else {
        out.text(" unknown network protocol");
    }
    if let Some(ethertype) = link.ethertype {
        out.text(": 0x");
        out.hex(ethertype.into(), 4);
        if let Some(name) = names::ethertype(ethertype) {
            out.text(" (");
            out.text(name);
            out.push(b')');
        }
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

fn ip(out: &mut Vec<u8>, frame: &Observed<'_>, decoded: &Decoded, ip: &Ip) {
    out.push(b' ');
    match &ip.transport {
        Transport::Tcp(tcp) => {
            head(out, ip, Some((tcp.source, tcp.destination)), tcp.length);
            self::tcp(out, tcp);
        }
        Transport::Udp(udp) => {
            head(out, ip, Some((udp.source, udp.destination)), udp.length);
            self::udp(out, udp);
        }
        Transport::Icmp(icmp) => self::icmp(out, ip, Some(icmp)),
        Transport::Unknown => unknown_transport(out, ip),
        Transport::Fragment if names::is_icmp(ip.protocol) => self::icmp(out, ip, None),
        Transport::Fragment => head(out, ip, Some((0, 0)), ip.length),
        Transport::Malformed { ports } => {
            let ports = if names::is_icmp(ip.protocol) { None } else { Some(ports.unwrap_or_default()) };
            head(out, ip, ports, ip.length);
            if let Some(problem) = decoded.problem {
                self::problem(out, problem);
            }
        }
    }
    tail(out, frame, ip);
}

/// Protocol, both ends, payload length and identification.
fn head(out: &mut Vec<u8>, ip: &Ip, ports: Option<(u16, u16)>, length: usize) {
    out.text(names::transport(ip.protocol));
    out.push(b' ');
    out.ip(ip.source);
    if let Some((source, _)) = ports {
        out.push(b':');
        out.decimal(source);
    }
    out.text(" -> ");
    out.ip(ip.destination);
    if let Some((_, destination)) = ports {
        out.push(b':');
        out.decimal(destination);
    }
    length_and_id(out, ip, length);
}

fn length_and_id(out: &mut Vec<u8>, ip: &Ip, length: usize) {
    out.text(" len:");
    out.decimal(length);
    out.text(" id:");
    out.hex(ip.id, 4);
}

fn tcp(out: &mut Vec<u8>, tcp: &Tcp) {
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
        syn_options(out, options);
    } else {
        segment_options(out, options);
    }
    out.push(b'}');
    if !options.others.is_empty() {
        out.text(" other options:[");
        for (at, kind) in options.others.iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            out.decimal(*kind);
        }
        out.push(b']');
    }
}

/// A SYN without the option has an MSS of 536 (RFC 9293, section 3.7.1), and no window scaling, written -1.
fn syn_options(out: &mut Vec<u8>, options: &TcpOptions) {
    out.text("MSS:");
    out.decimal(options.mss.unwrap_or(536));
    out.text(" WS:");
    out.decimal(options.window_scale.map_or(-1, i16::from));
    out.push(b' ');
    timestamps(out, options);
    out.text(" SACKPermitted:");
    out.text(if options.sack_permitted { "true" } else { "false" });
}

fn segment_options(out: &mut Vec<u8>, options: &TcpOptions) {
    timestamps(out, options);
    out.text(" SACKBlocks:[");
    for (at, (start, end)) in options.sack.iter().enumerate() {
        out.text(if at > 0 { " {Start:" } else { "{Start:" });
        out.decimal(*start);
        out.text(" End:");
        out.decimal(*end);
        out.push(b'}');
    }
    out.push(b']');
}

fn timestamps(out: &mut Vec<u8>, options: &TcpOptions) {
    let (value, echo) = options.timestamps.unwrap_or_default();
    out.text(if options.timestamps.is_some() { "TS:true TSVal:" } else { "TS:false TSVal:" });
    out.decimal(value);
    out.text(" TSEcr:");
    out.decimal(echo);
}

fn udp(out: &mut Vec<u8>, udp: &Udp) {
    out.text(" xsum: 0x");
    out.hex(udp.checksum.into(), 1);
}

/// An ICMP message, or a later fragment of one, whose type is not known.
fn icmp(out: &mut Vec<u8>, ip: &Ip, icmp: Option<&Icmp>) {
    out.text("icmp ");
    out.ip(ip.source);
    out.text(" -> ");
    out.ip(ip.destination);
    out.push(b' ');
    out.text(icmp.and_then(|icmp| names::icmp(ip.protocol, icmp.kind)).unwrap_or("unknown"));
    length_and_id(out, ip, ip.length);
    out.text(" code:");
    out.decimal(icmp.map_or(0, |icmp| icmp.code));
    let Some(icmp) = icmp else { return };
    if names::icmp(ip.protocol, icmp.kind).is_none() {
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
        out.ip(quoted.source);
        if let Some((source, _)) = quoted.ports {
            out.push(b':');
            out.decimal(source);
        }
        out.text(" -> ");
        out.ip(quoted.destination);
        if let Some((_, destination)) = quoted.ports {
            out.push(b':');
            out.decimal(destination);
        }
    }
}

fn unknown_transport(out: &mut Vec<u8>, ip: &Ip) {
    out.ip(ip.source);
    out.text(" -> ");
    out.ip(ip.destination);
    out.text(" unknown transport protocol: ");
    out.decimal(ip.protocol);
    if let Some(name) = names::other_transport(ip.protocol) {
        out.text(" (");
        out.text(name);
        out.push(b')');
    }
}

/// What gVisor's sniffer has no words for.
fn tail(out: &mut Vec<u8>, frame: &Observed<'_>, ip: &Ip) {
    if let Some(fragment) = ip.fragment {
        out.text(" fragment offset:");
        out.decimal(fragment.offset);
        out.text(if fragment.more { " more:true" } else { " more:false" });
    }
    if !ip.extensions.is_empty() {
        out.text(" extensions:[");
        for (at, kind) in ip.extensions.iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            out.text(names::extension(*kind));
        }
        out.push(b']');
    }
    if let Some(gso) = frame.gso {
        out.text(" gso:");
        out.decimal(gso);
    }
    if frame.checksum == Checksum::Partial && matches!(ip.transport, Transport::Tcp(_) | Transport::Udp(_)) {
        out.text(" csum:partial");
    }
}
