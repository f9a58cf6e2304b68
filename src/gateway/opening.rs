//! Opening a command's device and the programs: with the fast path where that can be had, else without.
use super::{Error, GatewaySetup, flows};
use crate::{
    host::interface::{Framing, Interface},
    host::netlink::Netlink,
    kernel::{CommandFilter, FastPath, FastPathSpec, Filter, Programs, Uplink},
    link::{self, PacketSocket, SocketFilter},
    namespace::{self, Namespace, NamespaceSpec},
};
use netlink_packet_sock_diag::SockDiagMessage;

/// A namespace whose device a packet socket has, and the loaded programs.
pub(super) struct Opened {
    pub namespace: Namespace,
    pub device: PacketSocket,
    pub sockets: Netlink<SockDiagMessage>,
    pub programs: Programs,
}

/// Opens namespace and device, and loads the programs.
///
/// # Errors
/// Those of each part.
pub(super) fn open(setup: &GatewaySetup) -> Result<Opened, Error> {
    let uplinks = uplinks(setup);
    if setup.fast_path && !uplinks.is_empty() && FastPathSpec::is_supported() {
        match open_one(setup, Some(&uplinks)) {
            Err(Error::Runtime(error)) => log::info!("no fast path for the command's packets: {error}"),
            result => return result,
        }
    }
    open_one(setup, None)
}

/// Returns the interfaces that the fast path can lead to.
fn uplinks(setup: &GatewaySetup) -> Vec<Uplink> {
    let assumed = setup.assumed.map(|assumed| assumed.mac);
    let uplink = |interface: &Interface| {
        let mac = assumed.or(interface.mac)?;
        matches!(interface.framing(), Ok(Framing::Ethernet)).then_some(Uplink { index: interface.index, mac })
    };
    setup.interfaces.iter().filter_map(uplink).collect()
}

fn open_one(setup: &GatewaySetup, uplinks: Option<&[Uplink]>) -> Result<Opened, Error> {
    let spec = NamespaceSpec { across: uplinks.is_some(), ..setup.namespace.clone() };
    let mut namespace = Namespace::open(&spec)?;
    let sockets = namespace.sockets.take().ok_or(namespace::Error::SupervisorGone)?;
    let fast_path = namespace.outer.zip(uplinks);
    let programs = Programs::load(&Filter::Command(CommandFilter {
        local_addresses: setup.addresses.clone(),
        published: setup.published.clone(),
        table: flows::MAX_FLOWS,
        assumed_mac: setup.assumed.map(|assumed| assumed.mac),
        fast_path: fast_path.map(|(outer, uplinks)| FastPathSpec { outer, uplinks: uplinks.to_vec() }),
    }))
    .map_err(crate::runtime::Error::from)?
    .with_overrides(setup.overrides);
    let device = match namespace.outer {
        Some(outer) => {
            FastPath::attach(&programs, outer).map_err(crate::runtime::Error::from)?;
            packet_socket(&programs, outer, setup.namespace.receive_buffer)?
        }
        None => namespace.link.take().ok_or(namespace::Error::SupervisorGone)?,
    };
    Ok(Opened { namespace, device, sockets, programs })
}

/// Opens the packet socket at the end of the device that is in this network namespace.
fn packet_socket(programs: &Programs, outer: u32, receive_buffer: usize) -> Result<PacketSocket, Error> {
    let filter = Some(SocketFilter::Extended(programs.door_fd()));
    let mut socket = PacketSocket::open(&link::Options::of_device(outer, filter, receive_buffer))?;
    socket.set_nonblocking();
    socket.bind()?;
    Ok(socket)
}
