//! Names of the numbers in headers. The ICMP names are those of gVisor's sniffer where it has one.
use super::frame::FrameDirection;
use crate::net::ip_protocol::{
    AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, MOBILITY, ROUTING, TCP, UDP,
};

/// Returns gVisor's name of a direction.
pub(super) fn direction(direction: FrameDirection) -> &'static str {
    match direction {
        FrameDirection::Inbound => "recv",
        FrameDirection::Outbound => "send",
    }
}

/// Returns gVisor's name of a transport protocol.
pub(super) fn transport(protocol: u8) -> &'static str {
    match protocol {
        TCP => "tcp",
        UDP => "udp",
        ICMP | ICMPV6 => "icmp",
        _ => "unknown",
    }
}

/// Returns the name of a common protocol that the decoder does not know (IANA, "Assigned Internet
/// Protocol Numbers").
pub(super) fn other_transport(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        2 => "igmp",
        4 => "ipip",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        AUTHENTICATION => "ah",
        59 => "no next header",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        _ => return None,
    })
}

/// Returns the name of a common PPP protocol that the decoder does not know (IANA, "PPP DLL Protocol
/// Numbers").
pub(super) fn ppp(protocol: u16) -> Option<&'static str> {
    Some(match protocol {
        0x003d => "multilink",
        0x00fd => "compressed",
        0x8021 => "ipcp",
        0x8057 => "ipv6cp",
        0x80fd => "ccp",
        0xc021 => "lcp",
        0xc023 => "pap",
        0xc223 => "chap",
        _ => return None,
    })
}

/// Returns the name of a common link type that the decoder does not know (tcpdump.org, "Link-layer
/// header types").
pub(super) fn link_type(number: u16) -> Option<&'static str> {
    Some(match number {
        6 => "token ring",
        51 => "pppoe",
        104 => "cisco hdlc",
        105 => "ieee 802.11",
        119 | 127 | 163 => "ieee 802.11 with radio header",
        147..=162 => "private use",
        187 | 201 | 272 => "bluetooth",
        189 | 220 => "usb",
        195 | 230 => "ieee 802.15.4",
        227 => "socketcan",
        247 => "infiniband",
        253 => "netlink",
        _ => return None,
    })
}

/// Returns the name of an ICMP message's type (IANA, "ICMP Type Numbers" and "ICMPv6 type
/// Numbers").
pub(super) fn icmp(protocol: u8, kind: u8) -> Option<&'static str> {
    if protocol == ICMPV6 { icmpv6(kind) } else { icmpv4(kind) }
}

fn icmpv4(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0 => "echo reply",
        3 => "destination unreachable",
        4 => "source quench",
        5 => "redirect",
        8 => "echo request",
        9 => "router advert",
        10 => "router solicit",
        11 => "time exceeded",
        12 => "param problem",
        13 => "timestamp",
        14 => "timestamp reply",
        15 => "info request",
        16 => "info reply",
        _ => return None,
    })
}

fn icmpv6(kind: u8) -> Option<&'static str> {
    Some(match kind {
        1 => "destination unreachable",
        2 => "packet too big",
        3 => "time exceeded",
        4 => "param problem",
        128 => "echo request",
        129 => "echo reply",
        130 => "multicast listener query",
        131 => "multicast listener report",
        132 => "multicast listener done",
        133 => "router solicit",
        134 => "router advert",
        135 => "neighbor solicit",
        136 => "neighbor advert",
        137 => "redirect message",
        143 => "multicast listener report v2",
        _ => return None,
    })
}

/// Returns the name of an IPv6 extension header (RFC 8200, section 4).
pub(super) fn extension(kind: u8) -> &'static str {
    match kind {
        HOP_BY_HOP => "hop-by-hop",
        ROUTING => "routing",
        FRAGMENT => "fragment",
        AUTHENTICATION => "authentication",
        DESTINATION_OPTIONS => "destination",
        MOBILITY => "mobility",
        _ => "unknown",
    }
}

/// Returns the name of a common EtherType that the decoder does not know (IANA, "IEEE 802
/// Numbers"). Values up to 1500 are a length.
pub(super) fn ethertype(ethertype: u16) -> Option<&'static str> {
    Some(match ethertype {
        0..=0x05dc => "802.3 length",
        0x0842 => "wake on lan",
        0x8035 => "rarp",
        0x8100 | 0x88a8 | 0x9100 => "vlan",
        0x8808 => "flow control",
        0x8809 => "lacp",
        0x8847 | 0x8848 => "mpls",
        0x8863 => "pppoe discovery",
        0x8864 => "pppoe session",
        0x888e => "eapol",
        0x88cc => "lldp",
        0x88e5 => "macsec",
        0x88f7 => "ptp",
        0x8902 => "cfm",
        _ => return None,
    })
}
