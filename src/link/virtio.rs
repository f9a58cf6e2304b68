//! Encodes and decodes the virtio-net header of a packet socket with `PACKET_VNET_HDR`.
//!
//! The header precedes each frame (linux/virtio_net.h, `struct virtio_net_hdr`; the VIRTIO
//! specification, section 5.1.6). Integers are in the host's byte order.
use super::{ChecksumState, Outgoing, Segmentation};

/// Length of the header, in bytes.
pub(super) const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Flag beside the kind: the segments carry congestion marks.
const GSO_ECN: u8 = 0x80;

/// Returns the header for `packet` behind a link header of `link_len` bytes.
pub(super) fn encode(packet: &Outgoing<'_>, link_len: usize) -> [u8; LEN] {
    let mut header = [0; LEN];
    let mut put = |at: usize, value: usize| {
        // The value fits: it is an offset into headers of at most 150 bytes.
        header[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    };
    // hdr_len: the bytes that the kernel keeps linear.
    put(2, link_len + packet.headers.len());
    if let Some(checksum) = packet.checksum {
        put(6, link_len + checksum.start);
        put(8, checksum.offset);
        header[0] = F_NEEDS_CSUM;
    }
    if let Some((kind, size)) = packet.segmentation {
        header[1] = match kind {
            Segmentation::Tcp4 => GSO_TCPV4,
            Segmentation::Tcp6 => GSO_TCPV6,
            Segmentation::Udp => GSO_UDP_L4,
        };
        header[4..6].copy_from_slice(&size.to_ne_bytes());
    }
    header
}

/// Decodes the header of a received frame: the state of its checksum, and the payload bytes per
/// segment. The size is 0 for a frame that is not coalesced, also for a datagram whose sender left
/// its fragmentation to the device.
pub(super) fn decode(header: &[u8; LEN]) -> (ChecksumState, u16) {
    let checksum = if header[0] & F_NEEDS_CSUM != 0 {
        ChecksumState::Partial
    } else if header[0] & F_DATA_VALID != 0 {
        ChecksumState::Verified
    } else {
        ChecksumState::Unverified
    };
    let size = match header[1] & !GSO_ECN {
        GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4 => u16::from_ne_bytes([header[4], header[5]]),
        _ => 0,
    };
    (checksum, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{ChecksumOffload, ETHERTYPE_IPV4};

    #[test]
    fn offsets_count_from_the_link_header() {
        let packet = Outgoing {
            ethertype: ETHERTYPE_IPV4,
            headers: &[0; 52],
            payload: [&[0; 3000], &[]],
            checksum: Some(ChecksumOffload { start: 20, offset: 16 }),
            segmentation: Some((Segmentation::Tcp4, 1448)),
        };
        let header = encode(&packet, 14);
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        assert_eq!((header[0], header[1]), (F_NEEDS_CSUM, GSO_TCPV4));
        assert_eq!((field(2), field(4), field(6), field(8)), (66, 1448, 34, 16));
        assert_eq!(decode(&header), (ChecksumState::Partial, 1448));
    }

    #[test]
    fn only_what_was_coalesced_is_cut_again() {
        let sized = |kind: u8| {
            let mut header = [0; LEN];
            header[1] = kind;
            header[4..6].copy_from_slice(&1400u16.to_ne_bytes());
            decode(&header).1
        };
        // 3 is VIRTIO_NET_HDR_GSO_UDP (linux/virtio_net.h), a datagram before its fragmentation.
        assert_eq!([0, 1, 3, 4, 5, 0x81].map(sized), [0, 1400, 0, 1400, 1400, 1400]);
    }

    #[test]
    fn a_bare_header_asks_for_verification() {
        assert_eq!(decode(&[0; LEN]), (ChecksumState::Unverified, 0));
    }
}
