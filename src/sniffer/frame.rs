//! A captured frame: its bytes, and what the capture knows about them.
use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use crate::{
    link::{ChecksumState, Outgoing, Received, VlanTag},
    net::arphrd,
};

/// The direction of a frame as seen from this host, in pcapng's words (`epb_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameDirection {
    /// The host received the frame.
    Inbound,
    /// The host sent the frame.
    Outbound,
}

/// The format of a frame's first bytes.
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
    /// Netfilter's log: packets in attributes of netlink (LINKTYPE_NFLOG).
    Nflog,
    /// PPP, with or without the address and control fields of HDLC framing (LINKTYPE_PPP).
    Ppp,
    /// A link type that the decoder does not know, by its number in capture files.
    Other(u16),
}

impl LinkType {
    /// Returns the format that a packet socket delivers for a device of this ARPHRD_* type.
    pub(crate) fn from_arphrd(hardware_type: u16) -> LinkType {
        match hardware_type {
            arphrd::ETHER | arphrd::LOOPBACK => LinkType::Ethernet,
            _ => LinkType::RawIp,
        }
    }
}

/// A frame as a capture delivers it, its bytes borrowed.
#[derive(Clone, Copy, Debug)]
pub struct CapturedFrame<'a> {
    /// Time of capture since the Unix epoch (UTC).
    pub time: Duration,
    /// The direction as seen from this host.
    pub direction: FrameDirection,
    /// The number that [`Sink::add_interface`](super::sink::Sink::add_interface) or a capture
    /// file's reader gave to the interface.
    pub interface: u32,
    /// The format of the first bytes.
    pub link_type: LinkType,
    /// The EtherType of a [`LinkType::RawIp`] frame if the capture reports it (`sll_protocol` of
    /// packet(7), host byte order). Without it, the version in the IP header decides. Other link
    /// types carry it in their header.
    pub ethertype: Option<u16>,
    /// The outermost VLAN tag if the kernel took it off the frame.
    pub vlan: Option<VlanTag>,
    /// The captured bytes, in order. A sender has link header, headers and payload in separate
    /// places; a source with one piece leaves the others empty.
    pub data: [&'a [u8]; 4],
    /// Length on the wire in bytes; exceeds the length of `data` if a snap length cut the frame.
    pub length: usize,
    /// Payload bytes per segment of a super-frame that kernel or device will cut (`gso_size`).
    pub gso_size: Option<u16>,
    /// The checksum field holds only the pseudo-header's sum (`VIRTIO_NET_HDR_F_NEEDS_CSUM`,
    /// `TP_STATUS_CSUMNOTREADY`). The device completes it; between two ends on one machine it stays
    /// partial.
    pub checksum_partial: bool,
    /// The guard dropped the kernel's copy of this frame.
    pub guarded: bool,
}

impl<'a> CapturedFrame<'a> {
    /// Returns a whole frame in one piece, with defaults for everything else.
    pub fn new(time: Duration, direction: FrameDirection, link_type: LinkType, bytes: &'a [u8]) -> Self {
        CapturedFrame {
            time,
            direction,
            interface: 0,
            link_type,
            ethertype: None,
            vlan: None,
            data: [bytes, &[], &[], &[]],
            length: bytes.len(),
            gso_size: None,
            checksum_partial: false,
            guarded: false,
        }
    }

    /// Describes a frame that a link received; `now` stands in for a missing kernel timestamp.
    /// `interface` is the sink's number.
    pub(crate) fn received(received: &'a Received<'_>, interface: u32, now: SystemTime) -> Self {
        let direction = if received.outgoing { FrameDirection::Outbound } else { FrameDirection::Inbound };
        let link_type = LinkType::from_arphrd(received.hardware_type);
        let time = since_epoch(received.time.unwrap_or(now));
        CapturedFrame {
            interface,
            ethertype: (link_type == LinkType::RawIp).then_some(received.ethertype),
            vlan: received.vlan,
            length: received.wire_len,
            gso_size: Some(received.segment_size).filter(|size| *size != 0),
            checksum_partial: received.checksum == ChecksumState::Partial,
            ..CapturedFrame::new(time, direction, link_type, received.frame)
        }
    }

    /// Describes a packet that a link sent behind `link_header`, which may be empty.
    pub(crate) fn sent(
        link_header: &'a [u8],
        packet: &Outgoing<'a>,
        interface: u32,
        now: SystemTime,
    ) -> Self {
        let link_type = if link_header.is_empty() { LinkType::RawIp } else { LinkType::Ethernet };
        let [payload, rest] = packet.payload;
        CapturedFrame {
            interface,
            ethertype: link_header.is_empty().then_some(packet.ethertype),
            data: [link_header, packet.headers, payload, rest],
            length: link_header.len() + packet.len(),
            gso_size: packet.segmentation.map(|(_, size)| size),
            checksum_partial: packet.checksum.is_some(),
            ..CapturedFrame::new(since_epoch(now), FrameDirection::Outbound, link_type, &[])
        }
    }

    /// Returns the number of captured bytes.
    pub fn captured(&self) -> usize {
        self.data.iter().map(|piece| piece.len()).sum()
    }

    /// Returns the captured bytes at these positions, across the pieces.
    pub fn bytes(&self, range: Range<usize>) -> impl Iterator<Item = u8> + use<'a> {
        let mut start = 0;
        self.data.into_iter().flat_map(move |piece| {
            let (from, to) = (range.start.saturating_sub(start), range.end.saturating_sub(start));
            start += piece.len();
            piece.get(from.min(piece.len())..to.min(piece.len())).unwrap_or_default().iter().copied()
        })
    }
}

/// Returns the time since the Unix epoch; an earlier time, which only a wrong clock shows, becomes
/// the epoch.
pub(super) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_across_the_pieces() {
        let mut frame = CapturedFrame::new(Duration::ZERO, FrameDirection::Outbound, LinkType::Ethernet, &[]);
        frame.data = [b"ab", b"c", b"", b"defg"];
        for start in 0..8 {
            for end in start..8 {
                let whole = &b"abcdefg"[start.min(7)..end.min(7)];
                assert_eq!(frame.bytes(start..end).collect::<Vec<_>>(), whole, "{start}..{end}");
            }
        }
    }
}
