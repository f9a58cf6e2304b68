//! The wire segments inside an uncut (GSO) TCP frame, so that a loss hits one of them and not 64
//! KiB at once.
//!
//! Theory of operation: a frame with a virtio-net header that announces TCP segmentation stands for `count`
//! segments, as a network card would put them on the wire. Any run of neighbours among them can be written out
//! as a frame of its own, again uncut where it is more than one: what a receiving card's GRO would make of it.
//! The checksum field then still holds what the kernel left there, the pseudo-header's sum with the
//! length (linux/virtio_net.h, VIRTIO_NET_HDR_F_NEEDS_CSUM), so that only the length's share changes. No I/O.

/// Bytes of `struct virtio_net_hdr`, linux/virtio_net.h.
pub const VNET_HEADER: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Offsets in an uncut TCP frame, from the virtio-net header's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    network: usize,
    transport: usize,
    payload: usize,
    length: usize,
    mss: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn native(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_ne_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])))
}

impl Cut {
    /// Returns the cuts of this Ethernet frame; `None` for a single segment, or for a frame that is
    /// not cut as TCP.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let kind = *frame.get(1)? & !GSO_ECN;
        if *frame.first()? & NEEDS_CSUM == 0 || !matches!(kind, GSO_TCPV4 | GSO_TCPV6) {
            return None;
        }
        let mss = native(frame, 4)?;
        let network = VNET_HEADER + 14;
        let transport = VNET_HEADER + native(frame, 6)?;
        let payload = transport + usize::from(*frame.get(transport + 12)? >> 4) * 4;
        let cut = Self { network, transport, payload, length: frame.len(), mss };
        // A VLAN tag in the frame would move the network header: such frames pass whole.
        let plain = matches!(word(frame, VNET_HEADER + 12)?, 0x0800 | 0x86dd);
        (plain && mss > 0 && network < transport && payload < frame.len() && cut.count() > 1).then_some(cut)
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        (self.length - self.payload).div_ceil(self.mss)
    }

    /// Returns the segment's length on the wire in bytes, its link header included.
    pub fn wire_length(&self, segment: usize) -> usize {
        let (from, to) = self.bounds(segment, segment + 1);
        self.payload - VNET_HEADER + to - from
    }

    fn bounds(&self, first: usize, end: usize) -> (usize, usize) {
        (self.payload + first * self.mss, (self.payload + end * self.mss).min(self.length))
    }

    /// Writes the frame that carries the segments from `first` to before `end` to `out`.
    pub fn write(&self, frame: &[u8], first: usize, end: usize, out: &mut Vec<u8>) {
        let (from, to) = self.bounds(first, end);
        out.clear();
        out.extend_from_slice(&frame[..self.payload]);
        out.extend_from_slice(&frame[from..to]);
        // The kernel gives the length of the frame's linear part, which may be longer than this frame.
        out[2..4].copy_from_slice(&((self.payload - VNET_HEADER) as u16).to_ne_bytes());
        if to - from <= self.mss {
            // One segment: there is nothing to cut, and the checksum is still to complete.
            out[1] = 0;
            out[4..6].fill(0);
        }
        let tcp = self.transport;
        let skipped = (first * self.mss) as u32;
        let sequence = u32::from_be_bytes([out[tcp + 4], out[tcp + 5], out[tcp + 6], out[tcp + 7]]);
        out[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(skipped).to_be_bytes());
        if end < self.count() {
            out[tcp + 13] &= !FIN_PSH;
        }
        if first > 0 {
            out[tcp + 13] &= !CWR;
        }
        let (before, after) = (self.length - tcp, out.len() - tcp);
        let sum = word(out, tcp + 16).unwrap_or_default();
        out[tcp + 16..tcp + 18].copy_from_slice(&adjusted(sum, before as u16, after as u16).to_be_bytes());
        self.write_network(out, first);
    }

    fn write_network(&self, out: &mut [u8], first: usize) {
        let ip = self.network;
        let length = out.len() - ip;
        if out[ip] >> 4 == 6 {
            out[ip + 4..ip + 6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
            return;
        }
        out[ip + 2..ip + 4].copy_from_slice(&(length as u16).to_be_bytes());
        let id = word(out, ip + 4).unwrap_or_default().wrapping_add(first as u16);
        out[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
        out[ip + 10..ip + 12].fill(0);
        let sum = !folded(
            out[ip..self.transport]
                .chunks_exact(2)
                .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
                .sum(),
        );
        out[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The one's complement sum (RFC 1071) in which one word is replaced by another (RFC 1624, without the
/// complement: the field holds a sum, not a checksum).
fn adjusted(sum: u16, old: u16, new: u16) -> u16 {
    folded(u32::from(sum) + u32::from(!old) + u32::from(new))
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1448;

    /// Returns an uncut frame with `length` bytes of payload, as the kernel hands it over.
    fn frame(v6: bool, length: usize) -> Vec<u8> {
        let ip = if v6 { 40 } else { 20 };
        let mut frame = vec![NEEDS_CSUM, if v6 { GSO_TCPV6 } else { GSO_TCPV4 }];
        for word in [14 + ip + 32 + 2 * MSS, MSS, 14 + ip, 16] {
            frame.extend((word as u16).to_ne_bytes());
        }
        frame.extend([2; 12]);
        frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        let at = frame.len();
        let total = ip + 32 + length;
        if v6 {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(((total - 40) as u16).to_be_bytes());
            frame.extend([6, 64]);
            frame.extend((0..32).map(|n| n * 7));
        } else {
            frame.extend([0x45, 0]);
            frame.extend((total as u16).to_be_bytes());
            frame.extend([0xff, 0xfe, 0x40, 0, 64, 6, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6]);
        }
        frame.extend([
            0x1f,
            0x90,
            0xc0,
            0x01,
            0xff,
            0xff,
            0xff,
            0,
            1,
            2,
            3,
            4,
            0x80,
            0x19 | CWR,
            1,
            0,
            0,
            0,
            0,
            0,
        ]);
        frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        let sum = pseudo(&frame[at..], 32 + length);
        frame[at + ip + 16..at + ip + 18].copy_from_slice(&sum.to_be_bytes());
        frame.extend((0..length).map(|n| (n % 251) as u8));
        frame
    }

    /// Returns the sum over the pseudo-header (RFC 9293, section 3.1).
    fn pseudo(ip: &[u8], tcp_length: usize) -> u16 {
        let addresses = if ip[0] >> 4 == 6 { &ip[8..40] } else { &ip[12..20] };
        let sum: u32 = addresses.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        folded(sum + 6 + tcp_length as u32)
    }

    #[test]
    fn single_segments_and_other_protocols_are_not_cut() {
        assert_eq!(Cut::of(&frame(false, MSS)), None);
        assert_eq!(Cut::of(&[]), None);
        let mut udp = frame(false, 9000);
        udp[1] = 5;
        assert_eq!(Cut::of(&udp), None);
        let whole = frame(false, 9000);
        assert!((0..80).all(|n| Cut::of(&whole[..n]).is_none()));
    }

    #[test]
    fn the_segments_are_the_payload_in_order_and_each_is_consistent() {
        for v6 in [false, true] {
            let whole = frame(v6, 10_000);
            let cut = Cut::of(&whole).unwrap();
            assert_eq!(cut.count(), 7);
            let runs = [(0, 1), (1, 4), (4, 7)];
            let (mut out, mut bytes) = (Vec::new(), Vec::new());
            for (first, end) in runs {
                cut.write(&whole, first, end, &mut out);
                let (ip, tcp) = (VNET_HEADER + 14, cut.transport);
                let length = out.len() - ip;
                assert_eq!(native(&out, 2), Some(cut.payload - VNET_HEADER), "packet(7) takes no other");
                if v6 {
                    assert_eq!(word(&out, ip + 4), Some((length - 40) as u16));
                } else {
                    assert_eq!(word(&out, ip + 2), Some(length as u16));
                    assert_eq!(word(&out, ip + 4), Some(0xfffe_u16.wrapping_add(first as u16)));
                    let sum =
                        out[ip..ip + 20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
                    assert_eq!(folded(sum), 0xffff, "the header's checksum");
                }
                assert_eq!(word(&out, tcp + 16), Some(pseudo(&out[ip..], out.len() - tcp)));
                let sequence = u32::from_be_bytes(out[tcp + 4..tcp + 8].try_into().unwrap());
                assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add((first * MSS) as u32));
                let (fin_psh, cwr) = (out[tcp + 13] & FIN_PSH, out[tcp + 13] & CWR);
                assert_eq!(
                    (fin_psh, cwr),
                    (if end == 7 { FIN_PSH } else { 0 }, if first == 0 { CWR } else { 0 })
                );
                assert_eq!(out[1] == 0, end - first == 1, "only runs are still to be cut");
                bytes.extend_from_slice(&out[cut.payload..]);
            }
            assert_eq!(bytes, whole[cut.payload..]);
            assert_eq!(cut.wire_length(0), cut.payload - VNET_HEADER + MSS);
            assert_eq!(cut.wire_length(6), cut.payload - VNET_HEADER + 10_000 - 6 * MSS);
        }
    }
}
