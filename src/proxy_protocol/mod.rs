//! The PROXY protocol: the header by which a proxy tells a server whose connection it forwards.
//!
//! Both versions of HAProxy's specification (doc/proxy-protocol.txt of its sources; sections are cited as
//! "spec 2.2"): version 1 is a line of text ([`text_form`]), version 2 is binary and may have TLVs
//! ([`binary_form`], [`tlv`]). [`HeaderReader`] takes a header from the front of a stream and not a byte more;
//! [`Header::write`] makes one. No I/O, no clock.
mod binary_form;
mod crc32c;
mod description;
mod error;
mod reader;
#[cfg(test)]
mod tests;
mod text_form;
pub mod tlv;

pub use error::HeaderError;
pub use reader::HeaderReader;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};
use tlv::Tlv;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    One = 1,
    /// Binary.
    Two = 2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", *self as u8)
    }
}

/// The versions that a receiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// One version only.
    Only(Version),
    /// Either version.
    Both,
}

impl Versions {
    fn accept(self, version: Version) -> bool {
        self == Versions::Both || self == Versions::Only(version)
    }
}

/// The kind of the forwarded connection's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SOCK_STREAM: TCP, or a stream of AF_UNIX.
    Stream,
    /// SOCK_DGRAM: UDP, or datagrams of AF_UNIX.
    Datagram,
}

/// The ends of the forwarded connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The header names none, so those of the connection itself apply: UNKNOWN in version 1, UNSPEC or LOCAL in version 2.
    Unspecified,
    /// Ends of one family, without zones.
    Inet {
        /// The kind of socket.
        transport: Transport,
        /// The client's end.
        source: SocketAddr,
        /// The end that the client connected to.
        destination: SocketAddr,
    },
    /// Paths of AF_UNIX sockets, without the zeros behind them. An abstract name begins with a zero.
    Unix {
        /// The kind of socket.
        transport: Transport,
        /// The client's path.
        source: Vec<u8>,
        /// The path that the client connected to.
        destination: Vec<u8>,
    },
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version.
    pub version: Version,
    /// The proxy opened the connection itself, for a health check (LOCAL of version 2).
    pub local: bool,
    /// The forwarded connection.
    pub ends: Ends,
    /// The TLVs of version 2, without those that only pad (NOOP).
    pub tlvs: Vec<Tlv>,
    /// Length in bytes.
    pub length: usize,
}

impl Header {
    /// Returns the header for a TCP connection between these ends, and its bytes. If the ends differ in family, the IPv4
    /// address is written as an IPv6 one (RFC 4291, section 2.5.5.2), since a header has one family.
    pub fn write(version: Version, source: SocketAddr, destination: SocketAddr) -> (Header, Vec<u8>) {
        let mixed = source.is_ipv4() != destination.is_ipv4();
        let [source, destination] = [source, destination].map(|end| {
            let ip = match end.ip() {
                IpAddr::V4(v4) if mixed => v4.to_ipv6_mapped().into(),
                ip => ip,
            };
            SocketAddr::new(ip, end.port())
        });
        let bytes = match version {
            Version::One => text_form::write(source, destination),
            Version::Two => binary_form::write(source, destination),
        };
        let ends = Ends::Inet { transport: Transport::Stream, source, destination };
        (Header { version, local: false, ends, tlvs: Vec::new(), length: bytes.len() }, bytes)
    }
}

/// A header to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutgoingHeader {
    /// The version.
    pub version: Version,
    /// The source to claim, in place of the connection's own.
    pub source: Option<SocketAddr>,
}

impl OutgoingHeader {
    /// Returns the header of a connection between these ends, and its bytes.
    pub fn write(&self, local: SocketAddr, remote: SocketAddr) -> (Header, Vec<u8>) {
        Header::write(self.version, self.source.unwrap_or(local), remote)
    }
}
