//! Frames on the wire.
//!
//! A [`Link`] moves whole packets between the stack and one or more interfaces. Above it there are only
//! network-layer packets and [`NextHop`]s; below it are link headers, the virtio-net header that lets one
//! frame carry 64 KB past the MTU, and the packet socket. Super-frames go in and out from the start: the
//! kernel cuts what we send into segments of `segment_size`, and hands us what it has coalesced.
mod header;

pub mod memory;
mod packet_socket;
mod virtio;

use std::{io, time::SystemTime};

pub use header::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkHeader};
pub use packet_socket::{Options, PacketSocket, Statistics};

/// The longest link header that a frame of ours carries, in bytes (Ethernet without tags).
pub const MAX_LINK_HEADER: usize = 14;

/// Where a packet leaves: the interface, and the link addresses it carries there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface's index.
    pub interface: u32,
    pub header: LinkHeader,
}

/// What the kernel knows of a received packet's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// Nobody has looked: verify it.
    Unverified,
    /// The device verified it.
    Verified,
    /// It comes from a local sender that left it to the device: the field holds the pseudo-header's sum. There
    /// was no wire to damage the packet.
    Partial,
}

impl ChecksumState {
    /// Whether there is nothing to verify.
    pub fn is_trusted(self) -> bool {
        self != ChecksumState::Unverified
    }
}

/// An 802.1Q or 802.1ad tag: in a frame, or as the kernel took it out of a received one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// The tag's ethertype: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN id.
    pub tci: u16,
}

impl VlanTag {
    /// The VLAN identifier, 0 to 4095.
    pub fn id(self) -> u16 {
        self.tci & 0x0fff
    }

    /// The priority code point, 0 to 7.
    pub fn priority(self) -> u8 {
        (self.tci >> 13) as u8
    }
}

/// One received frame.
#[derive(Debug)]
pub struct Received<'a> {
    /// Where an answer to this frame goes: back to whoever sent it, out of the interface it came in by.
    pub reply: NextHop,
    /// The whole frame, link header included.
    pub frame: &'a mut [u8],
    /// Where the network header begins in `frame`, in bytes.
    pub network: usize,
    /// The network protocol's ethertype, in host byte order.
    pub ethertype: u16,
    pub checksum: ChecksumState,
    /// Payload bytes of each segment in a coalesced frame; 0 for an ordinary one.
    pub segment_size: u16,
    /// The interface's hardware type (ARPHRD_*, linux/if_arp.h).
    pub hardware_type: u16,
    pub vlan: Option<VlanTag>,
    /// The frame was sent by this host; only sniffers see those.
    pub outgoing: bool,
    /// Bytes on the wire; more than `frame.len()` where the buffer cut it.
    pub wire_len: usize,
    /// The kernel's receive time, where [`Options::timestamps`] asked for it.
    pub time: Option<SystemTime>,
}

/// A checksum that is left to the kernel or the device: the field at `offset` holds the pseudo-header's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumOffload {
    /// Where summing begins, in bytes from the network header: the transport header.
    pub start: usize,
    /// Where the field stands, in bytes from `start`.
    pub offset: usize,
}

/// What a super-frame is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    Tcp4,
    Tcp6,
    /// Datagrams of one size, the last of which may be shorter; IPv4 or IPv6 (kernel 6.2 and later).
    Udp,
}

/// One packet to send: headers, then the payload in up to two pieces.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub ethertype: u16,
    /// Network and transport header.
    pub headers: &'a [u8],
    pub payload: [&'a [u8]; 2],
    pub checksum: Option<ChecksumOffload>,
    /// Kind, and payload bytes of each segment, of a super-frame.
    pub segmentation: Option<(Segmentation, u16)>,
}

impl Outgoing<'_> {
    /// The packet's length in bytes, without a link header.
    pub fn len(&self) -> usize {
        self.headers.len() + self.payload[0].len() + self.payload[1].len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a link can take off the stack's hands. It may shrink while running, when the kernel or the device
/// refuses (logged once).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Partial checksums are completed below.
    pub checksum: bool,
    /// Super-frames are cut below.
    pub segmentation: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot {operation} on {interface}: {error}{hint}")]
    Io { operation: &'static str, interface: String, error: io::Error, hint: &'static str },
    /// Something on this host's way out dropped the packet (ENOBUFS): a full queue, or a program or nft
    /// rule at egress.
    #[error("this host dropped the packet at egress of {interface} (ENOBUFS)")]
    EgressDropped { interface: String },
    /// The link is administratively down or without carrier (ENETDOWN); it may come back.
    #[error("interface {interface} is down")]
    Down { interface: String },
    #[error("interface {interface} disappeared")]
    Gone { interface: String },
    /// The packet exceeds the interface's MTU (EMSGSIZE).
    #[error("a packet of {len} bytes exceeds the MTU of {interface}")]
    TooLong { len: usize, interface: String },
    /// The kernel refused an offload; [`Link::offloads`] says what is left. The packet is lost.
    #[error("{interface} refuses {offload}; going on without it")]
    OffloadRefused { offload: &'static str, interface: String },
}

impl LinkError {
    /// Whether the connection can go on as after a lost packet.
    pub fn is_transient(&self) -> bool {
        !matches!(self, LinkError::Io { .. } | LinkError::Gone { .. })
    }
}

/// Something that carries packets.
pub trait Link {
    /// The next frame, if one is there; never blocks.
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError>;

    /// Sends one packet. May block for as long as the device's queue is full.
    fn transmit(&mut self, next_hop: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError>;

    fn offloads(&self) -> Offloads;
}
