//! The words of the language: keywords, protocols, named constants (libpcap's scanner.l and
//! nametoaddr.c).
use super::syntax::{IpVersion, Layer, Protocol};

/// EtherTypes (IEEE 802 Numbers) that primitives test.
pub(super) mod ethertype {
    pub(crate) const IP: u32 = 0x0800;
    pub(crate) const ARP: u32 = 0x0806;
    pub(crate) const RARP: u32 = 0x8035;
    pub(crate) const VLAN: u32 = 0x8100;
    pub(crate) const IP6: u32 = 0x86dd;
    pub(crate) const MPLS: u32 = 0x8847;
    pub(crate) const PPPOE_DISCOVERY: u32 = 0x8863;
    pub(crate) const PPPOE_SESSION: u32 = 0x8864;
    pub(crate) const PROVIDER_VLAN: u32 = 0x88a8;
    pub(crate) const DOUBLE_VLAN: u32 = 0x9100;
    pub(crate) const ATALK: u32 = 0x809b;
    pub(crate) const AARP: u32 = 0x80f3;
    pub(crate) const IPX: u32 = 0x8137;
    /// Largest length field; larger numbers are types.
    pub(crate) const MAX_LENGTH: u32 = 1500;
}

/// Service access points of IEEE 802.2.
pub(super) mod sap {
    pub(crate) const IP: u32 = 0x06;
    pub(crate) const STP: u32 = 0x42;
    pub(crate) const IPX: u32 = 0xe0;
    pub(crate) const NETBEUI: u32 = 0xf0;
    pub(crate) const ISO: u32 = 0xfe;
}

const V4: Option<IpVersion> = Some(IpVersion::V4);
const V6: Option<IpVersion> = Some(IpVersion::V6);

/// The protocols that are keywords.
const PROTOCOLS: [(&str, Layer); 35] = [
    ("ether", Layer::Link),
    ("link", Layer::Link),
    ("ppp", Layer::Link),
    ("slip", Layer::Link),
    ("fddi", Layer::Link),
    ("tr", Layer::Link),
    ("wlan", Layer::Link),
    ("ip", Layer::Ethertype(ethertype::IP)),
    ("ip6", Layer::Ethertype(ethertype::IP6)),
    ("arp", Layer::Ethertype(ethertype::ARP)),
    ("rarp", Layer::Ethertype(ethertype::RARP)),
    ("atalk", Layer::Ethertype(ethertype::ATALK)),
    ("aarp", Layer::Ethertype(ethertype::AARP)),
    ("decnet", Layer::Ethertype(0x6003)),
    ("lat", Layer::Ethertype(0x6004)),
    ("sca", Layer::Ethertype(0x6007)),
    ("mopdl", Layer::Ethertype(0x6001)),
    ("moprc", Layer::Ethertype(0x6002)),
    ("iso", Layer::Ethertype(sap::ISO)),
    ("stp", Layer::Ethertype(sap::STP)),
    ("ipx", Layer::Ethertype(sap::IPX)),
    ("netbeui", Layer::Ethertype(sap::NETBEUI)),
    ("clnp", Layer::Osi(0x81)),
    ("esis", Layer::Osi(0x82)),
    ("isis", Layer::Osi(0x83)),
    ("icmp", Layer::Transport(1, V4)),
    ("igmp", Layer::Transport(2, V4)),
    ("igrp", Layer::Transport(9, V4)),
    ("tcp", Layer::Transport(6, None)),
    ("udp", Layer::Transport(17, None)),
    ("sctp", Layer::Transport(132, None)),
    ("pim", Layer::Transport(103, None)),
    ("esp", Layer::Transport(50, None)),
    ("ah", Layer::Transport(51, None)),
    ("icmp6", Layer::Transport(58, V6)),
];

/// Other spellings, and protocols that share a number.
const ALIASES: [(&str, &str, Option<Layer>); 6] = [
    ("es-is", "esis", None),
    ("is-is", "isis", None),
    ("length", "len", None),
    ("vrrp", "vrrp", Some(Layer::Transport(112, V4))),
    ("carp", "carp", Some(Layer::Transport(112, V4))),
    ("on", "ifname", None),
];

