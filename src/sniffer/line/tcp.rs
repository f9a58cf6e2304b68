//! Renders a TCP header behind its ends: flags, numbers, options.
use crate::sniffer::{
    decode::{Tcp, TcpOptions},
    text::AppendText,
};

/// Appends a TCP header's fields.
pub(super) fn append_tcp(out: &mut Vec<u8>, tcp: &Tcp) {
    out.text(" flags: ");
    for (bit, letter) in b"FSRPAU".iter().enumerate() {
        out.push(if tcp.flags >> bit & 1 == 1 { *letter } else { b' ' });
    }
    // gVisor does not show the flags of ECN; the letters are tcpdump's: ECE, CWR, AE.
    let ecn = [(Tcp::ECE, b'E'), (Tcp::CWR, b'W'), (Tcp::AE, b'e')];
    out.extend(ecn.iter().filter(|(flag, _)| tcp.flags & flag != 0).map(|(_, letter)| letter));
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
