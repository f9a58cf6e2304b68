//! The packet socket of a run, on all its interfaces, under the sniffer's tap.
use super::Error;
use crate::{
    host::{features::FeatureOverrides, interface::Interface},
    link::{self, PacketSocket, SocketFilter},
    neighbour::LocalAddress,
    sniffer::{LinkType, SharedSink, tap::Tap},
};

/// The parameters of a run's packet socket.
pub(crate) struct WireOptions<'a> {
    /// The interfaces whose frames arrive.
    pub interfaces: &'a [&'a Interface],
    /// The assumed address, whose frames the interface takes for another host's.
    pub assumed: Option<LocalAddress>,
    /// Use the virtio-net header, which offloads depend on.
    pub vnet_header: bool,
    /// Let the kernel cut super-frames.
    pub segmentation: bool,
    /// Send past tc, tcx and queueing disciplines at egress.
    pub past_egress: bool,
    /// Size of the ring to receive by where frames arrive segment by segment, in bytes.
    pub ring: Option<usize>,
    /// Features to treat as refused.
    pub overrides: FeatureOverrides,
    /// Receive buffer, in bytes.
    pub receive_buffer: usize,
    /// A full send buffer makes the sender wait.
    pub blocks: bool,
    /// The sink that shows and records the packets.
    pub sink: &'a SharedSink,
}

/// Opens the packet socket with its filter, and then the tap: frames arrive from now on.
///
/// # Errors
/// [`Error::Link`]; [`Error::Sink`] where the capture file cannot be made.
pub(crate) fn open(filter: SocketFilter<'_>, options: &WireOptions<'_>) -> Result<Tap<PacketSocket>, Error> {
    let interface = match options.interfaces {
        [only] => Some(only.index),
        _ => None,
    };
    let mut socket = PacketSocket::open(&link::Options {
        interface,
        filter: Some(filter),
        vnet_header: options.vnet_header,
        overrides: options.overrides,
        segmentation: options.segmentation,
        past_egress: options.past_egress,
        outgoing: false,
        timestamps: false,
        receive_buffer: options.receive_buffer,
    })?;
    if let Some(assumed) = options.assumed {
        socket.set_promiscuous(assumed.interface)?;
    }
    if !options.blocks {
        socket.set_nonblocking();
    }
    if let Some(bytes) = options.ring.filter(|_| !options.overrides.no_ring) {
        socket.receive_by_ring(options.interfaces.iter().copied(), bytes);
    }
    socket.bind()?;
    let watched =
        options.interfaces.iter().map(|i| (i.index, i.name.as_str(), LinkType::from_arphrd(i.hardware)));
    Ok(Tap::new(socket, options.sink.clone(), watched, true)?)
}
