//! ICMP messages in tcpdump's form (print-icmp.c, print-icmp6.c).
use crate::{
    net::ip_protocol::{ICMP, TCP, UDP},
    sniffer::{
        decode::{DecodedFrame, Icmp, Ip, QuotedPacket},
        frame::CapturedFrame,
        names,
        text::AppendText,
    },
};

/// Bytes of a message's header.
const HEADER: usize = 8;

/// Appends a message.
pub(super) fn append(
    out: &mut Vec<u8>,
    frame: &CapturedFrame<'_>,
    decoded: &DecodedFrame,
    ip: &Ip,
    icmp: &Icmp,
) {
    if ip.protocol == ICMP {
        out.text(" ICMP ");
        append_v4(out, frame, decoded, icmp);
    } else {
        out.text(" ICMP6, ");
        append_v6(out, frame, decoded, icmp);
    }
    out.text(", length ");
    out.decimal(ip.length);
}

fn append_v4(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame, icmp: &Icmp) {
    match (icmp.kind, &icmp.quoted) {
        (0, _) => append_echo(out, "echo reply", frame, decoded),
        (8, _) => append_echo(out, "echo request", frame, decoded),
        (3, Some(quoted)) => append_unreachable(out, icmp, quoted),
        (11, _) if icmp.code == 0 => out.text("time exceeded in-transit"),
        (11, _) if icmp.code == 1 => out.text("ip reassembly time exceeded"),
        (kind, _) => append_other(out, names::icmp(ICMP, kind), icmp),
    }
}

fn append_unreachable(out: &mut Vec<u8>, icmp: &Icmp, quoted: &QuotedPacket) {
    let to = quoted.destination;
    match icmp.code {
        0 => {
            out.text("net ");
            out.ip(to);
            out.text(" unreachable");
        }
        1 => {
            out.text("host ");
            out.ip(to);
            out.text(" unreachable");
        }
        2 => {
            out.ip(to);
            out.text(" protocol ");
            out.decimal(quoted.protocol);
            out.text(" unreachable");
        }
        3 => {
            out.ip(to);
            append_port(out, quoted);
            out.text(" unreachable");
        }
        4 => {
            out.ip(to);
            out.text(" unreachable - need to frag");
            if let Some(mtu) = icmp.mtu.filter(|mtu| *mtu != 0) {
                out.text(" (mtu ");
                out.decimal(mtu);
                out.push(b')');
            }
        }
        9 | 10 | 13 => {
            out.text(match icmp.code {
                9 => "net ",
                _ => "host ",
            });
            out.ip(to);
            out.text(" unreachable - admin prohibited");
            out.text(if icmp.code == 13 { " filter" } else { "" });
        }
        code => {
            out.ip(to);
            out.text(" unreachable - #");
            out.decimal(code);
        }
    }
}

/// Appends protocol and port of a quoted packet.
fn append_port(out: &mut Vec<u8>, quoted: &QuotedPacket) {
    match (quoted.protocol, quoted.ports) {
        (TCP, Some((_, port))) => {
            out.text(" tcp port ");
            out.decimal(port);
        }
        (UDP, Some((_, port))) => {
            out.text(" udp port ");
            out.decimal(port);
        }
        (protocol, _) => {
            out.text(" protocol ");
            out.decimal(protocol);
            out.text(" port unreachable");
        }
    }
}

fn append_v6(out: &mut Vec<u8>, frame: &CapturedFrame<'_>, decoded: &DecodedFrame, icmp: &Icmp) {
    match (icmp.kind, &icmp.quoted) {
        (128, _) => append_echo(out, "echo request", frame, decoded),
        (129, _) => append_echo(out, "echo reply", frame, decoded),
        (1, Some(quoted)) => {
            out.text("destination unreachable, ");
            match icmp.code {
                0 => out.text("unreachable route "),
                1 => out.text("unreachable prohibited "),
                2 => out.text("beyond scope "),
                3 => out.text("unreachable address "),
                4 => out.text("unreachable port, "),
                code => {
                    out.text("unknown code (");
                    out.decimal(code);
                    out.text(") ");
                }
            }
            out.ip(quoted.destination);
            if icmp.code == 4 {
                append_port(out, quoted);
            }
        }
        (2, _) => {
            out.text("packet too big, mtu ");
            out.decimal(icmp.mtu.unwrap_or_default());
        }
        (3, Some(quoted)) => {
            out.text("time exceeded in-transit for ");
            out.ip(quoted.destination);
        }
        (133, _) => out.text("router solicitation"),
        (134, _) => out.text("router advertisement"),
        (135 | 136, _) => {
            out.text(match icmp.kind {
                135 => "neighbor solicitation, who has ",
                _ => "neighbor advertisement, tgt is ",
            });
            match icmp.target {
                Some(target) => out.ip(target.into()),
                None => out.push(b'?'),
            }
        }
        (143, _) => out.text("multicast listener report v2"),
        (kind, _) => append_other(out, names::icmp(58, kind), icmp),
    }
}

fn append_echo(out: &mut Vec<u8>, name: &str, frame: &CapturedFrame<'_>, decoded: &DecodedFrame) {
    let message = decoded.payload.start.saturating_sub(HEADER);
    let bytes: arrayvec::ArrayVec<u8, 4> = frame.bytes(message + 4..message + HEADER).take(4).collect();
    out.text(name);
    if let [a, b, c, d] = *bytes.as_slice() {
        out.text(", id ");
        out.decimal(u16::from_be_bytes([a, b]));
        out.text(", seq ");
        out.decimal(u16::from_be_bytes([c, d]));
    }
}

fn append_other(out: &mut Vec<u8>, name: Option<&str>, icmp: &Icmp) {
    match name {
        Some(name) => out.text(name),
        None => {
            out.text("type-#");
            out.decimal(icmp.kind);
        }
    }
    if icmp.code != 0 {
        out.text(", code ");
        out.decimal(icmp.code);
    }
}
