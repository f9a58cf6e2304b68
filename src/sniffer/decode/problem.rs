//! The problems that a frame can have.

/// The reason why a frame, or a part of it, cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The frame, or the length that an enclosing header states, ends within a header.
    #[error("{header} needs {need} bytes, has {have}")]
    Short {
        /// Name of the header.
        header: &'static str,
        /// Its length in bytes.
        need: usize,
        /// Bytes left for it.
        have: usize,
    },
    /// The header was on the wire, but the capture's snap length cut it off.
    #[error("{header} needs {need} bytes, {have} were captured")]
    NotCaptured {
        /// Name of the header.
        header: &'static str,
        /// Its length in bytes.
        need: usize,
        /// Bytes of it that were captured.
        have: usize,
    },
    /// The version in the IP header is not the one that the link layer announced.
    #[error("ip version {0}")]
    IpVersion(u8),
    /// Fewer than the five 32-bit words of a header without options (RFC 791).
    #[error("ipv4 header length too small {0}")]
    Ipv4HeaderLength(u8),
    /// A length field states more bytes than there are.
    #[error("{field} {value} larger than packet length {length}")]
    TooLong {
        /// Name of the field.
        field: &'static str,
        /// Its value in bytes.
        value: usize,
        /// Bytes that there are.
        length: usize,
    },
    /// A length field does not even cover its own header.
    #[error("{field} too small {value}")]
    TooSmall {
        /// Name of the field.
        field: &'static str,
        /// Its value in bytes.
        value: usize,
    },
    /// Fewer than the five 32-bit words of a header without options (RFC 9293).
    #[error("tcp data offset too small {0}")]
    TcpDataOffset(u8),
    /// The TCP header states a length beyond the segment's.
    #[error("tcp data offset {offset} larger than tcp packet length {length}")]
    TcpHeaderTooLong {
        /// Stated length of the header in bytes.
        offset: usize,
        /// Length of the segment in bytes.
        length: usize,
    },
    /// An option's length does not fit its kind, or goes beyond the header (RFC 9293, section 3.1).
    #[error("tcp option {kind} with length {length}")]
    TcpOption {
        /// The option's kind.
        kind: u8,
        /// Its length field.
        length: u8,
    },
    /// Tunnels in tunnels, more than the decoder follows.
    #[error("more than {0} tunnels in one another")]
    Nesting(usize),
    /// A BSD loopback header has an address family other than IPv4 and IPv6.
    #[error("address family {0}")]
    AddressFamily(u32),
}

impl Problem {
    /// Returns the name for a packet with this problem: one that only the capture cut may well have
    /// been valid.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Problem::NotCaptured { .. } => "truncated packet",
            _ => "invalid packet",
        }
    }
}
