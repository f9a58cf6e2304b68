//! The host's network interfaces and their addresses, as rtnetlink(7) lists them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{
        AfSpecInet6, AfSpecUnspec, Inet6DevConf, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
        LinkLayerType, LinkMessage, LinkXdp,
    },
};
use nix::errno::Errno;

use super::netlink::{Netlink, NetlinkError};
use crate::net::{MacAddr, zone};

/// Longest name of an interface, in bytes (IFNAMSIZ less the NUL). Alternative names may be longer.
const MAX_NAME: usize = 15;
/// The attribute of an alternative name (linux/if_link.h).
const IFLA_ALT_IFNAME: u16 = 53;

/// The link header of an interface's frames at a packet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A 14-byte Ethernet header; next hops have link addresses.
    Ethernet,
    /// `lo`: a 14-byte Ethernet header of zeros; no next hops.
    Loopback,
    /// No link header (TUN, WireGuard, PPP, IP tunnels).
    None,
}

/// Hop limit of IPv6 where the kernel does not report one (IPV6_DEFAULT_HOPLIMIT, net/ipv6.h).
const IPV6_HOP_LIMIT: u8 = 64;

/// A network interface at the time of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface's number, from 1.
    pub index: u32,
    /// The interface's name.
    pub name: String,
    /// Maximum IP packet, in bytes.
    pub mtu: u32,
    /// Maximum IPv6 packet, in bytes, where router advertisements or the administrator have lowered it.
    pub ipv6_mtu: Option<u32>,
    /// Hop limit of IPv6 packets (net.ipv6.conf.*.hop_limit), which router advertisements set.
    pub ipv6_hop_limit: u8,
    /// The hardware type, ARPHRD_* (linux/if_arp.h).
    pub hardware: u16,
    /// The link address, if the device has a 48-bit one.
    pub mac: Option<MacAddr>,
    /// Maximum super-frame that the device takes, in bytes (`IFLA_GSO_MAX_SIZE`).
    pub gso_max_size: u32,
    /// Maximum segments of a super-frame (`IFLA_GSO_MAX_SEGS`).
    pub gso_max_segs: u32,
    /// The administrator switched the interface on (IFF_UP).
    pub up: bool,
    /// The interface has a carrier (IFF_RUNNING).
    pub running: bool,
    /// The interface is lo (IFF_LOOPBACK).
    pub loopback: bool,
    /// Neighbours are not resolved (IFF_NOARP).
    pub no_arp: bool,
    /// Index of the bridge, bond or VRF device that this one is a port of.
    pub master: Option<u32>,
    /// Index of the interface that this one lies above, or of the other end of a veth pair, where that is in this network
    /// namespace.
    pub lower: Option<u32>,
    /// The driver's kind ("veth", "bridge", "vrf", ...); a plain NIC has none.
    pub kind: Option<String>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the on-link prefix, in bits.
    pub prefix: u8,
    /// The broadcast address that was set with it.
    pub broadcast: Option<Ipv4Addr>,
    /// Index of its interface.
    pub interface: u32,
    /// Duplicate address detection has not finished: not usable as a source yet.
    pub tentative: bool,
    /// Duplicate address detection found another host that has it: not usable.
    pub duplicate: bool,
    /// Past its preferred lifetime (RFC 4862 section 5.5.4): used only when named.
    pub deprecated: bool,
}

impl Address {
    /// Reads one of the kernel's replies; `None` for a reply about something else.
    pub fn from_reply(reply: RouteNetlinkMessage) -> Option<Self> {
        match reply {
            RouteNetlinkMessage::NewAddress(message) => address(&message),
            _ => None,
        }
    }

    /// Returns whether the kernel lets a socket send from the address.
    pub fn usable(&self) -> bool {
        !self.tentative && !self.duplicate
    }

