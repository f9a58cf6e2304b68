//! The protocol numbers that decoder and names share (IANA, "Assigned Internet Protocol Numbers").
use pnet_packet::ip::IpNextHeaderProtocols as Assigned;

pub(super) const TCP: u8 = Assigned::Tcp.0;
pub(super) const UDP: u8 = Assigned::Udp.0;
pub(super) const ICMP: u8 = Assigned::Icmp.0;
pub(super) const ICMPV6: u8 = Assigned::Icmpv6.0;

/// IPv6 extension headers (RFC 8200, section 4).
pub(super) const HOP_BY_HOP: u8 = Assigned::Hopopt.0;
pub(super) const ROUTING: u8 = Assigned::Ipv6Route.0;
pub(super) const FRAGMENT: u8 = Assigned::Ipv6Frag.0;
pub(super) const AUTHENTICATION: u8 = Assigned::Ah.0;
pub(super) const DESTINATION: u8 = Assigned::Ipv6Opts.0;
pub(super) const MOBILITY: u8 = Assigned::MobilityHeader.0;