/// Keywords that are no protocols.
const KEYWORDS: [&str; 25] = [
    "src",
    "dst",
    "host",
    "net",
    "mask",
    "port",
    "portrange",
    "proto",
    "less",
    "greater",
    "broadcast",
    "multicast",
    "and",
    "or",
    "not",
    "len",
    "inbound",
    "outbound",
    "ifindex",
    "vlan",
    "mpls",
    "pppoed",
    "pppoes",
    "protochain",
    "gateway",
];

/// Keywords of tcpdump that netkat refuses, and the reason.
const REFUSED: [(&[&str], &str); 8] = [
    (&["geneve"], "Geneve can't be looked into; match its outer header: udp dst port 6081"),
    (&["byte"], "write ether[N] with an operator instead"),
    (&["ifname"], "name the interface with -i; in a capture of any interface, ifindex N tells them apart"),
    (
        &["rset", "ruleset", "rnr", "rulenum", "srnr", "subrulenum", "reason", "action"],
        "pf's log is not a format that netkat reads",
    ),
    (
        &[
            "radio",
            "type",
            "subtype",
            "dir",
            "direction",
            "ra",
            "ta",
            "addr1",
            "addr2",
            "addr3",
            "addr4",
            "address1",
            "address2",
            "address3",
            "address4",
        ],
        "802.11 headers are not a format that netkat reads",
    ),
    (&["llc"], "compare the bytes of the LLC header: ether[14], ether[15], ether[16]"),
    (&["l1", "l2", "iih", "lsp", "snp", "csnp", "psnp"], "write isis, which shows every IS-IS packet"),
    (
        &[
            "lane",
            "metac",
            "bcc",
            "oam",
            "oamf4",
            "oamf4ec",
            "oamf4sc",
            "sc",
            "ilmic",
            "vpi",
            "vci",
            "connectmsg",
            "metaconnect",
            "fisu",
            "lssu",
            "lsu",
            "msu",
            "hfisu",
            "hlssu",
            "hmsu",
            "sio",
            "opc",
            "dpc",
            "sls",
            "hsio",
            "hopc",
            "hdpc",
            "hsls",
        ],
        "ATM and SS7 are not formats that netkat reads",
    ),
];

/// Returns the keyword that a word is, in its usual spelling.
pub(super) fn keyword(word: &str) -> Option<&'static str> {
    if let Some((_, usual, _)) = ALIASES.iter().find(|(alias, ..)| *alias == word) {
        return Some(usual);
    }
    let protocols = PROTOCOLS.iter().map(|(word, _)| *word);
    let refused = REFUSED.iter().flat_map(|(words, _)| words.iter().copied());
    protocols.chain(KEYWORDS).chain(refused).find(|keyword| *keyword == word)
}

/// Returns the reason why a keyword of tcpdump is refused.
pub(super) fn refusal(keyword: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(words, _)| words.contains(&keyword)).map(|(_, reason)| *reason)
}

/// Returns the protocol that a keyword names.
pub(super) fn protocol(keyword: &str) -> Option<Protocol> {
    let aliases = ALIASES.iter().filter_map(|(_, word, layer)| Some((*word, (*layer)?)));
    let (word, layer) = PROTOCOLS.iter().copied().chain(aliases).find(|(word, _)| *word == keyword)?;
    Some(Protocol { word, layer })
}

