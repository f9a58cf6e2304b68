//! The device of a command's network namespace: one end of a veth pair, whose other end a packet socket has.
//!
//! The command's end has the host's addresses and routes, no neighbours (NOARP) and the name of the host's egress
//! interface. The other end lies in the namespace, too, or with netkat: then programs can forward packets between
//! it and the host's interfaces ([`FastPath`](super::FastPath)). Both go with the namespace.
use crate::{
    host::netlink::{Netlink, NetlinkError},
    net::MacAddr,
};
use log::debug;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::{errno::Errno, net::if_::if_nametoindex, unistd::Pid};
use std::{fs, net::IpAddr};

/// Name of the end that the packet socket has; outside of the namespace, a number follows.
const OUTER: &str = "netkat";
/// Index of lo in each network namespace.
const LOOPBACK: u32 = 1;

/// Link addresses of the command's end and of the other, which no other link sees.
pub(crate) const COMMAND_MAC: MacAddr = MacAddr([0x02, 0x6e, 0x6b, 0, 0, 1]);
/// See [`COMMAND_MAC`].
pub(crate) const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x6e, 0x6b, 0, 0, 2]);

/// A device to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceSpec {
    /// The command's name for it.
    pub name: String,
    /// Maximum IP packet, in bytes.
    pub mtu: u32,
    /// Maximum super-frame, in bytes.
    pub gso_max_size: u32,
    /// Maximum segments of a super-frame.
    pub gso_max_segs: u32,
    /// Addresses, with the length of their prefixes in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Further addresses, on lo: those of services that are forwarded.
    pub on_loopback: Vec<IpAddr>,
    /// Routes, which lead through the device.
    pub routes: Vec<DeviceRoute>,
}

/// A route of the command's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRoute {
    /// The destination's network.
    pub destination: IpAddr,
    /// Length of its prefix, in bits.
    pub prefix: u8,
    /// The source address that a socket gets which has none.
    pub source: IpAddr,
    /// The route's metric.
    pub metric: u32,
}

/// The reason why the device cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub(crate) struct DeviceError {
    step: String,
    #[source]
    source: NetlinkError,
}

impl DeviceSpec {
    /// Makes the device in this thread's network namespace, and sets it up. Returns the index of the other end,
    /// which a packet socket is to be bound to.
    ///
    /// # Errors
    /// The kernel's refusal: without CAP_NET_ADMIN over the namespace, or a kernel without veth.
    pub(crate) fn make(&self) -> Result<u32, DeviceError> {
        let mut netlink = Netlink::open().map_err(failed("open a netlink socket"))?;
        let peer = InfoVeth::Peer(self.end(OUTER, GATEWAY_MAC));
        make_pair(&mut netlink, self.end(&self.name, COMMAND_MAC), peer)?;
        let outer = index(OUTER)?;
        set_up(&mut netlink, outer)?;
        self.configure()?;
        Ok(outer)
    }

