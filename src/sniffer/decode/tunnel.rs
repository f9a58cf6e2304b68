//! Reads the headers of tunnels: IP in IP, GRE, ERSPAN, VXLAN, Geneve, MPLS, PPPoE.
//!
//! A tunnel over UDP has nothing but its port to tell it by. So a datagram whose bytes contradict the
//! tunnel's format is taken for another program's.
use arrayvec::ArrayVec;
use serde::Serialize;

use super::{
    cursor::Cursor,
    headers::{Ip, Network, Transport},
    link::Start,
    problem::Problem,
};
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    sniffer::frame::LinkType,
};

/// The EtherType of an MPLS label stack (RFC 5332).
pub(super) const ETHERTYPE_MPLS: u16 = 0x8847;
/// The EtherType of MPLS with labels that the upstream router assigned (RFC 5332).
const ETHERTYPE_MPLS_UPSTREAM: u16 = 0x8848;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
/// GRE's protocol type of a whole Ethernet frame (RFC 7637).
const ETHERNET: u16 = 0x6558;
/// GRE's protocol type of PPP (RFC 2637).
const PPP: u16 = 0x880b;
/// GRE's protocol type of ERSPAN types I and II.
const ERSPAN: u16 = 0x88be;
/// GRE's protocol type of ERSPAN type III.
const ERSPAN_3: u16 = 0x22eb;

/// Protocol numbers of IP (IANA, "Assigned Internet Protocol Numbers").
mod protocol {
    pub(super) const IPV4: u8 = 4;
    pub(super) const IPV6: u8 = 41;
    pub(super) const GRE: u8 = 47;
    pub(super) const MPLS: u8 = 137;
}

/// UDP ports (IANA, "Service Name and Transport Protocol Port Number Registry").
mod port {
    pub(super) const VXLAN: u16 = 4789;
    /// VXLAN's port on Linux by default, from before the registration.
    pub(super) const VXLAN_LINUX: u16 = 8472;
    pub(super) const VXLAN_GPE: u16 = 4790;
    pub(super) const GENEVE: u16 = 6081;
    pub(super) const MPLS: u16 = 6635;
}

/// The header of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "tunnel", rename_all = "lowercase")]
pub enum Tunnel {
    /// IPv4 in IPv4 (RFC 2003).
    Ipip,
    /// IPv6 in IPv4 (RFC 4213).
    #[serde(rename = "6in4")]
    SixInFour,
    /// IPv4 in IPv6 (RFC 2473).
    #[serde(rename = "4in6")]
    FourInSix,
    /// IPv6 in IPv6 (RFC 2473).
    #[serde(rename = "6in6")]
    SixInSix,
    /// GRE (RFC 2784, RFC 2890), and PPTP's variant of it (RFC 2637).
    Gre {
        /// Key.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<u32>,
        /// Sequence number.
        #[serde(skip_serializing_if = "Option::is_none")]
        sequence: Option<u32>,
        /// PPTP's call ID.
        #[serde(skip_serializing_if = "Option::is_none")]
        call: Option<u16>,
    },
    /// A mirrored frame: ERSPAN over GRE (draft-foschiano-erspan).
    Erspan {
        /// Type: 1, 2 or 3.
        version: u8,
        /// Session ID; type 1 has none.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<u16>,
    },
    /// VXLAN (RFC 7348), and its generic protocol extension (draft-ietf-nvo3-vxlan-gpe).
    Vxlan {
        /// Network identifier.
        vni: u32,
    },
    /// Geneve (RFC 8926).
    Geneve {
        /// Network identifier.
        vni: u32,
    },
    /// An MPLS label stack (RFC 3032).
    Mpls {
        /// The labels, outermost first; only the first eight are listed.
        labels: ArrayVec<MplsLabel, 8>,
    },
    /// A PPPoE session (RFC 2516).
    Pppoe {
        /// Session ID.
        session: u16,
    },
}

/// An entry of an MPLS label stack (RFC 3032, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MplsLabel {
    /// Label, 20 bits.
    pub label: u32,
    /// Traffic class, 3 bits (RFC 5462).
    pub traffic_class: u8,
    /// Time to live.
    pub ttl: u8,
}

/// A tunnel's header, and the format of the packet behind it; `None` for a format that the decoder
/// does not know.
type Opened = (Tunnel, Option<Start>);