    /// Returns the subnet's broadcast addresses: the one set, and that of the prefix (fib_add_ifaddr in
    /// net/ipv4/fib_frontend.c).
    pub(crate) fn broadcasts(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let of_prefix = match self.ip {
            IpAddr::V4(v4) if self.prefix < 31 => {
                let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or_default();
                Some(Ipv4Addr::from_bits(v4.to_bits() | hosts))
            }
            _ => None,
        };
        self.broadcast.into_iter().chain(of_prefix.filter(|of| Some(*of) != self.broadcast)).map(IpAddr::V4)
    }

    /// Returns whether `peer` is within the address's prefix.
    pub fn on_link(&self, peer: IpAddr) -> bool {
        let differing_from = match (self.ip, peer) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing_from >= u32::from(self.prefix)
    }
}

/// The reason why an interface cannot be found or used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No interface has this name.
    #[error("there is no interface \"{name}\" here; there are: {present}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The interfaces that exist.
        present: Names,
    },
    /// No interface has this index.
    #[error("there is no interface with index {index} here; there are: {present}")]
    UnknownIndex {
        /// The index asked for.
        index: u32,
        /// The interfaces that exist.
        present: Names,
    },
    /// netkat does not know the link header.
    #[error(
        "interface {name} is of hardware type {hardware} ({kind}), whose frames netkat can't read or write; \
         name an Ethernet-like, loopback, TUN, PPP or IP tunnel interface"
    )]
    UnsupportedHardware {
        /// The interface's name.
        name: String,
        /// ARPHRD_*.
        hardware: u16,
        /// The hardware type's name.
        kind: String,
    },
    /// The kernel does not answer.
    #[error("could not read the kernel's {what}: {source}")]
    Netlink {
        /// The kind of objects.
        what: &'static str,
        /// The request's error.
        source: NetlinkError,
    },
}

/// Interface names, printed with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}

impl Interface {
    /// Returns the link header of the interface's frames.
    ///
    /// # Errors
    /// [`InterfaceError::UnsupportedHardware`] for InfiniBand, monitor-mode Wi-Fi, GRE and other framings
    /// that netkat does not know.
    pub fn framing(&self) -> Result<Framing, InterfaceError> {
        use LinkLayerType as Arphrd;
        match Arphrd::from(self.hardware) {
            Arphrd::Ether => Ok(Framing::Ethernet),
            Arphrd::Loopback => Ok(Framing::Loopback),
            Arphrd::None | Arphrd::Ppp | Arphrd::Rawip | Arphrd::Tunnel | Arphrd::Tunnel6 | Arphrd::Sit => {
                Ok(Framing::None)
            }
            other => Err(InterfaceError::UnsupportedHardware {
                name: self.name.clone(),
                hardware: self.hardware,
                kind: format!("{other:?}").to_lowercase(),
            }),
        }
    }

    /// Returns why the interface carries nothing, and what to do.
    pub(crate) fn problem(&self) -> Option<String> {
        let Interface { name, .. } = self;
        match (self.up, self.running || self.loopback) {
            (false, _) => Some(format!("interface {name} is down; try: ip link set {name} up")),
            (true, false) => Some(format!(
                "{name} has no carrier (NO-CARRIER: the cable is out, or the other end is down); see: ip link show {name}"
            )),
            (true, true) => None,
        }
    }

    /// Returns the maximum packet of `destination`'s family, in bytes.
    pub(crate) fn mtu_towards(&self, destination: IpAddr) -> u32 {
        match (destination, self.ipv6_mtu) {
            (IpAddr::V6(_), Some(lower)) => self.mtu.min(lower),
            _ => self.mtu,
        }
    }

    /// Reads one of the kernel's replies; `None` for a reply about something else.
    pub fn from_reply(reply: RouteNetlinkMessage) -> Option<Self> {
        match reply {
            RouteNetlinkMessage::NewLink(link) => Some(Self::from_message(link)),
            _ => None,
        }
    }

