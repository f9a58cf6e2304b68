//! Version 1: a line of text (spec 2.1).
use super::{Ends, Header, HeaderError, Transport, Version, error::quote};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The end of the line.
pub(super) const END: &[u8] = b"\r\n";
/// Maximum length of the line with its end, in bytes (spec 2.1, the worst case).
const LIMIT: usize = 107;
/// The beginning of a line whose rest a receiver ignores.
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

fn malformed(fault: impl Into<String>) -> HeaderError {
    HeaderError::Malformed { version: Version::One, fault: fault.into() }
}

/// Checks a line whose end has not come yet.
///
/// # Errors
/// The line is too long already, or ends without a carriage return.
pub(super) fn check_beginning(bytes: &[u8]) -> Result<(), HeaderError> {
    if bytes.ends_with(b"\n") && !is_unknown(bytes) {
        return Err(malformed(
            "the line ends with a line feed alone, not with carriage return and line feed",
        ));
    }
    match bytes.len() >= LIMIT {
        true => Err(HeaderError::TooLong { version: Version::One, limit: LIMIT }),
        false => Ok(()),
    }
}

fn is_unknown(line: &[u8]) -> bool {
    line.strip_prefix(UNKNOWN).is_some_and(|rest| rest.is_empty() || rest.starts_with(b" "))
}

/// Parses a line with its end.
///
/// # Errors
/// [`HeaderError::Malformed`].
pub(super) fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    let header =
        |ends| Header { version: Version::One, local: false, ends, tlvs: Vec::new(), length: bytes.len() };
    let line = bytes.strip_suffix(END).unwrap_or(bytes);
    if is_unknown(line) {
        return Ok(header(Ends::Unspecified));
    }
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [b"PROXY", protocol, source, destination, source_port, destination_port] = fields[..] else {
        return Err(malformed(format!(
            "\"{}\" is not PROXY, a protocol, two addresses and two ports, with a space between each",
            quote(line)
        )));
    };
    let address = match protocol {
        b"TCP4" => |field: &[u8]| Some(IpAddr::V4(text(field)?.parse::<Ipv4Addr>().ok()?)),
        b"TCP6" => |field: &[u8]| Some(IpAddr::V6(text(field)?.parse::<Ipv6Addr>().ok()?)),
        other => {
            return Err(malformed(format!("protocol \"{}\" is not TCP4, TCP6 or UNKNOWN", quote(other))));
        }
    };
    let end = |ip: &[u8], number: &[u8]| {
        let wrong = |field: &[u8], what: &str| malformed(format!("\"{}\" is not {what}", quote(field)));
        let what = if protocol == b"TCP4" { "an IPv4 address" } else { "an IPv6 address" };
        Ok(SocketAddr::new(
            address(ip).ok_or_else(|| wrong(ip, what))?,
            port(number).ok_or_else(|| wrong(number, "a port"))?,
        ))
    };
    let (source, destination) = (end(source, source_port)?, end(destination, destination_port)?);
    Ok(header(Ends::Inet { transport: Transport::Stream, source, destination }))
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// Parses a decimal number without sign and leading zeros.
fn port(field: &[u8]) -> Option<u16> {
    let digits = text(field).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|_| digits == "0" || !digits.starts_with('0'))
}

/// Returns the line of a TCP connection between ends of one family.
pub(super) fn write(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let protocol = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let [from, to] = [source.ip(), destination.ip()].map(canonical);
    format!("PROXY {protocol} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// Returns an address as the line has it: IPv6 in hexadecimal alone, also where an IPv4 address is inside.
fn canonical(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let [.., high, low] = v6.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        ip => ip.to_string(),
    }
}
