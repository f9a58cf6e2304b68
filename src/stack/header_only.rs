//! Segments without payload that no flow sends: resets, SYN-ACKs, and retransmitted last ACKs.
use super::ip;
use crate::{
    link::{ChecksumOffload, Link, LinkError, NextHop, Outgoing},
    segment::{CHECKSUM_OFFSET, MAX_HEADER_LEN, Segment},
};

/// A TCP header and its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderOnly {
    /// The link-layer destination.
    pub next_hop: NextHop,
    /// The IP header.
    pub template: ip::Template,
    /// The TCP header.
    pub segment: Segment,
}

impl HeaderOnly {
    /// Sends the segment. A lost one is answered again when the peer retransmits.
    ///
    /// # Errors
    /// Those of [`Link::transmit`] that are not transient.
    pub(crate) fn send(&self, link: &mut dyn Link) -> Result<(), LinkError> {
        let mut header = [0; MAX_HEADER_LEN];
        let len = self.segment.write(&mut header);
        let mut headers = [0; ip::IPV6_HEADER + MAX_HEADER_LEN];
        let start = self.template.write(len, 0, ip::Fragmentation::Forbidden, &mut headers);
        let end = start + len;
        headers[start..end].copy_from_slice(&header[..len]);
        let sum = ip::pseudo_header(self.template.source, self.template.destination, ip::TCP, len);
        let offload = link.offloads().checksum;
        let checksum = if offload { sum.partial() } else { sum.add(&headers[start..end]).checksum() };
        let at = start + CHECKSUM_OFFSET;
        headers[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let packet = Outgoing {
            ethertype: self.template.ethertype(),
            headers: &headers[..end],
            payload: [&[], &[]],
            checksum: offload.then_some(ChecksumOffload { start, offset: CHECKSUM_OFFSET }),
            segmentation: None,
        };
        match link.transmit(&self.next_hop, &packet) {
            Err(error) if !error.is_transient() => Err(error),
            _ => Ok(()),
        }
    }
}