/// Returns the number of an IP protocol (IANA, "Assigned Internet Protocol Numbers"; protocols(5)).
pub(super) fn ip_protocol(name: &str) -> Option<u32> {
    const NAMES: [(&str, u32); 22] = [
        ("ipencap", 4),
        ("egp", 8),
        ("igp", 9),
        ("dccp", 33),
        ("ipv6", 41),
        ("ipv6-route", 43),
        ("ipv6-frag", 44),
        ("rsvp", 46),
        ("gre", 47),
        ("ipv6-icmp", 58),
        ("icmpv6", 58),
        ("ipv6-nonxt", 59),
        ("ipv6-opts", 60),
        ("eigrp", 88),
        ("ospf", 89),
        ("ipip", 94),
        ("etherip", 97),
        ("ipcomp", 108),
        ("l2tp", 115),
        ("mobility-header", 135),
        ("udplite", 136),
        ("mpls-in-ip", 137),
    ];
    match protocol(name).map(|protocol| protocol.layer) {
        Some(Layer::Transport(number, _)) => Some(number),
        Some(Layer::Ethertype(ethertype::IP)) => Some(0),
        _ => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    }
}

/// Returns the number of a link-layer protocol.
pub(super) fn link_protocol(name: &str) -> Option<u32> {
    match protocol(name).map(|protocol| protocol.layer) {
        Some(Layer::Ethertype(number)) => Some(number),
        None if name == "loopback" => Some(0x9000),
        _ => None,
    }
}

/// Returns the value of a named constant: positions and values of header fields.
pub(super) fn constant(word: &str) -> Option<u32> {
    const CONSTANTS: [(&str, u32); 56] = [
        ("icmptype", 0),
        ("icmpcode", 1),
        ("icmp-echoreply", 0),
        ("icmp-unreach", 3),
        ("icmp-sourcequench", 4),
        ("icmp-redirect", 5),
        ("icmp-echo", 8),
        ("icmp-routeradvert", 9),
        ("icmp-routersolicit", 10),
        ("icmp-timxceed", 11),
        ("icmp-paramprob", 12),
        ("icmp-tstamp", 13),
        ("icmp-tstampreply", 14),
        ("icmp-ireq", 15),
        ("icmp-ireqreply", 16),
        ("icmp-maskreq", 17),
        ("icmp-maskreply", 18),
        ("icmp6type", 0),
        ("icmp6code", 1),
        ("icmp6-destinationunreach", 1),
        ("icmp6-packettoobig", 2),
        ("icmp6-timeexceeded", 3),
        ("icmp6-parameterproblem", 4),
        ("icmp6-echo", 128),
        ("icmp6-echoreply", 129),
        ("icmp6-multicastlistenerquery", 130),
        ("icmp6-multicastlistenerreportv1", 131),
        ("icmp6-multicastlistenerdone", 132),
        ("icmp6-routersolicit", 133),
        ("icmp6-routeradvert", 134),
        ("icmp6-neighborsolicit", 135),
        ("icmp6-neighboradvert", 136),
        ("icmp6-redirect", 137),
        ("icmp6-routerrenum", 138),
        ("icmp6-nodeinformationquery", 139),
        ("icmp6-nodeinformationresponse", 140),
        ("icmp6-ineighbordiscoverysolicit", 141),
        ("icmp6-ineighbordiscoveryadvert", 142),
        ("icmp6-multicastlistenerreportv2", 143),
        ("icmp6-homeagentdiscoveryrequest", 144),
        ("icmp6-homeagentdiscoveryreply", 145),
        ("icmp6-mobileprefixsolicit", 146),
        ("icmp6-mobileprefixadvert", 147),
        ("icmp6-certpathsolicit", 148),
        ("icmp6-certpathadvert", 149),
        ("icmp6-multicastrouteradvert", 151),
        ("icmp6-multicastroutersolicit", 152),
        ("icmp6-multicastrouterterm", 153),
        ("tcpflags", 13),
        ("tcp-fin", 0x01),
        ("tcp-syn", 0x02),
        ("tcp-rst", 0x04),
        ("tcp-push", 0x08),
        ("tcp-ack", 0x10),
        ("tcp-urg", 0x20),
        ("tcp-ece", 0x40),
    ];
    let cwr = ("tcp-cwr", 0x80);
    CONSTANTS.iter().chain([&cwr]).find(|(name, _)| *name == word).map(|(_, value)| *value)
}
