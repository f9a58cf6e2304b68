//! Reads and writes link headers: Ethernet (also on veth, bridge and lo), or none (TUN, WireGuard).
use crate::net::{MacAddr, arphrd};

/// The ethertype of IPv4 (linux/if_ether.h), in host byte order.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// The ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const ETHERNET_LEN: usize = 14;

/// The link addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkHeader {
    /// Ethernet, without tags.
    Ethernet {
        /// The receiver.
        destination: MacAddr,
        /// The sender.
        source: MacAddr,
    },
    /// No header: the device carries network packets.
    None,
}

impl LinkHeader {
    /// Header of lo's frames: all zeros.
    pub(crate) const LOOPBACK: LinkHeader =
        LinkHeader::Ethernet { destination: MacAddr([0; 6]), source: MacAddr([0; 6]) };

    /// Writes the header into the front of `out` and returns its length in bytes.
    pub(crate) fn write(&self, ethertype: u16, out: &mut [u8; ETHERNET_LEN]) -> usize {
        match self {
            LinkHeader::None => 0,
            LinkHeader::Ethernet { destination, source } => {
                out[..6].copy_from_slice(&destination.0);
                out[6..12].copy_from_slice(&source.0);
                out[12..].copy_from_slice(&ethertype.to_be_bytes());
                ETHERNET_LEN
            }
        }
    }
}

/// A received frame's link header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The header for an answer to this frame.
    pub reply: LinkHeader,
    /// The header's length in bytes.
    pub len: usize,
    /// The network protocol's ethertype, in host byte order.
    pub ethertype: u16,
}

/// Returns whether a device of this type (ARPHRD_*) has Ethernet headers, which name the protocol.
pub(super) fn is_ethernet(hardware_type: u16) -> bool {
    matches!(hardware_type, arphrd::ETHER | arphrd::LOOPBACK)
}

/// Parses the link header of `frame`, from a device of type `hardware_type` (ARPHRD_*). `protocol`
/// is the kernel's ethertype, the only one on devices without a header. A frame shorter than its
/// header counts as header only, without a payload and without an address for an answer.
pub(super) fn parse(frame: &[u8], hardware_type: u16, protocol: u16) -> Parsed {
    let none = Parsed { reply: LinkHeader::None, len: 0, ethertype: protocol };
    if !is_ethernet(hardware_type) {
        return none;
    }
    let Some(header) = frame.first_chunk::<ETHERNET_LEN>() else {
        return Parsed { len: frame.len(), ..none };
    };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
    Parsed {
        reply: LinkHeader::Ethernet {
            destination: MacAddr([s0, s1, s2, s3, s4, s5]),
            source: MacAddr([d0, d1, d2, d3, d4, d5]),
        },
        len: ETHERNET_LEN,
        ethertype: u16::from_be_bytes([t0, t1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: LinkHeader = LinkHeader::Ethernet {
        destination: MacAddr([2, 0, 0, 0, 0, 1]),
        source: MacAddr([2, 0, 0, 0, 0, 2]),
    };

    #[test]
    fn an_answer_goes_back_to_the_sender() {
        let mut frame = [0; 14];
        assert_eq!(HEADER.write(ETHERTYPE_IPV6, &mut frame), 14);
        let parsed = parse(&frame, arphrd::ETHER, 0);
        assert_eq!((parsed.len, parsed.ethertype), (14, ETHERTYPE_IPV6));
        let mut reply = [0; 14];
        parsed.reply.write(ETHERTYPE_IPV6, &mut reply);
        assert_eq!((&reply[..6], &reply[6..12]), (&frame[6..12], &frame[..6]));
    }

    #[test]
    fn devices_without_header_are_told_by_their_type() {
        const ARPHRD_NONE: u16 = 0xfffe;
        let parsed = parse(&[0x45], ARPHRD_NONE, ETHERTYPE_IPV4);
        assert_eq!(parsed, Parsed { reply: LinkHeader::None, len: 0, ethertype: ETHERTYPE_IPV4 });
        assert_eq!(LinkHeader::None.write(ETHERTYPE_IPV4, &mut [0; 14]), 0);
    }

    #[test]
    fn a_runt_is_all_header() {
        let runt = Parsed { reply: LinkHeader::None, len: 13, ethertype: ETHERTYPE_IPV4 };
        assert_eq!(parse(&[0; 13], arphrd::ETHER, ETHERTYPE_IPV4), runt);
    }
}