/// Reads the tunnel's header at the cursor, if `network` (or, without IP, `ethertype`) announces one.
///
/// # Errors
/// [`Problem`], if the header is incomplete.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    network: &Network,
    ethertype: Option<u16>,
) -> Result<Option<Opened>, Problem> {
    match network {
        Network::Ip(ip) if !ip.is_later_fragment() => match &ip.transport {
            Transport::Udp(udp) => read_over_udp(cursor, udp.destination),
            Transport::Unknown => read_over_ip(cursor, ip),
            _ => Ok(None),
        },
        Network::Unknown => match ethertype {
            Some(ETHERTYPE_MPLS | ETHERTYPE_MPLS_UPSTREAM) => read_mpls(cursor).map(Some),
            Some(ETHERTYPE_PPPOE_SESSION) => read_pppoe(cursor).map(Some),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn read_over_ip(cursor: &mut Cursor<'_>, ip: &Ip) -> Result<Option<Opened>, Problem> {
    let ipv4 = ip.source.is_ipv4();
    Ok(Some(match (ip.protocol, ipv4) {
        (protocol::IPV4, true) => (Tunnel::Ipip, network(ETHERTYPE_IPV4)),
        (protocol::IPV4, false) => (Tunnel::FourInSix, network(ETHERTYPE_IPV4)),
        (protocol::IPV6, true) => (Tunnel::SixInFour, network(ETHERTYPE_IPV6)),
        (protocol::IPV6, false) => (Tunnel::SixInSix, network(ETHERTYPE_IPV6)),
        (protocol::GRE, _) => read_gre(cursor)?,
        (protocol::MPLS, _) => read_mpls(cursor)?,
        _ => return Ok(None),
    }))
}

fn read_over_udp(cursor: &mut Cursor<'_>, port: u16) -> Result<Option<Opened>, Problem> {
    match port {
        port::VXLAN | port::VXLAN_LINUX => Ok(read_vxlan(cursor, false)),
        port::VXLAN_GPE => Ok(read_vxlan(cursor, true)),
        port::GENEVE => read_geneve(cursor),
        port::MPLS => read_mpls(cursor).map(Some),
        _ => Ok(None),
    }
}

/// Returns the start of a packet of the network layer.
fn network(ethertype: u16) -> Option<Start> {
    Some(Start { link_type: LinkType::RawIp, ethertype: Some(ethertype) })
}

/// Returns the start of a packet with a link header.
fn linked(link_type: LinkType) -> Option<Start> {
    Some(Start { link_type, ethertype: None })
}

/// Returns the start of a packet by GRE's and Geneve's protocol type.
fn by_protocol_type(kind: u16) -> Option<Start> {
    match kind {
        ETHERNET => linked(LinkType::Ethernet),
        PPP => linked(LinkType::Ppp),
        ethertype => network(ethertype),
    }
}

/// Reads a VXLAN header; `None` if the I flag, which makes the VNI valid, is missing. With `generic`,
/// the P flag says that a next protocol is named.
fn read_vxlan(cursor: &mut Cursor<'_>, generic: bool) -> Option<Opened> {
    let [flags, _, _, next, a, b, c, _] = cursor.peek_array("vxlan header").ok()?;
    if flags & 0x08 == 0 {
        return None;
    }
    let start = match (generic && flags & 0x04 != 0, next) {
        (false, _) | (true, 3) => linked(LinkType::Ethernet),
        (true, 1) => network(ETHERTYPE_IPV4),
        (true, 2) => network(ETHERTYPE_IPV6),
        (true, 5) => network(ETHERTYPE_MPLS),
        _ => None,
    };
    cursor.skip(8);
    Some((Tunnel::Vxlan { vni: u32::from_be_bytes([0, a, b, c]) }, start))
}

fn read_geneve(cursor: &mut Cursor<'_>) -> Result<Option<Opened>, Problem> {
    let Ok([first, _, high, low, a, b, c, _]) = cursor.peek_array("geneve header") else { return Ok(None) };
    let (version, words) = (first >> 6, first & 0x3f);
    if version != 0 {
        return Ok(None);
    }
    cursor.skip(8);
    cursor.take("geneve options", usize::from(words) * 4)?;
    let tunnel = Tunnel::Geneve { vni: u32::from_be_bytes([0, a, b, c]) };
    Ok(Some((tunnel, by_protocol_type(u16::from_be_bytes([high, low])))))
}

/// Reads a GRE header with the fields that its flags announce.
fn read_gre(cursor: &mut Cursor<'_>) -> Result<Opened, Problem> {
    let [flags, low, a, b] = cursor.take_array("gre header")?;
    let (version, kind) = (low & 7, u16::from_be_bytes([a, b]));
    let routed = flags & 0x40 != 0;
    let mut field = |present: bool| match present {
        true => cursor.take_array("gre header").map(|bytes| Some(u32::from_be_bytes(bytes))),
        false => Ok(None),
    };
    // Checksum and offset; the offset is for source routes (RFC 1701), which routers no longer take.
    field(flags & 0x80 != 0 || routed)?;
    let key = field(flags & 0x20 != 0)?;
    let sequence = field(flags & 0x10 != 0)?;
    if version == 1 {
        field(low & 0x80 != 0)?;
        // Length and call ID (RFC 2637, section 4.1).
        let length = key.map_or(0, |key| (key >> 16) as usize);
        let tunnel = Tunnel::Gre { key: None, sequence, call: key.map(|key| key as u16) };
        check_length(cursor, "gre payload length", length)?;
        return Ok((tunnel, by_protocol_type(kind)));
    }
    match kind {
        _ if version > 1 || routed => Ok((Tunnel::Gre { key, sequence, call: None }, None)),
        ERSPAN if sequence.is_none() => {
            Ok((Tunnel::Erspan { version: 1, session: None }, linked(LinkType::Ethernet)))
        }
        ERSPAN => read_erspan2(cursor),
        ERSPAN_3 => read_erspan3(cursor),
        _ => Ok((Tunnel::Gre { key, sequence, call: None }, by_protocol_type(kind))),
    }
}

fn read_erspan2(cursor: &mut Cursor<'_>) -> Result<Opened, Problem> {
    let [_, _, high, low, ..] = cursor.take_array::<8>("erspan header")?;
    let session = Some(u16::from_be_bytes([high, low]) & 0x3ff);
    Ok((Tunnel::Erspan { version: 2, session }, linked(LinkType::Ethernet)))
}

fn read_erspan3(cursor: &mut Cursor<'_>) -> Result<Opened, Problem> {
    let [_, _, high, low, _, _, _, _, _, _, kind, last] = cursor.take_array("erspan header")?;
    if last & 1 != 0 {
        cursor.take("erspan platform header", 8)?;
    }
    let session = Some(u16::from_be_bytes([high, low]) & 0x3ff);
    let start = match kind >> 2 & 0x1f {
        0 => linked(LinkType::Ethernet),
        2 => linked(LinkType::RawIp),
        _ => None,
    };
    Ok((Tunnel::Erspan { version: 3, session }, start))
}

/// Reads a label stack to its bottom. No field names the packet behind it, so its first bits decide (RFC
/// 4928, section 2): a version of IP, or the control word of a pseudowire (RFC 4385), which is taken for
/// one of Ethernet.
fn read_mpls(cursor: &mut Cursor<'_>) -> Result<Opened, Problem> {
    let mut labels = ArrayVec::new();
    loop {
        let entry = u32::from_be_bytes(cursor.take_array("mpls label")?);
        // A full list costs the entry, not the packet.
        let _ = labels.try_push(MplsLabel {
            label: entry >> 12,
            traffic_class: (entry >> 9 & 7) as u8,
            ttl: entry as u8,
        });
        if entry & 0x100 != 0 {
            break;
        }
    }
    let start = match cursor.peek_available(1).first().map(|byte| byte >> 4) {
        Some(4) => network(ETHERTYPE_IPV4),
        Some(6) => network(ETHERTYPE_IPV6),
        Some(0) if cursor.remaining() >= 4 + 14 => {
            cursor.skip(4);
            linked(LinkType::Ethernet)
        }
        _ => None,
    };
    Ok((Tunnel::Mpls { labels }, start))
}

fn read_pppoe(cursor: &mut Cursor<'_>) -> Result<Opened, Problem> {
    let [version, code, a, b, c, d] = cursor.take_array("pppoe header")?;
    check_length(cursor, "pppoe length", u16::from_be_bytes([c, d]).into())?;
    let known = version == 0x11 && code == 0;
    let tunnel = Tunnel::Pppoe { session: u16::from_be_bytes([a, b]) };
    Ok((tunnel, if known { linked(LinkType::Ppp) } else { None }))
}

/// Ends the packet after the stated length.
fn check_length(cursor: &mut Cursor<'_>, field: &'static str, length: usize) -> Result<(), Problem> {
    let have = cursor.remaining();
    if length > have && !cursor.is_fragment() {
        return Err(Problem::TooLong { field, value: length, length: have });
    }
    cursor.narrow(length);
    Ok(())
}

impl Tunnel {
    /// Returns the tunnel's name, as in JSON.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Tunnel::Ipip => "ipip",
            Tunnel::SixInFour => "6in4",
            Tunnel::FourInSix => "4in6",
            Tunnel::SixInSix => "6in6",
            Tunnel::Gre { .. } => "gre",
            Tunnel::Erspan { .. } => "erspan",
            Tunnel::Vxlan { .. } => "vxlan",
            Tunnel::Geneve { .. } => "geneve",
            Tunnel::Mpls { .. } => "mpls",
            Tunnel::Pppoe { .. } => "pppoe",
        }
    }
}