    pub(super) fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut interface = Interface {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            ipv6_mtu: None,
            ipv6_hop_limit: IPV6_HOP_LIMIT,
            hardware: u16::from(message.header.link_layer_type),
            mac: None,
            // The limits of kernels that do not report them (GSO_LEGACY_MAX_SIZE, GSO_MAX_SEGS in
            // linux/netdevice.h).
            gso_max_size: 65536,
            gso_max_segs: 65535,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            no_arp: flags.contains(LinkFlags::Noarp),
            master: None,
            lower: None,
            kind: None,
        };
        let elsewhere = message.attributes.iter().any(|one| matches!(one, LinkAttribute::LinkNetNsId(_)));
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                LinkAttribute::Address(bytes) => interface.mac = bytes.try_into().ok().map(MacAddr),
                LinkAttribute::GsoMaxSize(size) => interface.gso_max_size = size,
                LinkAttribute::GsoMaxSegs(segments) => interface.gso_max_segs = segments,
                LinkAttribute::Controller(index) => interface.master = Some(index),
                LinkAttribute::Link(index) if !elsewhere => interface.lower = Some(index),
                LinkAttribute::LinkInfo(infos) => interface.kind = kind(&infos),
                LinkAttribute::AfSpecUnspec(families) => {
                    if let Some(conf) = ipv6_settings(&families) {
                        interface.ipv6_mtu = u32::try_from(conf.mtu6).ok().filter(|mtu| *mtu > 0);
                        interface.ipv6_hop_limit = u8::try_from(conf.hoplimit).unwrap_or(IPV6_HOP_LIMIT);
                    }
                }
                _ => {}
            }
        }
        zone::remember(interface.index, &interface.name);
        interface
    }
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn ipv6_settings(families: &[AfSpecUnspec]) -> Option<&Inet6DevConf> {
    let inet6 = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    })?;
    inet6.iter().find_map(|attribute| match attribute {
        AfSpecInet6::DevConf(conf) => Some(conf),
        _ => None,
    })
}

/// Returns all interfaces of this network namespace, in the kernel's order.
///
/// # Errors
/// [`InterfaceError::Netlink`].
pub fn all() -> Result<Vec<Interface>, InterfaceError> {
    let replies = Netlink::open()
        .and_then(|mut netlink| netlink.dump(RouteNetlinkMessage::GetLink(question())))
        .map_err(unreadable)?;
    Ok(replies.into_iter().filter_map(Interface::from_reply).collect())
}

/// Returns the interface with this name.
///
/// # Errors
/// [`InterfaceError::UnknownName`] lists the names that exist.
pub fn by_name(name: &str) -> Result<Interface, InterfaceError> {
    let mut wanted = question();
    // IFLA_IFNAME finds short alternative names, too (__dev_get_by_name() in net/core/dev.c); long ones have an
    // attribute of their own (rtnl_dev_get() in net/core/rtnetlink.c, Linux 5.5).
    wanted.attributes.push(match name.len() {
        0..=MAX_NAME => LinkAttribute::IfName(name.to_owned()),
        _ => LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, [name.as_bytes(), &[0]].concat())),
    });
    let mut netlink = Netlink::open().map_err(unreadable)?;
    match one(&mut netlink, wanted)? {
        Some(interface) => Ok(interface),
        None => Err(InterfaceError::UnknownName { name: name.to_owned(), present: names(&all()?) }),
    }
}

/// Returns the interface with this index.
///
/// # Errors
/// [`InterfaceError::UnknownIndex`] lists the names that exist.
pub fn by_index(index: u32) -> Result<Interface, InterfaceError> {
    let mut netlink = Netlink::open().map_err(unreadable)?;
    match ask(&mut netlink, index)? {
        Some(interface) => Ok(interface),
        None => Err(InterfaceError::UnknownIndex { index, present: names(&all()?) }),
    }
}

