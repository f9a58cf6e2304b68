//! Joins TCP segments that follow each other to a super-frame, as the kernel's GRO does, so that the stack reads one
//! header in place of many.
//!
//! The rules are those of tcp_gro_receive() and inet_gro_receive() (net/ipv4/tcp_offload.c, net/ipv4/af_inet.c), and
//! stricter: all of both headers is equal but for the sequence number, PSH, lengths, sums and the IPv4 identification.
//! All segments are as long as the first; a shorter one is the last. PSH ends no super-frame, as it ends the kernel's:
//! what has arrived is joined without a wait. A segment joins only if its sums are right; whatever else arrives goes on
//! alone, as it came.
use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::net::{checksum::Sum, ip_protocol::TCP};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Maximum super-frame without its link header, in bytes: the length fields have 16 bits.
const MAX_PACKET: usize = 65_535;

/// A super-frame in the making.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    /// Offsets of network header, TCP header and payload, in bytes.
    network: usize,
    transport: usize,
    payload: usize,
    /// Payload bytes of the first segment.
    size: usize,
    /// End of the joined segments' payload.
    end: usize,
    segments: usize,
    /// A short segment has come.
    complete: bool,
}

/// A segment's place in its frame.
struct Place {
    transport: usize,
    payload: usize,
    end: usize,
}

impl Joined {
    /// Looks at a frame whose network header, of this ethertype, is at `network`. Returns a super-frame of this one
    /// segment, if others can join it: a TCP segment with data, whose only flags are ACK and PSH. `trusted` says that its
    /// TCP sum need not be verified.
    pub(super) fn begin(frame: &[u8], network: usize, ethertype: u16, trusted: bool) -> Option<Joined> {
        let Place { transport, payload, end } = place(frame, network, ethertype)?;
        is_intact(frame, network, transport, end, trusted).then_some(())?;
        Some(Joined { network, transport, payload, size: end - payload, end, segments: 1, complete: false })
    }

    /// Returns the end of the joined payload in the frame, in bytes.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Returns the payload bytes of a segment.
    pub(super) fn segment_size(&self) -> u16 {
        // An IP packet's length field has 16 bits.
        self.size as u16
    }

