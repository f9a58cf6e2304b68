//! The sniffer: every frame of a connection, of an interface or of a capture file as one line of text, as an
//! object of JSON or as a record of a capture file.
//!
//! Theory of operation: whoever sees a frame (the link below the stack, a capturing socket, a file's reader)
//! describes it as an [`Observed`], which borrows the bytes where they lie, in up to four pieces. [`decode`]
//! reads the headers with pnet_packet and yields a [`decode::Decoded`] without copying payload or touching the heap;
//! [`mod@line`] turns that into gVisor's text. A frame that makes no sense is shown as such, never hidden, and
//! can't make any of this panic.
use std::time::Duration;

pub use crate::link::VlanTag;

pub mod capture_file;
pub mod decode;
pub mod json;
pub mod line;
mod names;
pub mod payload;
pub mod sink;
pub mod tap;
mod text;

/// Which way a frame went, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Receive,
    Send,
}

/// What the first bytes of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// IEEE 802.3: destination, source, EtherType. Linux gives lo the same header, all zeros.
    Ethernet,
    /// No link header: the frame starts with the IP header (ARPHRD_NONE devices, LINKTYPE_RAW).
    RawIp,
    /// Linux "cooked" capture, 16 bytes (LINKTYPE_LINUX_SLL).
    LinuxCooked1,
    /// Linux "cooked" capture, 20 bytes with the interface's index (LINKTYPE_LINUX_SLL2).
    LinuxCooked2,
    /// BSD loopback: the address family in the byte order of the capturing machine (LINKTYPE_NULL).
    Null,
    /// OpenBSD loopback: the address family in network byte order (LINKTYPE_LOOP).
    Loop,
    /// A link type of a capture file that is not decoded, by its number there.
    Other(u16),
}

/// Whether the transport checksum in the frame is the one that the wire sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// The field holds the checksum, right or wrong.
    Complete,
    /// The field holds the pseudo-header's sum only; the device fills the rest in, or, between two ends on
    /// this machine, nobody does (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, `TP_STATUS_CSUMNOTREADY`).
    Partial,
}

/// One frame as it was seen, its bytes left where they lie.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// When, since the Unix epoch (UTC).
    pub time: Duration,
    pub direction: Direction,
    /// Where: the number that [`sink::Sink::add_interface`] or the file's reader gave to the interface.
    pub interface: u32,
    pub link: LinkType,
    /// The EtherType of a [`LinkType::RawIp`] frame where the capture told it (`sll_protocol` of packet(7), host
    /// order). Without it the IP header's version decides. Other link types carry it in their header.
    pub ethertype: Option<u16>,
    /// The outermost VLAN tag, if the kernel took it off the frame.
    pub vlan: Option<VlanTag>,
    /// The bytes that were captured, in order. A sender has link header, headers and payload in separate places;
    /// whoever has one piece leaves the others empty.
    pub data: [&'a [u8]; 4],
    /// The frame's length on the wire in bytes; larger than what `data` holds where a snap length cut it.
    pub length: usize,
    /// Payload bytes a segment for a super-frame that kernel or device will cut (`gso_size`).
    pub gso: Option<u16>,
    pub checksum: Checksum,
    /// The guard dropped the kernel's copy of this frame.
    pub guarded: bool,
}

impl<'a> Observed<'a> {
    /// A whole frame in one piece, with nothing special about it.
    pub fn new(time: Duration, direction: Direction, link: LinkType, frame: &'a [u8]) -> Self {
        Observed {
            time,
            direction,
            interface: 0,
            link,
            ethertype: None,
            vlan: None,
            data: [frame, &[], &[], &[]],
            length: frame.len(),
            gso: None,
            checksum: Checksum::Complete,
            guarded: false,
        }
    }

    /// How many bytes were captured.
    pub fn captured(&self) -> usize {
        self.data.iter().map(|piece| piece.len()).sum()
    }
}