    /// Makes the device with its one end in the network namespace of process `pid`, which has to
    /// [configure](DeviceSpec::configure) it, and the other one in this thread's. Returns the other end's index.
    /// The namespace must not be used before [`FastPath::attach`](super::FastPath::attach).
    ///
    /// # Errors
    /// The kernel's refusal, as for [`DeviceSpec::make`].
    pub(crate) fn make_across(&self, pid: Pid) -> Result<u32, DeviceError> {
        let mut netlink = Netlink::open().map_err(failed("open a netlink socket"))?;
        let number = getrandom::u32().unwrap_or_default();
        // Several runs may be in one network namespace, of several namespaces of processes.
        let name = format!("{OUTER}{number:08x}");
        let mut inner = self.end(&self.name, COMMAND_MAC);
        inner.attributes.push(LinkAttribute::NetNsPid(pid.as_raw().cast_unsigned()));
        make_pair(&mut netlink, self.end(&name, GATEWAY_MAC), InfoVeth::Peer(inner))?;
        let outer = index(&name)?;
        // Without IPv6 it changes no route of this host's.
        if let Err(error) = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
            debug!("{name} has IPv6: {error}");
        }
        // First, so that the command's end has a carrier as soon as it is up.
        set_up(&mut netlink, outer)?;
        Ok(outer)
    }

    /// Sets the command's end up, which lies in this thread's network namespace, and lo, and gives them their
    /// addresses and routes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn configure(&self) -> Result<(), DeviceError> {
        let mut netlink = Netlink::open().map_err(failed("open a netlink socket"))?;
        let inner = index(&self.name)?;
        set_up(&mut netlink, inner)?;
        let mut new = |message, flags| netlink.request(message, flags).map(drop);
        let lo = up(LOOPBACK, LinkFlags::Up);
        new(RouteNetlinkMessage::SetLink(lo), 0).map_err(failed("set lo up"))?;
        let on_loopback =
            self.on_loopback.iter().map(|ip| (LOOPBACK, *ip, if ip.is_ipv4() { 32 } else { 128 }));
        let on_device = self.addresses.iter().map(|(ip, prefix)| (inner, *ip, *prefix));
        for (index, address, prefix) in on_device.chain(on_loopback) {
            let message = RouteNetlinkMessage::NewAddress(address_message(index, address, prefix));
            match new(message, NLM_F_CREATE | NLM_F_EXCL) {
                // IPv6 may be switched off (net.ipv6.conf.*.disable_ipv6).
                Err(error) if error.errno() == Some(Errno::EACCES) && address.is_ipv6() => {
                    debug!("the namespace has no IPv6: {address} is left out");
                }
                result => result.map_err(failed(&format!("assign {address} to the device")))?,
            }
        }
        for route in &self.routes {
            let message = RouteNetlinkMessage::NewRoute(route_message(inner, route));
            if let Err(error) = new(message, NLM_F_CREATE) {
                debug!("no route to {}/{} in the namespace: {error}", route.destination, route.prefix);
            }
        }
        Ok(())
    }

    fn end(&self, name: &str, MacAddr(mac): MacAddr) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::GsoMaxSize(self.gso_max_size),
            LinkAttribute::GsoMaxSegs(self.gso_max_segs),
        ];
        message
    }
}

fn failed(step: &str) -> impl FnOnce(NetlinkError) -> DeviceError {
    let step = step.to_owned();
    move |source| DeviceError { step, source }
}

fn index(name: &str) -> Result<u32, DeviceError> {
    let found = if_nametoindex(name).map_err(|errno| NetlinkError::Refused(errno as i32));
    found.map_err(failed(&format!("find the device {name}")))
}

fn make_pair(netlink: &mut Netlink, mut end: LinkMessage, peer: InfoVeth) -> Result<(), DeviceError> {
    let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(peer))];
    end.attributes.push(LinkAttribute::LinkInfo(info));
    let request = RouteNetlinkMessage::NewLink(end);
    netlink.request(request, NLM_F_CREATE | NLM_F_EXCL).map_err(failed("make a veth pair"))?;
    Ok(())
}

/// Sets an end of the device up, without neighbours and link-local addresses.
fn set_up(netlink: &mut Netlink, end: u32) -> Result<(), DeviceError> {
    // An error means that the kernel has no IPv6.
    if let Err(error) = netlink.request(RouteNetlinkMessage::SetLink(quiet(end)), 0) {
        debug!("no IPv6 on the device: {error}");
    }
    let message = up(end, LinkFlags::Up | LinkFlags::Noarp);
    netlink.request(RouteNetlinkMessage::SetLink(message), 0).map_err(failed("set the device up"))?;
    Ok(())
}

/// Returns the request for no link-local address of the device's own, and so no unsolicited traffic.
fn quiet(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![mode]));
    message
}

fn up(index: u32, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = flags;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    let link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    message.header.scope = if link { AddressScope::Link } else { AddressScope::Universe };
    // The device's routes are those of the host; duplicates of the address are the host's to detect.
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        AddressAttribute::Flags(flags),
    ];
    message
}

fn route_message(index: u32, route: &DeviceRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Oif(index),
        RouteAttribute::PrefSource(route.source.into()),
        RouteAttribute::Priority(route.metric),
    ];
    if route.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(route.destination.into()));
    }
    message
}