    /// Returns how many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.segments
    }

    /// Appends the payload of `next`, a whole frame, if it continues `frame`. Returns whether it did.
    pub(super) fn append(&mut self, frame: &mut [u8], next: &[u8], ethertype: u16, trusted: bool) -> bool {
        if self.complete || !self.is_continued_by(frame, next) {
            return false;
        }
        let Some(Place { transport, payload, end }) = place(next, self.network, ethertype) else {
            return false;
        };
        let len = end - payload;
        if (transport, payload) != (self.transport, self.payload)
            || len > self.size
            || self.end + len - self.network > MAX_PACKET
            || !is_intact(next, self.network, transport, end, trusted)
        {
            return false;
        }
        let Some(room) = frame.get_mut(self.end..self.end + len) else { return false };
        room.copy_from_slice(&next[payload..end]);
        self.end += len;
        self.segments += 1;
        self.complete = len < self.size;
        frame[transport + 13] |= next[transport + 13] & PSH;
        true
    }

    /// Returns whether the headers are those of the next segment.
    fn is_continued_by(&self, frame: &[u8], next: &[u8]) -> bool {
        let Joined { network, transport, payload, .. } = *self;
        if next.len() <= payload {
            return false;
        }
        let equal = |from: usize, to: usize| frame[from..to] == next[from..to];
        let ip = match frame[network] >> 4 {
            // All but total length, identification and header checksum.
            4 => {
                equal(0, network + 2)
                    && equal(network + 6, network + 10)
                    && equal(network + 12, network + IPV4_HEADER)
            }
            _ => equal(0, network + 4) && equal(network + 6, network + IPV6_HEADER),
        };
        let sequence = |bytes: &[u8]| bytes[transport + 4..].first_chunk().map(|n| u32::from_be_bytes(*n));
        let wanted = sequence(frame).map(|first| first.wrapping_add((self.end - payload) as u32));
        // All but sequence number, flags and checksum; `place` has looked at the flags.
        ip && equal(transport, transport + 4)
            && equal(transport + 8, transport + 13)
            && equal(transport + 14, transport + 16)
            && equal(transport + 18, payload)
            && sequence(next) == wanted
    }

    /// Writes the lengths, and the IPv4 header's sum, of all segments together.
    pub(super) fn finish(&self, frame: &mut [u8]) {
        let network = self.network;
        let total = self.end - network;
        if frame[network] >> 4 == 4 {
            frame[network + 2..network + 4].copy_from_slice(&(total as u16).to_be_bytes());
            frame[network + 10..network + 12].fill(0);
            let sum = Sum::default().add(&frame[network..network + IPV4_HEADER]).checksum();
            frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let len = (total - IPV6_HEADER) as u16;
            frame[network + 4..network + 6].copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// Finds a segment with data whose only flags are ACK and PSH, behind an IP header without options or extension headers.
fn place(frame: &[u8], network: usize, ethertype: u16) -> Option<Place> {
    let packet = frame.get(network..)?;
    let word =
        |at: usize| packet.get(at..at + 2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    let (header, total) = match (ethertype, packet.first()?) {
        // Not a fragment: neither MF nor an offset.
        (ETHERTYPE_IPV4, 0x45) if word(6)? & 0x3fff == 0 && packet.get(9) == Some(&TCP) => {
            (IPV4_HEADER, word(2)?)
        }
        (ETHERTYPE_IPV6, first) if first >> 4 == 6 && packet.get(6) == Some(&TCP) => {
            (IPV6_HEADER, IPV6_HEADER + word(4)?)
        }
        _ => return None,
    };
    let segment = packet.get(..total)?.get(header..)?;
    let (offset, flags) = (*segment.get(12)?, *segment.get(13)?);
    let data = usize::from(offset >> 4) * 4;
    (offset & 0x0f == 0 && flags & !PSH == ACK && data >= TCP_HEADER && data < segment.len()).then_some(())?;
    let transport = network + header;
    Some(Place { transport, payload: transport + data, end: network + total })
}

/// Returns whether the sums of a segment that [`place`] found are right.
fn is_intact(frame: &[u8], network: usize, transport: usize, end: usize, trusted: bool) -> bool {
    let header = &frame[network..transport];
    let (valid, addresses) = match header.len() {
        IPV4_HEADER => (Sum::default().add(header).checksum() == 0, &header[12..]),
        _ => (true, &header[8..]),
    };
    let segment = &frame[transport..end];
    valid
        && (trusted || {
            // At most 65,535 bytes.
            let pseudo = Sum::default().add(addresses).add_word(TCP.into()).add_word(segment.len() as u16);
            pseudo.add(segment).checksum() == 0
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NETWORK: usize = 14;
    const PAYLOAD: [u8; 100] = [0x5a; 100];

    /// Makes a frame with right sums, then changes it.
    fn frame(v6: bool, sequence: u32, payload: &[u8], flags: u8) -> Vec<u8> {
        let mut tcp = vec![0x13, 0x88, 0x9c, 0x40];
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 9, 0x80, flags, 1, 0, 0, 0, 0, 0]);
        tcp.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        tcp.extend(payload);
        let mut ip = match v6 {
            false => {
                let mut ip =
                    vec![0x45, 0, 0, 0, sequence as u8, 7, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
                ip[2..4].copy_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
                let sum = Sum::default().add(&ip).checksum();
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                ip
            }
            true => {
                let mut ip = vec![0x60, 0, 0, 0, 0, 0, TCP, 64];
                ip[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
                ip.extend([0xfd; 32]);
                ip
            }
        };
        let addresses = if v6 { &ip[8..] } else { &ip[12..] };
        let pseudo = Sum::default().add(addresses).add_word(TCP.into()).add_word(tcp.len() as u16);
        let sum = pseudo.add(&tcp).checksum();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![2; 12];
        frame.extend(if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }.to_be_bytes());
        frame.append(&mut ip);
        frame.append(&mut tcp);
        frame
    }

    fn ethertype(v6: bool) -> u16 {
        if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
    }

    /// Joins frames, and returns the super-frame and how many of them it has.
    fn join(frames: &[Vec<u8>], v6: bool) -> Option<(Vec<u8>, usize)> {
        let mut buffer = vec![0; 70_000];
        buffer[..frames[0].len()].copy_from_slice(&frames[0]);
        let mut joined = Joined::begin(&buffer[..frames[0].len()], NETWORK, ethertype(v6), false)?;
        for next in &frames[1..] {
            if !joined.append(&mut buffer, next, ethertype(v6), false) {
                break;
            }
        }
        joined.finish(&mut buffer);
        buffer.truncate(joined.end());
        Some((buffer, joined.segments()))
    }

    #[test]
    fn segments_in_order_become_one() {
        for v6 in [false, true] {
            let at = u32::MAX - 150;
            let sequence = |n: u32| at.wrapping_add(n * 100);
            let frames: Vec<_> = (0..5).map(|n| frame(v6, sequence(n), &[n as u8; 100], ACK)).collect();
            let (mut joined, segments) = join(&frames, v6).expect("segments that can be joined");
            assert_eq!(segments, 5);
            let payload: Vec<u8> = (0..5).flat_map(|n| [n as u8; 100]).collect();
            let mut whole = frame(v6, at, &payload, ACK);
            // The sum of the first segment stays: the link has verified all of them.
            let transport = if v6 { 54 } else { 34 };
            whole[transport + 16..transport + 18].fill(0);
            joined[transport + 16..transport + 18].fill(0);
            assert_eq!(joined, whole);
        }
    }

    #[test]
    fn a_short_segment_is_the_last_and_a_push_is_kept() {
        for v6 in [false, true] {
            let [a, b] = [frame(v6, 0, &PAYLOAD, ACK), frame(v6, 100, &PAYLOAD, ACK | PSH)];
            let [c, d] = [frame(v6, 200, &PAYLOAD, ACK), frame(v6, 100, &PAYLOAD[..60], ACK)];
            let e = frame(v6, 160, &PAYLOAD, ACK);
            let (pushed, segments) = join(&[a.clone(), b, c], v6).expect("a segment");
            assert_eq!((segments, pushed[if v6 { 54 } else { 34 } + 13]), (3, ACK | PSH));
            assert_eq!(join(&[a, d, e], v6).expect("a segment").1, 2);
        }
    }

    #[test]
    fn what_differs_or_is_damaged_stays_apart() {
        for v6 in [false, true] {
            let first = frame(v6, 0, &PAYLOAD, ACK);
            let next = frame(v6, 100, &PAYLOAD, ACK);
            assert_eq!(join(&[first.clone(), next.clone()], v6).expect("a segment").1, 2);
            // One bit of any byte: the sums find it, or the headers are those of another packet. The identification
            // and the sum of IPv4's header change together, or the sum is wrong.
            for at in 0..next.len() {
                let mut changed = next.clone();
                changed[at] ^= 1;
                assert_eq!(join(&[first.clone(), changed], v6).expect("a segment").1, 1, "byte {at}");
            }
            for other in [
                frame(v6, 101, &PAYLOAD, ACK),
                frame(v6, 100, &[], ACK),
                frame(v6, 100, &[0; 101], ACK),
                frame(v6, 100, &PAYLOAD, ACK | 1),
                frame(v6, 100, &PAYLOAD, ACK | 0x20),
                frame(v6, 100, &PAYLOAD, ACK | 0x40),
                frame(!v6, 100, &PAYLOAD, ACK),
                next[..40].to_vec(),
                Vec::new(),
            ] {
                assert_eq!(join(&[first.clone(), other.clone()], v6).expect("a segment").1, 1, "{other:?}");
            }
            for alone in [frame(v6, 0, &[], ACK), frame(v6, 0, &PAYLOAD, 2), frame(v6, 0, &PAYLOAD, ACK | 4)]
            {
                assert!(join(&[alone], v6).is_none());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(
            v6: bool,
            changes in proptest::collection::vec((0..2usize, 0..140usize, any::<u8>()), 0..8),
            lengths in (0..160usize, 0..160usize),
            trusted: bool,
        ) {
            let mut frames = [frame(v6, 0, &PAYLOAD, ACK), frame(v6, 100, &PAYLOAD, ACK)];
            for (of, at, value) in changes {
                frames[of][at] = value;
            }
            let [first, next] = &mut frames;
            first.truncate(lengths.0.max(120));
            next.truncate(lengths.1);
            let mut buffer = first.clone();
            buffer.resize(70_000, 0);
            let kind = ethertype(v6);
            if let Some(mut joined) = Joined::begin(first, NETWORK, kind, trusted) {
                let one = joined.end();
                prop_assert!(one <= first.len());
                let appended = joined.append(&mut buffer, next, kind, trusted);
                prop_assert_eq!(appended, joined.end() > one);
                joined.finish(&mut buffer);
            }
        }
    }

    #[test]
    fn a_super_frame_fits_its_length_field() {
        for v6 in [false, true] {
            let frames: Vec<_> = (0..60).map(|n| frame(v6, n * 1400, &[0; 1400], ACK)).collect();
            let (joined, segments) = join(&frames, v6).expect("a segment");
            assert_eq!(segments, 46);
            assert!(joined.len() - NETWORK <= MAX_PACKET);
        }
    }
}
