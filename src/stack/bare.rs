//! Segments without payload that no flow sends: resets, the second step of a handshake, a last ACK repeated.
use super::{ip, segment};
use crate::link::{ChecksumOffload, Link, LinkError, NextHop, Outgoing};
use arrayvec::ArrayVec;

/// The longest TCP header, in bytes.
pub const MAX_TCP_HEADER: usize = 60;

/// A TCP header and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    pub next_hop: NextHop,
    pub template: ip::Template,
    /// At least [`segment::MIN_HEADER`] bytes; its checksum is filled in when it is sent.
    pub header: ArrayVec<u8, MAX_TCP_HEADER>,
}

impl Bare {
    /// Sends it. Where it is lost on the way out, the peer will ask again.
    pub fn send(&self, link: &mut dyn Link) -> Result<(), LinkError> {
        let mut headers = [0; ip::IPV6_HEADER + MAX_TCP_HEADER];
        let len = self.header.len();
        let start = self.template.write(len, 0, ip::Fragmentation::Forbidden, &mut headers);
        let end = start + len;
        headers[start..end].copy_from_slice(&self.header);
        let field = start + segment::CHECKSUM..start + segment::CHECKSUM + 2;
        headers[field.clone()].fill(0);
        let sum = ip::pseudo_header(self.template.source, self.template.destination, ip::TCP, len);
        let offload = link.offloads().checksum;
        let checksum = if offload { sum.partial() } else { sum.add(&headers[start..end]).checksum() };
        headers[field].copy_from_slice(&checksum.to_be_bytes());
        let packet = Outgoing {
            ethertype: self.template.ethertype(),
            headers: &headers[..end],
            payload: [&[], &[]],
            checksum: offload.then_some(ChecksumOffload { start, offset: segment::CHECKSUM }),
            segmentation: None,
        };
        match link.transmit(&self.next_hop, &packet) {
            Err(error) if !error.is_transient() => Err(error),
            _ => Ok(()),
        }
    }
}
