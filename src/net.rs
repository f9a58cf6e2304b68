//! Types that all rooms share: protocols, link addresses, five-tuples, zones.
pub mod checksum;
pub(crate) mod zone;

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// The transport protocols that netkat speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Returns the protocol's number in the IP header (IANA, "Assigned Internet Protocol Numbers").
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => ip_protocol::TCP,
            Protocol::Udp => ip_protocol::UDP,
        }
    }
}

/// Protocol numbers of IP headers, IPv6 extension headers (RFC 8200, section 4) included (IANA, "Assigned
/// Internet Protocol Numbers").
#[allow(missing_docs, reason = "the names are IANA's")]
pub mod ip_protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub(crate) const DESTINATION_OPTIONS: u8 = 60;
    pub(crate) const MOBILITY: u8 = 135;
}

/// Hardware types of devices (linux/if_arp.h).
#[allow(missing_docs, reason = "the names are the kernel's")]
pub(crate) mod arphrd {
    pub(crate) const ETHER: u16 = 1;
    pub(crate) const LOOPBACK: u16 = 772;
}

/// Returns the smallest MTU that a path may report, in bytes: net.ipv4.route.min_pmtu's default; RFC 8200,
/// section 5.
pub(crate) fn minimum_mtu(destination: IpAddr) -> u32 {
    if destination.is_ipv4() { 552 } else { 1280 }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A connection as this host sees it: `local` is this host's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, zone::endpoint(&self.local), zone::endpoint(&self.remote))
    }
}

/// A 48-bit IEEE 802 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of all hosts on the segment.
    pub(crate) const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Returns whether this is a group's address, which no host sends from.
    pub(crate) fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Returns the link address of a group (RFC 1112, section 6.4; RFC 2464, section 7); `None` for an address
    /// that is no group's.
    pub(crate) fn of_group(group: IpAddr) -> Option<MacAddr> {
        match group {
            IpAddr::V4(v4) if v4.is_multicast() => {
                let [_, a, b, c] = v4.octets();
                Some(MacAddr([0x01, 0x00, 0x5e, a & 0x7f, b, c]))
            }
            IpAddr::V6(v6) if v6.is_multicast() => {
                let [.., a, b, c, d] = v6.octets();
                Some(MacAddr([0x33, 0x33, a, b, c, d]))
            }
            _ => None,
        }
    }

    /// Returns a locally administered address (IEEE 802, section 8.4), the same for equal IP addresses.
    pub fn locally_administered(ip: IpAddr) -> MacAddr {
        let [a, b, c, d] = match ip {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                // Interface identifiers differ in their last bytes; the fold adds the other words.
                let octets = v6.octets();
                let (words, _) = octets.as_chunks::<4>();
                words.iter().fold([0; 4], |hash, word| {
                    let hash = u32::from_be_bytes(hash).wrapping_mul(31) ^ u32::from_be_bytes(*word);
                    hash.to_be_bytes()
                })
            }
        };
        MacAddr([0x02, 0x6e, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that [`MacAddr::from_str`] cannot parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a MAC address; write six hexadecimal bytes, as 02:00:5e:10:00:01")]
pub struct InvalidMac(String);

impl FromStr for MacAddr {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMac(text.to_owned());
        let mut mac = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().filter(|p| is_hex_byte(p)).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(MacAddr(mac)) }
    }
}

fn is_hex_byte(part: &str) -> bool {
    matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Returns a number with its noun: "1 SYN", "3 SYNs".
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_round_trip() {
        for text in ["02:00:5e:10:00:01", "ff:ff:ff:ff:ff:ff"] {
            assert_eq!(text.parse::<MacAddr>().map(|m| m.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("2-0-5e-10-0-1".parse(), Ok(MacAddr([2, 0, 0x5e, 16, 0, 1])));
    }

    #[test]
    fn groups_have_link_addresses() {
        for (group, mac) in [
            ("239.129.2.3", "01:00:5e:01:02:03"),
            ("224.0.0.251", "01:00:5e:00:00:fb"),
            ("ff02::1:ff00:9", "33:33:ff:00:00:09"),
        ] {
            let mac = mac.parse().expect("a MAC address");
            assert_eq!(MacAddr::of_group(group.parse().expect("an address")), Some(mac), "{group}");
        }
        for other in ["10.0.0.255", "255.255.255.255", "fe80::1"] {
            assert_eq!(MacAddr::of_group(other.parse().expect("an address")), None, "{other}");
        }
    }

    #[test]
    fn malformed_mac_addresses_are_refused() {
        for text in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "0g:00:5e:10:00:01",
            "+2:00:5e:10:00:01",
            "002:0:0:0:0:0",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
