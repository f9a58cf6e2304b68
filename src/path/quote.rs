//! An ICMP error, with the packet that it quotes and its extensions.
use super::{
    extensions::{self, Label},
    headers::Headers,
};
use crate::stack::{
    icmp::{self, Reason},
    ip,
};
use std::net::IpAddr;

/// Length of the ICMP header before the quoted packet, in bytes.
const HEADER: usize = 8;

/// An ICMP error about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpQuote {
    pub from: IpAddr,
    pub reason: Reason,
    /// TTL or hop limit with which the error arrived.
    pub hop_limit: u8,
    pub quoted: Headers,
    /// MPLS labels that the packet had.
    pub labels: Vec<Label>,
}

impl IcmpQuote {
    /// Parses a packet. Returns `None` for anything but an error with a right checksum whose quote reaches the
    /// ports.
    pub(crate) fn parse(packet: &[u8]) -> Option<IcmpQuote> {
        let header = ip::parse(packet, false).ok()?;
        let (reason, message) = icmp::reason(&header, packet)?;
        let quote = message.get(HEADER..)?;
        // RFC 4884, section 4: in IPv4 32-bit words; in IPv6 64-bit words, of two types only.
        let length = match header.protocol {
            ip::ICMP => usize::from(*message.get(5)?) * 4,
            _ if matches!(reason, Reason::PacketTooBig(_) | Reason::ParameterProblem) => 0,
            _ => usize::from(*message.get(4)?) * 8,
        };
        // Behind a length begin the extensions; the quote is padded with zeros to at least 128 bytes.
        let quoted = if length == 0 { quote } else { quote.get(..length).unwrap_or(quote) };
        Some(IcmpQuote {
            from: header.source,
            reason,
            hop_limit: header.hop_limit,
            quoted: Headers::read(quoted)?,
            labels: extensions::labels(quote, length),
        })
    }
}
