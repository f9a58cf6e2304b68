//! Version 2: a binary block (spec 2.2).
use super::{
    Ends, Header, HeaderError, Transport, Version, crc32c,
    tlv::{self, CRC32C, Tlv, Value},
};
use std::net::{IpAddr, SocketAddr};

/// The first bytes.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Length of the signature with version, command, family, transport and the length of the rest, in bytes.
const FIXED: usize = 16;
/// Maximum length, in bytes: HAProxy's (its default tune.bufsize). The length field would allow 65551.
const LIMIT: usize = 16 << 10;
/// Length of an AF_UNIX address, in bytes.
const UNIX: usize = 108;

fn malformed(fault: impl Into<String>) -> HeaderError {
    HeaderError::Malformed { version: Version::Two, fault: fault.into() }
}

/// Returns the length of the header that begins with these bytes, the signature or more; of the fixed part alone while
/// that is not complete.
///
/// # Errors
/// A version or a command that is not assigned; a header that is too long.
pub(super) fn length(bytes: &[u8]) -> Result<usize, HeaderError> {
    let Some([version_and_command, _, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else {
        return Ok(FIXED);
    };
    match version_and_command {
        0x20 | 0x21 => {}
        byte if byte >> 4 != 2 => {
            return Err(malformed(format!("the version field is {}, not 2", byte >> 4)));
        }
        byte => return Err(malformed(format!("command {} is not LOCAL (0) or PROXY (1)", byte & 0xf))),
    }
    let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    match length > LIMIT {
        true => Err(HeaderError::TooLong { version: Version::Two, limit: LIMIT }),
        false => Ok(length),
    }
}

/// Parses a whole header, whose [`length`] is that of `bytes`.
///
/// # Errors
/// [`HeaderError::Malformed`].
pub(super) fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    let (Some(command), Some(family), Some(block)) = (bytes.get(12), bytes.get(13), bytes.get(FIXED..))
    else {
        return Err(malformed("the header is cut"));
    };
    let local = command & 0xf == 0;
    let (ends, addresses) = match local {
        // Family and block are to be ignored.
        true => (Ends::Unspecified, 0),
        false => ends(*family, block)?,
    };
    let rest = block.get(addresses..).unwrap_or_default();
    let tlvs = match (&ends, family) {
        // Without a family, the block may begin with addresses of any length. HAProxy writes TLVs alone.
        (Ends::Unspecified, 0) => tlv::parse(rest).unwrap_or_default(),
        (Ends::Unspecified, _) => Vec::new(),
        _ => tlv::parse(rest).map_err(malformed)?,
    };
    verify(bytes, &tlvs)?;
    let tlvs = tlvs.into_iter().filter(|tlv| tlv.kind != tlv::NOOP).collect();
    Ok(Header { version: Version::Two, local, ends, tlvs, length: bytes.len() })
}

/// Returns the ends, and the length of their addresses in bytes.
fn ends(family: u8, block: &[u8]) -> Result<(Ends, usize), HeaderError> {
    let transport = match family & 0xf {
        0 => None,
        1 => Some(Transport::Stream),
        2 => Some(Transport::Datagram),
        other => return Err(malformed(format!("transport {other} is not UNSPEC, STREAM or DGRAM (0 to 2)"))),
    };
    let length = match family >> 4 {
        0 => 0,
        1 => 2 * 4 + 2 * 2,
        2 => 2 * 16 + 2 * 2,
        3 => 2 * UNIX,
        other => {
            return Err(malformed(format!(
                "address family {other} is not UNSPEC, INET, INET6 or UNIX (0 to 3)"
            )));
        }
    };
    let (Some(transport), 1..) = (transport, length) else { return Ok((Ends::Unspecified, 0)) };
    match block.get(..length).and_then(|addresses| of_addresses(transport, addresses)) {
        Some(ends) => Ok((ends, length)),
        None => Err(malformed(format!("{} bytes of addresses, where {length} belong", block.len()))),
    }
}

/// Returns the ends of an address block of 12, 36 or 216 bytes.
fn of_addresses(transport: Transport, addresses: &[u8]) -> Option<Ends> {
    match addresses.len() {
        12 => {
            let (source, rest) = addresses.split_first_chunk::<4>()?;
            let (destination, ports) = rest.split_first_chunk::<4>()?;
            inet(transport, (*source).into(), (*destination).into(), ports)
        }
        36 => {
            let (source, rest) = addresses.split_first_chunk::<16>()?;
            let (destination, ports) = rest.split_first_chunk::<16>()?;
            inet(transport, (*source).into(), (*destination).into(), ports)
        }
        _ => {
            let (source, destination) = addresses.split_at_checked(UNIX)?;
            Some(Ends::Unix { transport, source: path(source), destination: path(destination) })
        }
    }
}

fn inet(transport: Transport, source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<Ends> {
    let [a, b, c, d] = *ports else { return None };
    let source = SocketAddr::new(source, u16::from_be_bytes([a, b]));
    let destination = SocketAddr::new(destination, u16::from_be_bytes([c, d]));
    Some(Ends::Inet { transport, source, destination })
}

/// Returns a path without the zeros behind it.
fn path(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..length].to_vec()
}

/// Verifies the checksum, if there is one (spec 2.2.3).
fn verify(bytes: &[u8], tlvs: &[Tlv]) -> Result<(), HeaderError> {
    let mut sums = tlvs.iter().filter(|tlv| tlv.kind == CRC32C);
    let (Some(sum), more) = (sums.next(), sums.next()) else { return Ok(()) };
    let Value::Bytes(value) = &sum.value else { return Ok(()) };
    let claimed: [u8; 4] = value
        .as_slice()
        .try_into()
        .map_err(|_| malformed(format!("the CRC32C has {} bytes, not 4", value.len())))?;
    if more.is_some() {
        return Err(malformed("there are two CRC32C"));
    }
    // The TLVs are at the end of the header.
    let (before, after) = bytes.split_at(bytes.len().saturating_sub(sum.from_end).min(bytes.len()));
    let right = crc32c::checksum(&[before, &[0; 4], after.get(4..).unwrap_or_default()]);
    match u32::from_be_bytes(claimed) {
        claimed if claimed == right => Ok(()),
        claimed => Err(malformed(format!("the CRC32C is {claimed:08x}, but {right:08x} is right"))),
    }
}

/// Returns the header of a TCP connection between ends of one family.
pub(super) fn write(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut block = Vec::new();
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(v4) => block.extend(v4.octets()),
            IpAddr::V6(v6) => block.extend(v6.octets()),
        }
    }
    for end in [source, destination] {
        block.extend(end.port().to_be_bytes());
    }
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x21, family, 0, block.len() as u8]);
    bytes.extend(block);
    bytes
}