/// Returns the ids of an interface's XDP programs.
///
/// # Errors
/// [`InterfaceError::Netlink`].
pub(crate) fn xdp_programs(index: u32) -> Result<Vec<u32>, InterfaceError> {
    let mut wanted = question();
    wanted.header.index = index;
    let replies = Netlink::open()
        .and_then(|mut netlink| netlink.request(RouteNetlinkMessage::GetLink(wanted), 0))
        .map_err(unreadable)?;
    let mut ids = Vec::new();
    for reply in replies {
        let RouteNetlinkMessage::NewLink(link) = reply else { continue };
        for attribute in link.attributes {
            let LinkAttribute::Xdp(list) = attribute else { continue };
            ids.extend(list.into_iter().filter_map(|item| match item {
                LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(id),
                _ => None,
            }));
        }
    }
    ids.retain(|id| *id != 0);
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Returns the name of the interface with this index, `None` if there is none; a text with the index where
/// the kernel does not answer.
pub(crate) fn name(index: u32) -> Option<String> {
    match Netlink::open().map_err(unreadable).and_then(|mut netlink| ask(&mut netlink, index)) {
        Ok(interface) => interface.map(|interface| interface.name),
        Err(error) => {
            log::debug!("{error}");
            Some(format!("interface {index}"))
        }
    }
}

/// Returns the interface with this index, if there is one, over an open socket.
///
/// # Errors
/// [`InterfaceError::Netlink`].
pub(super) fn ask(netlink: &mut Netlink, index: u32) -> Result<Option<Interface>, InterfaceError> {
    let mut wanted = question();
    wanted.header.index = index;
    one(netlink, wanted)
}

fn question() -> LinkMessage {
    let mut message = LinkMessage::default();
    // Statistics would be most of the answer.
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn one(netlink: &mut Netlink, wanted: LinkMessage) -> Result<Option<Interface>, InterfaceError> {
    match netlink.request(RouteNetlinkMessage::GetLink(wanted), 0) {
        Ok(replies) => Ok(replies.into_iter().find_map(Interface::from_reply)),
        // ERANGE for a name that is too long, EINVAL for an empty name or an index that cannot be.
        Err(error) if matches!(error.errno(), Some(Errno::ENODEV | Errno::ERANGE | Errno::EINVAL)) => {
            Ok(None)
        }
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(source: NetlinkError) -> InterfaceError {
    InterfaceError::Netlink { what: "interfaces", source }
}

fn names(interfaces: &[Interface]) -> Names {
    Names(interfaces.iter().map(|interface| interface.name.clone()).collect())
}

/// Returns the addresses of one interface, or of all for `None`, of both families.
///
/// # Errors
/// [`InterfaceError::Netlink`].
pub fn addresses(interface: Option<u32>) -> Result<Vec<Address>, InterfaceError> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Unspec;
    let replies = Netlink::open()
        .and_then(|mut netlink| netlink.dump(RouteNetlinkMessage::GetAddress(request)))
        .map_err(|source| InterfaceError::Netlink { what: "addresses", source })?;
    let addresses = replies.into_iter().filter_map(Address::from_reply);
    Ok(addresses.filter(|address| interface.is_none_or(|index| index == address.interface)).collect())
}

/// Returns the interface's source address towards `peer` for a chosen next hop, where no route names one;
/// `None` if it has no usable address of that family.
///
/// An address whose prefix holds `peer` is preferred, then one that is not deprecated, then one of `peer`'s
/// scope (RFC 6724, section 5, as far as a single interface leaves a choice).
///
/// # Errors
/// [`InterfaceError::Netlink`].
pub fn source_towards(interface: u32, peer: IpAddr) -> Result<Option<IpAddr>, InterfaceError> {
    let candidates = addresses(Some(interface))?;
    let best = candidates
        .iter()
        .filter(|address| address.usable() && address.ip.is_ipv4() == peer.is_ipv4())
        .min_by_key(|address| {
            (!address.on_link(peer), address.deprecated, is_link_local(address.ip) != is_link_local(peer))
        });
    Ok(best.map(|address| address.ip))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut other, mut broadcast) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL ours (linux/if_addr.h).
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            AddressAttribute::Broadcast(address) => broadcast = Some(*address),
            AddressAttribute::Flags(wide) => flags = *wide,
            _ => {}
        }
    }
    Some(Address {
        ip: local.or(other)?,
        prefix: message.header.prefix_len,
        broadcast,
        interface: message.header.index,
        tentative: flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}
