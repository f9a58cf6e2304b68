//! Sends and receives frames.
//!
//! A [`Link`] moves whole packets between the stack and one or more interfaces. The stack above it
//! sees only network-layer packets and [`NextHop`]s. Below it are link headers, the virtio-net
//! header, which lets one frame carry 64 KB past the MTU, and the packet socket. Both directions
//! carry super-frames: the kernel cuts a sent one into segments of the stated size, and delivers
//! received ones coalesced.
mod bpf_code;
mod coalesce;
mod ethtool;
mod handshake_filter;
mod header;

pub mod memory;
mod observer;
mod packet_socket;
mod path_observer;
mod ring;
mod virtio;

use std::{io, time::SystemTime};

pub use header::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkHeader};
pub(crate) use observer::{Observed, Observer};
pub(crate) use packet_socket::{Options, PacketSocket, SocketFilter, Statistics};
pub(crate) use path_observer::{Passed, PathObserver, wall_clock};

/// Maximum link header of a sent frame, in bytes (Ethernet without tags).
pub(crate) const MAX_LINK_HEADER: usize = 14;

/// The next hop of a packet: the interface, and the link addresses on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface's index.
    pub interface: u32,
    /// The link header of packets to it.
    pub header: LinkHeader,
}

/// The kernel's knowledge of a received packet's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// Unknown: the receiver verifies the checksum.
    Unverified,
    /// The device verified it.
    Verified,
    /// A local sender left the checksum to the device: the field holds the pseudo-header's sum. The
    /// packet crossed no wire that could damage it.
    Partial,
}

impl ChecksumState {
    /// Returns whether the receiver may skip verification.
    pub(crate) fn is_trusted(self) -> bool {
        self != ChecksumState::Unverified
    }
}

/// An 802.1Q or 802.1ad tag, in a frame or taken out of one by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol identifier: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Tag control information: priority, drop eligibility and VLAN identifier.
    pub tci: u16,
}

impl VlanTag {
    /// Returns the VLAN identifier, 0 to 4095.
    pub fn id(self) -> u16 {
        self.tci & 0x0fff
    }

    /// Returns the priority code point, 0 to 7.
    pub(crate) fn priority(self) -> u8 {
        (self.tci >> 13) as u8
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Received<'a> {
    /// The next hop of an answer: the frame's sender, on the interface that received the frame.
    pub reply: NextHop,
    /// The whole frame, link header included.
    pub frame: &'a mut [u8],
    /// Offset of the network header in `frame`, in bytes.
    pub network: usize,
    /// The network protocol's ethertype, in host byte order.
    pub ethertype: u16,
    /// The state of the transport checksum.
    pub checksum: ChecksumState,
    /// Payload bytes per segment of a coalesced frame; 0 for any other.
    pub segment_size: u16,
    /// Hardware type of the interface (ARPHRD_*, linux/if_arp.h).
    pub hardware_type: u16,
    /// The tag that the kernel has taken out of the frame.
    pub vlan: Option<VlanTag>,
    /// This host sent the frame; only a sniffer receives such frames.
    pub outgoing: bool,
    /// Length on the wire in bytes; exceeds `frame.len()` if the buffer cut the frame.
    pub wire_len: usize,
    /// The kernel's receive time, if [`Options::timestamps`] is set.
    pub time: Option<SystemTime>,
}

/// A checksum that kernel or device completes: the field at `offset` holds the pseudo-header's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumOffload {
    /// Start of the sum, in bytes from the network header: the transport header.
    pub start: usize,
    /// Offset of the field, in bytes from `start`.
    pub offset: usize,
}

/// The kind of segments that kernel or device cut a super-frame into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one size over IPv4 or IPv6; the last may be shorter (Linux 6.2 and later).
    Udp,
}

/// A packet to send: headers, then the payload in up to two pieces.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The network protocol's ethertype, in host byte order.
    pub ethertype: u16,
    /// Network and transport header.
    pub headers: &'a [u8],
    /// The payload, in order.
    pub payload: [&'a [u8]; 2],
    /// The checksum to complete; `None` if it is complete.
    pub checksum: Option<ChecksumOffload>,
    /// Kind of a super-frame's segments, and payload bytes per segment.
    pub segmentation: Option<(Segmentation, u16)>,
}

impl Outgoing<'_> {
    /// Returns the packet's length in bytes, without a link header.
    pub(crate) fn len(&self) -> usize {
        self.headers.len() + self.payload[0].len() + self.payload[1].len()
    }
}

/// The work that a link takes over from the stack. It shrinks at run time when kernel or device
/// refuse an offload (logged once).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// The link completes partial checksums.
    pub checksum: bool,
    /// The link cuts super-frames.
    pub segmentation: bool,
}

/// The reason why a link cannot send or receive.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A system call failed.
    #[error("cannot {operation} on {interface}: {error}{hint}")]
    Io {
        /// The operation, as a verb phrase.
        operation: &'static str,
        /// The interface's name.
        interface: String,
        /// The system call's error.
        error: io::Error,
        /// The remedy, as the end of the message.
        hint: &'static str,
    },
    /// This host dropped the packet at egress (ENOBUFS): a full queue, a BPF program or an nft
    /// rule.
    #[error("this host dropped the packet at egress of {interface} (ENOBUFS)")]
    EgressDropped {
        /// The interface's name.
        interface: String,
    },
    /// The interface is administratively down or without carrier (ENETDOWN); it may recover.
    #[error("interface {interface} is down")]
    Down {
        /// The interface's name.
        interface: String,
    },
    /// The interface no longer exists.
    #[error("interface {interface} disappeared")]
    Gone {
        /// The interface's name.
        interface: String,
    },
    /// The socket's send buffer is full, and the socket does not wait (EAGAIN).
    #[error("the send buffer towards {interface} is full")]
    Full {
        /// The interface's name.
        interface: String,
    },
    /// The packet exceeds the interface's MTU (EMSGSIZE).
    #[error("a packet of {len} bytes exceeds the MTU of {interface}")]
    TooLong {
        /// The frame's length, in bytes.
        len: usize,
        /// The interface's name.
        interface: String,
    },
    /// The kernel refused an offload. The packet is lost; [`Link::offloads`] returns the remaining
    /// offloads.
    #[error("{interface} refuses {offload}; going on without it")]
    OffloadRefused {
        /// The offload's name.
        offload: &'static str,
        /// The interface's name.
        interface: String,
    },
}

impl LinkError {
    /// Returns whether the connection can continue as after a lost packet.
    pub(crate) fn is_transient(&self) -> bool {
        !matches!(self, LinkError::Io { .. } | LinkError::Gone { .. })
    }
}

/// A device that carries packets.
pub trait Link {
    /// Returns the next frame, or `None` without one. Never blocks.
    ///
    /// # Errors
    /// [`LinkError::Down`], [`LinkError::Gone`] and [`LinkError::Io`].
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError>;

    /// Sends one packet. May block while the device's queue is full.
    ///
    /// # Errors
    /// Every [`LinkError`]; the packet is lost.
    fn transmit(&mut self, next_hop: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError>;

    /// Returns the offloads that the link has now.
    fn offloads(&self) -> Offloads;
}
