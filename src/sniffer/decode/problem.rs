//! What can be wrong with a frame.

/// Why a frame, or a part of it, makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The frame, or the length that an enclosing header states, ends within a header.
    #[error("{header} needs {need} bytes, has {have}")]
    Short { header: &'static str, need: usize, have: usize },
    /// The header was on the wire, but the capture's snap length cut it off.
    #[error("{header} needs {need} bytes, {have} were captured")]
    NotCaptured { header: &'static str, need: usize, have: usize },
    /// The version in the IP header is not the one that the link layer announced.
    #[error("ip version {0}")]
    IpVersion(u8),
    /// Fewer than the five 32-bit words of a header without options (RFC 791).
    #[error("ipv4 header length too small {0}")]
    Ipv4HeaderLength(u8),
    /// A length field that says more than there is.
    #[error("{field} {value} larger than packet length {length}")]
    TooLong { field: &'static str, value: usize, length: usize },
    /// A length field that does not even cover its own header.
    #[error("{field} too small {value}")]
    TooSmall { field: &'static str, value: usize },
    /// Fewer than the five 32-bit words of a header without options (RFC 9293).
    #[error("tcp data offset too small {0}")]
    TcpDataOffset(u8),
    /// The header claims to be longer than the segment. Both in bytes.
    #[error("tcp data offset {offset} larger than tcp packet length {length}")]
    TcpHeaderTooLong { offset: usize, length: usize },
    /// An option whose length is not what its kind has, or goes beyond the header (RFC 9293, section 3.1).
    #[error("tcp option {kind} with length {length}")]
    TcpOption { kind: u8, length: u8 },
    /// A BSD loopback header of an address family that is neither IPv4 nor IPv6.
    #[error("address family {0}")]
    AddressFamily(u32),
}

impl Problem {
    /// What to call the packet: one that only the capture cut short may well have been valid.
    pub fn verdict(self) -> &'static str {
        match self {
            Problem::NotCaptured { .. } => "truncated packet",
            _ => "invalid packet",
        }
    }
}
